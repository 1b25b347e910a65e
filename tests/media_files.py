"""Small video files made on the spot, of every kind the tests need: `make_clip(path, ...)`."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from vtoonify_lib.media.video import VideoWriter, read_frames

VP9 = dict(codec="libvpx-vp9", sound="libopus", sound_rate=48000, options={})
AVI = dict(codec="mpeg4", options={})
UNEVEN = dict(ticks=[0, 40, 70, 180, 181, 400, 900], time_base=Fraction(1, 1000))
PALETTE = np.uint8(
    [[220, 40, 40], [40, 200, 60], [50, 60, 220], [230, 230, 230], [20, 20, 20], [200, 150, 120], [30, 90, 160]]
)


def picture(index: int, width: int = 64, height: int = 48) -> np.ndarray:
    """uint8 [H,W,3]: four flat corners, each of another colour, that change with `index`; red first at the top left."""
    quarter = [PALETTE[(index + k) % len(PALETTE)] if index else PALETTE[k] for k in range(4)]
    image = np.empty((height, width, 3), np.uint8)
    for k, colour in enumerate(quarter):
        rows = slice(0, height // 2) if k < 2 else slice(height // 2, None)
        columns = slice(0, width // 2) if k % 2 == 0 else slice(width // 2, None)
        image[rows, columns] = colour
    return image


def corners(rgb: np.ndarray) -> list[int]:
    """Indices into PALETTE of the colours nearest to the middle of the four quarters, row by row."""
    height, width = rgb.shape[:2]
    points = [rgb[height * y // 4, width * x // 4].astype(int) for y in (1, 3) for x in (1, 3)]
    return [int(np.argmin(((PALETTE.astype(int) - p) ** 2).sum(1))) for p in points]


def make_clip(
    path: Path,
    *,
    frames: int = 10,
    width: int = 64,
    height: int = 48,
    rate: Fraction | int = 25,
    ticks: list[int] | None = None,
    time_base: Fraction | None = None,
    lasts: int | None = None,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    matrix: Colorspace = Colorspace.ITU601,
    value_range: ColorRange = ColorRange.MPEG,
    tagged: bool = False,
    rotation: int = 0,
    aspect: Fraction | None = None,
    sound: str | None = "aac",
    sound_rate: int = 44100,
    layout: str = "mono",
    sound_start: Fraction = Fraction(0),
    options: dict[str, str] | None = None,
    container: str | None = None,
    tags: dict[str, str] | None = None,
) -> Path:
    """Write a clip of `picture`s with a sine tone as long as the pictures; `ticks` are the times in `time_base`.

    lasts: for how many of them the last frame is shown; then frames must be stored in the order in which they are shown
    """
    options = {"crf": "8", "g": "5"} if options is None else options
    with av.open(str(path), "w", format=container) as out:
        out.metadata.update(tags or {})
        stream = out.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        context = stream.codec_context
        if tagged:
            context.color_primaries = context.color_trc = context.colorspace = 1 if matrix == Colorspace.ITU709 else 6
            context.color_range = value_range
        if aspect:
            context.sample_aspect_ratio = aspect
        if rotation:
            stream.set_display_rotation(-rotation)
        if time_base:
            stream.time_base = context.time_base = time_base
        tone = out.add_stream(sound, rate=sound_rate, layout=layout) if sound else None
        convert = VideoReformatter().reformat
        ticks = list(range(frames)) if ticks is None else ticks
        for index, tick in enumerate(ticks):
            frame = av.VideoFrame.from_ndarray(picture(index, width, height), format="rgb24")
            frame = convert(frame, format=pix_fmt, dst_colorspace=matrix, dst_color_range=value_range)
            frame.pts, frame.time_base = tick, time_base or 1 / Fraction(rate)
            out.mux(stream.encode(frame))
        rest = stream.encode(None)
        if lasts:
            rest[-1].duration = lasts
        out.mux(rest)
        if tone:
            _add_tone(out, tone, Fraction(len(ticks)) / Fraction(rate), sound_start)
    return path


def _add_tone(out: av.container.OutputContainer, stream: av.AudioStream, seconds: Fraction, start: Fraction) -> None:
    context = stream.codec_context
    context.open(strict=False)
    rate, size = context.sample_rate, context.frame_size or 1024
    resampler = av.AudioResampler(context.format, context.layout, rate)
    for block in range(0, int(seconds * rate), size):
        wave = np.sin(2 * np.pi * 440 * np.arange(block, block + size) / rate)
        frame = av.AudioFrame.from_ndarray((wave * 9000).astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), block + round(start * rate)
        for piece in resampler.resample(frame):
            out.mux(stream.encode(piece))
    out.mux(stream.encode(None))


def make_sound(path: Path, codec: str = "aac", rate: int = 44100) -> Path:
    """A file with sound and no picture."""
    with av.open(str(path), "w") as out:
        _add_tone(out, out.add_stream(codec, rate=rate, layout="mono"), Fraction(1), Fraction(0))
    return path


def sound_packets(path: Path) -> list[bytes]:
    """The first sound track, packet by packet."""
    with av.open(str(path)) as container:
        return [bytes(p) for p in container.demux(container.streams.audio[0]) if p.size]


def sound_times(path: Path) -> list[Fraction]:
    """When each packet of the first sound track begins, in seconds."""
    with av.open(str(path)) as container:
        packets = container.demux(container.streams.audio[0])
        return [p.pts * Fraction(p.time_base.numerator, p.time_base.denominator) for p in packets if p.size]


def copy(src: Path, dst: Path) -> Path:
    with VideoWriter(dst, source=src) as writer:
        for frame in read_frames(src):
            writer.write(*frame)
    return dst


def times(path: Path) -> list[Fraction]:
    return [frame.pts for frame in read_frames(path)]


def rewritten(path: Path, data: bytes | str) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path
