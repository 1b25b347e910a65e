"""What the landmark networks see in training: rotated and degraded crops, with things in front of the face. NumPy only.

Everything is a function of a random generator. Points are in pixels of the crop, (0, 0) is the middle of its first
pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ..faces.landmarks import (
    FACE_ROOM,
    apply,
    box_from_landmarks,
    crop,
    eye_distance_of,
    eye_matrices,
    face_matrix,
    from_pixels,
)
from ..models.landmarks import EYE_HEIGHT, EYE_WIDTH, FACE_SIDE
from .landmark_data import Example

MIRROR = np.array([*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31, 45, 44, 43, 42, 47, 46,
                   39, 38, 37, 36, 41, 40, 54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66,
                   65, 69, 68])
"""Which point each point of a mirrored face was."""
FACE, EYE = (FACE_SIDE, FACE_SIDE), (EYE_WIDTH, EYE_HEIGHT)
SHIFT, STRETCH = 0.09, 0.13    # standard deviations of a box's place and (log) size: detectors and tracks are not exact
HARD_ROOM = 1.4                # side of what is kept of a hard negative, in sides of its crop
WILD = 0.25                    # share of boxes that are twice as far off: the first guess of a search
FAR = (0.45, np.log(1.8))      # a box that is off by more than this (shift in sides; log size) counts as no face


@dataclass(frozen=True)
class Sample:
    """One crop. points [70,2] or [7,2] in −1 … 1; size: eye distance from the front in the same unit; face 0 or 1."""

    image: np.ndarray
    points: np.ndarray
    openness: np.ndarray
    size: float
    face: float


def mirrored(example: Example) -> Example:
    """The same face as in a mirror."""
    points = example.points * [-1, 1] + [example.image.shape[1] - 1, 0]
    return Example(example.image[:, ::-1], points[MIRROR].astype(np.float32), example.openness[::-1])


def face_sample(example: Example, rng: np.random.Generator, things: Sequence[np.ndarray] = ()) -> Sample:
    """A crop of the whole face. things: pictures that hands and other obstacles are cut from."""
    example = mirrored(example) if rng.random() < 0.5 else example
    box = np.array(box_from_landmarks(example.points[:68]))
    wide = 2.0 if rng.random() < WILD else 1.0
    side = (box[2] - box[0]) * np.exp(rng.normal(0, wide * STRETCH))
    centre = (box[:2] + box[2:]) / 2 + rng.normal(0, wide * SHIFT, 2) * side
    turn = np.radians(np.clip(rng.normal(0, 16), -42, 42))
    matrix = face_matrix(np.concatenate([centre - side / 2, centre + side / 2]), turn)
    points = apply(matrix, example.points.astype(float))
    image = crop(np.ascontiguousarray(example.image), matrix, FACE)
    if rng.random() < 0.35:
        image = covered(image, points, rng, things)
    away = np.abs((box[:2] + box[2:]) / 2 - centre).max() / (box[2] - box[0])
    off = away > FAR[0] or abs(np.log(side / (box[2] - box[0]))) > FAR[1]
    size = eye_distance_of(points[:68]) / (FACE_SIDE / 2)
    return Sample(degraded(image, rng), from_pixels(points, FACE).astype(np.float32), example.openness, size, 1.0 - off)


def eye_sample(example: Example, rng: np.random.Generator) -> Sample:
    """A crop of one eye, placed by landmarks that are a little off, as those of the face network are."""
    example = mirrored(example) if rng.random() < 0.5 else example
    distance = eye_distance_of(example.points[:68])
    turn, grow = rng.normal(0, 0.07), np.exp(rng.normal(0, 0.08))
    middle = example.points[36:42].mean(0)
    spin = grow * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    guess = (example.points[:68] - middle) @ spin.T + middle + rng.normal(0, 0.045, 2) * distance
    matrix = eye_matrices(guess)[0]
    points = apply(matrix, example.points[[*range(36, 42), 68]].astype(float))
    image = crop(np.ascontiguousarray(example.image), matrix, EYE)
    size = distance * np.sqrt(abs(np.linalg.det(matrix[:, :2]))) / (EYE_WIDTH / 2)
    points = from_pixels(points, EYE).astype(np.float32)
    return Sample(degraded(image, rng, fine=True), points, example.openness[:1], size, 1.0)


def without_face(image: np.ndarray) -> Sample:
    """A crop in which there is nothing to find."""
    return Sample(image, np.zeros((70, 2), np.float32), np.zeros(2, np.float32), 1.0, 0.0)


def empty_sample(picture: np.ndarray, rng: np.random.Generator) -> Sample:
    """A square of a picture without a face."""
    height, width = picture.shape[:2]
    side = min(height, width) * rng.uniform(0.15, 1.1) / 1.3
    centre = np.array([rng.uniform(0, width), rng.uniform(0, height)])
    matrix = face_matrix(np.concatenate([centre - side / 2, centre + side / 2]), rng.normal(0, 0.3))
    image = degraded(crop(picture, matrix, FACE), rng)
    return without_face(image)


def hard_negative(picture: np.ndarray, box: Sequence[float]) -> np.ndarray:
    """What a network took for a face in a picture, with room to shift it: uint8 [157,157,3]."""
    side = round(HARD_ROOM * FACE_SIDE)
    return crop(picture, face_matrix(np.array(box, float), room=HARD_ROOM * FACE_ROOM, side=side), (side, side))


def hard_sample(patch: np.ndarray, rng: np.random.Generator) -> Sample:
    """A crop of what `hard_negative` kept."""
    side = patch.shape[0] / (HARD_ROOM * FACE_ROOM) * np.exp(rng.normal(0, 0.1))
    centre = (patch.shape[0] - 1) / 2 + rng.normal(0, 0.07, 2) * side
    image = crop(patch, face_matrix(np.concatenate([centre - side / 2, centre + side / 2]), rng.normal(0, 0.1)), FACE)
    image = image[:, ::-1] if rng.random() < 0.5 else image
    image = degraded(image, rng) if rng.random() < 0.6 else np.ascontiguousarray(image)
    return without_face(image)


def beside_sample(example: Example, rng: np.random.Generator) -> Sample:
    """A box that misses the face, or holds only a part of it, or is far too large."""
    box = np.array(box_from_landmarks(example.points[:68]))
    side, angle = box[2] - box[0], rng.uniform(0, 2 * np.pi)
    if rng.random() < 0.6:
        shift, grow = rng.uniform(0.55, 1.2), np.exp(rng.uniform(-0.7, 0.3))
    else:
        shift, grow = abs(rng.normal(0, 0.1)), np.exp(rng.choice([-1, 1]) * rng.uniform(0.75, 1.3))
    centre = (box[:2] + box[2:]) / 2 + shift * side * np.array([np.cos(angle), np.sin(angle)])
    half = side * grow / 2
    matrix = face_matrix(np.concatenate([centre - half, centre + half]), rng.normal(0, 0.3))
    image = crop(np.ascontiguousarray(example.image), matrix, FACE)
    return without_face(degraded(image, rng))


# -- things in front of the face --------------------------------------------------------------------------------------
def covered(image: np.ndarray, points: np.ndarray, rng: np.random.Generator,
            things: Sequence[np.ndarray]) -> np.ndarray:
    """Sunglasses, a hat, or a hand or the like."""
    lot = rng.random()
    if lot < 0.4:
        return sunglasses(image, points, rng)
    return hat(image, points, rng) if lot < 0.6 else obstacle(image, points, rng, things)


def sunglasses(image: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Dark or tinted lenses with a rim, over both eyes of a crop with points [70,2]."""
    out, mask = image.copy(), np.zeros(image.shape[:2], np.uint8)
    distance = eye_distance_of(points[:68])
    power, height = rng.uniform(2, 5), rng.uniform(0.26, 0.42) * distance
    down = points[48:68].mean(0) - points[36:48].mean(0)
    down = down / np.linalg.norm(down)
    t = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    ring = np.stack([np.sign(f(t)) * np.abs(f(t)) ** (2 / power) for f in (np.cos, np.sin)], 1)
    middles = []
    for a, b in ((36, 39), (42, 45)):
        half = (points[b] - points[a]) * rng.uniform(0.85, 0.95)
        middle = (points[a] + points[b]) / 2 + down * 0.08 * distance
        lens = middle + ring[:, :1] * half + ring[:, 1:] * height * down
        cv2.fillPoly(mask, [np.round(lens * 8).astype(np.int32)], 255, cv2.LINE_AA, 3)
        middles.append(middle)
    bridge = np.round(np.array(middles) * 8).astype(np.int32) - np.round(8 * down * 0.1 * distance).astype(np.int32)
    one, other = (tuple(end.tolist()) for end in bridge)
    cv2.line(mask, one, other, 255, max(1, round(distance / 14)), cv2.LINE_AA, 3)
    tint = rng.uniform(0, 60, 3) if rng.random() < 0.7 else rng.uniform(0, 255, 3)
    shade = np.linspace(rng.uniform(0.3, 1.6), rng.uniform(0.6, 1.4), image.shape[0])[:, None, None] * tint
    weight = (mask / 255 * rng.uniform(0.75, 1))[..., None]
    return np.clip(out * (1 - weight) + shade * weight, 0, 255).astype(np.uint8)


