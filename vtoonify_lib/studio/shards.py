"""A data set of paired portraits on disk: the same people in several styles, with exact ground truth.

`python -m vtoonify_lib.studio.shards runs/pairs --count 12000` renders people into memory-mapped arrays, chunk by
chunk, in as many processes as there are cores; stop it and start it again and it goes on where it was. Even people are
framed exactly as FFHQ frames them; odd ones are framed loosely (zoom, shift, roll), as a crop plan on a real photograph
is. With `--looks`, everybody is drawn as a photo and, in every look, by an exemplar at degrees drawn by lot.
"""
from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ..config import VToonifyError, exit_code
from .base_mesh import find_package
from .exemplars import EXEMPLARS, LOOKS, PICTURE, exemplar, pictures
from .people import Z_SIZE, person, sample_z

CHUNK = 64
DEFAULTS = {"count": 12000, "size": 256, "styles": ["photo", "storybook"], "seed": 0}


MOVE_STEP = 16  # canvas pixels per pixel of a displacement: it is smooth, and has to travel (4 MB of 460 pairs)


def fields(size: int, styles: tuple[str, ...], looks: tuple[str, ...] = (), photographs: bool = False
           ) -> dict[str, tuple[tuple[int, ...], str]]:
    """Arrays of a data set: name → (shape of one entry, dtype).

    Of a look there are also LOOK_style, the exemplar's index, and LOOK_structure and LOOK_color, the degrees; where
    photographs are drawn, LOOK_move [size/MOVE_STEP,size/MOVE_STEP,2], canvas pixels: `photo_cartoon.Drawing.move`.
    """
    out = {"z": ((Z_SIZE,), "f4"), "wide": ((), "?")}
    for look in looks:
        out |= {f"{look}_style": ((), "i2"), f"{look}_structure": ((), "f4"), f"{look}_color": ((), "f4")}
    for style in (*styles, *looks):
        out[style] = ((size, size, 3), "u1")
        out[f"{style}_landmarks"] = ((68, 2), "f4")
        out[f"{style}_parsing"] = ((size, size), "u1")
    if photographs:
        out |= {f"{look}_move": ((size // MOVE_STEP, size // MOVE_STEP, 2), "f2") for look in looks}
    return out


@dataclass(frozen=True)
class Pairs:
    """An opened data set.

    arrays  name (see `fields`) → read-only memory map [count, …]; also as `pairs[name]`
    ready   indices of the entries rendered so far
    margin  side of the pictures over that of the FFHQ square in their middle
    photographs  whether they are drawn by `photo_looks`, whose looks share names with those of renders
    """

    folder: Path
    arrays: dict[str, np.ndarray]
    ready: np.ndarray
    margin: float = 1.0
    photographs: bool = False

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def exemplars(self, look: str) -> np.ndarray:
        """Pictures of a look's exemplars, uint8 [24,256,256,3]. VToonifyError where the data set has none."""
        path = exemplars_path(self.folder, look)
        if not path.is_file():
            raise VToonifyError(f"{self.folder} has no exemplars of {look}; render them with the looks: python -m "
                                f"vtoonify_lib.studio.shards {self.folder} --looks")
        return np.load(path, mmap_mode="r")

    @classmethod
    def open(cls, folder: str | os.PathLike) -> Pairs:
        """Open what has been rendered; also while rendering goes on. VToonifyError if the folder holds no data set."""
        folder = Path(folder)
        meta = _read_meta(folder)
        if meta is None:
            raise VToonifyError(f"{folder} holds no data set; make one: python -m vtoonify_lib.studio.shards {folder}")
        chunk, left = meta.get("chunk", CHUNK), set(todo(folder, meta)) | refused(folder, meta)
        ready = [i for i in range(meta["count"]) if i - i % chunk not in left]
        return cls(folder, open_arrays(folder, meta, "r"), np.array(ready, int), meta.get("margin", 1.0),
                   meta.get("photographs", False))


def _read_meta(folder: Path) -> dict[str, Any] | None:
    path = folder / "meta.json"
    return json.loads(path.read_text()) if path.is_file() else None


def todo(folder: Path, meta: dict[str, Any]) -> list[int]:
    """First index of every chunk that is not done."""
    return [i for i in range(0, meta["count"], meta.get("chunk", CHUNK)) if not done_file(folder, i).exists()]


def refused(folder: Path, meta: dict[str, Any]) -> set[int]:
    """First index of every chunk that could not be drawn: the file that says that it is done says why not."""
    starts = range(0, meta["count"], meta.get("chunk", CHUNK))
    return {i for i in starts if (path := done_file(folder, i)).exists() and path.stat().st_size}


def done_file(folder: Path, start: int) -> Path:
    """The file whose presence says that the chunk from `start` on is done."""
    return folder / "done" / f"{start:08d}"


def open_arrays(folder: Path, meta: dict[str, Any], mode: str) -> dict[str, np.ndarray]:
    names = fields(meta["size"], tuple(meta["styles"]), tuple(meta.get("looks", ())), meta.get("photographs", False))
    return {name: np.load(folder / f"{name}.npy", mmap_mode=mode) for name in names}


def exemplars_path(folder: Path, look: str) -> Path:
    return folder / "exemplars" / f"{look}.npy"


def draw_style(look: str, seed: int, index: int) -> tuple[int, float, float]:
    """Which exemplar of a look person `index` is drawn by, and at which degrees of structure and colour.

    The ends come often (structure 1: 55 %, 0: 10 %; colour 1: 35 %, 0: 35 %), the rest is even.
    """
    rng = np.random.default_rng([seed, index, LOOKS.index(look)])
    number, kind, structure, color = int(rng.integers(EXEMPLARS)), *rng.random(3)
    degree = 1.0 if kind < 0.55 else 0.0 if kind < 0.65 else structure
    return number, degree, float(np.clip((color - 0.35) / 0.3, 0, 1))


@lru_cache(maxsize=1)
def studio_of(size: int) -> Any:
    """One studio a process; it takes a second or two to make."""
    from .render import Studio

    return Studio(size=size)


def _render_chunk(folder: str, start: int, meta: dict[str, Any]) -> int:
    """Render one chunk, mark it as done → how many people."""
    from .styles import STYLES, at

    studio, arrays = studio_of(meta["size"]), open_arrays(Path(folder), meta, "r+")
    rng = np.random.default_rng([meta["seed"], start])
    stop = min(start + CHUNK, meta["count"])
    for i, z in zip(range(start, stop), sample_z(rng, stop - start), strict=True):
        wide = bool(i % 2)
        who = person(z, wide)
        arrays["z"][i], arrays["wide"][i] = z, wide
        drawn = {style: STYLES[style] for style in meta["styles"]}
        for look in meta.get("looks", ()):
            number, *degrees = draw_style(look, meta["seed"], i)
            arrays[f"{look}_style"][i] = number
            arrays[f"{look}_structure"][i], arrays[f"{look}_color"][i] = degrees
            drawn[look] = at(exemplar(look, number)[1], *degrees)
        for name, style in drawn.items():
            portrait = studio.portrait(who, style)
            arrays[name][i] = portrait.image
            arrays[f"{name}_landmarks"][i] = portrait.landmarks
            arrays[f"{name}_parsing"][i] = portrait.parsing
    for array in arrays.values():
        array.flush()
    done_file(Path(folder), start).touch()
    return stop - start


def _begin_worker() -> None:
    """A worker is one software rasteriser without threads of its own; Ctrl-C is the parent's to handle."""
    os.environ.setdefault("LP_NUM_THREADS", "0")
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def in_processes(work: Callable[..., int], jobs: list[tuple], processes: int | None = None) -> Iterator[int]:
    """work(*job) of every job, in this process or in several (default: one per core) → results as they come."""
    processes = processes or os.cpu_count() or 1
    if processes == 1 or len(jobs) < 2:
        for job in jobs:
            yield work(*job)
        return
    # spawned, not forked: an OpenGL context does not survive a fork
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_begin_worker)
    try:
        for result in as_completed([pool.submit(work, *job) for job in jobs]):
            yield result.result()
    finally:
        pool.shutdown(cancel_futures=True)


def render_pairs(folder: str | os.PathLike, count: int | None = None, size: int | None = None,
                 styles: tuple[str, ...] | None = None, seed: int | None = None,
                 processes: int | None = None, progress: bool = True) -> Pairs:
    """Render `count` people in every style into `folder`, or finish a data set that was begun there.

    Entries depend on (seed, index) alone, so an interrupted run ends in the same data as an uninterrupted one.
    Settings left out are those of the data set begun, or DEFAULTS. VToonifyError if others are given than it was begun
    with, if the disk is too small, or without the base mesh.
    """
    given = {"count": count, "size": size, "styles": styles and list(styles), "seed": seed}
    find_package()
    return _render(Path(folder), given, processes, progress)


def render_styles(folder: str | os.PathLike, count: int | None = None, size: int | None = None,
                  looks: tuple[str, ...] | None = None, seed: int | None = None,
                  processes: int | None = None, progress: bool = True) -> Pairs:
    """Render `count` people as photos and in every look, or finish such a data set; otherwise as `render_pairs`.

    looks  by default all of them; each by the exemplar and at the degrees that `draw_style` says.
    """
    find_package()
    folder = Path(folder)
    if looks is None and _read_meta(folder) is None:
        looks = LOOKS
    for look in looks or ():
        exemplar(look, 0)
    given = {"count": count, "size": size, "styles": ["photo"], "looks": looks and list(looks), "seed": seed}
    for look in _begin(folder, {name: value for name, value in given.items() if value is not None}).get("looks", ()):
        path = exemplars_path(folder, look)
        if not path.is_file():
            path.parent.mkdir(exist_ok=True)
            np.save(path.with_name("part.npy"), pictures(look, studio_of(PICTURE)))
            path.with_name("part.npy").replace(path)
    return _render(folder, given, processes, progress)


def _render(folder: Path, given: dict[str, Any], processes: int | None, progress: bool) -> Pairs:
    meta = _begin(folder, {name: value for name, value in given.items() if value is not None})
    starts = todo(folder, meta)
    left = sum(min(CHUNK, meta["count"] - start) for start in starts)
    jobs = [(str(folder), start, meta) for start in starts]
    with tqdm(total=meta["count"], initial=meta["count"] - left, desc="people", unit="", smoothing=0,
              disable=not progress) as bar:
        for people in in_processes(_render_chunk, jobs, processes):
            bar.update(people)
    return Pairs.open(folder)


def _begin(folder: Path, given: dict[str, Any]) -> dict[str, Any]:
    """Settings of the data set in `folder`, whose empty arrays are made if there is none."""
    meta = _read_meta(folder)
    if meta is None:
        meta = {**DEFAULTS, **given}
        (folder / "done").mkdir(parents=True, exist_ok=True)
        arrays = fields(meta["size"], tuple(meta["styles"]), tuple(meta.get("looks", ())))
        needed = meta["count"] * sum(np.dtype(d).itemsize * int(np.prod(s)) for s, d in arrays.values())
        free = shutil.disk_usage(folder).free
        if needed > free:
            raise VToonifyError(f"{meta['count']} people at {meta['size']} px take {needed / 1e9:.1f} GB and {folder} "
                                f"has {free / 1e9:.1f} GB free; ask for fewer, smaller ones or another folder")
        for name, (shape, dtype) in arrays.items():
            np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, (meta["count"], *shape)).flush()
        (folder / "meta.json").write_text(json.dumps(meta))
    for name, value in given.items():
        begun = meta.get(name)
        if begun != value:
            raise VToonifyError(f"the data set in {folder} was begun with {name} = {begun}, now {name} = {value} is "
                                "asked for; leave it out to go on, or choose another folder")
    return meta


def main(arguments: list[str] | None = None) -> int:
    """The command; → exit code: 0, 2 for a mistake of the user, 130 when stopped."""
    parser = argparse.ArgumentParser(prog="python -m vtoonify_lib.studio.shards", description=__doc__.splitlines()[0],
                                     epilog="Stop it with Ctrl-C; the same command goes on where it was.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, help=f"people (default: {DEFAULTS['count']})")
    parser.add_argument("--size", type=int, help=f"pixels (default: {DEFAULTS['size']})")
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--styles", nargs="+", help=f"(default: {' '.join(DEFAULTS['styles'])})")
    kinds.add_argument("--looks", nargs="*", help=f"photo and looks at degrees drawn by lot ({' '.join(LOOKS)})")
    parser.add_argument("--seed", type=int, help=f"(default: {DEFAULTS['seed']})")
    parser.add_argument("--processes", type=int, help="(default: one per core)")

    def work() -> str:
        args = vars(parser.parse_args(arguments))
        looks, styles = args.pop("looks"), args.pop("styles")
        if looks is None:
            pairs = render_pairs(**args, styles=styles)
        else:
            pairs = render_styles(**args, looks=tuple(looks) or None)
        return f"{len(pairs.ready)} people in {pairs.folder}"

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
