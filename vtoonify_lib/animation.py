"""A clip in, its cartoon out: follow the face, plan the crop; then read, draw, blend and write, the three at once.

The style code is computed once per clip from an aligned crop of the best early frame, and folded into the weights. A
clip is read twice: once to follow the face, once to draw, so that one steady crop can be chosen beforehand and memory
does not grow with the clip.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch import Tensor
from tqdm.auto import tqdm

from .config import VToonifyError
from .faces import cut, paste_back
from .framing import CropPlan
from .images import check_output, check_picture_name, check_source
from .look import Look
from .networks import Parse
from .parsing import SteadyParsing
from .planning import LARGEST, ClipPlan, choose_people, plan_clip, presence
from .quality import QualityCard, QualityMeter
from .recipe import Recipe
from .tracking import ClipTrack, load_tracks, save_tracks, track_people
from .video import FORMATS, SEGMENT, SegmentWriter, pipelined, probe, read_frames

if TYPE_CHECKING:
    from .pipeline import Toonifier

MOST_FACES = 8   # that are followed at a time
FACE_NEEDS = "a face must be upright, look roughly towards the camera and be at least 40 px wide"
PARSE_EVERY = 2  # of a clip every so manieth frame is parsed; the others take over what was known


@dataclass(frozen=True)
class VideoResult:
    """What `Toonifier.video` did.

    path          the file written
    frames        frames written; as many as were read
    size          width, height of the output in pixels
    crop          width, height of the region the network saw
    steady        one crop for the whole clip; False when it glides after the face
    faces_found   frames in which the face was found;  faces_missed: the others
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
    faces_found: int
    faces_missed: int
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


@dataclass(frozen=True)
class Wish:
    """How a clip is to be toonified, see `Toonifier.video`.

    looks  decided; the first is that of the leftmost person, the last that of all who follow
    """

    frame: str
    padding: float
    looks: tuple[Look, ...]
    faces: str | int
    smooth: bool
    card: Path | None
    progress: bool


@dataclass
class _Actor:
    """One person of a clip: where, how much of the cartoon each frame shows, and how it is drawn."""

    track: ClipTrack
    plans: ClipPlan
    shares: np.ndarray
    parser: Callable[[], Parse]  # that remembers nothing yet
    draw: Callable[[np.ndarray, float], np.ndarray]  # with the maps that `latest` holds
    cut_out: Callable[[np.ndarray, CropPlan], np.ndarray]
    latest: list[Tensor]

    def begin(self) -> None:
        """A segment begins: what it shows may not depend on whether the one before was drawn just now."""
        self._parse = self.parser()

    def drawing(self, crop: np.ndarray, seconds: float) -> tuple[np.ndarray, Tensor]:
        """The cartoon of a crop, the next of the clip, and its parsing map."""
        self.latest[:] = [self._parse(crop[None])]
        return self.draw(crop[None], seconds)[0], self.latest[0]

    def moved(self, crops: np.ndarray, parse: Parse) -> np.ndarray:
        """The cartoons of crops, uint8 [1,h,w,3], that are not of the clip."""
        self.latest[:] = [parse(crops)]
        return self.draw(crops, 0.0)


@dataclass(frozen=True)
class _Part:
    """One person in one frame, on the way through `_render`."""

    share: float                 # of the cartoon, 0 … 1; the rest is the original
    plan: CropPlan
    crop: np.ndarray | None      # at working size, where some of the cartoon is to be seen
    plain: np.ndarray | None     # the crop at output size, where some of it is to be seen
    drawn: np.ndarray | None = None
    mask: np.ndarray | None = None  # where the person is, at working size


class _Job(NamedTuple):
    """One frame on its way through `_render`; `whole` is the frame itself, when it is wanted."""

    index: int
    pts: Fraction
    parts: list[_Part]
    whole: np.ndarray | None


