"""Ribbons of strands: their triangles, their binding to a head, and the one small texture all of them share.

A ribbon is a strip of quads along a guide; the texture gives it single hairs. The texture is drawn here by rule: six
upright strips of hairs, root at v = 0.
"""
from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

STRIPS, STRIP_WIDTH, TEXTURE_HEIGHT = 6, 64, 256
HAIR, BROW, LASH = (0, 1, 2, 3), 4, 5
"""Strips of the texture: along the ribbon for hair; along the brow; along the lid, hairs across it."""

DOWN = np.array([0.0, -1.0, 0.0])
TIED = ("", "bun", "ponytail", "braids")


@dataclass(frozen=True)
class HairStyle:
    """Numbers of one head of hair.

    length    decimetres: 0 shaved, 0.1 cropped, 0.4 short, 1.2 to the lobes, 1.8 the chin, 2.6 the shoulders, 4 below
    sides     0 … 1: length at the sides and the nape as a share of that on top; near 0 is an undercut
    parting   where hair parts, x in decimetres: 0 in the middle, ±0.3 at the side; None: from the whorl, no parting
    fringe    0 … 1: none … down to the brows
    back      −1 combed forward … 1 combed back
    volume    0 flat … 1 high
    curl      0 straight … 0.3 wavy … 0.6 curls … 1 tight coils
    receding  0 … 1: full … bare temples … a wreath
    tied      "", "bun", "ponytail" or "braids"; knot: 0 at the nape … 1 on top (of bun and ponytail)
    seed      of what is left to chance
    """

    length: float = 0.5
    sides: float = 1.0
    parting: float | None = None
    fringe: float = 0.0
    back: float = 0.0
    volume: float = 0.5
    curl: float = 0.0
    receding: float = 0.0
    tied: str = ""
    knot: float = 0.5
    seed: int = 0


@dataclass(frozen=True)
class Guides:
    """Paths [n,rows,3]; half width, tone [n,rows]; strips of the texture [n]; roll about the path [n], radians."""

    path: np.ndarray
    width: np.ndarray
    tone: np.ndarray
    strip: np.ndarray
    roll: np.ndarray

    def taken(self, which: np.ndarray) -> Guides:
        """Some of the guides: which [n] bool."""
        return Guides(self.path[which], self.width[which], self.tone[which], self.strip[which], self.roll[which])


@lru_cache(maxsize=1)
def texture() -> np.ndarray:
    """uint8 [256,384,4]: brightness (grey) and opacity; row 0 is v = 0, a root."""
    strips = [_straight(k, hairs) for k, hairs in zip(HAIR, (90, 70, 56, 44), strict=True)]
    picture = np.concatenate([*strips, _brow(), _lash()], 1)
    grey = np.clip(picture[..., :1], 0, 1)
    return (np.concatenate([grey, grey, grey, np.clip(picture[..., 1:], 0, 1)], -1) * 255).round().astype(np.uint8)


def _draw(lines: list[tuple[np.ndarray, np.ndarray, float]], shape: tuple[int, int], thick: float) -> np.ndarray:
    """Lines, each x per row [h], opacity per row [h], brightness → [h,w,2] (brightness, opacity), last on top."""
    height, width = shape
    columns = np.arange(width) + 0.5
    grey, cover = np.full(shape, 0.5), np.zeros(shape)
    for x, opacity, bright in lines:
        a = opacity[:, None] * np.clip(thick + 0.5 - np.abs(columns - x[:, None]), 0, 1)
        grey = grey * (1 - a) + bright * a
        cover = cover + a * (1 - cover)
    return np.stack([grey, cover], -1)


def _straight(seed: int, hairs: int) -> np.ndarray:
    rng, v = np.random.default_rng(seed), np.linspace(0, 1, TEXTURE_HEIGHT)
    lines = []
    for _ in range(hairs):
        at = 32 + 26 * np.clip(rng.normal(0, 0.48), -1, 1)
        sway = rng.uniform(0.5, 2.5) * np.sin(v * rng.uniform(2, 7) + rng.uniform(0, 6))
        end, begin = rng.uniform(0.72, 1.0), rng.uniform(-0.1, 0.10)
        opacity = np.clip((end - v) / 0.10, 0, 1) * np.clip((v - begin) / 0.04, 0, 1)
        x = 32 + (at - 32) * (1 - 0.35 * v**2) + sway
        lines.append((x, opacity, 0.5 + 0.17 * rng.normal()))
    return _draw(lines, (TEXTURE_HEIGHT, STRIP_WIDTH), 0.9)


