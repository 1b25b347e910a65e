"""The portrait studio: one Gaussian vector → a person → pictures in any style, with exact ground truth.

`people` and `looks` turn z into a person, `styles` says how it is drawn; `kit` and `geometry` shape it, `regions` marks
landmarks and parsing classes on it; `render` draws it with `painter` and `shaders`; `clips` and `speech` let it talk;
`shards` fills a disk with pairs. Nothing here learns, and nothing reads a picture.
"""
