"""Landmarks of a face whose box is known: `load_landmarks(file).fit(rgb, box)`.

Ours is `models.landmarks.LandmarkNet`: the face in one small crop, then both eyes by themselves. dlib's shape predictor
is read as well, for published bundles that were made with it. Finding the box is in `detector`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch

from ..config import VToonifyError
from ..media.images import to_tensor
from ..models.folded.folding import fold
from ..models.landmarks import EYE_HEIGHT, EYE_WIDTH, FACE_SIDE, LandmarkNet
from ..weights.bundle import fill, read_tensors
from .crop import Box

BOX_SIDE = 1.15         # side of dlib's face box over the larger side of the landmarks' bounding box (median)
BOX_RISE = 0.08         # and how much higher its centre lies
FACE_ROOM = 1.3         # side of the crop of a face, in sides of its box
EYE_ROOM = 0.8          # width of the crop of an eye, in eye distances of a face seen from the front
EYE_DISTANCE = 1.20     # that distance over the landmarks' root mean square distance from their middle (median)
EYES = (slice(36, 42), slice(42, 48))
MIRRORED_EYE = [3, 2, 1, 0, 5, 4]  # points of the left eye in the order of those of a right eye
COARSE = 0.5            # a picture that shrinks to less than this is averaged over areas first
DLIB_FACE = 320         # face boxes are resized to this side: sensor noise averaged, whole pixels fine enough
DLIB_MARGIN = 0.5       # border around the box, in box sides, given to dlib's model
JITTER = ((0.0, 0.0, 1.0), (-0.04, 0.0, 1.0), (0.04, 0.0, 1.0), (0.0, -0.04, 1.04), (0.0, 0.04, 0.96))
"""Boxes that dlib's model tries (shift x, y in box sides; size): their mean is steadier, their spread says how sure."""


@dataclass(frozen=True)
class Marks:
    """Output of a landmark model for one box.

    landmarks   [68,2] float32 x, y in pixels (iBUG order); (0, 0) is the middle of the top left pixel
    irises      [2,2] float32, the subject's right one first; NaN from a model that does not know
    openness    [2] float32 distance of the lids over the width of the eye: 0.05 to 0.16 shut, about 0.3 open;
                NaN as above
    spread      how far the landmarks are expected to be off, over the eye distance
    confidence  0 to 1 that this is a face at all
    """

    landmarks: np.ndarray
    irises: np.ndarray
    openness: np.ndarray
    spread: float
    confidence: float


class LandmarkModel(Protocol):
    """What `faces.detector.FaceFinder` needs to fit a face."""

    def fit(self, rgb: np.ndarray, boxes: Sequence[Box]) -> list[Marks]:
        """Marks in each box of a uint8 RGB picture [H,W,3]."""


def load_landmarks(path: str | Path) -> LandmarkModel:
    """The model in a file: .safetensors is ours, anything else dlib's. VToonifyError if it is neither."""
    path = Path(path)
    if not path.is_file():
        raise VToonifyError(f"the landmark model {path} does not exist", code="missing")
    return NetworkLandmarks.load(path) if path.suffix == ".safetensors" else DlibLandmarks(path)


# -- geometry ---------------------------------------------------------------------------------------------------------
def box_from_landmarks(landmarks: np.ndarray) -> Box:
    """The square that dlib's detector would draw around a face with these landmarks [68,2]."""
    low, high = landmarks.min(0), landmarks.max(0)
    side = float((high - low).max())
    half = BOX_SIDE * side / 2
    x, y = (low + high) / 2 - [0, BOX_RISE * side]
    return Box(float(x - half), float(y - half), float(x + half), float(y + half))


def face_matrix(box: np.ndarray, turn: float = 0.0, room: float = FACE_ROOM, side: int = FACE_SIDE) -> np.ndarray:
    """[2,3] from pixels of the picture to pixels of the face's crop, turned by `turn` radians (clockwise)."""
    centre, scale = (box[:2] + box[2:]) / 2, side / (room * max(box[2] - box[0], box[3] - box[1]))
    return _matrix(centre, scale, turn, (side, side))


