"""Training VToonify-T (paper §4.2, SPEC §7): encoder pre-training, then the pairs, then pairs with flicker suppression.

Two recipes share every line but the source of pairs. `paper`: pairs come from the two StyleGANs and the generator inside
VToonify is frozen. `renders`: pairs are exact renders of the same person in both styles, and the generator's fine layers
learn along, which is what makes a small generator crisp. The default bundle says which one made it.
"""
from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from .. import latents, losses
from ..config import HANDOFF, PARSING_SCALE, VToonifyConfig
from ..metrics import feature_distance
from ..models.encoders import ParsingNet, StyleEncoder
from ..models.vtoonify import VToonify
from ..studio.shards import Pairs
from ..synthesis import Crop, crop, random_crop
from . import data, loop

FEATURE_WEIGHT, EDGE_WEIGHT, DETAIL_WEIGHT, FLICKER_WEIGHT = 0.25, 0.5, 3.0, 4.0
DETAILS = (2, 3, 4, 5, 6, 10, 11, 12, 13)  # parsing classes whose pixels weigh DETAIL_WEIGHT: brows, eyes, glasses, nose, mouth, lips


@dataclass(frozen=True)
class Pair:
    """x [B,3,s,s] input, y [B,3,S,S] target, both in [−1,1]; aligned [B,3,S,S] what the style encoder sees; parsing of x [B,s,s] or None."""

    x: Tensor
    y: Tensor
    aligned: Tensor
    parsing: Tensor | None


def render_source(pairs: Pairs, batch: int, hold_out: int = 256, seed: int = 3, style: str = "storybook",
                  window: int | None = None) -> Callable[[int], Pair]:
    """Pairs of exact renders, augmented. window: side of a random cut of x (and of y along with it), a multiple of 8.

    The style encoder always sees the whole picture; cuts cost less and make every batch more varied.
    """
    def source(i: int) -> Pair:
        x, y, photo, parsing = data.prepare(pairs, batch, i, seed, hold_out, style)
        if window is not None:
            side, scale = x.shape[-1], y.shape[-1] // x.shape[-1]
            g = loop.generator(seed + 200, i)
            top, left = torch.randint(0, side - window + 1, (2,), generator=g).tolist()
            spot = Crop(top, left, window, window)
            x, y, parsing = crop(x, spot), crop(y, spot, scale), crop(parsing, spot)
        return Pair(x, y, photo, parsing)

    return source


class Students(nn.Module):
    """VToonify and the (frozen) style encoder that feeds its fine layers."""

    def __init__(self, config: VToonifyConfig, image_size: int = 128):
        super().__init__()
        self.vtoonify = VToonify(config)
        g = self.vtoonify.generator
        self.style = StyleEncoder(image_size, g.n_latent, config.generator.style_dim)

    def forward(self, x: Tensor, aligned: Tensor, logits: Tensor) -> Tensor:
        """Input picture, aligned picture, parsing logits → stylised picture."""
        w = self.style(aligned)
        return self.vtoonify(torch.cat([x, logits.to(x.dtype) * PARSING_SCALE], 1), w)


