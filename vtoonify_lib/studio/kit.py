"""The portrait kit: CC0 head geometry, morphed and bound on the CPU.

Takes MakeHuman's base mesh and morph targets from `base_mesh`, hair, brows and lashes from `props.npz` (all CC0), and
turns target weights into vertices. It knows geometry only: who a person is lives in `people`, what a picture looks like
in `render` and `styles`.
"""
from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ..config import DATA, VToonifyError
from . import base_mesh

KIT = DATA / "portrait_kit"
PROPS = "props.npz"
KIT_VARIABLE = "VTOONIFY_PORTRAIT_KIT"  # environment variable: another folder
ETHNICITIES = ("caucasian", "african", "asian")


def find_kit(folder: str | os.PathLike | None = None) -> Path:
    """Folder of the portrait kit: the argument, the environment variable `VTOONIFY_PORTRAIT_KIT`, or data/portrait_kit.

    Raises VToonifyError when there is none in it, or when the package with the base mesh is not installed.
    """
    path = Path(folder or os.environ.get(KIT_VARIABLE) or KIT)
    if not (path / PROPS).is_file():
        raise VToonifyError(
            f"no {PROPS} in {path}; the renderer needs the CC0 portrait kit that comes with the repository in "
            f"data/portrait_kit (data/README.md describes it): pass its folder or set {KIT_VARIABLE}"
        )
    base_mesh.find_package()
    return path


@dataclass(frozen=True)
class Mesh:
    """Triangles over a vertex array that repeats a vertex once per texture coordinate.

    source [n] int: which morphable vertex each entry copies; uv [n,2]; triangles [t,3] int32 into n.
    """

    source: np.ndarray
    uv: np.ndarray
    triangles: np.ndarray


@dataclass(frozen=True)
class Prop:
    """A mesh bound to the head: vertex = Σ weight·vertices[bind] + offset·scale.

    bind [m,3] int, weight and offset [m,3]; scale along axis a is the distance of the two vertices scale_vertex[a]
    along it, divided by scale_rest[a].
    """

    mesh: Mesh
    bind: np.ndarray
    weight: np.ndarray
    offset: np.ndarray
    scale_vertex: np.ndarray
    scale_rest: np.ndarray

    def place(self, vertices: np.ndarray) -> np.ndarray:
        """vertices [6357,3] → prop vertices [m,3]."""
        ends = self.scale_vertex
        scale = np.abs([vertices[ends[a, 0], a] - vertices[ends[a, 1], a] for a in range(3)]) / self.scale_rest
        return (vertices[self.bind] * self.weight[..., None]).sum(1) + self.offset * scale


def _unwelded(triangles: np.ndarray, uvs: np.ndarray) -> Mesh:
    """Triangles [t,3,(vertex, uv)] → Mesh with one entry per distinct (vertex, uv) pair."""
    pairs, inverse = np.unique(triangles.reshape(-1, 2), axis=0, return_inverse=True)
    return Mesh(pairs[:, 0], uvs[pairs[:, 1]].astype(np.float32), inverse.reshape(-1, 3).astype(np.int32))


class VertexNormals:
    """Area-weighted unit normals of one topology: `VertexNormals(triangles [t,3], n)(vertices [n,3]) → float32 [n,3]`.

    Which triangles meet at a vertex is sorted out once; a call then only adds. Unused vertices have the normal 0.
    """

    def __init__(self, triangles: np.ndarray, count: int):
        self._triangles = np.ascontiguousarray(triangles.T)
        corners = triangles.ravel()
        self._faces = np.argsort(corners, kind="stable") // 3
        self._used, self._starts = np.unique(np.sort(corners), return_index=True)
        self._count = count

    def __call__(self, vertices: np.ndarray) -> np.ndarray:
        x, y, z = np.ascontiguousarray(vertices.T, np.float64)
        a, b, c = self._triangles
        ux, uy, uz, vx, vy, vz = x[b] - x[a], y[b] - y[a], z[b] - z[a], x[c] - x[a], y[c] - y[a], z[c] - z[a]
        normals = np.zeros((3, self._count))
        for out, face in zip(normals, (uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx), strict=True):
            out[self._used] = np.add.reduceat(face[self._faces], self._starts)
        return (normals / np.maximum(np.sqrt((normals**2).sum(0)), 1e-9)).T.astype(np.float32)


