"""Long work on a video: it breaks off, goes on, and ends in the same file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from errors import refuses
from media_files import make_clip, sound_packets, sound_times
from people import scene, write_clip

from vtoonify_lib.config import VToonifyError
from vtoonify_lib.faces.trajectory import load_trajectories, save_trajectories, track_faces
from vtoonify_lib.media import segments
from vtoonify_lib.media.video import SegmentWriter, VideoWriter, left_out, probe, read_frames

UNEVEN = dict(ticks=[0, 40, 70, 180, 181, 400, 900], time_base=Fraction(1, 1000))


def copy(src: Path, dst: Path, length: int = 3, stop: int | None = None, job: dict | None = None) -> SegmentWriter:
    """Copy a clip in segments; stop: raise KeyboardInterrupt before so manieth frame is written."""
    with SegmentWriter(dst, src, job or {}, length) as writer:
        for index, frame in enumerate(read_frames(src, skip=writer.done), start=writer.done):
            if index == stop:
                raise KeyboardInterrupt
            writer.write(*frame)
    return writer


@pytest.mark.parametrize("name", ["b.mp4", "b.mov", "b.mkv", "b.webm"])
@pytest.mark.parametrize("recipe", [{}, UNEVEN], ids=["even", "uneven"])
def test_times_frames_and_sound_survive_the_joints(tmp_path, name, recipe):
    webm = dict(codec="libvpx-vp9", sound="libopus", sound_rate=48000, options={}) if name == "b.webm" else {}
    src = make_clip(tmp_path / ("a.webm" if webm else "a.mp4"), frames=7, **webm, **recipe)
    copy(src, tmp_path / name)
    with VideoWriter(tmp_path / f"whole{name}", source=src) as writer:
        for frame in read_frames(src):
            writer.write(frame.rgb, frame.pts)
    joined, whole = list(read_frames(tmp_path / name)), list(read_frames(tmp_path / f"whole{name}"))
    assert [f.pts for f in joined] == [f.pts for f in whole] and len(joined) == 7
    assert sound_packets(tmp_path / name) == sound_packets(src)
    assert probe(tmp_path / name).duration_s == pytest.approx(probe(tmp_path / f"whole{name}").duration_s, abs=0.05)
    assert np.mean([np.abs(a.rgb.astype(int) - b.rgb).mean() for a, b in zip(joined, whole, strict=True)]) < 3
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([src.name, name, f"whole{name}"])


@pytest.mark.parametrize("length", [3, 7])
def test_the_last_picture_of_the_last_segment_lasts_as_long_as_it_did(tmp_path, length):
    src = make_clip(tmp_path / "a.mp4", lasts=1500, options={"bf": "0"}, **UNEVEN)
    copy(src, tmp_path / "b.mp4", length)
    assert probe(tmp_path / "b.mp4").duration_s == pytest.approx(2.4, abs=0.01)


@pytest.mark.filterwarnings("ignore:.*seems damaged")  # as it is, where one ends and the other begins
@pytest.mark.parametrize("name", ["b.mp4", "b.mkv", "b.webm"])
@pytest.mark.parametrize("sound", ["aac", None])
def test_recordings_joined_into_one_file_go_on_one_after_the_other(tmp_path, name, sound):
    """Their clocks begin anew in the middle of the file; of the second one nothing may be lost or hurried."""
    parts = [make_clip(tmp_path / f"{i}.ts", frames=40, sound=sound, options={"bf": "0", "g": "10"}) for i in range(2)]
    src = tmp_path / "a.ts"
    src.write_bytes(b"".join(part.read_bytes() for part in parts))
    assert sound is None or len(sound_packets(src)) > 1.8 * len(sound_packets(parts[0]))
    times = np.array([float(frame.pts) for frame in read_frames(src)])
    assert len(times) >= 79 and np.diff(times) == pytest.approx(0.04, abs=0.021)
    copy(src, tmp_path / name, length=30)
    shown = np.array([float(frame.pts) for frame in read_frames(tmp_path / name)])
    assert shown - shown[0] == pytest.approx(times - times[0], abs=0.002)
    if sound:
        heard = np.array(sound_times(tmp_path / name), float)
        assert (np.diff(heard) > 0).all() and heard[-1] == pytest.approx(3.2, abs=0.15)


def test_sound_that_is_announced_and_never_sent_is_none(tmp_path):
    src = tmp_path / "a.ts"
    with av.open(str(src), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        out.add_stream("mp2", rate=48000)
        for _ in range(5):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))))
        out.mux(stream.encode(None))
    with av.open(str(src)) as container:
        assert len(container.streams.audio) == 1
    assert not probe(src).has_audio and "left out" in left_out(src)[0]
    for name in ("b.mp4", "b.mkv", "b.mov", "b.webm"):
        assert copy(src, tmp_path / name).frames == 5 and not probe(tmp_path / name).has_audio


def test_times_that_stand_still_at_a_joint(tmp_path):
    src = make_clip(tmp_path / "a.mp4", frames=6)
    with SegmentWriter(tmp_path / "b.mp4", src, {}, 3) as writer:
        for frame, tick in zip(read_frames(src), (0, 1, 2, 2, 2, 3), strict=True):
            writer.write(frame.rgb, Fraction(tick, 25))
    times = [frame.pts for frame in read_frames(tmp_path / "b.mp4")]
    assert len(times) == 6 and times == sorted(set(times))


def test_after_a_break_it_ends_in_the_same_file(tmp_path):
    src = make_clip(tmp_path / "a.mp4", frames=11)
    whole = copy(src, tmp_path / "whole.mp4").dst.read_bytes()
    dst = tmp_path / "b.mp4"
    for stop, done in ((7, 6), (10, 9)):
        with pytest.raises(KeyboardInterrupt) as stopped:
            copy(src, dst, stop=stop)
        assert not dst.exists() and f"{done} frames are kept" in stopped.value.__notes__[0]
    assert copy(src, dst).frames == 11 and dst.read_bytes() == whole
    assert not list(tmp_path.glob(".*"))


def test_nothing_is_kept_of_less_than_a_segment(tmp_path):
    src = make_clip(tmp_path / "a.mp4", frames=5)
    with pytest.raises(KeyboardInterrupt) as stopped:
        copy(src, tmp_path / "b.mp4", stop=2)
    assert not hasattr(stopped.value, "__notes__") and [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("change", ["job", "length", "garbage"])
def test_what_belongs_to_another_job_is_thrown_away(tmp_path, change):
    src, dst = make_clip(tmp_path / "a.mp4", frames=8), tmp_path / "b.mp4"
    with pytest.raises(KeyboardInterrupt):
        copy(src, dst, stop=7, job={"style": 1})
    kept = tmp_path / ".b.mp4.vtoonify"
    if change == "garbage":
        (kept / "job.json").write_text("{")
    with SegmentWriter(dst, src, {"style": 1 + (change == "job")}, 3 + (change == "length")) as writer:
        assert writer.done == 0 and {p.name for p in kept.iterdir()} == {"job.json", "lock"}
        for frame in read_frames(src):
            writer.write(*frame)
    assert probe(dst).frame_count == 8


@pytest.mark.parametrize("change", ["missing", "half"])
def test_what_lies_before_a_broken_segment_is_kept(tmp_path, change):
    src, dst = make_clip(tmp_path / "a.mp4", frames=11), tmp_path / "b.mp4"
    with pytest.raises(KeyboardInterrupt):
        copy(src, dst, stop=10)
    kept = tmp_path / ".b.mp4.vtoonify"
    (kept / "tracks.npz").write_bytes(b"notes")
    broken = kept / "00001.mp4"
    broken.unlink() if change == "missing" else broken.write_bytes(broken.read_bytes()[:40])
    with pytest.raises(KeyboardInterrupt), SegmentWriter(dst, src, {}, 3) as writer:
        assert writer.done == 3 and (kept / "tracks.npz").is_file()
        raise KeyboardInterrupt
    copy(src, dst)
    assert len(list(read_frames(dst))) == 11 and not kept.exists()


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), VToonifyError("no face"), "full"], ids=repr)
def test_notes_outlast_what_may_be_over_the_next_time(tmp_path, stop):
    src, dst = make_clip(tmp_path / "a.mp4", frames=2), tmp_path / "b.mp4"
    if stop == "full":
        stop = VToonifyError("b.mp4 could not be written")
        stop.__cause__ = OSError(28, "No space left on device")
    with pytest.raises(type(stop)), SegmentWriter(dst, src, {}, 3) as writer:
        (writer.folder / "tracks.npz").write_bytes(b"notes")
        raise stop
    assert (tmp_path / ".b.mp4.vtoonify" / "tracks.npz").exists() == ("no face" not in str(stop))
    assert copy(src, dst).frames == 2 and not list(tmp_path.glob(".*"))


def test_a_file_that_cannot_be_joined_is_not_said_to_be_lost(tmp_path, monkeypatch):
    src, dst = make_clip(tmp_path / "a.mp4", frames=4), tmp_path / "b.mp4"

    def broken(*_):
        raise OSError(22, "Invalid argument")

    with monkeypatch.context() as patch:
        patch.setattr(segments.os, "replace", lambda a, b: broken() if b == dst else os.rename(a, b))
        with pytest.raises(VToonifyError) as failed:
            copy(src, dst)
    assert str(failed.value) == f"{dst} could not be written (Invalid argument)"
    assert "4 frames are kept" in failed.value.__notes__[0]
    assert [p.name for p in tmp_path.glob(".*")] == [".b.mp4.vtoonify"], "no half file beside it"
    assert copy(src, dst).done == 4 and not list(tmp_path.glob(".*"))


def test_two_runs_do_not_write_one_file(tmp_path):
    src, dst = make_clip(tmp_path / "a.mp4", frames=8), tmp_path / "b.mp4"
    with SegmentWriter(dst, src, {}, 3) as writer:
        for index, frame in enumerate(read_frames(src)):
            writer.write(frame.rgb, frame.pts)
            if index in (0, 4):
                with pytest.raises(VToonifyError, match=r"b\.mp4 is being written by another run"):
                    copy(src, dst, job={"style": 2})
    assert probe(dst).frame_count == 8 and not list(tmp_path.glob(".*"))
    assert copy(src, dst).frames == 8, "and when it is done, anybody may"


def test_without_locks_it_works_all_the_same(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(segments.fcntl, "flock", none)
    src = make_clip(tmp_path / "a.mp4", frames=4)
    assert copy(src, tmp_path / "b.mp4").frames == 4 and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", ["b.mp4", "b.mov", "b.mkv"])
def test_title_and_date_are_kept_and_a_time_code_does_no_harm(tmp_path, name):
    src, picture = tmp_path / "a.mkv", np.zeros((64, 64, 3), np.uint8)
    with av.open(str(src), "w") as out:
        out.metadata.update({"title": "Holiday", "TIMECODE": "01:00:00:00", "COMMENT": "on the beach"})
        stream = out.add_stream("libx264", rate=25, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for _ in range(5):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        out.mux(stream.encode(None))
    with av.open(str(copy(src, tmp_path / name).dst)) as container:
        told = {key.lower(): value for key, value in container.metadata.items()}
    assert told["title"] == "Holiday" and told["comment"] == "on the beach" and "timecode" not in told


def test_a_failed_beginning_does_not_keep_others_out(tmp_path, monkeypatch):
    src, dst = make_clip(tmp_path / "a.mp4", frames=4), tmp_path / "b.mp4"
    with monkeypatch.context() as patch, pytest.raises(VToonifyError) as kept:  # as notebooks keep the latest one
        patch.setattr(SegmentWriter, "_note", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        copy(src, dst)
    assert "No space" in str(kept.value) and copy(src, dst).frames == 4


def test_a_lock_that_was_cleared_away_is_none(tmp_path, monkeypatch):
    path, flock = tmp_path / "lock", segments.fcntl.flock
    monkeypatch.setattr(segments.fcntl, "flock", lambda *a: (path.unlink(), flock(*a)))
    assert segments._claimed(path) is None


def test_an_interruption_while_joining_keeps_all_segments(tmp_path, monkeypatch):
    src, dst = make_clip(tmp_path / "a.mp4", frames=7), tmp_path / "b.mp4"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt) as stopped:
        patch.setattr(segments, "join", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        copy(src, dst)
    assert "7 frames are kept" in stopped.value.__notes__[0]
    with SegmentWriter(dst, src, {}, 3) as writer:
        assert writer.done == 7
    assert probe(dst).frame_count == 7


def test_a_name_too_long_for_the_folder_beside_it(tmp_path):
    src = make_clip(tmp_path / "a.mp4", frames=2)
    with refuses("unwritable", "too long"):
        copy(src, tmp_path / ("b" * 246 + ".mp4"))


def test_a_full_disk_keeps_what_is_whole(tmp_path, monkeypatch):
    src, dst = make_clip(tmp_path / "a.mp4", frames=8), tmp_path / "b.mp4"

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(segments, "join", lambda *a: (_ for _ in ()).throw(VToonifyError("b.mp4 could not be written")))
        with pytest.raises(VToonifyError, match="could not be written") as failed:
            copy(src, dst)
    assert "frames are kept" in failed.value.__notes__[0] and not dst.exists()
    with SegmentWriter(dst, src, {}, 3) as writer:
        assert writer.done == writer.frames == 8  # all are there: nothing is left but to join them
    assert probe(dst).frame_count == 8


def test_targets_that_cannot_be(tmp_path):
    src = make_clip(tmp_path / "a.mp4", frames=2)
    for dst, fact in ((tmp_path / "b.gif", ".gif"), (tmp_path / "no" / "b.mp4", tmp_path / "no"), (src, src)):
        with refuses("unwritable", fact):
            SegmentWriter(dst, src, {}).__enter__()
    with pytest.raises(VToonifyError, match="no frame was written"), SegmentWriter(tmp_path / "b.mp4", src, {}):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_tracks_come_back_as_they_were(tmp_path, landmark_file):
    from vtoonify_lib.faces.detector import FaceFinder

    frames = [(scene(760, 300, [(0, 60, 240), (420, 0, 300)] if i else []), i / 25) for i in range(4)]
    tracks = track_faces(frames, FaceFinder(landmark_file), 32, most=3)
    save_trajectories(tmp_path / "t.npz", tracks, ["a note", "another"])
    again, notes = load_trajectories(tmp_path / "t.npz")
    assert notes == ["a note", "another"] and len(again) == len(tracks) == 2
    for a, b in zip(tracks, again, strict=True):
        assert a.times == b.times and np.array_equal(a.x, b.x, equal_nan=True) and a.cuts == b.cuts
        assert np.array_equal(a.aligned, b.aligned) and a.frame_shape == b.frame_shape and a.most_faces == b.most_faces
    (tmp_path / "bad.npz").write_bytes(b"PK nonsense")
    assert load_trajectories(tmp_path / "bad.npz") is None and load_trajectories(tmp_path / "none.npz") is None


SLOWLY = """
import sys, time
from vtoonify_lib.inference import video as animation
from vtoonify_lib.inference.toonifier import Toonifier
from vtoonify_lib.media import segments
toonifier = Toonifier.load(sys.argv[1], "cpu")
animation.SEGMENT = 4
real, length = animation.SegmentWriter, 4
class Writer(real):
    def __init__(self, *a): super().__init__(*a, length=length)
    def write(self, *a):
        super().write(*a)
        print(self.frames, flush=True)
        time.sleep(float(sys.argv[4]))
