"""pSp's style encoder (Richardson et al. 2021, arXiv 2008.00951) on an IR-SE-50, under the published names.

A pyramid of three feature maps, each style read from one of them: coarse styles from the smallest, fine ones from the
largest. The published one answers in z+, as an offset from the average code. Our own style encoder is in `encoders`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import PUBLISHED, VToonifyError
from . import latents
from .layers import EqualLinear, channels_last

IMAGE_SIZE = 256  # of the aligned face
WIDTH = 64  # channels of the first stage
N_STYLES = latents.n_latent(PUBLISHED.out_size)
STAGES = ((1, 3), (2, 4), (4, 14), (8, 3))  # (multiple of WIDTH, blocks) of IR-50; each stage halves the size
COARSEST = 16  # the smallest map of the pyramid has this fraction of the picture's side
MIDDLE, FINE = 3, 7  # from these styles on, the middle and the largest map are read
REDUCTION = 16  # of channels in squeeze-and-excitation


class SqueezeExcite(nn.Module):
    """Channels weighted by a glance at the whole map, [B,C,H,W] → same."""

    def __init__(self, channels: int):
        super().__init__()
        hidden = max(channels // REDUCTION, 1)
        self.fc1 = nn.Conv2d(channels, hidden, 1, bias=False)
        self.fc2 = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True)))))


class ResidualUnit(nn.Module):
    """IR-SE block, normalised before the first convolution: [B,I,H,W] → [B,O,H/stride,W/stride]."""

    def __init__(self, c_in: int, c_out: int, stride: int):
        super().__init__()
        self.shortcut_layer = nn.MaxPool2d(1, stride)  # takes every stride-th pixel
        if c_in != c_out:
            self.shortcut_layer = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(c_in), nn.Conv2d(c_in, c_out, 3, padding=1, bias=False), nn.PReLU(c_out),
            nn.Conv2d(c_out, c_out, 3, stride, padding=1, bias=False), nn.BatchNorm2d(c_out), SqueezeExcite(c_out))

    def forward(self, x: Tensor) -> Tensor:
        return self.res_layer(x) + self.shortcut_layer(x)


class StyleHead(nn.Module):
    """A feature map of side `side`, halved until one pixel is left → one code [B,D]."""

    def __init__(self, channels: int, side: int):
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(int(math.log2(side))):
            layers += [nn.Conv2d(channels, channels, 3, stride=2, padding=1), nn.LeakyReLU()]
        self.convs = nn.Sequential(*layers)
        self.linear = EqualLinear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.convs(x).flatten(1))


class GradualStyleEncoder(nn.Module):
    """Aligned face [B,3,S,S] in [−1,1], S a power of two up to IMAGE_SIZE → offsets [B,n_styles,8·width].

    width  channels of the first stage; codes have eight times as many numbers
    """

    def __init__(self, n_styles: int = N_STYLES, width: int = WIDTH):
        super().__init__()
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.PReLU(width))
        units, c = [], width
        for multiple, blocks in STAGES:
            for i in range(blocks):
                units.append(ResidualUnit(c, width * multiple, stride=1 if i else 2))
                c = width * multiple
        self.body = nn.Sequential(*units)
        self.styles = nn.ModuleList(StyleHead(c, (IMAGE_SIZE // COARSEST) << level(i)) for i in range(n_styles))
        self.latlayer1 = nn.Conv2d(4 * width, c, 1)
        self.latlayer2 = nn.Conv2d(2 * width, c, 1)

    def forward(self, image: Tensor) -> Tensor:
        maps = self._pyramid(channels_last(image))
        return torch.stack([head(maps[level(i)]) for i, head in enumerate(self.styles)], dim=1)

    def _pyramid(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Feature maps at 1/16, 1/8 and 1/4, the smaller ones added to the larger."""
        x, taps, end = self.input_layer(image), [], 0
        for _, blocks in STAGES:
            x = self.body[end : end + blocks](x)
            taps.append(x)
            end += blocks
        _, quarter, eighth, coarse = taps
        middle = add_enlarged(coarse, self.latlayer1(eighth))
        return coarse, middle, add_enlarged(middle, self.latlayer2(quarter))


def level(style: int) -> int:
    """Which map of the pyramid a style is read from: 0 the smallest, 2 the largest."""
    return int(style >= MIDDLE) + int(style >= FINE)


def add_enlarged(small: Tensor, large: Tensor) -> Tensor:
    """Sum of two maps at the size of the second, corner on corner."""
    return F.interpolate(small, size=large.shape[2:], mode="bilinear", align_corners=True) + large


class PSP(nn.Module):
    """Aligned face [B,3,256,256] in [−1,1] → z+ [B,n_styles,8·width], one code a layer; `VToonify.map` makes w+ of it.

    State dict: `encoder.…` as in the published checkpoint's `state_dict`, and its `latent_avg` [n_styles,8·width].
    """

    image_size = IMAGE_SIZE

    def __init__(self, n_styles: int = N_STYLES, width: int = WIDTH):
        super().__init__()
        self.encoder = GradualStyleEncoder(n_styles, width)
        self.register_buffer("latent_avg", torch.zeros(n_styles, 8 * width))

    def forward(self, image: Tensor) -> Tensor:
        if image.shape[1:] != (3, IMAGE_SIZE, IMAGE_SIZE):
            raise VToonifyError(f"pSp got a picture of shape {list(image.shape)}; expected an aligned face [B,3,"
                                f"{IMAGE_SIZE},{IMAGE_SIZE}]; use faces.crop.align_face(frame, landmarks, "
                                f"{IMAGE_SIZE})")
        return self.latent_avg + self.encoder(image)
