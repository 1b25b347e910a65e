"""Our own two small networks that read a photograph: face parsing and style encoding.

They replace BiSeNet and pSp of the paper at about a hundredth of the cost, and are trained
from zero on renders with exact ground truth. They share no format with the published checkpoints.
Training lives in `training`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import PARSING_CLASSES, VToonifyError
from .layers import channels_last

PARSING_WIDTHS = (16, 32, 64, 96, 128)  # at 1/1, 1/2, …; multiples of 16 suit vector units
MULTIPLE = 8


class ConvNorm(nn.Sequential):
    """3x3 convolution, batch norm, ReLU. Batch norm, not group norm: it folds into the convolution for inference."""

    def __init__(self, c_in: int, c_out: int, stride: int = 1, activate: bool = True):
        layers: list[nn.Module] = [nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False), nn.BatchNorm2d(c_out)]
        super().__init__(*layers, *([nn.ReLU(inplace=True)] if activate else []))


class Residual(nn.Module):
    """relu(x + f(x)), two convolutions at one size, [B,C,H,W] → same."""

    def __init__(self, channels: int):
        super().__init__()
        self.body = nn.Sequential(ConvNorm(channels, channels), ConvNorm(channels, channels, activate=False))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


class ParsingNet(nn.Module):
    """Face parsing: RGB [B,3,H,W] in [−1,1], sides multiples of 8 → logits [B,classes,H,W].

    A U-Net whose decoder adds instead of concatenating, with the global mean as context at the bottom.
    widths: channels at 1/1, 1/2, 1/4, …
    """

    def __init__(self, classes: int = PARSING_CLASSES, widths: tuple[int, ...] = PARSING_WIDTHS):
        super().__init__()
        pairs = list(zip(widths, widths[1:], strict=False))
        self.stem = ConvNorm(3, widths[0])
        self.down = nn.ModuleList()
        for i, (fine, coarse) in enumerate(pairs):  # half size is dear and simple: one convolution less
            deepen = Residual(coarse) if i else ConvNorm(coarse, coarse)
            self.down.append(nn.Sequential(ConvNorm(fine, coarse, stride=2), deepen))
        self.context = nn.Conv2d(widths[-1], widths[-1], 1)
        self.lateral = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for fine, coarse in reversed(pairs))
        self.up = nn.ModuleList(ConvNorm(fine, fine) for fine, _ in reversed(pairs))
        self.head = nn.Conv2d(widths[0], classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        h, w = image.shape[-2:]
        if image.ndim != 4 or image.shape[1] != 3 or h % MULTIPLE or w % MULTIPLE or not h or not w:
            raise VToonifyError(f"parsing got a picture of shape {list(image.shape)}; expected [B,3,H,W] with sides "
                                f"that are multiples of {MULTIPLE}; use faces.crop.plan_crop(frame.shape, landmarks, "
                                "in_size) and faces.crop.cut(frame, plan)")
        features = [self.stem(channels_last(image))]
        for stage in self.down:
            features.append(stage(features[-1]))
        x = features.pop()
        x = x + self.context(x.mean((2, 3), keepdim=True))
        for lateral, up in zip(self.lateral, self.up, strict=True):
            fine = features.pop()
            # The 1x1 runs before the up-sampling: the same numbers for a quarter of the work.
            x = up(fine + F.interpolate(lateral(x), size=fine.shape[2:], mode="bilinear", align_corners=False))
        return self.head(x)


class NormBlock(nn.Module):
    """Pre-activation residual block with group norm: works at any batch size. [B,C,H,W] → same."""

    def __init__(self, channels: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(channels // 8, channels), nn.SiLU(inplace=True), nn.Conv2d(channels, channels, 3, padding=1),
            nn.GroupNorm(channels // 8, channels), nn.SiLU(inplace=True), nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class StyleEncoder(nn.Module):
    """Style code of a face: aligned RGB [B,3,S,S] in [−1,1] → w+ [B,n_latent,style_dim] = latent_avg + offset.

    image_size  S the network works at, a multiple of 32; other square sizes are resized to it
    width       channels at half size, a multiple of 8; 2, 3, 4 and 4 times as many further down
    latent_avg  buffer [n_latent,style_dim]: set it to the generator's mean code before training
    """

    HIDDEN = 256
    FIRST_OFFSET = 0.01  # the code starts next to the average face

    def __init__(self, image_size: int, n_latent: int, style_dim: int, width: int = 32):
        super().__init__()
        if image_size % 32 or image_size < 32 or width % 8:
            raise VToonifyError(f"style encoder got image_size {image_size} and width {width}; expected "
                                "multiples of 32 and of 8")
        self.image_size, self.n_latent, self.style_dim = image_size, n_latent, style_dim
        widths = [width * m for m in (1, 2, 3, 4, 4)]
        stages: list[nn.Module] = []
        for c_in, c_out in zip([3, *widths], widths, strict=False):
            stages += [nn.Conv2d(c_in, c_out, 3, stride=2, padding=1), NormBlock(c_out)]
        self.body = nn.Sequential(*stages, nn.GroupNorm(widths[-1] // 8, widths[-1]), nn.SiLU(inplace=True))
        self.head = nn.Sequential(nn.Linear(widths[-1] * (image_size // 32) ** 2, self.HIDDEN), nn.SiLU(inplace=True),
                                  nn.Linear(self.HIDDEN, n_latent * style_dim))
        with torch.no_grad():
            self.head[-1].weight.mul_(self.FIRST_OFFSET)
            self.head[-1].bias.zero_()
        self.register_buffer("latent_avg", torch.zeros(n_latent, style_dim))

    def forward(self, image: Tensor) -> Tensor:
        if image.ndim != 4 or image.shape[1] != 3 or image.shape[2] != image.shape[3]:
            raise VToonifyError(f"style encoder got a picture of shape {list(image.shape)}; expected a square face "
                                "[B,3,S,S]; use faces.crop.align_face(frame, landmarks, size)")
        if image.shape[2] != self.image_size:
            image = F.interpolate(image, (self.image_size, self.image_size), mode="bilinear", align_corners=False,
                                  antialias=True)
        offset = self.head(self.body(channels_last(image)).flatten(1))
        return self.latent_avg + offset.reshape(-1, self.n_latent, self.style_dim)
