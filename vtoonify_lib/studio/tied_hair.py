"""Hair that is gathered: drawn over the head to a knot, and what hangs from it or is wound about it."""
from __future__ import annotations

import numpy as np

from . import strands
from .filters import smoothstep
from .scalp import Scalp, above_hairline
from .strands import DOWN, Guides, HairStyle, joined, unit

CENTER = np.array([0.0, 7.62, 0.45])   # of the head, about which hair is drawn back
LOW_KNOT, TOP_KNOT = np.array([0.0, 7.05, -0.40]), np.array([0.0, 8.42, 0.10])
BRAID_KNOT = np.array([0.60, 6.88, 0.16])   # behind the left ear
ROWS, ON_HEAD = 13, 220
TAIL_STEPS = 24


def tied_guides(style: HairStyle, scalp: Scalp) -> Guides:
    """Guides from all roots to the knot, and those of the bun, tail or braids."""
    rng = np.random.default_rng(style.seed)
    if style.tied == "braids":
        knots = BRAID_KNOT * np.array([[1, 1, 1], [-1, 1, 1]])
        tails = [_braid(style, scalp, knot, rng) for knot in knots]
    else:
        knots = _on_head(scalp, LOW_KNOT + style.knot * (TOP_KNOT - LOW_KNOT))[None]
        tails = [(_bun if style.tied == "bun" else _tail)(style, scalp, knots[0], rng)]
    guides = joined(_drawn_back(style, scalp, knots, rng), *tails)
    before_face = (guides.path[..., 2] > 0.9) & (guides.path[..., 1] < 7.8) & (np.abs(guides.path[..., 0]) < 0.62)
    return guides.taken(~before_face.any(1))


def _on_head(scalp: Scalp, point: np.ndarray) -> np.ndarray:
    way = unit(point - CENTER)
    reach = np.linspace(0.3, 1.4, 60)
    away, _ = scalp.field(CENTER + reach[:, None] * way)
    return CENTER + (reach[np.argmax(away > 0.02)] + 0.04) * way


def _drawn_back(style: HairStyle, scalp: Scalp, knots: np.ndarray, rng: np.random.Generator) -> Guides:
    """Over the head on great circles, each a little off the skin."""
    before_ears = (scalp.roots[0][:, 1] < 7.42) & (scalp.roots[0][:, 2] > 0.2)
    keep = (above_hairline(scalp.roots[0], style.receding) > 0.01) & ~before_ears
    root = scalp.roots[0][keep][:ON_HEAD]
    n = len(root)
    part = (style.parting or 0.0) if len(knots) > 1 else 0.0
    which = (root[:, 0] < part).astype(int) if len(knots) > 1 else np.zeros(n, int)
    knot = knots[which] + rng.normal(0, 0.03, (n, 3))
    a, b = root - CENTER, knot - CENTER
    t = np.linspace(0, 1, ROWS)[None, :, None]
    angle = np.arccos(np.clip((unit(a) * unit(b)).sum(1), -1, 0.9999))[:, None, None]
    way = (np.sin((1 - t) * angle) * unit(a)[:, None] + np.sin(t * angle) * unit(b)[:, None]) / np.sin(angle)
    size = (1 - t) * np.linalg.norm(a, axis=1)[:, None, None] + t * np.linalg.norm(b, axis=1)[:, None, None]
    layer = rng.random(n)
    high = 0.012 + layer[:, None] * (0.02 + 0.09 * style.volume * np.sin(np.pi * np.linspace(0, 1, ROWS) ** 0.7))
    path = CENTER + way * size
    wave = 0.012 + 0.05 * min(style.curl, 0.7)
    path[:, 1:-1] += wave * np.sin(2 * np.pi * (t * 5 + rng.random((n, 1, 1))))[:, 1:-1] * rng.normal(size=(n, 1, 3))
    for _ in range(2):
        away, out = scalp.field(path)
        move = np.where(np.arange(ROWS) > 0, high - away, 0.0)
        path = path + out * np.clip(move, -0.06, 0.5)[..., None]
    width = 0.085 * rng.uniform(0.7, 1.3, (n, 1)) * (1 - 0.5 * np.linspace(0, 1, ROWS) ** 2)
    tone = (0.7 + 0.3 * layer[:, None]) * (0.72 + 0.28 * smoothstep(np.linspace(0, 1, ROWS), 0.0, 0.15))
    return Guides(path, width, tone * (1 + 0.10 * rng.normal(size=(n, 1))), rng.choice(strands.HAIR, n),
                  rng.normal(0, 0.25, n))


