"""How a person looks, as smooth functions of parts of z: hair, skin, eyes, clothes, light, backdrop, spectacles.

Colours are linear RGB. Each function takes its own slice of z (see `people.LAYOUT`) and returns what the shaders read.
"""
from __future__ import annotations

from dataclasses import replace
from math import erf, sqrt

import numpy as np

from .brows import Brow
from .strands import TIED, HairStyle

# colours from dark to light; the last hair is red
_HAIR_COLOURS = np.array([
    [0.016, 0.013, 0.012], [0.035, 0.022, 0.015], [0.075, 0.042, 0.023], [0.14, 0.075, 0.035], [0.26, 0.15, 0.065],
    [0.42, 0.29, 0.14], [0.56, 0.43, 0.25], [0.22, 0.075, 0.028]])
_SKIN = np.array([  # from light to dark
    [0.86, 0.60, 0.47], [0.76, 0.50, 0.37], [0.64, 0.40, 0.27], [0.48, 0.28, 0.175], [0.31, 0.17, 0.105],
    [0.17, 0.092, 0.058], [0.10, 0.054, 0.036]])
_IRIS = np.array([  # brown, hazel, green, blue, grey
    [0.045, 0.022, 0.011], [0.10, 0.045, 0.018], [0.20, 0.11, 0.035], [0.16, 0.19, 0.065], [0.12, 0.23, 0.30],
    [0.22, 0.34, 0.42], [0.27, 0.30, 0.31]])


def uniform(x: float) -> float:
    """Gaussian → uniform in (0,1)."""
    return 0.5 * (1 + erf(x / sqrt(2)))


def _ramp(table: np.ndarray, u: float) -> np.ndarray:
    """Linear interpolation along the rows of a table, u in [0,1]."""
    x = np.clip(u, 0, 1) * (len(table) - 1)
    i = min(int(x), len(table) - 2)
    return table[i] + (x - i) * (table[i + 1] - table[i])


def _hsv(h: float, s: float, v: float) -> np.ndarray:
    """Hue, saturation, value → RGB; hue 0 and 1 are red."""
    k = (np.array([5, 3, 1]) + h * 6) % 6
    return v - v * s * np.clip(np.minimum(k, 4 - k), 0, 1)


def hair_color(h: np.ndarray, age: float, dark: float) -> np.ndarray:
    """Linear RGB; h [8] is the hair's part of z; dark (of skin) in [0,1] darkens it, age greys it."""
    u = uniform(h[1]) * (1 - 0.75 * min(1.0, dark * 1.8))
    color = _ramp(_HAIR_COLOURS[:7], u ** 0.9) if h[2] < 1.6 or dark > 0.4 else _HAIR_COLOURS[7]
    grey = np.clip((age - 0.5) * 2.2 + 0.35 * h[3], 0, 1) * (age > 0.45)
    color = color * (1 - grey) + np.array([0.45, 0.44, 0.43]) * (0.6 + 0.5 * uniform(h[4])) * grey
    return color * np.exp(0.05 * h[5:8])


def hair(h: np.ndarray, male: float, age: float, ethnicity: np.ndarray) -> HairStyle | None:
    """Cut, parting and curl; None for the few who are bald. h [8] is the hair's part of z, shared with its colour."""
    u = [uniform(x) for x in h]
    long = u[0]
    curl = float(np.clip(ethnicity @ [0.18, 0.85, 0.05] + 0.22 * h[5], 0, 1))
    receding = float(np.clip(0.9 * (age - 0.42) + 0.14 * h[6], 0, 1)) if male > 0.5 else 0.0
    parting = (None, -0.32, 0.0, 0.32, -0.15)[min(int(u[7] * 5), 4)]
    if male > 0.5:
        if long < 0.06:
            return None
        length = float(np.interp(long, [0.06, 0.14, 0.3, 0.6, 0.82, 0.92, 1], [0, 0.06, 0.16, 0.42, 0.75, 1.4, 3]))
        length = min(length, max(1.2 - 2 * receding, 0.35) if receding > 0.15 else length)
        sides = float(np.clip(0.25 + 0.75 * uniform(h[6] + 0.6 * h[4]), 0.2, 1)) if length < 0.9 else 1.0
        tied = "bun" if length > 1.3 and u[4] > 0.75 else ""
        fringe = max(0.0, 0.9 * u[3] - 0.45) if parting is None else 0.0
        back = float(np.clip(0.7 * h[2] + 2 * receding, -0.6, 1))
        style = HairStyle(length, sides, parting if length > 0.35 else None, fringe, back, u[6], curl, receding, tied,
                          0.75)
    else:
        length = float(np.interp(long, [0, 0.06, 0.2, 0.4, 0.6, 1], [0.12, 0.45, 1.0, 1.9, 2.8, 4.6]))
        tied = TIED[int(np.searchsorted([0.72, 0.82, 0.93], u[4]))] if length > 0.9 else ""
        style = HairStyle(length, 1.0, parting if length > 0.35 else None, max(0.0, 1.5 * u[3] - 0.8),
                          float(np.clip(0.4 * h[2], -0.5, 1)), 0.2 + 0.8 * u[6], curl, 0.0, tied, u[5])
    return replace(style, seed=int(1000 * uniform(h[1] + h[2])))


