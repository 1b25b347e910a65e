"""A clip in, its cartoon out: track the face, plan the crop; then read, draw, and blend and write in parallel.

The style code is computed once per clip from an aligned crop of the best early frame, and folded into the weights. A
clip is read twice, to track the face and to draw, so that one steady crop can be chosen beforehand and memory does not
grow with the clip.
"""

from __future__ import annotations

import warnings
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ..config import VToonifyError
from ..evaluation.quality_card import QualityCard
from ..faces.detector import FACE_NEEDS
from ..faces.trajectory import FaceTrajectory, load_trajectories, save_trajectories, track_faces
from ..media.images import check_output, check_picture_name, check_source
from ..media.video import FORMATS, SEGMENT, SegmentWriter, left_out, probe, read_frames
from ..styles.recipe import Recipe
from ..styles.request import ALL, LARGEST
from .crop_plan import select_faces
from .frame_renderer import Subject, VideoOptions, draw_clip, make_subjects
from .occlusion import split_identities
from .stylizer import Stylizer

MOST_FACES = 8   # that are followed at a time


@dataclass(frozen=True)
class VideoResult:
    """What `Toonifier.video` did.

    path          the file written
    frames        frames written; as many as were read
    size          width, height of the output in pixels
    crop          width, height of the region the network saw
    steady        one crop for the whole clip; False when it glides after the face
    seconds       for everything;  of which tracking_seconds to follow the face
    warnings      sentences for the user
    people        how many were drawn
    card          how steady and how close it is, where that was asked for
    """

    path: Path
    frames: int
    size: tuple[int, int]
    crop: tuple[int, int]
    steady: bool
    seconds: float
    tracking_seconds: float
    warnings: tuple[str, ...] = ()
    people: int = 1
    card: QualityCard | None = None

    @property
    def seconds_per_frame(self) -> float:
        """Time the user waited, face tracking and encoding included, over the frames."""
        return self.seconds / max(self.frames, 1)

    def __str__(self) -> str:
        return (f"{self.path}: {self.frames} frames of {self.size[0]}×{self.size[1]}, {self.seconds_per_frame:.3f} "
                f"seconds per frame ({self.tracking_seconds / max(self.frames, 1):.3f} of it to follow the face)")


def animate(stylizer: Stylizer, src: Path, dst: Path, options: VideoOptions) -> VideoResult:
    """`Toonifier.video`."""
    start = perf_counter()
    check_video_paths(src, dst)
    left = left_out(src)
    if options.card is not None:
        check_picture_name(check_output(options.card, src))
    with SegmentWriter(dst, src, _job(stylizer, src, options)) as writer:  # opened first: can dst be written?
        resumed = writer.done
        tracks, bystanders, notes = _track(stylizer, src, options, writer.folder / "tracks.npz")
        tracked = perf_counter()
        subjects = make_subjects(stylizer, tracks, bystanders, options)
        card = draw_clip(stylizer, src, writer, subjects, options)
    found = np.any([subject.track.found for subject in subjects], axis=0)
    if card is not None:
        card.save(options.card)
    if card is not None and resumed:
        notes.append(f"{resumed} frames were drawn before; the quality card is of the others")
    plans, seconds, shown = subjects[0].plans, perf_counter() - start, probe(dst)
    return VideoResult(dst, writer.frames, (shown.width, shown.height), (plans.width, plans.height),
                       plans.steady, seconds, tracked - start,
                       (*notes, *left, *_notes(subjects, found, options)), len(subjects), card)


def _job(stylizer: Stylizer, src: Path, options: VideoOptions) -> dict[str, Any]:
    """All that the drawn frames depend on: a job with the same values can be resumed."""
    bundle, about = stylizer.bundle, src.stat()
    looks = [Recipe.from_look(look, options.padding, options.frame).data() for look in options.looks]
    weights = {name: about_it.get("sha256") for name, about_it in bundle.info["files"].items()}
    return {"source": [str(src.resolve()), about.st_size, about.st_mtime_ns], "weights": weights, "looks": looks,
            "faces": options.faces, "smooth": options.smooth, "precision": stylizer.networks.precision, "format": 3}