def eye_distance_of(landmarks: np.ndarray) -> float:
    """Eye distance that a face with landmarks [68,2] would have from the front: hardly changes when it turns."""
    return EYE_DISTANCE * float(np.sqrt(((landmarks - landmarks.mean(0)) ** 2).sum(1).mean()))


def eye_matrices(landmarks: np.ndarray) -> list[np.ndarray]:
    """[2,3] for the right and the left eye: from the picture to its crop, upright, the left one mirrored."""
    down = landmarks[48:68].mean(0) - landmarks[36:48].mean(0)
    turn, out = float(np.arctan2(-down[0], down[1])), []
    for side, eye in enumerate(EYES):
        scale = EYE_WIDTH / (EYE_ROOM * max(eye_distance_of(landmarks), 1e-3))
        matrix = _matrix(landmarks[eye].mean(0), scale, turn, (EYE_WIDTH, EYE_HEIGHT))
        out.append(np.array([[-1.0, 1.0][side == 0] * matrix[0] + [0, 0, (side == 1) * (EYE_WIDTH - 1)], matrix[1]]))
    return out


def _matrix(centre: np.ndarray, scale: float, turn: float, size: tuple[int, int]) -> np.ndarray:
    cos, sin = scale * np.cos(turn), scale * np.sin(turn)
    linear = np.array([[cos, sin], [-sin, cos]])
    return np.c_[linear, (np.array(size) - 1) / 2 - linear @ centre]


def apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points [...,2] through [2,3]."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def inverse(matrix: np.ndarray) -> np.ndarray:
    """The way back of [2,3]."""
    return cv2.invertAffineTransform(matrix)


