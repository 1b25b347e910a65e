"""Codes of the studio's styles: the numbers that define a style, in the form in which networks read them.

The renderer knows what a style is: how far each feature is pulled, which technique, which palette. Standardised over
all looks, these numbers are a style's structure code and colour code. So VToonify-D need not learn
styles from pictures, interpolated codes give interpolated styles, and the style encoder has exact targets.
"""
from __future__ import annotations

from dataclasses import fields
from functools import cache

import numpy as np

from ..config import VToonifyError
from . import photo_looks
from .exemplars import EXEMPLARS, LOOKS, exemplar
from .styles import PHOTO, Palette, Style

PHOTO_STRUCTURE = ("exaggerate", "wrinkles", "form", "strands", "tones", "ink", "stroke")
GOALS = ("skin", "hair", "iris")  # colours to go to: of no account for a palette that does not pull
UNSTEADY = 1e-6  # least standard deviation of a number; one that does not vary carries no information


def style_codes(size: int, photographs: bool = False) -> np.ndarray:
    """Codes of all exemplars, then of the photograph: float32 [4·24 + 1, 2, size], numbers of about unit variance.

    The order is that of `index = look · 24 + number`. Structure codes fill the last places, colour codes the first,
    so that `latents.styled` can add them; the others are 0. VToonifyError when `size` is too small.

    photographs: of the looks that photographs are drawn in (`photo_looks.LOOKS`), not of those of renders
    """
    out = np.zeros((len(LOOKS) * EXEMPLARS + 1, 2, size), np.float32)
    structure, color = _photo_tables() if photographs else _tables()
    needed = structure.shape[1] + color.shape[1]
    if needed > size:
        raise VToonifyError(f"a style takes {needed} numbers, codes have room for {size}; use a larger style_dim")
    out[:, 0, -structure.shape[1]:], out[:, 1, : color.shape[1]] = structure, color
    return out


@cache
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """Standardised numbers [97,P] and [97,Q]."""
    styles = [exemplar(look, number)[1] for look in LOOKS for number in range(EXEMPLARS)] + [PHOTO]
    warps = sorted({name for style in styles for name in style.warp if "/r-" not in name})  # both sides go together
    structure = _standardised(np.array([_structure(style, warps) for style in styles]))
    color = np.array([_color(style.palette) for style in styles])
    color[-1, : 3 * len(GOALS)] = color[:-1, : 3 * len(GOALS)].mean(0)  # the photograph goes nowhere
    return structure, _standardised(color)


@cache
def _photo_tables() -> tuple[np.ndarray, np.ndarray]:
    """The same of the looks of photographs."""
    looks = [photo_looks.exemplar(look, number) for look in photo_looks.LOOKS for number in range(EXEMPLARS)]
    looks.append(photo_looks.PhotoLook("photo", strands=0.0, form=0.0, wrinkles=1.0, contrast=0.0, vivid=1.0))
    warps = sorted({name for look in looks for name in look.warp if "/r-" not in name})
    structure = [[*(float(look.name == name) for name in photo_looks.LOOKS),
                  *(getattr(look, name) for name in PHOTO_STRUCTURE),
                  look.eyes.iris, look.eyes.pupil, look.eyes.lash, look.eyes.glint,
                  *(look.warp.get(name, 0.0) for name in warps)] for look in looks]
    color = [[*look.tint, look.vivid, look.contrast, look.side_light, look.side, look.eyes.vivid, look.eyes.light]
             for look in looks]
    return _standardised(np.array(structure)), _standardised(np.array(color))


def _standardised(table: np.ndarray) -> np.ndarray:
    """Mean 0 and variance 1 over five looks: the exemplars, and the photograph, last, as often as a look has them."""
    looks = np.concatenate([table[:-1], np.repeat(table[-1:], EXEMPLARS, 0)])
    spread = looks.std(0)
    kept = spread > UNSTEADY
    return (table[:, kept] - looks[:, kept].mean(0)) / spread[kept]


def _structure(style: Style, warps: list[str]) -> list[float]:
    """Look, technique, shape."""
    numbers = [float(getattr(style, f.name)) for f in fields(Style) if f.name not in ("name", "warp", "palette")]
    return [*(float(style.name == look) for look in LOOKS), *numbers, *(style.warp.get(name, 0.0) for name in warps)]


def _color(palette: Palette) -> list[float]:
    """Goals, as square roots because the eye sees dark ones apart, then everything else."""
    rest = [f.name for f in fields(Palette) if f.name not in GOALS]
    values = [np.sqrt(getattr(palette, name)) for name in GOALS] + [getattr(palette, name) for name in rest]
    return [float(number) for value in values for number in np.atleast_1d(value)]