def hat(image: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Everything above a line over the brows in one colour with a little texture."""
    up = points[36:48].mean(0) - points[48:68].mean(0)
    up = up / np.linalg.norm(up)
    edge = points[17:27].mean(0) + up * rng.uniform(-0.12, 0.35) * eye_distance_of(points[:68])
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    bow = rng.normal(0, 0.004) * ((x - edge[0]) * up[1] - (y - edge[1]) * up[0]) ** 2
    above = np.clip((x - edge[0]) * up[0] + (y - edge[1]) * up[1] + bow + 0.5, 0, 1)[..., None]
    texture = cv2.resize(rng.normal(0, 1, (14, 14)).astype(np.float32), image.shape[1::-1])[..., None]
    cloth = rng.uniform(0, 230, 3) * (1 + 0.25 * texture)
    return np.clip(image * (1 - above) + cloth * above, 0, 255).astype(np.uint8)


def obstacle(image: np.ndarray, points: np.ndarray, rng: np.random.Generator,
             things: Sequence[np.ndarray]) -> np.ndarray:
    """An ellipse cut out of another picture, on a third of the face at most; nothing without pictures."""
    if not len(things):
        return image
    other = things[int(rng.integers(len(things)))]
    texture = cv2.resize(other, image.shape[1::-1])
    distance = eye_distance_of(points[:68])
    middle = points[int(rng.choice([*range(17), *range(48, 60), 19, 24, 37, 44]))]
    mask = np.zeros(image.shape[:2], np.uint8)
    axes = rng.uniform(0.15, 0.6, 2) * distance
    cv2.ellipse(mask, tuple(np.round(middle).astype(int).tolist()), tuple(np.round(axes).astype(int).tolist()),
                rng.uniform(0, 180), 0, 360, 255, -1, cv2.LINE_AA)
    weight = (mask / 255.0)[..., None]
    return (image * (1 - weight) + texture * weight).astype(np.uint8)


# -- camera -----------------------------------------------------------------------------------------------------------
def degraded(image: np.ndarray, rng: np.random.Generator, fine: bool = False) -> np.ndarray:
    """Degradations of a camera: light, colour, blur, resolution, noise, JPEG. uint8 → uint8. fine: milder, for eyes."""
    x = image.astype(np.float32) / 255
    x = x ** np.float32(np.exp(rng.normal(0, 0.3)))
    x *= np.exp(rng.normal(0, 0.1, 3)).astype(np.float32) * np.float32(np.exp(rng.normal(0, 0.2)))
    if rng.random() < 0.15:
        x = np.repeat(x.mean(-1, keepdims=True), 3, -1)
    elif rng.random() < 0.5:
        grey = x.mean(-1, keepdims=True)
        x = grey + np.float32(rng.uniform(0.3, 1.5)) * (x - grey)
    if rng.random() < 0.15:  # light from one side
        y, x_ = np.mgrid[: x.shape[0], : x.shape[1]]
        angle = rng.uniform(0, 2 * np.pi)
        ramp = (np.cos(angle) * (x_ / x.shape[1] - 0.5) + np.sin(angle) * (y / x.shape[0] - 0.5)).astype(np.float32)
        x *= np.exp(np.float32(rng.uniform(0.5, 2.2)) * ramp)[..., None]
    lot = rng.random()
    if lot < 0.25:
        x = cv2.GaussianBlur(x, (0, 0), rng.uniform(0.4, 1.3 if fine else 1.8))
    elif lot < 0.45:
        small = rng.uniform(0.35 if fine else 0.25, 0.9)
        size = (max(8, round(x.shape[1] * small)), max(8, round(x.shape[0] * small)))
        x = cv2.resize(cv2.resize(x, size, interpolation=cv2.INTER_AREA), x.shape[1::-1])
    if rng.random() < 0.25:  # little light: dark, then amplified with its noise
        x *= np.float32(rng.uniform(0.15, 0.6))
    if rng.random() < 0.5:
        x += rng.normal(0, rng.uniform(0, 0.03 if fine else 0.04), x.shape).astype(np.float32)
    out = (np.clip(x, 0, 1) * 255).astype(np.uint8)
    if rng.random() < 0.3:
        out = cv2.imdecode(cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 90))])[1], 1)
    return out
