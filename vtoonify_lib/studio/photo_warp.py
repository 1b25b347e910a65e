"""Where each pixel of the cartoon comes from in the photograph: exact on the fitted head, smooth around it.

The renderer says where every visible point of the head in its new proportions was in the old ones. Hair, hat,
spectacles and backdrop have no mesh: there a screened Poisson equation carries the displacement on and lets it fade,
far into the hair, which belongs to the head, and soon in the backdrop.
"""
from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.sparse import coo_matrix, diags
from scipy.sparse.linalg import spsolve

from .filters import blur, mix
from .geometry import Scene
from .people import Person
from .render import Studio

CELL = 8            # px of the exact buffers in a cell of the grid on which the equation is solved
HIDDEN = 0.12       # decimetres: farther behind what the photograph shows, a point was hidden
REACH = {"hair": 6.0, "person": 1.2, "backdrop": 0.55}  # eye distances over which a displacement fades
CLOTH, EYES = 16, (4, 5)


@dataclass(frozen=True)
class Exact:
    """What the renderer knows of a scene, at the size of its studio: class uint8 [s,s], depth [s,s] (decimetres, inf
    on the backdrop), normals [s,s,3] towards the camera."""

    label: np.ndarray
    depth: np.ndarray
    normal: np.ndarray

    def share(self, classes: tuple[int, ...], size: int) -> np.ndarray:
        """Where the classes are, [size,size] in [0,1], with soft edges."""
        return cv2.resize(np.isin(self.label, classes).astype(np.float32), (size, size), interpolation=cv2.INTER_LINEAR)


def exact_of(studio: Studio, scene: Scene, who: Person) -> Exact:
    """Class, depth and normal of what each pixel of the studio's picture sees."""
    label, depth, nx, ny = np.moveaxis(studio.exact(scene, who), -1, 0)
    label = (label * 255).round().astype(np.uint8)
    normal = np.stack([nx, ny, np.sqrt(np.clip(1 - nx**2 - ny**2, 0, 1))], -1)
    return Exact(label, np.where(label > 0, depth, np.float32(np.inf)), normal)


def displacement(studio: Studio, cartoon: Scene, photo: Scene, who: Person, labels: np.ndarray, behind: np.ndarray,
                 masks: dict[str, np.ndarray], eye: float, size: int) -> np.ndarray:
    """Where each pixel of the cartoon is in the photograph, minus itself: float32 [size,size,2], x and y in pixels.

    labels  classes of the cartoon's scene; behind: depth of the photograph's, both at the studio's size
    masks: "person" and "hair" of the photograph, any size; eye: the distance
    of the eyes in canvas pixels of side `size`
    """
    side = studio.height
    move, depth = studio.flow(cartoon, photo, who)
    rows, columns = np.mgrid[:side, :side].astype(np.float32)
    front = cv2.remap(np.where(np.isfinite(behind), behind, 99).astype(np.float32), columns + move[..., 0],
                      rows + move[..., 1], cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=99)
    known = np.isfinite(depth) & (depth < front + HIDDEN) & (labels != CLOTH)
    known &= cv2.dilate(np.isin(labels, EYES).astype(np.uint8), np.ones((3, 3))) == 0  # lids and balls move as one
    there = cv2.remap(cv2.resize(masks["person"], (side, side), interpolation=cv2.INTER_AREA), columns + move[..., 0],
                      rows + move[..., 1], cv2.INTER_LINEAR)
    known &= there > 0.5  # the fitted skull may be larger than the photograph's
    known = cv2.erode(known.astype(np.uint8), np.ones((3, 3))) > 0
    smooth = _filled(move, known, masks, eye / size * side, side)
    inside = blur(cv2.erode(known.astype(np.float32), np.ones((7, 7))), 2.5)
    move = blur(mix(np.where(known[..., None], move, smooth), smooth, 1 - inside), 1.2)
    return cv2.resize(move, (size, size), interpolation=cv2.INTER_CUBIC) * (size / side)


def _filled(move: np.ndarray, known: np.ndarray, masks: dict[str, np.ndarray], eye: float, side: int) -> np.ndarray:
    """The displacement continued to where it is not known, by (−Δ + 1/reach²) u = 0."""
    n = side // CELL

    def coarse(x: np.ndarray) -> np.ndarray:
        return cv2.resize(x.astype(np.float32), (n, n), interpolation=cv2.INTER_AREA)

    weight = coarse(known)
    given = coarse(move * known[..., None]) / np.maximum(weight, 1e-3)[..., None]
    hair = cv2.dilate(coarse(masks["hair"]), np.ones((5, 5))) > 0.4
    reach = np.where(hair, REACH["hair"], np.where(coarse(masks["person"]) > 0.5, REACH["person"], REACH["backdrop"]))
    screen = (CELL / (reach * eye)) ** 2
    data = np.where(weight > 0.5, 30.0, 0.0)
    index = np.arange(n * n).reshape(n, n)
    pairs = np.concatenate([np.stack([index[:, :-1].ravel(), index[:, 1:].ravel()]),
                            np.stack([index[:-1].ravel(), index[1:].ravel()])], 1)
    near = coo_matrix((np.ones(pairs.shape[1]), pairs), shape=(n * n,) * 2)
    near = near + near.T
    system = diags(np.asarray(near.sum(1)).ravel()) - near + diags((screen + data).ravel())
    found = spsolve(system.tocsc(), (given * data[..., None]).reshape(-1, 2)).reshape(n, n, 2).astype(np.float32)
    return cv2.resize(found, (side, side), interpolation=cv2.INTER_CUBIC)


def fetch_at(x: np.ndarray, move: np.ndarray, how: int = cv2.INTER_LINEAR) -> np.ndarray:
    """x [S,S,…] of the photograph, read at each pixel of the cartoon's place."""
    rows, columns = np.mgrid[:move.shape[0], :move.shape[1]].astype(np.float32)
    return cv2.remap(x, columns + move[..., 0], rows + move[..., 1], how, borderMode=cv2.BORDER_REPLICATE)


def carried(points: np.ndarray, move: np.ndarray, rounds: int = 12) -> np.ndarray:
    """Points [n,2] of the photograph → where they are in the cartoon: the fixed point of p = q − move(p)."""
    points = np.asarray(points, np.float32)
    out = points.copy()
    for _ in range(rounds):
        at = cv2.remap(move, out[:, 0].reshape(-1, 1), out[:, 1].reshape(-1, 1), cv2.INTER_LINEAR,
                       borderMode=cv2.BORDER_REPLICATE)[:, 0]
        out = points - at
    return out
