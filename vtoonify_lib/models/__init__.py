"""Networks: StyleGAN2, DualStyleGAN, VToonify on either, their helpers, and our own small parser and style encoder.

State-dict names are those of the published checkpoints (`tests/golden/` lists them). Models never open files.
"""