def to_pixels(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """−1 … 1 over a crop of size (width, height) → pixels."""
    return (points + 1) * (np.array(size) / 2) - 0.5


def from_pixels(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Reverse of `to_pixels`."""
    return (points + 0.5) / (np.array(size) / 2) - 1


def crop(rgb: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 [H,W,3] through [2,3] → [height,width,3]; the picture's edge is repeated beyond it."""
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if scale < COARSE:  # bilinear sampling alone would skip pixels
        corners = apply(inverse(matrix), np.array([(0, 0), (size[0], 0), (0, size[1]), size], float))
        limit = np.array(rgb.shape[1::-1])
        low = np.clip(np.floor(corners.min(0)) - 2, 0, limit - 1).astype(int)
        high = np.clip(np.ceil(corners.max(0)) + 3, low + 1, limit).astype(int)
        times = int(min(np.ceil(COARSE / scale), *(high - low)))  # a whole number: OpenCV is five times as quick then
        small = (high - low) // times
        high = low + small * times
        rgb = cv2.resize(rgb[low[1] : high[1], low[0] : high[0]], small.tolist(), interpolation=cv2.INTER_AREA)
        back = np.c_[np.eye(2) * times, low + (times - 1) / 2]  # pixel centres: old = low − 0.5 + (new + 0.5)·times
        matrix = np.c_[matrix[:, :2] @ back[:, :2], apply(matrix, back[:, 2])]
    return cv2.warpAffine(rgb, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


# -- models -----------------------------------------------------------------------------------------------------------
class NetworkLandmarks:
    """Our network, its batch norms folded."""

    def __init__(self, net: LandmarkNet) -> None:
        self.net = fold(net)

    @classmethod
    def load(cls, path: Path) -> NetworkLandmarks:
        """From a safetensors file."""
        with torch.device("meta"):
            net = LandmarkNet()
        return cls(fill(net, read_tensors(path), f"landmark model {path}", copy=True))

    def confidence(self, rgb: np.ndarray, boxes: Sequence[Box]) -> np.ndarray:
        """How sure the network is that each box shows a face, [n] in 0 to 1: half of what `fit` costs."""
        return np.concatenate([self._faces(rgb, boxes[i : i + 32])[2] for i in range(0, len(boxes), 32)])

    def fit(self, rgb: np.ndarray, boxes: Sequence[Box]) -> list[Marks]:
        out = []
        for box, points, spread, sure in zip(boxes, *self._faces(rgb, boxes), strict=True):
            points = apply(inverse(face_matrix(np.array(box, float))), to_pixels(points, (FACE_SIDE, FACE_SIDE)))
            points, openness = self._eyes(rgb, points)
            out.append(Marks(points[:68].astype(np.float32), points[68:].astype(np.float32), openness, float(spread),
                             float(sure)))
        return out

    def _faces(self, rgb: np.ndarray, boxes: Sequence[Box]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        size = (FACE_SIDE, FACE_SIDE)
        crops = np.stack([crop(rgb, face_matrix(np.array(box, float)), size) for box in boxes])
        with torch.inference_mode():
            marks = self.net.face(to_tensor(crops))
        return marks.points.double().numpy(), marks.spread.numpy(), marks.face.sigmoid().numpy()

    def _eyes(self, rgb: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        size, matrices = (EYE_WIDTH, EYE_HEIGHT), eye_matrices(points[:68])
        crops = np.stack([crop(rgb, matrix, size) for matrix in matrices])
        with torch.inference_mode():
            marks = self.net.eyes(to_tensor(crops))
        points, found = points.copy(), to_pixels(marks.points.double().numpy(), size)
        for side, (matrix, eye) in enumerate(zip(matrices, found, strict=True)):
            back = apply(inverse(matrix), eye)
            points[EYES[side]] = back[MIRRORED_EYE] if side else back[:6]
            points[68 + side] = back[6]
        return points, marks.openness.clamp_min(0).numpy()


class DlibLandmarks:
    """dlib's shape predictor of 68 points: five jittered fits, whose spread stands for how sure it is."""

    def __init__(self, path: Path) -> None:
        import dlib

        self._dlib = dlib
        try:
            self._predictor = dlib.shape_predictor(str(path))
        except RuntimeError as error:
            raise VToonifyError(f"{path} is not a dlib shape predictor", code="unreadable") from error

    def fit(self, rgb: np.ndarray, boxes: Sequence[Box]) -> list[Marks]:
        return [self._fit(rgb, np.array(box, float)) for box in boxes]

    def _fit(self, rgb: np.ndarray, box: np.ndarray) -> Marks:
        room = 1 + 2 * DLIB_MARGIN
        side = round(room * DLIB_FACE)
        matrix, guesses = face_matrix(box, room=room, side=side), []
        patch = cv2.cvtColor(crop(rgb, matrix, (side, side)), cv2.COLOR_RGB2GRAY)
        for dx, dy, size in JITTER:
            x, y, half = side / 2 + dx * DLIB_FACE, side / 2 + dy * DLIB_FACE, size * DLIB_FACE / 2
            shape = self._predictor(patch, self._dlib.rectangle(*(round(v) for v in (x - half, y - half, x + half,
                                                                                      y + half))))
            if shape.num_parts != 68:
                raise VToonifyError(f"the landmark model has {shape.num_parts} points; expected 68 in iBUG order")
            guesses.append([(part.x, part.y) for part in shape.parts()])
        guesses = apply(inverse(matrix), np.array(guesses, float))
        landmarks = guesses.mean(0)
        eyes = max(float(np.linalg.norm(landmarks[36:42].mean(0) - landmarks[42:48].mean(0))), 1e-6)
        spread = float(np.linalg.norm(guesses.std(0), axis=1).mean()) / eyes
        unknown = np.full((2, 2), np.nan, np.float32)
        return Marks(landmarks.astype(np.float32), unknown, unknown[0], spread, float("nan"))
