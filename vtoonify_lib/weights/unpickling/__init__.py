"""Read the published `.pt`, `.pth` and `.npy` files, which are pickles, without running anything that is in them.

A pickle is a program for a small stack machine, and some of its instructions call whatever the file names. Here it is
decoded by `pickletools`, which executes nothing, and interpreted by a machine (`machine`) whose outside world is a
short table of our own checked constructors (`values`). Anything else is refused by name. Containers are in `files`.

Why not `torch.load(weights_only=True)` alone: it admits much more than these files contain, and its own holes (legacy
tar until torch 2.5; memory corruption until 2.9, GHSA-63cw-57p8-fm3p) would be ours, since we run on torch 2.6. The
tests hold the two against each other. Nothing is converted or written here; see `published`.
"""

from .files import read_checkpoint, read_npy

__all__ = ["read_checkpoint", "read_npy"]
