"""Eyes of a cartoon, painted over the warped photograph's own: opening, gaze and colour stay the person's.

An iris is 11.7 mm wide in everybody, so the distance of the eyes says how large it is. It is painted inside of the
opening between the found lids; squints, winks and blinks therefore stay what they are.
"""
from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .filters import blur, luma, masked_blur, mix, saturate, smoothstep, to_linear

IRIS = 0.092        # radius of an iris over the distance of the eyes (11.7 mm and 63 mm across)
SHUT = (0.10, 0.14)  # opening over width up to which an eye is left as it is, and from which on it is painted
DARK = (0.07, 0.16)  # brightness over that of white up to which, and from which on, an iris is brown or its own colour
WIDER = 1.2         # at most, by how much an iris grows to reach both lids
BLACK = (0.006, 0.015)  # linear brightness of an iris up to which its tint is noise, and from which on it is not
GLINT = (0.3, -0.45)  # what shines in an eye, in radii of the iris from its centre; an echo lies opposite
CONTOUR = 24        # points of a lid's curve
WHITE = np.float32([1.0, 0.98, 0.95])  # of eyes: in warm light, a neutral grey looks blue
LIGHT_TINT, MOST_TINT = 0.45, 0.2  # how much of the photograph's own tint a white keeps, and up to which tint
BROWN = np.float32([0.16, 0.085, 0.045])


@dataclass(frozen=True)
class EyePaint:
    """How eyes are painted.

    iris          factor on the iris' radius; pupil: radius of the pupil over the iris'
    vivid, light  factors on the iris' saturation and brightness
    white         how far the white of the eye is cleaned, 0 … 1
    lash          opacity of the line along the upper lid
    glint         size of the light in the eye over the iris' radius
    """

    iris: float = 1.18
    pupil: float = 0.44
    vivid: float = 1.35
    light: float = 1.1
    white: float = 0.7
    lash: float = 0.55
    glint: float = 0.26


