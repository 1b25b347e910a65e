"""The adversary of every game here: StyleGAN2's discriminator with its logistic loss and lazy R1 (arXiv 1912.04958).

It learns to tell drawn pictures from real ones; what the other side does with its verdict is that side's business.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor

from .. import losses
from ..config import GeneratorConfig
from ..devices import autocast
from ..models.conditional import ConditionalDiscriminator
from ..models.stylegan2 import Discriminator
from . import loop


class Judge:
    """A discriminator and its optimiser.

    config     sizes of the discriminator; it reads pictures [B,3,S,S] in [−1,1], S = config.size
    styles     how many styles there are: it is then asked about a degree and a style (see `models.conditional`), which
               its methods take as `about`; 0: it is not
    r1_weight  of R1, which is taken every r1_every iterations and counts r1_every times
    mixed      ordinary passes in mixed precision where it is faster; R1's second derivatives are taken in float32
    on_real    (attribute) its logits of the last real pictures that it learnt from
    """

    def __init__(self, config: GeneratorConfig, device: str | torch.device = "cpu", lr: float = 1e-3,
                 r1_weight: float = 10.0, r1_every: int = 16, mixed: bool = False, styles: int = 0):
        self.net = (ConditionalDiscriminator(config, styles) if styles else Discriminator(config)).to(device)
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr, betas=(0.0, 0.99))
        self.r1_weight, self.r1_every, self.mixed = r1_weight, r1_every, mixed
        self.on_real = torch.empty(0)

    def parts(self) -> dict:
        """What a checkpoint must hold."""
        return {"judge": self.net, "judge_optimizer": self.optimizer}

    def verdict(self, fake: Tensor, *about: Tensor) -> Tensor:
        """The other side's loss: small when the judge takes `fake` for real. Its own weights get no gradient."""
        self.net.requires_grad_(False)
        loss = losses.generator_nonsaturating(self._logits(fake, *about))
        self.net.requires_grad_(True)
        return loss

    def learn(self, real: Tensor, fake: Tensor, iteration: int, *about: Tensor) -> float:
        """One step of its own → its loss."""
        found = self._logits(real, *about)
        loss = losses.discriminator_logistic(found, self._logits(fake.detach(), *about))
        self.on_real = found.detach()
        if iteration % self.r1_every == 0:
            penalty = losses.r1_penalty(lambda x: self.net(x, *about), real.float())
            loss = loss + 0.5 * self.r1_weight * self.r1_every * penalty
        loop.descend(loss, self.optimizer)
        return float(loss.detach())

    def _logits(self, pictures: Tensor, *about: Tensor) -> Tensor:
        with autocast(pictures.device) if self.mixed else nullcontext():
            return self.net(pictures, *about)
