"""High dynamic range and transparency in video files become ordinary pictures."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

from vtoonify_lib.media import hdr
from vtoonify_lib.media.video import read_frames


def pq_value(candela: float) -> float:
    """PQ signal in [0,1] of a luminance in cd/m² (the inverse of what is tested)."""
    y = (candela / 1e4) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * y) / (1 + 2392 / 128 * y)) ** (2523 / 32)


def test_pq_and_hlg_have_the_light_of_their_standards():
    at = lambda table, value: float(table[round(65535 * value)])  # noqa: E731
    for candela in (1, 26, 203, 1000, 10_000):
        assert at(hdr.pq_light(), pq_value(candela)) * hdr.WHITE == pytest.approx(candela, rel=2e-3)
    assert at(hdr.hlg_signal(), 0.5) == pytest.approx(1 / 12, rel=1e-3)
    assert at(hdr.hlg_signal(), 1.0) == pytest.approx(1.0, rel=1e-3)
    assert at(hdr.hlg_signal(), 0.75) == pytest.approx(0.265, rel=1e-2)  # diffuse white by BT.2408


def test_light_rolls_off_and_never_turns_back():
    light = np.linspace(0, 50, 5001)
    rolled = hdr.roll_off(light)
    assert np.array_equal(rolled[light <= 0.7], light[light <= 0.7]) and rolled.max() <= 1 and rolled[100] > 0.85
    assert (np.diff(rolled) >= 0).all() and np.diff(rolled).max() < 0.0101


def test_ordinary_video_is_left_alone():
    assert hdr.tone_mapper(ColorTrc.BT709, ColorPrimaries.BT709) is None
    assert hdr.tone_mapper(ColorTrc.UNSPECIFIED, 2) is None


@pytest.mark.parametrize("transfer", [ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67])
def test_greys_stay_grey_and_in_order(transfer):
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None, :, None].repeat(3, 2)
    out = hdr.tone_mapper(transfer, ColorPrimaries.BT2020)(ramp)[0].astype(int)
    assert out.dtype == int and np.ptp(out, axis=1).max() <= 1 and (np.diff(out[:, 0]) >= 0).all()
    assert out[0, 0] == 0 and out[-1, 0] >= 250


def write(path: Path, rgb: np.ndarray, codec: str, pixels: str, hdr10: bool) -> Path:
    """Four frames of one picture: uint16 [H,W,3] in PQ and BT.2020, or uint8 with alpha [H,W,4]."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = *rgb.shape[:2], pixels
        context = stream.codec_context
        context.time_base = Fraction(1, 25)
        if hdr10:
            stream.options = {"x265-params": "log-level=none:lossless=1"}
            context.color_trc, context.color_primaries = ColorTrc.SMPTE2084, ColorPrimaries.BT2020
            context.colorspace, context.color_range = 9, ColorRange.MPEG
        for index in range(4):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb48le" if hdr10 else "rgba")
            if hdr10:
                frame = frame.reformat(format=pixels, dst_colorspace=Colorspace(9), dst_color_range=ColorRange.MPEG)
            frame.pts = index
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def test_a_pq_clip_is_as_bright_as_an_ordinary_one(tmp_path):
    if "libx265" not in av.codecs_available:
        pytest.skip("this build of FFmpeg has no libx265")
    picture = np.zeros((64, 96, 3), np.uint16)
    for column, candela in enumerate((0.5, 26, 100)):  # black, 18 % grey, a bright face
        picture[:, 32 * column : 32 * (column + 1)] = round(65535 * pq_value(candela))
    frame = next(read_frames(write(tmp_path / "a.mkv", picture, "libx265", "yuv420p10le", True))).rgb
    shown = [frame[16:48, 32 * i + 8 : 32 * i + 24].mean((0, 1)) for i in range(3)]
    expected = [255 * (candela / 203) ** (1 / 2.4) for candela in (0.5, 26, 100)]
    assert frame.dtype == np.uint8 and frame.shape == (64, 96, 3)
    for value, wanted in zip(shown, expected, strict=True):
        assert np.abs(value - wanted).max() < 4


def test_what_is_transparent_stands_before_black(tmp_path):
    picture = np.full((32, 64, 4), 200, np.uint8)
    picture[:, :32, 3], picture[:, 32:, 3] = 255, 0
    frame = next(read_frames(write(tmp_path / "a.mov", picture, "png", "rgba", False))).rgb
    assert frame.shape == (32, 64, 3) and (frame[:, :32] == 200).all() and (frame[:, 32:] == 0).all()