def brow(f: np.ndarray, male: float) -> Brow:
    """f [5]: the part of z that facial hair has; the first number makes brows thick, the others shape them."""
    u = uniform(f[0])
    thick = 0.25 + 0.75 * u if male > 0.5 else 0.05 + 0.65 * u
    density = 0.35 + 0.65 * uniform(0.6 * f[0] + 0.8 * f[2])
    return Brow(thick, uniform(f[3]), uniform(f[4]) * (0.75 if male > 0.5 else 1.0), density)


def natural_skin(brightness: float) -> np.ndarray:
    """The colour of skin of a brightness (luminance of linear RGB): dark skin is the more saturated one."""
    grey = _SKIN @ [0.3, 0.59, 0.11]
    return np.array([np.interp(brightness, grey[::-1], _SKIN[::-1, i]) for i in range(3)])


def skin(s: np.ndarray, f: np.ndarray, dark: float, male: float, age: float,
         hair_color: np.ndarray) -> dict[str, object]:
    """Tone, blush, lips, lids, freckles, wrinkles, beard; s [8] is the skin's part of z, f [5] that of facial hair."""
    s = np.clip(s, -2.5, 2.5)
    tone = _ramp(_SKIN, dark) * np.exp(0.05 * s[1:4] * [0.6, 0.8, 1.0])
    painted = male < 0.5 and s[6] > 0.2
    redder = np.array([0.84, 0.50, 0.50] if dark < 0.6 else [0.80, 0.55, 0.58])
    lip = tone * redder ** (1.0 if male < 0.5 else np.clip(0.55 + 0.25 * s[6], 0.2, 1))  # a man's are paler, as a rule
    if painted:
        lip = lip * (1 - 0.6) + 0.6 * _hsv(0.96 + 0.03 * s[5], 0.72, 0.18 + 0.40 * uniform(s[7]))
    beard = male > 0.5 and f[1] > 0.1
    shaven = 0.10 if male > 0.5 else 0.0
    moustache = male > 0.5 and (beard or f[4] > 1.1)
    lid = 0.55 + 0.3 * _hsv(uniform(s[7] + s[1]), 0.5, 0.9) if painted else np.array([0.90, 0.82, 0.82])
    return {
        "tone": tone, "lip": lip, "lid": lid,
        "blush": np.array([1.0, 0.80, 0.77]) ** (0.9 + 0.45 * s[4]),
        "freckles": max(0.0, 0.5 * s[5] - 0.55) * (dark < 0.35),
        "mottle": 0.55 + 0.2 * s[6] * 0.5 + 0.3 * age,
        "wrinkles": float(np.clip(1.3 * age - 0.25, 0, 1)),
        "stubble": float(np.clip(0.35 + 0.55 * f[2], 0.12, 1.0)) if beard else shaven,
        "moustache": float(np.clip(0.4 + 0.5 * f[3], 0.15, 1.0)) if moustache else 0.0,
        "beard_color": hair_color * 0.8 + 0.04 * tone,
        "gloss": float(np.clip(0.85 + 0.35 * s[7], 0.2, 1.8)),
    }


def iris(e: np.ndarray, dark: float) -> np.ndarray:
    """Colour of the iris; dark skin goes with dark eyes."""
    return _ramp(_IRIS, uniform(e[0]) * (1 - min(1.0, 1.5 * dark) * 0.85))


