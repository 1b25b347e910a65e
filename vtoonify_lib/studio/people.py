"""z → person: every property of a portrait as a smooth function of one Gaussian vector.

`person(z)` is deterministic, so z is at once the label of a render and the latent code that a generator can be
distilled on. It decides who and how (identity, expression, gaze, hair, skin, clothes, pose, light, backdrop, framing);
`styles` decides how it is drawn.
"""
from dataclasses import dataclass, replace
from math import erf, sqrt

import numpy as np

from .kit import macro_weights

# Shape factors: (target for negative values, target for positive values, standard deviation). {s} stands for both sides.
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
_ASYMMETRY = tuple(f"asym/asym-{part}-{{s}}" for part in ("brown-1", "eye-1", "eye-4", "jaw-1", "mouth-1", "mouth-2", "nose-1", "cheek-1"))
# z layout: name → how many numbers; everything else about z follows from this table
LAYOUT = {
    "shape": len(SHAPE), "asymmetry": len(_ASYMMETRY), "macro": 6, "mouth": 8, "brows": 3, "lids": 4, "gaze": 2, "hair": 8, "skin": 8,
    "face_hair": 5, "eyes": 4, "clothes": 9, "pose": 3, "light": 12, "backdrop": 46, "framing": 4, "glasses": 3,
}
Z_SIZE = sum(LAYOUT.values())
# afro01 and bob01 come without a texture in the kit and do not look like hair; they are left out
HAIR_FEMALE = ("long01", "bob02", "ponytail01", "braid01", "short03", "long01", "bob02", "short02", "ponytail01", "long01", "braid01", "short01")
HAIR_MALE = ("short02", "short04", "short01", "short02", "short04", "none", "short03", "short01", "ponytail01", "short02", "short01", "short04")
_HAIR_COLOURS = np.array([[0.016, 0.013, 0.012], [0.035, 0.022, 0.015], [0.075, 0.042, 0.023], [0.14, 0.075, 0.035], [0.26, 0.15, 0.065],
                          [0.42, 0.29, 0.14], [0.56, 0.43, 0.25], [0.22, 0.075, 0.028]])
_SKIN = np.array([[0.86, 0.60, 0.47], [0.76, 0.50, 0.37], [0.64, 0.40, 0.27], [0.48, 0.28, 0.175], [0.31, 0.17, 0.105], [0.17, 0.092, 0.058], [0.10, 0.054, 0.036]])
_IRIS = np.array([[0.045, 0.022, 0.011], [0.10, 0.045, 0.018], [0.20, 0.11, 0.035], [0.16, 0.19, 0.065], [0.12, 0.23, 0.30], [0.22, 0.34, 0.42], [0.27, 0.30, 0.31]])


@dataclass(frozen=True)
class Person:
    """One portrait. Colours are linear RGB; angles are radians; +x is the subject's left (image right)."""

    shape: dict[str, float]
    expression: dict[str, float]
    age: float
    male: float
    ethnicity: np.ndarray
    gaze: np.ndarray  # yaw, pitch relative to the head
    pose: np.ndarray  # yaw (+ = to the subject's left), pitch (+ = down), roll
    hair: str
    hair_color: np.ndarray
    brow: str
    brow_color: np.ndarray
    lash: str
    skin: dict[str, object]
    iris: np.ndarray
    iris2: np.ndarray
    iris_size: float
    pupil: float
    clothes: dict[str, object]
    light: dict[str, object]
    backdrop: dict[str, object]
    framing: np.ndarray  # zoom, shift x, shift y (in picture widths), roll; 1, 0, 0, 0 is exact FFHQ framing
    glasses: dict[str, object] | None = None

    def with_(self, **changes) -> "Person":
        """A copy with other fields."""
        return replace(self, **changes)


def _uniform(x: float) -> float:
    """Gaussian → uniform in (0,1)."""
    return 0.5 * (1 + erf(x / sqrt(2)))


def _pick(table, u: float):
    return table[min(int(u * len(table)), len(table) - 1)]


def _ramp(table: np.ndarray, u: float) -> np.ndarray:
    """Linear interpolation along the rows of a table, u in [0,1]."""
    x = np.clip(u, 0, 1) * (len(table) - 1)
    i = min(int(x), len(table) - 2)
    return table[i] + (x - i) * (table[i + 1] - table[i])


