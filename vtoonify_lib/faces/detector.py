"""Find faces and their 68 landmarks in one picture.

dlib's frontal HOG detector, which comes with dlib and needs no file, looks first; where it finds nothing, our landmark
network searches (`searching`): profiles, hats, sunglasses, little light. The network also gives the confidence of all
detections. Landmarks come from the bundle's model, see `landmarks`. Pictures of any
size are searched at two fixed working sizes, so that a 4k frame costs no more than a small one and small faces are
still found. Following a face through a clip is in `tracker`; crops, alignment and paste-back are in `crop`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import get_ident
from typing import Any

import cv2
import numpy as np

from ..config import VToonifyError
from .crop import Box
from .landmarks import LandmarkModel, NetworkLandmarks, box_from_landmarks, load_landmarks
from .searching import search

QUICK_SIDE = 640        # first pass: finds faces from about 80 px of 640, 25 ms on one core
THOROUGH_SIDE = 1280    # second pass: half that size, 100 ms
MAX_ENLARGE = 2.0       # a small picture is enlarged at most this much in the thorough pass
LAST_PADDING = 0.3      # last pass: border that lets a face touch or fill the frame
LAST_THRESHOLD = -0.3   # last pass: accept weaker faces; 0 is dlib's own operating point
NEAR_FACE, NEAR_MARGIN = 110, 0.5  # confirming a known face: the box is resized to this side, with a border around
UNSURE_SPREAD = 0.1     # landmarks of dlib's model that disagree by more than this are not on a face: 99 % do not
SURE = 0.5              # confidence of our network from which a box is taken for a face
SURE_AGAIN = 0.3        # and from which a face that is followed counts as found
FACE_NEEDS = "a face must be upright, look roughly towards the camera and be at least 40 px wide"


@dataclass(frozen=True)
class Face:
    """One face in a picture.

    box        around the face
    score      detector's confidence: above 1 a clear frontal face, below 0 doubtful
    landmarks  [68,2] float32 x, y in pixels (iBUG order), or None before `FaceFinder.fit`
    spread     how far off the landmarks are expected to be, over the eye distance
    irises     [2,2] float32 centres of the irises in pixels, the subject's right one first; None as above
    openness   [2] float32 distance of the lids over the width of the eye, in the same order, see `landmarks.Marks`
    confidence 0 to 1 that it is a face. irises, openness and confidence are NaN where dlib's model made the landmarks
    """

    box: Box
    score: float
    landmarks: np.ndarray | None = None
    spread: float = float("nan")
    irises: np.ndarray | None = None
    openness: np.ndarray | None = None
    confidence: float = float("nan")

    @property
    def side(self) -> float:
        """Larger side of the box in pixels."""
        return max(self.box.right - self.box.left, self.box.bottom - self.box.top)

    @property
    def centre(self) -> np.ndarray:
        """Centre of the box, [2] = x, y in pixels."""
        return np.array([(self.box.left + self.box.right) / 2, (self.box.top + self.box.bottom) / 2])

    def is_reliable(self, sure: float = SURE) -> bool:
        """Whether the landmarks lie on a face: by the network's confidence, or dlib's spread where there is none."""
        return self.spread <= UNSURE_SPREAD if np.isnan(self.confidence) else self.confidence >= sure


@lru_cache(maxsize=16)
def _detector(thread: int) -> Any:
    """dlib's detector, which takes 0.4 s to make and holds what it scans: one a thread, for all finders."""
    return _dlib().get_frontal_face_detector()


def _dlib() -> Any:
    try:
        import dlib
    except ImportError as error:
        raise VToonifyError("dlib is not installed and finding faces needs it; install it with `pip install dlib-bin`, "
                            "or `conda install dlib`") from error
    return dlib


