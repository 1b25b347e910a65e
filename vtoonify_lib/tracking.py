"""Follow a face through a clip, or several.

`FaceTrack` sees frames one by one (file or webcam): the detector looks around the face every few frames, at the whole
picture now and then, and at once when the landmark fit is lost; in between the landmarks of the last frame say where
to look. `track_clip` runs it over a clip and
keeps four numbers a frame, never pixels; what is made of them, is in `planning`. `People` has a track for everybody.
"""

from __future__ import annotations

import os
import zipfile
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path

import cv2
import numpy as np

from .config import VToonifyError
from .faces import UNSURE_SPREAD, Face, FaceFinder, align_face, box_from_landmarks, eye_centres, eye_distance

PATIENCE = 0.4          # seconds for which a good landmark fit is believed although the detector sees no face
SLACK = 0.02            # spread that a second fit, from the box of the first one's landmarks, may lose
SAME_FACE = 1.0         # a detection within this many box sides of the last one is the same person
WIDE_EVERY = 4          # looks of the detector of which one is at the whole picture while the face is where it was
THOROUGH_EVERY = 10     # while no face is known, the slow search runs on every 10th frame only
CUT_GREY = 22.0         # grey levels, mean over the picture, that only another scene changes from frame to frame
CUT_RATIO = 3.0         # and so many times what the frames before changed
STYLE_WINDOW = 10.0     # seconds after the first detection in which the frame for the style code is chosen


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
        self.following = False              # whether the last update found the face
        self._age = self._searches = 0      # frames since the detector looked; frames searched in vain
        self._looks = 0                     # of the detector in a row that were around the face alone
        self._seen = -np.inf                # time at which the detector last confirmed the face
        self._filter = OneEuro()

    def update(self, rgb: np.ndarray, time: float, seen: Sequence[Face] | None = None) -> Face | None:
        """Look at the next frame, uint8 RGB [H,W,3] shown at `time` seconds.

        seen: what a detector saw in it that may be this face, largest first; by default the track looks itself
        """
        self.jumped = False
        face, detected = self._follow(rgb) if self.following else None, False
        if face is None or self._age + 1 >= self.every or seen:
            found = self._detect(rgb, self._look(rgb, face) if seen is None else seen)
            detected = found is not None or (face is not None and self.finder.near(rgb, face) is not None)
            if not detected and (face is None or time - self._seen > PATIENCE):
                self.following = False
                return None
            face = found or face
        self._age = 0 if detected else self._age + 1
        self._seen = time if detected else self._seen
        self._face, self.following, self._searches = face, True, 0
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

    def _look(self, rgb: np.ndarray, face: Face | None) -> list[Face]:
        """What the detector sees: around a face that is still followed, which costs a quarter, or everywhere."""
        self._looks = 0 if face is None or self._looks + 1 == WIDE_EVERY else self._looks + 1
        near = self.finder.near(rgb, face) if self._looks else None
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
            near = min(found, key=self.away)
            self.jumped = self.away(near) > SAME_FACE
            chosen = chosen if self.jumped else near
        again = self.finder.fit(rgb, replace(chosen, box=box_from_landmarks(chosen.landmarks)))
        return again if again.spread <= chosen.spread + SLACK else chosen

    def away(self, face: Face) -> float:
        """How far a face is from where this one was last, in box sides; infinite before there was one."""
        last = self._face
        return np.inf if last is None else float(np.hypot(*(face.centre - last.centre))) / max(face.side, last.side)


class People:
    """Several faces at a time, each with a `FaceTrack` of its own: `faces = people.update(rgb, time)`.

    most  people at most; who comes when so many are known takes the place of one who is not to be seen
    """

    def __init__(self, finder: FaceFinder, most: int, every: int = 5) -> None:
        self.finder, self.most, self.every = finder, most, every
        self.tracks: list[FaceTrack] = [FaceTrack(finder, every)] if most == 1 else []
        self._count = 0
        self._lost = True  # somebody, with the last frame

    def update(self, rgb: np.ndarray, time: float) -> list[Face | None]:
        """Look at the next frame, as `FaceTrack.update` → a face, or None, for each person known so far."""
        if self.most == 1:
            return [self.tracks[0].update(rgb, time)]
        due = self._lost or self._count % self.every == 0
        found = self.finder.faces(rgb, self._count % THOROUGH_EVERY == 0) if due else []
        self._count += 1
        followed = [track.following for track in self.tracks]
        faces = [track.update(rgb, time, seen) for track, seen in self._shared_out(found)]
        self._lost = not any(faces) or any(was and face is None for was, face in zip(followed, faces, strict=False))
        return faces

    def _shared_out(self, found: list[Face]) -> list[tuple[FaceTrack, list[Face]]]:
        """Each track and the detection that is nearest to it; tracks are made for those that are nobody's."""
        mine: dict[int, Face] = {}
        left = list(range(len(found)))
        near = sorted((track.away(face), who, i) for who, track in enumerate(self.tracks)
                      for i, face in enumerate(found))
        for away, who, i in near:
            if away <= SAME_FACE and who not in mine and i in left:
                mine[who] = found[i]
                left.remove(i)
        for i in left:  # largest first, as found
            free = [who for who, track in enumerate(self.tracks) if who not in mine and not track.following]
            if len(self.tracks) < self.most:
                self.tracks.append(FaceTrack(self.finder, self.every))
                mine[len(self.tracks) - 1] = found[i]
            elif free:
                mine[free[0]] = found[i]
        return [(track, [mine[who]] if who in mine else []) for who, track in enumerate(self.tracks)]


