"""Many clips and pictures, each for itself: by several processes on one machine, or by Ray actors on many.

What is done is noted in OUT/batch.json: the same call again does what is left, and a clip that was broken off goes on
where it was (`video.SegmentWriter`). One file that cannot be drawn stops none of the others. Ray (https://ray.io) is
optional; its machines must see the same folders.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from queue import Empty
from typing import Any, NamedTuple

import torch
from tqdm.auto import tqdm

from ..config import VToonifyError
from ..inference.toonifier import Toonifier
from ..media.images import write_image
from ..media.video import FORMATS
from ..models.devices import pick_device
from ..styles.recipe import Recipe
from ..styles.request import ResolvedLook
from ..weights.downloads import write_json

CLIPS = {*FORMATS, ".avi", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ts", ".mts", ".m2ts", ".mxf",
         ".ogv", ".vob", ".gif"}
PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
MANIFEST = "batch.json"


class Task(NamedTuple):
    """One file: where it is, where its cartoon goes, and its name in the manifest."""

    src: Path
    dst: Path
    name: str


class Worker:
    """Draws one file after the other on one device, with `threads` processor cores.

    how  what `Toonifier.video` takes: look, frame, padding, faces, smooth
    """

    def __init__(self, bundle: str | Path, device: str, threads: int, how: Mapping[str, Any]) -> None:
        torch.set_num_threads(threads)
        self.toonifier, self.how = Toonifier.load(bundle, device), dict(how)

    def draw(self, task: Task) -> tuple[Task, dict[str, Any]]:
        """→ the task and what became of it: frames, seconds, warnings; or error, one sentence, and its code."""
        try:
            task.dst.parent.mkdir(parents=True, exist_ok=True)
            if task.src.suffix.lower() in CLIPS:
                done = self.toonifier.video(task.src, task.dst, **self.how, progress=False)
                return task, {"frames": done.frames, "seconds": round(done.seconds, 2), "warnings": list(done.warnings)}
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", UserWarning)
                write_image(task.dst, self.toonifier.image(task.src, **{k: v for k, v in self.how.items()
                                                                        if k != "smooth"}))
            return task, {"warnings": [str(item.message) for item in caught if item.category is UserWarning]}
        except Exception as error:  # whatever it is, it must not stop the others
            notes = "".join(f"; {note}" for note in getattr(error, "__notes__", ()))
            kind = "" if isinstance(error, VToonifyError | OSError) else f"{type(error).__name__}: "
            code = {"code": error.code} if isinstance(error, VToonifyError) else {}
            return task, {"error": kind + " ".join(str(error).split()) + notes, **code}


def batch(folder: str | Path, out: str | Path, toonifier: Toonifier, how: Mapping[str, Any], workers: int | None = None,
          devices: Sequence[str] = (), ray: str | None = None, progress: bool = True) -> dict[str, dict[str, Any]]:
    """Toonify all clips and pictures in a folder and its folders → name → what became of it, for all of them.

    toonifier  of the bundle; the workers load it again
    how        as for `Toonifier.video`
    workers    at a time; default one for each device, or for each four processor cores
    devices    that the workers share; default that of `toonifier`
    ray        address of a Ray cluster, or "local" to start one here
    VToonifyError for folders that cannot be used, and for what is not installed; never for a single file.
    """
    folder, out = Path(folder), Path(out)
    if not folder.is_dir():
        raise VToonifyError(f"{folder} is no folder; give one with clips or pictures")
    if folder.resolve() == out.resolve():
        raise VToonifyError(f"clips and results are both to be in {folder}; give another folder for the results")
    tasks = find_tasks(folder, out)
    if not tasks:
        raise VToonifyError(f"there are no clips and no pictures in {folder}")
    sources = {task.src.resolve() for task in tasks}
    for task in tasks:
        if task.dst.resolve() in sources:
            raise VToonifyError(f"the cartoon of {task.src} would be written over {task.dst}, which is to be drawn, "
                                "too; give another folder for the results")
    devices = [str(pick_device(device)) for device in devices] or [str(toonifier.device)]
    if workers is not None and workers < 1:
        raise VToonifyError(f"workers is {workers}; it must be at least 1")
    looks = [toonifier.resolve(look) for look in (how["look"] if isinstance(how["look"], Sequence) else [how["look"]])]
    manifest, how = Manifest(out, _fingerprint(looks, how)), {**how, "look": [look.request for look in looks]}
    left = [task for task in tasks if not manifest.has(task)]
    begin = (toonifier.bundle.folder, devices, workers, how)
    with tqdm(total=len(tasks), initial=len(tasks) - len(left), desc="toonifying", unit="file",
              disable=not progress) as bar:
        outcomes = _by_ray(left, ray, *begin) if ray and left else _by_processes(left, *begin)
        try:
            with closing(outcomes):
                for task, outcome in outcomes:
                    manifest.note(task, outcome)
                    bar.update()
        except KeyboardInterrupt as stop:
            done = sum(map(manifest.has, tasks))
            stop.add_note(f"{done} of {len(tasks)} files are done; the same command goes on with the others")
            raise
    return {task.name: manifest.entries[task.name] for task in tasks}


def find_tasks(folder: Path, out: Path) -> list[Task]:
    """Every clip and picture below a folder, but for hidden ones and those in `out`, and a name for each result."""
    tasks, taken = [], set()
    for src in _files(folder, out):
        kind, inside = src.suffix.lower(), src.relative_to(folder)
        if kind not in CLIPS | PICTURES:
            continue
        ending = kind if kind in {*FORMATS, ".jpg", ".jpeg", ".png", ".webp"} else ".mp4" if kind in CLIPS else ".png"
        dst = out / inside.with_suffix(ending)
        dst = dst if dst not in taken else out / inside.parent / (inside.name + ending)
        taken.add(dst)
        tasks.append(Task(src, dst, str(inside)))
    return tasks


def ignored_files(folder: Path, out: Path) -> list[str]:
    """Files there that are neither clips nor pictures by their names."""
    return [str(src.relative_to(folder)) for src in _files(folder, out) if src.suffix.lower() not in CLIPS | PICTURES]


def _files(folder: Path, out: Path) -> Iterator[Path]:
    inner = out.resolve() if folder.resolve() in out.resolve().parents else None
    for src in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in src.relative_to(folder).parts)
        if not hidden and not src.is_dir() and inner not in src.resolve().parents:
            yield src


class Manifest:
    """The outcome of each file: OUT/batch.json. With another bundle, look or region all files are done again."""

    def __init__(self, out: Path, fingerprint: str) -> None:
        self.path, self.fingerprint, self.entries = out / MANIFEST, fingerprint, {}
        with suppress(OSError, ValueError, AttributeError):
            self.entries = dict(json.loads(self.path.read_text(encoding="utf-8")).items())

    def has(self, task: Task) -> bool:
        """Whether the file was drawn before, just so, and is still there."""
        entry = self.entries.get(task.name)
        return (isinstance(entry, dict) and "error" not in entry and entry.get("made") == self._made(task)
                and entry.get("output") == str(task.dst) and task.dst.is_file())

    def note(self, task: Task, outcome: dict[str, Any]) -> None:
        """Write down what became of a file."""
        self.entries[task.name] = {"output": str(task.dst), "made": self._made(task), **outcome}
        write_json(self.path, self.entries)

    def _made(self, task: Task) -> list[Any]:
        try:
            about = task.src.stat()
        except OSError:  # it was taken away meanwhile
            return [self.fingerprint, None, None]
        return [self.fingerprint, about.st_size, about.st_mtime_ns]


def _fingerprint(looks: Sequence[ResolvedLook], how: Mapping[str, Any]) -> str:
    """What all the results depend on."""
    resolved = [Recipe.from_look(look, how["padding"], how["frame"]).data() for look in looks]
    return hashlib.sha256(json.dumps([resolved, how["faces"], how["smooth"]]).encode()).hexdigest()[:16]


# -- who does it ------------------------------------------------------------------------------------------------------
def _shares(devices: Sequence[str], workers: int | None, cores: int) -> tuple[int, int]:
    """How many workers, and how many processor cores for each."""
    gpus = any(not device.startswith("cpu") for device in devices)
    count = workers or (len(devices) if gpus else max(1, cores // 4))
    return count, max(1, cores // count)


_worker: Worker | None = None  # of this process
_drawing = False


def _start(bundle: Path, devices: multiprocessing.Queue, threads: int, how: Mapping[str, Any]) -> None:
    global _worker
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal signals all; the parent decides, and sends SIGTERM
    signal.signal(signal.SIGTERM, _interrupt)
    tqdm.set_lock(threading.RLock())  # its own is shared between processes, and left behind by those that end early
    with suppress(Empty):
        _worker = Worker(bundle, devices.get(timeout=60), threads, how)


def _end_with_parent() -> None:
    """Without it, workers whose parent was killed go on, against the next run of the same command."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _interrupt(*_: Any) -> None:
    if not _drawing:
        os._exit(1)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: what follows is clearing up
    raise KeyboardInterrupt


