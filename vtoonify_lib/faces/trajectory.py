"""Face trajectories of a whole clip, and its scene cuts.

Four numbers per frame and face are kept, never pixels; `inference.crop_plan` plans the crops from them.
"""

from __future__ import annotations

import os
import zipfile
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

import cv2
import numpy as np

from ..config import VToonifyError
from .crop import align_face, face_position
from .detector import Face, FaceFinder
from .multi_tracker import MultiFaceTracker

CUT_GREY = 22.0      # grey levels, mean over the picture, that only another scene changes from frame to frame
CUT_RATIO = 3.0      # least ratio of that change to the usual one of the frames before
LOST = 1.0           # longest occlusion, in seconds, after which a face may be found elsewhere without a cut
STYLE_WINDOW = 10.0  # seconds after the first detection in which the frame for the style code is chosen


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


@dataclass
class FaceTrajectory:
    """One face through a clip: four numbers per frame, and one aligned picture.

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
    def monotonic_times(self) -> np.ndarray:
        """`times` [N], made strictly increasing: those of a damaged file may stand still or step back a little."""
        times = np.asarray(self.times)
        steps = np.diff(times)
        if (steps > 0).all():
            return times
        usual = float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.04
        return times[:1] + np.concatenate([[0.0], np.cumsum(np.where(steps > 0, steps, usual))])

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

    def seen_within(self, span: float) -> bool:
        """Whether the face was found in the last `span` seconds before the latest frame."""
        found = np.flatnonzero(self.found[:-1])
        return bool(len(found)) and self.times[-1] - self.times[found[-1]] <= span

    def without_face(self) -> FaceTrajectory:
        """A trajectory of the same frames in which no face is found."""
        nowhere = [array("d", [np.nan] * self.frames) for _ in range(3)]
        return FaceTrajectory(array("d", self.times), *nowhere, list(self.cuts), self.frame_shape)

    def add(self, face: Face | None, time: float) -> None:
        """Append one frame."""
        values = (np.nan,) * 3 if face is None else face_position(face.landmarks)
        for kept, value in zip((self.times, self.x, self.y, self.distance), (float(time), *values), strict=True):
            kept.append(value)


def track_clip(frames: Iterable[tuple[np.ndarray, float]], finder: FaceFinder, align_size: int,
               every: int = 5) -> FaceTrajectory:
    """Follow the largest face through (uint8 RGB [H,W,3], seconds) pairs; pixels are not kept."""
    return track_faces(frames, finder, align_size, 1, every)[0]


def track_faces(frames: Iterable[tuple[np.ndarray, float]], finder: FaceFinder, align_size: int, most: int,
                every: int = 5) -> list[FaceTrajectory]:
    """`track_clip` for up to `most` faces, in order of appearance; at least one trajectory, even without a face."""
    clips, tracker, scenes = [FaceTrajectory()], MultiFaceTracker(finder, most, every), SceneCuts()
    for index, (rgb, time) in enumerate(frames):
        cut = scenes.update(rgb)
        faces = tracker.update(rgb, time, cut)
        while len(clips) < len(faces):
            clips.append(clips[0].without_face())
        for clip, face, jumped in zip_longest(clips, faces, [track.jumped for track in tracker.tracks]):
            clip.frame_shape = clip.frame_shape or rgb.shape
            clip.add(face, time)
            if cut or (jumped and not (most > 1 and clip.seen_within(LOST))):
                clip.cuts.append(index)
            first = clip.first
            if face is not None and face.score > clip.aligned_score and time - clip.times[first] <= STYLE_WINDOW:
                clip.aligned, clip.aligned_score = align_face(rgb, face.landmarks, align_size), face.score
    for clip in clips:
        clip.most_faces = max([len(tracker.tracks), *(track.most_faces for track in tracker.tracks)])
    return clips


def save_trajectories(path: Path, tracks: Sequence[FaceTrajectory], notes: Sequence[str]) -> None:
    """Write trajectories and notes, so that a clip need not be tracked again. VToonifyError when the disk is full."""
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
        raise VToonifyError(f"{path} could not be written ({error.strerror}); nothing is saved",
                            code="unwritable") from error


def load_trajectories(path: Path) -> tuple[list[FaceTrajectory], list[str]] | None:
    """What `save_trajectories` wrote; None where there is nothing that can be read."""
    try:
        with np.load(path) as file:
            kept = dict(file)
        tracks = []
        for number in range(int(kept["count"])):
            get = lambda name, number=number: kept[f"{number}_{name}"]  # noqa: E731
            numbers = [array("d", get(name)) for name in ("times", "x", "y", "distance")]
            score, most = get("score").tolist()
            tracks.append(FaceTrajectory(*numbers, get("cuts").tolist(), tuple(get("shape").tolist()), int(most),
                                         kept.get(f"{number}_aligned"), score))
        return tracks, kept["notes"].tolist()
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
        return None
