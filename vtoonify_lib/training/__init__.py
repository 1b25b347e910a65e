"""Training from zero: perception (parsing, landmarks), the StyleGAN backbones, and VToonify itself.

Every run lives in a folder, checkpoints itself every few minutes and goes on where it stopped. Randomness is a function
of (seed, iteration), so an interrupted run ends in the same weights as an uninterrupted one.
"""
