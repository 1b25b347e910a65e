"""Spectacle frames as swept tubes, fitted to the eyes of one face."""
from __future__ import annotations

import numpy as np

from .regions import Regions


def _tube(path: np.ndarray, radius: float, closed: bool, sides: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Sweep a circle along path [n,3] → points [n·sides,3], triangles."""
    n = len(path)
    ahead = (np.roll(path, -1, 0) - np.roll(path, 1, 0)) if closed else np.gradient(path, axis=0)
    ahead = ahead / np.linalg.norm(ahead, axis=1, keepdims=True)
    a = np.cross(ahead, [0.13, 0.21, 0.97])
    a /= np.linalg.norm(a, axis=1, keepdims=True)
    b = np.cross(ahead, a)
    t = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    points = path[:, None] + radius * (np.cos(t)[None, :, None] * a[:, None] + np.sin(t)[None, :, None] * b[:, None])
    i, j = np.meshgrid(np.arange(n if closed else n - 1), np.arange(sides), indexing="ij")
    i2, j2 = (i + 1) % n, (j + 1) % sides
    q = np.stack([i * sides + j, i2 * sides + j, i2 * sides + j2, i * sides + j2], -1).reshape(-1, 4)
    return points.reshape(-1, 3), np.concatenate([q[:, [0, 1, 2]], q[:, [0, 2, 3]]])


def tubes(glasses: dict, flesh: np.ndarray, eyes: dict[str, np.ndarray],
          regions: Regions) -> tuple[np.ndarray, np.ndarray]:
    """Two rims, a bridge and two temples in front of the eyes → vertices [n,3], triangles [t,3].

    glasses  round: 0 = rectangular … 1 = round; thick: radius of the tubes
    flesh    [6357,3] vertices; eyes: triangles of the "l" and "r" eyeball in them
    """
    boxes = {s: (flesh[np.unique(t)].min(0), flesh[np.unique(t)].max(0)) for s, t in eyes.items()}
    middle = {s: (low + high) / 2 for s, (low, high) in boxes.items()}
    half = abs(middle["l"][0] - middle["r"][0]) / 2
    bridge_z = flesh[regions.landmarks[27]][2]
    front = max(bridge_z + 0.03, max(high[2] for _, high in boxes.values()) + 0.10)
    width, height = 0.74 * half, (0.52 + 0.16 * glasses["round"]) * half
    thick, pieces = glasses["thick"], []
    unit = _superellipse(2.0 + 2.5 * (1 - glasses["round"]))
    for s, sign in (("l", 1), ("r", -1)):
        c = np.array([middle[s][0] + sign * 0.05 * half, middle[s][1] - 0.05, front])
        bent = c[2] - 0.16 * ((unit[:, 0] * sign > 0) * unit[:, 0] ** 2)
        rim = np.c_[c[0] + width * unit[:, 0], c[1] + height * unit[:, 1], bent]
        pieces.append(_tube(rim, thick, True))
        ear = flesh[regions.ear_roots[s]]
        start = np.array([c[0] + sign * width, c[1] + 0.3 * height, front - 0.16])
        mid = np.array([ear[0] + sign * 0.02, start[1], (start[2] + ear[2]) / 2])
        temple = [start, (start + mid) / 2 + [sign * 0.04, 0, 0], mid, [ear[0] + sign * 0.02, ear[1], ear[2]]]
        pieces.append(_tube(np.stack(temple), thick * 0.8, False))
    pieces.append(_tube(_bridge(half - width + 0.05 * half, middle["l"][1] + 0.10 * half, front), thick, False))
    starts = np.cumsum([0, *(len(points) for points, _ in pieces)])
    triangles = [t + start for (_, t), start in zip(pieces, starts, strict=False)]
    return np.concatenate([points for points, _ in pieces]), np.concatenate(triangles).astype(np.int32)


def _superellipse(power: float) -> np.ndarray:
    """[32,2] on |x|^power + |y|^power = 1: 2 is a circle, larger powers near a square."""
    t = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    return np.stack([np.sign(f(t)) * np.abs(f(t)) ** (2 / power) for f in (np.cos, np.sin)], 1)


def _bridge(gap: float, y: float, z: float) -> np.ndarray:
    """[7,3] from −gap to gap, arched up and forwards."""
    arch = [np.cos(x / gap * 1.57) for x in np.linspace(-gap, gap, 7)]
    return np.stack([[x, y + 0.05 * a, z + 0.03 * a] for x, a in zip(np.linspace(-gap, gap, 7), arch, strict=True)])
