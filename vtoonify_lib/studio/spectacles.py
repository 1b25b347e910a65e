"""Spectacle frames as swept tubes, fitted to the eyes of one face."""
import numpy as np


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


def tubes(glasses: dict, flesh: np.ndarray, eyes: dict[str, np.ndarray], regions) -> tuple[np.ndarray, np.ndarray]:
    """glasses {round, thick}, flesh [6357,3] → vertices and triangles of the frame."""
    boxes = {s: (flesh[np.unique(t)].min(0), flesh[np.unique(t)].max(0)) for s, t in eyes.items()}
    middle = {s: (low + high) / 2 for s, (low, high) in boxes.items()}
    half = abs(middle["l"][0] - middle["r"][0]) / 2
    bridge_z = flesh[regions.landmarks[27]][2]
    front = max(bridge_z + 0.03, max(high[2] for _, high in boxes.values()) + 0.10)
    power = 2.0 + 2.5 * (1 - glasses["round"])
    t = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    unit = np.stack([np.sign(np.cos(t)) * np.abs(np.cos(t)) ** (2 / power), np.sign(np.sin(t)) * np.abs(np.sin(t)) ** (2 / power)], 1)
    width, height = 0.74 * half, (0.52 + 0.16 * glasses["round"]) * half
    pieces = []
    for s, sign in (("l", 1), ("r", -1)):
        c = np.array([middle[s][0] + sign * 0.05 * half, middle[s][1] - 0.05, front])
        ring = np.c_[c[0] + width * unit[:, 0], c[1] + height * unit[:, 1], c[2] - 0.16 * ((unit[:, 0] * sign > 0) * unit[:, 0] ** 2)]
        pieces.append(_tube(ring, glasses["thick"], True))
        ear = flesh[regions.ear_roots[s]]
        start = np.array([c[0] + sign * width, c[1] + 0.3 * height, front - 0.16])
        mid = np.array([ear[0] + sign * 0.02, start[1], (start[2] + ear[2]) / 2])
        pieces.append(_tube(np.stack([start, (start + mid) / 2 + [sign * 0.04, 0, 0], mid, [ear[0] + sign * 0.02, ear[1], ear[2]]]), glasses["thick"] * 0.8, False))
    y = middle["l"][1] + 0.10 * half
    gap = half - width + 0.05 * half
    bridge = np.stack([[x, y + 0.05 * np.cos(x / gap * 1.57), front + 0.03 * np.cos(x / gap * 1.57)] for x in np.linspace(-gap, gap, 7)])
    pieces.append(_tube(bridge, glasses["thick"], False))
    offset, points, triangles = 0, [], []
    for p, q in pieces:
        points.append(p)
        triangles.append(q + offset)
        offset += len(p)
    return np.concatenate(points), np.concatenate(triangles).astype(np.int32)
