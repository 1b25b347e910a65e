"""Reading video: what a file holds, and its frames one by one, upright and with their times.

Times are exact fractions of seconds from the start of the file. A few frames are held whatever the length of the clip.
High dynamic range is mapped to 8 bits (`hdr`), what is transparent stands before black, and of several picture tracks
only the first is read, of several sound tracks the one that players take.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.stream import Disposition
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter

from ..config import VToonifyError
from .hdr import tone_mapper
from .images import check_source

HD_HEIGHT = 720
"""Untagged video is BT.601 below this height and BT.709 from it on, as players assume."""

TEXT_FORMATS = ("tty", "hls", "concat", "dash", "imf", "sdp")
"""What FFmpeg plays as video although it is text: character graphics and lists of other files."""

ENDS_EARLY = 0.9
"""Share of the stated duration below which a file counts as cut short; sound may go on a little after the pictures."""

JUMP = 1
"""Seconds by which a clock that goes back begins anew, as in files into which recordings were joined."""

MAX_RATE = 1000
"""Frames a second above which a stated rate is a clock, not a rate."""

TAGS = {"title", "artist", "author", "album", "genre", "date", "year", "creation_time", "comment", "description",
        "synopsis", "copyright", "keywords"}
"""What is kept of what a file says of itself: it is true of its cartoon, too. The rest is of its format, where somebody
lives, or steers the writer: a time code asks for a track of its own."""

GARBLED = "\N{REPLACEMENT CHARACTER}"
"""What stands in a tag for bytes that are no text."""

UNTAGGED = 2
"""FFmpeg's number for an unspecified colour matrix."""

SCALING = (
    Interpolation.BILINEAR | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP | Interpolation.ACCURATE_RND
)
"""Between YUV and RGB: without the flags, colours come out 7 dB worse for 3 ms less a megapixel."""


class Frame(NamedTuple):
    """One picture, uint8 RGB [H,W,3], the second from which it is shown, and for how many, if the file says."""

    rgb: np.ndarray
    pts: Fraction
    duration: Fraction | None = None


@dataclass(frozen=True)
class VideoInfo:
    """What a file says of itself. Sizes are those of the upright picture; `rotation` is clockwise, in degrees."""

    path: Path
    width: int
    height: int
    fps: Fraction | None
    frame_count: int | None  # an estimate
    duration_s: float | None
    rotation: int
    has_audio: bool
    codec: str


def probe(path: str | Path) -> VideoInfo:
    """Open a video, decode its first frame and describe it. VToonifyError names what is wrong with an unusable file."""
    with open_video(path) as container:
        stream = picture_stream(container, path)
        frame = next((f for f in _decode(container, stream) if f is not None), None)
        if frame is None:
            raise _no_frames(path)
        look = _Look(stream, frame)
        fps = frame_rate(stream)
        duration = _stated_duration(container, stream) or None
        count = stream.frames or (round(duration * fps) if duration and fps else None)
        height, width = look.upright_size
        sound = bool(sound_stream(container))
        name = stream.codec_context.codec.canonical_name
        return VideoInfo(Path(path), width, height, fps, count, duration, look.rotation, sound, name)


def read_frames(path: str | Path, skip: int = 0) -> Iterator[Frame]:
    """Frames of a video in order of showing, one at a time. A damaged file yields what can be read, then warns.

    skip  first frames that are not wanted: they are decoded, for the others' sake, but not made pictures of
    """
    with open_video(path) as container:
        stream = picture_stream(container, path)
        stream.thread_type = "AUTO"
        shift = -start_of(container, stream)
        step = 1 / (frame_rate(stream) or Fraction(25))
        look, shown, damaged, pts, end = None, 0, False, -step, Fraction(0)
        for frame in _decode(container, stream):
            if frame is None:
                damaged = True
                continue
            look = look or _Look(stream, frame)
            now = pts + step if frame.pts is None else seconds(frame.pts, frame.time_base) + shift
            if shown and now < pts - JUMP:
                shift += pts + step - now
                now = pts + step
            pts = now
            duration = seconds(frame.duration, frame.time_base) if frame.duration else None
            end = pts + (duration or step)
            shown += 1
            if shown > skip:
                yield Frame(look.rgb(frame), pts, duration)
        if not shown:
            raise _no_frames(path)
        promised = _stated_duration(container, stream)
        if damaged or end < ENDS_EARLY * promised:
            reach = f"{float(end):.1f} s" + f" of {promised:.1f} s" * (promised > end)
            warnings.warn(f"{path} seems damaged or cut short; {shown} frames, {reach}, could be read", stacklevel=2)


