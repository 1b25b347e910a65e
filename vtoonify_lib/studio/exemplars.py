"""The style sets: four looks, each with 24 exemplars that differ in proportions and in palette.

`exemplar(look, index)` is a person and the style that draws them. The style works on anybody; its palette is that of
the exemplar's own person. `python -m vtoonify_lib.studio.exemplars OUT` writes their pictures.
"""
from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..config import VToonifyError, exit_code
from .people import Z_SIZE, Person, person, split
from .styles import STORYBOOK_PALETTE, Palette, Style, both

LOOKS = ("storybook", "clay", "comic", "caricature")
EXEMPLARS = 24
PICTURE = 256
Levels = Callable[..., float]
"""`levels(low, high)`: the next property of an exemplar; over a look's exemplars it takes evenly spread values."""

_HEADS = {"round": 1.0, "oval": 1.0, "square": 0.9, "triangular": 0.5, "invertedtriangular": 0.9, "diamond": 0.4,
          "rectangular": 1.0}  # how much of each a head bears: some soon get a pointed skull
_BACKDROPS = np.array([  # calm, as painted card: sand, sage, sky, rose, lilac, stone
    [0.62, 0.50, 0.36], [0.36, 0.48, 0.36], [0.34, 0.48, 0.60], [0.62, 0.40, 0.38], [0.44, 0.38, 0.56],
    [0.45, 0.45, 0.46]])
_CLAY_HAIR = ((0.05, 0.03, 0.025), (0.22, 0.09, 0.03), (0.50, 0.16, 0.03), (0.62, 0.40, 0.08), (0.10, 0.20, 0.34),
              (0.55, 0.52, 0.48), (0.30, 0.05, 0.05), (0.12, 0.25, 0.12))
_INK_HAIR = ((0.012, 0.012, 0.03), (0.32, 0.11, 0.03), (0.66, 0.46, 0.12), (0.03, 0.07, 0.20), (0.34, 0.04, 0.04),
             (0.10, 0.05, 0.02), (0.58, 0.58, 0.63), (0.16, 0.05, 0.15))
_OIL_HAIR = ((0.03, 0.02, 0.015), (0.16, 0.07, 0.025), (0.40, 0.20, 0.05), (0.50, 0.46, 0.40), (0.30, 0.07, 0.02),
             (0.08, 0.05, 0.04), (0.55, 0.38, 0.14), (0.20, 0.18, 0.17))
_FAIRY_HAIR = ((0.025, 0.018, 0.016), (0.34, 0.09, 0.03), (0.55, 0.36, 0.13), (0.16, 0.07, 0.03), (0.46, 0.43, 0.45),
               (0.26, 0.13, 0.05), (0.06, 0.04, 0.06), (0.42, 0.20, 0.08))


def exemplar(look: str, index: int) -> tuple[Person, Style]:
    """Person and style of one exemplar, the same in every process. VToonifyError for an unknown look or index."""
    if look not in LOOKS:
        raise VToonifyError(f"there is no look {look!r}; choose one of {', '.join(LOOKS)}")
    if not 0 <= index < EXEMPLARS:
        raise VToonifyError(f"{look} has no exemplar {index}; choose one from 0 to {EXEMPLARS - 1}")
    return _exemplars(look)[index]


@lru_cache
def _exemplars(look: str) -> list[tuple[Person, Style]]:
    make = {"storybook": _storybook, "clay": _clay, "comic": _comic, "caricature": _caricature}[look]
    rng = np.random.default_rng([7, LOOKS.index(look)])
    out = []
    for index, levels in enumerate(spread_levels(rng)):
        who = _sitter(LOOKS.index(look), index, levels)
        out.append(make(who, index, levels))
    return out