animation.SegmentWriter = Writer
toonifier.video(sys.argv[2], sys.argv[3], progress=False)
"""


def test_a_killed_run_goes_on_and_ends_in_the_same_file(tiny_bundle, tmp_path):
    src = write_clip(tmp_path / "a.mp4", [scene(480, 240, [(40 + 2 * i, 0, 240)]) for i in range(14)])

    def run(name: str, pause: float = 0.0) -> subprocess.Popen:
        return subprocess.Popen([sys.executable, "-c", SLOWLY, str(tiny_bundle.folder), str(src), str(tmp_path / name),
                                 str(pause)], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1],
                                env={**os.environ, "OMP_NUM_THREADS": "1"})

    assert run("whole.mp4").wait(300) == 0
    killed = run("b.mp4", 0.2)
    while killed.stdout.readline().strip() != "10":
        assert killed.poll() is None
    killed.send_signal(signal.SIGKILL)
    killed.wait(60)
    kept = tmp_path / ".b.mp4.vtoonify"
    assert not (tmp_path / "b.mp4").exists() and (kept / "tracks.npz").is_file()
    assert len(json.loads((kept / "job.json").read_text())["segments"]) == 2
    time.sleep(0.1)
    again = run("b.mp4")
    assert again.stdout.readline().strip() == "9" and again.wait(300) == 0
    assert (tmp_path / "b.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes() and not kept.exists()
