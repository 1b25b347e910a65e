"""Hair by rule: a few numbers → ribbons of strands, grown on the scalp of the average head and bound to it.

A guide starts at a root and goes where it is combed: from the whorl outwards, away from a parting, back, or to a knot.
Weight draws it down, the head pushes it out, neighbours gather in locks, curls are helices about their guide. No
strand is in front of the eyes. Lengths are decimetres of the average head; +y up, +z out of the face, +x the
subject's left. What is gathered in buns, tails and braids is in `tied_hair`.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import strands
from .filters import smoothstep
from .kit import Mesh, Prop
from .scalp import CROWN, Scalp, above_hairline, behind_ears, off_ears, off_face, over_ears
from .strands import DOWN, Guides, HairStyle, along, unit
from .tied_hair import tied_guides

STEPS = 10            # of a long guide as it grows, 5 of a short one; then it is resampled to the rows of its ribbon
CUT = 8.15            # height from which the length of long hair is measured
EYES = 0.50, 7.12, 7.38  # half width, and heights, of the window before the eyes, where no strand is
STUBBLE = 0.04        # decimetres below which there are no ribbons, only the painted scalp


@dataclass(frozen=True)
class Hair:
    """Grown hair: ribbons along guides of `rows` points, two vertices a point.

    prop  carries the points [m]; side [m,3]: from them to the second vertex of each
    rest, out, tone  of the vertices [2m]: where they rest, which way is out of the hair, how light they are
    """

    prop: Prop
    rows: int
    side: np.ndarray
    rest: np.ndarray
    out: np.ndarray
    tone: np.ndarray

    def place(self, vertices: np.ndarray) -> np.ndarray:
        """Points [m,3] on the vertices of a person in the pose of rest."""
        return self.prop.place(vertices)

    def ribbons(self, points: np.ndarray, turn: np.ndarray) -> np.ndarray:
        """Placed and posed points [m,3] → vertices [2m,3]; turn [3,3]: how the head is turned."""
        side = self.side @ turn.T
        return np.stack([points - side, points + side], 1).reshape(-1, 3)


def size(style: HairStyle) -> tuple[int, int]:
    """How many ribbons and rows a style has: short hair has many short ones, curls need many rows."""
    if style.curl > 0.55 and style.length > 0.15:
        return 330, 12
    if style.length < 0.45:
        return 760, 4
    if style.length < 0.95 and style.curl < 0.3:
        return 330, 7
    return (220, 10) if style.curl < 0.2 else (250, 14)


def grow(style: HairStyle, scalp: Scalp) -> Hair | None:
    """The ribbons of a style; None when it is shaved."""
    if style.length < STUBBLE and not style.tied:
        return None
    return _ribbons(tied_guides(style, scalp) if style.tied else _loose(style, scalp), scalp)


# -- on the head ----------------------------------------------------------------------------------------------------
def _loose(style: HairStyle, scalp: Scalp) -> Guides:
    cards, rows = size(style)
    grows = above_hairline(scalp.roots[0], style.receding) > 0.01
    if style.length < 1.0:
        grows &= off_ears(scalp.roots[0]) > 0.10
    root, out = (values[grows][:cards] for values in scalp.roots)
    if style.fringe > 0.02:  # a fringe is dense
        front = _front(scalp.roots[0]) & grows
        root, out = (np.concatenate([a, values[front][-cards // 5:]]) for a, values in zip((root, out), scalp.roots,
                                                                                          strict=True))
    rng = np.random.default_rng(style.seed)
    n = len(root)
    layer = rng.random(n)
    inside = above_hairline(root, style.receding)
    fringed = (style.fringe > 0.02) & _front(root)
    length, end = _lengths(style, root, inside, fringed, rng)
    path = _path(style, scalp, root, out, length, layer, inside, fringed, rng)
    path = _resampled(path, end, rows)
    path = _curled(style, scalp, *_locks(style, path, root, rng), rng)
    seen = ~_before_eyes(path) & ~_astray(style, scalp, path)
    if _tucked(style):
        seen &= ~over_ears(0.5 * (path[:, :-1] + path[:, 1:])).any(1)
    path, layer, n = path[seen], layer[seen], seen.sum()
    t = np.linspace(0, 1, rows)
    reach = np.linalg.norm(np.diff(path, axis=1), axis=-1).sum(1)
    full = np.interp(style.length, [0.1, 0.4, 0.8, 1.1], [0.027, 0.043, 0.058, 0.088])
    full = full * (1 - 0.4 * smoothstep(style.curl, 0.1, 0.6))
    width = full * rng.uniform(0.7, 1.3, (n, 1)) * (0.75 + 0.5 * np.sin(np.pi * np.minimum(t, 0.6) / 1.2))
    width = width * (1 - 0.45 * t**3)
    deep = smoothstep(style.length, 0.2, 0.8)
    tone = (1 - 0.38 * (0.3 + 0.7 * deep) * (1 - layer[:, None]))
    tone = tone * (1 - 0.4 * deep * (1 - smoothstep(t * reach[:, None], 0.0, 0.25)))
    tone = tone * (1 + 0.05 * rng.normal(size=(n, 1)))
    return Guides(path, width, tone, rng.choice(strands.HAIR, n), rng.normal(0, 0.30, n))


def _front(root: np.ndarray) -> np.ndarray:
    """Which roots [n,3] a fringe has."""
    return (root[:, 2] > 0.92) & (np.abs(root[:, 0]) < 0.48)


def _lengths(style: HairStyle, root: np.ndarray, inside: np.ndarray, fringed: np.ndarray,
             rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Length along each guide [n], and the height at which it is cut [n]."""
    hanging = smoothstep(style.length, 0.7, 1.3) * (1 - smoothstep(style.curl, 0.65, 0.9))
    upper = smoothstep(root[:, 1] - 0.25 * np.clip(root[:, 2] - 0.5, 0, 1), 7.55, 7.95)
    share = style.sides + (1 - style.sides) * upper
    length = style.length * share * rng.uniform(0.82, 1.12, len(root)) * (1 + 0.9 * hanging)
    if style.length < 0.9:  # thin out towards the hairline
        length = length * (0.5 + 0.5 * smoothstep(inside, 0.0, 0.22)) * (0.3 + 0.7 * smoothstep(off_ears(root), 0, 0.2))
    tight = smoothstep(style.curl, 0.6, 0.9)  # coils take half of the length, and stand off as far as they can
    length = length + tight * (0.8 * (1 - np.exp(-0.6 * length)) - length)
    end = np.where(share > 0.7, CUT - style.length + rng.normal(0, 0.03 + 0.06 * style.curl, len(root)), 0.0)
    end = np.where(hanging > 0.5, end, 0.0)
    above_ears = (style.length < 0.9) & (root[:, 1] > 7.36)
    above_ears &= (np.abs(root[:, 2] - 0.45) < 0.35) & (np.abs(root[:, 0]) > 0.4)
    end = np.where(above_ears, 7.36 - 0.05 * rng.random(len(root)), end)
    brows = 7.86 - 0.40 * style.fringe + 0.03 * rng.normal(size=len(root)) + 0.10 * np.abs(root[:, 0]) ** 2
    return np.where(fringed, np.maximum(length, 1.1), length), np.where(fringed, np.maximum(end, brows), end)