def _hsv(h: float, s: float, v: float) -> np.ndarray:
    k = (np.array([5, 3, 1]) + h * 6) % 6
    return v - v * s * np.clip(np.minimum(k, 4 - k), 0, 1)


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
    male, age = float(_uniform(3.0 * m[3])), float(np.clip(0.05 + 0.95 * _uniform(m[4]) ** 1.6, 0, 1))
    shape = macro_weights(ethnicity, male, age, float(np.clip(0.4 * m[5], -1, 1)))
    for x, (low, high, std) in zip(part["shape"], SHAPE, strict=True):
        weight = float(np.clip(x, -2.3, 2.3)) * std
        for side in "lr" if "{s}" in low else ("",):
            shape[(high if weight > 0 else low).format(s=side)] = abs(weight)
    for x, name in zip(part["asymmetry"], _ASYMMETRY, strict=True):
        shape[name.format(s="l" if x > 0 else "r")] = min(0.35 * abs(x), 0.8)
    for side in "lr":  # the kit's eyes are a little small and hooded beside photographs
        for name, amount in (("scale", 0.25), ("height2", 0.3)):
            key = f"eyes/{side}-eye-{name}-incr"
            shape[key] = shape.get(key, 0.0) + amount
    dark = float(np.clip(ethnicity @ [0.12, 0.78, 0.30] + 0.13 * part["skin"][0], 0, 1))
    hair, hair_color = _hair(part["hair"], male, age, dark)
    light = _light(part["light"])
    return Person(
        shape=shape, expression=_expression(part, ethnicity), age=age, male=male, ethnicity=ethnicity,
        gaze=np.clip(part["gaze"], -2, 2) * [0.16, 0.08], pose=np.clip(part["pose"], -2.2, 2.2) * [0.30, 0.13, 0.08],
        hair=hair, hair_color=hair_color, brow=_brow(part["face_hair"][0], male), brow_color=np.minimum(hair_color * 0.7, 0.16) * (1 - 0.3 * dark),
        lash=_pick(("eyelashes01", "eyelashes02", "eyelashes03"), _uniform(part["eyes"][3])), skin=_skin(part, dark, male, age, hair_color),
        iris=_iris(part["eyes"], dark), iris2=_iris(part["eyes"], dark) * [1.5, 1.25, 0.9],
        iris_size=0.455 + 0.02 * float(np.clip(part["eyes"][1], -2, 2)), pupil=0.34 + 0.05 * float(np.clip(part["eyes"][2], -2, 2)),
        clothes=_clothes(part["clothes"], male), light=light, backdrop=_backdrop(part["backdrop"]), framing=_framing(part["framing"], wide),
        glasses=_glasses(part["glasses"]),
    )


def _framing(f: np.ndarray, wide: bool) -> np.ndarray:
    f = np.clip(f, -2, 2)
    return np.array([0.86 * 2 ** (0.22 * f[0]), 0.05 * f[1], 0.05 * f[2], 0.14 * f[3]]) if wide else np.array([1.0, 0, 0, 0])


def _expression(part: dict, ethnicity: np.ndarray) -> dict[str, float]:
    """Mixed action units, in the variant of the dominant ethnicity."""
    kind = ("caucasian", "african", "asian")[int(np.argmax(ethnicity))]
    mouth, brows, lids = np.clip(part["mouth"], -2.5, 2.5), part["brows"], part["lids"]
    units = {
        "mouth-open": max(0.0, 0.55 * mouth[0] - 0.15), "mouth-corner-puller": max(0.0, 0.45 * mouth[1] + 0.2),
        "mouth-depression": max(0.0, 0.3 * mouth[2] - 0.2), "mouth-protusion": max(0.0, 0.35 * mouth[3] - 0.3),
        "mouth-retraction": max(0.0, 0.3 * mouth[4] - 0.1), "mouth-upward-retraction": max(0.0, 0.35 * mouth[5] - 0.15),
        "mouth-compression": max(0.0, 0.3 * mouth[6] - 0.35), "mouth-part-later": max(0.0, 0.35 * mouth[7] - 0.1),
    }
    grin = float(np.clip(0.55 * mouth[1] - 0.1, 0, 1))  # a smile that shows teeth
    for unit, amount in (("mouth-corner-puller", 0.3), ("mouth-part-later", 0.42), ("mouth-upward-retraction", 0.5), ("mouth-open", 0.05)):
        units[unit] += amount * grin
    for i, side in enumerate(("left", "right")):
        units[f"eyebrows-{side}-up"] = max(0.0, 0.45 * brows[0] + 0.10 * (brows[2] if i else 0) - 0.1)
        units[f"eyebrows-{side}-down"] = max(0.0, -0.22 * brows[0] - 0.15)
        units[f"eyebrows-{side}-inner-up"] = float(np.clip(0.28 + 0.25 * brows[1], 0, 1))
        closed = 0.92 if lids[0] < -1.75 else max(0.0, 0.10 * lids[1 + i] + 0.12 * lids[0] - 0.12)
        units[f"eye-{side}-closure"] = float(closed)
        units[f"eye-{side}-opened-up"] = max(0.0, 0.3 * lids[3] - 0.15)
    return {f"expression/units/{kind}/{k}": float(min(v, 1.0)) for k, v in units.items() if v > 0}