class Kit:
    """The loaded kit: `Kit(folder).morph({target: weight}) → [6357,3]`, decimetres, +y up, +z out of the face."""

    def __init__(self, folder: str | os.PathLike | None = None):
        self.folder = find_kit(folder)
        with np.load(self.folder / PROPS, allow_pickle=False) as props:
            self._data = {**base_mesh.load(), **props}
        self.vertices = self._data["vertices"]
        self.group_names = [str(n) for n in self._data["group_names"]]
        self.target_names = [str(n) for n in self._data["target_names"]]
        self._target_index = {name: i for i, name in enumerate(self.target_names)}
        self._delta = self._data["target_delta"].astype(np.float32)
        self._moves: dict[str, tuple[np.ndarray | slice, np.ndarray]] = {}

    def target(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Vertex indices [m] and displacements [m,3] of one morph target."""
        if name not in self._target_index:
            raise VToonifyError(f"the portrait kit has no target {name!r}")
        i = self._target_index[name]
        span = slice(*self._data["target_ptr"][i : i + 2])
        return self._data["target_vertex"][span], self._delta[span]

    def morph(self, weights: dict[str, float], onto: np.ndarray | None = None) -> np.ndarray:
        """Weighted targets added to vertices (default: the neutral mesh) → [6357,3] float32."""
        out = (self.vertices if onto is None else onto).flatten()
        for name, weight in weights.items():
            if weight:
                where, delta = self._move(name)
                out[where] += np.float32(weight) * delta
        return out.reshape(-1, 3)

    def _move(self, name: str) -> tuple[np.ndarray | slice, np.ndarray]:
        """A target as coordinates of the flattened mesh, which are faster to add to than rows of it."""
        if name not in self._moves:
            index, delta = self.target(name)
            whole = np.array_equal(index, np.arange(len(self.vertices)))
            where = slice(None) if whole else (3 * index.astype(np.intp)[:, None] + np.arange(3)).ravel()
            self._moves[name] = where, delta.ravel()
        return self._moves[name]

    def mask(self, *names: str) -> np.ndarray:
        """Soft mask [6357] in [0,1]: how far the named targets move each vertex, relative to the largest move."""
        size = np.zeros(len(self.vertices), np.float32)
        for name in names:
            index, delta = self.target(name)
            np.maximum.at(size, index, np.linalg.norm(delta, axis=1) / np.linalg.norm(delta, axis=1).max())
        return size

    def group(self, *names: str) -> np.ndarray:
        """Triangles [t,3] (vertex indices) of the named groups of the base mesh."""
        wanted = [self.group_names.index(n) for n in names]
        return self._data["triangles"][np.isin(self._data["triangle_group"], wanted)][..., 0]

    @cached_property
    def average_macro(self) -> dict[str, float]:
        """Target weights of an average adult, the head on which regions and landmarks are marked once."""
        return macro_weights(np.array([1, 1, 1]) / 3, gender=0.5, age=0.2, weight=0.0)

    @cached_property
    def props(self) -> dict[str, Prop]:
        """Hair, brows and lashes by name, e.g. `hair/short01`."""
        names = sorted({k.rsplit("/", 1)[0] for k in self._data if k.count("/") == 2})
        return {n: self._prop(n) for n in names}

    def _prop(self, name: str) -> Prop:
        bindings = [f"{name}/{k}" for k in ("bind_vertex", "bind_weight", "bind_offset", "scale_vertex", "scale_rest")]
        mesh = _unwelded(self._data[f"{name}/triangles"], self._data[f"{name}/uvs"])
        return Prop(mesh, *(self._data[key] for key in bindings))

    def texture(self, name: str) -> Path | None:
        """Path of a prop's texture, or None where the kit has none."""
        kind, item = name.split("/")
        path = self.folder / "textures" / (f"{item}_diffuse.png" if kind == "hair" else f"{item}.png")
        return path if path.is_file() else None


def macro_weights(ethnicity: np.ndarray, gender: float, age: float, weight: float) -> dict[str, float]:
    """MakeHuman macro targets: ethnicity [3] sums to 1 (caucasian, african, asian); gender 0 = female … 1 = male;
    age 0 = young … 1 = old; weight −1 = thin … 1 = heavy."""
    out = {}
    for sex, s in (("female", 1 - gender), ("male", gender)):
        for years, y in (("young", 1 - age), ("old", age)):
            for name, e in zip(ETHNICITIES, ethnicity, strict=True):
                out[f"macrodetails/{name}-{sex}-{years}"] = float(e * s * y)
            base = f"macrodetails/universal-{sex}-{years}-averagemuscle-"
            # the average-weight body is the mesh itself: only departures from it have targets in the kit
            out[base + ("maxweight" if weight > 0 else "minweight")] = float(abs(weight) * s * y)
    return out
