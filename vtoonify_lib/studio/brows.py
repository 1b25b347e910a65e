"""Brows and lashes by rule: ribbons of drawn hairs on the brow ridge and along the edges of the lids.

They are placed once on the average head and bound to the vertices under them, so they follow every face, expression
and blink. Lengths are decimetres.
"""
from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from . import strands
from .kit import Kit, Mesh, Prop

LINE = np.array([[0.123, 7.386], [0.224, 7.400], [0.327, 7.424], [0.424, 7.414], [0.520, 7.381]])
"""x and y of a plain brow's middle on the average head, the subject's left: five landmarks."""

COLUMNS, ACROSS = 19, 5  # vertices along a brow and across it
LEFT_MARKS = np.array([1, 5, 9, 13, 17]) * ACROSS + ACROSS // 2
MARKS = np.concatenate([LEFT_MARKS[::-1] + COLUMNS * ACROSS, LEFT_MARKS])
"""Vertices of a brow prop that are landmarks 17–26: the right brow from outside, the left one from inside."""

LASH_ROWS = 9
OFF_LID = np.array([0, 0, 0.02])  # straight lashes start in front of the lid, round which those of the mesh bend
CELL, RIDGE = 0.012, (-0.72, 0.72, 7.25, 7.62)  # of a grid over the skin around brows: x from … to, y from … to


@dataclass(frozen=True)
class Brow:
    """Numbers of a pair of brows, each 0 … 1 with 0.5 plain: thickness, length, arch, density."""

    thickness: float = 0.5
    length: float = 0.5
    arch: float = 0.5
    density: float = 0.5