def _draw_here(task: Task) -> tuple[Task, dict[str, Any]]:
    global _drawing
    _drawing = True
    try:
        return _worker.draw(task)
    except KeyboardInterrupt:
        os._exit(1)  # cleared up; the pool would hand over the next one
    finally:
        _drawing = False


@contextmanager
def _children_ignore_interrupt() -> Iterator[None]:
    """Processes begun meanwhile ignore Ctrl-C from their first moment on, while they still load."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _by_processes(tasks: Sequence[Task], bundle: Path, devices: Sequence[str], workers: int | None,
                  how: Mapping[str, Any]) -> Iterator[tuple[Task, dict[str, Any]]]:
    count, threads = _shares(devices, workers, os.cpu_count() or 1)
    count = min(count, len(tasks))
    if not tasks:
        return
    spawn = multiprocessing.get_context("spawn")
    places = spawn.Queue()
    for index in range(count):
        places.put(devices[index % len(devices)])
    pool = ProcessPoolExecutor(count, spawn, _start, (bundle, places, threads, how))
    try:
        with _children_ignore_interrupt():
            futures = [pool.submit(_draw_here, task) for task in tasks]
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool:
        raise VToonifyError("a worker was killed, perhaps for want of memory; use fewer --workers: the same command "
                            "goes on with what is left") from None
    except (KeyboardInterrupt, GeneratorExit):
        for worker in list((pool._processes or {}).values()):  # `terminate_workers` comes with Python 3.14
            worker.terminate()
        pool.shutdown(cancel_futures=True)  # until they have cleared up
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        places.cancel_join_thread()


def _by_ray(tasks: Sequence[Task], address: str, bundle: Path, devices: Sequence[str], workers: int | None,
            how: Mapping[str, Any]) -> Iterator[tuple[Task, dict[str, Any]]]:
    """One actor for each device, wherever Ray finds it."""
    try:
        import ray
        from ray.util import ActorPool
    except ImportError:
        raise VToonifyError("Ray is not installed; use `pip install ray`, or leave out --ray") from None
    try:
        ray.init(address=None if address == "local" else address, log_to_driver=False, ignore_reinit_error=True,
                 include_dashboard=False if address == "local" else None)
    except (ConnectionError, ValueError) as error:
        raise VToonifyError(f"the Ray cluster {address!r} cannot be reached ({error})") from error
    try:
        there = ray.cluster_resources()
        cores, largest = int(there.get("CPU", 1)), max(int(node["Resources"].get("CPU", 1)) for node in ray.nodes())
        gpus = int(there.get("GPU", 0)) if not devices[0].startswith("cpu") else 0
        count, threads = _shares(["cuda"] * gpus or ["cpu"], workers, cores)
        count, threads = min(count, gpus or cores), min(threads, largest)  # else Ray would wait for what never comes
        kind = ray.remote(num_cpus=threads, num_gpus=1 if gpus else 0)(Worker)
        actors = [kind.remote(bundle, "cuda" if gpus else devices[0], threads, how)
                  for _ in range(min(count, len(tasks)))]
        yield from ActorPool(actors).map_unordered(lambda actor, task: actor.draw.remote(task), tasks)
    except ray.exceptions.RayActorError as error:
        raise VToonifyError(f"a Ray worker was lost ({str(error).splitlines()[0]}); the same command goes on with what "
                            "is left") from error
    finally:
        ray.shutdown()
