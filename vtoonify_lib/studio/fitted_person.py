"""A photograph in its canvas, and the person that was fitted to it. How, is in `fitting`."""
from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from ..faces.crop import MOUTH_CORNERS, eye_centres
from .geometry import widen
from .people import Person

MARGIN = 1.5
"""Side of the canvas over that of the FFHQ square: hair, hat and neck are in it, as in the crop a network sees."""


@dataclass(frozen=True)
class FittedPerson:
    """A photograph in a square canvas around a face, and the studio's person in it.

    person     no hair, no spectacles: those are the photograph's own
    camera     [4,4] of the canvas
    photo      float32 [S,S,3] in [0,1]
    covered    float32 [S,S]: 1 where the photograph has pixels, 0 beyond its edges, where its rim goes on
    landmarks  [68,2] found, x and y in canvas pixels, (0, 0) the middle of the first one; irises [2,2] likewise, the
               subject's right eye first, or None
    enlarged   canvas pixels per pixel of the photograph
    residual   mean distance of found and fitted landmarks, in eye distances
    refusals   why this photograph should not teach; empty when it may
    """

    person: Person
    camera: np.ndarray
    photo: np.ndarray
    covered: np.ndarray
    landmarks: np.ndarray
    irises: np.ndarray | None
    enlarged: float
    residual: float
    refusals: tuple[str, ...]

    @property
    def size(self) -> int:
        """Side of the canvas in pixels."""
        return self.photo.shape[0]

    @property
    def eye(self) -> float:
        """Distance of the eye centres in canvas pixels, the unit of everything that is drawn."""
        right, left = eye_centres(self.landmarks)
        return float(np.hypot(*(left - right)))


def canvas(photo: np.ndarray, landmarks: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The square around a face, upright as the photograph is.

    photo uint8 [H,W,3], landmarks [68,2] → uint8 [size,size,3], covered float32 [size,size], the map [2,3] from
    photograph to canvas pixels.
    """
    right, left = eye_centres(landmarks)
    eyes, mouth = (right + left) / 2, np.asarray(landmarks, float)[list(MOUTH_CORNERS)].mean(0)
    side = MARGIN * max(np.linalg.norm(left - right) * 4, np.linalg.norm(mouth - eyes) * 3.6)
    middle, k = eyes + 0.02 * (mouth - eyes), size / side
    move = np.array([[k, 0, (size - 1) / 2 - k * middle[0]], [0, k, (size - 1) / 2 - k * middle[1]]])
    source, there = photo, move.copy()
    if k < 0.5:  # warping does not average: shrink first
        source = cv2.resize(photo, None, fx=2 * k, fy=2 * k, interpolation=cv2.INTER_AREA)
        there[:, :2] /= 2 * k
        there[:, 2] += 0.25 - 0.5 * k  # shrinking moves the middle of the first pixel
    image = cv2.warpAffine(source, there, (size, size), flags=cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REPLICATE)
    covered = cv2.warpAffine(np.ones(source.shape[:2], np.float32), there, (size, size))
    return image, covered, move


def canvas_camera(camera: np.ndarray, size: int) -> np.ndarray:
    """Camera [4,4] of an FFHQ square → camera of the canvas around it."""
    return widen(camera, size, size, ((1 - 1 / MARGIN) * size / 2,) * 2 + (size / MARGIN,))


def at_size(fit: FittedPerson, size: int) -> FittedPerson:
    """The same fit on a canvas of another size, resampled: cheaper than a new fit where the photograph is at hand."""
    k = size / fit.size
    how = cv2.INTER_AREA if k < 1 else cv2.INTER_CUBIC
    return replace(fit, photo=np.clip(cv2.resize(fit.photo, (size, size), interpolation=how), 0, 1),
                   covered=cv2.resize(fit.covered, (size, size)), landmarks=(fit.landmarks + 0.5) * k - 0.5,
                   irises=None if fit.irises is None else (fit.irises + 0.5) * k - 0.5, enlarged=fit.enlarged * k)
