"""Video in and out: what goes in comes out: count, times, sound, colour, rotation."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from av.video.reformatter import ColorRange, Colorspace
from media_files import (
    AVI,
    UNEVEN,
    VP9,
    _add_tone,
    copy,
    corners,
    make_clip,
    picture,
    sound_packets,
    sound_times,
    times,
)

from vtoonify_lib.media import writing
from vtoonify_lib.media.video import VideoWriter, left_out, probe, read_frames


def flat_psnr(path: Path) -> float:
    """dB over the middles of the flat quarters, against the pictures that make_clip drew."""
    error = []
    for index, frame in enumerate(read_frames(path)):
        truth = picture(index, *frame.rgb.shape[1::-1]).astype(float)
        height, width = truth.shape[:2]
        for y, x in [(0, 0), (0, width // 2), (height // 2, 0), (height // 2, width // 2)]:
            area = slice(y + 6, y + height // 2 - 6), slice(x + 6, x + width // 2 - 6)
            error.append(((frame.rgb[area] - truth[area]) ** 2).mean())
    return 10 * np.log10(255**2 / np.mean(error))


# ------------------------------------------------------------------------------------------ round trips


@pytest.mark.parametrize(
    ("src", "dst", "recipe"),
    [
        ("a.mp4", "b.mp4", {}),
        ("a.mp4", "b.mp4", dict(layout="stereo")),
        ("a.mp4", "b.mp4", dict(sound_rate=8000)),
        ("a.mp4", "b.mp4", dict(sound="libmp3lame")),
        ("a.mp4", "b.mp4", dict(rate=Fraction(30000, 1001))),
        ("a.mp4", "b.mp4", dict(rate=Fraction(24000, 1001))),
        ("a.mp4", "b.mp4", UNEVEN),
        ("a.mp4", "b.mp4", dict(ticks=[12, 13, 14, 15])),
        ("a.mp4", "b.mp4", dict(sound_start=Fraction(1, 2))),
        ("a.mp4", "b.mp4", dict(frames=1)),
        ("a.mkv", "b.mkv", {}),
        ("a.mov", "b.mov", dict(sound="pcm_s16le")),
        ("a.mkv", "b.mp4", {}),
        ("a.webm", "b.webm", VP9),
        ("a.webm", "b.mp4", VP9),
        ("a.avi", "b.mp4", AVI | dict(sound="libmp3lame")),
    ],
    ids=lambda value: "-".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else value,
)
def test_round_trip_keeps_count_times_and_sound_packets(tmp_path, src, dst, recipe):
    src = make_clip(tmp_path / src, **recipe)
    dst = copy(src, tmp_path / dst)
    assert times(dst) == times(src)
    assert sound_packets(dst) == sound_packets(src)
    late = [abs(a - b) for a, b in zip(sound_times(src), sound_times(dst), strict=True)]
    assert max(late) <= Fraction(1, 1000)  # Matroska's clock
    assert probe(dst).has_audio
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_matroska_has_no_time_before_zero_and_moves_all_by_the_same(tmp_path):
    """AAC from mp4 begins a packet early, at -23 ms; pictures and sound keep their distance."""
    src = make_clip(tmp_path / "a.mp4")
    dst = copy(src, tmp_path / "b.mkv")
    pairs = zip(times(dst) + sound_times(dst), times(src) + sound_times(src), strict=True)
    assert {round(1000 * (a - b)) for a, b in pairs} == {23}
    assert sound_packets(dst) == sound_packets(src)


def test_uneven_times_also_keep_the_duration(tmp_path):
    src = make_clip(tmp_path / "a.mp4", sound=None, **UNEVEN)
    info = probe(copy(src, tmp_path / "b.mp4"))
    assert info.duration_s == pytest.approx(0.94, abs=0.01)
    assert info.frame_count == 7


@pytest.mark.parametrize("name", ["b.mp4", "b.mkv"])
def test_a_last_picture_that_stands_still_does_so_in_the_copy(tmp_path, name):
    src = make_clip(tmp_path / "a.mp4", lasts=1500, options={"bf": "0"}, **UNEVEN)
    *_, last = read_frames(src)
    assert last.duration == Fraction(3, 2)
    dst = copy(src, tmp_path / name)
    assert probe(dst).duration_s == pytest.approx(probe(src).duration_s, abs=0.03) == pytest.approx(2.4, abs=0.03)
    with VideoWriter(tmp_path / "c.mp4", source=src) as writer:  # who does not know it, guesses
        for frame in read_frames(src):
            writer.write(frame.rgb, frame.pts)
    assert probe(tmp_path / "c.mp4").duration_s < 2


def test_written_from_scratch(tmp_path):
    dst = tmp_path / "new.mp4"
    moments = [Fraction(k * 1001, 24000) for k in range(6)]
    with VideoWriter(dst) as writer:
        for index, moment in enumerate(moments):
            writer.write(picture(index), moment)
    assert times(dst) == moments
    info = probe(dst)
    assert (info.width, info.height, info.codec, info.has_audio, info.rotation) == (64, 48, "h264", False, 0)
    assert info.fps == pytest.approx(24000 / 1001)
    with av.open(str(dst)) as container:
        frame = next(container.decode(video=0))
        colours = container.streams.video[0].codec_context
        assert (frame.format.name, frame.colorspace, frame.color_range) == ("yuv420p", 1, 1)
        assert (colours.color_primaries, colours.color_trc) == (1, 1)
    assert dst.stat().st_mode & 0o044  # not the private mode of temporary files


def test_a_coarse_copy_is_much_smaller(tmp_path):
    src, sizes = make_clip(tmp_path / "a.mp4", width=320, height=240), []
    frames, noise = list(read_frames(src)), np.random.default_rng(0).integers(0, 60, (240, 320, 3), np.uint8)
    for coarse in (False, True):
        with VideoWriter(tmp_path / "b.mp4", coarse=coarse) as writer:
            for frame in frames:
                writer.write(frame.rgb // 2 + noise, frame.pts)
        sizes.append((tmp_path / "b.mp4").stat().st_size)
    assert sizes[1] < 0.6 * sizes[0]


def test_times_that_do_not_go_up_are_moved_by_one_tick(tmp_path):
    with VideoWriter(tmp_path / "a.mp4") as writer:
        for index, moment in enumerate([0, 0.1, 0.1, 0.05]):
            writer.write(picture(index), moment)
    shown = times(tmp_path / "a.mp4")
    assert len(shown) == 4 and shown == sorted(set(shown))


@pytest.mark.parametrize("name", ["a.ts", "a.mp4"])
def test_a_clock_that_starts_late_is_counted_from_its_start(tmp_path, name):
    """Broadcast files start anywhere; sound and pictures keep their distance, and the copy starts at 0."""
    src = make_clip(tmp_path / name, ticks=[50, 51, 52, 53], sound_start=Fraction(2))
    dst = copy(src, tmp_path / "copy.mp4")
    assert times(dst) == pytest.approx(times(src), abs=2e-5)
    assert times(src)[0] < Fraction(1, 20)
    assert sound_times(dst)[0] - times(dst)[0] == pytest.approx(-times(src)[0], abs=2e-5)
    stripped = [p[7:] if name == "a.ts" else p for p in sound_packets(src)]  # ADTS headers have no place in mp4
    assert sound_packets(dst) == stripped


@pytest.mark.parametrize(
    ("src", "dst", "recipe", "codec"),
    [
        ("a.mkv", "b.mp4", dict(sound="pcm_s16le"), "aac"),
        ("a.mkv", "b.mp4", dict(sound="pcm_s16le", layout="5.1"), "aac"),
        ("a.mov", "b.mp4", dict(sound="pcm_mulaw", sound_rate=8000), "aac"),
        ("a.avi", "b.mp4", AVI | dict(sound="pcm_s16le"), "aac"),
        ("a.mp4", "b.webm", {}, "opus"),
        ("a.mkv", "b.webm", dict(sound="pcm_s16le", layout="5.1"), "opus"),
    ],
)
def test_sound_the_container_cannot_hold_is_encoded_anew(tmp_path, src, dst, recipe, codec):
    src = make_clip(tmp_path / src, frames=25, **recipe)
    dst = copy(src, tmp_path / dst)
    assert times(dst) == times(src)
    with av.open(str(dst)) as container:
        assert container.streams.audio[0].codec_context.codec.canonical_name == codec
        waves = [f.to_ndarray().astype(float).sum(0) for f in container.decode(audio=0)]
        assert container.streams.audio[0].codec_context.layout.name == recipe.get("layout", "mono")
        rate = container.streams.audio[0].codec_context.sample_rate
    wave = np.concatenate(waves)
    assert len(wave) / rate == pytest.approx(1, abs=0.15)
    spectrum = np.abs(np.fft.rfft(wave))
    assert spectrum.argmax() * rate / len(wave) == pytest.approx(440, abs=5)


def test_of_several_tracks_the_default_one_is_kept_and_the_rest_is_said(tmp_path):
    src = tmp_path / "a.mkv"
    with av.open(str(src), "w") as out:
        pictures = out.add_stream("libx264", rate=25, options={"bf": "0"})
        pictures.width = pictures.height = 64
        pictures.pix_fmt = "yuv420p"
        tracks = [out.add_stream("aac", rate=rate, layout="mono") for rate in (44100, 48000)]
        tracks[0].disposition, tracks[1].disposition = Disposition(0), Disposition.default
        tracks[1].metadata["language"] = "deu"
        for _ in range(25):
            out.mux(pictures.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))))
        out.mux(pictures.encode(None))
        for track in tracks:
            _add_tone(out, track, Fraction(1), Fraction(0))
    dst = copy(src, tmp_path / "b.mp4")
    with av.open(str(dst)) as container:
        track, = container.streams.audio
        assert track.codec_context.sample_rate == 48000 and track.metadata["language"] == "deu"
    assert left_out(src) == ["of 2 sound tracks one is kept"] and left_out(dst) == []


def test_clip_without_sound_and_source_without_sound(tmp_path):
    src = make_clip(tmp_path / "a.mp4", sound=None)
    assert not probe(src).has_audio
    assert not probe(copy(src, tmp_path / "b.mp4")).has_audio


# ------------------------------------------------------------------------------------------ pictures


@pytest.mark.parametrize(
    ("height", "recipe"),
    [
        (48, dict(matrix=Colorspace.ITU601, tagged=False)),
        (720, dict(matrix=Colorspace.ITU709, tagged=False, frames=2)),
        (48, dict(matrix=Colorspace.ITU601, tagged=True)),
        (48, dict(matrix=Colorspace.ITU709, tagged=True)),
        (48, dict(matrix=Colorspace.ITU709, tagged=True, pix_fmt="yuvj420p", value_range=ColorRange.JPEG)),
        (48, dict(pix_fmt="yuv420p10le")),
        (48, dict(pix_fmt="yuv444p")),
    ],
)
def test_colours_survive(tmp_path, height, recipe):
    src = make_clip(tmp_path / "a.mp4", height=height, sound=None, **recipe)
    assert flat_psnr(src) > 38
    assert flat_psnr(copy(src, tmp_path / "b.mp4")) > 36


@pytest.mark.parametrize(
    ("rotation", "size", "quarters"),
    [
        (0, (64, 48), [0, 1, 2, 3]),
        (90, (48, 64), [2, 0, 3, 1]),
        (180, (64, 48), [3, 2, 1, 0]),
        (270, (48, 64), [1, 3, 0, 2]),
    ],
)
def test_phone_rotation_is_applied_and_not_written_again(tmp_path, rotation, size, quarters):
    src = make_clip(tmp_path / "a.mp4", rotation=rotation)
    dst = copy(src, tmp_path / "b.mp4")
    for path, turned in ((src, rotation), (dst, 0)):
        info = probe(path)
        assert (info.width, info.height, info.rotation) == (*size, turned)
        rgb = next(read_frames(path)).rgb
        assert rgb.shape == (size[1], size[0], 3) and rgb.flags.c_contiguous
        assert corners(rgb) == quarters


def test_mirrored_display_matrix_is_applied(tmp_path):
    """Front cameras mirror: patch the matrix in the track header, which PyAV can only rotate."""
    data = make_clip(tmp_path / "a.mp4", rotation=180).read_bytes()
    one, minus_one, zero = (n.to_bytes(4, "big", signed=True) for n in (65536, -65536, 0))
    turned = minus_one + zero * 3 + minus_one
    assert data.count(turned) == 1
    (tmp_path / "a.mp4").write_bytes(data.replace(turned, minus_one + zero * 3 + one))
    assert corners(next(read_frames(tmp_path / "a.mp4")).rgb) == [1, 0, 3, 2]


def test_odd_sizes_grow_by_one_pixel(tmp_path):
    src = make_clip(tmp_path / "a.mp4", width=63, height=47, pix_fmt="yuv444p")
    dst = copy(src, tmp_path / "b.mp4")
    assert next(read_frames(src)).rgb.shape == (47, 63, 3)
    rgb = next(read_frames(dst)).rgb
    assert rgb.shape == (48, 64, 3)
    assert np.abs(rgb[:, -1].astype(int) - rgb[:, -2]).max() < 25


@pytest.mark.parametrize("size", [1, 2, 8])
def test_tiny_pictures(tmp_path, size):
    dst = tmp_path / "a.mp4"
    with VideoWriter(dst) as writer:
        for k in range(3):
            writer.write(np.full((size, size, 3), 80 * k, np.uint8), Fraction(k, 25))
    shown = [f.rgb for f in read_frames(dst)]
    assert [s.shape for s in shown] == [(size + size % 2,) * 2 + (3,)] * 3
    assert [int(s.mean()) for s in shown] == pytest.approx([0, 80, 160], abs=4)


def test_pixels_that_are_not_square_become_square(tmp_path):
    src = make_clip(tmp_path / "a.mp4", aspect=Fraction(3, 2))
    assert (probe(src).width, probe(src).height) == (96, 48)
    assert next(read_frames(src)).rgb.shape == (48, 96, 3)


def test_without_h264_the_next_encoder_is_taken(tmp_path, monkeypatch):
    others = {k: v for k, v in writing.ENCODERS.items() if k != "libx264"}
    monkeypatch.setattr(writing, "ENCODERS", {"no_such_encoder": {}} | others)
    dst = copy(make_clip(tmp_path / "a.mp4"), tmp_path / "b.mp4")
    assert probe(dst).codec == "vp9" or "libopenh264" in av.codecs_available
    assert flat_psnr(dst) > 33