def clothes(c: np.ndarray, male: float) -> dict[str, object]:
    """jacket: 0 = shirt, 1 = jacket, 2 = jacket and tie; stripes: + across, − upright, 0 none."""
    u = [uniform(x) for x in c]
    jacket = (2.0 if c[8] > 0 and male > 0.5 else 1.0) if c[0] > 0.35 else 0.0
    return {
        "jacket": jacket,
        "color": _hsv(u[1], 0.75 * u[2] ** 1.2, (0.04 + 0.55 * u[3] ** 1.5) * (0.4 if jacket else 1.0)),
        "shirt": _hsv(u[4], 0.25 * u[5], 0.55 + 0.3 * u[6]),
        "tie": _hsv(u[6], 0.8, 0.05 + 0.4 * u[7]),
        "neckline": 5.45 + 0.10 * float(np.clip(c[7], -2, 2)) + (0.18 if jacket else 0),
        "vneck": 0.25 + 0.9 * u[5] ** 2,
        "vwidth": 0.55 + 0.35 * u[4],
        "stripes": 0.0 if abs(c[6]) < 1.1 or jacket else float(np.sign(c[4])) * 0.8,
    }


def direction(yaw: float, pitch: float) -> np.ndarray:
    """Unit vector [3] of a light from a side (yaw) and from above (pitch), radians."""
    return np.array([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)])


def light(x: np.ndarray) -> dict[str, object]:
    """A key and a fill light, sky and ground, a rim; from overcast (all ambient) to one strong key."""
    c = np.clip(x, -2.3, 2.3)
    warm = np.array([1.0, 0.93, 0.85]) ** (0.9 * c[0])
    level = 2 ** (0.16 * c[1] - 0.05)
    hard = uniform(c[2])
    side = 0.65 * c[3]
    return {
        "key_dir": direction(side, 0.55 + 0.22 * c[4]),
        "key": warm * level * (0.65 + 0.95 * hard),
        "fill_dir": direction(-side - 0.5 * np.sign(c[3] + 1e-9), 0.1 + 0.15 * c[5]),
        "fill": level * (0.16 + 0.16 * uniform(c[6])) * np.array([0.92, 0.97, 1.05]) ** c[7],
        "sky": level * (0.62 - 0.36 * hard) * np.array([0.97, 1.0, 1.06]) ** (1 + 0.6 * c[8]),
        "ground": level * (0.40 - 0.22 * hard) * np.array([1.05, 0.98, 0.92]) ** (1 + c[9]),
        "rim": np.maximum(0.0, 0.18 * c[10] - 0.05) * np.array([1, 1, 1.0]) * level,
        "shadow": 0.55 + 0.35 * uniform(c[11]),
    }


def backdrop(b: np.ndarray) -> dict[str, object]:
    """A gradient with a wall's edge, up to ten soft shapes, clouds and stripes."""
    u = np.array([uniform(x) for x in b])
    base = _hsv(u[0], 0.55 * u[1], 0.12 + 0.8 * u[2])
    other = np.clip(base * (0.55 + 0.8 * u[3]) + 0.12 * (_hsv(u[4], 0.6, 0.8) - 0.4), 0, 1)
    blobs, paint = np.full((10, 4), -1.0), np.zeros((10, 4))
    busy = int(10 * max(0.0, (u[5] - 0.35) / 0.65))
    soft = 0.15 + 0.75 * u[6]
    for i in range(busy):
        a, c, d = u[10 + 3 * i : 13 + 3 * i]
        r = (a * 7.13 + c * 3.7 + d * 5.9) % 1.0
        color = np.clip(0.5 * base + 0.6 * _hsv((u[0] + 0.5 * (r - 0.5)) % 1, 0.65 * c, a) + 0.25 * (d - 0.5), 0, 1)
        blobs[i] = (2.6 * a - 1.3, 2.6 * c - 1.3, 0.12 + 0.55 * d * d, soft * (0.3 + 0.7 * r))
        paint[i] = (*color, float(r > 0.55))
    return {
        "top": base, "bottom": other, "tilt": np.array([np.sin(6.28 * u[7]), 0.4 + np.cos(6.28 * u[7])]),
        "blob": blobs, "paint": paint,
        "wall": np.array([0.35 * (u[8] > 0.6), 1.6 * u[9] - 0.8, u[6], float(u[7] > 0.5)]),
        "grain": 0.03 * u[8] ** 2,
        "cloud": np.array([0.5 * max(0.0, u[40] - 0.4), 1.0 + 7 * u[41] ** 2, 0.6 * u[42]]),
        "stripe": np.array([0.35 * (u[43] > 0.75), 2 + 10 * u[44], 6.28 * u[45]]),
    }


def glasses(g: np.ndarray) -> dict[str, object] | None:
    """round: 0 = rectangular … 1; thick: radius of the frame in decimetres; None for most people."""
    if g[0] < 1.05:
        return None
    thick = 0.018 + 0.02 * uniform(g[1] * 0.7 - g[2] * 0.7)
    return {"round": uniform(g[1]), "color": _hsv(0.08, 0.4, 0.02 + 0.12 * uniform(g[2]) ** 2), "thick": thick}
