"""Training VToonify-T (paper §4.2, SPEC §7) on pairs: first without, then with flicker suppression.

Two recipes share every line but the source of pairs. `paper`: pairs come from the two StyleGANs and the generator in
VToonify is frozen (see `paper`). `renders`: pairs are exact renders of the same person in both styles, and the
generator's fine layers learn along, which is what makes a small generator crisp. The default bundle says which one
made it. Unlike the paper's, the pixel loss is L1 on colours and edges, and the adversarial loss is left to a last
stage (`judge`), when there is little left to win but sharpness.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from .. import losses
from ..config import GeneratorConfig, VToonifyConfig, VToonifyError
from ..images import to_image
from ..metrics import feature_distance
from ..models.encoders import ParsingNet, StyleEncoder
from ..models.vtoonify import VToonify
from ..parsing import CLASS_NAMES, network_input
from ..studio.shards import Pairs
from ..synthesis import Crop, crop, random_crop
from . import data, loop
from .judge import Judge

RECIPES = ("renders", "paper")
FEATURE_WEIGHT, EDGE_WEIGHT, FLICKER_WEIGHT = 0.25, 0.5, 4.0
DETAILS = (*data.SMALL_PARTS, CLASS_NAMES.index("nose"))
DETAIL_WEIGHT, BACKDROP_WEIGHT = 3.0, 0.5  # of the pixels of DETAILS, and of the background
SHARPEN_WEIGHT = 0.01  # of the adversarial loss
JUDGE = GeneratorConfig(128, channels=((4, 64), (8, 64), (16, 64), (32, 48), (64, 32), (128, 24)))
"""Sizes of the discriminator of the last stage: it judges squares of 128 px."""
STYLE_IMAGE = 64  # what the style encoder sees; larger pictures tell it nothing that one w can hold


@dataclass(frozen=True)
class Pair:
    """A batch of pairs, pictures in [−1,1].

    x [B,3,s,s] input, y [B,3,S,S] target; aligned [B,3,·,·] what the style encoder sees; parsing of x [B,s,s] or None
    """

    x: Tensor
    y: Tensor
    aligned: Tensor
    parsing: Tensor | None


class Students(nn.Module):
    """VToonify and the (frozen) style encoder that feeds its fine layers one code [B,1,D] per picture.

    image_size, width  of the style encoder
    """

    def __init__(self, config: VToonifyConfig, image_size: int = STYLE_IMAGE, width: int = 32):
        super().__init__()
        self.vtoonify = VToonify(config)
        self.style = StyleEncoder(image_size, 1, config.generator.style_dim, width)

    def forward(self, x: Tensor, aligned: Tensor, logits: Tensor) -> Tensor:
        """Input picture, aligned picture, parsing logits → stylised picture."""
        return self.vtoonify(network_input(x, logits), self.style(aligned))


# -- training on pairs ------------------------------------------------------------------------------------------------
def render_source(pairs: Pairs, batch: int, hold_out: int = 256, seed: int = 3, style: str = "storybook",
                  window: int | None = None, device: str | torch.device = "cpu") -> Callable[[int], Pair]:
    """Pairs of exact renders, augmented: iteration → Pair.

    window  side of a random cut of x (and of y along with it), a multiple of 8. The style encoder always sees the whole
            picture; cuts cost less and make every batch more varied.
    """
    def source(i: int) -> Pair:
        x, y, photo, parsing = data.prepare(pairs, batch, i, seed, hold_out, style, device=device)
        if window is not None:
            side, scale = x.shape[-1], y.shape[-1] // x.shape[-1]
            g = loop.generator(seed + 200, i)
            top, left = torch.randint(0, side - window + 1, (2,), generator=g).tolist()
            spot = Crop(top, left, window, window)
            x, y, parsing = crop(x, spot), crop(y, spot, scale), crop(parsing, spot)
        return Pair(x, y, photo, parsing)

    return source


def train(pairs: Callable[[int], Pair], parsing: ParsingNet, config: VToonifyConfig, folder: str | os.PathLike,
          iterations: int, recipe: str = "renders", start: dict | None = None, lr: float = 1e-3,
          flicker_from: float = 0.5, flicker_share: float = 0.25, seed: int = 3, seconds: float | None = None,
          sample_pairs: Pair | None = None, sample_every: int = 250, image_size: int = STYLE_IMAGE, width: int = 32,
          judge: GeneratorConfig | None = None, device: str | torch.device = "cpu") -> tuple[Students, Students]:
    """Train VToonify-T → (students, their moving average), resumable in `folder`.

    pairs          iteration → batch, see `render_source` and `paper.generator_source`
    recipe         "renders": the whole of VToonify learns; "paper": encoder and fusion only, the generator is frozen
    start          state dict of Students to begin from
    flicker_from   share of the iterations after which the flicker loss ramps from 0 to 1 (follows the true iteration)
    flicker_share  part of each batch that the flicker loss sees (it costs a second pass)
    sample_pairs   pairs to draw every `sample_every` iterations
    image_size, width  of the style encoder
    judge          sizes of a discriminator that sharpens squares of the output as large as it; None: no game
    device         where the networks are; the pairs must come there
    """
    if recipe not in RECIPES:
        raise VToonifyError(f"recipe is {recipe!r}; it must be one of {', '.join(RECIPES)}")
    torch.manual_seed(seed)
    students = Students(config, image_size, width).to(device)
    if start:
        students.load_state_dict(start)
    students.style.requires_grad_(False)
    students.vtoonify.generator.requires_grad_(recipe == "renders")
    optimizer = torch.optim.Adam([p for p in students.parameters() if p.requires_grad], lr, betas=(0.9, 0.99))
    ema = loop.EMA(students, decay=0.998)
    parsing = parsing.eval().requires_grad_(False)
    rival = Judge(judge, device, precision=torch.bfloat16) if judge else None

    def step(i: int) -> dict[str, float]:
        pair, rng = pairs(i), loop.generator(seed + 100, i)
        weight = flicker_weight(i, iterations, flicker_from)
        out, parts = _losses(students, parsing, pair, weight, flicker_share, rng)
        if rival:
            fake, real = _square(out, pair.y, rival.net.config.size, rng)
            parts["sharp"] = SHARPEN_WEIGHT * rival.verdict(fake)
        rate = loop.warm_cosine(lr, i, iterations, warmup=100, floor=0.02)
        loop.descend(sum(parts.values()), optimizer, rate, clip=1.0)
        ema.update(students, i)
        values = {name: float(value.detach()) for name, value in parts.items()}
        return values | ({"judge": rival.learn(real, fake, i)} if rival else {})

    def sample(i: int) -> Image.Image:
        return sheet(ema.model, parsing, sample_pairs)

    parts = {"students": students, "ema": ema, "optimizer": optimizer, **(rival.parts() if rival else {})}
    loop.run(folder, iterations, step, parts,
             sample if sample_pairs else None, sample_every, seconds=seconds, title="VToonify-T")
    return students, ema.model


def _losses(students: Students, parsing: ParsingNet, pair: Pair, flicker: float, flicker_share: float,
            rng: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
    """Output and weighted losses of one batch; `flicker` is the weight of the flicker loss, which is left out at 0."""
    with torch.autocast(pair.x.device.type, torch.bfloat16):
        with torch.no_grad():
            x = network_input(pair.x, parsing(pair.x))
            w = students.style(pair.aligned)
        out = students.vtoonify(x, w)
        parts = {"picture": picture_loss(out.float(), pair.y, detail_mask(pair.parsing, out))}
        distance = feature_distance(parsing, data.half(out), data.half(pair.y).to(out.dtype))  # half: for speed
        parts["feature"] = FEATURE_WEIGHT * distance.mean()
        if flicker > 0:
            n = max(1, int(flicker_share * len(x)))
            window = random_crop(*x.shape[2:], rng=rng)
            parts["flicker"] = flicker * losses.temporal(students.vtoonify, x[:n], w[:n], out[:n], window)
    return out, parts


def _square(out: Tensor, y: Tensor, side: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """The same random square of both [B,3,H,W], float32 [B,3,side,side]."""
    if min(out.shape[2:]) < side:
        raise VToonifyError(f"the discriminator judges squares of {side} px and the pairs are only "
                            f"{out.shape[3]}×{out.shape[2]}; use a larger window, or a smaller judge")
    top, left = (int(torch.randint(0, n - side + 1, (), generator=rng)) for n in out.shape[2:])
    spot = Crop(top, left, side, side)
    return crop(out, spot).float(), crop(y, spot)


def flicker_weight(i: int, iterations: int, start: float = 0.5) -> float:
    """FLICKER_WEIGHT times a ramp from 0 at the share `start` of the run to 1 at its end; start 1: never.

    The ramp is `losses.temporal_weight`, which starts half-way, on a clock that is half-way at `start`.
    """
    if start >= 1:
        return 0.0
    return losses.temporal_weight(i - (2 * start - 1) * iterations, 2 * (1 - start) * iterations, FLICKER_WEIGHT)


def picture_loss(out: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    """Weighted L1 of colours and of their gradients: out, y [B,3,H,W], mask [B,1,H,W]."""
    error = out - y
    l1 = (mask * error.abs()).mean()
    dx = (mask[..., 1:] * (error[..., 1:] - error[..., :-1]).abs()).mean()
    dy = (mask[..., 1:, :] * (error[..., 1:, :] - error[..., :-1, :]).abs()).mean()
    return l1 + EDGE_WEIGHT * (dx + dy)


def detail_mask(parsing: Tensor | None, out: Tensor) -> Tensor:
    """Weights of the pixels of `out` [B,3,H,W] by the classes [B,h,w] of the input → [B,1,H,W]; 1 without classes.

    DETAIL_WEIGHT around small facial features, BACKDROP_WEIGHT on the background, 1 elsewhere.
    """
    if parsing is None:
        return torch.ones_like(out[:, :1])
    near = torch.isin(parsing, torch.tensor(DETAILS, device=parsing.device)).float()[:, None]
    near = F.max_pool2d(near, 5, 1, 2)  # the cartoon's features are larger than the photograph's
    weight = 1 + (DETAIL_WEIGHT - 1) * near - (1 - BACKDROP_WEIGHT) * (1 - near) * (parsing == 0)[:, None]
    return F.interpolate(weight, out.shape[2:])


# -- looking at the result --------------------------------------------------------------------------------------------
@torch.no_grad()
def stylise(students: Students, parsing: ParsingNet, x: Tensor, aligned: Tensor | None = None) -> Tensor:
    """x [B,3,h,w] in [−1,1] (and what the style encoder sees, by default x) → [B,3,sh,sw] in [−1,1], float32."""
    side = students.style.image_size
    square = F.interpolate(x, (side, side), mode="bilinear", antialias=True) if aligned is None else aligned
    return students(x, square, parsing(x)).float().clamp(-1, 1)


def sheet(students: Students, parsing: ParsingNet, pair: Pair) -> Image.Image:
    """Rows: input, output, target."""
    out = stylise(students, parsing, pair.x, pair.aligned)
    big = F.interpolate(pair.x, out.shape[2:], mode="bilinear", align_corners=False)
    return rows((big, out, pair.y))


def rows(batches: Sequence[Tensor]) -> Image.Image:
    """Contact sheet: each batch [B,3,H,W] in [−1,1] is a row; all of one size."""
    return Image.fromarray(np.concatenate([np.concatenate(list(to_image(row)), 1) for row in batches], 0))
