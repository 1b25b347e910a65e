"""Output files of videos: complete or not there at all."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
from errors import refuses
from media_files import copy, corners, make_clip, picture, rewritten, sound_packets, times

from vtoonify_lib.config import VToonifyError
from vtoonify_lib.media.video import VideoWriter, read_frames, side_by_side


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