def lids(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Six points of an eye (corner, two above, corner, two below) → curves of the upper and the lower lid, [n,2] each,
    both from the first corner to the other."""
    t = np.linspace(0, 1, CONTOUR)

    def curve(knots: np.ndarray) -> np.ndarray:
        along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(knots, axis=0), axis=1))])
        along = along / max(along[-1], 1e-6)
        basis = np.vander(along, 4)
        return np.vander(t, 4) @ np.linalg.solve(basis + 1e-9 * np.eye(4), knots)

    return curve(points[[0, 1, 2, 3]]), curve(points[[0, 5, 4, 3]])


def opening(points: np.ndarray) -> float:
    """How far an eye is open: the distance of the lids over the eye's width."""
    width = np.linalg.norm(points[3] - points[0])
    heights = np.linalg.norm(points[[1, 2]] - points[[5, 4]], axis=1)
    return float(heights.mean() / max(width, 1e-6))


def opening_mask(points: np.ndarray, size: int, soft: float) -> np.ndarray:
    """The opening between the lids of six points, [size,size] in [0,1], its edge `soft` pixels wide."""
    upper, lower = lids(points)
    fine = 8
    mask = np.zeros((size, size), np.float32)
    polygon = (np.concatenate([upper, lower[::-1]]) * fine).round().astype(np.int32)
    cv2.fillPoly(mask, [polygon], 1.0, cv2.LINE_AA, shift=3)
    return blur(mask, soft)


def iris_color(photo: np.ndarray, points: np.ndarray, centre: np.ndarray, radius: float) -> np.ndarray | None:
    """Colour of an iris, linear RGB [3], from its lower half between pupil and rim; None where it cannot be seen."""
    size = photo.shape[0]
    rows, columns = np.mgrid[:size, :size]
    far = np.hypot(columns - centre[0], rows - centre[1]) / radius
    inside = opening_mask(points, size, 0.5) > 0.9
    seen = inside & (far > 0.5) & (far < 0.88) & (rows > centre[1] - 0.25 * radius)
    white = inside & (far > 1.25)
    if seen.sum() < 8:
        return None
    colors = to_linear(photo[seen])
    order = np.argsort(luma(colors))
    middle = np.median(colors[order[len(order) // 10: max(len(order) * 6 // 10, 1) + 1]], 0)  # not what mirrors in it
    if white.sum() > 8:  # white balance, half of the way: the white of an eye is never quite white
        balance = np.median(to_linear(photo[white]), 0)
        middle = middle / np.sqrt(np.maximum(balance / max(luma(balance), 1e-3), 0.3))
    return np.clip(middle, 0.004, 0.7).astype(np.float32)


def paint_eye(picture: np.ndarray, points: np.ndarray, inner: np.ndarray, centre: np.ndarray, radius: float,
              color: np.ndarray, exposure: float, how: EyePaint) -> np.ndarray:
    """One eye of a picture [S,S,3], painted; one that is shut is left as it is.

    points [6,2], centre [2], radius: lids and iris in the picture; inner [2]: where the nose is
    color     linear RGB of the iris
    exposure  brightness (linear) that white has around the eye
    """
    size, degree = picture.shape[0], float(smoothstep(np.float32(opening(points)), *SHUT))
    width = float(np.linalg.norm(points[3] - points[0]))
    margin = int(0.7 * width + 3 * radius)
    x, y = points.mean(0)
    rows = slice(max(0, int(y) - margin), min(size, int(y) + margin))
    columns = slice(max(0, int(x) - margin), min(size, int(x) + margin))
    patch, shift = picture[rows, columns], np.float32([columns.start, rows.start])
    if min(patch.shape[:2]) < 8:
        return picture
    side = max(patch.shape[:2])
    square = np.zeros((side, side, 3), np.float32)
    square[:patch.shape[0], :patch.shape[1]] = patch
    done = _painted(square, points - shift, inner - shift, centre - shift, radius, color, exposure, how)
    out = picture.copy()
    out[rows, columns] = mix(patch, done[:patch.shape[0], :patch.shape[1]], degree)
    return out


def _painted(patch: np.ndarray, points: np.ndarray, inner: np.ndarray, centre: np.ndarray, radius: float,
             color: np.ndarray, exposure: float, how: EyePaint) -> np.ndarray:
    width = float(np.linalg.norm(points[3] - points[0]))
    size = patch.shape[0]
    upper, lower = lids(points)
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    inside = opening_mask(points, size, 0.02 * width)
    big = _iris_radius(radius * how.iris, centre, upper, lower)
    px, py = (columns - centre[0]) / big, (rows - centre[1]) / big
    far = np.hypot(px, py)
    disc = 1 - smoothstep(far, 1 - 1.6 / big, 1 + 1.2 / big)
    # the white: the photograph's own shading without veins, cleaned; darker under the lid and in the corners
    outside = np.clip(inside - disc, 0, 1) * (far > 1.05)
    own = masked_blur(patch, np.where(outside > 0.5, outside, 0) + 1e-4, 0.10 * width)
    grey = np.clip(luma(own), 0, 1)[..., None]
    clean = np.clip((0.35 * grey + 0.65 * exposure ** (1 / 2.2)) * _white_tint(own[outside > 0.5]), 0, 1)
    top = np.interp(columns[0], upper[np.argsort(upper[:, 0]), 0], upper[np.argsort(upper[:, 0]), 1])[None]
    below = np.clip((rows - top) / (0.22 * width), 0, 1)
    middle = (points[0] + points[3]) / 2
    corner = np.clip(np.hypot(columns - middle[0], rows - middle[1]) / (0.55 * width), 0, 1.2)
    shade = (0.70 + 0.30 * smoothstep(below, 0, 1)) * (1 - 0.14 * corner**2)
    white = mix(own, clean, how.white) * shade[..., None]
    out = mix(patch, white, np.clip(inside, 0, 1))
    # the iris
    tone = _toned(color, exposure, how)
    angle = np.arctan2(py, px)
    fibres = 0.5 + 0.25 * np.sin(23 * angle + 2 * np.sin(3 * angle)) + 0.25 * np.sin(41 * angle + 1.3)
    glow = np.clip(0.72 + 0.75 * smoothstep(py, -0.5, 0.85) * (1 - smoothstep(far, 0.55, 1.0)), 0, 2)
    value = glow * (0.9 + 0.2 * fibres * smoothstep(far, how.pupil, 0.7))
    value = value * (1 - 0.62 * smoothstep(far, 0.74, 0.97))
    value = mix(value, np.float32(0.04), 1 - smoothstep(far, how.pupil - 1.4 / big, how.pupil + 1.4 / big))
    value = value * (0.45 + 0.55 * smoothstep(below, 0, 0.9))
    iris = np.clip(tone * value[..., None], 0, 1) ** (1 / 2.2)
    out = mix(out, iris, disc * inside)
    # what shines in it, always on one side: which side the light comes from is more than a network can tell, and what
    # it cannot tell it blurs
    for turn, r, strength in ((1, how.glint, 0.95), (-1, 0.5 * how.glint, 0.35)):
        spot = 1 - smoothstep(np.hypot(px - turn * GLINT[0], py - turn * GLINT[1]), r - 1.5 / big, r + 1.5 / big)
        out = mix(out, np.float32(min(1.0, (1.35 * exposure) ** (1 / 2.2))), spot * inside * strength)
    inner_first = np.linalg.norm(points[0] - inner) < np.linalg.norm(points[3] - inner)
    return _lash(out, upper if inner_first else upper[::-1], width, how.lash)


def _white_tint(own: np.ndarray) -> np.ndarray:
    """Tint [3] of a white of an eye whose own colours are [n,3]: that of the light on it, held back."""
    if not len(own):
        return WHITE
    mean = own.mean(0)
    tint = np.clip(mean / max(float(luma(mean)), 1e-3), 1 - MOST_TINT, 1 + MOST_TINT)
    return (WHITE * tint ** LIGHT_TINT).astype(np.float32)


def _iris_radius(radius: float, centre: np.ndarray, upper: np.ndarray, lower: np.ndarray) -> float:
    """Radius of a painted iris: larger, up to WIDER, where there would be white above or below it, which stares."""
    low, high = (np.interp(centre[0], *curve[np.argsort(curve[:, 0])].T) for curve in (lower, upper))
    return float(radius * np.clip(0.5 * (low - high) / radius, 1, WIDER))


def _toned(color: np.ndarray, exposure: float, how: EyePaint) -> np.ndarray:
    """Colour with which an iris is painted: its own, clearer, never black."""
    cool = float(smoothstep(np.float32(color[2] / max(color[0], 1e-4)), 0.85, 1.25))  # blue eyes may be in the shade
    cool *= float(smoothstep(np.float32(luma(color)), *BLACK))
    dark = (1 - cool) * (1 - float(smoothstep(np.float32(luma(color) / exposure), *DARK)))
    brown = BROWN * (luma(color) / luma(BROWN))
    vivid = np.clip(saturate(mix(color, brown, dark)[None], how.vivid)[0], 0.002, 1)
    bright = np.clip(how.light * luma(vivid), 0.035 * exposure, 0.32 * exposure)
    return (vivid * bright / max(luma(vivid), 1e-3)).astype(np.float32)


def _lash(out: np.ndarray, upper: np.ndarray, width: float, opacity: float) -> np.ndarray:
    """A dark line along the upper lid [n,2], which begins at the nose: thickest at two thirds of the way."""
    line = np.zeros(out.shape[:2], np.float32)
    for i in range(len(upper) - 1):
        t = i / (len(upper) - 2)
        thick = width * (0.018 + 0.034 * np.sin(np.pi * t**1.7))
        cv2.line(line, *((upper[j] * 16).round().astype(int).tolist() for j in (i, i + 1)), 1.0,
                 max(1, round(thick)), cv2.LINE_AA, shift=4)
    line = blur(line, max(0.6, 0.012 * width))
    return mix(out, out * np.float32([0.20, 0.15, 0.14]), np.clip(line, 0, 1) * opacity)