def brow_line(brow: Brow, share: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Middle x and y, and half thickness, at shares [n] of the way from the left brow's inner end to its outer one."""
    inner, outer = LINE[0, 0] - 0.025, LINE[-1, 0] + 0.012 + 0.08 * (brow.length - 0.5)
    x = inner + (outer - inner) * share
    bend = np.interp(share, [0, 0.25, 0.45, 0.65, 0.82, 1.0], [-0.15, 0.0, 0.55, 1.0, 0.5, -0.55])
    slope = np.clip(x - LINE[-1, 0], 0, 1) * -0.35
    y = np.interp(x, *LINE.T) + slope + 0.075 * (brow.arch - 0.5) * bend
    y = np.convolve(np.pad(y, 2, mode="edge"), [0.1, 0.2, 0.4, 0.2, 0.1], "valid")
    full = np.interp(share, [0, 0.15, 0.5, 0.85, 1], [0.95, 1.05, 1.0, 0.75, 0.5])
    return x, y, (0.030 + 0.045 * brow.thickness) * full


class BrowRidge:
    """The skin around the brows of the average head `rest` [6357,3] with its normals: `BrowRidge(…)(brow) → Prop`."""

    def __init__(self, kit: Kit, rest: np.ndarray, normals: np.ndarray):
        self._rest, self._normals = rest, normals
        steps = [np.arange(low, high, CELL) for low, high in (RIDGE[:2], RIDGE[2:])]
        places = np.stack(np.meshgrid(*steps, indexing="ij"), -1).reshape(-1, 2)
        foremost = _foremost(places, kit.group("body"), rest)
        self._under = foremost.reshape(len(steps[0]), len(steps[1]), 3)

    def __call__(self, brow: Brow) -> Prop:
        """A pair of brows on that skin."""
        share, u = np.linspace(0, 1, COLUMNS), np.linspace(-1, 1, ACROSS)
        x, y, half = brow_line(brow, share)
        lean = 0.4 * half[:, None] * u  # the upper hairs end further out
        left = np.stack([x[:, None] + lean, y[:, None] + half[:, None] * u], -1).reshape(-1, 2)
        places = np.concatenate([left, left * [-1, 1]])
        bind, weight = self._skin(places)
        out = (self._normals[bind] * weight[..., None]).sum(1)
        inset = np.clip((u + 1) / 2, 0.02, 0.98)
        uv = np.stack(np.broadcast_arrays((strands.BROW + inset[None]) / strands.STRIPS, share[:, None]), -1)
        mesh = Mesh(np.tile(uv.reshape(-1, 2), (2, 1)).astype(np.float32), _quads())
        return Prop(mesh, bind, weight, 0.006 * out)

    def _skin(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Corners [n,3] and shares [n,3] of the triangle under each x and y [n,2]."""
        i, j = ((places - [RIDGE[0], RIDGE[2]]) / CELL).round().astype(int).T
        corners = self._under[np.clip(i, 0, self._under.shape[0] - 1), np.clip(j, 0, self._under.shape[1] - 1)]
        shares = np.maximum(_shares(places, self._rest[corners][..., :2]), 0)
        return corners, shares / shares.sum(1, keepdims=True)


@lru_cache(maxsize=1)
def _quads() -> np.ndarray:
    grid = np.arange(COLUMNS * ACROSS).reshape(COLUMNS, ACROSS)
    a, b, c, d = grid[:-1, :-1].ravel(), grid[:-1, 1:].ravel(), grid[1:, 1:].ravel(), grid[1:, :-1].ravel()
    one = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    return np.concatenate([one, one + COLUMNS * ACROSS]).astype(np.int32)


def _shares(places: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Barycentric coordinates [...,3] of x, y [...,2] in triangles [...,3,2]."""
    a, b, c = corners[..., 0, :], corners[..., 1, :], corners[..., 2, :]
    area = _cross(b - a, c - a)
    return np.stack([_cross(b - places, c - places), _cross(c - places, a - places),
                     _cross(a - places, b - places)], -1) / area[..., None]


def _foremost(places: np.ndarray, triangles: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """Corners [n,3] of the foremost triangle over each x and y [n,2], or of the nearest one."""
    corners = rest[triangles]
    middle = corners.mean(1)
    near = (middle[:, 1] > RIDGE[2] - 0.05) & (middle[:, 1] < RIDGE[3] + 0.05) & (middle[:, 2] > 0.8)
    near &= np.abs(middle[:, 0]) < RIDGE[1] + 0.05
    near &= np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])[:, 2] > 1e-6
    triangles, corners = triangles[near], corners[near]
    out = []
    for place in places:
        outside = np.maximum(-_shares(place, corners[..., :2]).min(-1), 0)
        out.append(triangles[np.argmin(np.where(outside < 1e-6, -corners[:, :, 2].max(1), 10 + outside))])
    return np.array(out)


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def lash_ends(kit: Kit, rest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertices at the roots and at the tips of lashes [4,LASH_ROWS]: upper and lower lid, left eye, then right."""
    ends = []
    for side in "lr":
        ball = rest[np.unique(kit.group(f"helper-{side}-eye"))]
        center = (ball.min(0) + ball.max(0)) / 2
        ends += [_lid(kit.group(f"helper-{side}-eyelashes-{lid}"), rest, center, side) for lid in (2, 1)]
    return np.array([root for root, _ in ends]), np.array([tip for _, tip in ends])


def lash_prop(length: float, roots: np.ndarray, tips: np.ndarray) -> Prop:
    """Lashes of both eyes; length 0 … 1, 0.5 plain. They go from the lids' edges to, or beyond, the mesh's tips."""
    long = np.array([1.0, 0.75, 1.0, 0.75]) * (0.6 + 1.2 * length)
    bind = np.repeat(np.stack([roots, tips], -1)[:, :, None], 2, 2).reshape(-1, 2)
    reach = (long[:, None, None] * np.array([0.0, 1.0]) * np.ones((1, LASH_ROWS, 1))).reshape(-1)
    uv = strands.strip_uv(np.full(4, strands.LASH), LASH_ROWS)
    mesh = Mesh(uv, strands.ribbon_mesh(4, LASH_ROWS))
    return Prop(mesh, bind, np.stack([1 - reach, reach], 1), np.tile(OFF_LID, (len(bind), 1)))


def _lid(triangles: np.ndarray, rest: np.ndarray, center: np.ndarray, side: str) -> tuple[np.ndarray, np.ndarray]:
    """Vertices [LASH_ROWS] at the roots and at the tips of a lid's lashes, from the inner corner outwards.

    The triangles [t,3] are a grid five vertices deep: what is nearest to the eyeball all along its rim are roots.
    """
    edges = np.sort(triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    edges, count = np.unique(edges, axis=0, return_counts=True)
    edges = edges[count == 1]
    rim = list(edges[0])
    while len(rim) < len(edges):
        rim += [v for v in edges[(edges == rim[-1]).any(1)].ravel() if v not in rim[-2:]]
    n = (len(rim) - 6) // 2
    turns = np.array([np.roll(rim, k) for k in range(len(rim))])
    reach = np.linalg.norm(rest[turns] - center, axis=-1)
    best = turns[np.argmax(reach[:, n + 3:-3].sum(1) - reach[:, :n].sum(1))]
    roots, tips = best[:n], best[n + 3:-3][::-1]
    order = np.linspace(0, n - 1, LASH_ROWS).round().astype(int)
    if (rest[roots[-1], 0] < rest[roots[0], 0]) == (side == "l"):
        order = order[::-1]
    return roots[order], tips[order]
