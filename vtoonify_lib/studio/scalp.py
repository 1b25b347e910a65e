"""Where hair grows and what it lies on: roots and hairline of the average head, and distances to its surface.

Everything is measured once on the head of average shape, in its own coordinates (decimetres; +y up, +z out of the face,
+x the subject's left), so it holds for any mesh of that shape. `hair` grows strands on it, `strands` binds them to the
vertices of a person.
"""
from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .filters import smoothstep
from .regions import Regions
from .strands import unit

CROWN = np.array([0.08, 8.22, -0.05])  # the whorl, from which short hair lies outwards
HAIRLINE = np.array([  # z and height of the line around the average head, from the nape past the ear to the forehead
    [-0.30, 6.72], [0.00, 6.72], [0.15, 6.84], [0.25, 7.12], [0.32, 7.38], [0.56, 7.38], [0.61, 7.08], [0.67, 7.02],
    [0.72, 7.10], [0.80, 7.33], [0.90, 7.55], [1.00, 7.76], [1.10, 7.88], [1.25, 7.95], [1.40, 7.96]])
FACE = np.array([0.0, 7.05, 1.55]), np.array([0.72, 0.95, 0.98])
"""Half an ellipsoid, with what is before it: centre and half axes. Only a fringe may enter."""

CELL, LOW, HIGH = 0.08, np.array([-1.9, 3.9, -1.6]), np.array([1.9, 9.4, 2.1])
ROOTS = 1600          # candidates, evenly spread; a style takes as many as it has cards
ANCHORS, SHARED = 360, 6  # vertices that carry hair, and how many of them carry each point of it
EAR = np.array([0.70, 7.08, 0.45]), np.array([0.14, 0.30, 0.19])  # centre and half axes of the left ear
EAR_ROOM = np.array([1.35, 1.1, 1.2])  # ears stand off more or less: what hair keeps away from, in sizes of an ear
CLOTH = 0.10          # decimetres by which clothes stand off the shoulders


def above_hairline(points: np.ndarray, receding: float) -> np.ndarray:
    """Decimetres [n] by which points [n,3] of the average head are inside the hairline; negative on face and neck.

    receding: 0 = a full head of hair, 0.5 = bare temples, 1 = a wreath is left.
    """
    x, y, z = points.T
    inside = y - np.interp(z, *HAIRLINE.T)
    inside = np.minimum(inside, off_ears(points))
    for side in (-1, 1):  # temples first
        temple = np.linalg.norm(points - [side * 0.50, 8.02, 1.22], axis=1)
        inside = np.minimum(inside, temple - 0.06 - 0.45 * min(receding, 0.5))
    top = np.linalg.norm((points - [0, 8.45, 1.40]) * [0.85, 1, 1], axis=1)
    return np.minimum(inside, top - 0.25 - 1.05 * receding)


def off_ears(points: np.ndarray) -> np.ndarray:
    """Decimetres [n], roughly, from points [n,3] to the nearer ear of the average head; negative in it."""
    q = (np.stack([np.abs(points[:, 0]), points[:, 1], points[:, 2]], 1) - EAR[0]) / EAR[1]
    return (np.linalg.norm(q, axis=1) - 1.0) * EAR[1].min()


def over_ears(points: np.ndarray) -> np.ndarray:
    """Which of points [...,3] are beside an ear, where a strand would lie across it."""
    x, y, z = np.moveaxis(points, -1, 0)
    ear, half = EAR
    return (np.abs(x) > 0.58) & (np.abs(y - ear[1] - 0.04) < half[1]) & (np.abs(z - ear[2] - 0.05) < half[2])


def behind_ears(points: np.ndarray) -> np.ndarray:
    """Points [n,3], those before or over an ear moved behind it; what is before the temple stays."""
    x, y, z = points.T
    low, high = EAR[0][1] - EAR[1][1], EAR[0][1] + EAR[1][1]
    share = smoothstep(y, low - 0.25, low) * smoothstep(-y, -high - 0.2, -high) * smoothstep(np.abs(x), 0.45, 0.6)
    behind = EAR[0][2] - 1.3 * EAR[1][2]
    out = points.copy()
    out[:, 2] = np.where(z < 0.80, np.minimum(z, z + share * (behind - z)), z)
    return out


