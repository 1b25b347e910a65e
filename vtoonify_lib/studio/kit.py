"""Head geometry, morphed, and meshes bound to it, on the CPU.

Takes MakeHuman's base mesh and morph targets from `base_mesh` (CC0), and turns target weights into vertices. It knows
geometry only: who a person is lives in `people`, what grows on the head in `hair` and `brows`, what a picture looks
like in `render` and `styles`.
"""
from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..config import VToonifyError
from . import base_mesh

ETHNICITIES = ("caucasian", "african", "asian")


@dataclass(frozen=True)
class Mesh:
    """Triangles [t,3] int32 over n vertices, and their texture coordinates uv [n,2]."""

    uv: np.ndarray
    triangles: np.ndarray


@dataclass(frozen=True)
class Prop:
    """A mesh bound to the head: vertex = Σ weight·vertices[bind] + offset·scale.

    bind [m,k] int, weight [m,k], offset [m,3]; scale along axis a is the distance of the two vertices scale_vertex[a]
    along it, divided by scale_rest[a]; without those it is 1.
    """

    mesh: Mesh
    bind: np.ndarray
    weight: np.ndarray
    offset: np.ndarray
    scale_vertex: np.ndarray | None = None
    scale_rest: np.ndarray | None = None

    def place(self, vertices: np.ndarray) -> np.ndarray:
        """vertices [6357,3] → prop vertices [m,3]."""
        scale = 1.0
        if self.scale_rest is not None:
            ends = self.scale_vertex
            scale = np.abs([vertices[ends[a, 0], a] - vertices[ends[a, 1], a] for a in range(3)]) / self.scale_rest
        out = self.offset * scale
        for k in range(self.bind.shape[1]):
            out += vertices[self.bind[:, k]] * self.weight[:, k, None]
        return out


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
    """The base mesh, loaded: `Kit().morph({target: weight}) → [6357,3]`, decimetres, +y up, +z out of the face.

    VToonifyError where the package that brings it is not installed.
    """

    def __init__(self) -> None:
        self._data = base_mesh.load()
        self.vertices = self._data["vertices"]
        self.group_names = [str(n) for n in self._data["group_names"]]
        self.target_names = [str(n) for n in self._data["target_names"]]
        self._target_index = {name: i for i, name in enumerate(self.target_names)}
        self._delta = self._data["target_delta"].astype(np.float32)
        self._moves: dict[str, tuple[np.ndarray | slice, np.ndarray]] = {}

    def target(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Vertex indices [m] and displacements [m,3] of one morph target."""
        if name not in self._target_index:
            raise VToonifyError(f"the base mesh has no target {name!r}")
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
