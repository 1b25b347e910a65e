"""The steps of a clip's frame, one after the other, beside the whole, in which they overlap."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from contextlib import closing
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

from ...faces.trajectory import track_clip
from ...inference.crop_plan import plan_clip
from ...inference.frame_renderer import PARSE_EVERY
from ...inference.toonifier import SAMPLE, Toonifier
from ...media.video import VideoWriter, read_frames
from ...styles.request import AS_TRAINED, Look

FRAMES = 60


def split(toonifier: Toonifier, clip: str | Path = SAMPLE, frames: int = FRAMES, look: Look = AS_TRAINED
          ) -> dict[str, float]:
    """Seconds a frame: decode, faces, crop, parsing, network, encode; their sum; the whole of `Toonifier.video`.

    The first `frames` frames of a clip with a face, which are all held in memory; the whole is timed on all of it.
    """
    seconds: dict[str, float] = {}

    def timed(name: str, work: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        begin = perf_counter()
        done = [work(item) for item in items]
        seconds[name] = (perf_counter() - begin) / len(done)
        return done

    with closing(read_frames(clip)) as reading:
        shown = timed("decode", lambda frame: frame, islice(reading, frames))
    begin = perf_counter()
    track = track_clip(((frame.rgb, float(frame.pts)) for frame in shown), toonifier.finder,
                       toonifier.networks.face_size)
    seconds["faces"] = (perf_counter() - begin) / len(shown)
    plans = plan_clip(track, toonifier.config.framing_size)
    crops = timed("crop", lambda i: toonifier.cut(shown[i].rgb, plans.at(i))[None], range(len(shown)))
    maps = iter(timed("parsing", toonifier.networks.steady_parse(PARSE_EVERY), crops))
    draw = toonifier.animator(track.aligned, look)
    pictures = timed("network", lambda crop: draw(crop, 0.0, next(maps))[0], crops)
    with tempfile.TemporaryDirectory() as folder:
        with VideoWriter(Path(folder) / "steps.mp4", source=clip) as writer:
            timed("encode", lambda i: writer.write(pictures[i], shown[i].pts), range(len(shown)))
        seconds["sum"] = sum(seconds.values())
        whole = toonifier.video(clip, Path(folder) / "whole.mp4", look=look, progress=False)
    return seconds | {"whole": whole.seconds_per_frame}
