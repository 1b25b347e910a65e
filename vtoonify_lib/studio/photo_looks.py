"""The looks that photographs are drawn in: proportions, eyes, technique and grading."""
from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np

from ..config import VToonifyError
from .exemplars import EXEMPLARS, spread_levels
from .fitted_person import FittedPerson
from .photo_eyes import EyePaint
from .styles import both

FILM_WARP = both({
    "eyes/{s}-eye-scale-incr": 2.9, "eyes/{s}-eye-height2-incr": 0.4, "eyes/{s}-eye-trans-out": 0.2,
    "nose/nose-scale-vert-decr": 0.45, "nose/nose-scale-depth-decr": 0.5, "nose/nose-scale-horiz-decr": 0.55,
    "nose/nose-point-up": 0.35, "nose/nose-point-width-decr": 0.3, "head/head-age-decr": 0.9,
    "head/head-invertedtriangular": 0.5, "head/head-fat-decr": 0.35, "head/head-scale-vert-decr": 0.25,
    "chin/chin-width-decr": 1.0, "chin/chin-height-decr": 0.25, "chin/chin-bones-decr": 0.4,
    "eyebrows/eyebrows-trans-up": 0.4, "eyebrows/eyebrows-angle-up": 0.1,
    "mouth/mouth-scale-horiz-incr": 0.1, "neck/neck-scale-horiz-decr": 1.1, "neck/neck-scale-depth-decr": 0.6,
    "neck/neck-double-decr": 0.6})


@dataclass(frozen=True)
class PhotoLook:
    """A look that photographs are drawn in.

    warp      target weights added at structure 1
    exaggerate  how much the person's own features grow at structure 1
    eyes      how eyes are painted
    wrinkles  how much of the skin's fine relief stays; form: how much of the head's own shading is added
    strands   contrast of hair
    finish    what is made of the film drawing: film, comic or paint
    tones, ink  of a comic: how many tones, how dark its lines
    stroke    of a painting: width of the brush in eye distances
    vivid, contrast, tint  the grading: factors on saturation, on the tone curve's slope, and on red, green and blue
    side_light, side  light added by the grading: how much, and from where (radians, + from the right of the picture)
    """

    name: str
    warp: dict[str, float] = field(default_factory=dict)
    exaggerate: float = 0.0
    eyes: EyePaint = EyePaint()
    wrinkles: float = 0.35
    form: float = 0.5
    strands: float = 1.4
    finish: str = "film"
    tones: int = 4
    ink: float = 0.9
    stroke: float = 0.11
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    side_light: float = 0.0
    side: float = 0.6
    vivid: float = 1.12
    contrast: float = 0.15


COMIC_WARP = both({
    "eyes/{s}-eye-scale-incr": 2.0, "eyes/{s}-eye-height2-incr": 0.3, "nose/nose-scale-horiz-decr": 0.4,
    "nose/nose-point-width-decr": 0.5, "chin/chin-width-decr": 0.8, "chin/chin-prominent-incr": 0.2,
    "cheek/{s}-cheek-bones-incr": 0.4, "cheek/{s}-cheek-volume-decr": 0.3, "head/head-fat-decr": 0.45,
    "head/head-age-decr": 0.4, "head/head-invertedtriangular": 0.25, "eyebrows/eyebrows-angle-up": 0.1,
    "neck/neck-scale-horiz-decr": 0.6, "neck/neck-double-decr": 0.6})
CARICATURE_WARP = both({  # a large head on a small neck, as caricaturists draw it
    "eyes/{s}-eye-scale-incr": 1.3, "head/head-age-decr": 0.45, "head/head-scale-horiz-incr": 1.2,
    "head/head-scale-vert-incr": 1.2, "head/head-scale-depth-incr": 1.2, "neck/neck-scale-horiz-decr": 2.0,
    "neck/neck-scale-depth-decr": 0.8})

FILM = PhotoLook("film", FILM_WARP, eyes=EyePaint(iris=1.25, light=1.35, white=0.85, glint=0.34), wrinkles=0.5,
                 form=0.7)