def off_face(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far points [n,3] are from the middle of the face, 1 at its edge; and to where on the edge they are moved."""
    q = (points - FACE[0]) / FACE[1]
    q[:, 2] = np.minimum(q[:, 2], 0)
    far = np.linalg.norm(q, axis=1, keepdims=True)
    return far, points + np.maximum(1 / np.maximum(far, 0.05) - 1, 0) * q * FACE[1]


@dataclass(frozen=True)
class Field:
    """A grid over space: distance to the head and the way out of it."""

    values: np.ndarray  # [X,Y,Z,4]: decimetres off the surface, unit vector away from it

    def __call__(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """points [...,3] → distance [...], way out [...,3]: the nearest node's, whose distance grows along its way."""
        at, shape = (points - LOW) / CELL, np.array(self.values.shape[:3])
        low = np.clip((at + 0.5).astype(np.int64), 0, shape - 1)
        node = self.values.reshape(-1, 4)[(low[..., 0] * shape[1] + low[..., 1]) * shape[2] + low[..., 2]]
        way = node[..., 1:]
        return node[..., 0] + CELL * np.einsum("...i,...i->...", at - low, way), way

    def near(self, points: np.ndarray) -> np.ndarray:
        """Index of the node [...] nearest to points [...,3], in the flattened grid."""
        shape = np.array(self.values.shape[:3])
        at = np.clip(((points - LOW) / CELL + 0.5).astype(np.int64), 0, shape - 1)
        return (at[..., 0] * shape[1] + at[..., 1]) * shape[2] + at[..., 2]


class Scalp:
    """Roots, surface and anchors of the average head of some regions. Needs scipy."""

    def __init__(self, regions: Regions):
        self.rest = regions.rest
        self._body = regions.kit.group("body")
        self._normals = regions.rest_normals
        self._used = np.flatnonzero(regions.on_body & (self.rest[:, 1] > 4.0) & ~regions.mouth_cavity)

    @cached_property
    def roots(self) -> tuple[np.ndarray, np.ndarray]:
        """Points [ROOTS,3] on the skin inside the hairline and their normals, each far from those before it."""
        corners = self.rest[self._body]
        middle = corners.mean(1)
        keep = above_hairline(middle, 0.0) > -0.10
        corners, normals = corners[keep], self._normals[self._body[keep]]
        area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
        rng = np.random.default_rng(11)
        pick = rng.choice(len(corners), 4 * ROOTS, p=area / area.sum())
        u = np.sort(rng.random((2, len(pick))), 0)
        share = np.stack([u[0], u[1] - u[0], 1 - u[1]], 1)[..., None]
        points, ways = (corners[pick] * share).sum(1), (normals[pick] * share).sum(1)
        good = (above_hairline(points, 0.0) > 0) & (np.abs(points[:, 0]) < 0.72)
        points, ways = points[good], ways[good]
        order = _spread(points, min(ROOTS, len(points)))
        return points[order], ways[order] / np.linalg.norm(ways[order], axis=1, keepdims=True)

    @cached_property
    def field(self) -> Field:
        """Distance to skin, ears and clothes."""
        from scipy.spatial import cKDTree

        ear = (np.abs(np.abs(self.rest[self._used, 0]) - 0.74) < 0.13) & (np.abs(self.rest[self._used, 2] - 0.45) < 0.2)
        ear &= np.abs(self.rest[self._used, 1] - 7.08) < 0.28
        index = self._used[~ear]
        nodes = np.stack(np.meshgrid(*_steps(), indexing="ij"), -1)
        near, which = cKDTree(self.rest[index]).query(nodes.reshape(-1, 3), 4)
        away = nodes.reshape(-1, 1, 3) - self.rest[index[which]]
        weight = 1 / (near + 0.02) ** 2
        plane = ((away * self._normals[index[which]]).sum(-1) * weight).sum(1) / weight.sum(1)
        distance = np.where(near[:, 0] > 0.35, np.copysign(near[:, 0], np.where(near[:, 0] > 0.9, 1, plane)), plane)
        cloth = CLOTH * (1 - smoothstep(nodes[..., 1], 5.5, 5.9))
        distance = distance.reshape(nodes.shape[:3]) - cloth
        for side in (1, -1):
            q = (nodes - EAR[0] * [side, 1, 1]) / (EAR_ROOM * EAR[1])
            distance = np.minimum(distance, (np.linalg.norm(q, axis=-1) - 1) * EAR[1].min())
        for axis in range(3):  # vertices are coarse: round off
            distance = _rounded(distance, axis)
        way = unit(np.stack(np.gradient(distance, CELL), -1))
        return Field(np.concatenate([distance[..., None], way], -1).astype(np.float32))

    @cached_property
    def _anchors(self) -> tuple[np.ndarray, np.ndarray]:
        """Of every node of the field's grid: vertices [n,SHARED] that carry hair there, and their weights."""
        from scipy.spatial import cKDTree

        index = self._used[(self.rest[self._used, 1] > 4.6) & (np.abs(self.rest[self._used, 0]) < 2.0)]
        chosen = index[_spread(self.rest[index], ANCHORS)]
        nodes = np.stack(np.meshgrid(*_steps(), indexing="ij"), -1).reshape(-1, 3)
        away, which = cKDTree(self.rest[chosen]).query(nodes, SHARED)
        weight = (1 / (away + 1e-3) - 1 / (away[:, -1:] + 1.1e-3)) ** 2  # 0 where a vertex comes or goes
        return chosen[which].astype(np.int32), (weight / weight.sum(1, keepdims=True)).astype(np.float32)

    def bind(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Vertices [n,SHARED] and weights [n,SHARED] that carry points [n,3]."""
        node = self.field.near(points)
        return self._anchors[0][node], self._anchors[1][node]

    @cached_property
    def scale(self) -> tuple[np.ndarray, np.ndarray]:
        """Pairs of vertices [3,2] whose distances along x, y and z say how large a head is, and those at rest [3]."""
        head = self._used[self.rest[self._used, 1] > 6.9]
        ends = [np.array([0.66, 7.6, 0.4]), np.array([0, 8.36, 0.5]), np.array([0, 7.66, 1.44])]
        others = [np.array([-0.66, 7.6, 0.4]), np.array([0, 7.3, -0.42]), np.array([0, 7.66, -0.45])]
        pairs = np.array([[head[np.argmin(np.linalg.norm(self.rest[head] - p, axis=1))] for p in ends_]
                          for ends_ in (ends, others)]).T
        rest = np.abs([self.rest[a, i] - self.rest[b, i] for i, (a, b) in enumerate(pairs)])
        return pairs, rest


def _steps() -> list[np.ndarray]:
    return [np.arange(a, b, CELL) for a, b in zip(LOW, HIGH, strict=True)]


def _rounded(grid: np.ndarray, axis: int) -> np.ndarray:
    ends = np.concatenate([grid.take([0], axis), grid, grid.take([-1], axis)], axis)
    n = grid.shape[axis]
    a, b, c = (ends.take(np.arange(i, i + n), axis) for i in range(3))
    return 0.25 * a + 0.5 * b + 0.25 * c


def _spread(points: np.ndarray, n: int) -> np.ndarray:
    """Indices [n] of points [m,3]: each is the one farthest from those before it; the first is the first."""
    away, out = np.full(len(points), np.inf), np.zeros(n, int)
    for i in range(1, n):
        away = np.minimum(away, ((points - points[out[i - 1]]) ** 2).sum(1))
        out[i] = np.argmax(away)
    return out
