"""Writing video: frames in, an H.264 file out, with the sound of another file beside them.

The file gets its name only when it is complete. Frames keep the times they are given, evenly spaced or not.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from ..config import VToonifyError
from . import reading
from .images import check_output
from .sound import SoundTrack

FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
"""What a file name may end in, and FFmpeg's name for that container."""

ENCODERS = {
    "libx264": {"crf": "18", "preset": "fast", "bf": "0"},
    "libopenh264": {"rc_mode": "quality"},
    "libvpx-vp9": {"crf": "24", "b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"},
}
"""Picture encoders, best first (FFmpeg builds differ in which they have), set so that the loss is hard to see. Without
frames that look ahead (`bf`), stored order is shown order, which keeps uneven times and their durations exact."""

COARSE = {"libx264": {"crf": "28"}, "libvpx-vp9": {"crf": "38"}}
"""For a preview: of the sample clip at 480×360 px, two fifths of the bytes (without sound a quarter)."""

MP4_OPTIONS = {"movflags": "+faststart", "movie_timescale": "360000"}
"""The index comes first, for playing while loading; start delays are kept to FINE_TICK instead of milliseconds."""

FINE_TICK = Fraction(1, 360_000)
"""Clock of a file made without a source: 24, 25, 30 and 60 Hz and their 1000/1001 relatives are whole ticks."""

MICROSECOND = Fraction(1, 1_000_000)
"""Finest clock that is taken over from a source; containers and encoders count ticks in 32 bits."""