def animate(toonifier: Toonifier, src: Path, dst: Path, wish: Wish) -> VideoResult:
    """`Toonifier.video`."""
    start = perf_counter()
    check_video_paths(src, dst)
    if wish.card is not None:
        check_picture_name(check_output(wish.card, src))
    with SegmentWriter(dst, src, _job(toonifier, src, wish)) as writer:  # opened first: can dst be written?
        kept = writer.done
        tracks, notes = _track(toonifier, src, wish, writer.folder / "tracks.npz")
        tracked = perf_counter()
        actors = _cast(toonifier, tracks, wish)
        card = _render(toonifier, src, writer, actors, wish)
    found = np.any([actor.track.found for actor in actors], axis=0)
    if card is not None:
        card.save(wish.card)
    if card is not None and kept:
        notes.append(f"{kept} frames were drawn before; the quality card is of the others")
    plans, seconds, shown = actors[0].plans, perf_counter() - start, probe(dst)
    return VideoResult(dst, writer.frames, (shown.width, shown.height), (plans.width, plans.height),
                       plans.steady, int(found.sum()), int((~found).sum()), seconds, tracked - start,
                       (*notes, *_notes(actors, found, wish)), len(actors), card)


def _job(toonifier: Toonifier, src: Path, wish: Wish) -> dict[str, Any]:
    """All that the drawn frames depend on: when it is the same, a broken-off job can go on."""
    bundle, about = toonifier.bundle, src.stat()
    looks = [Recipe.of(bundle, look, wish.padding, wish.frame).data() for look in wish.looks]
    weights = {name: about_it.get("sha256") for name, about_it in bundle.info["files"].items()}
    return {"source": [str(src.resolve()), about.st_size, about.st_mtime_ns], "weights": weights, "looks": looks,
            "faces": wish.faces, "smooth": wish.smooth, "precision": str(toonifier.networks.dtype), "format": 1}


def _track(toonifier: Toonifier, src: Path, wish: Wish, kept: Path) -> tuple[list[ClipTrack], list[str]]:
    """First pass: where the faces are, from left to right; and what the reader had to complain about.

    kept  where that is noted, for a job that goes on
    """
    known = load_tracks(kept)
    tracks, notes = known or _follow(toonifier, src, wish)
    if known is None and tracks[0].frames > SEGMENT:
        save_tracks(kept, tracks, notes)
    chosen = choose_people(tracks, wish.faces)
    if not chosen:
        raise VToonifyError(f"no face was found in any of the {tracks[0].frames} frames of {src}; {FACE_NEEDS}")
    return chosen, notes


def _follow(toonifier: Toonifier, src: Path, wish: Wish) -> tuple[list[ClipTrack], list[str]]:
    """Watch the whole clip."""
    total, most = probe(src).frame_count, 1 if wish.faces == LARGEST else MOST_FACES
    with warnings.catch_warnings(record=True) as caught, closing(read_frames(src)) as frames:
        warnings.simplefilter("always", UserWarning)
        bar = tqdm(frames, total=total, desc="finding the face", unit="frame", leave=False, disable=not wish.progress)
        tracks = track_people(((frame.rgb, float(frame.pts)) for frame in bar), toonifier.finder,
                              toonifier.networks.face_size, most)
    return tracks, [str(item.message) for item in caught if item.category is UserWarning]


def _cast(toonifier: Toonifier, tracks: list[ClipTrack], wish: Wish) -> list[_Actor]:
    """What draws each person. Who cannot be drawn, being too small, is left out while somebody can."""
    actors, refused = [], None
    for track in tracks:
        try:
            plans = plan_clip(track, toonifier.config.in_size, wish.padding)
        except VToonifyError as error:
            refused = error
            continue
        latest: list[Tensor] = []
        draw = toonifier.animator(track.aligned, wish.looks[min(len(actors), len(wish.looks) - 1)],
                                  lambda crops, latest=latest: latest[0])
        parse = (lambda: SteadyParsing(toonifier.networks.parse, PARSE_EVERY)) if wish.smooth else (
            lambda: toonifier.networks.parse)
        actors.append(_Actor(track, plans, presence(track), parse, draw,
                             toonifier.preprocessing.cut if plans.steady else cut, latest))
    if not actors:
        raise refused
    return actors


