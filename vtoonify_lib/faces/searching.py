"""Search a whole picture with the landmark network: it slides over all places and sizes in one go.

The network is convolutions up to its head, and the head is one as well: over a picture it answers for a window every
16 pixels. What it takes for a face is then looked at again as `landmarks` does it, in a crop of its own.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.landmarks import FACE_SIDE, LEAST_CONTRAST, POINTS
from .crop import Box
from .landmarks import FACE_ROOM, NetworkLandmarks, box_from_landmarks, eye_distance_of

STRIDE = 16             # pixels between two windows
SMALLEST, LARGEST = 0.11, 1.0  # sides of the boxes that are searched, over the picture's larger and smaller side
STEP = 1.35             # between two sizes: training knows boxes that are off by more than its root
BORDER = 0.35           # in windows: what a face may lack at the picture's edge
MOST = 40               # windows of one size that are kept: a face answers in about six
CANDIDATES = 6          # looked at again, at most
OVERLAP = 0.3           # of two boxes (intersection over union) that are one face
SURE_ALONE = 0.8        # confidence that is needed where the detector sees nothing
STEADY = 0.12           # how far landmarks may move, in eye distances, when the box is that of the first landmarks


def search(model: NetworkLandmarks, rgb: np.ndarray) -> list[tuple[Box, float]]:
    """Boxes of faces in a uint8 RGB picture [H,W,3], and how sure (log odds)."""
    found = []
    for box, _ in apart(windows(model, rgb)):
        marks, = model.fit(rgb, [box])
        again, = model.fit(rgb, [box_from_landmarks(marks.landmarks)])
        moved = np.linalg.norm(marks.landmarks - again.landmarks, axis=1).mean() / eye_distance_of(again.landmarks)
        if min(marks.confidence, again.confidence) >= SURE_ALONE and moved <= STEADY:
            sure = float(np.clip(again.confidence, 1e-3, 1 - 1e-3))
            found.append((box_from_landmarks(again.landmarks), float(np.log(sure / (1 - sure)))))
    return apart(found)


def windows(model: NetworkLandmarks, rgb: np.ndarray) -> list[tuple[Box, float]]:
    """What looks like a face in any window: box, and logit above 0."""
    height, width = rgb.shape[:2]
    side, out = LARGEST * min(height, width), []
    while side >= SMALLEST * max(height, width):
        scale = FACE_SIDE / (FACE_ROOM * side)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        border = round(BORDER * FACE_SIDE)
        fill = [max(0, FACE_SIDE - n - 2 * border) + -(n + 2 * border) % STRIDE for n in size]
        small = cv2.copyMakeBorder(small, border, border + fill[1], border, border + fill[0], cv2.BORDER_REPLICATE)
        with torch.inference_mode():
            points, logits = _answers(model, _even_light(small))
        best = logits.flatten().topk(min(MOST, logits.numel()))
        for place in best.indices[best.values > 0].tolist():
            row, column = divmod(place, logits.shape[1])
            own = (points[:, row, column].numpy() + 1) * (FACE_SIDE / 2) + STRIDE * np.array([column, row]) - border
            own = own * [width / size[0], height / size[1]] - 0.5
            out.append((box_from_landmarks(own[:68]), float(logits[row, column])))
        side /= STEP
    return out


def _answers(model: NetworkLandmarks, image: Tensor) -> tuple[Tensor, Tensor]:
    """Points [70,h,w,2] in −1 … 1 of each window, and logits [h,w], of an evenly lit picture [1,3,H,W]."""
    net = model.net.face
    features = net.squeeze(net.trunk(image))
    first, last = net.head[1], net.head[3]
    kernel = first.weight.reshape(len(first.weight), features.shape[1], FACE_SIDE // STRIDE, FACE_SIDE // STRIDE)
    out = F.conv2d(F.relu(F.conv2d(features, kernel, first.bias)), last.weight[:, :, None, None], last.bias)[0]
    points = out[: 2 * POINTS].reshape(POINTS, 2, *out.shape[1:]).movedim(1, -1)
    return points + net.mean[:, None, None], out[-1]


def _even_light(rgb: np.ndarray) -> Tensor:
    """As `models.landmarks.even_light` does to a crop, for the window around every pixel: uint8 → [1,3,H,W]."""
    x = rgb.astype(np.float32) / 127.5 - 1
    window = (FACE_SIDE, FACE_SIDE)
    mean, square = (cv2.blur(v.mean(-1), window, borderType=cv2.BORDER_REPLICATE) for v in (x, x * x))
    contrast = np.sqrt(np.maximum(square - mean * mean, (2 * LEAST_CONTRAST) ** 2))
    return torch.from_numpy((x - mean[..., None]) / contrast[..., None]).permute(2, 0, 1)[None].contiguous()


def apart(found: list[tuple[Box, float]]) -> list[tuple[Box, float]]:
    """The surest boxes, none over another one."""
    kept: list = []
    for box, sure in sorted(found, key=lambda row: -row[1]):
        if len(kept) < CANDIDATES and all(overlap(box, other) < OVERLAP for other, _ in kept):
            kept.append((box, sure))
    return kept


def overlap(one: Box, other: Box) -> float:
    """Intersection over union."""
    width = min(one.right, other.right) - max(one.left, other.left)
    height = min(one.bottom, other.bottom) - max(one.top, other.top)
    if width <= 0 or height <= 0:
        return 0.0
    area = sum((box.right - box.left) * (box.bottom - box.top) for box in (one, other))
    return width * height / (area - width * height)