class SceneCuts:
    """Tells where another scene begins: `cuts.update(rgb)` is True for its first frame, uint8 RGB [H,W,3].

    That is where a frame, small and grey, differs from the one before by more than CUT_GREY levels, and by CUT_RATIO
    times what the frames before it did: a camera that is moved fast changes every frame.
    """

    def __init__(self) -> None:
        self._last: np.ndarray | None = None
        self._usual = 0.0  # running mean of the differences

    def update(self, rgb: np.ndarray) -> bool:
        step = max(1, max(rgb.shape) // 160)
        small = cv2.resize(cv2.cvtColor(np.ascontiguousarray(rgb[::step, ::step]), cv2.COLOR_RGB2GRAY), (32, 18),
                           interpolation=cv2.INTER_AREA).astype(np.float32)
        change = 0.0 if self._last is None else float(np.abs(small - self._last).mean())
        cut = change > CUT_GREY and change > CUT_RATIO * self._usual
        self._usual += 0.2 * (min(change, CUT_GREY) - self._usual)
        self._last = small
        return cut


# ------------------------------------------------------------------------------------------------ whole clips
@dataclass
class ClipTrack:
    """What is known about the face in each frame of a clip: four numbers a frame, and one aligned picture.

    times, x, y, distance   seconds; eye centre and eye distance in pixels, nan where no face was found
    cuts                    frames with which another scene begins, or at which the face jumped
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

    @property
    def scenes(self) -> list[range]:
        """The frames of each scene, between the cuts."""
        edges = sorted({0, self.frames, *(cut for cut in self.cuts if 0 < cut < self.frames)})
        return [range(start, end) for start, end in zip(edges[:-1], edges[1:], strict=True)]

    def without_face(self) -> ClipTrack:
        """The same frames, with somebody who is in none of them."""
        nowhere = [array("d", [np.nan] * self.frames) for _ in range(3)]
        return ClipTrack(array("d", self.times), *nowhere, list(self.cuts), self.frame_shape)

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
    return track_people(frames, finder, align_size, 1, every)[0]


def track_people(frames: Iterable[tuple[np.ndarray, float]], finder: FaceFinder, align_size: int, most: int,
                 every: int = 5) -> list[ClipTrack]:
    """`track_clip` for up to `most` people, in the order in which they appear; one track at least, face or none."""
    clips, people, scenes = [ClipTrack()], People(finder, most, every), SceneCuts()
    for index, (rgb, time) in enumerate(frames):
        faces, cut = people.update(rgb, time), scenes.update(rgb)
        while len(clips) < len(faces):
            clips.append(clips[0].without_face())
        for clip, face, jumped in zip_longest(clips, faces, [track.jumped for track in people.tracks]):
            clip.frame_shape = clip.frame_shape or rgb.shape
            clip.add(face, time)
            if cut or jumped:
                clip.cuts.append(index)
            first = clip.first
            if face is not None and face.score > clip.aligned_score and time - clip.times[first] <= STYLE_WINDOW:
                clip.aligned, clip.aligned_score = align_face(rgb, face.landmarks, align_size), face.score
    for clip in clips:
        clip.most_faces = max([len(people.tracks), *(track.most_faces for track in people.tracks)])
    return clips


def save_tracks(path: Path, tracks: Sequence[ClipTrack], notes: Sequence[str]) -> None:
    """Write tracks and notes down, so that a clip need not be watched again. VToonifyError when the disk is full."""
    arrays: dict[str, np.ndarray] = {"notes": np.array(notes, dtype=str), "count": np.array(len(tracks))}
    for number, track in enumerate(tracks):
        values = {name: np.asarray(getattr(track, name)) for name in ("times", "x", "y", "distance")}
        values |= {"cuts": np.array(track.cuts, int), "shape": np.array(track.frame_shape, int),
                   "score": np.array([track.aligned_score, track.most_faces])}
        if track.aligned is not None:
            values["aligned"] = track.aligned
        arrays |= {f"{number}_{name}": value for name, value in values.items()}
    part = path.with_suffix(".part.npz")
    try:
        np.savez(part, **arrays)
        os.replace(part, path)
    except OSError as error:
        raise VToonifyError(f"{path} could not be written ({error.strerror}); nothing is saved") from error


def load_tracks(path: Path) -> tuple[list[ClipTrack], list[str]] | None:
    """What `save_tracks` wrote; None where there is nothing that can be read."""
    try:
        with np.load(path) as file:
            kept = dict(file)
        tracks = []
        for number in range(int(kept["count"])):
            get = lambda name, number=number: kept[f"{number}_{name}"]  # noqa: E731
            numbers = [array("d", get(name)) for name in ("times", "x", "y", "distance")]
            score, most = get("score").tolist()
            tracks.append(ClipTrack(*numbers, get("cuts").tolist(), tuple(get("shape").tolist()), int(most),
                                    kept.get(f"{number}_aligned"), score))
        return tracks, kept["notes"].tolist()
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
        return None
