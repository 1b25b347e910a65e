"""Training VToonify-D on exact renders (paper §4.2): the same person in many styles, at every degree.

A data set of `studio.shards.render_styles` says what each person looks like in one style of every look, at a structure
and a colour degree of its own. The network sees the photograph and another picture in that style, so it has to learn
styles from pictures. The losses are those of `vtoonify`, and the mask loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from ..config import VToonifyConfig, VToonifyError
from ..media.images import to_tensor
from ..models.vtoonify import VToonify
from ..models.vtoonify_d import VToonifyD
from ..studio.shards import Pairs
from . import augment, loop
from .dualstylegan import StyleExample, doubled
from .pairs import Pair, StyleCondition
from .vtoonify import STYLE_IMAGE, DualVToonifyTask, VToonifyTask, cut_out, encoder_size

OPEN_MASK = 1.0  # bias of the fusion masks at the start: tanh(1) of the photograph's detail passes


class Exemplars:
    """Small pictures of every style: the inputs of the style encoder.

    pictures  of each style, in the order of `index = look · per_look + number`: uint8 [N,S,S,3] each, of any person, at
              full degree, in FFHQ's framing
    looks     names of the looks, of which each has as many styles
    """

    def __init__(self, pictures: Sequence[np.ndarray], looks: Sequence[str]):
        empty = [i for i, found in enumerate(pictures) if not len(found)]
        if empty:
            raise VToonifyError(f"there is no picture of style {empty[0]}; render more people, or give its exemplar")
        self.pictures, self.looks, self.per_look = list(pictures), tuple(looks), len(pictures) // len(looks)

    @classmethod
    def from_pairs(cls, pairs: Pairs, looks: Sequence[str], per_look: int, hold_out: int, size: int = STYLE_IMAGE,
                   own: Callable[[str, int], np.ndarray] | None = None) -> Exemplars:
        """All entries of the data set at full degree; `own(look, number)`: a style's own picture of the same size."""
        found = []
        for look in looks:
            full = (np.array(pairs[f"{look}_structure"]) == 1) & (np.array(pairs[f"{look}_color"]) == 1)
            ready = pairs.ready[(pairs.ready >= hold_out) & (pairs.ready % 2 == 0)]
            ready = ready[full[ready]]
            numbers = np.array(pairs[f"{look}_style"])[ready]
            for number in range(per_look):
                drawn = augment.aligned(pairs, ready[numbers == number], look, size, progress=False)
                mine = [] if own is None else [own(look, number)[None]]
                found.append(np.concatenate([*mine, drawn]))
        return cls(found, looks)

    def draw(self, index: np.ndarray, rng: np.random.Generator, device: str | torch.device = "cpu") -> Tensor:
        """A random picture of each style, mirrored at random: [B,3,S,S] in [−1,1]."""
        chosen = np.stack([self.pictures[i][rng.integers(len(self.pictures[i]))] for i in index])
        mirrored = np.where(rng.random(len(index))[:, None, None, None] < 0.5, chosen[:, :, ::-1], chosen)
        return to_tensor(mirrored, device)

    def condition(self, pairs: Pairs, entries: np.ndarray, look: str | Sequence[str], rng: np.random.Generator,
                  device: str | torch.device = "cpu") -> StyleCondition:
        """What draws the entries [B] in a look (one for all, or one for each): style and degrees of the data set."""
        looks = [look] * len(entries) if isinstance(look, str) else look

        def read(suffix: str) -> np.ndarray:
            return np.array([pairs[f"{name}_{suffix}"][entry] for name, entry in zip(looks, entries, strict=True)])

        index = self.per_look * np.array([self.looks.index(name) for name in looks]) + read("style")
        structure, color = (torch.from_numpy(read(axis)).float().to(device) for axis in ("structure", "color"))
        return StyleCondition(self.draw(index, rng, device), torch.from_numpy(index).to(device), structure, color)


