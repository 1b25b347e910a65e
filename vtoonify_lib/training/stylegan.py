"""The Toonify backbone from zero: a base StyleGAN of photo renders, and its storybook fine-tune.

StyleGAN2 learns by playing against a discriminator for GPU-weeks. Here the renderer can say what a person looks like in
both styles, so the generators are *distilled*: an encoder supplies the code of a render, the generator draws it back.
The codes stay near one w per picture (the regulariser of e4e, Tov et al. 2021, arXiv 2102.02766), and the mapping
network is then fitted so that Gaussian z land where the encoder's codes lie. The fine-tune starts from the base and
sees the same codes with the other style as the target, so both generators share one latent space and their layers can
be blended (Pinkney & Adler 2020; see `blending`). `adversarial` sharpens a distilled generator with StyleGAN2's losses.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from .. import losses
from ..config import GeneratorConfig
from ..images import to_tensor
from ..metrics import feature_distance
from ..models.encoders import ParsingNet, StyleEncoder
from ..models.stylegan2 import MAPPING_LR, Discriminator, Generator
from ..studio.shards import Pairs
from . import data, loop
from .encoder import FEATURE_WEIGHT, detail_mask, picture_loss, rows

SPREAD_WEIGHT = 0.02  # how strongly the codes of a picture's layers are held together
NORM_WEIGHT = 1e-3  # keeps codes near unit size, where the mapping network can reach them
LEAST_MAPPING_LR = 1e-5  # where the mapping network's learning rate ends


class Distilled(nn.Module):
    """Encoder and generator trained as one: aligned picture [B,3,S,S] → code → picture.

    image_size, width  of the style encoder
    """

    def __init__(self, config: GeneratorConfig, image_size: int = 128, width: int = 32):
        super().__init__()
        self.generator = Generator(config)
        self.encoder = StyleEncoder(image_size, self.generator.n_latent, config.style_dim, width)

    def forward(self, image: Tensor, until: int | None = None) -> tuple[Tensor, Tensor]:
        """→ picture (at resolution `until`, or full size) and w+ codes [B,L,D]."""
        w = self.encoder(image)
        return draw(self.generator, w, until), w


def draw(generator: Generator, w: Tensor, until: int | None = None) -> Tensor:
    """Picture of w+ [B,L,D] at resolution `until` (its skip picture) or full size."""
    out = generator.synthesize(w, until=until)
    return out if until is None else out[1]


def code_loss(w: Tensor) -> Tensor:
    """Layers of one picture near their mean, and means of unit size: w [B,L,D]."""
    centre = w.mean(1, keepdim=True)
    return SPREAD_WEIGHT * (w - centre).square().mean() + NORM_WEIGHT * centre.square().mean()


def distill(pairs: Pairs, parsing: ParsingNet, config: GeneratorConfig, folder: str | os.PathLike, iterations: int,
            target: str = "photo", start: dict | None = None, until: int | None = None, batch: int = 16,
            hold_out: int = 256, lr: float = 2e-3, seed: int = 7, seconds: float | None = None,
            train_encoder: bool | None = None, image_size: int = 128, width: int = 32) -> Distilled:
    """Train encoder and generator to redraw photo renders, or fine-tune the generator alone towards another style.

    target  "photo", or the style to fine-tune towards
    start   state dict of a Distilled to begin from
    until   train up to this resolution only: the code decides the face long before the last doublings
    train_encoder  by default only with the target "photo": a fine-tune must keep the codes of its base
    image_size, width  of the style encoder
    → the moving average of the trained pair, resumable in `folder`
    """
    torch.manual_seed(seed)
    model = Distilled(config, image_size, width)
    if start:
        model.load_state_dict(start)
    style = "storybook" if target == "photo" else target
    joint = target == "photo" if train_encoder is None else train_encoder
    tuned = model.parameters() if joint else model.generator.parameters()
    optimizer = torch.optim.Adam(tuned, lr, betas=(0.5, 0.99))
    ema = loop.EMA(model, decay=0.998)
    parsing = parsing.eval().requires_grad_(False)
    size = until or config.size

    def batch_of(i: int, n: int) -> tuple[Tensor, Tensor]:
        x, styled, photo, _ = data.prepare(pairs, n, i, seed, hold_out, style, geometry=False, only="aligned")
        y = photo if target == "photo" else styled
        return x, F.interpolate(y, (size, size), mode="area")

    def step(i: int) -> dict[str, float]:
        parts = _losses(model, parsing, *batch_of(i, batch), until, joint)
        rate = loop.warm_cosine(lr, i, iterations, warmup=100, floor=0.03)
        loop.descend(sum(parts.values()), optimizer, rate, clip=1.0)
        ema.update(model, i)
        return {name: float(value.detach()) for name, value in parts.items()}

    def sample(i: int) -> Image.Image:
        x, y = batch_of(10**6, 8)
        with torch.no_grad():
            out = ema.model(x, until)[0]
        return rows((F.interpolate(x, (size, size), mode="area"), out, y))

    loop.run(folder, iterations, step, {"model": model, "ema": ema, "optimizer": optimizer}, sample, sample_every=250,
             seconds=seconds, title=f"StyleGAN {target}")
    return ema.model


def _losses(model: Distilled, parsing: ParsingNet, x: Tensor, y: Tensor, until: int | None, joint: bool
            ) -> dict[str, Tensor]:
    """Weighted losses of redrawing x [B,3,s,s] as y; without `joint` the encoder gets no gradient."""
    with torch.autocast("cpu", torch.bfloat16):
        with torch.set_grad_enabled(joint):
            w = model.encoder(x)
        out = draw(model.generator, w, until)
        parts = {"picture": picture_loss(out.float(), y, detail_mask(None, y)),
                 "feature": FEATURE_WEIGHT * feature_distance(parsing, out, y.to(out.dtype)).mean()}
        if joint:
            parts["code"] = code_loss(w.float())
    return parts


def code_bank(model: Distilled, pairs: Pairs, count: int = 3000, hold_out: int = 256) -> Tensor:
    """Mean codes of `count` aligned renders, [count,D]: where the mapping network should send Gaussian z."""
    index = pairs.ready[(pairs.ready >= hold_out) & (pairs.ready % 2 == 0)][:count]
    codes = []
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for part in np.array_split(index, max(1, len(index) // 32)):
            x = data.half(to_tensor(np.stack([pairs["photo"][i] for i in part])))
            codes.append(model.encoder(x).float().mean(1))
    return torch.cat(codes)


def fit_mapping(generator: Generator, bank: Tensor, iterations: int = 3000, batch: int = 512, directions: int = 256,
                lr: float = 2e-3, seed: int = 8) -> float:
    """Fit the mapping network in place: mapping(z), z Gaussian, gets the distribution of the bank's codes [N,D].

    Minimises the sliced Wasserstein distance (Bonneel et al. 2015): along random directions, sorted projections agree.
    lr is that of the weights as they act: the hundredfold brake that the mapping network wears in StyleGAN's game is
    taken off, or it would hardly move. → the final distance (a running mean) relative to the bank's spread.
    """
    generator.style.requires_grad_(True)  # a moving average, what `distill` returns, asks for no gradients
    optimizer = torch.optim.Adam(generator.style.parameters(), lr, betas=(0.5, 0.99))
    spread = float(bank.var(0).sum())
    value = 0.0
    for i in range(iterations):
        g = loop.generator(seed, i)
        real = bank[torch.randint(len(bank), (batch,), generator=g)]
        fake = generator.map(torch.randn(batch, generator.config.style_dim, generator=g))
        axes = F.normalize(torch.randn(bank.shape[1], directions, generator=g), dim=0)
        loss = ((fake @ axes).sort(0).values - (real @ axes).sort(0).values).square().mean()
        loop.descend(loss, optimizer, (loop.warm_cosine(lr, i, iterations) + LEAST_MAPPING_LR) / MAPPING_LR)
        value = 0.99 * value + 0.01 * float(loss.detach()) if i else float(loss.detach())
    return value * bank.shape[1] / spread


def adversarial(generator: Generator, images: Callable[[int], Tensor], folder: str | os.PathLike, iterations: int,
                lr: float = 1e-3, r1_weight: float = 10.0, r1_every: int = 16, seed: int = 9,
                seconds: float | None = None) -> Generator:
    """StyleGAN2's own game: non-saturating loss, R1 with weight r1_weight every r1_every iterations.

    images  iteration → real pictures [B,3,S,S] in [−1,1]; their number is the batch
    → the averaged generator; `generator` itself is trained in place, resumable in `folder`
    """
    torch.manual_seed(seed)
    generator.requires_grad_(True)  # a moving average, what `distill` returns, asks for no gradients
    judge = Discriminator(generator.config)
    g_opt = torch.optim.Adam(generator.parameters(), lr, betas=(0.0, 0.99))
    d_opt = torch.optim.Adam(judge.parameters(), lr, betas=(0.0, 0.99))
    ema = loop.EMA(generator)

    def step(i: int) -> dict[str, float]:
        real = images(i)
        z = torch.randn(len(real), generator.config.style_dim, generator=loop.generator(seed, i))
        with torch.no_grad():
            fake = generator(z)
        d_loss = losses.discriminator_logistic(judge(real), judge(fake))
        if i % r1_every == 0:
            d_loss = d_loss + 0.5 * r1_weight * r1_every * losses.r1_penalty(judge, real)
        loop.descend(d_loss, d_opt)
        g_loss = losses.generator_nonsaturating(judge(generator(z)))
        loop.descend(g_loss, g_opt)
        ema.update(generator, i)
        return {"d": float(d_loss.detach()), "g": float(g_loss.detach())}

    parts = {"generator": generator, "judge": judge, "ema": ema, "g_opt": g_opt, "d_opt": d_opt}
    loop.run(folder, iterations, step, parts, seconds=seconds, title="StyleGAN game")
    return ema.model