def spread_levels(rng: np.random.Generator) -> Iterator[Levels]:
    """`Levels` of each exemplar in turn: every property takes evenly spread values over the exemplars, in any order."""
    spread: list[np.ndarray] = []  # for every property, in the order they are asked for: a permutation of exemplars
    for index in range(EXEMPLARS):
        asked = iter(range(10**6))

        def levels(low: float = 0.0, high: float = 1.0, index: int = index, asked: Any = asked) -> float:
            i = next(asked)
            if i == len(spread):
                spread.append((rng.permutation(EXEMPLARS) + 0.5) / EXEMPLARS)
            return float(low + (high - low) * spread[i][index])

        yield levels


@lru_cache
def sitters() -> list[Person]:
    """EXEMPLARS pleasant people, half turned at most, before plain backdrops: to show styles on."""
    return [_sitter(len(LOOKS), i, levels) for i, levels in enumerate(spread_levels(np.random.default_rng(7)))]


def _sitter(group: int, index: int, levels: Levels) -> Person:
    rng = np.random.default_rng([11, group, index])
    z = 0.55 * rng.standard_normal(Z_SIZE)
    part = split(z)  # views: what is set in them is set in z
    origin = np.full(3, -0.9)
    origin[index % 3] = 1.4
    part["macro"][:3] = origin + 0.3 * part["macro"][:3]
    part["macro"][3] = 0.8 * (1 if (index // 3) % 2 else -1)
    part["macro"][4] = levels(-1.3, 1.1)
    part["hair"][0], part["hair"][1] = levels(-1.8, 1.8), levels(-1.6, 1.8)
    part["mouth"][:2] = levels(-1.0, 0.5), levels(-0.2, 1.0)
    part["lids"][:] = [0.3, 0, 0, 0.3]
    part["face_hair"][1] = levels(-1.2, 1.0)
    part["glasses"][0] = 2.0 if index % 8 == 3 else -1.0
    part["pose"][:] = levels(-1.0, 1.0), levels(-0.4, 0.6), 0.0
    part["gaze"] *= 0.3
    part["brows"][0] = levels(-0.3, 0.8)
    who = person(z)
    base = _BACKDROPS[int(levels(0, len(_BACKDROPS)))] * levels(0.7, 1.15)
    return who.with_(backdrop=dict(
        who.backdrop, top=np.clip(base * 1.15, 0, 1), bottom=base * 0.85, tilt=np.array([0.3, 1.0]),
        blob=np.full((10, 4), -1.0), wall=np.zeros(4), grain=0.0, cloud=np.zeros(3), stripe=np.array([0.0, 2.0, 0.0])))


def _signed(part: str, weight: float, low: str = "decr", high: str = "incr") -> dict[str, float]:
    """One direction or the other of a pair of targets."""
    return {f"{part}-{high if weight > 0 else low}": abs(weight)}


def _head(index: int, weight: float, offset: int = 0) -> dict[str, float]:
    """One of the head shapes; neighbours in the set have different ones."""
    name = tuple(_HEADS)[(index + offset) % len(_HEADS)]
    return {f"head/head-{name}": weight * _HEADS[name]}


def _lids(eyes: float, height: float) -> float:
    return 1.0 + 0.22 * eyes + 0.17 * height


def _light_of(levels: Levels, warm: float) -> dict[str, Any]:
    """A key light from its own side, warm or cool by up to `warm`, and the opposite tint all around."""
    hue, side = levels(-warm, warm), levels(-0.85, 0.85)
    tint = np.array([1 + hue, 1 + 0.15 * hue, 1 - hue])
    return {"key": tuple(tint), "from_side": side, "from_above": levels(0.25, 0.75), "light_pull": 0.8}


def _tinted(base: Palette, who: Person, hair: tuple, hue: float, **more: Any) -> Palette:
    """A palette whose skin is the sitter's, warmer (hue > 0) or rosier (< 0)."""
    tone = who.skin["tone"] * np.array([1.0 + 0.02 * hue, 1.0 + 0.07 * hue, 1.0 - 0.16 * hue])
    return replace(base, skin=tuple(np.clip(tone, 0, 1)), hair=tuple(hair), **more)


def _storybook(who: Person, index: int, levels: Levels) -> tuple[Person, Style]:
    eyes, height, nose = levels(2.3, 3.9), levels(0.6, 1.6), levels(0.3, 1.3)
    warp = both({
        "eyes/{s}-eye-scale-incr": eyes, "eyes/{s}-eye-height2-incr": height, "eyes/{s}-eye-trans-out": 0.15,
        **_signed("eyes/{s}-eye-corner2", levels(-0.7, 0.9), "down", "up"),
        "nose/nose-scale-vert-decr": nose, "nose/nose-scale-depth-decr": 0.55, "nose/nose-point-up": levels(0.1, 0.7),
        **_signed("nose/nose-scale-horiz", levels(-0.7, 0.5)), **_head(index, levels(0.4, 1.0)),
        "head/head-age-decr": levels(0.7, 1.2), **_signed("chin/chin-width", levels(-2.2, 0.0)),
        **_signed("chin/chin-height", levels(-0.6, 0.2)), "chin/chin-jaw-drop-decr": levels(0.0, 0.4),
        "chin/chin-bones-decr": 0.6, "cheek/{s}-cheek-volume-incr": levels(0.0, 1.0),
        "eyebrows/eyebrows-trans-up": levels(0.2, 0.8),
        **_signed("eyebrows/eyebrows-angle", levels(-0.3, 0.6), "down", "up"),
        **_signed("mouth/mouth-scale-horiz", levels(-0.6, 0.4)), **_signed("ears/{s}-ear-scale", levels(-0.4, 0.7)),
        "neck/neck-scale-horiz-decr": levels(0.8, 1.6), "neck/neck-scale-depth-decr": 0.5,
    })
    palette = _tinted(STORYBOOK_PALETTE, who, _FAIRY_HAIR[index % 8], levels(-0.6, 0.6), **_light_of(levels, 0.10),
                      skin_pull=0.7, saturation=0.94, skin_light=0.98, lip_saturation=1.0,
                      hair_pull=0.85, hair_light=1.0, hair_saturation=1.1,
                      vivid=levels(1.05, 1.18), ambient=(1.02, 1.04, 1.08),
                      iris=_FAIRY_IRIS[index % 5], iris_pull=0.7, iris_light=1.2)
    return who, Style("storybook", warp, iris=levels(1.18, 1.36), pupil=1.1, lids=_lids(eyes, height), toon=1.0,
                      palette=palette)


_FAIRY_IRIS = ((0.16, 0.30, 0.42), (0.22, 0.11, 0.03), (0.14, 0.26, 0.09), (0.30, 0.16, 0.05), (0.20, 0.17, 0.36))


def _clay(who: Person, index: int, levels: Levels) -> tuple[Person, Style]:
    eyes, height = levels(1.0, 2.0), levels(0.6, 1.4)
    warp = both({
        "eyes/{s}-eye-scale-incr": eyes, "eyes/{s}-eye-height2-incr": height, "eyes/{s}-eye-trans-in": levels(0.2, 0.9),
        "eyes/{s}-eye-bag-incr": levels(0.2, 0.9),
        "nose/nose-volume-incr": levels(0.3, 1.3), "nose/nose-point-width-incr": levels(0.5, 1.8),
        "nose/nose-scale-horiz-incr": levels(0.0, 1.3), **_signed("nose/nose-scale-vert", levels(-0.8, 0.9)),
        "nose/nose-scale-depth-incr": levels(0.0, 0.9), **_signed("nose/nose-point", levels(-0.4, 0.8), "down", "up"),
        "head/head-fat-incr": levels(0.2, 1.2), **_head(index, levels(0.3, 1.0), 2), "head/head-age-decr": 0.5,
        **_signed("chin/chin-width", levels(-0.6, 1.3)), **_signed("chin/chin-jaw-drop", levels(-0.2, 1.2)),
        "cheek/{s}-cheek-volume-incr": levels(0.3, 1.4), "cheek/{s}-cheek-bones-decr": 0.5,
        "mouth/mouth-scale-horiz-incr": levels(0.0, 1.0), "mouth/mouth-lowerlip-volume-incr": levels(0.2, 1.1),
        "mouth/mouth-upperlip-volume-incr": levels(0.2, 0.9), "ears/{s}-ear-scale-incr": levels(0.2, 1.3),
        "ears/{s}-ear-wing-incr": levels(0.0, 1.0), "eyebrows/eyebrows-trans-up": levels(0.0, 0.8),
        "neck/neck-scale-horiz-decr": levels(-0.2, 0.8),
    })
    palette = _tinted(Palette(), who, _CLAY_HAIR[(3 * index) % 8], levels(-1.0, 0.8), **_light_of(levels, 0.11),
                      skin_pull=0.85, saturation=levels(0.95, 1.2), skin_light=0.98, lip_saturation=1.05, hair_pull=0.9,
                      blush=levels(0.6, 2.0), iris=(0.03, 0.02, 0.02), iris_pull=0.75, cloth_saturation=1.5,
                      vivid=levels(1.0, 1.15), ambient=(0.78, 0.78, 0.84), rim=0.03)
    return who, Style("clay", warp, iris=levels(0.62, 0.85), pupil=1.6, lids=_lids(eyes, height), toon=1.0, matte=1.0,
                      lumps=levels(0.7, 1.7), palette=palette)


def _comic(who: Person, index: int, levels: Levels) -> tuple[Person, Style]:
    eyes, height = levels(0.4, 1.9), levels(0.2, 1.1)
    warp = both({
        "eyes/{s}-eye-scale-incr": eyes, "eyes/{s}-eye-height2-incr": height,
        **_signed("eyes/{s}-eye-corner2", levels(-0.6, 1.2), "down", "up"),
        **_signed("nose/nose-scale-vert", levels(-0.7, 0.5)), "nose/nose-scale-horiz-decr": levels(0.1, 0.9),
        "nose/nose-point-width-decr": levels(0.2, 1.0), **_signed("nose/nose-point", levels(-0.4, 0.9), "down", "up"),
        **_head(index, levels(0.5, 1.2), 4), "head/head-age-decr": levels(0.0, 0.6),
        **_signed("chin/chin-width", levels(-1.4, 1.2)), **_signed("chin/chin-height", levels(-0.2, 0.8)),
        "chin/chin-prominent-incr": levels(0.0, 0.9), "chin/chin-bones-incr": levels(0.0, 1.0),
        "cheek/{s}-cheek-bones-incr": levels(0.2, 1.2), "cheek/{s}-cheek-volume-decr": levels(0.0, 0.6),
        **_signed("eyebrows/eyebrows-angle", levels(-0.8, 0.8), "down", "up"),
        **_signed("mouth/mouth-scale-horiz", levels(-0.5, 0.8)), **_signed("head/head-scale-horiz", levels(-0.8, 0.5)),
        "neck/neck-scale-horiz-decr": levels(0.0, 0.9),
    })
    dusk = levels(0.0, 1.0)
    palette = _tinted(Palette(), who, _INK_HAIR[(5 * index) % 8], levels(-1.0, 0.7), **_light_of(levels, 0.11),
                      skin_pull=0.75, saturation=levels(0.88, 1.1), skin_light=1.05, lip_saturation=1.15, hair_pull=0.9,
                      hair_saturation=1.1, iris_light=1.4, iris_saturation=1.4, cloth_saturation=1.7,
                      vivid=levels(1.05, 1.25), shade=(1.05 - 0.3 * dusk, 0.82, 0.85 + 0.6 * dusk),
                      line=(0.03 + 0.10 * (1 - dusk), 0.02, 0.03 + 0.12 * dusk))
    return who, Style("comic", warp, iris=levels(1.0, 1.25), pupil=1.15, lids=_lids(eyes, height), toon=1.0, flat=1.0,
                      tones=2 + int(levels(0, 2)), ink=levels(4.5, 10.0), palette=palette)


def _caricature(who: Person, index: int, levels: Levels) -> tuple[Person, Style]:
    eyes = levels(-0.5, 1.3)
    warp = both({
        **_signed("eyes/{s}-eye-scale", eyes), "eyes/{s}-eye-height2-incr": levels(0.0, 0.8),
        "eyes/{s}-eye-bag-incr": levels(0.0, 1.2),
        **_signed("nose/nose-scale-vert", levels(-0.3, 1.4)), "nose/nose-scale-depth-incr": levels(0.0, 1.5),
        **_signed("nose/nose-scale-horiz", levels(-0.4, 1.3)), **_signed("nose/nose-hump", levels(-1.0, 1.0)),
        **_signed("nose/nose-point", levels(-1.0, 1.0), "down", "up"),
        **_head(index, levels(0.5, 1.2), 5), **_signed("head/head-fat", levels(-1.0, 1.0)),
        **_signed("forehead/forehead-scale-vert", levels(-0.6, 0.6)), "forehead/forehead-temple-incr": levels(0.0, 0.8),
        **_signed("chin/chin-width", levels(-1.3, 1.5)), **_signed("chin/chin-jaw-drop", levels(-0.2, 1.5)),
        "chin/chin-prominent-incr": levels(0.0, 1.5), "cheek/{s}-cheek-bones-incr": levels(0.0, 1.4),
        **_signed("mouth/mouth-scale-horiz", levels(-0.6, 1.4)), "mouth/mouth-lowerlip-volume-incr": levels(0.0, 1.0),
        "ears/{s}-ear-scale-incr": levels(0.0, 1.8), "ears/{s}-ear-wing-incr": levels(0.0, 1.6),
        **_signed("eyebrows/eyebrows-angle", levels(-0.8, 0.8), "down", "up"),
        "neck/neck-scale-horiz-decr": levels(1.3, 2.2), "neck/neck-scale-depth-decr": levels(0.8, 1.5),
    })
    cool = levels(0.0, 1.0)
    palette = _tinted(Palette(), who, _OIL_HAIR[(3 * index) % 8], levels(-0.9, 0.6), **_light_of(levels, 0.11),
                      skin_pull=0.75, saturation=levels(0.82, 1.0), skin_light=1.0, lip_saturation=1.0, hair_pull=0.8,
                      blush=levels(1.0, 1.8), cloth_saturation=1.15, vivid=levels(1.0, 1.15), rim=0.05,
                      shade=(0.95 - 0.2 * cool, 0.78, 0.72 + 0.35 * cool))
    return who, Style("caricature", warp, exaggerate=levels(0.9, 1.9), iris=1.05, lids=_lids(max(eyes, 0), 0.4),
                      toon=0.6, flat=0.75, tones=5, paint=levels(0.7, 1.2), palette=palette)


def pictures(look: str, studio: Any) -> np.ndarray:
    """What a look's exemplars look like, uint8 [24,S,S,3], S being the size of the studio."""
    return np.stack([studio.portrait(*exemplar(look, i), truth=False).image for i in range(EXEMPLARS)])


def write_pictures(out: str | os.PathLike) -> list[Path]:
    """OUT/look/NN.jpg of every exemplar, 256 px → their paths. VToonifyError without the base mesh or EGL."""
    from .render import Studio

    studio, paths = Studio(size=PICTURE), []
    for look in LOOKS:
        (Path(out) / look).mkdir(parents=True, exist_ok=True)
        for i, picture in enumerate(pictures(look, studio)):
            paths.append(Path(out) / look / f"{i:02d}.jpg")
            Image.fromarray(picture).save(paths[-1], quality=88)
    return paths


def main(arguments: list[str] | None = None) -> int:
    """The command; → exit code: 0, or 2 for a mistake of the user."""
    parser = argparse.ArgumentParser(prog="python -m vtoonify_lib.studio.exemplars",
                                     description="Write the pictures of all exemplars of all looks.")
    parser.add_argument("out", type=Path)
    args = parser.parse_args(arguments)
    return exit_code(lambda: f"{len(write_pictures(args.out))} pictures in {args.out}")


if __name__ == "__main__":
    sys.exit(main())