def open_video(path: str | Path) -> Any:
    """The opened container, to be used in a `with` block. VToonifyError if it is missing, empty or no media file."""
    path = Path(path)
    check_source(path)
    try:  # only this file: a playlist must not make us open others
        return av.open(str(path.resolve()), options={"protocol_whitelist": "file"}, metadata_errors="replace")
    except av.error.EOFError:
        raise _no_frames(path) from None
    except (av.FFmpegError, OSError) as error:
        raise VToonifyError(f"{path} is not a video, or its beginning or index is missing ({reason(error)})",
                            code="unreadable") from None


def picture_stream(container: Any, path: str | Path) -> Any:
    """The first moving picture of a container. VToonifyError if there is none; `path` is for the message."""
    streams = _moving(container)
    if not streams:
        what = "only sound" if container.streams.audio else "no moving picture"
        raise VToonifyError(f"{path} holds {what}; a video is expected", code="unreadable")
    kind = container.format.name
    if kind == "image2" or kind.endswith("_pipe"):
        raise VToonifyError(f"{path} is a still picture, not a video; use `vtoonify image`", code="unreadable")
    if kind in TEXT_FORMATS:
        raise VToonifyError(f"{path} is a text file, not a video", code="unreadable")
    if streams[0].codec_context is None:
        raise VToonifyError(f"{path} holds a video of a kind that cannot be decoded here; convert it to H.264 first",
                            code="unreadable")
    return streams[0]


def sound_stream(container: Any) -> Any:
    """The sound track that players take, the default one or else the first, of those that can be read; or None.

    A track that is announced and never sent has no rate.
    """
    tracks = [s for s in container.streams.audio if s.codec_context is not None and s.codec_context.sample_rate]
    return next((s for s in tracks if s.disposition & Disposition.default), tracks[0] if tracks else None)


def tags(container: Any) -> dict[str, str]:
    """What a file says of itself and is true of its cartoon (TAGS); what is no text is left out."""
    return {key: tag for key, tag in container.metadata.items() if key.lower() in TAGS and GARBLED not in tag}


def left_out(path: str | Path) -> list[str]:
    """What a file holds besides the picture and the sound that are read, one sentence each."""
    with open_video(path) as container:
        tracks = (("picture", len(_moving(container))), ("sound", len(container.streams.audio)))
        silent = bool(container.streams.audio) and sound_stream(container) is None
        said = ["the sound is of a kind that cannot be read here, so it is left out"] * silent
        said += [f"of {count} {kind} tracks one is kept" for kind, count in tracks if count > 1]
        return said + ["subtitles are left out"] * bool(container.streams.subtitles)


def only_sound(container: Any) -> bool:
    """True for a recording of sound; it may carry a picture of its cover, but no moving one."""
    return not _moving(container) and sound_stream(container) is not None


def _moving(container: Any) -> list[Any]:
    return [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]


def frame_rate(stream: Any) -> Fraction | None:
    """Average frames a second, None where the file does not say or says nonsense."""
    rate = fraction(stream.average_rate) or fraction(stream.guessed_rate)
    return rate if rate and 0 < rate <= MAX_RATE else None


