"""Find faces and their 68 landmarks in one picture.

Detection is dlib's frontal HOG detector, which comes with dlib and needs no file; landmarks are a dlib shape predictor
from the bundle (iBUG order; ours is trained on rendered portraits). Pictures of any size are searched at two fixed
working sizes, so that a 4k frame costs no more than a small one and small faces are still found. Following a face
through a clip is in `tracking`; crops, alignment and paste-back are in `framing` and can be used from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from .config import VToonifyError
from .framing import (
    CropPlan,
    align_face,
    cut,
    eye_centres,
    eye_distance,
    ffhq_quad,
    paste_all,
    paste_back,
    plan_crop,
    published_crop_plan,
)

__all__ = ["CropPlan", "Face", "FaceFinder", "align_face", "box_from_landmarks", "cut", "eye_centres", "eye_distance",
           "ffhq_quad", "paste_all", "paste_back", "plan_crop", "published_crop_plan"]

QUICK_SIDE = 640        # first pass: finds faces from about 80 px of 640, 25 ms on one core
THOROUGH_SIDE = 1280    # second pass: half that size, 100 ms
MAX_ENLARGE = 2.0       # a small picture is enlarged at most this much in the thorough pass
LAST_PADDING = 0.3      # last pass: border that lets a face touch or fill the frame
LAST_THRESHOLD = -0.3   # last pass: accept weaker faces; 0 is dlib's own operating point
NEAR_FACE, NEAR_MARGIN = 110, 0.5  # confirming a known face: the box is resized to this side, with a border around
LANDMARK_FACE = 320     # face boxes are resized to this side: sensor noise averaged, whole pixels fine enough
LANDMARK_MARGIN = 0.5   # border around the box, in box sides, given to the landmark model
BOX_SIDE = 1.15         # side of dlib's face box over the larger side of the landmarks' bounding box (median)
BOX_RISE = 0.08         # and how much higher its centre lies
UNSURE_SPREAD = 0.1     # landmarks that disagree by more than this (eye distances) are not on a face: 99 % do not
JITTER = ((0.0, 0.0, 1.0), (-0.04, 0.0, 1.0), (0.04, 0.0, 1.0), (0.0, -0.04, 1.04), (0.0, 0.04, 0.96))
"""Boxes tried per face (shift x, shift y in box sides; size): their mean is steadier, their spread says how sure."""


@dataclass(frozen=True)
class Face:
    """One face in a picture.

    box        left, top, right, bottom in pixels (may reach outside of the picture)
    score      detector's confidence: above 1 a clear frontal face, below 0 doubtful
    landmarks  [68,2] float32 x, y in pixels (iBUG order), or None before `FaceFinder.fit`
    spread     how far the landmarks disagree between slightly different boxes, over the eye distance
    """

    box: tuple[float, float, float, float]
    score: float
    landmarks: np.ndarray | None = None
    spread: float = float("nan")

    @property
    def side(self) -> float:
        """Larger side of the box in pixels."""
        return max(self.box[2] - self.box[0], self.box[3] - self.box[1])

    @property
    def centre(self) -> np.ndarray:
        """Centre of the box, [2] = x, y in pixels."""
        return np.array([(self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2])


def box_from_landmarks(landmarks: np.ndarray) -> tuple[float, float, float, float]:
    """The square that dlib's detector would draw around a face with these landmarks [68,2]."""
    low, high = landmarks.min(0), landmarks.max(0)
    side = float((high - low).max())
    half = BOX_SIDE * side / 2
    x, y = (low + high) / 2 - [0, BOX_RISE * side]
    return (float(x - half), float(y - half), float(x + half), float(y + half))