def picture_loss(out: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    """Weighted L1 of colours and of their gradients: out, y [B,3,H,W], mask [B,1,H,W]."""
    l1 = (mask * (out - y).abs()).mean()
    dx = (mask[..., 1:] * ((out - y)[..., 1:] - (out - y)[..., :-1]).abs()).mean()
    dy = (mask[..., 1:, :] * ((out - y)[..., 1:, :] - (out - y)[..., :-1, :]).abs()).mean()
    return l1 + EDGE_WEIGHT * (dx + dy)


def detail_mask(parsing: Tensor | None, out: Tensor) -> Tensor:
    """DETAIL_WEIGHT around small facial features, ½ on the backdrop, 1 elsewhere, [B,1,H,W]; 1 without a parsing map."""
    if parsing is None:
        return torch.ones_like(out[:, :1])
    near = torch.isin(parsing, torch.tensor(DETAILS)).float()[:, None]
    near = F.max_pool2d(near, 5, 1, 2)  # the cartoon's features are larger than the photograph's
    weight = 1 + (DETAIL_WEIGHT - 1) * near - 0.5 * (1 - near) * (parsing == 0)[:, None]
    return F.interpolate(weight, out.shape[2:])


def train(pairs: Callable[[int], Pair], parsing: ParsingNet, config: VToonifyConfig, folder: str | os.PathLike, iterations: int, recipe: str = "renders",
          start: dict | None = None, lr: float = 1e-3, flicker_from: float = 0.5, flicker_share: float = 0.25, seed: int = 3, seconds: float | None = None,
          sample_pairs: Pair | None = None, sample_every: int = 250) -> tuple[Students, Students]:
    """Train VToonify-T → (students, their moving average), resumable in `folder`.

    flicker_from   share of the iterations after which the flicker loss ramps from 0 to 1 (follows the true iteration)
    flicker_share  part of each batch that the flicker loss sees (it costs a second pass)
    start          state dict of Students to begin from
    """
    torch.manual_seed(seed)
    students = Students(config)
    if start:
        students.load_state_dict(start)
    students.style.requires_grad_(False)
    trained = students.vtoonify.parameters() if recipe == "renders" else students.vtoonify.encoder_parameters()
    optimizer = torch.optim.Adam([p for p in trained], lr, betas=(0.9, 0.99))
    ema = loop.EMA(students, decay=0.998)
    parsing = parsing.eval().requires_grad_(False)

    def step(i: int) -> dict[str, float]:
        g = loop.generator(seed + 100, i)
        for group in optimizer.param_groups:
            group["lr"] = float(lr * min(1.0, (i + 1) / 100) * (0.02 + 0.98 * (0.5 + 0.5 * np.cos(np.pi * i / iterations))))
        pair = pairs(i)
        ramp = max(0.0, (i / iterations - flicker_from) / (1 - flicker_from))
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                logits = parsing(pair.x)
                w = students.style(pair.aligned)
            x = torch.cat([pair.x, logits.float() * PARSING_SCALE], 1)
            out = students.vtoonify(x, w)
            parts = {"picture": picture_loss(out.float(), pair.y, detail_mask(pair.parsing, out)),
                     "feature": FEATURE_WEIGHT * feature_distance(parsing, data.half(out), data.half(pair.y).to(out.dtype)).mean()}
            if ramp > 0:
                n = max(1, int(flicker_share * len(x)))
                window = random_crop(*x.shape[2:], rng=g)
                parts["flicker"] = ramp * FLICKER_WEIGHT * losses.temporal(students.vtoonify, x[:n], w[:n], out[:n], window)
        optimizer.zero_grad(set_to_none=True)
        sum(parts.values()).backward()
        nn.utils.clip_grad_norm_([p for p in students.parameters() if p.grad is not None], 1.0)
        optimizer.step()
        ema.update(students, i)
        return {name: float(value.detach()) for name, value in parts.items()}

    def sample(i: int) -> Image.Image:
        return sheet(ema.model, parsing, sample_pairs)

    loop.run(folder, iterations, step, {"students": students, "ema": ema, "optimizer": optimizer}, sample if sample_pairs else None, sample_every, seconds=seconds,
             title="VToonify-T")
    return students, ema.model


@torch.no_grad()
def stylise(students: Students, parsing: ParsingNet, x: Tensor, aligned: Tensor | None = None) -> Tensor:
    """x [B,3,h,w] in [−1,1] (and what the style encoder sees) → [B,3,sh,sw], float32."""
    square = F.interpolate(x, (128, 128), mode="bilinear", antialias=True) if aligned is None else aligned
    return students(x, square, parsing(x)).float().clamp(-1, 1)


def sheet(students: Students, parsing: ParsingNet, pair: Pair) -> Image.Image:
    """Rows: input, output, target."""
    out = stylise(students, parsing, pair.x, pair.aligned)
    big = F.interpolate(pair.x, out.shape[2:], mode="bilinear", align_corners=False)
    return Image.fromarray(np.concatenate([np.concatenate([data.to_picture(p) for p in row], 1) for row in (big, out, pair.y)], 0))


# -- the paper's own recipe -------------------------------------------------------------------------------------------
def generator_source(base, stylised, style_encoder: Callable[[Tensor], Tensor], config: VToonifyConfig, batch: int, truncation: float = 0.5, seed: int = 4,
                     transform: Callable[[list[Tensor], torch.Generator], list[Tensor]] | None = None) -> Callable[[int], Pair]:
    """Synthetic pairs from two generators: x = G0(w'), y = G1([½·w'[:7], E_s(x)[7:]]), the same random affine on both (SPEC §7)."""
    centre = base.mean_w(rng=loop.generator(seed, 0))
    edited = slice(3, latents.n_structure())

    @torch.no_grad()
    def source(i: int) -> Pair:
        g = loop.generator(seed, i + 1)
        z = torch.randn(batch, config.generator.style_dim, generator=g)
        other = torch.randn(batch, config.generator.style_dim, generator=g)
        w = base.to_w(z, "z", 1.0).clone()
        w[:, edited] += 0.3 * (base.to_w(other, "z", 1.0) - w)[:, edited]
        w = latents.truncate(w, truncation, centre)
        photo = base.synthesize(w)
        codes = latents.mix(w, style_encoder(photo), latents.n_structure())
        images = [photo, stylised.synthesize(codes)]
        if transform is not None:
            images = transform(images, g)
        x = F.interpolate(images[0], (config.in_size, config.in_size), mode="bilinear", antialias=True, align_corners=False)
        return Pair(x.clamp(-1, 1), images[1].clamp(-1, 1), images[0], None)

    return source


def pretrain(base, stylised, parsing: ParsingNet, vtoonify: VToonify, folder: str | os.PathLike, iterations: int, batch: int = 16, lr: float = 1e-4, seed: int = 5,
             seconds: float | None = None) -> VToonify:
    """Encoder pre-training: E(x) meets the stylised generator's feature and picture at hand-off. Paper Eq. (2)."""
    optimizer = torch.optim.Adam(vtoonify.encoder.parameters(), lr, betas=(0.9, 0.99))
    centre = base.mean_w(rng=loop.generator(seed, 0))
    size = vtoonify.config.in_size

    def step(i: int) -> dict[str, float]:
        g = loop.generator(seed, i + 1)
        with torch.no_grad():
            w = base.to_w(torch.randn(batch, vtoonify.config.generator.style_dim, generator=g), "z", 0.5, centre)
            photo = F.interpolate(base.synthesize(w), (size, size), mode="bilinear", antialias=True, align_corners=False)
            feature, skip = stylised.synthesize(w, until=HANDOFF)
            x = torch.cat([photo, parsing(photo) * PARSING_SCALE], 1)
        mine, picture = vtoonify.encode(x)
        loss = losses.handoff_match(mine, picture, feature, skip)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return {"hand-off": float(loss.detach())}

    loop.run(folder, iterations, step, {"vtoonify": vtoonify, "optimizer": optimizer}, seconds=seconds, title="encoder pre-training")
    return vtoonify
