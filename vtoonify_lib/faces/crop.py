"""Where a face sits in the picture: crop plan, FFHQ alignment, cut out and paste back.

Everything here is arithmetic on 68 landmarks (iBUG order, pixel coordinates x, y) and uint8 RGB pictures; nothing
here finds one (see `detector`). Two crop rules exist side by side: `published_plan` and `published_cut` do as the
published system, with the horizontal eye distance and whole-picture resize, and are kept for its checkpoints;
`plan_crop` and `cut` are ours, with the true eye distance, so that a tilted head or a half profile keeps its size.
Which one a bundle wants is decided in `preprocessing`.
The alignment is the oriented square of the Progressive GAN paper (appendix C), which FFHQ and pSp use.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from ..config import VToonifyError

GRID = 8                       # the network halves the picture three times
EYE_FRACTION = 1 / 4           # eye distance over in_size, the framing of the FFHQ-like training pictures
PADDING_FRACTION = 200 / 256   # published default: 200 px on each side of the eye centre for in_size 256
FEATHER_FRACTION = 1 / 12      # width of the soft edge of a paste-back, over the shorter side of the crop
MAX_UPSCALE = 8.0              # eyes 4 px apart at in_size 128: below that there is no face to draw
LEFT_EYE, RIGHT_EYE = slice(36, 42), slice(42, 48)
MOUTH_CORNERS = (48, 54)
PREFILTER = np.array([1, 3, 3, 1]) / 8      # the published blur before shrinking; an even length, so it shifts by ½ px
PREFILTER_SCALES = (0.75, 0.375)            # one pass from the first scale down, two from the second


def eye_centres(landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres of both eyes (left in the picture first), each [2] = x, y in pixels, from landmarks [68,2]."""
    points = np.asarray(landmarks, dtype=np.float64)
    if points.shape != (68, 2):
        raise VToonifyError(f"landmarks have shape {points.shape}; expected (68, 2) in iBUG order")
    return points[LEFT_EYE].mean(0), points[RIGHT_EYE].mean(0)


def eye_distance(landmarks: np.ndarray) -> float:
    """True distance between the eye centres in pixels."""
    left, right = eye_centres(landmarks)
    return float(np.hypot(*(right - left)))


def face_position(landmarks: np.ndarray) -> tuple[float, float, float]:
    """x, y of the point between the eyes, and the eye distance, of landmarks [68,2]."""
    left, right = eye_centres(landmarks)
    x, y = (left + right) / 2
    return float(x), float(y), eye_distance(landmarks)


class Box(NamedTuple):
    """A rectangle in pixels of a picture; it may reach outside of it."""

    left: float
    top: float
    right: float
    bottom: float


# ---------------------------------------------------------------------------------------------- crop plan
@dataclass(frozen=True)
class CropPlan:
    """A rectangle in the *scaled* frame: multiply frame coordinates by `scale`, then cut left…right, top…bottom.

    All four edges are pixels of the scaled frame; width and height are multiples of 8.
    `frame_width`, `frame_height`: size of the original frame in pixels.
    """

    scale: float
    left: float
    top: float
    right: float
    bottom: float
    frame_width: int
    frame_height: int

    @property
    def width(self) -> int:
        return round(self.right - self.left)

    @property
    def height(self) -> int:
        return round(self.bottom - self.top)

    @property
    def box(self) -> Box:
        """In pixels of the original frame, never outside of it."""
        return Box(max(self.left / self.scale, 0.0), max(self.top / self.scale, 0.0),
                   min(self.right / self.scale, float(self.frame_width)),
                   min(self.bottom / self.scale, float(self.frame_height)))


def plan_crop(frame_shape: tuple[int, ...], landmarks: np.ndarray, in_size: int,
              padding: float | None = None) -> CropPlan:
    """Crop for one frame: eyes `in_size`/4 px apart, `padding` scaled pixels on each side of the eye centre.

    frame_shape: (H, W, …) of the frame; landmarks [68,2]; padding default 200/256 of in_size. Edges are multiples
    of 8 in the scaled frame and stay inside it. Raises VToonifyError when the face or the frame is too small.
    """
    x, y, distance = face_position(landmarks)
    return plan_around(frame_shape, Box(x, y, x, y), distance, in_size, padding)


