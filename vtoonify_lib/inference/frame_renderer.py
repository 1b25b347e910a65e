"""The second pass over a clip: groups of frames are cut, drawn, blended and written.

Reading, drawing and writing run at the same time. The first pass and the rest of a clip's processing are in `video`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..config import VToonifyError
from ..evaluation.quality_card import QualityCard, QualityMeter
from ..faces.crop import CropPlan, cut, paste_all
from ..faces.trajectory import FaceTrajectory
from ..media.video import SegmentWriter, pipelined, read_frames
from ..models.devices import frames_that_fit
from ..styles.request import ResolvedLook
from .crop_plan import ClipPlan, fade_alpha, plan_clip
from .networks import Draw, Parse
from .occlusion import OcclusionModel
from .stylizer import Stylizer

PARSE_EVERY = 2  # every second frame of a clip is parsed; the others reuse the maps, moved along the optical flow


@dataclass(frozen=True)
class VideoOptions:
    """How a clip is to be toonified, see `Toonifier.video`.

    looks  the first is for the leftmost person, the last for all further ones
    """

    frame: str
    padding: float
    looks: tuple[ResolvedLook, ...]
    faces: str | int
    smooth: bool
    card: Path | None
    progress: bool


@dataclass
class Subject:
    """One person of a clip: trajectory, crops, opacity of the cartoon in each frame, and the function that draws it."""

    track: FaceTrajectory
    plans: ClipPlan
    alphas: np.ndarray
    parser: Callable[[], Parse]  # makes a parser without memory of earlier frames
    draw: Draw                    # see `Stylizer.animator`
    cut_out: Callable[[np.ndarray, CropPlan], np.ndarray]
    occlusion: OcclusionModel | None = None  # if there are several people; the subjects come first in it

    def alpha_at(self, index: int) -> float:
        """Opacity of the cartoon in frame `index`; the last value holds if the clip turns out longer."""
        return float(self.alphas[min(index, len(self.alphas) - 1)])

    def reset_parsing(self) -> None:
        """Begin a segment: its frames must not depend on whether the previous one was drawn in this run."""
        self._parse = self.parser()

    def draw_next(self, crops: Sequence[np.ndarray], seconds: float) -> Iterator[tuple[np.ndarray, Tensor]]:
        """The cartoons of the clip's next crops, with their parsing maps [1,19,h,w]."""
        maps = torch.cat([self._parse(crop[None]) for crop in crops])
        return zip(self.draw(np.stack(crops), seconds, maps), maps.split(1), strict=True)


@dataclass(frozen=True)
class _FaceInFrame:
    """One person in one frame, on its way through `_RenderStage`."""

    alpha: float                  # opacity of the cartoon, 0 … 1
    plan: CropPlan
    crop: np.ndarray | None       # as the networks read it; None where alpha is 0
    original: np.ndarray | None   # the crop at output size; None where it is not visible
    ownership: np.ndarray | None = None  # this person's share of each pixel, at working size; None without others
    drawn: np.ndarray | None = None
    mask: np.ndarray | None = None  # where the person is, at working size


class _FrameJob(NamedTuple):
    """One frame on its way through `_RenderStage`; whole: the frame itself, for frame="full"; begins: it is the first
    of a segment."""

    index: int
    pts: Fraction
    duration: Fraction | None
    parts: list[_FaceInFrame]
    whole: np.ndarray | None
    begins: bool


def make_subjects(stylizer: Stylizer, tracks: list[FaceTrajectory], bystanders: list[FaceTrajectory],
                  options: VideoOptions) -> list[Subject]:
    """The people to draw. Faces that are too small become bystanders; VToonifyError if all of them are."""
    subjects, refused, bystanders = [], None, list(bystanders)
    for track in tracks:
        try:
            plans = plan_clip(track, stylizer.config.framing_size, options.padding)
        except VToonifyError as error:
            refused = error
            bystanders.append(track)
            continue
        draw = stylizer.animator(track.aligned, options.looks[min(len(subjects), len(options.looks) - 1)])
        parse = (lambda: stylizer.networks.steady_parse(PARSE_EVERY)) if options.smooth else (
            lambda: stylizer.networks.parse)
        subjects.append(Subject(track, plans, fade_alpha(track), parse, draw,
                                partial(stylizer.cut, whole=plans.steady)))
    if not subjects:
        raise refused
    everybody = [*(subject.track for subject in subjects), *bystanders]
    if len(everybody) > 1:
        occlusion = OcclusionModel(everybody)
        for who, subject in enumerate(subjects):
            subject.occlusion, subject.alphas = occlusion, subject.alphas * (1 - occlusion.occluded(who))
    return subjects


def _batch_size(stylizer: Stylizer, subjects: list[Subject], options: VideoOptions) -> int:
    """How many frames to draw at a time; one where the look is animated, because it is folded into the weights."""
    if any(look.request.is_animated for look in options.looks):
        return 1
    detail = stylizer.config.detail or 1
    return min(frames_that_fit(stylizer.device, partial(subject.draw, np.zeros(
        (1, detail * subject.plans.height, detail * subject.plans.width, 3), np.uint8), 0.0)) for subject in subjects)


