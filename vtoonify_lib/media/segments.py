"""A video written in segments: what is finished stays when work breaks off, and is joined without loss at the end."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from fractions import Fraction
from itertools import takewhile
from pathlib import Path
from typing import IO, Any

import av
import numpy as np

from ..config import VToonifyError
from . import reading
from .images import check_output
from .sound import SoundTrack
from .writing import FORMATS, MP4_OPTIONS, VideoWriter, folder_errors, writing_errors

LENGTH = 250  # frames of a segment
OURS = {"lock", "job.json", "job.part"}  # in the folder beside dst, and segments; the rest is notes


class SegmentWriter:
    """`VideoWriter` for long work: used again for the same job after a break, it begins after its last whole segment.

    dst, source  as for `VideoWriter`
    job          what the frames depend on, for JSON; what another job left behind is thrown away
    done         (attribute) frames that need not be written again
    folder       (attribute) beside dst, until that is there; whoever writes may keep notes of the work in it

    Every segment has an encoder of its own, so that the packets are the same whether or not there was a break.
    Errors as `VideoWriter`, and when another run is writing the same file; when whole segments are kept, a note on the
    exception says so.
    """

    def __init__(self, dst: str | Path, source: str | Path, job: Mapping[str, Any], length: int = LENGTH):
        self.dst, self.source, self.length = Path(dst), Path(source), length
        self.folder = self.dst.with_name(f".{self.dst.name}.vtoonify")
        self.frames = 0
        self._job = json.loads(json.dumps(job))
        self._starts: list[Fraction] = []  # when each whole segment begins,
        self._counts: list[int] = []  # and how many frames it has
        self._writer: VideoWriter | None = None
        self._count = 0  # frames in the segment that is being written
        self._written = False

    @property
    def done(self) -> int:
        return sum(self._counts)

    def __enter__(self) -> SegmentWriter:
        check_output(self.dst, self.source, FORMATS)
        with folder_errors(self.dst):
            self.folder.mkdir(exist_ok=True)
            self._lock = _claimed(self.folder / "lock")
        if self._lock is None:
            raise VToonifyError(f"{self.dst} is being written by another run; wait for it, or choose another name",
                                code="unwritable")
        try:
            self._take_up()
        except BaseException:
            self._lock.close()  # whoever keeps the exception, as notebooks do, would keep the file locked
            raise
        return self

    def _take_up(self) -> None:
        """Go on where the same job was broken off, or begin."""
        try:
            state = json.loads((self.folder / "job.json").read_text())
            same = state["job"] == self._job and state["length"] == self.length
            kept = [(Fraction(start), int(count)) for start, count in state["segments"]] if same else []
        except (OSError, ValueError, KeyError, TypeError):
            same, kept = False, []
        whole = sum(1 for _ in takewhile(lambda i: _readable(self._path(i)), range(len(kept))))
        self._starts, self._counts = [start for start, _ in kept[:whole]], [count for _, count in kept[:whole]]
        for left in () if same else self.folder.iterdir():
            if left.name != "lock":
                with suppress(OSError):
                    left.unlink()
        with folder_errors(self.dst):
            self._note()
        self.frames = self.done

    def write(self, rgb: np.ndarray, pts: Fraction, duration: Fraction | None = None) -> None:
        """Add a frame, as `VideoWriter.write`; the first one is number `done`."""
        if self._writer is None:
            self._start = pts
            self._writer = VideoWriter(self._path(len(self._starts)), self.source, sound=False).__enter__()
        with self._named():
            self._writer.write(rgb, pts - self._start, duration)
        self.frames += 1
        self._count += 1
        if self._count == self.length:
            self._finish_segment()

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        try:
            if kind is None:
                self._finish()
        except (VToonifyError, KeyboardInterrupt) as failure:
            kind, error = type(failure), failure
            raise
        finally:
            of_use = bool(self._starts) or self._worth_keeping(error)
            try:
                if kind is not None:
                    self._break_off(error, of_use)
            finally:
                self._leave(over=self._written or not of_use)

    def _finish(self) -> None:
        if self._writer is not None:
            self._finish_segment()
        if not self._starts:
            raise VToonifyError(f"no frame was written to {self.dst}; nothing is saved")
        with self._named():
            join([(self._path(i), start) for i, start in enumerate(self._starts)], self.dst, self.source)
        self._written = True

    def _finish_segment(self) -> None:
        self._writer, writer = None, self._writer
        with self._named():
            writer.__exit__(None, None, None)
        self._starts.append(self._start)
        self._counts.append(self._count)
        self._count = 0
        with self._named(), writing_errors(self.dst):
            _to_disk(self._path(len(self._starts) - 1))
            self._note()

    def _break_off(self, error: BaseException | None, of_use: bool) -> None:
        """Forget the segment that is not whole; without a whole one, everything but notes that will be of use."""
        if self._writer is not None:
            with suppress(VToonifyError):
                self._writer.__exit__(KeyboardInterrupt, None, None)
        if error is not None and of_use:
            what = f"{self.done} frames are" if self._starts else "what was found out about the clip is"
            error.add_note(f"{what} kept; the same command goes on from there")

    def _worth_keeping(self, error: BaseException | None) -> bool:
        """Whether there are notes, and what broke the work off may be over the next time."""
        while error is not None:
            if isinstance(error, KeyboardInterrupt) or getattr(error, "errno", None) == errno.ENOSPC:
                return any(left.name not in OURS for left in self.folder.glob("[!.]*"))
            error = error.__cause__
        return False

    def _leave(self, over: bool) -> None:
        """Clear up when it is over, and let others in."""
        if over:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()
        if over:
            with suppress(OSError):
                self.folder.rmdir()

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Errors name the file that the user asked for, and do not say that all is lost."""
        try:
            yield
        except VToonifyError as error:
            said = str(error).replace(str(self._path(len(self._starts))), str(self.dst))
            raise VToonifyError(said.replace("; nothing is saved", ""), error.code) from error

    def _note(self) -> None:
        part = self.folder / "job.part"
        segments = [[str(start), count] for start, count in zip(self._starts, self._counts, strict=True)]
        part.write_text(json.dumps({"job": self._job, "length": self.length, "segments": segments}))
        os.replace(part, self.folder / "job.json")

    def _path(self, index: int) -> Path:
        return self.folder / f"{index:05d}{self.dst.suffix}"