def style_source(pairs: Pairs, exemplars: Exemplars, batch: int, hold_out: int = 256, seed: int = 3,
                 window: int | None = None, codes: np.ndarray | None = None, table_code_until: int = 0,
                 device: str | torch.device = "cpu") -> Callable[[int], Pair]:
    """Pairs of exact renders, each in a look of its own, augmented as `vtoonify.render_source`: iteration → Pair.

    codes       of all styles, then of the photograph, [N+1,2,D] (`studio.codes.style_codes`); None: not known
    table_code_until  iteration before which every picture is drawn by them; from there on every other one
    """
    table = None if codes is None else torch.from_numpy(codes).to(device)

    def source(i: int) -> Pair:
        rng, g = np.random.default_rng([seed, i]), loop.rng_for(seed, i, device)
        entries = augment.choose(pairs, batch, rng, hold_out)
        looks = [exemplars.looks[k] for k in rng.integers(0, len(exemplars.looks), batch)]
        condition = exemplars.condition(pairs, entries, looks, rng, device)
        drawn = augment.augment_batch(augment.load(pairs, entries, looks, device), g, repainted=condition.color)
        if table is not None:
            condition = condition.coded(table, torch.from_numpy((rng.random(batch) < 0.5) | (i < table_code_until)))
        return cut_out(drawn._replace(condition=condition), window, loop.rng_for(seed + 200, i))

    return source


def portrait_source(pairs: Pairs, exemplars: Exemplars, batch: int, size: int, hold_out: int = 256, seed: int = 12,
                    codes: np.ndarray | None = None, device: str | torch.device = "cpu"
                    ) -> Callable[[int], StyleExample]:
    """Examples for DualStyleGAN at `size` pixels: aligned portraits in front of calm backgrounds, by iteration.

    codes  as for `style_source`; half of the pictures are drawn by them
    """
    index = augment.portrait_pool(pairs, max(size, STYLE_IMAGE), hold_out)
    table = None if codes is None else torch.from_numpy(codes).to(device)

    @cache  # a finished run never asks for them
    def pictures() -> tuple[np.ndarray, np.ndarray]:
        return (augment.aligned(pairs, index, "photo", STYLE_IMAGE),
                np.stack([augment.aligned(pairs, index, look, size, calm=True) for look in exemplars.looks]))

    def source(i: int) -> StyleExample:
        photos, targets = pictures()
        rng, g = np.random.default_rng([seed, i]), loop.rng_for(seed, i, device)
        who, look = rng.integers(0, len(index), batch), rng.integers(0, len(exemplars.looks), batch)
        condition = exemplars.condition(pairs, index[who], [exemplars.looks[k] for k in look], rng, device)
        side = torch.rand(batch, 1, 1, 1, generator=g, device=g.device) < 0.5
        untinted = [torch.where(side, x.flip(3), x) for x in
                    (to_tensor(photos[who], device), to_tensor(targets[look, who], device))]
        photo, target = augment.tint(untinted, g, strength=0.4)
        target = torch.lerp(target, untinted[1], condition.color.view(-1, 1, 1, 1))  # colours of a style are not tinted
        if table is not None:
            condition = condition.coded(table, torch.rand(batch, generator=loop.rng_for(seed + 100, i)) < 0.5)
        return photo, target, condition

    return source


def dual_task(simple: VToonifyTask, config: VToonifyConfig, seed: int = 0) -> DualVToonifyTask:
    """VToonify-D initialised from a trained VToonify-T: all weights that the two share, and a style encoder that gives
    the old code twice. `config` is that of the T with the other backbone."""
    torch.manual_seed(seed)
    dual = DualVToonifyTask(config, **encoder_size(simple.style))
    dual.vtoonify.load_state_dict({**dual.vtoonify.state_dict(), **_renamed(simple.vtoonify)})
    for fusion in dual.vtoonify.fusion_out:
        torch.nn.init.constant_(fusion.conv2.bias, OPEN_MASK)
    dual.style.load_state_dict(doubled(simple.style.state_dict(), dual.style.state_dict()))
    return dual


def _renamed(simple: VToonify) -> dict[str, Tensor]:
    """Weights of VToonify-T under the names they have in VToonify-D."""
    renamed = {}
    for name, value in simple.state_dict().items():
        part, rest = name.split(".", 1)
        if part == VToonify.STYLEGAN:
            name = f"{VToonifyD.STYLEGAN}.{rest}"
        elif part == "fusion_out":
            number, rest = rest.split(".", 1)
            name = f"fusion_out.{number}.conv.{rest}"
        renamed[name] = value
    return renamed
