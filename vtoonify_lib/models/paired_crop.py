"""Geometry of paired data: the random affine put on both pictures of a pair, and the crops that simulate a camera.

The transforms are the geometric part of StyleGAN2-ADA (arXiv 2006.06676, appendix B) made mild, as in VToonify's
recipe. Two things differ from the released code on purpose:

* translation really moves the picture: it is a share of its height (the released code draws a share and applies it as
  pixels, so nothing moves);
* sampling: bicubic at twice the density, then a Lanczos-2 filter down to size, with mirrored borders. The released code
  uses ADA's sym6 wavelet filters; ours are shorter and soften a photograph a little (42 dB on an all but identical
  transform; pictures for which nothing was drawn keep every bit).

Matrices act on positions in units of half the picture's height, x to the right, y down, origin in the middle. So one
matrix serves the frame at 128 px, its parsing map and the cartoon at 256 px.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import VToonifyError
from .layers import channels_last, filtered

_LANCZOS_REACH = 4  # taps on either side at double density


@dataclass(frozen=True)
class AffineJitter:
    """Strength of the random affine. Defaults: VToonify's recipe.

    p       probability of each transform (rotations: twice with 1 − √(1−p), so that one of both happens with p)
    shift   largest whole-pixel translation, share of the height (and of the width)
    drift   standard deviation of the sub-pixel translation, share of the height; ADA's 0.125 would tear faces from the
            frame now that it really applies
    scale   standard deviation of log2 of the scale, isotropic and again anisotropic
    angle   largest rotation, degrees
    """

    p: float = 0.2
    shift: float = 0.125
    drift: float = 0.03
    scale: float = 0.1
    angle: float = 45.0


def random_affine(*pictures: Tensor, jitter: AffineJitter | None = None, rng: torch.Generator | None = None
                  ) -> tuple[Tensor, ...]:
    """The same random affine on every picture of a pair: [B,C,H,W] each, any sizes of one shape (128² and 256²)."""
    h, w = min((p.shape[-2:] for p in pictures), key=lambda size: size[0])
    matrix = sample_affine(pictures[0].shape[0], h, w, jitter or AffineJitter(), rng)
    return tuple(apply_affine(p, matrix.to(p.device)) for p in pictures)


def sample_affine(batch: int, height: int, width: int, jitter: AffineJitter, rng: torch.Generator | None = None
                  ) -> Tensor:
    """Random matrices [B,3,3] that carry a position of the result to the position it is read from.

    height, width: the picture whose pixels whole-pixel translations respect.
    """
    device = rng.device if rng is not None else None

    def uniform() -> Tensor:
        return torch.rand(batch, generator=rng, device=device) * 2 - 1

    def normal() -> Tensor:
        return torch.randn(batch, generator=rng, device=device)

    def chance(p: float) -> Tensor:
        return (torch.rand(batch, generator=rng, device=device) < p).float()

    p, pixel = jitter.p, 2 / height
    half_turn = 1 - math.sqrt(1 - p)
    # Flip with probability p/2: a flip is drawn with p, and half of the draws are "no flip".
    m = scaling(1 - 2 * chance(p / 2), torch.ones(batch, device=device))
    moved = chance(p) * pixel
    m = translation(moved * (uniform() * jitter.shift * width).round(),
                    moved * (uniform() * jitter.shift * height).round()) @ m
    zoom = torch.exp2(chance(p) * normal() * jitter.scale)
    m = scaling(zoom, zoom) @ m
    m = rotation(chance(half_turn) * uniform() * math.radians(jitter.angle)) @ m
    stretch = torch.exp2(chance(p) * normal() * jitter.scale)
    m = scaling(stretch, 1 / stretch) @ m
    m = rotation(chance(half_turn) * uniform() * math.radians(jitter.angle)) @ m
    moved = chance(p) * 2 * jitter.drift
    return translation(moved * normal(), moved * normal()) @ m


def apply_affine(x: Tensor, matrix: Tensor) -> Tensor:
    """Resample x [B,C,H,W] by matrices [B,3,3] (result → source); same size, mirrored borders, antialiased."""
    if matrix.shape != (x.shape[0], 3, 3):
        raise VToonifyError(f"got affine matrices of shape {list(matrix.shape)}; expected [{x.shape[0]},3,3]")
    b, c, h, w = x.shape
    aspect = torch.diag(torch.tensor([w / h, 1.0, 1.0], dtype=torch.float32, device=x.device))
    theta = torch.linalg.inv(aspect) @ matrix.to(x.device, torch.float32) @ aspect  # in torch's units, ±1 on both axes
    grid = F.affine_grid(theta[:, :2], [b, c, 2 * h, 2 * w], align_corners=False)
    dense = F.grid_sample(x.float(), grid, mode="bicubic", padding_mode="reflection", align_corners=False)
    dense = F.pad(dense, [_LANCZOS_REACH - 1] * 4, mode="reflect")
    y = filtered(channels_last(dense), _lanczos_kernel().to(x.device), down=2).to(x.dtype)
    still = (matrix == torch.eye(3, device=matrix.device)).all((1, 2)).to(x.device)  # nothing drawn: keep every bit
    return torch.where(still[:, None, None, None], x, y)


def scaling(sx: Tensor, sy: Tensor) -> Tensor:
    """Matrices [B,3,3] that scale by sx and sy [B]."""
    return torch.diag_embed(torch.stack([sx, sy, torch.ones_like(sx)], dim=1))


def translation(tx: Tensor, ty: Tensor) -> Tensor:
    """Matrices [B,3,3] that move by tx and ty [B]."""
    m = torch.eye(3, device=tx.device).repeat(len(tx), 1, 1)
    m[:, 0, 2], m[:, 1, 2] = tx, ty
    return m


def rotation(angle: Tensor) -> Tensor:
    """Matrices [B,3,3] that turn by `angle` [B], radians, from x towards y."""
    m = torch.eye(3, device=angle.device).repeat(len(angle), 1, 1)
    m[:, 0, 0] = m[:, 1, 1] = angle.cos()
    m[:, 1, 0], m[:, 0, 1] = angle.sin(), -angle.sin()
    return m


def _lanczos_kernel() -> Tensor:
    """Lanczos-2 low-pass for halving, [8,8], sums to 1."""
    t = (torch.arange(2 * _LANCZOS_REACH) - _LANCZOS_REACH + 0.5) / 2  # ±0.25, ±0.75, … pixels of the result
    taps = torch.sinc(t) * torch.sinc(t / 2)
    taps = taps / taps.sum()
    return torch.outer(taps, taps)


@dataclass(frozen=True)
class Crop:
    """A window in pixels."""

    top: int
    left: int
    height: int
    width: int


def random_crop(height: int, width: int, share: float = 7 / 8, multiple: int = 8, rng: torch.Generator | None = None
                ) -> Crop:
    """A random window of about `share` of each side (the recipe's 896 of 1024), its sides cut down to a `multiple`."""
    h, w = (max(multiple, int(side * share) // multiple * multiple) for side in (height, width))
    if h > height or w > width:
        raise VToonifyError(f"a frame of {width}×{height} is too small to crop; both sides must be {multiple} or more")
    device = rng.device if rng is not None else None
    top, left = (int(torch.randint(0, n + 1, (), generator=rng, device=device)) for n in (height - h, width - w))
    return Crop(top, left, h, w)


def crop(x: Tensor, window: Crop, scale: int = 1) -> Tensor:
    """Cut the window out of x [...,H,W]; `scale`: how many pixels of x make one of the window's."""
    return x[..., window.top * scale : (window.top + window.height) * scale,
             window.left * scale : (window.left + window.width) * scale]
