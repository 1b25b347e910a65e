"""How a photograph's own detail reaches the picture, at its full size, in a network that computes at input size.

The published VToonify knows the photograph at input size only, so that all that is finer has to be invented. Where a
look keeps much of the photograph, that is hard to learn, blurs, and boils in clips. Here the photograph's pixels travel
beside the input, each input pixel's k×k as channels (space-to-depth, as in ESPCN, arXiv 1609.05158). The encoder reads
them; and they are carried into the picture along a flow that the network draws (appearance flow, arXiv 1605.03557), and
blended by a mask with what the generator draws: y = m · photograph(p + flow(p)) + (1 − m) · generator(p).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CARRIED = 0.75  # what the mask begins with: the photograph as it is, a quarter of the generator over it


class DetailHead(nn.Module):
    """Flow, mask and finest pixels from the generator's features.

    coarse, fine  channels of the feature that the flow is drawn from, and of the generator's last one
    scale         picture's pixels per input pixel; finer: per pixel of the generator's picture
    """

    def __init__(self, coarse: int, fine: int, scale: int, finer: int):
        super().__init__()
        self.scale, self.finer = scale, finer
        self.flow = nn.Conv2d(coarse, 2, 3, padding=1)
        self.pixels = nn.Conv2d(fine, 4 * finer**2, 3, padding=1)
        for conv in (self.flow, self.pixels):
            nn.init.zeros_(conv.weight)
            nn.init.zeros_(conv.bias)
        nn.init.constant_(self.pixels.bias[3 * finer**2:], math.log(CARRIED / (1 - CARRIED)))

    def forward(self, photo: Tensor, coarse: Tensor, fine: Tensor, picture: Tensor) -> tuple[Tensor, Tensor]:
        """photo [B,3,S,S], features, picture [B,3,S/finer,S/finer] of the generator → picture [B,3,S,S], the flow."""
        return blended(photo, self.flow(coarse), self.pixels(fine), picture, self.scale, self.finer)


def blended(photo: Tensor, flow: Tensor, pixels: Tensor, picture: Tensor, scale: int, finer: int
            ) -> tuple[Tensor, Tensor]:
    """What `DetailHead` does after its convolutions.

    flow    [B,2,h,w] from each place to its place in the photograph, x and y in input pixels
    pixels  [B,4·finer²,·,·]: what is added to the picture, and the mask's logits, depth to space
    """
    flow = flow.float()
    added, mask = F.pixel_shuffle(pixels.float(), finer).split((3, 1), dim=1)
    if finer > 1:
        picture = F.interpolate(picture, scale_factor=float(finer), mode="bilinear", align_corners=False)
    return torch.lerp(picture + added, warp(photo, flow, scale), mask.sigmoid()), flow


def warp(photo: Tensor, flow: Tensor, scale: int) -> Tensor:
    """The photograph [B,3,H,W] fetched along a coarse flow [B,2,h,w], which is in `scale` pixels of it.

    Bicubic: a bilinear fetch between pixels blurs. The same weights drew .66 of the photographs' sharpness, not .53.
    """
    height, width = photo.shape[2:]
    move = F.interpolate(flow, (height, width), mode="bilinear", align_corners=False)
    there = (torch.arange(n, device=photo.device, dtype=move.dtype).mul_(2).add_(1 - n).div_(n)
             for n in (width, height))
    x, y = next(there), next(there)
    grid = torch.stack([move[:, 0] * (2 * scale / width) + x, move[:, 1] * (2 * scale / height) + y[:, None]], -1)
    return F.grid_sample(photo.to(grid.dtype), grid, mode="bicubic", padding_mode="border", align_corners=False)


def with_detail(x: Tensor, photo: Tensor, detail: int) -> Tensor:
    """Network input [B,22,h,w] and the photograph [B,3,detail·h,detail·w] → [B,22+3·detail²,h,w]."""
    return torch.cat([x, F.pixel_unshuffle(photo.to(x.dtype), detail)], 1)


def detail_of(x: Tensor, channels: int, detail: int) -> Tensor:
    """The photograph in the channels after the first `channels` of a network's input; see `with_detail`."""
    return F.pixel_shuffle(x[:, channels:], detail)