def _render(toonifier: Toonifier, src: Path, writer: SegmentWriter, actors: list[_Actor], wish: Wish
            ) -> QualityCard | None:
    """Second pass: read and cut, draw, blend and write, all at once → the quality card, if there is to be one."""
    start, full = float(actors[0].track.times[0]), wish.frame == "full"
    meter = None if wish.card is None else QualityMeter(toonifier, int((actors[0].shares == 1).sum()))

    def part(actor: _Actor, index: int, rgb: np.ndarray) -> _Part:
        plan, share = actor.plans.at(index), float(actor.shares[min(index, len(actor.shares) - 1)])
        plain = cut(rgb, plan, grow=toonifier.config.scale) if share < 1 and not full else None
        return _Part(share, plan, actor.cut_out(rgb, plan) if share else None, plain)

    def read() -> Iterator[_Job]:
        with closing(read_frames(src, skip=writer.done)) as frames:
            for index, item in enumerate(frames, start=writer.done):
                parts = [part(actor, index, item.rgb) for actor in actors]
                yield _Job(index, item.pts, parts, item.rgb if full else None)

    def drawn(actor: _Actor, part: _Part, seconds: float) -> _Part:
        if not part.share:
            return part
        picture, maps = actor.drawing(part.crop, seconds)
        if meter is not None and actor is actors[0] and part.share == 1:
            meter.add(part.crop, picture)
        return replace(part, drawn=picture, mask=toonifier.networks.person_mask(picture, maps) if full else None)

    def work(job: _Job) -> _Job:
        seconds = float(job.pts) - start
        if job.index % writer.length == 0:
            for actor in actors:
                actor.begin()
        return job._replace(parts=[drawn(*pair, seconds) for pair in zip(actors, job.parts, strict=True)])

    def write(job: _Job) -> None:
        writer.write(_blend(job), job.pts)
        bar.update()

    with warnings.catch_warnings(), tqdm(total=actors[0].track.frames, desc="toonifying", unit="frame",
                                         initial=writer.done, disable=not wish.progress) as bar:
        warnings.simplefilter("ignore", UserWarning)  # said in the first pass already
        pipelined(read(), work, write)
    if meter is None:
        return None
    anew = None if wish.looks[0].moves else lambda crops: actors[0].moved(crops, toonifier.networks.parse)
    return meter.card(anew, float(actors[0].track.found.mean()))


def _blend(job: _Job) -> np.ndarray:
    """What is to be seen of a frame: the drawing, the original, or both while one fades into the other."""
    if job.whole is None:
        (part,) = job.parts
        if part.plain is None or part.drawn is None:
            return part.drawn if part.plain is None else part.plain
        faded = part.share * part.drawn.astype(np.float32) + (1 - part.share) * part.plain
        return (faded + 0.5).astype(np.uint8)
    picture = job.whole
    for part in sorted(job.parts, key=lambda part: -part.plan.scale):  # who is near, over who is far
        if part.drawn is not None:
            picture = paste_back(picture, part.drawn, part.plan, part.share * part.mask)
    return picture


def check_video_paths(src: str | Path, dst: str | Path) -> None:
    """Raise VToonifyError when a clip cannot be read from `src` or not be written to `dst`, before any work is done."""
    check_source(Path(src))
    suffix = check_output(dst, src).suffix
    if suffix.lower() not in FORMATS:
        raise VToonifyError(f"{dst}: a clip cannot be written as '{suffix or 'a file without ending'}'; "
                            f"use {', '.join(FORMATS)}")


def several(count: int) -> str:
    """What to say when only one of several faces is drawn."""
    return f"{count} faces were found; the largest is used"


def _notes(actors: list[_Actor], found: np.ndarray, wish: Wish) -> list[str]:
    """What the user should know about how the faces were followed."""
    most, frames = actors[0].track.most_faces, len(found)
    notes = [several(most)] if most > 1 and wish.faces == LARGEST else []
    missed = frames - int(found.sum())
    away = int((np.max([actor.shares for actor in actors], axis=0) == 0).sum())
    if missed:
        notes.append(f"the face was not found in {missed} of {frames} frames"
                     + (f"; {away} of them are left as they are, with a fade before and after" if away else ""))
    if not all(actor.plans.steady for actor in actors):
        notes.append("the face moves far, so the crop glides after it")
    return notes
