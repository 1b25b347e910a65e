"""DualStyleGAN from zero (Yang et al. 2022, arXiv 2203.13248; SPEC §7), on top of a trained base StyleGAN.

The base stays as it is, so that degree 0 gives every face back. First the extrinsic path learns StyleGAN's own style
mixing: colours, then ever more structure (`pretrain`). Then it learns styles. The authors had only the artworks, and
played against a discriminator; here the renderer says what everybody looks like in every style at every degree, so
the path is taught by regression (`teach`), together with the encoder that reads a style from a picture. What is left of
their recipe works on pictures without a twin: `destylise` finds the person in an artwork, `refine` fits the code of a
style to it, and `fit_sampler` learns to draw new codes.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from .. import latents
from ..config import GeneratorConfig
from ..devices import autocast
from ..metrics import feature_distance
from ..models.dualstylegan import DualStyleGAN
from ..models.encoders import ParsingNet, StyleEncoder
from ..models.stylegan2 import MAPPING_LR
from ..ops import EqualLinear, PixelNorm
from . import data, loop
from .encoder import FEATURE_WEIGHT, STYLE_IMAGE, Order, detail_mask, picture_loss, rows
from .stylegan import Distilled, fit_mapping

WALK = (0.1, 0.2, 1.0)  # shares of the pre-training after which one more resolution of structure joins in: l = 7, 6, 5
NORM_WEIGHT = 0.01  # of the extrinsic path's weights: what a style does not need stays out


class DualDistilled(nn.Module):
    """Person encoder (frozen), style encoder and DualStyleGAN: photograph, order → picture.

    image_size, width  of both encoders; the style encoder gives a structure code and a colour code
    """

    def __init__(self, config: GeneratorConfig, image_size: int = STYLE_IMAGE, width: int = 32):
        super().__init__()
        self.generator = DualStyleGAN(config)
        self.encoder = StyleEncoder(image_size, 1, config.style_dim, width)
        self.style = StyleEncoder(image_size, 2, config.style_dim, width)

    @classmethod
    def on(cls, base: Distilled, width: int = 32, seed: int = 0) -> DualDistilled:
        """With the weights of a trained base; its encoder is where the style encoder starts."""
        torch.manual_seed(seed)
        model = cls(base.generator.config, base.encoder.image_size, width)
        model.generator.generator.load_state_dict(base.generator.state_dict())
        model.encoder.load_state_dict(base.encoder.state_dict())
        model.style.load_state_dict(doubled(base.encoder.state_dict(), model.style.state_dict()))
        return model

    def extrinsic(self, exemplar: Tensor) -> Tensor:
        """Code of the style of pictures [B,3,·,·]: [B,L,D]."""
        return latents.spread(self.style(exemplar), self.generator.n_latent)

    def forward(self, photo: Tensor, order: Order, until: int | None = None) -> Tensor:
        """→ picture at resolution `until`, or full size."""
        with torch.no_grad():
            w = self.encoder(photo)[:, 0]
        out = self.generator(w, self.extrinsic(order.exemplar),
                             self.generator.degrees(order.structure, order.color), space="w", until=until)
        return out if until is None else out[1]


def doubled(old: dict[str, Tensor], new: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a style encoder of one code for one of several, which gives the old code several times."""
    return {name: torch.cat([value] * (len(new[name]) // len(value))) for name, value in old.items()}


# -- stage 2: the base domain ----------------------------------------------------------------------------------------
def mixing_layer(i: int, iterations: int) -> int:
    """From which layer on style mixing takes the second code: 7, later 6 and 5. SPEC §7, pre-training."""
    return latents.n_structure() - sum(i >= share * iterations for share in WALK[:-1])


def pretrain(model: DualDistilled, bank: Tensor, folder: str | os.PathLike, iterations: int, batch: int = 32,
             until: int | None = None, lr: float = 2e-3, seed: int = 12, seconds: float | None = None) -> DualDistilled:
    """Teach the extrinsic path what StyleGAN's style mixing does: a face in another's colours, later in its shape.

    bank   codes of faces [N,D] (see `stylegan.code_bank`), of which every picture takes two
    until  resolution to train at; None: full size
    → the moving average, resumable in `folder`; only ModRes, T_c and T_s learn
    """
    dual = model.generator
    optimizer, ema = _learner([*dual.style.parameters(), *dual.res.parameters()], model, lr)

    def step(i: int) -> dict[str, float]:
        g = loop.generator(seed, i, bank.device)
        index = torch.randint(len(bank), (2, batch), generator=g, device=bank.device)
        own, other = (dual.generator.to_w(bank[chosen], "w") for chosen in index)
        with autocast(bank.device):
            with torch.no_grad():
                target = dual.generator.synthesize(latents.mix(own, other, mixing_layer(i, iterations)), until=until)
            out = dual(own, other, 1.0, space="w", until=until)
            out, target = (p if until is None else p[1] for p in (out, target))
            loss = picture_loss(out.float(), target.float(), detail_mask(None, target))
        loop.descend(loss, optimizer, loop.warm_cosine(lr, i, iterations, warmup=50, floor=0.05), clip=1.0)
        ema.update(model, i)
        return {"mixing": float(loss.detach())}

    loop.run(folder, iterations, step, {"model": model, "ema": ema, "optimizer": optimizer}, seconds=seconds,
             title="DualStyleGAN, style mixing")
    return ema.model


# -- stage 3: the styles ---------------------------------------------------------------------------------------------
Lesson = tuple[Tensor, Tensor, Order]  # photograph, what it looks like in the order's style, order


def teach(model: DualDistilled, lessons: Callable[[int], Lesson], parsing: ParsingNet, folder: str | os.PathLike,
          iterations: int, until: int | None = None, lr: float = 2e-3, seed: int = 13, seconds: float | None = None,
          sample_every: int = 250) -> DualDistilled:
    """Teach the extrinsic path and the style encoder the styles → the moving average, resumable in `folder`.

    lessons  iteration → photograph [B,3,·,·], its render in the style at the order's degrees [B,3,S,S], order; see
             `exemplars.portrait_source`
    """
    dual = model.generator
    path = [*dual.style.parameters(), *dual.res.parameters()]
    optimizer, ema = _learner([*path, *model.style.parameters()], model, lr)
    parsing = parsing.eval().requires_grad_(False)

    def step(i: int) -> dict[str, float]:
        photo, target, order = lessons(i)
        with autocast(photo.device):
            out = model(photo, order, until)
            a, b = (data.half(p) if p.shape[-1] > 128 else p for p in (out, target.to(out.dtype)))
            parts = {"picture": picture_loss(out.float(), target, detail_mask(None, target)),
                     "feature": FEATURE_WEIGHT * feature_distance(parsing, a, b).mean(),
                     "norm": NORM_WEIGHT * torch.stack([p.float().square().mean() for p in path]).mean()}
        rate = loop.warm_cosine(lr, i, iterations, warmup=100, floor=0.03)
        loop.descend(sum(parts.values()), optimizer, rate, clip=1.0)
        ema.update(model, i)
        return {name: float(value.detach()) for name, value in parts.items()}

    def sample(_: int) -> Image.Image:
        photo, target, order = lessons(10**6)
        with torch.no_grad():
            out = ema.model(photo, order, until).float().clamp(-1, 1)
        return rows([*(F.interpolate(p, out.shape[2:], mode="bilinear") for p in (photo, order.exemplar)), out, target])

    loop.run(folder, iterations, step, {"model": model, "ema": ema, "optimizer": optimizer}, sample, sample_every,
             seconds=seconds, title=f"DualStyleGAN {until or dual.config.size} px")
    return ema.model


def _learner(learning: list[nn.Parameter], model: nn.Module, lr: float) -> tuple[torch.optim.Optimizer, loop.EMA]:
    """Freeze all but `learning`."""
    model.requires_grad_(False)
    for parameter in learning:
        parameter.requires_grad_(True)
    return torch.optim.Adam(learning, lr, betas=(0.9, 0.99)), loop.EMA(model, decay=0.998)


# -- pictures without a twin -----------------------------------------------------------------------------------------
def destylise(model: DualDistilled, picture: Tensor, parsing: ParsingNet, iterations: int = 100, lr: float = 0.02
              ) -> Tensor:
    """Who is in an artwork [1,3,S,S]: the intrinsic code [1,D] that the model draws as this artwork in its own style.

    Starts from the person encoder's guess, and stays near it: a face must remain a face of the base.
    """
    order, parsing = _full(picture), parsing.eval().requires_grad_(False)
    with torch.no_grad():
        start, extrinsic = model.encoder(picture)[:, 0], model.extrinsic(picture)
        degree = model.generator.degrees(order.structure, order.color)
    code = start.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([code], lr)
    for i in range(iterations):
        out = model.generator(code, extrinsic, degree, space="w")
        loss = _likeness(out, picture, parsing) + 0.01 * (code - start).square().mean()
        loop.descend(loss, optimizer, loop.warm_cosine(lr, i, iterations, warmup=5))
    return code.detach()


def refine(model: DualDistilled, picture: Tensor, parsing: ParsingNet, iterations: int = 100, color_lr: float = 0.1,
           structure_lr: float = 0.005, person: Tensor | None = None) -> Tensor:
    """Fit structure code and colour code [1,2,D] of one artwork [1,3,S,S] to it, colours faster than structure.

    person  intrinsic code [1,D] of who is in it (default: `destylise`)
    """
    person = destylise(model, picture, parsing) if person is None else person
    order, layers, parsing = _full(picture), model.generator.n_latent, parsing.eval().requires_grad_(False)
    degree = model.generator.degrees(order.structure, order.color)
    with torch.no_grad():
        structure, color = (part.clone() for part in model.style(picture).split(1, 1))
    optimizer = torch.optim.Adam([{"params": [structure.requires_grad_(True)], "lr_scale": structure_lr / color_lr},
                                  {"params": [color.requires_grad_(True)]}], color_lr)
    for i in range(iterations):
        extrinsic = latents.spread(torch.cat([structure, color], 1), layers)
        loss = _likeness(model.generator(person, extrinsic, degree, space="w"), picture, parsing)
        loop.descend(loss, optimizer, loop.warm_cosine(color_lr, i, iterations, warmup=5))
    return torch.cat([structure, color], 1).detach()


def _full(picture: Tensor) -> Order:
    one = torch.ones(len(picture), device=picture.device)
    return Order(picture, torch.zeros_like(one, dtype=torch.long), one, one)


def _likeness(out: Tensor, picture: Tensor, parsing: ParsingNet) -> Tensor:
    target = F.interpolate(picture, out.shape[2:], mode="bilinear", antialias=True)
    return picture_loss(out, target, detail_mask(None, target)) + FEATURE_WEIGHT * feature_distance(
        parsing, out, target).mean()


# -- new styles ------------------------------------------------------------------------------------------------------
SAMPLER_DEPTH = 4


def fit_sampler(codes: Tensor, **more: int | float) -> nn.Sequential:
    """A network from Gaussian noise [B,2D] to codes of styles that nobody drew, distributed like `codes` [N,2,D].

    more  as for `stylegan.fit_mapping`; → flat codes [B,2D], to be reshaped to [B,2,D]
    """
    width = codes[0].numel()
    sampler = nn.Sequential(
        PixelNorm(), *(EqualLinear(width, width, lr_mul=MAPPING_LR, activate=i < SAMPLER_DEPTH - 1)
                       for i in range(SAMPLER_DEPTH)))
    fit_mapping(sampler, codes.flatten(1), **more)
    return sampler.requires_grad_(False)