def _tucked(style: HairStyle) -> bool:
    """Whether hair lies behind the ears."""
    return style.length > 0.9 and style.curl < 0.5


def _comb(style: HairStyle, root: np.ndarray, fringed: np.ndarray) -> np.ndarray:
    """Where each guide is combed at its root [n,3]; not yet along the skin."""
    whorl = root - CROWN
    whorl = whorl / np.linalg.norm(whorl, axis=1, keepdims=True)
    way = whorl * [1, 1, 1 - 0.6 * abs(style.back)] + [0, 0, -1.5 * style.back]
    if style.parting is not None or style.length > 0.9:  # long hair parts somewhere
        side = np.where(root[:, 0] > (style.parting or 0.0), 1.0, -1.0)
        front = smoothstep(root[:, 2], -0.1, 0.6)
        parted = np.stack([side, -0.1 + 0 * side, -0.45 - 0.5 * style.back + 0 * side], 1)
        way = way + front[:, None] * (parted - way)
    sweep = 0.0 if style.parting is None else -0.9 * np.sign(style.parting)
    bangs = np.stack([0.5 * root[:, 0] + sweep, 0 * root[:, 0] - 0.3, 0 * root[:, 0] + 1.0], 1)
    return np.where(fringed[:, None], bangs, way)


def _path(style: HairStyle, scalp: Scalp, root: np.ndarray, out: np.ndarray, length: np.ndarray, layer: np.ndarray,
          inside: np.ndarray, fringed: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Guides [n,steps+1,3]; steps are short on the head and long where hair hangs."""
    n, steps = len(root), STEPS if style.length > 0.6 else 5
    part = 0.5 + np.arange(steps) / steps
    step = length[:, None] * part / part.sum()
    coil = smoothstep(style.curl, 0.6, 0.9)
    comb = _comb(style, root, fringed)
    comb = comb + (0.12 + 0.9 * coil) * rng.normal(size=(n, 3))
    high = 0.02 + layer * (0.03 + 0.09 * style.volume * min(1.0, style.length / 0.5) * (1 + style.curl))
    high = np.where(fringed, np.minimum(high, 0.10), high)
    lift = (0.04 + 0.25 * style.volume) * (1 - 0.8 * smoothstep(style.length, 0.5, 1.2)) + 2.0 * coil
    ahead = unit(along(comb, out) + (lift * smoothstep(inside, -0.05, 0.30))[:, None] * out)
    weight = (0.25 + 1.2 * smoothstep(style.length, 0.3, 1.2)) * (1 - 0.85 * coil)
    side = np.where(root[:, 0] > (style.parting or 0.0) + 0.02 * rng.normal(size=n), 1.0, -1.0)
    aside = 1.5 * unit(np.stack([side, 0 * side + 0.05, 0 * side - 0.5], 1))
    at, path, tucked = root + 0.004 * out, [root], _tucked(style)
    away, way, lying = np.zeros(n), out, 0.4 * (1 - coil) * smoothstep(style.length, 0.3, 0.8)
    for i in range(steps):
        near = np.exp(-np.maximum(away, 0) / 0.25)[:, None]
        pull = along(comb, way) * near * (1 - 0.8 * coil) + weight * (along(DOWN, way) * near + DOWN * (1 - near))
        pull = pull + coil * out
        before = smoothstep(-off_face(at)[0], -1.35, -1.08) * ~fringed[:, None] * (1 - coil)
        pull = pull + before * (aside - pull)
        ahead = unit(ahead + pull * min(1.0, 0.35 + 5 * i / steps))
        following = at + ahead * step[:, i, None]
        following = np.where(fringed[:, None], following, off_face(following)[1])
        if tucked:
            following = behind_ears(following)
        away, way = scalp.field(following)
        rise = high * min(1.0, (i + 1) * 3 / steps + 0.15)
        hold = lying * smoothstep(following[:, 1], 6.6, 7.0) * (away < 0.6)
        move = np.maximum(rise - away, 0) - hold * np.maximum(away - 1.2 * rise, 0)
        following = following + way * move[:, None]
        ahead, at = unit(following - at), following
        path.append(at)
    return np.stack(path, 1)


def _resampled(path: np.ndarray, end: np.ndarray, rows: int) -> np.ndarray:
    """Paths [n,m,3] cut at the height end [n] where they first reach it, with `rows` points, closer at the root."""
    n, m, _ = path.shape
    below = path[..., 1] < end[:, None]
    first = np.where(below.any(1), below.argmax(1), m - 1)
    above, low = path[np.arange(n), np.maximum(first - 1, 0), 1], path[np.arange(n), first, 1]
    share = np.clip((above - end) / np.maximum(above - low, 1e-6), 0, 1)
    last = np.where(below.any(1), np.maximum(first - 1 + share, 0.5), m - 1)
    at = last[:, None] * np.linspace(0, 1, rows) ** 1.15
    i = np.minimum(at.astype(int), m - 2)
    f = (at - i)[..., None]
    index = np.arange(n)[:, None]
    return path[index, i] * (1 - f) + path[index, i + 1] * f


def _before_eyes(path: np.ndarray) -> np.ndarray:
    """Which of the guides [n,rows,3] come before the eyes."""
    x, y, z = np.moveaxis(path, -1, 0)
    return ((np.abs(x) < EYES[0]) & (y > EYES[1]) & (y < EYES[2]) & (z > 1.0)).any(1)


def _astray(style: HairStyle, scalp: Scalp, path: np.ndarray) -> np.ndarray:
    """Which of the guides [n,rows,3] stand off the head where hair should lie on it."""
    away = scalp.field(path)[0]
    return ((away > 0.16 + 0.15 * style.volume + style.curl**2) & (path[..., 1] > 7.0)).any(1)


def _locks(style: HairStyle, path: np.ndarray, root: np.ndarray,
           rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draws guides together towards their tips; also the lock [n] to which each belongs."""
    if style.length < 0.45:
        return path, np.arange(len(root))
    count = max(len(root) // 5, 1)
    away = ((root[:, None] - root[None, :count]) ** 2).sum(-1)
    away += ((path[:, None, -1] - path[None, :count, -1]) ** 2).sum(-1) * 2
    lock = away.argmin(1)
    amount = min(1.0, 1.2 * style.length) * (0.45 + 0.6 * min(style.curl, 0.6)) * rng.uniform(0.3, 1.2, len(root))
    t = np.linspace(0, 1, path.shape[1]) ** (1.4 - min(style.curl, 0.6))
    path = path + (np.minimum(amount, 0.95)[:, None] * t)[..., None] * (path[lock] - path)
    for _ in range(2):  # what was pushed and drawn has corners
        path[:, 1:-1] = 0.5 * path[:, 1:-1] + 0.25 * (path[:, :-2] + path[:, 2:])
    return path, lock


def _curled(style: HairStyle, scalp: Scalp, path: np.ndarray, lock: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Winds guides into helices, those of a lock together, and takes them out of the head again."""
    c, (n, rows, _) = style.curl, path.shape
    if c < 0.02:
        return _off_head(scalp, path)
    ahead = unit(np.gradient(path, axis=1))
    across = unit(np.cross(ahead, scalp.field(path)[1]) + 1e-6)
    up = np.cross(across, ahead)
    steps = np.linalg.norm(np.diff(path, axis=1), axis=-1)
    reach = np.concatenate([np.zeros((n, 1)), steps.cumsum(1)], 1)
    wave = np.interp(c, [0, 0.3, 0.7, 1], [1.6, 0.85, 0.40, 0.20]) * rng.uniform(0.8, 1.25, n)[lock, None]
    wave = np.maximum(wave, 4.5 * reach[:, -1:] / rows)  # more than four rows a turn, or turns become corners
    radius = np.interp(c, [0, 0.1, 0.3, 0.7, 1], [0.004, 0.02, 0.06, 0.095, 0.06])
    radius = radius * rng.uniform(0.6, 1.3, n)[lock, None]
    radius = np.minimum(radius, 0.25 * wave) * smoothstep(reach, 0.0, 0.35 - 0.25 * c)
    turn = 2 * np.pi * reach / wave + 6.28 * rng.random(n)[lock, None] + rng.normal(0, 0.25 + 0.5 * c, (n, 1))
    flat = 0.45 + 0.55 * smoothstep(c, 0.3, 0.6)  # waves lie on the head, curls stand off
    curled = path + radius[..., None] * (np.cos(turn)[..., None] * across + flat * np.sin(turn)[..., None] * up)
    return _off_head(scalp, curled)


def _off_head(scalp: Scalp, path: np.ndarray) -> np.ndarray:
    away, way = scalp.field(path)
    return path + way * np.maximum(0.012 - away, 0)[..., None] * (np.arange(path.shape[1]) > 0)[:, None]


# -- ribbons --------------------------------------------------------------------------------------------------------
def _ribbons(guides: Guides, scalp: Scalp) -> Hair:
    off = scalp.field(guides.path[:, guides.path.shape[1] // 2])[0]  # outermost first: what they hide is not drawn
    guides = guides.taken(np.argsort(-off - 0.25 * guides.path[..., 2].mean(1)))
    path, (n, rows, _) = guides.path, guides.path.shape
    ahead = unit(np.gradient(path, axis=1))
    core = path - np.stack([0 * path[..., 0], np.clip(path[..., 1], 5.0, 7.7), 0.45 + 0 * path[..., 0]], -1)
    way = unit(scalp.field(path)[1] + 0.5 * unit(core))
    across = unit(np.cross(ahead, way) + 1e-6)
    up = np.cross(across, ahead)
    roll = guides.roll[:, None, None]
    side = (guides.width[..., None] * (np.cos(roll) * across + np.sin(roll) * up)).reshape(-1, 3)
    points = path.reshape(-1, 3)
    bind, weight = scalp.bind(points)
    offset = points - (scalp.rest[bind] * weight[..., None]).sum(1)
    uv = strands.strip_uv(guides.strip, rows, np.arange(n) % 2 == 1)
    prop = Prop(Mesh(uv, strands.ribbon_mesh(n, rows)), bind, weight, offset, *scalp.scale)
    rest = np.stack([points - side, points + side], 1).reshape(-1, 3)
    return Hair(prop, rows, side, rest.astype(np.float32), np.repeat(way, 2, 1).reshape(-1, 3),
                np.repeat(guides.tone.reshape(-1), 2).astype(np.float32))
