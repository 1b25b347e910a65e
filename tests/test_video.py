"""Video in and out: what goes in comes out (count, times, sound, colour, rotation), and bad files say what is wrong."""

from __future__ import annotations

import errno
import threading
import time
import warnings
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av.stream import Disposition
from av.video.reformatter import ColorRange, Colorspace
from errors import refuses
from media_files import _add_tone, corners, make_clip, make_sound, picture, sound_packets, sound_times

from vtoonify_lib.config import VToonifyError
from vtoonify_lib.media import writing
from vtoonify_lib.media.video import VideoWriter, left_out, pipelined, probe, read_frames, side_by_side

VP9 = dict(codec="libvpx-vp9", sound="libopus", sound_rate=48000, options={})
AVI = dict(codec="mpeg4", options={})
UNEVEN = dict(ticks=[0, 40, 70, 180, 181, 400, 900], time_base=Fraction(1, 1000))


def copy(src: Path, dst: Path) -> Path:
    with VideoWriter(dst, source=src) as writer:
        for frame in read_frames(src):
            writer.write(*frame)
    return dst


def times(path: Path) -> list[Fraction]:
    return [frame.pts for frame in read_frames(path)]


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


# ------------------------------------------------------------------------------------------ bad input


def rewritten(path: Path, data: bytes | str) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def still(path: Path) -> Path:
    cv2.imwrite(str(path), picture(0))
    return path


def no_samples(path: Path) -> Path:
    with av.open(str(path), "w", options={"movflags": "frag_keyframe+empty_moov"}) as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        out.start_encoding()
    return path


