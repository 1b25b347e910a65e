"""The second pass over a clip: who draws whom, and the way of a group of frames: cut, drawn, blended, written.

Reading, drawing and writing go on at the same time. The first pass, and what a clip needs besides, is in `video`.
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
from ..faces.trajectory import ClipTrack
from ..media.video import SegmentWriter, pipelined, read_frames
from ..models.devices import frames_that_fit
from ..styles.request import Look
from .crop_plan import ClipPlan, plan_clip, presence
from .networks import Parse
from .occlusion import Crowd
from .stylizer import Stylizer

PARSE_EVERY = 2  # of a clip every so manieth frame is parsed; the others take over what was known


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
class Actor:
    """One person of a clip: where, how much of the cartoon each frame shows, and how it is drawn."""

    track: ClipTrack
    plans: ClipPlan
    shares: np.ndarray
    parser: Callable[[], Parse]  # that remembers nothing yet
    draw: Callable[[np.ndarray, float], np.ndarray]  # with the maps that `latest` holds
    cut_out: Callable[[np.ndarray, CropPlan], np.ndarray]
    latest: list[Tensor]
    crowd: Crowd | None = None  # when there are others; it begins with the actors

    def share_at(self, index: int) -> float:
        """How much of the cartoon frame `index` shows; the last one counts on if the clip turns out longer."""
        return float(self.shares[min(index, len(self.shares) - 1)])

    def begin(self) -> None:
        """A segment begins: what it shows may not depend on whether the one before was drawn just now."""
        self._parse = self.parser()

    def drawings(self, crops: Sequence[np.ndarray], seconds: float) -> Iterator[tuple[np.ndarray, Tensor]]:
        """The cartoons of crops, the next of the clip, with their parsing maps [1,19,h,w]."""
        self.latest[:] = [torch.cat([self._parse(crop[None]) for crop in crops])]
        return zip(self.draw(np.stack(crops), seconds), self.latest[0].split(1), strict=True)

    def moved(self, crops: np.ndarray, parse: Parse) -> np.ndarray:
        """The cartoons of crops, uint8 [1,h,w,3], that are not of the clip."""
        self.latest[:] = [parse(crops)]
        return self.draw(crops, 0.0)


@dataclass(frozen=True)
class _Part:
    """One person in one frame, on its way through `_Stage`."""

    share: float                 # of the cartoon, 0 … 1; the rest is the original
    plan: CropPlan
    crop: np.ndarray | None      # as the networks see it, where some of the cartoon is to be seen
    plain: np.ndarray | None     # the crop at output size, where some of it is to be seen
    mine: np.ndarray | None = None   # how much of each pixel is this person's, at working size, where there are others
    drawn: np.ndarray | None = None
    mask: np.ndarray | None = None  # where the person is, at working size


class _Job(NamedTuple):
    """One frame on its way through `_Stage`; `whole` is the frame itself, when it is wanted;
    begins: a segment begins with it."""

    index: int
    pts: Fraction
    duration: Fraction | None
    parts: list[_Part]
    whole: np.ndarray | None
    begins: bool


def cast(stylizer: Stylizer, tracks: list[ClipTrack], bystanders: list[ClipTrack], wish: Wish) -> list[Actor]:
    """What draws each person. Who cannot be drawn, being too small, is left out while somebody can."""
    actors, refused, bystanders = [], None, list(bystanders)
    for track in tracks:
        try:
            plans = plan_clip(track, stylizer.config.framing_size, wish.padding)
        except VToonifyError as error:
            refused = error
            bystanders.append(track)
            continue
        latest: list[Tensor] = []
        draw = stylizer.animator(track.aligned, wish.looks[min(len(actors), len(wish.looks) - 1)],
                                 lambda crops, latest=latest: latest[0])
        parse = (lambda: stylizer.networks.steady_parse(PARSE_EVERY)) if wish.smooth else (
            lambda: stylizer.networks.parse)
        actors.append(Actor(track, plans, presence(track), parse, draw,
                            partial(stylizer.cut, whole=plans.steady), latest))
    if not actors:
        raise refused
    everybody = [*(actor.track for actor in actors), *bystanders]
    if len(everybody) > 1:
        crowd = Crowd(everybody)
        for who, actor in enumerate(actors):
            actor.crowd, actor.shares = crowd, actor.shares * (1 - crowd.hidden(who))
    return actors


def _at_once(stylizer: Stylizer, actors: list[Actor], wish: Wish) -> int:
    """How many frames to draw at a time; one where the look moves, for it is folded into the weights."""
    networks = stylizer.networks
    if any(look.moves for look in wish.looks):
        return 1

    def try_out(actor: Actor) -> np.ndarray:
        detail = stylizer.config.detail or 1
        return actor.moved(np.zeros((1, detail * actor.plans.height, detail * actor.plans.width, 3), np.uint8),
                           networks.parse)

    return min(frames_that_fit(networks.device, lambda actor=actor: try_out(actor)) for actor in actors)


def draw_clip(stylizer: Stylizer, src: Path, writer: SegmentWriter, actors: list[Actor], wish: Wish
              ) -> QualityCard | None:
    """Second pass: read and cut, draw, blend and write, all at once → the quality card, if there is to be one."""
    meter = None if wish.card is None else QualityMeter(stylizer.bundle, stylizer.finder, stylizer.networks.small,
                                                        int((actors[0].shares == 1).sum()))
    stage = _Stage(stylizer, actors, wish, meter, _at_once(stylizer, actors, wish))
    with warnings.catch_warnings(), tqdm(total=actors[0].track.frames, desc="toonifying", unit="frame",
                                         initial=writer.done, disable=not wish.progress) as bar:
        warnings.simplefilter("ignore", UserWarning)  # said in the first pass already

        def write(jobs: list[_Job]) -> None:
            for job in jobs:
                writer.write(_blend(job), job.pts, job.duration)
                bar.update()

        pipelined(stage.read(src, writer.done, writer.length), stage.draw, write)
    if meter is None:
        return None
    anew = None if wish.looks[0].moves else lambda crops: actors[0].moved(crops, stylizer.networks.parse)
    return meter.card(anew, float(actors[0].track.found.mean()))


@dataclass(frozen=True)
class _Stage:
    """What happens to frames between the file they come from and the file they go to, `at_once` at a time.

    Frames come in groups that never reach from one segment into the next: what a segment shows may not depend on
    whether the one before was drawn just now.
    """

    stylizer: Stylizer
    actors: list[Actor]
    wish: Wish
    meter: QualityMeter | None
    at_once: int

    def read(self, src: Path, skip: int, segment: int) -> Iterator[list[_Job]]:
        """Groups of frames, from frame `skip` on, cut; segments have `segment` frames."""
        jobs: list[_Job] = []
        with closing(read_frames(src, skip=skip)) as frames:
            for index, item in enumerate(frames, start=skip):
                if jobs and (len(jobs) == self.at_once or index % segment == 0):
                    yield jobs
                    jobs = []
                shares = [actor.share_at(index) for actor in self.actors]
                parts = [self._cut(who, index, item.rgb, shares) for who in range(len(self.actors))]
                whole = item.rgb if self.wish.frame == "full" else None
                jobs.append(_Job(index, item.pts, item.duration, parts, whole, index % segment == 0))
        if jobs:
            yield jobs

    def _cut(self, who: int, index: int, rgb: np.ndarray, shares: list[float]) -> _Part:
        actor, share = self.actors[who], shares[who]
        plan, faded = actor.plans.at(index), share < 1 and self.wish.frame != "full"
        plain = cut(rgb, plan, grow=self.stylizer.config.scale) if faded else None
        shared = actor.crowd and share and self.wish.frame == "full"
        mine = actor.crowd.share(who, index, plan, shares) if shared else None
        return _Part(share, plan, actor.cut_out(rgb, plan) if share else None, plain, mine)

    def draw(self, jobs: list[_Job]) -> list[_Job]:
        """The same group, drawn."""
        seconds = float(jobs[0].pts) - float(self.actors[0].track.times[0])
        people = []
        for actor, parts in zip(self.actors, zip(*[job.parts for job in jobs], strict=True), strict=True):
            if jobs[0].begins:
                actor.begin()
            people.append(self._drawn(actor, parts, seconds))
        return [job._replace(parts=list(parts)) for job, parts in zip(jobs, zip(*people, strict=True), strict=True)]

    def _drawn(self, actor: Actor, parts: Sequence[_Part], seconds: float) -> list[_Part]:
        shown = [part for part in parts if part.share]
        done = actor.drawings([part.crop for part in shown], seconds) if shown else iter(())
        return [self._finished(actor, part, *next(done)) if part.share else part for part in parts]

    def _finished(self, actor: Actor, part: _Part, picture: np.ndarray, maps: Tensor) -> _Part:
        if self.meter is not None and actor is self.actors[0] and part.share == 1:
            self.meter.add(part.crop, picture)
        if self.wish.frame != "full":
            return replace(part, drawn=picture)
        mask = self.stylizer.networks.person_mask(picture, maps)
        return replace(part, drawn=picture, mask=mask if part.mine is None else mask * part.mine)


def _blend(job: _Job) -> np.ndarray:
    """What is to be seen of a frame: the drawing, the original, or both while one fades into the other."""
    if job.whole is None:
        (part,) = job.parts
        if part.plain is None or part.drawn is None:
            return part.drawn if part.plain is None else part.plain
        faded = part.share * part.drawn.astype(np.float32) + (1 - part.share) * part.plain
        return (faded + 0.5).astype(np.uint8)
    return paste_all(job.whole, [(part.drawn, part.plan, part.share * part.mask) for part in job.parts
                                 if part.drawn is not None])