def draw_clip(stylizer: Stylizer, src: Path, writer: SegmentWriter, subjects: list[Subject], options: VideoOptions
              ) -> QualityCard | None:
    """Second pass: read and cut, draw, blend and write, in parallel → the quality card, if one is asked for."""
    meter = None if options.card is None else QualityMeter(stylizer.bundle, stylizer.finder, stylizer.networks.small,
                                                           int((subjects[0].alphas == 1).sum()))
    stage = _RenderStage(stylizer, subjects, options, meter, _batch_size(stylizer, subjects, options))
    with warnings.catch_warnings(), tqdm(total=subjects[0].track.frames, desc="toonifying", unit="frame",
                                         initial=writer.done, disable=not options.progress) as bar:
        warnings.simplefilter("ignore", UserWarning)  # reported in the first pass already

        def write(jobs: list[_FrameJob]) -> None:
            for job in jobs:
                writer.write(_blend(job), job.pts, job.duration)
                bar.update()

        pipelined(stage.read(src, writer.done, writer.length), stage.draw, write)
    if meter is None:
        return None
    redraw = None if options.looks[0].request.is_animated else partial(subjects[0].draw, seconds=0.0)
    return meter.card(redraw, float(subjects[0].track.found.mean()))


@dataclass(frozen=True)
class _RenderStage:
    """What happens to frames between input and output file, `batch_size` at a time.

    A group of frames never crosses a segment boundary: the frames of a segment must not depend on whether the
    previous one was drawn in this run.
    """

    stylizer: Stylizer
    subjects: list[Subject]
    options: VideoOptions
    meter: QualityMeter | None
    batch_size: int

    def read(self, src: Path, skip: int, segment: int) -> Iterator[list[_FrameJob]]:
        """Groups of frames, from frame `skip` on, cut; segments have `segment` frames."""
        jobs: list[_FrameJob] = []
        with closing(read_frames(src, skip=skip)) as frames:
            for index, item in enumerate(frames, start=skip):
                if jobs and (len(jobs) == self.batch_size or index % segment == 0):
                    yield jobs
                    jobs = []
                alphas = [subject.alpha_at(index) for subject in self.subjects]
                parts = [self._cut(who, index, item.rgb, alphas) for who in range(len(self.subjects))]
                whole = item.rgb if self.options.frame == "full" else None
                jobs.append(_FrameJob(index, item.pts, item.duration, parts, whole, index % segment == 0))
        if jobs:
            yield jobs

    def _cut(self, who: int, index: int, rgb: np.ndarray, alphas: list[float]) -> _FaceInFrame:
        subject, alpha = self.subjects[who], alphas[who]
        plan, faded = subject.plans.at(index), alpha < 1 and self.options.frame != "full"
        original = cut(rgb, plan, grow=self.stylizer.config.scale) if faded else None
        overlapped = subject.occlusion and alpha and self.options.frame == "full"
        ownership = subject.occlusion.ownership_mask(who, index, plan, alphas) if overlapped else None
        return _FaceInFrame(alpha, plan, subject.cut_out(rgb, plan) if alpha else None, original, ownership)

    def draw(self, jobs: list[_FrameJob]) -> list[_FrameJob]:
        """The same group, drawn."""
        seconds = float(jobs[0].pts) - float(self.subjects[0].track.times[0])
        people = []
        for subject, parts in zip(self.subjects, zip(*[job.parts for job in jobs], strict=True), strict=True):
            if jobs[0].begins:
                subject.reset_parsing()
            people.append(self._drawn(subject, parts, seconds))
        return [job._replace(parts=list(parts)) for job, parts in zip(jobs, zip(*people, strict=True), strict=True)]

    def _drawn(self, subject: Subject, parts: Sequence[_FaceInFrame], seconds: float) -> list[_FaceInFrame]:
        shown = [part for part in parts if part.alpha]
        done = subject.draw_next([part.crop for part in shown], seconds) if shown else iter(())
        return [self._finished(subject, part, *next(done)) if part.alpha else part for part in parts]

    def _finished(self, subject: Subject, part: _FaceInFrame, picture: np.ndarray, maps: Tensor) -> _FaceInFrame:
        if self.meter is not None and subject is self.subjects[0] and part.alpha == 1:
            self.meter.add(part.crop, picture)
        if self.options.frame != "full":
            return replace(part, drawn=picture)
        mask = self.stylizer.networks.person_mask(picture, maps)
        return replace(part, drawn=picture, mask=mask if part.ownership is None else mask * part.ownership)


def _blend(job: _FrameJob) -> np.ndarray:
    """The output frame: the drawing, the original, or a blend of both while one fades into the other."""
    if job.whole is None:
        (part,) = job.parts
        if part.original is None or part.drawn is None:
            return part.drawn if part.original is None else part.original
        faded = part.alpha * part.drawn.astype(np.float32) + (1 - part.alpha) * part.original
        return (faded + 0.5).astype(np.uint8)
    return paste_all(job.whole, [(part.drawn, part.plan, part.alpha * part.mask) for part in job.parts
                                 if part.drawn is not None])