def _brow() -> np.ndarray:
    """v from the inner end outwards, u from the lower edge to the upper one; hairs lie outwards, more and more flat."""
    rng = np.random.default_rng(6)
    picture = np.zeros((TEXTURE_HEIGHT, STRIP_WIDTH, 2))
    picture[..., 0] = 0.5
    row, column = np.mgrid[:TEXTURE_HEIGHT, :STRIP_WIDTH] + 0.5
    for _ in range(330):
        v0, side = rng.beta(1.1, 1.3) * 0.93, rng.uniform(-1, 1)
        spread = np.interp(v0, [0, 0.12, 0.6, 1], [16, 22, 19, 8])
        u0 = 32 + side * spread
        aim = np.interp(v0, [0, 0.15, 0.5, 1], [1.2, 0.75, 0.25, -0.1]) * (0.5 - 0.7 * side) + 0.15 * rng.normal()
        length = rng.uniform(16, 30) * np.interp(v0, [0, 0.2, 1], [0.7, 1, 0.9])
        way = np.array([np.sin(aim) * 0.75, np.cos(aim)])
        along = (column - u0) * way[0] + (row - v0 * TEXTURE_HEIGHT) * way[1]
        off = np.abs((column - u0) * way[1] - (row - v0 * TEXTURE_HEIGHT) * way[0])
        a = np.clip(1.6 - off, 0, 1) * (along > 0) * np.clip((length - along) / (0.6 * length), 0, 1)
        a *= 0.85 * np.interp(v0, [0, 0.12], [0.55, 1])
        picture[..., 0] += a * (0.5 + 0.2 * rng.normal() - picture[..., 0])
        picture[..., 1] += a * (1 - picture[..., 1])
    return picture


def _lash() -> np.ndarray:
    """v along the lid from the inner corner, u from the lid's edge to the tips."""
    rng = np.random.default_rng(7)
    picture = np.zeros((TEXTURE_HEIGHT, STRIP_WIDTH, 2))
    row, column = np.mgrid[:TEXTURE_HEIGHT, :STRIP_WIDTH] + 0.5
    for v0 in np.linspace(0.06, 0.94, 46) + rng.normal(0, 0.008, 46):
        length = rng.uniform(30, 56) * np.interp(v0, [0, 0.3, 0.8, 1], [0.55, 0.9, 1, 0.8])
        lean = (v0 - 0.35) * 0.9 + 0.12 * rng.normal()
        at = v0 * TEXTURE_HEIGHT + lean * column * column / 60
        share = column / length
        a = np.clip(2.6 * (1 - share) + 0.4 - np.abs(row - at), 0, 1) * (share < 1)
        picture[..., 1] += a * (1 - picture[..., 1])
    edge = np.clip((5 - column) / 2, 0, 1) * np.clip((0.5 - np.abs(row / TEXTURE_HEIGHT - 0.5)) / 0.06, 0, 1)
    picture[..., 1] = np.maximum(picture[..., 1], 0.9 * edge)
    return picture


@lru_cache(maxsize=16)
def ribbon_mesh(cards: int, rows: int) -> np.ndarray:
    """Triangles int32 [cards·(rows−1)·2,3] of `cards` ribbons of `rows` pairs of vertices, ribbon by ribbon."""
    start = (np.arange(cards)[:, None] * rows + np.arange(rows - 1)) * 2
    quads = start[..., None] + np.array([0, 1, 3, 0, 3, 2])
    return quads.reshape(-1, 3).astype(np.int32)


def strip_uv(strips: np.ndarray, rows: int, flip: np.ndarray | None = None) -> np.ndarray:
    """Texture coordinates [cards·rows·2,2] of ribbons that wear whole strips [cards]; flip [cards]: mirrored."""
    inset = 1.0 / STRIP_WIDTH
    sides = np.array([inset, 1 - inset])[None].repeat(len(strips), 0)
    if flip is not None:
        sides = np.where(flip[:, None], sides[:, ::-1], sides)
    u = (strips[:, None] + sides) / STRIPS
    v = np.linspace(0.004, 0.996, rows)
    uv = np.zeros((len(strips), rows, 2, 2), np.float32)
    uv[..., 0], uv[..., 1] = u[:, None], v[None, :, None]
    return uv.reshape(-1, 2)


def tangents(placed: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Placed vertices [cards·rows·2,3] of ribbons → unit tangents along the hairs and unit normals, float32 each."""
    edges = placed.reshape(-1, rows, 2, 3)
    middle = edges.mean(2)
    along = np.empty_like(middle)
    along[:, 1:-1] = middle[:, 2:] - middle[:, :-2]
    along[:, 0], along[:, -1] = middle[:, 1] - middle[:, 0], middle[:, -1] - middle[:, -2]
    normal = np.cross(edges[:, :, 1] - edges[:, :, 0], along)
    out = []
    for vectors in (along, normal):
        unit = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)
        out.append(np.repeat(unit, 2, 1).reshape(-1, 3).astype(np.float32))
    return out[0], out[1]


def joined(*parts: Guides) -> Guides:
    """Guides of the same number of rows, one after the other."""
    names = ("path", "width", "tone", "strip", "roll")
    return Guides(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors [...,3] of length 1."""
    size = np.sqrt(np.einsum("...i,...i->...", vectors, vectors))[..., None]  # quicker than np.linalg.norm
    return vectors / np.maximum(size, 1e-9)


def along(vectors: np.ndarray, way: np.ndarray) -> np.ndarray:
    """What of vectors is along a surface with the normals `way`, as unit vectors."""
    return unit(vectors - np.einsum("...i,...i->...", np.broadcast_to(vectors, way.shape), way)[..., None] * way)
