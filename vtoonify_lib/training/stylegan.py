"""The Toonify backbone from zero: a base StyleGAN of photo renders, and its storybook fine-tune.

StyleGAN2 is trained against a discriminator for GPU-weeks. Here the renderer provides the same person in both styles,
so the generators are *distilled*: an encoder supplies the code of a render, the generator draws it back.
One w per picture feeds every layer, and noise on it makes neighbouring codes draw neighbouring faces (a variational
autoencoder of fixed variance, Kingma & Welling 2014, arXiv 1312.6114). The mapping network is then fitted so that
Gaussian z land where the encoder's codes lie. Resolutions are learnt one after another, each from the one before
(Karras et al. 2018, arXiv 1710.10196). The fine-tune starts from the base and sees the same codes with the other style
as the target, so both generators share one latent space and their layers can be blended (Pinkney & Adler 2020; see
`layer_swap`). `adversarial` sharpens a distilled generator with StyleGAN2's losses, or fine-tunes it on a few hundred
style pictures, which `ada` then makes the most of: Toonify's own recipe.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from ..config import GeneratorConfig
from ..media.images import to_tensor
from ..models import losses
from ..models.devices import autocast
from ..models.encoders import ParsingNet, StyleEncoder
from ..models.stylegan2 import MAPPING_LR, Discriminator, Generator
from ..studio.shards import Pairs
from . import augment, loop
from .ada import AdaptiveStrength
from .adversary import Adversary
from .objectives import OurLosses
from .vtoonify import STYLE_IMAGE, detail_mask, rows

NORM_WEIGHT = 0.001  # keeps codes near unit size, where the mapping network can reach them
CODE_NOISE = 0.1  # standard deviation of the noise on codes in training
GENERATOR_LR_SCALE = 5.0  # times the encoder's: equalised weights have unit variance, so each step moves them less
LEAST_MAPPING_LR = 1e-5  # where the mapping network's learning rate ends
PATH_DECAY = 0.01  # of the running mean of path lengths, a step


class Distilled(nn.Module):
    """Encoder and generator trained as one: aligned picture [B,3,S,S] → code → picture.

    image_size, width  of the style encoder, which gives one code per picture
    """

    def __init__(self, config: GeneratorConfig, image_size: int = STYLE_IMAGE, width: int = 32):
        super().__init__()
        self.generator = Generator(config)
        self.encoder = StyleEncoder(image_size, 1, config.style_dim, width)
        with torch.no_grad():
            self.encoder.head[-1].weight.div_(self.encoder.FIRST_OFFSET)  # or noise would drown the first codes

    def code(self, image: Tensor) -> Tensor:
        """→ w [B,D]."""
        return self.encoder(image)[:, 0]

    def forward(self, image: Tensor, until: int | None = None) -> Tensor:
        """→ picture at resolution `until`, or full size."""
        return draw(self.generator, self.code(image), until)


def draw(generator: Generator, w: Tensor, until: int | None = None) -> Tensor:
    """Picture of w [B,D] at resolution `until` (its skip picture) or full size."""
    out = generator.synthesize(generator.to_w(w, "w"), until=until)
    return out if until is None else out[1]


def distill(start: Distilled, pairs: Pairs, parsing: ParsingNet, folder: str | os.PathLike, stage: loop.Stage,
            target: str = "photo", hold_out: int = 256, lr: float = 2e-3, seed: int = 7) -> Distilled:
    """Train encoder and generator to redraw photo renders, or fine-tune the generator alone towards another style.

    A fine-tune keeps the encoder, and so the codes, of its base.

    start   encoder and generator to begin with, which stay as they are
    target  "photo", or the style to fine-tune towards
    lr      of the encoder; the generator's is GENERATOR_LR_SCALE times as high
    → the moving average of the trained pair, resumable in `folder`
    """
    model, config = copy.deepcopy(start).train().requires_grad_(True), start.generator.config
    device, until, joint = model.generator.input.input.device, stage.until(config.size), target == "photo"
    groups = [{"params": list(model.generator.parameters()), "lr_scale": GENERATOR_LR_SCALE}]
    if joint:
        groups.append({"params": list(model.encoder.parameters())})
    optimizer = torch.optim.Adam(groups, lr, betas=(0.9, 0.99))
    ema = loop.EMA(model, decay=loop.SHORT_EMA_DECAY)
    parsing = parsing.eval().requires_grad_(False)

    @cache  # a finished run never asks for them
    def portraits() -> augment.Portraits:
        size, image_size = until or config.size, model.encoder.image_size
        index = augment.portrait_pool(pairs, max(size, image_size), hold_out)
        return augment.Portraits(pairs, index, target, size, image_size)

    def step(i: int) -> dict[str, float]:
        x, y = portraits().batch(stage.batch, i, seed, device)
        parts = _losses(model, parsing, x, y, until, joint, loop.rng_for(seed + 100, i, device))
        rate = loop.warm_cosine(lr, i, stage.iterations, warmup=100, floor=0.03)
        loop.optimizer_step(sum(parts.values()), optimizer, rate, clip=1.0)
        ema.update(model, i)
        return {name: float(value.detach()) for name, value in parts.items()}

    def sample(i: int) -> Image.Image:
        x, y = portraits().batch(10, 10**6, seed, device)
        with torch.no_grad():
            out = ema.model(x, until)
        return rows((F.interpolate(x, y.shape[2:], mode="bilinear"), out, y))

    loop.run(folder, stage.iterations, step, {"model": model, "ema": ema, "optimizer": optimizer}, sample,
             title=f"StyleGAN {target} {until or config.size} px")
    return ema.model


def _losses(model: Distilled, parsing: ParsingNet, x: Tensor, y: Tensor, until: int | None, joint: bool,
            rng: torch.Generator) -> dict[str, Tensor]:
    """Weighted losses of redrawing x [B,3,s,s] as y; without `joint` the encoder gets no gradient."""
    with autocast(x.device):
        with torch.set_grad_enabled(joint):
            w = model.code(x)
        noise = torch.randn(w.shape, generator=rng, device=w.device)
        out = draw(model.generator, w + CODE_NOISE * noise, until)
        parts = OurLosses(parsing, whole=128)(out, y, detail_mask(None, y))
        if joint:
            parts["code"] = NORM_WEIGHT * w.float().square().mean()
    return parts


@torch.no_grad()
def code_bank(model: Distilled, pairs: Pairs, hold_out: int = 256) -> Tensor:
    """Codes of the aligned portraits and of their mirror images, [N,D]: where the mapping network should send z."""
    side = model.encoder.image_size
    photos = augment.aligned(pairs, augment.portrait_pool(pairs, side, hold_out), "photo", side)
    device = model.generator.input.input.device
    codes = []
    for part in np.array_split(photos, max(1, len(photos) // 64)):
        x = to_tensor(part, device)
        codes.append(model.code(torch.cat([x, x.flip(3)])))
    return torch.cat(codes)


def fit_mapping(mapping: nn.Module, bank: Tensor, iterations: int = 3000, batch: int = 512, directions: int = 256,
                lr: float = 2e-3, seed: int = 8) -> float:
    """Fit a mapping network in place: mapping(z), z Gaussian [B,D], gets the distribution of the bank's codes [N,D].

    Minimises the sliced Wasserstein distance (Bonneel et al. 2015): along random directions, sorted projections agree.
    lr is that of the effective weights: StyleGAN's hundredfold smaller rate of the mapping network is compensated.
    → the final distance (a running mean) relative to the bank's spread
    """
    mapping.requires_grad_(True)  # a moving average, what `distill` returns, asks for no gradients
    optimizer = torch.optim.Adam(mapping.parameters(), lr, betas=(0.5, 0.99))
    spread = float(bank.var(0).sum())
    device = bank.device
    value = 0.0
    for i in range(iterations):
        g = loop.rng_for(seed, i, device)
        real = bank[torch.randint(len(bank), (batch,), generator=g, device=device)]
        fake = mapping(torch.randn(batch, bank.shape[1], generator=g, device=device))
        axes = F.normalize(torch.randn(bank.shape[1], directions, generator=g, device=device), dim=0)
        loss = ((fake @ axes).sort(0).values - (real @ axes).sort(0).values).square().mean()
        loop.optimizer_step(loss, optimizer, (loop.warm_cosine(lr, i, iterations) + LEAST_MAPPING_LR) / MAPPING_LR)
        value = 0.99 * value + 0.01 * float(loss.detach()) if i else float(loss.detach())
    return value * bank.shape[1] / spread


class PathLengthRegularizer(nn.Module):
    """Path length regularisation and its running mean, which a checkpoint must hold (see `losses.path_length`).

    The mean starts at the first length: 0 would pull the lengths of a trained generator towards 0.
    """

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.full((), torch.nan))

    def forward(self, generator: Generator, z: Tensor, until: int | None, rng: torch.Generator) -> Tensor:
        """z [B,D] → the penalty of the pictures at resolution `until`."""
        w = generator.to_w(z)
        first = bool(self.mean.isnan())
        mean, decay = (0.0, 1.0) if first else (self.mean, PATH_DECAY)
        penalty, self.mean = losses.path_length(draw(generator, w, until), w, mean, rng, decay)
        return penalty


@dataclass(frozen=True)
class AdversarialSettings:
    """How long and how `adversarial` trains.

    r1_weight    of R1, every r1_every iterations
    path_weight  of the path length penalty, computed every path_every iterations and weighted path_every times
    until        resolution S that is trained; default the generator's size
    head_start   iterations in which only the discriminator is trained, so that its gradients are meaningful
    mixed        mixed precision where it is faster, second derivatives excepted
    """

    iterations: int
    lr: float = 1e-3
    r1_weight: float = 10.0
    r1_every: int = 16
    path_weight: float = 0.0
    path_every: int = 4
    until: int | None = None
    head_start: int = 0
    mixed: bool = False
    seed: int = 9


def adversarial(generator: Generator, images: Callable[[int], Tensor], folder: str | os.PathLike,
                how: AdversarialSettings, ada: AdaptiveStrength | None = None) -> Generator:
    """StyleGAN2's adversarial training: non-saturating loss and R1.

    images  iteration → real pictures [B,3,S,S] in [−1,1], on the generator's device; their number is the batch
    ada     augments the discriminator's inputs, see `ada`; None: no augmentation
    → the averaged generator; `generator` itself is trained in place, resumable in `folder`
    """
    torch.manual_seed(how.seed)
    generator.requires_grad_(True)  # a moving average, what `distill` returns, asks for no gradients
    device, config = generator.input.input.device, generator.config
    discriminator = Discriminator(replace(config, size=how.until or config.size))
    adversary = Adversary(discriminator, device, how.lr, how.r1_weight, how.r1_every, how.mixed)
    optimizer = torch.optim.Adam(generator.parameters(), how.lr, betas=(0.0, 0.99))
    ema, path_regularizer = loop.EMA(generator), PathLengthRegularizer().to(device)

    def step(i: int) -> dict[str, float]:
        real = images(i)
        rng = loop.rng_for(how.seed, i, device)
        z = torch.randn(len(real), config.style_dim, generator=rng, device=device)
        with torch.no_grad():
            fake = drawn(z)
        values = {"d": adversary.step(shown(real, rng), shown(fake, rng), i)}
        if ada:
            values |= {"r_t": ada.watch(adversary.on_real), "p": ada.p}
        if i < how.head_start:
            return values
        g_loss = adversary.generator_loss(shown(drawn(z), rng))
        values["g"] = float(g_loss.detach())
        if how.path_weight and i % how.path_every == 0:
            half = z[: max(1, len(z) // 2)]  # half a batch, as in the paper: memory
            penalty = path_regularizer(generator, half, how.until, rng)
            values["path"] = float(penalty.detach())
            g_loss = g_loss + how.path_weight * how.path_every * penalty
        loop.optimizer_step(g_loss, optimizer)
        ema.update(generator, i - how.head_start)
        return values

    def drawn(z: Tensor) -> Tensor:
        with autocast(device) if how.mixed else nullcontext():
            return draw(generator, generator.map(z), how.until).float()

    def shown(pictures: Tensor, rng: torch.Generator) -> Tensor:
        return ada.augment(pictures, rng) if ada else pictures

    parts = {"generator": generator, "ema": ema, "optimizer": optimizer, **adversary.parts()}
    parts |= ({"ada": ada} if ada else {}) | ({"steps": path_regularizer} if how.path_weight else {})
    loop.run(folder, how.iterations, step, parts, title="StyleGAN game")
    return ema.model