def _claimed(path: Path) -> IO[bytes] | None:
    """A file that is locked for as long as it is open, or the process lives; None when another run has locked it."""
    file = path.open("wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.close()
        return None
    except OSError:  # a file system without locks: as good as it gets
        return file
    if _replaced(file, path):
        file.close()  # the run before has cleared up between the two lines above
        return None
    return file


def _replaced(file: IO[bytes], path: Path) -> bool:
    try:
        return not os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return True


def _to_disk(path: Path) -> None:
    """Wait until a file would outlast a power cut."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _readable(path: Path) -> bool:
    """Whether a segment is there, and whole enough to be opened: a power cut may have left half of it."""
    try:
        with reading.open_video(path) as segment:
            return bool(segment.streams.video)
    except VToonifyError:
        return False


def join(segments: list[tuple[Path, Fraction]], dst: Path, source: Path) -> None:
    """Copy the packets of segments, each beginning at its time in seconds, into one file with the sound of source."""
    container, temporary = FORMATS[dst.suffix.lower()], segments[0][0].with_name("joined.part")
    with ExitStack() as stack, writing_errors(dst):
        stack.callback(temporary.unlink, missing_ok=True)
        original = stack.enter_context(reading.open_video(source))
        options = MP4_OPTIONS if container in ("mp4", "mov") else {}
        out = stack.enter_context(closing(av.open(str(temporary), "w", format=container, container_options=options)))
        out.metadata.update(reading.tags(original))
        stream, sound, last = None, None, -1
        for path, start in segments:
            with av.open(str(path)) as segment:
                video = segment.streams.video[0]
                if stream is None:
                    stream = out.add_stream_from_template(video)
                    stream.time_base = video.time_base
                    if reading.sound_stream(original):
                        began = reading.start_of(original, reading.picture_stream(original, source))
                        sound = SoundTrack(original, out, container, began)
                shift = round(start / reading.fraction(video.time_base))
                for packet in segment.demux(video):
                    if packet.dts is None:
                        continue
                    last = max(packet.dts + shift, last + 1)  # times that stand still go on by a tick
                    packet.pts, packet.dts, packet.stream = last, last, stream
                    if sound:
                        sound.mux_until(reading.seconds(packet.dts, packet.time_base))
                    out.mux(packet)
        if sound:
            sound.mux_until(None)
        out.close()
        os.replace(temporary, dst)
