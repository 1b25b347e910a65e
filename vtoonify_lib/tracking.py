"""Follow one face through a clip, and plan one crop for all of its frames.

`FaceTrack` sees frames one by one (file or webcam): the detector looks at every few frames and at once when the
landmark fit is lost; in between the landmarks of the last frame say where to look. `track_clip` runs it over a clip and
keeps four numbers a frame, never pixels, so that `plan_clip` can choose one steady crop that holds the face for the
whole clip, or, when the face moves too far or comes much closer, a crop that glides after it. The published system
takes the crop of the first frame and keeps it (SPEC §9); frames without a face are never dropped here.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from .config import VToonifyError
from .faces import UNSURE_SPREAD, Face, FaceFinder, align_face, box_from_landmarks, eye_centres, eye_distance
from .framing import GRID, CropPlan, plan_around, usual_padding

PATIENCE = 0.4          # seconds for which a good landmark fit is believed although the detector sees no face
SLACK = 0.02            # spread that a second fit, from the box of the first one's landmarks, may lose
SAME_FACE = 1.0         # a detection within this many box sides of the last one is the same person
THOROUGH_EVERY = 10     # while no face is known, the slow search runs on every 10th frame only
LEAD_IN = 0.5           # seconds before the first detection that surely show the face already
STYLE_WINDOW = 10.0     # seconds after the first detection in which the frame for the style code is chosen
ROAM = 1.0              # eyes may roam this many paddings before one steady crop becomes wasteful
ZOOM = 1.6              # eye distance may vary by this factor under one steady scale
GLIDE = 0.7             # seconds, standard deviation of the smoothing of a gliding crop


class OneEuro:
    """One-Euro filter (Casiez et al. 2012): steady when the points rest, prompt when they move.

    Points in any unit per call of shape [N,2]; `unit` (here the eye distance) makes speeds comparable.
    cutoff Hz at rest, plus `beta` Hz for each unit per second.
    """

    def __init__(self, cutoff: float = 1.5, beta: float = 8.0, speed_cutoff: float = 2.0) -> None:
        self.cutoff, self.beta, self.speed_cutoff = cutoff, beta, speed_cutoff
        self._time: float | None = None

    def __call__(self, points: np.ndarray, time: float, unit: float) -> np.ndarray:
        if self._time is None or time <= self._time:
            self._time, self._points, self._speed = time, points, np.zeros_like(points)
            return points
        step, self._time = time - self._time, time
        speed = (points - self._points) / step
        self._speed = self._speed + _blend(self.speed_cutoff, step) * (speed - self._speed)
        cutoff = self.cutoff + self.beta * np.linalg.norm(self._speed, axis=1, keepdims=True) / unit
        self._points = self._points + _blend(cutoff, step) * (points - self._points)
        return self._points.astype(np.float32)


def _blend(cutoff: float | np.ndarray, step: float) -> float | np.ndarray:
    return 1 / (1 + 1 / (2 * np.pi * cutoff * step))


class FaceTrack:
    """The face of one person, frame by frame: `face = track.update(rgb, time)`, None where there is none.

    every      frames between two looks of the detector
    most_faces largest number of faces seen in one frame so far; the largest is followed
    jumped     True when the last update found the face in another place than before: a cut, or another person
    """

    def __init__(self, finder: FaceFinder, every: int = 5) -> None:
        self.finder, self.every = finder, every
        self.most_faces, self.jumped = 0, False
        self._face: Face | None = None      # last face, unsmoothed; kept when lost, to know the same person again
        self._following = False
        self._age = self._searches = 0      # frames since the detector looked; frames searched in vain
        self._seen = -np.inf                # time at which the detector last confirmed the face
        self._filter = OneEuro()

    def update(self, rgb: np.ndarray, time: float) -> Face | None:
        """Look at the next frame, uint8 RGB [H,W,3] shown at `time` seconds."""
        self.jumped = False
        face, detected = self._follow(rgb) if self._following else None, False
        if face is None or self._age + 1 >= self.every:
            found = self._detect(rgb)
            detected = found is not None or (face is not None and self.finder.near(rgb, face) is not None)
            if not detected and (face is None or time - self._seen > PATIENCE):
                self._following = False
                return None
            face = found or face
        self._age = 0 if detected else self._age + 1
        self._seen = time if detected else self._seen
        self._face, self._following, self._searches = face, True, 0
        if self.jumped:
            self._filter = OneEuro()
        return replace(face, landmarks=self._filter(face.landmarks, float(time), eye_distance(face.landmarks)))

    def _follow(self, rgb: np.ndarray) -> Face | None:
        """Fit from the landmarks of the last frame; None when the result is not believable."""
        last = self._face
        face = self.finder.fit(rgb, replace(last, box=box_from_landmarks(last.landmarks)))
        ratio = eye_distance(face.landmarks) / max(eye_distance(last.landmarks), 1e-6)
        height, width = rgb.shape[:2]
        x, y = face.landmarks.mean(0)
        lost = face.spread > UNSURE_SPREAD or not 0.8 < ratio < 1.25 or not (0 <= x < width and 0 <= y < height)
        return None if lost else face

    def _detect(self, rgb: np.ndarray) -> Face | None:
        """The largest face, or the one that was followed, from the detector; fitted twice so that boxes agree."""
        found = self.finder.faces(rgb, thorough=self._searches % THOROUGH_EVERY == 0)
        self._searches += 1
        if not found:
            return None
        self.most_faces = max(self.most_faces, len(found))
        chosen, last = found[0], self._face
        if last is not None:
            near = min(found, key=lambda face: float(np.hypot(*(face.centre - last.centre))))
            self.jumped = float(np.hypot(*(near.centre - last.centre))) > SAME_FACE * max(near.side, last.side)
            chosen = chosen if self.jumped else near
        again = self.finder.fit(rgb, replace(chosen, box=box_from_landmarks(chosen.landmarks)))
        return again if again.spread <= chosen.spread + SLACK else chosen


# ------------------------------------------------------------------------------------------------ whole clips
@dataclass
class ClipTrack:
    """What is known about the face in each frame of a clip: four numbers a frame, and one aligned picture.

    times, x, y, distance   seconds; eye centre and eye distance in pixels, nan where no face was found
    cuts                    frames at which the face jumped
    aligned                 aligned face [S,S,3] uint8 of the best early frame, for the style code; None without a face
    """

    times: array = field(default_factory=lambda: array("d"))
    x: array = field(default_factory=lambda: array("d"))
    y: array = field(default_factory=lambda: array("d"))
    distance: array = field(default_factory=lambda: array("d"))
    cuts: list[int] = field(default_factory=list)
    frame_shape: tuple[int, ...] = ()
    most_faces: int = 0
    aligned: np.ndarray | None = None
    aligned_score: float = -np.inf

    @property
    def frames(self) -> int:
        return len(self.times)

    @property
    def found(self) -> np.ndarray:
        """True for each frame in which the face was found: [N] bool."""
        return ~np.isnan(np.asarray(self.distance))

    @property
    def first(self) -> int | None:
        """The first frame with a face, or None."""
        found = np.flatnonzero(self.found)
        return int(found[0]) if len(found) else None

    def lead(self) -> int:
        """How many frames are shown well before the face first appears: those are not to be toonified."""
        if self.first is None:
            return self.frames
        return int(np.searchsorted(np.asarray(self.times), self.times[self.first] - LEAD_IN))

    def add(self, face: Face | None, time: float) -> None:
        """Append one frame."""
        centre, distance = (np.nan, np.nan), np.nan
        if face is not None:
            left, right = eye_centres(face.landmarks)
            centre, distance = (left + right) / 2, eye_distance(face.landmarks)
        self.times.append(float(time))
        self.x.append(float(centre[0]))
        self.y.append(float(centre[1]))
        self.distance.append(float(distance))


def track_clip(frames: Iterable[tuple[np.ndarray, float]], finder: FaceFinder, align_size: int,
               every: int = 5) -> ClipTrack:
    """Follow the largest face through (uint8 RGB [H,W,3], seconds) pairs; pixels are not kept."""
    clip, track = ClipTrack(), FaceTrack(finder, every)
    start = None
    for index, (rgb, time) in enumerate(frames):
        clip.frame_shape = clip.frame_shape or rgb.shape
        face = track.update(rgb, time)
        clip.add(face, time)
        if face is None:
            continue
        start = time if start is None else start
        if track.jumped:
            clip.cuts.append(index)
        if face.score > clip.aligned_score and time - start <= STYLE_WINDOW:
            clip.aligned, clip.aligned_score = align_face(rgb, face.landmarks, align_size), face.score
    clip.most_faces = track.most_faces
    return clip


@dataclass(frozen=True)
class ClipPlan:
    """One crop for every frame of a clip, all of the same size: `plan.at(index)`.

    steady: the same crop throughout; otherwise it glides after the face.
    """

    plans: tuple[CropPlan, ...]

    @property
    def steady(self) -> bool:
        return len(self.plans) == 1

    @property
    def width(self) -> int:
        return self.plans[0].width

    @property
    def height(self) -> int:
        return self.plans[0].height

    def at(self, index: int) -> CropPlan:
        """The crop of frame `index`; the last one goes on if the clip turns out longer than it was."""
        return self.plans[min(index, len(self.plans) - 1)]


def plan_clip(track: ClipTrack, in_size: int, padding: float | None = None) -> ClipPlan:
    """The crop for each frame: steady while the eyes stay within one padding, gliding otherwise.

    Raises VToonifyError when the clip shows no face, or one too small.
    """
    found = track.found
    if not found.any():
        raise VToonifyError(f"no face was found in any of the {track.frames} frames")
    padding = usual_padding(in_size, padding)
    x, y, distance = (np.asarray(values) for values in (track.x, track.y, track.distance))
    usual = float(np.median(distance[found]))
    low, high = np.percentile(distance[found], (5, 95))
    bounds = (x[found].min(), y[found].min(), x[found].max(), y[found].max())
    plan = plan_around(track.frame_shape, bounds, usual, in_size, padding)
    roam = max(bounds[2] - bounds[0], bounds[3] - bounds[1]) * plan.scale
    if roam <= ROAM * padding and high / low <= ZOOM:
        return ClipPlan((plan,))
    return _glide(track, in_size, padding)


def _glide(track: ClipTrack, in_size: int, padding: float) -> ClipPlan:
    """A crop of one size whose centre and scale follow the face smoothly, and jump where the picture jumps."""
    height, width = track.frame_shape[:2]
    x, y, distance = _smoothed(track)
    scale = in_size / 4 / distance
    w = int(min(2 * padding, width * scale.min()) // GRID) * GRID
    h = int(min(2 * padding, height * scale.min()) // GRID) * GRID
    if min(w, h) < 2 * GRID:
        raise VToonifyError(f"the picture is {width}×{height} px, too small around the face for a crop")
    plans = []
    for cx, cy, s in zip(x, y, scale, strict=True):
        left = float(np.clip(cx * s - w / 2, 0, max(width * s - w, 0)))
        top = float(np.clip(cy * s - h / 2, 0, max(height * s - h, 0)))
        plans.append(CropPlan(float(s), left, top, left + w, top + h, width, height))
    return ClipPlan(tuple(plans))


def _smoothed(track: ClipTrack) -> np.ndarray:
    """x, y, eye distance of every frame [3,N]: gaps filled, Gaussian in time, never across a cut."""
    values = np.stack([np.asarray(track.x), np.asarray(track.y), np.asarray(track.distance)])
    times, found = np.asarray(track.times), track.found
    step = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
    sigma = GLIDE / max(step, 1e-3)
    reach = int(3 * sigma) + 1
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    result = np.empty_like(values)
    edges = [0, *(cut for cut in track.cuts if cut), len(times)]
    for start, end in zip(edges[:-1], edges[1:], strict=True):
        inside = np.flatnonzero(found[start:end]) + start
        inside = inside if len(inside) else np.flatnonzero(found)
        for row in range(3):
            filled = np.interp(times[start:end], times[inside], values[row, inside])
            padded = np.pad(filled, reach, mode="edge")
            result[row, start:end] = np.convolve(padded, kernel / kernel.sum(), mode="valid")
    return result