def _tail(style: HairStyle, scalp: Scalp, knot: np.ndarray, rng: np.random.Generator) -> Guides:
    """Hair that springs from the knot and hangs."""
    n, reach = 60, max(style.length, 0.8) * rng.uniform(0.75, 1.1, (60, 1))
    out = unit(knot - CENTER)
    spread = rng.normal(size=(n, 3))
    at = knot + 0.05 * spread * [1, 1, 0.6]
    ahead = unit(out + 0.22 * spread * (0.4 + style.volume) + [0, 0.2, -0.5])
    off = 0.05 + 0.16 * rng.random(n)
    path = [at]
    for i in range(ROWS - 1):
        pull = DOWN * (1 - 0.6 * smoothstep(style.curl, 0.5, 0.9))
        ahead = unit(0.70 * ahead + 0.42 * pull * min(1.0, 0.3 + i / 6))
        at = at + ahead * reach / (ROWS - 1)
        away, way = scalp.field(at)
        at = at + way * np.maximum(off - away, 0)[:, None]
        path.append(at)
    path = np.stack(path, 1)
    t = np.linspace(0, 1, ROWS)
    turn = 2 * np.pi * (t * min(reach.mean() / np.interp(style.curl, [0, 0.3, 1], [2, 0.8, 0.3]), ROWS / 4)
                        + rng.normal(0, 0.15, (n, 1)) + rng.random((n, 1)) * style.curl)
    radius = np.interp(style.curl, [0, 0.3, 1], [0.0, 0.06, 0.10]) * smoothstep(t, 0, 0.3)
    path = path + radius[None, :, None] * np.stack([np.cos(turn), 0.3 * np.sin(turn), np.sin(turn)], -1)
    width = 0.085 * rng.uniform(0.7, 1.3, (n, 1)) * (0.55 + 0.45 * smoothstep(t, 0, 0.2)) * (1 - 0.5 * t**3)
    tone = rng.uniform(0.62, 1.05, (n, 1)) * (0.7 + 0.3 * smoothstep(t, 0, 0.2))
    return Guides(path, width, tone, rng.choice(strands.HAIR, n), rng.normal(0, 0.8, n))


def _bun(style: HairStyle, scalp: Scalp, knot: np.ndarray, rng: np.random.Generator) -> Guides:
    """Strands wound about a ball on the knot."""
    n, out = 60, unit(knot - CENTER)
    ball = 0.24 + 0.12 * style.volume
    center = knot + out * 0.65 * ball
    side = unit(np.cross(out, [1.0, 0.2, 0.1]))
    other = np.cross(out, side)
    axis = unit(out + 0.55 * rng.normal(size=(n, 3)))
    a = unit(np.cross(axis, side + 0.3 * other))
    b = np.cross(axis, a)
    turn = rng.uniform(0, 6.28, (n, 1)) + np.linspace(0, rng.uniform(2.2, 3.6), ROWS)
    tilt = rng.normal(0, 0.5, (n, 1, 1))
    way = unit(np.cos(turn)[..., None] * a[:, None] + np.sin(turn)[..., None] * b[:, None] + tilt * axis[:, None])
    layer = rng.random((n, 1, 1))
    way = way * [1.12, 0.92, 1.0]
    path = center + ball * (0.88 + 0.14 * layer + 0.02 * rng.normal(size=(n, 1, 1))) * way
    t = np.linspace(0, 1, ROWS)
    width = 0.085 * rng.uniform(0.7, 1.3, (n, 1)) * (0.6 + 0.4 * np.sin(np.pi * t))
    tone = (0.55 + 0.5 * layer[..., 0]) * np.ones_like(t)
    return Guides(path, width, tone, rng.choice(strands.HAIR, n), rng.normal(0, 0.3, n))


def _braid(style: HairStyle, scalp: Scalp, knot: np.ndarray, rng: np.random.Generator) -> Guides:
    """Three strands over and under each other, from behind an ear forward over the shoulder."""
    side, reach = np.sign(knot[0]), max(style.length, 1.2)
    m = 60
    line, at, ahead = [], knot.copy(), unit(np.array([0.35 * side, -0.9, 0.25]))
    for i in range(m):
        line.append(at)
        ahead = unit(0.85 * ahead + 0.15 * unit(np.array([0.05 * side, -1.0, 0.45 if i < m // 2 else 0.1])))
        at = at + ahead * reach / m
        away, way = scalp.field(at)
        at = at + way * max(0.16 - float(away), 0.0)
    line = np.stack(line)
    ahead = unit(np.gradient(line, axis=0))
    across = unit(np.cross(ahead, [0.25 * side, 0, 1.0]))
    up = np.cross(across, ahead)
    s, crossings = np.linspace(0, 1, m), reach / 0.42
    slim = (0.10 + 0.05 * style.volume) * (1 - 0.35 * s) * smoothstep(s, -0.08, 0.08)
    paths = []
    pieces = max(2, int(np.ceil(crossings * 8 / ROWS)))
    for strand in range(3):
        turn = 2 * np.pi * (crossings * s + strand / 3)
        middle = line + (slim * np.sin(turn))[:, None] * across + (0.45 * slim * np.sin(2 * turn))[:, None] * up
        for _ in range(3):
            shift = 0.34 * slim[:, None] * rng.normal(size=(1, 1)) * across + 0.22 * slim[:, None] * rng.normal() * up
            whole = middle + shift
            for piece in range(pieces):
                a, b = piece / pieces * (m - 1), (piece + 1) / pieces * (m - 1)
                places = np.linspace(max(a - 1.5, 0), min(b + 1.5, m - 1), ROWS)
                paths.append(np.stack([np.interp(places, np.arange(m), whole[:, k]) for k in range(3)], 1))
    path = np.stack(paths)
    n, t = len(path), np.linspace(0, 1, ROWS)
    width = 0.075 * np.ones((n, ROWS))
    depth = ((path - line[np.abs(path[:, :, None, 1] - line[None, None, :, 1]).argmin(2)]) * up[m // 2]).sum(-1)
    tone = np.clip(0.8 + 2.2 * depth, 0.45, 1.1) * (1 + 0.08 * rng.normal(size=(n, 1))) * np.ones_like(t)
    return Guides(path, width, tone, rng.choice(strands.HAIR[:2], n), rng.normal(0, 0.25, n))
