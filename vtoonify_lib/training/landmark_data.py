"""Faces with known landmarks to train on: renders of the studio, and photographs whose points a teacher marked.

An `Example` is a picture with 68 landmarks (iBUG order), two iris centres and how open each eye is. Of renders all this
is exact; of photographs it comes from a file of labels (`read_labels`). Crops, wear and occlusion are in
`landmark_crops`.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..config import VToonifyError
from ..faces.landmarks import box_from_landmarks
from ..media.images import read_image
from ..studio.exemplars import EXEMPLARS, LOOKS, exemplar
from ..studio.geometry import Scene, project
from ..studio.people import Person, person, sample_z, unit_target
from ..studio.styles import PHOTO, Style, at, restyle

CHUNK = 64
SIZE = 320          # side of a render: eyes are then as fine as in the crops that the eye network reads
ROOM = 3.2          # side of what is kept of a photograph, in face boxes: room for turned and shifted crops
KEPT_FACE = 170     # a face box is kept at this side at most, in pixels: finer than any crop
POSE = np.radians([60, 30, 10])  # largest yaw, pitch and roll of a render; crops turn it further
GAZE = np.radians([28, 16])
STYLED = 0.12       # of the renders are cartoons
LIDS = (0.45, 0.65, 0.80)  # shares, added up: eyes as they come; both partly shut; one shut; the rest is shut


@dataclass(frozen=True)
class Example:
    """A face to learn from.

    image     uint8 RGB [H,W,3]
    points    float32 [70,2]: 68 landmarks and the iris centres, the subject's right first; (0, 0) is the middle of the
              top left pixel
    openness  float32 [2]: distance of the lids over the width of the eye, the subject's right first
    """

    image: np.ndarray
    points: np.ndarray
    openness: np.ndarray


def openness(landmarks: np.ndarray) -> np.ndarray:
    """Distance of the lids over the width of the eye, right and left, from points [68,2] or [68,3] → [2]."""
    out = []
    for i in (36, 42):
        a, b, c, d, e, f = landmarks[i : i + 6]
        out.append((np.linalg.norm(b - f) + np.linalg.norm(c - e)) / 2 / max(np.linalg.norm(a - d), 1e-9))
    return np.array(out, np.float32)


def irises(scene: Scene) -> np.ndarray:
    """Middle of each iris in space, the subject's right first, [2,3]."""
    out = []
    for eye in reversed(scene.eyes):
        ball = eye.part.positions[np.unique(eye.part.triangles)]
        out.append(eye.center + eye.gaze * np.linalg.norm(ball - eye.center, axis=1).max())
    return np.array(out)


def draw_lot(rng: np.random.Generator) -> Person:
    """A person as the studio draws them, but turned far, looking anywhere, and often with lids half or quite down."""
    who = person(sample_z(rng, 1)[0], wide=True)
    spread = np.where(rng.random(3) < 0.5, 0.45 * rng.standard_normal(3), rng.uniform(-1, 1, 3))
    framing = np.array([rng.uniform(0.66, 0.95), *rng.normal(0, 0.02, 2), 0.0])
    return who.with_(pose=np.clip(spread, -1, 1) * POSE, gaze=np.clip(rng.normal(0, 0.6, 2), -1.3, 1.3) * GAZE,
                     framing=framing, expression=_lids(who, rng))


def _lids(who: Person, rng: np.random.Generator) -> dict[str, float]:
    """The person's expression with lids by lot, see LIDS."""
    lot, both = rng.random(), rng.uniform(0.1, 0.7)
    if lot < LIDS[0]:
        return who.expression
    if lot < LIDS[1]:
        closed = np.clip(both + rng.normal(0, 0.05, 2), 0, 1)
    elif lot < LIDS[2]:
        closed = rng.permutation([rng.uniform(0.6, 1), max(0.0, rng.normal(0, 0.2))])
    else:
        closed = np.clip(rng.uniform(0.7, 1.05) + rng.normal(0, 0.02, 2), 0, 1)
    out = {name: v for name, v in who.expression.items() if "closure" not in name and "opened-up" not in name}
    for side, amount in zip(("right", "left"), closed, strict=True):
        out[unit_target(f"eye-{side}-closure", who.ethnicity)] = float(min(amount, 1.0))
    return out


