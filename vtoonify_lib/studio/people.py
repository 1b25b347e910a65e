"""z → person: every property of a portrait as a smooth function of one Gaussian vector.

`person(z)` is deterministic, so z is at once the label of a render and the latent code that a generator can be
distilled on. It decides who and how (identity, expression, gaze, hair, skin, clothes, pose, light, backdrop, framing);
`styles` decides how it is drawn.
"""
from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from . import looks
from .brows import Brow
from .kit import ETHNICITIES, macro_weights
from .strands import HairStyle

# Shape factors: (target of negative values, target of positive values, standard deviation); {s} stands for both sides.
SHAPE = (
    ("head/head-fat-decr", "head/head-fat-incr", 0.35),
    ("head/head-scale-horiz-decr", "head/head-scale-horiz-incr", 0.25),
    ("head/head-scale-vert-decr", "head/head-scale-vert-incr", 0.22),
    ("head/head-oval", "head/head-square", 0.35),
    ("head/head-invertedtriangular", "head/head-triangular", 0.30),
    ("head/head-diamond", "head/head-round", 0.30),
    ("forehead/forehead-scale-vert-decr", "forehead/forehead-scale-vert-incr", 0.3),
    ("forehead/forehead-temple-decr", "forehead/forehead-temple-incr", 0.3),
    ("eyebrows/eyebrows-angle-down", "eyebrows/eyebrows-angle-up", 0.3),
    ("eyebrows/eyebrows-trans-down", "eyebrows/eyebrows-trans-up", 0.35),
    ("eyebrows/eyebrows-trans-backward", "eyebrows/eyebrows-trans-forward", 0.3),
    ("eyes/{s}-eye-scale-decr", "eyes/{s}-eye-scale-incr", 0.30),
    ("eyes/{s}-eye-height2-decr", "eyes/{s}-eye-height2-incr", 0.35),
    ("eyes/{s}-eye-corner1-down", "eyes/{s}-eye-corner1-up", 0.4),
    ("eyes/{s}-eye-corner2-down", "eyes/{s}-eye-corner2-up", 0.4),
    ("eyes/{s}-eye-trans-in", "eyes/{s}-eye-trans-out", 0.25),
    ("eyes/{s}-eye-trans-down", "eyes/{s}-eye-trans-up", 0.2),
    ("eyes/{s}-eye-epicanthus-out", "eyes/{s}-eye-epicanthus-in", 0.35),
    ("eyes/{s}-eye-bag-decr", "eyes/{s}-eye-bag-incr", 0.35),
    ("eyes/{s}-eye-eyefold-down", "eyes/{s}-eye-eyefold-up", 0.35),
    ("nose/nose-scale-horiz-decr", "nose/nose-scale-horiz-incr", 0.4),
    ("nose/nose-scale-vert-decr", "nose/nose-scale-vert-incr", 0.35),
    ("nose/nose-scale-depth-decr", "nose/nose-scale-depth-incr", 0.35),
    ("nose/nose-hump-decr", "nose/nose-hump-incr", 0.4),
    ("nose/nose-curve-concave", "nose/nose-curve-convex", 0.3),
    ("nose/nose-point-down", "nose/nose-point-up", 0.4),
    ("nose/nose-point-width-decr", "nose/nose-point-width-incr", 0.4),
    ("nose/nose-flaring-decr", "nose/nose-flaring-incr", 0.35),
    ("nose/nose-width1-decr", "nose/nose-width1-incr", 0.35),
    ("nose/nose-width2-decr", "nose/nose-width2-incr", 0.35),
    ("mouth/mouth-scale-horiz-decr", "mouth/mouth-scale-horiz-incr", 0.35),
    ("mouth/mouth-trans-down", "mouth/mouth-trans-up", 0.25),
    ("mouth/mouth-upperlip-height-decr", "mouth/mouth-upperlip-height-incr", 0.4),
    ("mouth/mouth-lowerlip-height-decr", "mouth/mouth-lowerlip-height-incr", 0.4),
    ("mouth/mouth-upperlip-volume-decr", "mouth/mouth-upperlip-volume-incr", 0.4),
    ("mouth/mouth-lowerlip-volume-decr", "mouth/mouth-lowerlip-volume-incr", 0.4),
    ("mouth/mouth-cupidsbow-decr", "mouth/mouth-cupidsbow-incr", 0.4),
    ("mouth/mouth-angles-down", "mouth/mouth-angles-up", 0.3),
    ("mouth/mouth-laugh-lines-out", "mouth/mouth-laugh-lines-in", 0.35),
    ("chin/chin-width-decr", "chin/chin-width-incr", 0.4),
    ("chin/chin-height-decr", "chin/chin-height-incr", 0.3),
    ("chin/chin-prominent-decr", "chin/chin-prominent-incr", 0.35),
    ("chin/chin-jaw-drop-decr", "chin/chin-jaw-drop-incr", 0.3),
    ("chin/chin-bones-decr", "chin/chin-bones-incr", 0.35),
    ("chin/chin-cleft-decr", "chin/chin-cleft-incr", 0.3),
    ("cheek/{s}-cheek-bones-decr", "cheek/{s}-cheek-bones-incr", 0.4),
    ("cheek/{s}-cheek-volume-decr", "cheek/{s}-cheek-volume-incr", 0.4),
    ("ears/{s}-ear-scale-decr", "ears/{s}-ear-scale-incr", 0.3),
    ("ears/{s}-ear-wing-decr", "ears/{s}-ear-wing-incr", 0.35),
    ("neck/neck-scale-horiz-decr", "neck/neck-scale-horiz-incr", 0.3),
    ("neck/neck-double-decr", "neck/neck-double-incr", 0.3),
)
_UNEVEN = ("brown-1", "eye-1", "eye-4", "jaw-1", "mouth-1", "mouth-2", "nose-1", "cheek-1")
ASYMMETRY = tuple(f"asym/asym-{part}-{{s}}" for part in _UNEVEN)
# z layout: name → how many numbers; everything else about z follows from this table
LAYOUT = {
    "shape": len(SHAPE), "asymmetry": len(ASYMMETRY), "macro": 6, "mouth": 8, "brows": 3, "lids": 4, "gaze": 2,
    "hair": 8, "skin": 8, "face_hair": 5, "eyes": 4, "clothes": 9, "pose": 3, "light": 12, "backdrop": 46,
    "framing": 4, "glasses": 3,
}
Z_SIZE = sum(LAYOUT.values())
BLINKING, SHUT_LEAST = 0.10, 0.3
"""Share of people who are seen in a blink, and how far their lids are down at the least; evenly spread up to shut."""


