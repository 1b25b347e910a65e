"""The network that samples new style codes (Yang et al. 2022, arXiv 2203.13248, §3.4): noise → flat codes.

Fitting it to a table of codes is `training.dualstylegan.fit_sampler`.
"""

from __future__ import annotations

from torch import nn

from .layers import EqualLinear, PixelNorm
from .stylegan2 import MAPPING_LR

DEPTH = 4


def style_sampler(width: int) -> nn.Sequential:
    """Gaussian noise [B,width] → codes [B,width], to be reshaped to structure and colour codes [B,2,width/2].

    Built as StyleGAN's mapping network is, but for its last layer, which is linear: codes may be negative.
    """
    return nn.Sequential(PixelNorm(), *(EqualLinear(width, width, lr_mul=MAPPING_LR, activate=i < DEPTH - 1)
                                        for i in range(DEPTH)))