COMIC = PhotoLook("comic", COMIC_WARP, eyes=EyePaint(iris=1.1, lash=0.8), finish="comic", contrast=0.1)
PAINT = PhotoLook("paint", {name: 0.55 * weight for name, weight in FILM_WARP.items()}, eyes=EyePaint(iris=1.1),
                  wrinkles=0.7, form=0.3, finish="paint")
CARICATURE = PhotoLook("caricature", CARICATURE_WARP, exaggerate=7.0, eyes=EyePaint(iris=1.12), wrinkles=0.7, form=0.6,
                       vivid=1.15)
LOOKS = {look.name: look for look in (FILM, COMIC, PAINT, CARICATURE)}


def flattering(fit: FittedPerson) -> float:
    """The structure degree of `film` that suits a person: larger for the young, less for the old.

    At .48 to .68, 13 of 59 pictures were judged hardly different from their photographs; beyond .9 eyes stare. Age is
    what the shape of the face says, 0 to 1, which is little (somebody of 78 is fitted as .22): hence a narrow range.
    """
    return float(np.clip(0.95 - 0.6 * fit.person.age, 0.6, 0.85))


def photo_look(name: str) -> PhotoLook:
    """The look of a name, or an exemplar of one, such as comic-07; VToonifyError where there is none."""
    look, _, number = name.rpartition("-")
    if look in LOOKS and number.isdecimal():
        return exemplar(look, int(number))
    if name not in LOOKS:
        raise VToonifyError(f"there is no look {name!r} for photographs; choose one of {', '.join(LOOKS)}")
    return LOOKS[name]


def exemplar(look: str, number: int) -> PhotoLook:
    """One of a look's EXEMPLARS variations in proportions, eyes, technique and grading; the same in every process.

    VToonifyError for an unknown look or number.
    """
    photo_look(look)
    if not 0 <= number < EXEMPLARS:
        raise VToonifyError(f"{look} has no exemplar {number}; choose one from 0 to {EXEMPLARS - 1}")
    return _exemplars(look)[number]


SIGNED = (("head/head", "oval", "square", 0.4), ("mouth/mouth-scale-horiz", "decr", "incr", 0.3),
          ("eyes/{s}-eye-corner2", "down", "up", 0.5))
"""Targets one way or the other by which exemplars differ, and how far they go."""


@lru_cache
def _exemplars(look: str) -> list[PhotoLook]:
    base, rng = LOOKS[look], np.random.default_rng([13, list(LOOKS).index(look)])
    return [_varied(base, levels) for levels in spread_levels(rng)]


def _varied(base: PhotoLook, levels) -> PhotoLook:
    groups = {"eyes/": levels(0.65, 1.3), "nose/": levels(0.5, 1.4), "chin/": levels(0.3, 1.5),
              "head/": levels(0.5, 1.3), "eyebrows/": levels(0.2, 1.6)}
    warp = {name: weight * next((k for start, k in groups.items() if name.startswith(start)), 1.0)
            for name, weight in base.warp.items()}
    for name, low, high, reach in SIGNED:
        weight = levels(-reach, reach)
        for target, more in both({f"{name}-{high if weight > 0 else low}": abs(weight)}).items():
            warp[target] = warp.get(target, 0.0) + more
    eyes = replace(base.eyes, iris=base.eyes.iris * levels(0.92, 1.1), pupil=levels(0.36, 0.52),
                   vivid=levels(1.1, 1.7), light=base.eyes.light * levels(0.86, 1.18),
                   lash=base.eyes.lash * levels(0.5, 1.4), glint=base.eyes.glint * levels(0.7, 1.25))
    warm = levels(-0.07, 0.07)
    return replace(base, warp=warp, exaggerate=base.exaggerate * levels(0.7, 1.3), eyes=eyes,
                   wrinkles=float(np.clip(base.wrinkles * levels(0.5, 1.5), 0, 1)), form=base.form * levels(0.6, 1.5),
                   strands=base.strands * levels(0.6, 1.4), tones=int(levels(3, 6)), ink=levels(0.6, 1.0),
                   stroke=base.stroke * levels(0.7, 1.5), tint=(1 + warm, 1 + 0.1 * warm, 1 - warm),
                   vivid=base.vivid * levels(0.85, 1.2), contrast=base.contrast * levels(0.5, 2.0),
                   side_light=levels(0.0, 0.45), side=levels(-0.9, 0.9))
