"""Adversarial training: a discriminator with StyleGAN2's logistic loss and lazy R1 (arXiv 1912.04958).

It is trained to separate generated pictures from real ones, and gives the loss of the generator that faces it.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models import losses
from ..models.devices import autocast
from . import loop

DETAIL_SIDE, DETAIL_GAIN = 5, 10.0


class DetailOnly(nn.Module):
    """A discriminator that sees detail alone: DETAIL_GAIN times what a picture has beyond its mean over DETAIL_SIDE².

    For drawings that differ from real ones in sharpness only. Of whole squares, StyleGAN2's discriminator learns
    nothing in 300 steps (loss 1.38 on others, a guess has 1.39), of their detail it does (1.03).
    """

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, picture: Tensor, *about: Tensor) -> Tensor:
        border = 4 * (DETAIL_SIDE // 2,)
        mean = F.avg_pool2d(F.pad(picture, border, mode="reflect"), DETAIL_SIDE, 1)
        return self.net(DETAIL_GAIN * (picture - mean), *about)


class Adversary:
    """A discriminator and its optimiser.

    net        the discriminator: pictures in [−1,1] → logits of any shape. A conditional one (see
               `models.conditional`) gets its condition as `about`
    r1_weight  of R1, which is computed every r1_every iterations and weighted r1_every times; 0: never
    mixed      ordinary passes in mixed precision where it is faster; R1's second derivatives are taken in float32
    on_real    (attribute) logits of the real pictures of the last step
    """

    def __init__(self, net: nn.Module, device: str | torch.device = "cpu", lr: float = 1e-3,
                 r1_weight: float = 10.0, r1_every: int = 16, mixed: bool = False, beta: float = 0.0):
        self.net = net.to(device)
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr, betas=(beta, 0.99))
        self.r1_weight, self.r1_every, self.mixed = r1_weight, r1_every, mixed
        self.on_real = torch.empty(0)

    def parts(self) -> dict:
        """Parts of a checkpoint by name."""
        return {"adversary": self.net, "adversary_optimizer": self.optimizer}

    def generator_loss(self, fake: Tensor, *about: Tensor) -> Tensor:
        """Non-saturating loss of the generator, whose pictures are `fake`. The discriminator gets no gradient."""
        self.net.requires_grad_(False)
        loss = losses.generator_nonsaturating(self._logits(fake, *about))
        self.net.requires_grad_(True)
        return loss

    def step(self, real: Tensor, fake: Tensor, iteration: int, *about: Tensor) -> Tensor:
        """One step of the discriminator → its loss."""
        found = self._logits(real, *about)
        loss = losses.discriminator_logistic(found, self._logits(fake.detach(), *about))
        self.on_real = found.detach()
        if self.r1_weight and iteration % self.r1_every == 0:
            penalty = losses.r1_penalty(lambda x: self.net(x, *about), real.float())
            loss = loss + 0.5 * self.r1_weight * self.r1_every * penalty
        loop.optimizer_step(loss, self.optimizer)
        return loss.detach()

    def _logits(self, pictures: Tensor, *about: Tensor) -> Tensor:
        with autocast(pictures.device) if self.mixed else nullcontext():
            return self.net(pictures, *about)
