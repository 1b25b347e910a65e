"""What each vertex of the base mesh belongs to, and which vertices are the 68 landmarks.

Marked once on the average head. Because every person is that mesh morphed, a region or a landmark found here is exact
on every face: this is the ground truth of the parsing and landmark models.
"""
from __future__ import annotations

from functools import cached_property

import numpy as np

from .brows import MARKS, Brow, BrowRidge
from .filters import smoothstep as _smooth
from .kit import Kit, VertexNormals

MOUTH_CORNER = (0.222, 6.64)  # |x|, y of the corners on the average head, read off a frontal render

MOUTH_DEPTH = ((("helper-upper-teeth", "helper-lower-teeth"), 1.12, 1.40), (("helper-tongue",), 0.75, 1.40))
"""Groups in the mouth, and z on the average head where they are dark and where light falls on them freely."""

LIP_DROP = 0.15
"""Decimetres by which the lower lip goes down as the mouth opens; the upper one, next to it when shut, stays."""


class Regions:
    """Soft masks [6357] and landmark vertices of a kit."""

    def __init__(self, kit: Kit):
        self.kit = kit
        self.rest = kit.morph(kit.average_macro)
        self._body = kit.group("body")
        self.on_body = np.zeros(len(self.rest), bool)
        self.on_body[np.unique(self._body)] = True
        self.rest_normals = VertexNormals(self._body, len(self.rest))(self.rest)

    @cached_property
    def masks(self) -> np.ndarray:
        """[6357,11]: upper lip, lower lip, cheek, nose, ear, neck, mouth cavity, occlusion, beard, moustache, eyelid.

        Occlusion is 1 everywhere; the renderer measures it.
        """
        kit, (x, y, z) = self.kit, self.rest.T
        neck = 1 - _smooth(y - (6.07 + 0.22 * np.abs(x) ** 2 + 0.42 * np.clip(0.9 - z, 0, 1)), -0.03, 0.03)
        front = _smooth(z, 0.45, 0.75)
        cheek = 0.55 * np.clip(np.abs(x) - 0.3, 0, 1)  # how much higher the beard begins beside the mouth
        beard = front * (1 - _smooth(y, 6.62 + cheek, 6.85 + 0.75 * np.clip(np.abs(x) - 0.3, 0, 1)))
        beard = beard * _smooth(y, 5.85, 6.05)
        moustache = _smooth(z, 1.2, 1.35) * _smooth(y, 6.62, 6.72) * (1 - _smooth(y, 6.82, 6.93))
        moustache = moustache * (1 - _smooth(np.abs(x), 0.25, 0.38))
        slope = np.abs(x) - 0.07 - 0.16 * np.clip(7.2 - y, 0, 1)
        bridge = _smooth(z, 1.2, 1.3) * _smooth(y, 6.85, 6.92) * (1 - _smooth(y, 7.28, 7.40))
        bridge = bridge * (1 - _smooth(slope, -0.03, 0.03))
        columns = [
            *self._lip_masks, self._both("cheek/{s}-cheek-volume-incr"),
            np.maximum(kit.mask("nose/nose-volume-incr"), 0.8 * bridge),
            np.maximum(self._both("ears/{s}-ear-scale-incr"), self._both("ears/{s}-ear-trans-up")),
            neck, self.mouth_cavity, np.ones(len(x)), beard, moustache, self._both("eyes/{s}-eye-eyefold-up"),
        ]
        return np.stack(columns, 1).astype(np.float32)

    def _both(self, target: str) -> np.ndarray:
        return self.kit.mask(target.format(s="l"), target.format(s="r"))

    @cached_property
    def brow_ridge(self) -> BrowRidge:
        """Places brows."""
        return BrowRidge(self.kit, self.rest, self.rest_normals)

    @cached_property
    def landmarks(self) -> np.ndarray:
        """Vertex of each of the 68 iBUG landmarks, [68]; the subject's right comes first (0–16 jaw, 17–26 brows, …).

        The brows' are those of a plain brow, on the skin; where a brow that is worn has them, says `brows.MARKS`.
        """
        jaw, eye, mouth = self._jaw(), self._lids, self._lips()
        hairs = self.brow_ridge(Brow()).place(self.rest)
        brows = [self._nearest(point) for point in hairs[MARKS]]
        left_eye = np.array(eye(1))[[3, 2, 1, 0, 5, 4]]
        return np.array([*jaw, *brows, *self._nose(), *eye(-1), *left_eye, *mouth])

    def _extreme(self, allowed: np.ndarray, x: float, direction: float, reach: float = 0.03) -> int:
        """Among allowed vertices near abscissa x, the one furthest up (direction 1) or down (−1)."""
        index = np.flatnonzero(allowed)
        aside = np.maximum(np.abs(self.rest[index, 0] - x) - reach, 0)
        return int(index[np.argmax(direction * self.rest[index, 1] - 6 * aside)])

    def _nearest(self, point: np.ndarray) -> int:
        d = np.linalg.norm(self.rest - point, axis=1) + 9 * ~self.on_body
        return int(np.argmin(d))

    def _jaw(self) -> list[int]:
        """17 points of the face outline, evenly spread in angle around the face's middle."""
        x, y, z = self.rest.T
        ears = self.masks[:, 4] > 0.12
        face = np.flatnonzero(self.on_body & ~ears & (self.masks[:, 5] < 0.35) & (z > 0.35) & (y < 7.6))
        dx, dy = x[face], y[face] - 6.95
        angle, radius = np.arctan2(dy, dx), np.hypot(dx, dy)
        out = []
        for a in np.linspace(np.pi + np.radians(-14), 2 * np.pi + np.radians(14), 17):
            off = np.abs((angle - a + np.pi) % (2 * np.pi) - np.pi)
            out.append(int(face[np.argmax(radius - 1.5 * np.maximum(off - 0.05, 0) * 4)]))
        return out

    def _lids(self, side: int) -> list[int]:
        """6 points of an eye: outer corner, upper lid outer and inner, inner corner, lower lid inner and outer."""
        ball = self.rest[np.unique(self.kit.group(f"helper-{'l' if side > 0 else 'r'}-eye"))]
        low, high = ball.min(0), ball.max(0)
        radius = (high - low)[:2].mean() / 2
        center = np.array([*(low + high)[:2] / 2, high[2] - radius])
        gx, gy = np.meshgrid(*(np.linspace(c - 1.5 * radius, c + 1.5 * radius, 121) for c in center[:2]))
        surface = center[2] + np.sqrt(np.maximum(radius**2 - (gx - center[0]) ** 2 - (gy - center[1]) ** 2, 0))
        on_ball = np.hypot(gx - center[0], gy - center[1]) < radius
        opening = on_ball & ~self._covered(gx, gy, surface, center)
        columns = np.flatnonzero(opening.any(0))
        inner, outer = (columns[0], columns[-1]) if side > 0 else (columns[-1], columns[0])

        def vertex(column: int, row: int) -> int:
            return self._nearest(np.array([gx[row, column], gy[row, column], surface[row, column] + 0.01]))

        def lid(f: float, end: int) -> int:
            column = int(round(inner + f * (int(outer) - int(inner))))
            return vertex(column, np.flatnonzero(opening[:, column])[end])

        corner = {c: vertex(c, int(np.flatnonzero(opening[:, c]).mean())) for c in (inner, outer)}
        return [corner[outer], lid(0.66, -1), lid(0.33, -1), corner[inner], lid(0.33, 0), lid(0.66, 0)]

    def _covered(self, gx: np.ndarray, gy: np.ndarray, surface: np.ndarray, center: np.ndarray) -> np.ndarray:
        """Where the body lies in front of a surface given on a grid, seen from the front."""
        corners = self.rest[self._body]
        corners = corners[(np.abs(corners - center).max(-1) < 0.45).all(-1)]
        covered = np.zeros(gx.shape, bool)
        for a, b, c in corners:
            area = (b[0] - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (b[1] - a[1])
            if abs(area) > 1e-9:
                u = ((gx - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (gy - a[1])) / area
                v = ((b[0] - a[0]) * (gy - a[1]) - (gx - a[0]) * (b[1] - a[1])) / area
                height = a[2] + u * (b[2] - a[2]) + v * (c[2] - a[2])
                covered |= (u >= 0) & (v >= 0) & (u + v <= 1) & (height > surface)
        return covered

    def _nose(self) -> list[int]:
        x, y, z = self.rest.T
        middle = np.flatnonzero(self.on_body & (np.abs(x) < 0.02) & (z > 1.2) & (y > 6.6) & (y < 7.6))
        tip = middle[np.argmax(z[middle])]
        bridge = [middle[np.argmin(np.abs(y[middle] - v) - 0.02 * z[middle])] for v in np.linspace(7.33, y[tip], 4)[:3]]
        below = middle[(y[middle] < y[tip] - 0.02) & (y[middle] > y[tip] - 0.25)]
        under = below[np.argmin(z[below])]
        wing = self.masks[:, 3] > 0.3
        base = [self._extreme(wing & (z > 1.25), f * 0.19, -1) for f in (-1, -0.55)]
        mirrored = [self._nearest(self.rest[i] * [-1, 1, 1]) for i in base[::-1]]
        return [int(i) for i in (*bridge, tip, *base, under, *mirrored)]

    def _lips(self) -> list[int]:
        """20 points: outer outline from the subject's right corner over the top and back below, then the inner one."""
        x, y, z = self.rest.T
        front = self.on_body & (z > 1.28) & (self.masks[:, 6] < 0.5)
        upper, lower = front & (self.masks[:, 0] > 0.28), front & (self.masks[:, 1] > 0.28)
        right, left = self.mouth_corners
        w = x[left]
        top = [self._extreme(upper, f * w, 1) for f in (-0.66, -0.28, 0, 0.28, 0.66)]
        bottom = [self._extreme(lower, f * w, -1) for f in (0.66, 0.3, 0, -0.3, -0.66)]
        drop = np.zeros(len(x))  # the lower lip goes down as the mouth opens; beside it lies the back of the upper one
        index, move = self.kit.target("expression/units/caucasian/mouth-open")
        drop[index] = -move[:, 1]
        upper_in = front & (self.masks[:, 0] > 0.1)
        lower_in = front & (self.masks[:, 1] > 0.1) & (drop > LIP_DROP)
        inner_top = [self._extreme(upper_in, f * w, -1) for f in (-0.45, 0, 0.45)]
        inner_bottom = [self._extreme(lower_in, f * w, 1) for f in (0.45, 0, -0.45)]
        return [int(right), *top, int(left), *bottom, int(right), *inner_top, int(left), *inner_bottom]

    @cached_property
    def mouth_cavity(self) -> np.ndarray:
        """Vertices [6357] of the inside of the mouth: all that the throat reaches without crossing the lips."""
        lips = np.maximum(*self._lip_masks) > 0.12
        edges = np.concatenate([self._body[:, [0, 1]], self._body[:, [1, 2]], self._body[:, [2, 0]]])
        edges = edges[~lips[edges].any(1)]
        x, y, z = self.rest.T
        inside = self.on_body & (np.abs(x) < 0.3) & (np.abs(y - 6.65) < 0.2) & (z > 0.6) & (z < 1.2)
        box = (np.abs(x) < 0.45) & (y > 6.3) & (y < 7.0) & (z < 1.43 - 0.9 * np.maximum(np.abs(x) - 0.12, 0))
        for _ in range(60):
            grown = inside.copy()
            grown[edges[inside[edges[:, 0]], 1]] = True
            grown[edges[inside[edges[:, 1]], 0]] = True
            grown &= box
            if (grown == inside).all():
                break
            inside = grown
        return inside

    @cached_property
    def mouth_light(self) -> np.ndarray:
        """Share of the light [6357] that reaches teeth and tongue between open lips: less, the further back; else 1."""
        light = np.ones(len(self.rest))
        for groups, back, front in MOUTH_DEPTH:
            index = np.unique(self.kit.group(*groups))
            light[index] = 0.06 + 0.94 * _smooth(self.rest[index, 2], back, front)
        return light

    @cached_property
    def _lip_masks(self) -> tuple[np.ndarray, np.ndarray]:
        """Upper and lower lip [6357] each: volume targets find their bodies, a lens on the average head the corners."""
        x, y, z = self.rest.T
        lens = np.clip(1 - (x / MOUTH_CORNER[0]) ** 2, 0, 1) ** 0.75
        front = _smooth(z, 1.30, 1.36)
        up = front * (y > MOUTH_CORNER[1]) * _smooth(0.115 * lens - (y - MOUTH_CORNER[1]), -0.02, 0.03)
        low = front * (y <= MOUTH_CORNER[1]) * _smooth(0.135 * lens - (MOUTH_CORNER[1] - y), -0.02, 0.03)
        upper, lower = (self.kit.mask(f"mouth/mouth-{k}lip-volume-incr") for k in ("upper", "lower"))
        between = np.abs(x) < MOUTH_CORNER[0]
        return np.maximum(upper, 0.75 * up * between), np.maximum(lower, 0.75 * low * between)

    @cached_property
    def mouth_corners(self) -> np.ndarray:
        """Vertices of the subject's right and left corner of the mouth, [2]."""
        front = self.on_body & (self.rest[:, 2] > 1.28)
        x, y = self.rest[:, :2].T
        distance = [np.hypot(x - s * MOUTH_CORNER[0], y - MOUTH_CORNER[1]) + 9 * ~front for s in (-1, 1)]
        return np.argmin(distance, 1)

    @cached_property
    def ear_roots(self) -> dict[str, int]:
        """Vertex at the front top of each ear ("l", "r"), where the temples of spectacles rest."""
        out = {}
        for s in "lr":
            index = np.flatnonzero(self.kit.mask(f"ears/{s}-ear-scale-incr") > 0.2)
            out[s] = int(index[np.argmax(self.rest[index, 1] + self.rest[index, 2])])
        return out