def resolve_padding(in_size: int, padding: float | None = None) -> float:
    """The given padding, by default the published share of in_size. VToonifyError when it is too small."""
    if padding is None:
        return PADDING_FRACTION * in_size
    if not GRID <= padding < math.inf:
        raise VToonifyError(f"padding is {padding:g} px; it must be at least {GRID}, and finite")
    return padding


def plan_around(frame_shape: tuple[int, ...], centres: Box, distance: float, in_size: int,
                padding: float | None = None) -> CropPlan:
    """One crop that holds every eye centre, of which `centres` is the bounding box, with `padding` around.

    distance: eye distance in frame pixels that becomes in_size/4. Otherwise as `plan_crop`.
    """
    padding = resolve_padding(in_size, padding)
    height, width = frame_shape[:2]
    check_distance(distance, in_size)
    scale = in_size * EYE_FRACTION / distance
    x0, y0, x1, y1 = (value * scale for value in centres)
    # Edges must also be multiples of 8 when the scaled frame is not, hence floor on both sides.
    edges = [_floor(max(x0 - padding, 0)), _floor(max(y0 - padding, 0)),
             _floor(min(x1 + padding, width * scale)), _floor(min(y1 + padding, height * scale))]
    return check_plan(CropPlan(scale, *map(float, edges), frame_width=width, frame_height=height))


def check_distance(distance: float, in_size: int) -> None:
    """Raise VToonifyError when the eyes are so close together, in frame pixels, that there is no face to draw."""
    least = in_size * EYE_FRACTION / MAX_UPSCALE
    if not math.isfinite(distance) or distance < least:
        raise VToonifyError(f"the eyes are {distance:.1f} px apart but at least {least:.0f} px are needed; "
                            "use a larger picture or a closer shot")


def check_plan(plan: CropPlan) -> CropPlan:
    """The plan, or VToonifyError when its crop is too small for a network."""
    if min(plan.width, plan.height) < 2 * GRID:
        raise VToonifyError(f"the picture is {plan.frame_width}×{plan.frame_height} px, too small around the face for "
                            "a crop; use a larger picture")
    return plan


def _floor(value: float) -> int:
    return int(value // GRID) * GRID


def published_plan(frame_shape: tuple[int, ...], landmarks: np.ndarray, in_size: int,
                   padding: float | None = None) -> CropPlan:
    """The released system's crop, golden case `preprocess`; otherwise as `plan_crop`.

    The scale comes from the horizontal eye distance alone; a profile that makes it ≤ 0 is refused (the released system
    crashes).
    """
    padding = resolve_padding(in_size, padding)
    left_eye, right_eye = eye_centres(landmarks)
    horizontal = float(right_eye[0] - left_eye[0])
    if horizontal <= 0:
        raise VToonifyError("the eyes are not side by side in this picture, so the published crop rule has no scale; "
                            "turn the picture upright")
    check_distance(horizontal, in_size)
    scale = in_size * EYE_FRACTION / horizontal
    x, y = (left_eye + right_eye) / 2 * scale
    height, width = (round(side * scale) for side in frame_shape[:2])
    edges = (max(round(x - padding), 0), max(round(y - padding), 0),
             min(round(x + padding), width), min(round(y + padding), height))
    return check_plan(CropPlan(scale, *map(_floor, edges), frame_width=frame_shape[1], frame_height=frame_shape[0]))


def cut(frame: np.ndarray, plan: CropPlan, grow: float = 1.0) -> np.ndarray:
    """The planned crop of a uint8 RGB frame [H,W,3] → [plan.height·grow, plan.width·grow, 3], antialiased."""
    if frame.shape[:2] != (plan.frame_height, plan.frame_width):
        raise VToonifyError(f"frame is {frame.shape[1]}×{frame.shape[0]} but the crop was planned for "
                            f"{plan.frame_width}×{plan.frame_height}; plan the crop again")
    size = (round(plan.width * grow), round(plan.height * grow))
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR, box=plan.box))


