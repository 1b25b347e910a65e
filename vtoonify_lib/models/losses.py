"""Losses of the recipes, one function per equation. Weights and schedules belong to `training`.

Every function returns a scalar, computed in float32. Perceptual and identity losses need networks and live with them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .paired_crop import Crop, crop


def discriminator_logistic(real: Tensor, fake: Tensor) -> Tensor:
    """E[softplus(−D(real))] + E[softplus(D(fake))], logits of any shape. StyleGAN's logistic loss."""
    return F.softplus(-real.float()).mean() + F.softplus(fake.float()).mean()


def generator_nonsaturating(fake: Tensor) -> Tensor:
    """E[softplus(−D(fake))]: the generator's side, with gradients that do not vanish while D wins."""
    return F.softplus(-fake.float()).mean()


def r1_penalty(discriminator: Callable[[Tensor], Tensor], real: Tensor) -> Tensor:
    """E‖∇D(real)‖² over pictures [B,3,H,W] (Mescheder et al. 2018). The caller multiplies by γ/2."""
    real = real.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(real).sum(), real, create_graph=True)
    return gradient.float().square().sum((1, 2, 3)).mean()


def path_length(image: Tensor, w: Tensor, mean: Tensor | float, rng: torch.Generator | None = None,
                decay: float = 0.01) -> tuple[Tensor, Tensor]:
    """E(‖Jᵀy‖ − a)², a the running mean of the lengths: equal steps in w should change the picture equally (StyleGAN2).

    image [B,3,H,W] made from w+ [B,L,D], which must require gradients → (penalty, new mean; feed it back next time).
    """
    noise = torch.randn(image.shape, generator=rng, device=rng.device if rng else image.device).to(image)
    noise = noise / math.sqrt(image.shape[2] * image.shape[3])
    (gradient,) = torch.autograd.grad((image * noise).sum(), w, create_graph=True)
    lengths = gradient.float().square().sum(2).mean(1).sqrt()  # [B]
    mean = torch.as_tensor(mean, dtype=lengths.dtype, device=lengths.device)
    mean = torch.lerp(mean, lengths.detach().mean(), decay)
    return (lengths - mean).square().mean(), mean


def handoff_match(feature: Tensor, skip: Tensor, target: Tensor, target_skip: Tensor) -> Tensor:
    """‖E(x) − G's feature‖² + ‖skip − G's skip‖² at the hand-off, means over all numbers: encoder pre-training."""
    return F.mse_loss(feature.float(), target.float()) + F.mse_loss(skip.float(), target_skip.float())


def temporal(network: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, window: Crop) -> Tensor:
    """‖net(crop(x)) − crop(net(x))‖², the simulated camera move that suppresses flicker. Paper Eq. (8).

    network, with its style bound; x [B,22,H,W] and its answer y [B,3,sH,sW]; `window` is in pixels of x.
    """
    scale = y.shape[-1] // x.shape[-1]
    return F.mse_loss(network(crop(x, window)).float(), crop(y, window, scale).float())


def temporal_weight(iteration: int, total: int, maximum: float = 1.0) -> float:
    """Weight of :func:`temporal`: 0 for the first half of the run, then rising linearly to `maximum`."""
    return maximum * max(0.0, 2 * iteration / total - 1)


def mask_budget(masks: Sequence[Tensor], degree: Tensor) -> Tensor:
    """Σ relu(mean m_E − (0.9·(1 − d_s)² + 0.1)): the more style, the less of the photograph may pass.

    masks  of the fusions, each [B,1,h,w] in [0,1]; degree  structure degree of each picture [B]
    """
    allowed = 0.9 * (1 - degree.float()) ** 2 + 0.1
    return torch.stack([F.relu(mask.float().mean((1, 2, 3)) - allowed).mean() for mask in masks]).sum()
