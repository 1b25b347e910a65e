"""Follow a face from frame to frame; several at a time are in `multi_tracker`, whole clips in `trajectory`.

`FaceTrack` sees frames one by one (file or webcam): the detector looks around the face every few frames, at the whole
picture now and then, and at once when the landmark fit is lost; in between the landmarks of the last frame say where
to look.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .crop import eye_distance
from .detector import SURE_AGAIN, Face, FaceFinder
from .landmarks import box_from_landmarks

PATIENCE = 0.4          # seconds for which a good landmark fit is trusted although the detector finds no face
SLACK = 0.02            # spread that a second fit, from the box of the first one's landmarks, may lose
SAME_FACE = 1.0         # a detection within this many box sides of the last one is the same person
FLAT = 0.4              # a face whose contrast falls to less than this from frame to frame has gone: on a plain picture
                        # landmarks agree with each other, too
WIDE_EVERY = 4          # looks of the detector of which one is at the whole picture while the face is where it was
THOROUGH_EVERY = 10     # while no face is known, the slow search runs on every 10th frame only


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


def _contrast(rgb: np.ndarray, face: Face) -> float:
    """Standard deviation inside the box around a face's landmarks, uint8 RGB [H,W,3]; 0 outside of the picture."""
    x0, y0, x1, y1 = np.clip(box_from_landmarks(face.landmarks), 0, [*rgb.shape[1::-1]] * 2).astype(int)
    step = max(1, (x1 - x0) // 32)
    patch = rgb[y0:y1:step, x0:x1:step]
    return float(patch.std()) if patch.size else 0.0


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
        self.following = False              # whether the last update found the face
        self._age = self._searches = 0      # frames since the detector looked; frames searched in vain
        self._looks = 0                     # of the detector in a row that were around the face alone
        self.last_seen = -np.inf            # seconds at which the detector last confirmed the face
        self._contrast = 0.0                # of the last face
        self._filter = OneEuro()

    def update(self, rgb: np.ndarray, time: float, seen: Sequence[Face] | None = None) -> Face | None:
        """Look at the next frame, uint8 RGB [H,W,3] shown at `time` seconds.

        seen: what a detector saw in it that may be this face, largest first; by default the track looks itself
        """
        self.jumped = False
        face, detected = self._follow(rgb) if self.following else None, False
        if face is None or self._age + 1 >= self.every or seen:
            found = self._detect(rgb, self._look(rgb, face) if seen is None else seen)
            detected = found is not None or (face is not None and self.finder.confirm(rgb, face) is not None)
            if not detected and (face is None or time - self.last_seen > PATIENCE):
                self.following = False
                return None
            face = found or face
        self._age = 0 if detected else self._age + 1
        self.last_seen = time if detected else self.last_seen
        self._face, self.following, self._searches = face, True, 0
        self._contrast = _contrast(rgb, face)
        if self.jumped:
            self._filter = OneEuro()
        return self._smooth(face, float(time))

    def _smooth(self, face: Face, time: float) -> Face:
        """Landmarks and irises through the filter; lids are not held back: a blink is as quick as it is."""
        points = face.landmarks if face.irises is None else np.concatenate([face.landmarks, face.irises])
        points = self._filter(points, time, eye_distance(face.landmarks))
        return replace(face, landmarks=points[:68], irises=None if face.irises is None else points[68:])

    def still_there(self, rgb: np.ndarray) -> bool:
        """Whether the face that was followed is still where it was, in the next frame, uint8 RGB [H,W,3]."""
        return self.following and self._follow(rgb) is not None

    def _follow(self, rgb: np.ndarray) -> Face | None:
        """Fit from the landmarks of the last frame; None when the result is not reliable."""
        last = self._face
        face = self.finder.fit(rgb, replace(last, box=box_from_landmarks(last.landmarks)))
        ratio = eye_distance(face.landmarks) / max(eye_distance(last.landmarks), 1e-6)
        height, width = rgb.shape[:2]
        x, y = face.landmarks.mean(0)
        lost = not face.is_reliable(SURE_AGAIN) or not 0.8 < ratio < 1.25 or not (0 <= x < width and 0 <= y < height)
        return None if lost or _contrast(rgb, face) < FLAT * self._contrast else face

    def _look(self, rgb: np.ndarray, face: Face | None) -> list[Face]:
        """What the detector sees: around a face that is still followed, which costs a quarter, or everywhere."""
        self._looks = 0 if face is None or self._looks + 1 == WIDE_EVERY else self._looks + 1
        near = self.finder.confirm(rgb, face) if self._looks else None
        if near is not None and near.score >= 0:
            return [self.finder.fit(rgb, near)]
        self._searches += 1
        return self.finder.faces(rgb, (self._searches - 1) % THOROUGH_EVERY == 0)

    def _detect(self, rgb: np.ndarray, found: Sequence[Face]) -> Face | None:
        """The largest of the faces seen, or the one that was followed; fitted twice so that boxes agree."""
        if not found:
            return None
        self.most_faces = max(self.most_faces, len(found))
        chosen, last = found[0], self._face
        if last is not None:
            near = min(found, key=self.distance_to)
            self.jumped = self.distance_to(near) > SAME_FACE
            chosen = chosen if self.jumped else near
        again = self.finder.fit(rgb, replace(chosen, box=box_from_landmarks(chosen.landmarks)))
        return again if again.spread <= chosen.spread + SLACK else chosen

    def distance_to(self, face: Face) -> float:
        """How far a face is from where this one was last, in box sides; infinite before there was one."""
        last = self._face
        return np.inf if last is None else float(np.hypot(*(face.centre - last.centre))) / max(face.side, last.side)
