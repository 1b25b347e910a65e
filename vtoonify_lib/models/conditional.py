"""Discriminators for VToonify-D (paper §4.2), conditioned on style and degree: StyleGAN2's, and a PatchGAN.

The condition enters by projection (Miyato & Koyama 2018, arXiv 1802.05637): the logit is the product of the last
layer's vector and the condition's code. For VToonify-T there is the unconditional `stylegan2.Discriminator`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import GeneratorConfig, VToonifyError
from .layers import SLOPE, channels_last
from .stylegan2 import Discriminator

CODE = 64  # length of the degree's code, and of the style's
DETAIL_GAIN = 4.0  # of the patch discriminator's second input, the picture less its local mean


class Conditioned(nn.Module):
    """Code of the condition: a style degree and a style.

    degree  structure degree in [0,1]: a float, or one for each picture as [B] or [B,1]
    style   index of the style, 0 … n_styles−1: an int, or one for each picture as an integer tensor [B]
    """

    def _learn_conditions(self, n_styles: int) -> None:
        if n_styles < 1:
            raise VToonifyError(f"conditional discriminator got {n_styles} styles; expected 1 or more")
        self.label_mapper = nn.Sequential(
            nn.Linear(1, CODE), nn.LeakyReLU(SLOPE), nn.Linear(CODE, CODE), nn.LeakyReLU(SLOPE), nn.Linear(CODE, CODE))
        self.style_mapper = nn.Embedding(n_styles, CODE)

    def condition(self, degree: Tensor | float, style: Tensor | int, batch: int) -> Tensor:
        """→ [B, 2·CODE]"""
        like, n = self.style_mapper.weight, self.style_mapper.num_embeddings
        if isinstance(style, int) and not 0 <= style < n:
            raise VToonifyError(f"style index is {style}; this discriminator knows 0 … {n - 1}")
        degree = _one_each(torch.as_tensor(degree, dtype=like.dtype, device=like.device), batch, "degree")
        style = _one_each(torch.as_tensor(style, device=like.device), batch, "style index")
        return torch.cat([self.label_mapper(degree[:, None]), self.style_mapper(style)], dim=1)


class ConditionalDiscriminator(Discriminator, Conditioned):
    """Picture, style degree and style index → realness logits [B,1] = Σ h(picture)·c(degree, style) / √(2·CODE).

    image [B,3,S,S] in [−1,1]; degree and style as in `Conditioned`. The paper's; it needs many thousand iterations.
    """

    def __init__(self, config: GeneratorConfig, n_styles: int):
        super().__init__(config, outputs=2 * CODE)
        self._learn_conditions(n_styles)

    def forward(self, image: Tensor, degree: Tensor | float, style: Tensor | int) -> Tensor:
        condition = self.condition(degree, style, image.shape[0])
        return (super().forward(image) * condition).sum(1, keepdim=True) / math.sqrt(2 * CODE)


class ConditionalPatches(Conditioned):
    """The same for every patch of 28 px (PatchGAN, arXiv 1611.07004) → logits [B,1,H/4,W/4].

    image [B,3,H,W] in [−1,1], sides multiples of 4; degree and style as in `Conditioned`. It is meant to
    sharpen trained networks: it reads the picture and, amplified, its detail (less the local mean). In 200 iterations
    it separates all our drawings from their renders, where StyleGAN2's is right three times of four. It does not train
    better, though: 1,500 iterations with it gained studio-d 0.2 dB on renders, and paled real faces.
    """

    def __init__(self, n_styles: int, width: int = 32):
        super().__init__()
        self._learn_conditions(n_styles)
        self.convs = nn.Sequential(
            *_patch_conv(6, width, 3, 1), *_patch_conv(width, 2 * width, 4, 2),
            *_patch_conv(2 * width, 3 * width, 4, 2), *_patch_conv(3 * width, 3 * width, 3, 1))
        self.logits = nn.Conv2d(3 * width, 1, 3, padding=1)
        self.project = nn.Conv2d(3 * width, 2 * CODE, 1)

    def forward(self, image: Tensor, degree: Tensor | float, style: Tensor | int) -> Tensor:
        condition = self.condition(degree, style, image.shape[0])
        mean = F.interpolate(F.avg_pool2d(image, 4), image.shape[2:], mode="bilinear")
        h = self.convs(channels_last(torch.cat([image, DETAIL_GAIN * (image - mean)], dim=1)))
        return self.logits(h) + (self.project(h) * condition[:, :, None, None]).mean(1, keepdim=True)


def _patch_conv(inputs: int, outputs: int, kernel: int, stride: int) -> tuple[nn.Module, nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2)
    nn.init.kaiming_normal_(conv.weight, SLOPE)
    nn.init.zeros_(conv.bias)
    return conv, nn.LeakyReLU(SLOPE)


def _one_each(value: Tensor, batch: int, what: str) -> Tensor:
    """[B] from a scalar, [1], [B] or [B,1]."""
    if value.numel() not in (1, batch):
        raise VToonifyError(f"{what} has shape {list(value.shape)}; expected one number, or one for each of the "
                            f"{batch} pictures")
    return value.reshape(-1).expand(batch)