def _decode(container: Any, stream: Any) -> Iterator[Any]:
    """PyAV frames in order of showing; None stands for a place that could not be read."""
    packets = container.demux(stream)
    packet: Any = ...
    while packet is not None:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.FFmpegError:
            packet = None
        if packet is None or packet.is_corrupt:
            yield None
        try:
            frames = stream.decode(packet)  # None brings out what the decoder still holds
        except av.FFmpegError:
            yield None
        else:
            yield from frames


class _Look:
    """How the frames of one stream become upright RGB of one size, fixed by the first frame."""

    def __init__(self, stream: Any, frame: Any):
        aspect = float(fraction(stream.sample_aspect_ratio) or 1)
        self._size = (round(frame.width * aspect) if 0.2 < aspect < 5 else frame.width), frame.height
        self._matrix = Colorspace.ITU709 if frame.height >= HD_HEIGHT else Colorspace.ITU601
        self._orient = _orientation(frame)
        self._reformat = VideoReformatter().reformat
        colours = stream.codec_context
        self._tone = tone_mapper(int(colours.color_trc), int(colours.color_primaries))
        alpha = any(component.is_alpha for component in frame.format.components)
        self._format = "rgb48le" if self._tone else "rgba" if alpha else "rgb24"

    @property
    def upright_size(self) -> tuple[int, int]:
        """(height, width)"""
        return self._size if self._orient[0] else self._size[::-1]

    @property
    def rotation(self) -> int:
        """Clockwise degrees from the stored to the upright picture; a mirror image counts as its rotation."""
        transpose, flip_y, flip_x = self._orient
        return (90 if flip_x else 270) if transpose else (180 if flip_y else 0)

    def rgb(self, frame: Any) -> np.ndarray:
        width, height = self._size
        matrix = self._matrix if frame.colorspace == UNTAGGED else None
        picture = self._reformat(frame, width=width, height=height, format=self._format, src_colorspace=matrix,
                                 interpolation=SCALING, threads=1).to_ndarray()
        if self._tone:
            picture = self._tone(picture)
        elif self._format == "rgba":
            picture = ((picture[..., :3].astype(np.uint16) * picture[..., 3:] + 127) // 255).astype(np.uint8)
        transpose, flip_y, flip_x = self._orient
        if transpose:
            picture = picture.transpose(1, 0, 2)
        return np.ascontiguousarray(picture[:: -1 if flip_y else 1, :: -1 if flip_x else 1])


def _orientation(frame: Any) -> tuple[bool, bool, bool]:
    """(transpose, then flip vertically, flip horizontally) from the display matrix, rounded to quarter turns."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return False, False, False
    a, b, _, c, d = np.frombuffer(bytes(memoryview(data)), np.int32)[:5].tolist()  # x' = ax + cy, y' = bx + dy
    return (True, b < 0, c < 0) if abs(b) > abs(a) else (False, d < 0, a < 0)


def start_of(container: Any, stream: Any) -> Fraction:
    """Where the file's own clock begins, if after 0 (broadcast recordings): all times are counted from there."""
    streams = [s for s in (stream, sound_stream(container)) if s is not None and s.start_time is not None]
    return max(Fraction(0), min((seconds(s.start_time, s.time_base) for s in streams), default=Fraction(0)))


def _stated_duration(container: Any, stream: Any) -> float:
    """Seconds of picture the file claims to hold; of the whole file where it says no more, 0 where it says nothing."""
    if stream.duration:
        return float(seconds(stream.duration, stream.time_base))
    return (container.duration or 0) / av.time_base


def _no_frames(path: str | Path) -> VToonifyError:
    return VToonifyError(f"{path} holds no frame that can be decoded; the file is empty of pictures or damaged",
                         code="unreadable")


def fraction(value: Any) -> Fraction | None:
    """FFmpeg's rational number as a Fraction; None where it is missing or 0."""
    return Fraction(value.numerator, value.denominator) if value else None


def seconds(ticks: int, time_base: Any) -> Fraction:
    """A time stamp in exact seconds."""
    return ticks * fraction(time_base)


def reason(error: Exception) -> str:
    """The system's short words for an error: `No space left on device`."""
    return getattr(error, "strerror", None) or str(error)
