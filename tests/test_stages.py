"""Stages of work on a clip that overlap: order, memory, errors."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from media_files import make_clip, picture, times

from vtoonify_lib.media.video import VideoWriter, pipelined, read_frames


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