def render(folder: str | os.PathLike, count: int, seed: int = 0) -> list[Path]:
    """Draw `count` people into chunks in `folder`, those that are missing → the files, for `renders`."""
    from ..studio.render import Studio

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{start:06d}.npz" for start in range(0, count, CHUNK)]
    studio = None
    for start, path in zip(range(0, count, CHUNK), paths, strict=True):
        if path.exists():
            continue
        studio = studio or Studio(size=SIZE, fine=1)
        rng = np.random.default_rng([seed, start])
        drawn = [_drawn(studio, draw_lot(rng), draw_style(rng)) for _ in range(min(CHUNK, count - start))]
        part = path.with_suffix(".part.npz")
        np.savez(part, **{name: np.stack([getattr(e, name) for e in drawn]) for name in Example.__annotations__})
        os.replace(part, path)
    return paths


def draw_style(rng: np.random.Generator) -> Style:
    """A photograph, or now and then a cartoon at any degree: drawings are judged by their landmarks, too."""
    if rng.random() >= STYLED:
        return PHOTO
    return at(exemplar(str(rng.choice(LOOKS)), int(rng.integers(EXEMPLARS)))[1], *rng.uniform(0.3, 1, 2).tolist())


def _drawn(studio, who: Person, style: Style) -> Example:
    dressed = restyle(who, style)
    scene = studio.sculptor.scene(dressed, style.warp)
    picture = studio.draw(scene, dressed, style, truth=False)
    eyes = project(irises(scene), scene.camera) * [studio.width, studio.height]
    points = np.concatenate([picture.landmarks, eyes]).astype(np.float32) - 0.5
    return Example(picture.image, points, openness(scene.landmarks))


def renders(paths: list[Path]) -> list[Example]:
    """What `render` drew."""
    out = []
    for path in paths:
        with np.load(path) as data:
            out += [Example(*row) for row in zip(*(data[name] for name in Example.__annotations__), strict=True)]
    return out


def read_labels(path: str | os.PathLike, photos: str | os.PathLike | None = None,
                without: Collection[str] = ()) -> Iterator[tuple[str, Example, float]]:
    """Photographs with the labels of an .npz file.

    It holds path [n], points [n,68,2] and irises [n,2,2] in pixels ((0.5, 0.5) is the middle of the first one, as in
    renders), openness [n,2], found [n], and may hold weight [n].
    photos   folder in which relative paths are looked up
    without  paths that are left out: what is kept for judging
    → path as it is in the file, the face with the room around it, and its weight
    """
    names = ("path", "points", "irises", "openness", "found")
    with np.load(path) as data:
        missing = set(names) - set(data.files)
        if missing:
            raise VToonifyError(f"{path} has no {', '.join(sorted(missing))}; it is no file of landmark labels")
        weights = data["weight"] if "weight" in data.files else np.ones(len(data["path"]))
        rows = [*(data[name] for name in names), weights]
    for name, points, eyes, opened, found, weight in zip(*rows, strict=True):
        if found and weight > 0 and str(name) not in without:
            picture = read_image(Path(photos or ".") / str(name))
            points = (np.concatenate([points, eyes]) - 0.5).astype(np.float32)
            yield str(name), around(Example(picture, points, opened)), float(weight)


def around(example: Example) -> Example:
    """What is `ROOM` boxes around the face, no finer than needed; the picture's edge is repeated beyond it."""
    box = np.array(box_from_landmarks(example.points[:68]))
    side = float(box[2] - box[0])
    scale = min(1.0, KEPT_FACE / side)
    size = round(ROOM * side * scale)
    origin = (box[:2] + box[2:]) / 2 - ROOM * side / 2
    image = example.image
    if scale < 0.7:
        image = cv2.GaussianBlur(image, (0, 0), 0.45 / scale)
    move = np.array([[scale, 0, -origin[0] * scale], [0, scale, -origin[1] * scale]])
    kept = cv2.warpAffine(image, move, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return Example(kept, ((example.points - origin) * scale).astype(np.float32), example.openness)