class VideoWriter:
    """Encode frames into a video file, with the sound of `source` beside them, packet for packet.

    `source` is a video, whose times are followed, or sound alone. Use the writer as a context manager: the file appears
    under its name only when the block ends well; otherwise nothing stays.
    H.264 where there is an encoder for it, else VP9; 4:2:0, BT.709. An odd side grows by one repeated pixel.
    sound: False leaves it out. until: seconds at which it ends; None: where its file does.
    coarse: a preview, see COARSE.
    VToonifyError: a folder that is missing or may not be written, `dst` the same file as `source`, an unknown ending,
    a full disk.
    """

    def __init__(self, dst: str | Path, source: str | Path | None = None, sound: bool = True,
                 until: float | None = None, coarse: bool = False):
        self.dst, self.source = Path(dst), None if source is None else Path(source)
        self._with_sound, self._until, self._coarse = sound, until, coarse
        self.frames = 0
        self._temporary = self.dst.parent / f".vtoonify-{secrets.token_hex(4)}.part"
        self._stack = ExitStack()
        self._held: Any = None  # the latest frame; the very last one is muxed with its duration,
        self._lasts: Fraction | None = None  # if that is known
        self._size: tuple[int, int] | None = None
        self._sound: SoundTrack | None = None
        self._reformat = VideoReformatter().reformat

    def __enter__(self) -> VideoWriter:
        check_output(self.dst, self.source, FORMATS)
        with folder_errors(self.dst):
            self._temporary.touch(exist_ok=False)
        self._stack.callback(self._temporary.unlink, missing_ok=True)
        return self

    def write(self, rgb: np.ndarray, pts: Fraction | float, duration: Fraction | None = None) -> None:
        """Add a frame, uint8 RGB [H,W,3], shown from `pts` seconds on. All frames have one size; times go up.

        duration  seconds for which it is shown, if it is the last one; by default as long as the others are
        """
        if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
            raise VToonifyError(f"a frame is {rgb.dtype} {list(rgb.shape)}; uint8 [height, width, 3] is expected")
        if self._size is None:
            self._size = rgb.shape[:2]
            with writing_errors(self.dst):
                self._start_streams(*self._size)
        if rgb.shape[:2] != self._size:
            raise VToonifyError(f"a frame is {rgb.shape[:2]}; the first one was {self._size}, and all must be the same")
        picture = self._picture(rgb)
        picture.pts = round(pts / self._tick)
        with writing_errors(self.dst):
            if self._held is not None:
                picture.pts = max(picture.pts, self._held.pts + 1)
                if not self._follows:  # else it is one over the rate of the source
                    self._duration = picture.pts - self._held.pts
                self._encode_held()
        self._held, self._lasts = picture, duration
        self.frames += 1

    def __exit__(self, kind: type | None, *_: object) -> None:
        try:
            if kind is None:
                if self._held is None:
                    raise VToonifyError(f"no frame was written to {self.dst}; nothing is saved")
                with writing_errors(self.dst):
                    self._finish()
        finally:
            with suppress(av.FFmpegError, OSError):
                self._stack.close()

    def _start_streams(self, height: int, width: int) -> None:
        """Open both files. Every stream must exist before the first packet is written."""
        container = FORMATS[self.dst.suffix.lower()]
        rate, self._tick, source, stream = Fraction(30), FINE_TICK, None, None
        if self.source is not None:
            source = self._stack.enter_context(reading.open_video(self.source))
        self._follows = source is not None and not reading.only_sound(source)
        if self._follows:
            stream = reading.picture_stream(source, self.source)
            rate = reading.frame_rate(stream) or rate
            self._tick = max(reading.fraction(stream.time_base), MICROSECOND)
        options = MP4_OPTIONS if container in ("mp4", "mov") else {}
        self._out = av.open(str(self._temporary), "w", format=container, container_options=options)
        self._stack.enter_context(closing(self._out))
        encoder = _encoder_for(container)
        how = ENCODERS[encoder] | (COARSE.get(encoder, {}) if self._coarse else {})
        self._stream = self._out.add_stream(encoder, rate=rate, options=how)
        self._stream.width, self._stream.height = width + width % 2, height + height % 2
        self._stream.pix_fmt = "yuv420p"
        self._stream.time_base = self._stream.codec_context.time_base = self._tick
        colours = self._stream.codec_context
        colours.color_primaries = colours.color_trc = colours.colorspace = Colorspace.ITU709
        colours.color_range = ColorRange.MPEG
        self._duration = max(1, round(1 / (rate * self._tick)))
        if source is not None and self._with_sound and reading.sound_stream(source):
            self._sound = SoundTrack(source, self._out, container, reading.start_of(source, stream))

    def _picture(self, rgb: np.ndarray) -> Any:
        height, width = rgb.shape[:2]
        if height % 2 or width % 2:
            rgb = np.pad(rgb, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
        return self._reformat(frame, format="yuv420p", dst_colorspace=Colorspace.ITU709,
                              dst_color_range=ColorRange.MPEG, interpolation=reading.SCALING, threads=1)

    def _encode_held(self) -> None:
        self._held.time_base = self._tick
        if self._sound:
            self._sound.mux_until(self._held.pts * self._tick)
        self._out.mux(self._stream.encode(self._held))

    def _finish(self) -> None:
        self._held.time_base = self._tick
        packets = self._stream.encode(self._held) + self._stream.encode(None)
        lasts = self._duration if self._lasts is None else max(1, round(self._lasts / self._tick))
        packets[-1].duration = lasts  # the others last until the next one
        self._out.mux(packets)
        if self._sound:
            self._sound.mux_until(self._until)
        self._out.close()
        os.replace(self._temporary, self.dst)


@contextmanager
def folder_errors(dst: Path) -> Iterator[None]:
    """Turn the errors of making the first file beside `dst` into one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise VToonifyError(f"the name of {dst} is too long; choose a shorter one", code="unwritable") from None
        why = reading.reason(error)
        raise VToonifyError(f"the folder {dst.parent} cannot be written to ({why}); choose another",
                            code="unwritable") from None


@contextmanager
def writing_errors(dst: Path) -> Iterator[None]:
    """Turn the errors of encoders and disks into one sentence."""
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        raise VToonifyError(f"{dst} could not be written ({reading.reason(error)}); nothing is saved",
                            code="unwritable") from error


def side_by_side(clips: Sequence[str | Path], dst: str | Path) -> None:
    """Compare clips: the first one's frames and sound, and beside them the others' frames, all of one height."""
    first, *others = clips
    with ExitStack() as stack:
        rest = [_Following(stack.enter_context(closing(reading.read_frames(clip)))) for clip in others]
        writer = stack.enter_context(VideoWriter(dst, source=first))
        height = max([reading.probe(first).height, *(clip.now.rgb.shape[0] for clip in rest)])
        for frame in stack.enter_context(closing(reading.read_frames(first))):
            beside = [frame.rgb, *(clip.at(frame.pts).rgb for clip in rest)]
            writer.write(np.hstack([_scaled(rgb, height) for rgb in beside]), frame.pts, frame.duration)


class _Following:
    """A clip that is shown at another's times: `at(time)` is the frame to see then; the last one stays."""

    def __init__(self, frames: Iterator[reading.Frame]) -> None:
        self._frames = frames
        self.now = self._next = next(frames)

    def at(self, pts: Fraction) -> reading.Frame:
        while self._next is not None and self._next.pts <= pts:
            self.now, self._next = self._next, next(self._frames, None)
        return self.now


def _scaled(rgb: np.ndarray, height: int) -> np.ndarray:
    if rgb.shape[0] == height:
        return rgb
    return cv2.resize(rgb, (round(rgb.shape[1] * height / rgb.shape[0]), height), interpolation=cv2.INTER_CUBIC)


def _encoder_for(container: str) -> str:
    """The best picture encoder that this build of FFmpeg has and `container` can hold."""
    for name in ENCODERS:
        if container == "webm" and "264" in name:
            continue
        with suppress(ValueError):
            return av.Codec(name, "w").name
    raise VToonifyError(f"this build of FFmpeg has none of the encoders {', '.join(ENCODERS)}; install PyAV from pip")