class FaceFinder:
    """Face detector and landmark model. `FaceFinder(bundle.path("landmarks"))`, or without a file for boxes only."""

    def __init__(self, landmarks_path: str | Path | None = None) -> None:
        try:
            import dlib
        except ImportError as error:
            raise VToonifyError("dlib is not installed and finding faces needs it; install it with "
                                "`pip install dlib-bin`, or `conda install dlib`") from error
        self._dlib = dlib
        self._detector = dlib.get_frontal_face_detector()
        self._predictor = None
        if landmarks_path is not None:
            path = Path(landmarks_path)
            if not path.is_file():
                raise VToonifyError(f"the landmark model {path} does not exist")
            try:
                self._predictor = dlib.shape_predictor(str(path))
            except RuntimeError as error:
                raise VToonifyError(f"{path} is not a dlib shape predictor") from error

    # ------------------------------------------------------------------ detection
    def detect(self, rgb: np.ndarray, thorough: bool = True) -> list[Face]:
        """All faces in a uint8 RGB picture [H,W,3], largest first, without landmarks.

        thorough: search again for small, weak or frame-filling faces when the quick pass finds none.
        """
        side = max(rgb.shape[:2])
        quick = min(1.0, QUICK_SIDE / side)
        faces = self._search(rgb, quick)
        if not faces and thorough:
            faces = self._search(rgb, min(MAX_ENLARGE, THOROUGH_SIDE / side))
        if not faces and thorough:
            faces = self._search(rgb, quick, threshold=LAST_THRESHOLD, padding=LAST_PADDING)
        return sorted(faces, key=lambda face: face.side, reverse=True)

    def near(self, rgb: np.ndarray, face: Face) -> Face | None:
        """The face that the detector sees around a known one, even if only weakly: 5 ms to confirm that it is there."""
        scale, reach = NEAR_FACE / face.side, 0.5 + NEAR_MARGIN
        (x0, y0), (x1, y1) = _window(rgb, face.centre, reach * face.side)
        found = self._search(np.ascontiguousarray(rgb[y0:y1, x0:x1]), scale, LAST_THRESHOLD)
        if not found:
            return None
        best = max(found, key=lambda other: other.score)
        return Face(tuple(edge + offset for edge, offset in zip(best.box, (x0, y0, x0, y0), strict=True)), best.score)

    def _search(self, rgb: np.ndarray, scale: float, threshold: float = 0.0, padding: float = 0.0) -> list[Face]:
        grey = cv2.cvtColor(_resized(rgb, scale), cv2.COLOR_RGB2GRAY)
        border = round(padding * max(grey.shape))
        if border:
            grey = cv2.copyMakeBorder(grey, border, border, border, border, cv2.BORDER_REPLICATE)
        boxes, scores, _ = self._detector.run(grey, 0, threshold)
        return [Face(tuple((edge - border) / scale for edge in (box.left(), box.top(), box.right(), box.bottom())),
                     float(score)) for box, score in zip(boxes, scores, strict=True)]

    # ------------------------------------------------------------------ landmarks
    def fit(self, rgb: np.ndarray, face: Face) -> Face:
        """The same face with its landmarks and their spread, from the uint8 RGB picture [H,W,3]."""
        if self._predictor is None:
            raise VToonifyError("no landmark model was given; use FaceFinder(bundle.path('landmarks'))")
        patch, origin, scale = _patch(rgb, face.centre, face.side)
        middle = (face.centre - origin) * scale
        guesses = []
        for dx, dy, size in JITTER:
            x, y = middle + np.array([dx, dy]) * LANDMARK_FACE
            half = size * LANDMARK_FACE / 2
            box = self._dlib.rectangle(round(x - half), round(y - half), round(x + half), round(y + half))
            shape = self._predictor(patch, box)
            if shape.num_parts != 68:
                raise VToonifyError(f"the landmark model has {shape.num_parts} points; expected 68 in iBUG order")
            guesses.append([(part.x, part.y) for part in shape.parts()])
        guesses = (np.array(guesses, dtype=np.float32) + 0.5) / scale - 0.5  # pixel centres
        landmarks = guesses.mean(0) + origin.astype(np.float32)
        spread = float(np.linalg.norm(guesses.std(0), axis=1).mean()) / max(eye_distance(landmarks), 1e-6)
        return Face(face.box, face.score, landmarks, spread)

    def faces(self, rgb: np.ndarray, thorough: bool = True) -> list[Face]:
        """All faces in a uint8 RGB picture [H,W,3] with landmarks, largest first.

        Detections that neither the detector nor the landmark model is sure of are left out.
        """
        fitted = [self.fit(rgb, face) for face in self.detect(rgb, thorough)]
        return [face for face in fitted if face.score >= 0 or face.spread <= UNSURE_SPREAD]


def _resized(rgb: np.ndarray, scale: float) -> np.ndarray:
    """The picture times `scale`, area-averaged when it shrinks; at least one pixel a side."""
    if scale == 1.0:
        return rgb
    size = tuple(max(1, round(side * scale)) for side in (rgb.shape[1], rgb.shape[0]))
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def _patch(rgb: np.ndarray, centre: np.ndarray, side: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Grey picture around a box, scaled so that the box is LANDMARK_FACE px: (patch, its origin x, y, scale)."""
    scale = LANDMARK_FACE / side
    (x0, y0), (x1, y1) = _window(rgb, centre, (0.5 + LANDMARK_MARGIN) * side)
    patch = cv2.cvtColor(_resized(np.ascontiguousarray(rgb[y0:y1, x0:x1]), scale), cv2.COLOR_RGB2GRAY)
    return patch, np.array([x0, y0], dtype=np.float64), scale


def _window(rgb: np.ndarray, centre: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Corners x, y of the square of half side `reach` around a point, clipped to the picture, at least one pixel."""
    limit = np.array(rgb.shape[1::-1])
    low = np.clip(centre - reach, 0, limit - 1).astype(int)
    return low, np.clip(centre + reach, low + 1, limit).astype(int)
