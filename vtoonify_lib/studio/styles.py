"""How a person is drawn: `photo` (as seen by a camera) and `storybook` (a 3-D cartoon of the same person).

A style is a warp (extra morph targets, so identity and expression stay) and a restyling of colours and light. The
backdrop keeps its layout in every style: a stylisation network must learn to leave it alone.
"""
from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from .people import Person


@dataclass(frozen=True)
class Style:
    """A way of drawing people.

    warp  extra target weights, added to a person's shape
    toon  0 = photo shading … 1 = storybook shading
    The rest multiplies a person's own values; larger eyes need a longer way for the lids.
    """

    name: str
    warp: dict[str, float] = field(default_factory=dict)
    toon: float = 0.0
    iris: float = 1.0
    lids: float = 1.0
    saturation: float = 1.0
    hair_saturation: float = 1.0
    ambient: float = 1.0


def _both(targets: dict[str, float]) -> dict[str, float]:
    out = {}
    for name, weight in targets.items():
        for side in "lr" if "{s}" in name else ("",):
            out[name.format(s=side)] = weight
    return out


STORYBOOK_WARP = _both({
    "eyes/{s}-eye-scale-incr": 2.1, "eyes/{s}-eye-height2-incr": 1.0, "eyes/{s}-eye-trans-out": 0.15,
    "nose/nose-scale-vert-decr": 0.45, "nose/nose-scale-depth-decr": 0.55, "nose/nose-scale-horiz-decr": 0.35,
    "nose/nose-point-up": 0.35, "head/head-round": 0.7, "head/head-age-decr": 0.7, "chin/chin-width-decr": 0.6,
    "cheek/{s}-cheek-volume-incr": 0.4, "eyebrows/eyebrows-trans-up": 0.5, "eyebrows/eyebrows-angle-up": 0.3,
    "mouth/mouth-scale-horiz-decr": 0.2, "neck/neck-scale-horiz-decr": 0.7, "neck/neck-scale-depth-decr": 0.5,
})
PHOTO = Style("photo")
STORYBOOK = Style("storybook", STORYBOOK_WARP, toon=1.0, iris=1.28, lids=1.65, saturation=1.12, hair_saturation=1.35,
                  ambient=1.12)
STYLES = {s.name: s for s in (PHOTO, STORYBOOK)}


def _saturate(color: np.ndarray, amount: float) -> np.ndarray:
    grey = float(np.dot(color, [0.3, 0.59, 0.11]))
    return np.clip(grey + (np.asarray(color) - grey) * amount, 0.004, 1.0)


def restyle(person: Person, style: Style) -> Person:
    """The person with a style's colours and light; identity, pose and framing are untouched."""
    if style.toon == 0:
        return person
    skin, light, clothes = person.skin, person.light, person.clothes
    return replace(
        person,
        expression={k: v * (style.lids if k.endswith("-closure") else 1.0) for k, v in person.expression.items()},
        skin=dict(skin, tone=_saturate(skin["tone"], style.saturation) * (1 + 0.08 * style.toon),
                  lip=_saturate(skin["lip"], 1.2), blush=skin["blush"] ** 1.1, wrinkles=skin["wrinkles"] * 0.4),
        light=dict(light, sky=light["sky"] * style.ambient, ground=light["ground"] * style.ambient * 1.1,
                   shadow=light["shadow"] * 0.6, rim=light["rim"] + 0.10, fill=light["fill"] * 1.15),
        clothes=dict(clothes, color=_saturate(clothes["color"], 1.3)),
        hair_color=_saturate(person.hair_color, style.hair_saturation) * 1.12 + 0.01,
        iris=_saturate(person.iris, 1.3) * 1.3,
        iris2=_saturate(person.iris2, 1.3) * 1.5,
        iris_size=person.iris_size * style.iris,
        pupil=person.pupil * 1.1,
    )