def _track(stylizer: Stylizer, src: Path, options: VideoOptions, cache: Path
           ) -> tuple[list[FaceTrajectory], list[FaceTrajectory], list[str]]:
    """First pass → people to draw, from left to right; the other people; warnings of the reader.

    cache  file that keeps the result of a long clip, for a job that is resumed
    """
    known = load_trajectories(cache)
    tracks, notes = known or _follow(stylizer, src, options)
    if known is None and tracks[0].frames > SEGMENT:
        save_trajectories(cache, tracks, notes)
    chosen = select_faces(tracks[:1] if options.faces == LARGEST else tracks, options.faces)
    if not chosen:
        raise VToonifyError(f"no face was found in any of the {tracks[0].frames} frames of {src}; {FACE_NEEDS}",
                            code="no-face")
    drawn = {id(track) for track in chosen}
    return chosen, [track for track in tracks if id(track) not in drawn and track.aligned is not None], notes


def _follow(stylizer: Stylizer, src: Path, options: VideoOptions) -> tuple[list[FaceTrajectory], list[str]]:
    """Track the whole clip: the largest face of each scene and the other people, or all people."""
    if options.faces != LARGEST:
        return _watch(stylizer, src, options, MOST_FACES, "finding the faces")
    (track,), notes = _watch(stylizer, src, options, 1, "finding the face")
    if track.most_faces < 2:
        return [track], notes
    return split_identities(track, _watch(stylizer, src, options, MOST_FACES, "finding the others")[0]), notes


def _watch(stylizer: Stylizer, src: Path, options: VideoOptions, most: int, what: str
           ) -> tuple[list[FaceTrajectory], list[str]]:
    """Track up to `most` people; → trajectories, and the warnings of the reader."""
    total = probe(src).frame_count
    with warnings.catch_warnings(record=True) as caught, closing(read_frames(src)) as frames:
        warnings.simplefilter("always", UserWarning)
        bar = tqdm(frames, total=total, desc=what, unit="frame", leave=False, disable=not options.progress)
        tracks = track_faces(((frame.rgb, float(frame.pts)) for frame in bar), stylizer.finder,
                             stylizer.networks.face_size, most)
    return tracks, [str(item.message) for item in caught if item.category is UserWarning]


def check_video_paths(src: str | Path, dst: str | Path) -> None:
    """Raise VToonifyError when a clip cannot be read from `src` or not be written to `dst`, before any work is done."""
    check_source(Path(src))
    check_output(dst, src, FORMATS)


def several_faces_note(count: int) -> str:
    """The note for the user when only one of several faces is drawn."""
    return f"{count} faces were found; the largest is used"


def _notes(subjects: list[Subject], found: np.ndarray, options: VideoOptions) -> list[str]:
    """What the user should know about how the faces were followed."""
    most, frames = subjects[0].track.most_faces, len(found)
    notes = []
    if options.faces != ALL and most > len(subjects):
        notes.append(several_faces_note(most) if len(subjects) == 1
                     else f"{most} faces were found; the {len(subjects)} largest are used")
    if len(options.looks) > len(subjects):
        notes.append(f"{len(options.looks)} styles were given for {len(subjects)} of the faces; "
                     "the last ones are not used")
    missed = frames - int(found.sum())
    away = int((np.max([subject.alphas for subject in subjects], axis=0) == 0).sum())
    if missed:
        notes.append(f"the face was not found in {missed} of {frames} frames"
                     + (f"; {away} of them are left as they are" if away else ""))
    if not all(subject.plans.steady for subject in subjects):
        notes.append("the face moves far, so the crop glides after it")
    return notes
