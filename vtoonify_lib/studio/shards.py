"""A data set of paired portraits on disk: the same people in several styles, with exact ground truth.

`python -m vtoonify_lib.studio.shards runs/pairs --count 12000` renders people into memory-mapped arrays, chunk by chunk,
in as many processes as there are cores; stop it and start it again and it goes on where it was. Even people are framed
exactly as FFHQ frames them; odd ones are framed loosely (zoom, shift, roll), as a crop plan on a real photograph is.
"""
import argparse
import json
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from .people import Z_SIZE, person, sample_z

CHUNK = 64


def fields(size: int, styles: tuple[str, ...]) -> dict[str, tuple[tuple[int, ...], str]]:
    """Arrays of a data set: name → (shape of one entry, dtype)."""
    out = {"z": ((Z_SIZE,), "f4"), "wide": ((), "?")}
    for style in styles:
        out[style] = ((size, size, 3), "u1")
        out[f"{style}_landmarks"] = ((68, 2), "f4")
        out[f"{style}_parsing"] = ((size, size), "u1")
    return out


@dataclass(frozen=True)
class Pairs:
    """An opened data set: `pairs["photo"]` is a [count, …] memory map; `ready` lists the entries rendered so far."""

    folder: Path
    arrays: dict[str, np.ndarray]
    ready: np.ndarray

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    @classmethod
    def open(cls, folder: str | os.PathLike) -> "Pairs":
        folder = Path(folder)
        meta = json.loads((folder / "meta.json").read_text())
        done = [i for i in range(0, meta["count"], CHUNK) if (folder / "done" / f"{i:08d}").exists()]
        ready = np.concatenate([np.arange(i, min(i + CHUNK, meta["count"])) for i in done]) if done else np.zeros(0, int)
        return cls(folder, {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in fields(meta["size"], tuple(meta["styles"]))}, ready)


_studio = None


def _render_chunk(folder: str, start: int, meta: dict, kit: str | None) -> int:
    global _studio
    from .render import Studio
    from .styles import STYLES

    _studio = _studio or Studio(kit, size=meta["size"])
    arrays = {name: np.load(Path(folder) / f"{name}.npy", mmap_mode="r+") for name in fields(meta["size"], tuple(meta["styles"]))}
    rng = np.random.default_rng([meta["seed"], start])
    stop = min(start + CHUNK, meta["count"])
    for i, z in zip(range(start, stop), sample_z(rng, stop - start), strict=True):
        wide = bool(i % 2)
        who = person(z, wide)
        arrays["z"][i], arrays["wide"][i] = z, wide
        for style in meta["styles"]:
            portrait = _studio.portrait(who, STYLES[style])
            arrays[style][i], arrays[f"{style}_landmarks"][i], arrays[f"{style}_parsing"][i] = portrait.image, portrait.landmarks, portrait.parsing
    for array in arrays.values():
        array.flush()
    (Path(folder) / "done" / f"{start:08d}").touch()
    return stop - start


def render_pairs(folder: str | os.PathLike, count: int, size: int = 256, styles: tuple[str, ...] = ("photo", "storybook"), seed: int = 0,
                 kit: str | None = None, processes: int | None = None) -> Pairs:
    """Render `count` people in every style into `folder`, or finish a data set that was begun there.

    Entries depend on (seed, index) alone, so an interrupted run ends in the same data as an uninterrupted one.
    """
    folder = Path(folder)
    (folder / "done").mkdir(parents=True, exist_ok=True)
    meta = {"count": count, "size": size, "styles": list(styles), "seed": seed}
    if not (folder / "meta.json").exists():
        for name, (shape, dtype) in fields(size, styles).items():
            np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, (count, *shape)).flush()
        (folder / "meta.json").write_text(json.dumps(meta))
    meta = json.loads((folder / "meta.json").read_text())
    todo = [i for i in range(0, meta["count"], CHUNK) if not (folder / "done" / f"{i:08d}").exists()]
    os.environ.setdefault("LP_NUM_THREADS", "0")  # one software rasteriser a process, no threads of its own
    with ProcessPoolExecutor(processes or os.cpu_count()) as pool, tqdm(total=meta["count"], desc="people", initial=meta["count"] - len(todo) * CHUNK) as bar:
        for job in as_completed([pool.submit(_render_chunk, str(folder), start, meta, kit) for start in todo]):
            bar.update(job.result())
    return Pairs.open(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--count", type=int, default=12000)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kit", help="folder of the portrait kit (default: $VTOONIFY_PORTRAIT_KIT)")
    args = parser.parse_args()
    render_pairs(args.folder, args.count, args.size, seed=args.seed, kit=args.kit)


if __name__ == "__main__":
    main()
