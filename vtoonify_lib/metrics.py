"""Numbers a user can trust: how close the cartoon is to the true render, and whether it follows the face.

On held-out renders the truth is known exactly (the same person drawn in the other style). On photographs there is no
truth: landmarks found on input and output say whether the cartoon's eyes, brows and mouth are where the face's are.
Feature distances use our own parsing net in the part of LPIPS; they compare models of this project only.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from . import losses
from .faces import FaceFinder
from .framing import eye_distance
from .models.encoders import ParsingNet
from .synthesis import random_crop


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of pictures [B,3,H,W] in [−1,1] → [B]."""
    return -10 * torch.log10(((a - b) / 2).float().square().mean((1, 2, 3)).clamp_min(1e-10))


def feature_distance(net: ParsingNet, a: Tensor, b: Tensor) -> Tensor:
    """LPIPS-like distance with our own parsing net: unit-length features at three scales, squared, averaged → [B]."""
    total = torch.zeros(a.shape[0], device=a.device)
    x = net.stem(torch.cat([a, b]))
    for stage in net.down[:3]:
        x = stage(x)
        p, q = torch.nn.functional.normalize(x.float(), dim=1, eps=1e-4).chunk(2)
        total = total + (p - q).square().sum(1).mean((1, 2))
    return total / 3


def equivariance(network: Callable[[Tensor, Tensor], Tensor], x: Tensor, w: Tensor, rng: torch.Generator,
                 crops: int = 4) -> float:
    """Flicker: root mean square of net(crop(x)) − crop(net(x)) in grey levels of 255, over random whole-pixel crops."""
    out = network(x, w)
    errors = [losses.temporal(network, x, w, out, random_crop(*x.shape[2:], rng=rng)) for _ in range(crops)]
    return float(torch.stack(errors).mean().sqrt() * 127.5)


def landmark_shift(finder: FaceFinder, before: np.ndarray, after: np.ndarray) -> dict[str, float] | None:
    """How far each group of landmarks lies from where it was, in eye distances; None where a face is not found in both.

    before, after: uint8 [H,W,3] of one size.
    """
    faces = [finder.faces(image) for image in (before, after)]
    if not all(faces):
        return None
    a, b = faces[0][0].landmarks, faces[1][0].landmarks
    distance = np.linalg.norm(a - b, axis=1) / eye_distance(a)
    groups = {"brows": slice(17, 27), "nose": slice(27, 36), "eyes": slice(36, 48), "mouth": slice(48, 68)}
    return {"all": float(distance[17:].mean()), **{name: float(distance[part].mean()) for name, part in groups.items()}}


def mean_of(rows: Iterable[dict[str, float] | None]) -> dict[str, float]:
    """Average of the rows that are there, and how many they are."""
    rows = [row for row in rows if row]
    names = rows[0] if rows else ()
    return {"count": len(rows), **{name: float(np.mean([row[name] for row in rows])) for name in names}}
