"""Toonifier: a picture or a clip in, its cartoon out. The life of a frame (DESIGN): faces → crop → parsing → network.

The style code is computed once per clip from an aligned crop of the best early frame, and folded into the weights. A
clip is read twice: once to follow the face, once to draw, so that one steady crop can be chosen beforehand and memory
does not grow with the clip. Ours or published, it goes the same way: what differs is in `networks`, `preprocessing` and
`look`. Which weights, which faces, which codec: see `checkpoints`, `faces` and `video`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm

from .checkpoints import Bundle
from .config import VToonifyError
from .devices import pick_device
from .faces import FaceFinder, align_face, cut, paste_back
from .framing import CropPlan, usual_padding
from .images import check_output, check_source, read_image
from .look import AS_TRAINED, Look
from .networks import Networks
from .preprocessing import OURS, PUBLISHED
from .published import open_bundle
from .styles import NEW, STYLE_SUFFIX, StyleCode, load_style
from .tracking import ClipPlan, ClipTrack, plan_clip, track_clip
from .video import FORMATS, VideoWriter, pipelined, probe, read_frames

DEFAULT_BUNDLE = "studio-t"
SAMPLE = Path(__file__).resolve().parent.parent / "data" / "samples" / "portrait.mp4"  # a clip of ours
FACE_NEEDS = "a face must be upright, look roughly towards the camera and be at least 40 px wide"
FRAMES = ("crop", "full")  # what comes out: the toonified region around the face, or the whole frame with it in place


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

    @property
    def seconds_per_frame(self) -> float:
        """Time the user waited, face tracking and encoding included, over the frames."""
        return self.seconds / max(self.frames, 1)

    def __str__(self) -> str:
        return (f"{self.path}: {self.frames} frames of {self.size[0]}×{self.size[1]}, {self.seconds_per_frame:.3f} "
                f"seconds per frame ({self.tracking_seconds / max(self.frames, 1):.3f} of it to follow the face)")


class Face(NamedTuple):
    """A face in a picture: the picture and the region to toonify, that region at working size, the face aligned.

    picture, crop, aligned: uint8 RGB [H,W,3]
    """

    picture: np.ndarray
    plan: CropPlan
    crop: np.ndarray
    aligned: np.ndarray


class Toonifier:
    """A bundle made ready on a device. `Toonifier.load("studio-t").video("in.mp4", "out.mp4")`.

    device: "auto" (a CUDA GPU if there is one), "cpu", "cuda", "cuda:1", "mps".
    """

    def __init__(self, bundle: Bundle, device: str = "auto") -> None:
        self.bundle, self.config = bundle, bundle.config
        self.device = pick_device(device)
        self.preprocessing = PUBLISHED if bundle.published else OURS
        self.finder = FaceFinder(bundle.path("landmarks"))
        self.networks = Networks(bundle, self.device, self.preprocessing)

    @classmethod
    def load(cls, bundle: str | Path = DEFAULT_BUNDLE, device: str = "auto", **how: Any) -> Toonifier:
        """The Toonifier of a bundle, by name or path.

        A published preset ("pixar-d") that is not on this machine is fetched and converted first. how: source,
        accept_licence, ask, … as `published.open_bundle` takes them; by default the user is asked about the licence.
        VToonifyError for an unknown or damaged bundle or device, and for a preset that cannot be had.
        """
        pick_device(device)  # before anything is fetched
        return cls(open_bundle(bundle, **how), device)

    # ------------------------------------------------------------------ pictures
    def image(self, source: str | Path | np.ndarray | Image.Image, frame: str = "crop",
              padding: float | None = None, look: Look = AS_TRAINED) -> np.ndarray:
        """Toonify the largest face of a picture → uint8 RGB [H',W',3].

        source: path, array or Pillow picture (see `images.read_image`). frame: "crop" gives the region around the face
        at out_size/in_size times the working size, "full" the whole picture with the region blended in. padding: pixels
        around the eye centre at working size, default 200/256 of in_size. look: exemplar and degrees.
        Warns when there are several faces. Raises VToonifyError when there is none, and for a look the bundle has not.
        """
        _check_frame(frame)
        look = self.decide(look).still()
        face = self.face_in(source, padding)
        style = self.style_code(face.aligned, look)
        picture = self.painter(style, look)(face.crop[None])[0]
        return picture if frame == "crop" else paste_back(face.picture, picture, face.plan)

    def face_in(self, source: str | Path | np.ndarray | Image.Image, padding: float | None = None) -> Face:
        """The largest face of a picture, cut out as the networks want it. Warnings and errors as `image`."""
        rgb = read_image(source)
        faces = self.finder.faces(rgb)
        if not faces:
            what = source if isinstance(source, str | Path) else "the picture"
            raise VToonifyError(f"no face was found in {what} ({rgb.shape[1]}×{rgb.shape[0]} px); {FACE_NEEDS}")
        if len(faces) > 1:
            warnings.warn(_several(len(faces)), stacklevel=3)
        landmarks = faces[0].landmarks
        plan = self.preprocessing.plan(rgb.shape, landmarks, self.config.in_size, padding)
        return Face(rgb, plan, self.preprocessing.cut(rgb, plan), align_face(rgb, landmarks, self.networks.face_size))

    # ------------------------------------------------------------------ clips
    def video(self, src: str | Path, dst: str | Path, frame: str = "crop", padding: float | None = None,
              look: Look = AS_TRAINED, progress: bool = True) -> VideoResult:
        """Toonify a clip with its sound; every frame is kept, at its time. Arguments as `image`.

        Frames from before the face first appears are left as they are. Raises VToonifyError for a clip without a face
        and for unusable input or output; nothing is left under the output's name then.
        """
        start, src, dst = perf_counter(), Path(src), Path(dst)
        _check_frame(frame)
        check_video_paths(src, dst)
        look = self.decide(look)
        padding = usual_padding(self.config.in_size, padding)
        with VideoWriter(dst, source=src) as writer:  # opened first: it finds out soonest whether dst can be written
            track, notes = self._track(src, progress)
            if track.aligned is None:
                raise VToonifyError(f"no face was found in any of the {track.frames} frames of {src}; {FACE_NEEDS}")
            tracked = perf_counter()
            plans = plan_clip(track, self.config.in_size, padding)
            size = self._render(src, writer, track, plans, look, frame, progress)
        found, seconds = int(track.found.sum()), perf_counter() - start
        return VideoResult(dst, writer.frames, size, (plans.width, plans.height), plans.steady, found,
                           track.frames - found, seconds, tracked - start, (*notes, *_notes(track, plans)))

    def _track(self, src: Path, progress: bool) -> tuple[ClipTrack, list[str]]:
        """First pass: where the face is, and what the reader had to complain about."""
        total = probe(src).frame_count
        with warnings.catch_warnings(record=True) as caught, closing(read_frames(src)) as frames:
            warnings.simplefilter("always", UserWarning)
            bar = tqdm(frames, total=total, desc="finding the face", unit="frame", leave=False, disable=not progress)
            track = track_clip(((frame.rgb, float(frame.pts)) for frame in bar), self.finder,
                               self.networks.face_size)
        return track, [str(item.message) for item in caught if item.category is UserWarning]

    def _render(self, src: Path, writer: VideoWriter, track: ClipTrack, plans: ClipPlan, look: Look, frame: str,
                progress: bool) -> tuple[int, int]:
        """Second pass: read and cut, draw, paste and write, the three at once. Returns width, height of the output."""
        draw, start = self.animator(track.aligned, look), float(track.times[0])
        lead, size = track.lead(), (0, 0)
        cut_out = self.preprocessing.cut if plans.steady else cut  # a crop that glides lies between the pixels

        def read() -> Iterator[_Job]:
            with closing(read_frames(src)) as frames:
                for index, item in enumerate(frames):
                    plan, plain = plans.at(index), index < lead
                    picture = cut(item.rgb, plan, grow=self.config.scale) if plain else cut_out(item.rgb, plan)
                    yield _Job(item.pts, picture, plan, plain, item.rgb if frame == "full" else None)

        def work(job: _Job) -> tuple[_Job, np.ndarray]:
            return job, job.picture if job.plain else draw(job.picture[None], float(job.pts) - start)[0]

        def write(done: tuple[_Job, np.ndarray]) -> None:
            nonlocal size
            job, picture = done
            if job.whole is not None:
                picture = job.whole if job.plain else paste_back(job.whole, picture, job.plan)
            writer.write(picture, job.pts)
            size = (picture.shape[1], picture.shape[0])
            bar.update()

        with warnings.catch_warnings(), tqdm(total=track.frames, desc="toonifying", unit="frame",
                                             disable=not progress) as bar:
            warnings.simplefilter("ignore", UserWarning)  # said in the first pass already
            pipelined(read(), work, write)
        return size

    # ------------------------------------------------------------------ styles
    def decide(self, look: Look) -> Look:
        """The look with every wish decided: defaults filled in, pictures and style files read, new styles made."""
        look = look.of(self.bundle)
        if self.networks.styles is None:
            return look
        return replace(look, style=tuple((self._style(style, look.seed), weight) for style, weight in look.style))

    def _style(self, style: str | Path | StyleCode, seed: int) -> str | StyleCode:
        if style == NEW:
            return self.new_style(seed)
        if not isinstance(style, Path):
            return style
        return load_style(style, self.bundle) if style.suffix == STYLE_SUFFIX else self.style_of(style)

    def style_of(self, source: str | Path | np.ndarray | Image.Image, name: str | None = None, refine: int = 0,
                 progress: bool = True) -> StyleCode:
        """The style of a portrait in any picture, as the style encoder reads it.

        refine  steps by which DualStyleGAN then finds who is in it, and as many to fit the style to it; 100 are usual
        VToonifyError when the picture shows no face, or the bundle has one look.
        """
        what = Path(source).name if isinstance(source, str | Path) else "the picture"
        self._needs_styles()
        if refine < 0:
            raise VToonifyError(f"refine is {refine}; it must be 0 or more steps")
        rgb = read_image(source)
        faces = self.finder.faces(rgb)
        if not faces:
            raise VToonifyError(f"no face was found in the style picture {what} ({rgb.shape[1]}×{rgb.shape[0]} px); "
                                f"{FACE_NEEDS}")
        side = self.config.out_size if refine else self.networks.face_size
        aligned = align_face(rgb, faces[0].landmarks, side)
        codes = (self.networks.refine_style(aligned, refine, progress) if refine
                 else self.networks.read_style(aligned))
        return StyleCode.of(name or Path(what).stem, codes)

    def new_style(self, seed: int) -> StyleCode:
        """A style that nobody drew, by the bundle's sampler; the same for the same seed."""
        self._needs_styles()
        plain = self.networks.styles.plain
        noise = torch.randn(1, plain.numel(), generator=torch.Generator().manual_seed(seed))
        with torch.inference_mode():
            codes = self.bundle.network("sampler")(noise)
        return StyleCode.of(f"{NEW}-{seed}", codes)

    def _needs_styles(self) -> None:
        if self.networks.styles is None:
            raise VToonifyError(f"{self.bundle.name} cannot take the style of a picture; load studio-d")

    # ------------------------------------------------------------------ the networks
    def style_code(self, aligned: np.ndarray, look: Look = AS_TRAINED) -> torch.Tensor:
        """What an aligned face, uint8 RGB [S,S,3], is drawn in: w+ [1,L,D], or [1,1,D] for all layers alike."""
        return self.networks.style_code(aligned, self.decide(look).still())

    def painter(self, style: torch.Tensor, look: Look = AS_TRAINED) -> Callable[[np.ndarray], np.ndarray]:
        """The network with this style folded in: uint8 RGB [B,H,W,3] → [B,sH,sW,3]; H, W multiples of 8."""
        return self.networks.painter(style, look.of(self.bundle).still().structure)

    def animator(self, aligned: np.ndarray, look: Look) -> Callable[[np.ndarray, float], np.ndarray]:
        """`painter` for a face, with a look that may move: (crops, seconds) → pictures.

        A style that has moved is folded anew: 24 ms for studio-d on two cores.
        """
        if not look.moves:
            draw = self.painter(self.style_code(aligned, look), look)
            return lambda crops, seconds: draw(crops)
        look, networks = self.decide(look), self.networks
        face, exemplar = networks.read(aligned), networks.exemplar_code(look)

        @lru_cache(maxsize=1)
        def painter(structure: float | None, color: float | None) -> Callable[[np.ndarray], np.ndarray]:
            now = replace(look, structure=structure, color=color)
            return networks.painter(networks.mix(face, exemplar, now), structure)

        def draw_at(crops: np.ndarray, seconds: float) -> np.ndarray:
            now = look.at(seconds)
            return painter(now.structure, now.color)(crops)

        return draw_at