def published_cut(frame: np.ndarray, plan: CropPlan) -> np.ndarray:
    """The planned crop of a uint8 RGB frame [H,W,3] as published: the frame blurred, resized as a whole, then cut.

    A frame that grows is not resized whole, which would cost up to MAX_UPSCALE² its memory: the same to ±1.
    """
    edges = [round(edge) for edge in (plan.left, plan.top, plan.right, plan.bottom)]
    width, height = (round(side * plan.scale) for side in (plan.frame_width, plan.frame_height))
    if plan.scale > 1:
        box = [edge * side for edge, side in zip(edges, [plan.frame_width / width, plan.frame_height / height] * 2,
                                                 strict=True)]
        size = (edges[2] - edges[0], edges[3] - edges[1])
        return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR, box=box))
    for _ in range(sum(plan.scale <= scale for scale in PREFILTER_SCALES)):
        frame = cv2.sepFilter2D(frame, -1, PREFILTER, PREFILTER)
    left, top, right, bottom = edges
    return cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR)[top:bottom, left:right]


def paste_back(frame: np.ndarray, stylised: np.ndarray, plan: CropPlan, alpha: np.ndarray | None = None) -> np.ndarray:
    """The frame [H,W,3] uint8 with the stylised crop (any size) put back in its place behind a soft edge.

    alpha: how much of the crop is to be seen where, float32 [h,w] in [0,1] of any size; default all of it.
    Sides of the crop that coincide with the edge of the frame stay hard: there is nothing to blend with.
    """
    left, top, right, bottom = plan.box
    x0, y0, x1, y1 = math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom)
    # Map whole destination pixels, not the fractional box, so that no half-covered rim appears.
    per_x, per_y = stylised.shape[1] / (right - left), stylised.shape[0] / (bottom - top)
    box = (max((x0 - left) * per_x, 0), max((y0 - top) * per_y, 0),
           min((x1 - left) * per_x, stylised.shape[1]), min((y1 - top) * per_y, stylised.shape[0]))
    picture = np.asarray(Image.fromarray(stylised).resize((x1 - x0, y1 - y0), Image.Resampling.BICUBIC, box=box))
    width = max(2.0, FEATHER_FRACTION * min(x1 - x0, y1 - y0))
    mask = np.minimum.outer(_ramp(y1 - y0, width, y0 > 0, y1 < plan.frame_height),
                            _ramp(x1 - x0, width, x0 > 0, x1 < plan.frame_width))[..., None]
    if alpha is not None:
        mask *= cv2.resize(alpha, (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR)[..., None]
    result = frame.copy()
    region = result[y0:y1, x0:x1]
    region[...] = (region + mask * (picture.astype(np.float32) - region) + 0.5).astype(np.uint8)
    return result


def paste_all(frame: np.ndarray, parts: Sequence[tuple[np.ndarray, CropPlan, np.ndarray]]) -> np.ndarray:
    """`paste_back` for several crops (stylised, plan, alpha) at once, whose alphas of a pixel sum to 1 at most.

    Pasted one after the other, two halves would leave a quarter of the frame visible between them.
    """
    if len(parts) == 1:
        return paste_back(frame, *parts[0])
    change = np.zeros(frame.shape, np.int16)
    for stylised, plan, alpha in parts:
        change += paste_back(frame, stylised, plan, alpha).astype(np.int16) - frame
    return np.clip(frame + change, 0, 255).astype(np.uint8)


def _ramp(length: int, width: float, start: bool, end: bool) -> np.ndarray:
    """0…1 smooth ramp over `width` pixels at the sides that are asked for, 1 elsewhere: [length] float32."""
    at = np.arange(length, dtype=np.float32) + 0.5
    value = np.full(length, width, np.float32)
    value = np.minimum(value, at) if start else value
    value = np.minimum(value, length - at) if end else value
    value /= width
    return value * value * (3 - 2 * value)


# ---------------------------------------------------------------------------------------------- alignment
def ffhq_quad(landmarks: np.ndarray) -> np.ndarray:
    """Corners [4,2] (upper-left, lower-left, lower-right, upper-right) of the oriented FFHQ square, in pixels.

    Progressive GAN, appendix C: with eye vector e and mouth-to-eye vector m, the centre is eyes − 0.1·m, the side
    max(4·|e|, 3.6·|m|), and the axis lies along e + rotate90(m).
    """
    left, right = eye_centres(landmarks)
    mouth = np.asarray(landmarks, dtype=np.float64)[list(MOUTH_CORNERS)].mean(0)
    eyes = (left + right) / 2
    across, up = right - left, eyes - mouth
    centre = eyes - 0.1 * up
    axis = across + _rotate(up)
    length = np.hypot(*axis)
    if length == 0:
        raise VToonifyError("the landmarks all lie on one point; this is not a face")
    x = axis / length * max(2.0 * np.hypot(*across), 1.8 * np.hypot(*up))
    y = _rotate(x)
    return np.stack([centre - x - y, centre - x + y, centre + x + y, centre + x - y])


def _rotate(vector: np.ndarray) -> np.ndarray:
    return np.array([-vector[1], vector[0]])


def align_face(rgb: np.ndarray, landmarks: np.ndarray, size: int) -> np.ndarray:
    """FFHQ-aligned square [size,size,3] uint8 of the face, for the style encoder. Missing borders are reflected."""
    work, quad = working_image(rgb, ffhq_quad(landmarks), size)
    corners = tuple((quad + 0.5).ravel())
    return np.asarray(work.transform((size, size), Image.Transform.QUAD, corners, Image.Resampling.BILINEAR))


def working_image(rgb: np.ndarray, quad: np.ndarray, size: int) -> tuple[Image.Image, np.ndarray]:
    """Shrink, crop and reflect-pad the picture around the quad: (working picture, quad [4,2] in its pixels).

    The shrink keeps at least 2 source pixels per output pixel (the quad transform does not antialias); the margin is
    a tenth of the side; a face near the edge gets reflected borders of 0.3 sides, blurred outwards.
    """
    picture, quad = Image.fromarray(rgb), quad.copy()
    side = float(np.hypot(*(quad[3] - quad[0])))
    shrink = int(side / size * 0.5)
    if shrink > 1:
        small = (round(picture.width / shrink), round(picture.height / shrink))
        picture, quad, side = picture.resize(small, Image.Resampling.LANCZOS), quad / shrink, side / shrink
    border = max(round(side * 0.1), 3)
    low = np.floor(quad.min(0)).astype(int) - border
    high = np.ceil(quad.max(0)).astype(int) + border
    limit = np.array(picture.size)
    inner_low, inner_high = np.maximum(low, 0), np.minimum(high, limit)
    if (inner_high - inner_low < 2).any():
        raise VToonifyError("the face lies outside of the picture")
    picture = picture.crop((*inner_low, *inner_high))
    missing = np.maximum(np.concatenate([inner_low - low, high - inner_high]), 0)  # left, top, right, bottom
    quad -= inner_low
    if missing.max() > border - 4:
        missing = np.maximum(missing, round(side * 0.3))
        picture = _reflect(np.asarray(picture), missing, side)
        quad += missing[:2]
    return picture, quad


def _reflect(pixels: np.ndarray, missing: np.ndarray, side: float) -> Image.Image:
    """Mirror the picture outwards by `missing` = left, top, right, bottom pixels, then blur and fade the new part."""
    left, top, right, bottom = (int(value) for value in missing)
    mode = "reflect" if min(pixels.shape[:2]) > 1 else "edge"
    padded = np.pad(pixels, ((top, bottom), (left, right), (0, 0)), mode).astype(np.float32)
    height, width = padded.shape[:2]
    y, x = np.ogrid[:height, :width]
    # 1 at the outer rim, 0 at the edge of the real picture, negative inside.
    made_up = np.maximum(1 - np.minimum(x / left, (width - 1 - x) / right),
                         1 - np.minimum(y / top, (height - 1 - y) / bottom)).astype(np.float32)[..., None]
    sigma = 0.02 * side
    reach = 2 * int(4 * sigma + 0.5) + 1
    blurred = cv2.GaussianBlur(padded, (reach, reach), sigma, borderType=cv2.BORDER_REFLECT)
    padded += (blurred - padded) * np.clip(3 * made_up + 1, 0, 1)
    padded += (np.median(padded, axis=(0, 1)) - padded) * np.clip(made_up, 0, 1)
    return Image.fromarray(np.clip(np.rint(padded), 0, 255).astype(np.uint8))