def _hair(h: np.ndarray, male: float, age: float, dark: float) -> tuple[str, np.ndarray]:
    style = _pick(HAIR_MALE if male > 0.5 else HAIR_FEMALE, _uniform(h[0]))
    u = _uniform(h[1]) * (1 - 0.75 * min(1.0, dark * 1.8))
    color = _ramp(_HAIR_COLOURS[:7], u ** 0.9) if h[2] < 1.6 or dark > 0.4 else _HAIR_COLOURS[7]
    grey = np.clip((age - 0.5) * 2.2 + 0.35 * h[3], 0, 1) * (age > 0.45)
    color = color * (1 - grey) + np.array([0.45, 0.44, 0.43]) * (0.6 + 0.5 * _uniform(h[4])) * grey
    return ("none" if style == "none" else f"hair/{style}"), color * np.exp(0.05 * h[5:8])


def _brow(x: float, male: float) -> str:
    thick, thin = ("001", "002", "009", "012", "008", "003"), ("001", "002", "003", "004", "005", "008", "011")
    return f"eyebrows/eyebrow{_pick(thick if male > 0.5 else thin, _uniform(x))}"


def _skin(part: dict, dark: float, male: float, age: float, hair_color: np.ndarray) -> dict[str, object]:
    s, f = np.clip(part["skin"], -2.5, 2.5), part["face_hair"]
    tone = _ramp(_SKIN, dark) * np.exp(0.05 * s[1:4] * [0.6, 0.8, 1.0])
    painted = male < 0.5 and s[6] > 0.2
    lip = tone * ([0.84, 0.50, 0.50] if dark < 0.6 else [0.80, 0.55, 0.58])
    if painted:
        lip = lip * (1 - 0.6) + 0.6 * _hsv(0.96 + 0.03 * s[5], 0.72, 0.18 + 0.40 * _uniform(s[7]))
    beard = male > 0.5 and f[1] > 0.1
    return {
        "tone": tone, "blush": np.array([1.0, 0.80, 0.77]) ** (0.9 + 0.45 * s[4]), "lip": lip, "freckles": max(0.0, 0.5 * s[5] - 0.55) * (dark < 0.35),
        "mottle": 0.55 + 0.2 * s[6] * 0.5 + 0.3 * age, "wrinkles": float(np.clip(1.3 * age - 0.25, 0, 1)),
        "stubble": float(np.clip(0.35 + 0.55 * f[2], 0.12, 1.0)) if beard else (0.10 if male > 0.5 else 0.0),
        "moustache": float(np.clip(0.4 + 0.5 * f[3], 0.15, 1.0)) if male > 0.5 and (beard or f[4] > 1.1) else 0.0,
        "beard_color": hair_color * 0.8 + 0.04 * tone, "lid": np.array([0.90, 0.82, 0.82]) if not painted else 0.55 + 0.3 * _hsv(_uniform(s[7] + s[1]), 0.5, 0.9),
        "gloss": float(np.clip(0.85 + 0.35 * s[7], 0.2, 1.8)),
    }


def _iris(e: np.ndarray, dark: float) -> np.ndarray:
    return _ramp(_IRIS, _uniform(e[0]) * (1 - min(1.0, 1.5 * dark) * 0.85))