BAD = {
    "missing": (lambda d: d / "no.mp4", "does not exist"),
    "folder": (lambda d: d, "is a folder"),
    "empty": (lambda d: rewritten(d / "a.mp4", b""), "is empty"),
    "text": (lambda d: rewritten(d / "a.mp4", "not a video\n" * 400), "is not a video"),
    "text.txt": (lambda d: rewritten(d / "a.txt", "not a video\n" * 400), "is a text file"),
    "playlist": (lambda d: rewritten(d / "a.mp4", "ffconcat version 1.0\nfile " + make_clip(d / "b.mp4").name), "text"),
    "noise": (lambda d: rewritten(d / "a.mp4", np.random.default_rng(0).bytes(9999)), "is not a video"),
    "no index": (lambda d: rewritten(d / "a.mp4", make_clip(d / "b.mp4").read_bytes()[:3000]), "index is missing"),
    "sound only": (lambda d: make_sound(d / "a.mp4"), "only sound"),
    "sound only, mp3": (lambda d: make_sound(d / "a.mp3", "libmp3lame"), "only sound"),
    "no frames": (lambda d: no_samples(d / "a.mp4"), "no frame"),
    "still": (lambda d: still(d / "a.png"), "still picture"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_files_say_what_is_wrong_in_one_line(tmp_path, kind):
    make, words = BAD[kind]
    path = make(tmp_path)
    for use in (probe, lambda p: next(read_frames(p)), lambda p: copy(p, tmp_path / "out.mp4")):
        with pytest.raises(VToonifyError) as error:
            use(path)
        message = str(error.value)
        assert words in message and str(path) in message and "\n" not in message
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize(("name", "recipe"), [("a.mp4", {}), ("a.mkv", {}), ("a.webm", VP9), ("a.avi", AVI)])
def test_a_file_cut_short_gives_what_it_has_and_warns(tmp_path, name, recipe):
    whole = make_clip(tmp_path / name, frames=60, **{"sound": "libmp3lame"} | recipe)
    if name == "a.mp4":
        whole = copy(whole, tmp_path / "index_first.mp4")
    cut = rewritten(tmp_path / f"cut_{name}", whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    with pytest.warns(UserWarning, match=r"cut short; \d+ frames"):
        shown = times(cut)
    assert 20 < len(shown) < 50
    assert shown == times(whole)[: len(shown)]
    with pytest.warns(UserWarning, match="cut short"):
        assert times(copy(cut, tmp_path / "out.mp4")) == shown


def test_damage_in_the_middle_is_read_over(tmp_path):
    data = bytearray(make_clip(tmp_path / "a.mp4", frames=60, width=160, height=120).read_bytes())
    for at in np.random.default_rng(0).integers(len(data) // 3, len(data) // 2, 60):
        data[at] ^= 0xFF
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert len(times(rewritten(tmp_path / "b.mp4", bytes(data)))) > 40


def test_whole_files_do_not_warn(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, recipe in (("a.mp4", UNEVEN), ("a.mkv", {}), ("b.mp4", dict(ticks=[12, 13, 14])), ("a.webm", VP9)):
            times(make_clip(tmp_path / name, **recipe))


# ------------------------------------------------------------------------------------------ output files


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("after", [0, 1, 30])
def test_an_interruption_leaves_nothing_and_spares_the_old_file(tmp_path, error, after):
    src = make_clip(tmp_path / "a.mp4", frames=40)
    dst = rewritten(tmp_path / "b.mp4", "the old file")
    with pytest.raises(error), VideoWriter(dst, source=src) as writer:
        for frame in read_frames(src):
            if writer.frames == after:
                raise error
            writer.write(frame.rgb, frame.pts)
    assert dst.read_text() == "the old file"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


def refused(dst: Path, *facts: object, source: Path | None = None) -> None:
    with refuses("unwritable", *facts), VideoWriter(dst, source=source) as writer:
        writer.write(picture(0), 0)


def test_outputs_that_cannot_be(tmp_path, monkeypatch):
    src = make_clip(tmp_path / "a.mp4")
    before = src.read_bytes()
    (tmp_path / "link.mp4").symlink_to(src)
    refused(src, src, source=src)
    refused(tmp_path / "link.mp4", tmp_path / "link.mp4", source=src)
    refused(tmp_path / "." / "a.mp4", src, source=src)
    assert src.read_bytes() == before
    refused(tmp_path / "none" / "b.mp4", tmp_path / "none")
    refused(src / "b.mp4", src)  # a file is not a folder
    refused(tmp_path / "b.gif", "'.gif'", ".mp4")
    refused(tmp_path / "b", ".mp4")
    (tmp_path / "folder.mp4").mkdir()
    refused(tmp_path / "folder.mp4", tmp_path / "folder.mp4")

    def deny(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "touch", deny)  # root may write to read-only folders
    refused(tmp_path / "b.mp4", tmp_path, "Permission denied")
    assert not (tmp_path / "b.mp4").exists()


@pytest.mark.parametrize("moment", ["_encode_held", "_start_streams", "_finish"])
def test_a_full_disk_is_one_clear_sentence(tmp_path, monkeypatch, moment):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    src = make_clip(tmp_path / "a.mp4")
    monkeypatch.setattr(VideoWriter, moment, full)
    with refuses("unwritable", tmp_path / "b.mp4", "No space left on device"):
        copy(src, tmp_path / "b.mp4")
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_frames_of_the_wrong_kind(tmp_path):
    for wrong in (np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3))):
        with pytest.raises(VToonifyError, match="uint8"), VideoWriter(tmp_path / "a.mp4") as writer:
            writer.write(wrong, 0)
    with pytest.raises(VToonifyError, match="all must be the same"), VideoWriter(tmp_path / "a.mp4") as writer:
        writer.write(picture(0), 0)
        writer.write(picture(0, 32, 32), 1)
    with pytest.raises(VToonifyError, match="no frame was written"), VideoWriter(tmp_path / "a.mp4"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_side_by_side_has_equal_heights_and_the_sound_of_the_first(tmp_path):
    first = make_clip(tmp_path / "a.mp4", frames=8)
    small = make_clip(tmp_path / "b.mp4", frames=6, width=128, height=96, sound=None)
    large = make_clip(tmp_path / "d.mp4", frames=9, width=256, height=192, sound=None)
    for others, shape in (([small], (96, 256, 3)), ([small, large], (192, 768, 3))):
        side_by_side([first, *others], tmp_path / "c.mp4")
        frames = list(read_frames(tmp_path / "c.mp4"))
        assert [f.pts for f in frames] == times(first)
        assert sound_packets(tmp_path / "c.mp4") == sound_packets(first)
        for index, frame in enumerate(frames):
            assert frame.rgb.shape == shape
            shown = np.split(frame.rgb, len(others) + 1, axis=1)
            assert corners(shown[0]) == corners(picture(index))
            assert corners(shown[1]) == corners(picture(min(index, 5)))  # the last picture stays
            assert len(shown) == 2 or corners(shown[2]) == corners(picture(index))


# ------------------------------------------------------------------------------------------ stages


def test_stages_keep_order_and_overlap():
    """Each stage waits for another to be at a later or an earlier item: one after the other would never end."""
    read_ahead, worked_ahead = threading.Event(), threading.Event()
    written: list[int] = []

    def source():
        for k in range(12):
            if k == 3:
                read_ahead.set()
            yield k

    def work(k):
        assert read_ahead.wait(60)
        if k == 2:
            worked_ahead.set()
        return 10 * k

    def write(item):
        assert worked_ahead.wait(60)
        written.append(item)

    pipelined(source(), work, write)
    assert written == [10 * k for k in range(12)]


def test_stages_hold_few_items():
    alive, most = 0, 0

    def source():
        nonlocal alive, most
        for k in range(50):
            alive += 1
            most = max(most, alive)
            yield k

    def write(_):
        nonlocal alive
        time.sleep(0.002)
        alive -= 1

    pipelined(source(), lambda k: k, write, depth=3)
    assert most <= 3 + 1 + 3 + 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("stage", ["read", "work", "write"])
def test_an_error_in_any_stage_comes_out_and_no_thread_stays(stage, error):
    closed = []

    def fail(where, item):
        if where == stage and item == 5:
            raise error("on purpose")
        return item

    def source():
        try:
            for k in range(100):
                yield fail("read", k)
        finally:
            closed.append(True)

    threads = threading.active_count()
    with pytest.raises(error, match="on purpose"):
        pipelined(source(), lambda k: fail("work", k), lambda k: fail("write", k))
    assert closed == [True]
    assert threading.active_count() == threads


def test_stages_copy_a_clip(tmp_path):
    src = make_clip(tmp_path / "a.mp4", frames=30)
    with VideoWriter(tmp_path / "b.mp4", source=src) as writer:
        pipelined(read_frames(src), lambda f: (255 - f.rgb, f.pts), lambda result: writer.write(*result))
    assert times(tmp_path / "b.mp4") == times(src)
    assert np.abs(next(read_frames(tmp_path / "b.mp4")).rgb[5, 5].astype(int) - (255 - picture(0)[5, 5])).max() < 8