@dataclass(frozen=True)
class _Job:
    """One frame on its way through `_render`."""

    pts: Fraction
    picture: np.ndarray          # the crop, at working size, or at output size when it stays plain
    plan: CropPlan
    plain: bool                  # shown before the face appears: not toonified
    whole: np.ndarray | None     # the whole frame, when it is wanted


def check_video_paths(src: str | Path, dst: str | Path) -> None:
    """Raise VToonifyError when a clip cannot be read from `src` or not be written to `dst`, before any work is done."""
    check_source(Path(src))
    suffix = check_output(dst, src).suffix
    if suffix.lower() not in FORMATS:
        raise VToonifyError(f"{dst}: a clip cannot be written as '{suffix or 'a file without ending'}'; "
                            f"use {', '.join(FORMATS)}")


def _check_frame(frame: str) -> None:
    if frame not in FRAMES:
        raise VToonifyError(f"frame is {frame!r}; expected {' or '.join(FRAMES)}")


def _several(count: int) -> str:
    return f"{count} faces were found; the largest is used"


def _notes(track: ClipTrack, plans: ClipPlan) -> list[str]:
    """What the user should know about how the face was followed."""
    notes = [_several(track.most_faces)] if track.most_faces > 1 else []
    early = track.lead()
    missed = track.frames - int(track.found.sum()) - early
    if early:
        seconds = track.times[track.first] - track.times[0]
        notes.append(f"the face appears after {seconds:.1f} s; the {early} frames before are left as they are")
    if missed:
        notes.append(f"the face was not found in {missed} of {track.frames} frames; the crop stays where it was")
    if not plans.steady:
        notes.append("the face moves far, so the crop glides after it")
    return notes