@dataclass(frozen=True)
class Person:
    """One portrait. Colours are linear RGB; angles are radians; +x is the subject's left (image right).

    shape, expression  morph target → weight
    age, male          0 = young, female … 1 = old, male; ethnicity [3] sums to 1 (caucasian, african, asian)
    gaze               yaw, pitch relative to the head
    pose               yaw (+ = to the subject's left), pitch (+ = down), roll
    hair, lash         hair None = bald; length of the lashes 0 … 1
    iris_size, pupil   radius of the iris as a share of the eyeball's, of the pupil as a share of the iris
    framing            zoom, shift right, shift down (in picture widths), roll; 1, 0, 0, 0 is exact FFHQ framing
    skin, clothes, light, backdrop, glasses  what the shaders read; made in `looks`
    """

    shape: dict[str, float]
    expression: dict[str, float]
    age: float
    male: float
    ethnicity: np.ndarray
    gaze: np.ndarray
    pose: np.ndarray
    hair: HairStyle | None
    hair_color: np.ndarray
    brow: Brow
    brow_color: np.ndarray
    lash: float
    skin: dict[str, object]
    iris: np.ndarray
    iris2: np.ndarray
    iris_size: float
    pupil: float
    clothes: dict[str, object]
    light: dict[str, object]
    backdrop: dict[str, object]
    framing: np.ndarray
    glasses: dict[str, object] | None = None

    def with_(self, **changes: object) -> Person:
        """A copy with other fields."""
        return replace(self, **changes)


def split(z: np.ndarray) -> dict[str, np.ndarray]:
    """z [Z_SIZE] → its named parts."""
    edges = np.cumsum([0, *LAYOUT.values()])
    return {name: np.asarray(z, np.float64)[a:b] for name, a, b in zip(LAYOUT, edges[:-1], edges[1:], strict=True)}


def sample_z(rng: np.random.Generator, n: int) -> np.ndarray:
    """n draws of z, [n, Z_SIZE] float32."""
    return rng.standard_normal((n, Z_SIZE)).astype(np.float32)


def person(z: np.ndarray, wide: bool = False) -> Person:
    """z [Z_SIZE] → Person. `wide` lets the framing vary (zoom, shift, roll) instead of exact FFHQ framing."""
    part = split(z)
    m = part["macro"]
    mix = np.exp(1.3 * m[:3])
    ethnicity = mix / mix.sum()
    male = float(looks.uniform(3.0 * m[3]))
    age = float(np.clip(0.05 + 0.95 * looks.uniform(m[4]) ** 1.6, 0, 1))
    dark = float(np.clip(ethnicity @ [0.12, 0.78, 0.30] + 0.13 * part["skin"][0], 0, 1))
    hair_color = looks.hair_color(part["hair"], age, dark)
    return Person(
        shape=_shape(part, macro_weights(ethnicity, male, age, float(np.clip(0.4 * m[5], -1, 1)))),
        expression=_expression(part, ethnicity), age=age, male=male, ethnicity=ethnicity,
        gaze=np.clip(part["gaze"], -2, 2) * [0.16, 0.08],
        pose=np.clip(part["pose"], -2.2, 2.2) * [0.30, 0.13, 0.08],
        hair=looks.hair(part["hair"], male, age, ethnicity), hair_color=hair_color,
        brow=looks.brow(part["face_hair"], male),
        brow_color=np.minimum(hair_color * 0.7, 0.16) * (1 - 0.3 * dark),
        lash=looks.uniform(part["eyes"][3]) * (1.0 if male < 0.5 else 0.7),
        skin=looks.skin(part["skin"], part["face_hair"], dark, male, age, hair_color),
        iris=looks.iris(part["eyes"], dark), iris2=looks.iris(part["eyes"], dark) * [1.5, 1.25, 0.9],
        iris_size=0.455 + 0.02 * float(np.clip(part["eyes"][1], -2, 2)),
        pupil=0.34 + 0.05 * float(np.clip(part["eyes"][2], -2, 2)),
        clothes=looks.clothes(part["clothes"], male),
        light=looks.light(part["light"]),
        backdrop=looks.backdrop(part["backdrop"]),
        framing=_framing(part["framing"], wide),
        glasses=looks.glasses(part["glasses"]),
    )