def _clothes(c: np.ndarray, male: float) -> dict[str, object]:
    u = [_uniform(x) for x in c]
    jacket = (2.0 if c[8] > 0 and male > 0.5 else 1.0) if c[0] > 0.35 else 0.0
    color = _hsv(u[1], 0.75 * u[2] ** 1.2, (0.04 + 0.55 * u[3] ** 1.5) * (0.4 if jacket else 1.0))
    return {
        "jacket": jacket, "color": color, "shirt": _hsv(u[4], 0.25 * u[5], 0.55 + 0.3 * u[6]), "tie": _hsv(u[6], 0.8, 0.05 + 0.4 * u[7]),
        "neckline": 5.45 + 0.10 * float(np.clip(c[7], -2, 2)) + (0.18 if jacket else 0), "vneck": 0.25 + 0.9 * u[5] ** 2, "vwidth": 0.55 + 0.35 * u[4],
        "stripes": 0.0 if abs(c[6]) < 1.1 or jacket else float(np.sign(c[4])) * 0.8,
    }


def _direction(yaw: float, pitch: float) -> np.ndarray:
    return np.array([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)])


def _light(x: np.ndarray) -> dict[str, object]:
    c = np.clip(x, -2.3, 2.3)
    warm = np.array([1.0, 0.93, 0.85]) ** (0.9 * c[0])
    level = 2 ** (0.16 * c[1] - 0.05)
    hard = _uniform(c[2])  # 0: overcast, all ambient; 1: one strong key
    side = 0.65 * c[3]
    return {
        "key_dir": _direction(side, 0.55 + 0.22 * c[4]), "key": warm * level * (0.65 + 0.95 * hard), "fill_dir": _direction(-side - 0.5 * np.sign(c[3] + 1e-9), 0.1 + 0.15 * c[5]),
        "fill": level * (0.16 + 0.16 * _uniform(c[6])) * np.array([0.92, 0.97, 1.05]) ** c[7], "sky": level * (0.62 - 0.36 * hard) * np.array([0.97, 1.0, 1.06]) ** (1 + 0.6 * c[8]),
        "ground": level * (0.40 - 0.22 * hard) * np.array([1.05, 0.98, 0.92]) ** (1 + c[9]), "rim": np.maximum(0.0, 0.18 * c[10] - 0.05) * np.array([1, 1, 1.0]) * level,
        "shadow": 0.55 + 0.35 * _uniform(c[11]),
    }


def _backdrop(b: np.ndarray) -> dict[str, object]:
    u = np.array([_uniform(x) for x in b])
    base = _hsv(u[0], 0.55 * u[1], 0.12 + 0.8 * u[2])
    other = np.clip(base * (0.55 + 0.8 * u[3]) + 0.12 * (_hsv(u[4], 0.6, 0.8) - 0.4), 0, 1)
    blobs, paint = np.full((10, 4), -1.0), np.zeros((10, 4))
    busy = int(10 * max(0.0, (u[5] - 0.35) / 0.65))
    soft = 0.15 + 0.75 * u[6]
    for i in range(busy):
        a, c, d = u[10 + 3 * i : 13 + 3 * i]
        r = (a * 7.13 + c * 3.7 + d * 5.9) % 1.0
        blobs[i] = (2.6 * a - 1.3, 2.6 * c - 1.3, 0.12 + 0.55 * d * d, soft * (0.3 + 0.7 * r))
        paint[i] = (*np.clip(0.5 * base + 0.6 * _hsv((u[0] + 0.5 * (r - 0.5)) % 1, 0.65 * c, a) + 0.25 * (d - 0.5), 0, 1), float(r > 0.55))
    return {"top": base, "bottom": other, "tilt": np.array([np.sin(6.28 * u[7]), 0.4 + np.cos(6.28 * u[7])]), "blob": blobs, "paint": paint,
            "wall": np.array([0.35 * (u[8] > 0.6), 1.6 * u[9] - 0.8, u[6], float(u[7] > 0.5)]), "grain": 0.03 * u[8] ** 2,
            "cloud": np.array([0.5 * max(0.0, u[40] - 0.4), 1.0 + 7 * u[41] ** 2, 0.6 * u[42]]), "stripe": np.array([0.35 * (u[43] > 0.75), 2 + 10 * u[44], 6.28 * u[45]])}


def _glasses(g: np.ndarray) -> dict[str, object] | None:
    if g[0] < 1.05:
        return None
    return {"round": _uniform(g[1]), "color": _hsv(0.08, 0.4, 0.02 + 0.12 * _uniform(g[2]) ** 2), "thick": 0.018 + 0.02 * _uniform(g[1] * 0.7 - g[2] * 0.7)}