class FaceFinder:
    """Face detector and landmark model. `FaceFinder(bundle.path("landmarks"))`, or without a file for boxes only."""

    def __init__(self, landmarks_path: str | Path | None = None) -> None:
        _dlib()  # its absence is said here; a detector is made by the thread that looks for faces
        self._model: LandmarkModel | None = None if landmarks_path is None else load_landmarks(landmarks_path)
        self._network = self._model if isinstance(self._model, NetworkLandmarks) else None

    # ------------------------------------------------------------------ detection
    def detect(self, rgb: np.ndarray, thorough: bool = True) -> list[Face]:
        """All faces in a uint8 RGB picture [H,W,3], largest first, without landmarks.

        thorough: search again for small, weak or frame-filling faces when the quick pass finds none.
        """
        side = max(rgb.shape[:2])
        quick = min(1.0, QUICK_SIDE / side)
        faces = self._known(rgb, self._search(rgb, quick))
        if not faces and thorough:
            faces = self._known(rgb, self._search(rgb, min(MAX_ENLARGE, THOROUGH_SIDE / side)))
        if not faces and thorough:
            weak = self._search(rgb, quick, threshold=LAST_THRESHOLD, padding=LAST_PADDING)
            faces = self._known(rgb, weak)
        if not faces and thorough and self._network:
            faces = [Face(box, score) for box, score in search(self._network, rgb)]
        return sorted(faces, key=lambda face: face.side, reverse=True)

    def _known(self, rgb: np.ndarray, faces: list[Face]) -> list[Face]:
        """The detections that the network, if there is one, confirms."""
        if not faces or self._network is None:
            return faces
        sure = self._network.confidence(rgb, [face.box for face in faces])
        return [face for face, confidence in zip(faces, sure, strict=True) if confidence >= SURE]

    def confirm(self, rgb: np.ndarray, face: Face) -> Face | None:
        """The detection around a known face, even a weak one, in 3 to 5 ms; None if there is none.

        The network confirms it where there is one, because the detector misses profiles.
        """
        if self._network is not None:
            seen = self.fit(rgb, face)
            return Face(box_from_landmarks(seen.landmarks), log_odds(seen.confidence)) if seen.is_reliable() else None
        scale, reach = NEAR_FACE / face.side, 0.5 + NEAR_MARGIN
        (x0, y0), (x1, y1) = _window(rgb, face.centre, reach * face.side)
        found = self._search(np.ascontiguousarray(rgb[y0:y1, x0:x1]), scale, LAST_THRESHOLD)
        if not found:
            return None
        best = max(found, key=lambda other: other.score)
        return Face(Box(*np.add(best.box, (x0, y0, x0, y0)).tolist()), best.score)

    def _search(self, rgb: np.ndarray, scale: float, threshold: float = 0.0, padding: float = 0.0) -> list[Face]:
        grey = cv2.cvtColor(_resized(rgb, scale), cv2.COLOR_RGB2GRAY)
        border = round(padding * max(grey.shape))
        if border:
            grey = cv2.copyMakeBorder(grey, border, border, border, border, cv2.BORDER_REPLICATE)
        boxes, scores, _ = _detector(get_ident()).run(grey, 0, threshold)
        return [Face(Box(*((edge - border) / scale for edge in (box.left(), box.top(), box.right(), box.bottom()))),
                     float(score)) for box, score in zip(boxes, scores, strict=True)]

    # ------------------------------------------------------------------ landmarks
    def fit(self, rgb: np.ndarray, face: Face) -> Face:
        """The same face with its landmarks and their spread, from the uint8 RGB picture [H,W,3]."""
        if self._model is None:
            raise VToonifyError("no landmark model was given; use FaceFinder(bundle.path('landmarks'))")
        marks, = self._model.fit(rgb, [face.box])
        return Face(face.box, face.score, marks.landmarks, marks.spread, marks.irises, marks.openness, marks.confidence)

    def faces(self, rgb: np.ndarray, thorough: bool = True) -> list[Face]:
        """All faces in a uint8 RGB picture [H,W,3] with landmarks, largest first.

        Detections that neither the detector nor the landmark model is sure of are left out.
        """
        fitted = [self.fit(rgb, face) for face in self.detect(rgb, thorough)]
        return [face for face in fitted if face.is_reliable() or (self._network is None and face.score >= 0)]


def log_odds(confidence: float) -> float:
    """A confidence as a detector's score: 0 is undecided, above 1 clear."""
    return float(np.log(max(confidence, 1e-3) / max(1 - confidence, 1e-3)))


def _resized(rgb: np.ndarray, scale: float) -> np.ndarray:
    """The picture times `scale`, area-averaged when it shrinks; at least one pixel a side."""
    if scale == 1.0:
        return rgb
    size = tuple(max(1, round(side * scale)) for side in (rgb.shape[1], rgb.shape[0]))
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def _window(rgb: np.ndarray, centre: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Corners x, y of the square of half side `reach` around a point, clipped to the picture, at least one pixel."""
    limit = np.array(rgb.shape[1::-1])
    low = np.clip(centre - reach, 0, limit - 1).astype(int)
    return low, np.clip(centre + reach, low + 1, limit).astype(int)