def _shape(part: dict[str, np.ndarray], shape: dict[str, float]) -> dict[str, float]:
    """Adds shape factors and asymmetries to the macro targets."""
    for x, (low, high, std) in zip(part["shape"], SHAPE, strict=True):
        weight = float(np.clip(x, -2.3, 2.3)) * std
        for side in "lr" if "{s}" in low else ("",):
            shape[(high if weight > 0 else low).format(s=side)] = abs(weight)
    for x, name in zip(part["asymmetry"], ASYMMETRY, strict=True):
        shape[name.format(s="l" if x > 0 else "r")] = min(0.35 * abs(x), 0.8)
    for side in "lr":  # the kit's eyes are a little small and hooded beside photographs
        for name, amount in (("scale", 0.25), ("height2", 0.3)):
            key = f"eyes/{side}-eye-{name}-incr"
            shape[key] = shape.get(key, 0.0) + amount
    return shape


def _framing(f: np.ndarray, wide: bool) -> np.ndarray:
    f = np.clip(f, -2, 2)
    if not wide:
        return np.array([1.0, 0, 0, 0])
    return np.array([0.86 * 2 ** (0.22 * f[0]), 0.05 * f[1], 0.05 * f[2], 0.14 * f[3]])


def _expression(part: dict, ethnicity: np.ndarray) -> dict[str, float]:
    """Mixed action units."""
    mouth, brows, lids = np.clip(part["mouth"], -2.5, 2.5), part["brows"], part["lids"]
    units = {
        "mouth-open": max(0.0, 0.55 * mouth[0] - 0.15), "mouth-corner-puller": max(0.0, 0.45 * mouth[1] + 0.2),
        "mouth-depression": max(0.0, 0.3 * mouth[2] - 0.2), "mouth-protusion": max(0.0, 0.35 * mouth[3] - 0.3),
        "mouth-retraction": max(0.0, 0.3 * mouth[4] - 0.1), "mouth-upward-retraction": max(0.0, 0.35 * mouth[5] - 0.15),
        "mouth-compression": max(0.0, 0.3 * mouth[6] - 0.35), "mouth-part-later": max(0.0, 0.35 * mouth[7] - 0.1),
    }
    grin = float(np.clip(0.55 * mouth[1] - 0.1, 0, 1))  # a smile that shows teeth
    smile = {"mouth-corner-puller": 0.3, "mouth-part-later": 0.42, "mouth-upward-retraction": 0.5, "mouth-open": 0.05}
    for unit, amount in smile.items():
        units[unit] += amount * grin
    # one person in ten blinks: anywhere from hardly to quite shut
    share = looks.uniform(lids[0]) / BLINKING
    blink = SHUT_LEAST + (1 - SHUT_LEAST) * (1 - share) if share < 1 else 0.0
    for i, side in enumerate(("left", "right")):
        units[f"eyebrows-{side}-up"] = max(0.0, 0.45 * brows[0] + 0.10 * (brows[2] if i else 0) - 0.1)
        units[f"eyebrows-{side}-down"] = max(0.0, -0.22 * brows[0] - 0.15)
        units[f"eyebrows-{side}-inner-up"] = float(np.clip(0.28 + 0.25 * brows[1], 0, 1))
        closed = 0.10 * lids[1 + i] + 0.12 * lids[0] - 0.12
        if blink:
            closed = blink + 0.02 * float(np.clip(lids[1 + i], -1, 1)) * (1 - blink)
        units[f"eye-{side}-closure"] = float(max(0.0, closed))
        units[f"eye-{side}-opened-up"] = max(0.0, 0.3 * lids[3] - 0.15) * (1 - blink)
    return {unit_target(k, ethnicity): float(min(v, 1.0)) for k, v in units.items() if v > 0}


def unit_target(unit: str, ethnicity: np.ndarray) -> str:
    """Morph target of an action unit, e.g. `mouth-open`, in the variant of the dominant ethnicity."""
    return f"expression/units/{ETHNICITIES[int(np.argmax(ethnicity))]}/{unit}"
