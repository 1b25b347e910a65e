"""A data set of pairs as one small file, to take it to another machine: pictures as WebP, labels as PNG.

`python -m vtoonify_lib.studio.packing FOLDER pairs.zip` writes it, a fiftieth of the folder's size;
`unpack` makes a data set of it again. What is lossy is measured beside `QUALITY`.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from ..config import VToonifyError, exit_code
from .shards import CHUNK, Pairs, fields

QUALITY = 90  # of WebP: photographs of 768 px take 38 KB at 44 dB, their drawings 24 KB at 45 dB; labels 8 KB each
HOLD_OUT = "hold_out.txt"  # numbers of entries that are never trained on, one a line
META, NUMBERS = "meta.json", "numbers.npz"


def pack(folder: str | Path, out: str | Path, looks: Sequence[str] | None = None, quality: int = QUALITY) -> int:
    """Write the finished entries of a data set, all its looks or some → how many; its hold-out list goes along."""
    pairs = Pairs.open(folder)
    meta = json.loads((Path(folder) / META).read_text())
    styles, known = tuple(meta.get("styles", ())), tuple(meta.get("looks", ()))
    looks = known if looks is None else tuple(looks)
    missing = [look for look in looks if look not in known + styles]
    if missing:
        raise VToonifyError(f"{folder} has no look {missing[0]}; it has {', '.join(known + styles)}")
    kept = {"size": meta["size"], "styles": [s for s in styles if s == "photo" or s in looks],
            "looks": [look for look in looks if look in known], "seed": meta.get("seed", 0),
            "margin": pairs.margin, "photographs": pairs.photographs}
    names = [name for name in _fields(kept) if name in pairs.arrays]
    pictures = [name for name in names if pairs[name].ndim >= 3 and pairs[name].dtype == np.uint8]
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive, ThreadPoolExecutor() as pool:
        archive.writestr(META, json.dumps({**kept, "count": len(pairs.ready)}))
        numbers = io.BytesIO()
        np.savez_compressed(numbers, **{name: np.array(pairs[name])[pairs.ready] for name in names
                                        if name not in pictures})
        archive.writestr(NUMBERS, numbers.getvalue())
        for path in sorted((Path(folder) / "exemplars").glob("*.npy")):
            if path.stem in looks:
                archive.writestr(f"exemplars/{path.name}", path.read_bytes())
        archive.writestr(HOLD_OUT, _renumbered(folder, pairs.ready))
        for name in pictures:
            todo = pool.map(lambda i, name=name: _coded(np.array(pairs[name][i]), quality), pairs.ready)
            for number, content in enumerate(tqdm(todo, total=len(pairs.ready), desc=name, mininterval=5)):
                archive.writestr(f"{name}/{number:06d}", content)
    return len(pairs.ready)


def unpack(path: str | Path, folder: str | Path) -> Pairs:
    """Make a data set of a packed one, in `folder`; one that is there already is opened."""
    folder = Path(folder)
    if (folder / META).is_file():
        return Pairs.open(folder)
    (folder / "done").mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(path) as archive:
            _unpack(archive, folder)
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise VToonifyError(f"{path} is no packed data set ({error}); write one with python -m "
                            "vtoonify_lib.studio.packing FOLDER FILE") from error
    return Pairs.open(folder)


def _unpack(archive: zipfile.ZipFile, folder: Path) -> None:
    meta = json.loads(archive.read(META))
    count = meta["count"]
    numbers = dict(np.load(io.BytesIO(archive.read(NUMBERS))))
    with ThreadPoolExecutor() as pool:
        for name, (shape, dtype) in _fields(meta).items():
            array = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, (count, *shape))
            if name in numbers:
                array[:] = numbers[name]
            elif f"{name}/{0:06d}" in archive.NameToInfo:
                contents = (archive.read(f"{name}/{number:06d}") for number in range(count))
                for number, picture in enumerate(pool.map(_decoded, contents)):
                    array[number] = picture
            array.flush()
    for name in archive.namelist():
        if name == HOLD_OUT or name.startswith("exemplars/"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(archive.read(name))
    for start in range(0, count, CHUNK):
        (folder / "done" / f"{start:08d}").touch()
    (folder / META).write_text(json.dumps(meta))


def _fields(meta: dict[str, Any]) -> dict[str, tuple[tuple[int, ...], str]]:
    return fields(meta["size"], tuple(meta["styles"]), tuple(meta["looks"]), meta["photographs"])


def held_out(folder: str | Path, otherwise: int = 0) -> np.ndarray:
    """Entries that a data set's `hold_out.txt` says are never trained on; without one, the first `otherwise`."""
    path = Path(folder) / HOLD_OUT
    if not path.is_file():
        return np.arange(otherwise)
    lines = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    try:
        return np.array(sorted({int(line) for line in lines if line}), int)
    except ValueError as error:
        raise VToonifyError(f"{path} must have the number of an entry on each line ({error})") from error


def _renumbered(folder: str | Path, ready: np.ndarray) -> str:
    """The hold-out list with the numbers that the finished entries get."""
    return "".join(f"{number}\n" for number in np.flatnonzero(np.isin(ready, held_out(folder))))


def _coded(picture: np.ndarray, quality: int) -> bytes:
    stream = io.BytesIO()
    if picture.ndim == 2:
        Image.fromarray(picture).save(stream, "PNG", optimize=True)
    else:
        Image.fromarray(picture).save(stream, "WEBP", quality=quality, method=4, use_sharp_yuv=True)
    return stream.getvalue()


def _decoded(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


def main() -> int:
    parser = argparse.ArgumentParser(description="Write a data set of pairs as one small file.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path, help="the file to write")
    parser.add_argument("--looks", nargs="+", help="(default: all)")
    parser.add_argument("--quality", type=int, default=QUALITY, help="of WebP (default: %(default)s)")
    args = parser.parse_args()
    return exit_code(lambda: f"{pack(args.folder, args.out, args.looks, args.quality)} entries, "
                             f"{args.out.stat().st_size / 2**20:.1f} MiB in {args.out}")


if __name__ == "__main__":
    sys.exit(main())
