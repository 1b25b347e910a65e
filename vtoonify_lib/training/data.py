"""Batches of rendered pairs, and the augmentation that lets networks trained on renders hold on photographs.

Geometry and colour change input and target alike; degradations (blur, noise, compression-like blocking, uneven light)
change the input alone, so a network learns to see through them.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..studio.shards import Pairs
from .loop import generator


@dataclass(frozen=True)
class Batch:
    """photo, styled [B,3,S,S] in [−1,1]; parsing, styled_parsing [B,S,S] int64."""

    photo: Tensor
    styled: Tensor
    parsing: Tensor
    styled_parsing: Tensor


def to_tensor(images: np.ndarray) -> Tensor:
    """uint8 [B,H,W,3] → float [B,3,H,W] in [−1,1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def to_picture(image: Tensor) -> np.ndarray:
    """[3,H,W] in [−1,1] → uint8 [H,W,3]."""
    return image.detach().float().add(1).mul(127.5).round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()


def load(pairs: Pairs, index: np.ndarray, style: str) -> Batch:
    """Read the entries of `index` (in any order) from the memory maps."""
    read = lambda name: np.stack([pairs[name][i] for i in index])  # noqa: E731
    labels = [torch.from_numpy(read(f"{name}_parsing").astype(np.int64)) for name in ("photo", style)]
    return Batch(to_tensor(read("photo")), to_tensor(read(style)), *labels)


def draw(pairs: Pairs, n: int, iteration: int, seed: int, hold_out: int, style: str = "storybook", only: str | None = None) -> Batch:
    """A random training batch. The first `hold_out` entries are never drawn. only: "aligned" or "wide" framing."""
    pool = pairs.ready[pairs.ready >= hold_out]
    if only:
        pool = pool[pool % 2 == (only == "wide")]
    return load(pairs, pool[np.random.default_rng([seed, iteration]).integers(0, len(pool), n)], style)


def _uniform(g: torch.Generator, n: int, low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(n, 1, 1, 1, generator=g)


def move(batch: Batch, g: torch.Generator, zoom: tuple[float, float] = (0.8, 1.25), turn: float = 0.35, shift: float = 0.12) -> Batch:
    """Flip half of the batch; zoom, turn (radians) and shift everything, all four maps alike. Labels l_/r_ swap with the flip."""
    n = batch.photo.shape[0]
    flip = torch.where(torch.rand(n, generator=g) < 0.5, -1.0, 1.0)
    scale = torch.exp(torch.empty(n).uniform_(float(np.log(zoom[0])), float(np.log(zoom[1])), generator=g)).reciprocal()
    angle = turn * torch.empty(n).uniform_(-1, 1, generator=g)
    dx, dy = shift * 2 * torch.empty(2, n).uniform_(-1, 1, generator=g)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    theta = torch.stack([torch.stack([flip * cos, -sin, dx], 1), torch.stack([flip * sin, cos, dy], 1)], 1)
    grid = F.affine_grid(theta, list(batch.photo.shape), align_corners=False)

    def colours(x: Tensor) -> Tensor:
        return F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)

    def labels(x: Tensor) -> Tensor:
        moved = F.grid_sample(x[:, None].float(), grid, mode="nearest", padding_mode="reflection", align_corners=False)[:, 0].long()
        return torch.where(flip[:, None, None] < 0, MIRROR[moved], moved)

    return Batch(colours(batch.photo), colours(batch.styled), labels(batch.parsing), labels(batch.styled_parsing))


MIRROR = torch.tensor([0, 1, 3, 2, 5, 4, 6, 8, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18])


def flip(batch: Batch, g: torch.Generator) -> Batch:
    """Mirror half of the batch, without resampling."""
    side = torch.rand(batch.photo.shape[0], generator=g) < 0.5
    flipped = Batch(batch.photo.flip(3), batch.styled.flip(3), MIRROR[batch.parsing.flip(2)], MIRROR[batch.styled_parsing.flip(2)])
    pick = lambda a, b: torch.where(side.view(-1, *[1] * (a.ndim - 1)), b, a)  # noqa: E731
    return Batch(*(pick(getattr(batch, k), getattr(flipped, k)) for k in ("photo", "styled", "parsing", "styled_parsing")))


def tint(images: list[Tensor], g: torch.Generator, strength: float = 1.0) -> list[Tensor]:
    """One random change of exposure, contrast, white balance and saturation, the same for every picture of a pair."""
    n = images[0].shape[0]
    gamma = torch.exp(strength * 0.35 * _uniform(g, n, -1, 1))
    gain = torch.exp(strength * 0.20 * _uniform(g, n, -1, 1))
    balance = torch.exp(strength * 0.12 * (2 * torch.rand(n, 3, 1, 1, generator=g) - 1))
    saturation = 1 + strength * 0.45 * _uniform(g, n, -1, 1)
    saturation = torch.where(torch.rand(n, 1, 1, 1, generator=g) < 0.06, torch.zeros(()), saturation)
    out = []
    for image in images:
        light = image.add(1).mul(0.5).clamp(0, 1).pow(gamma) * gain * balance
        grey = (light * torch.tensor([0.3, 0.59, 0.11]).view(1, 3, 1, 1)).sum(1, keepdim=True)
        out.append((grey + (light - grey) * saturation).clamp(0, 1).mul(2).sub(1))
    return out


def degrade(x: Tensor, g: torch.Generator) -> Tensor:
    """What cameras do to a photograph: uneven light, blur, low resolution, noise and coarse quantisation. [B,3,H,W] → same."""
    n, _, h, w = x.shape
    field = F.interpolate(torch.randn(n, 1, 3, 3, generator=g), (h, w), mode="bicubic", align_corners=True)
    x = (x + 1) * torch.exp(0.16 * field * torch.rand(n, 1, 1, 1, generator=g)) - 1
    low = F.avg_pool2d(x, 2)
    kind = torch.rand(n, 1, 1, 1, generator=g)
    soft = F.interpolate(low, (h, w), mode="bilinear", align_corners=False)
    amount = torch.rand(n, 1, 1, 1, generator=g) * (kind < 0.5)
    x = x + amount * (soft - x)
    sharpen = torch.rand(n, 1, 1, 1, generator=g) * 0.7 * (kind > 0.75)
    x = x + sharpen * (x - soft)
    coarse = F.interpolate(F.avg_pool2d(x, 3, 3, ceil_mode=True), (h, w), mode="bilinear", align_corners=False)
    x = torch.where(torch.rand(n, 1, 1, 1, generator=g) < 0.1, coarse, x)
    grain = torch.randn(n, 3, h, w, generator=g)
    grain = torch.where(torch.rand(n, 1, 1, 1, generator=g) < 0.5, grain, F.avg_pool2d(F.pad(grain, (1, 1, 1, 1)), 3, 1) * 2)
    return (x + 0.09 * torch.rand(n, 1, 1, 1, generator=g) ** 2 * grain).clamp(-1, 1)


def half(x: Tensor) -> Tensor:
    """Area-average to half size: pictures [B,C,2h,2w] → [B,C,h,w]."""
    return F.avg_pool2d(x, 2)


def prepare(pairs: Pairs, n: int, iteration: int, seed: int, hold_out: int, style: str = "storybook", geometry: bool = True, only: str | None = None,
            degraded: bool = True) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """An augmented batch → photo at half size [B,3,S/2,S/2], styled [B,3,S,S], photo at full size, parsing at half size [B,S/2,S/2]."""
    g = generator(seed, iteration)
    batch = draw(pairs, n, iteration, seed, hold_out, style, only)
    moved = geometry and bool(torch.rand((), generator=g) < 0.5)
    batch = move(batch, g) if moved else flip(batch, g)
    photo, styled = tint([batch.photo, batch.styled], g)
    x = half(photo)
    return degrade(x, g) if degraded else x, styled, photo, batch.parsing[:, ::2, ::2]
