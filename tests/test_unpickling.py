"""What the published formats contain comes back, and whatever else a file asks for is refused before it happens. Every
hostile file here would leave a marker if anything in it ran."""

from __future__ import annotations

import argparse
import builtins
import collections
import copyreg
import functools
import io
import os
import pickle
import re
import struct
import subprocess
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from errors import refuses

from vtoonify_lib.config import VToonifyError
from vtoonify_lib.weights.unpickling import MOST_TUPLES, read_checkpoint, read_npy

PROTO = pickle.PROTO + b"\x02"


@pytest.fixture(params=["zip", "legacy"])
def save(request, tmp_path):
    """torch.save in both formats → path."""
    def write(contents, name: str = "file.pt") -> Path:
        torch.save(contents, tmp_path / name, _use_new_zipfile_serialization=request.param == "zip")
        return tmp_path / name
    return write


def rewritten(tmp_path: Path, program: bytes) -> Path:
    """A zip checkpoint of torch's whose pickle was replaced."""
    torch.save({"g_ema": {"w": torch.arange(6.0)}}, tmp_path / "honest.pt")
    with zipfile.ZipFile(tmp_path / "honest.pt") as honest, zipfile.ZipFile(tmp_path / "hostile.pt", "w") as hostile:
        for entry in honest.namelist():
            hostile.writestr(entry, program if entry.endswith("data.pkl") else honest.read(entry))
    return tmp_path / "hostile.pt"


def npy(tmp_path: Path, program: bytes) -> Path:
    """An .npy file that holds one pickled object."""
    path = tmp_path / "hostile.npy"
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        file.write(program)
    return path


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


# ---------------------------------------------------------------------------------------------- honest files
def test_what_torch_saves_comes_back(save):
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(10, generator=generator)
    state = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).state_dict()  # with _metadata
    original = {
        **state, "strided": torch.randn(4, 5, generator=generator).t(), "slice": shared[2:5], "same": shared[4:],
        "half": shared.half(), "bfloat": shared.bfloat16(), "bytes": torch.arange(5, dtype=torch.uint8),
        "bool": shared > 0, "empty": torch.zeros(0, 3), "scalar": torch.tensor(2.5),
        "parameter": torch.nn.Parameter(shared.clone()),
    }
    settings = {"lr": 1e-4, "flags": [True, None, (1, -2)], "large": 1 << 70, "size": shared.shape}
    beside = {"args": argparse.Namespace(lr=1e-4), "n": np.float64(1.5), "a": np.arange(6, dtype=np.float32)}
    found = read_checkpoint(save({"g_ema": state, "all": original, "opts": settings, **beside}))
    assert found["opts"] == settings and list(found) == ["g_ema", "all", "opts", *beside]
    assert found["args"].state == vars(beside["args"]) and np.array_equal(found["a"].array(), beside["a"])
    assert found["all"].keys() == original.keys() and found["g_ema"].keys() == state.keys()
    for name, tensor in original.items():
        assert found["all"][name].dtype == tensor.dtype and torch.equal(found["all"][name], tensor), name


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_style_codes(tmp_path, protocol):
    """The dictionary in exstyle_code.npy. Protocol 5 has another constructor for arrays; numpy never saves with it."""
    codes = {f"style {i}": np.random.default_rng(i).standard_normal((1, 18, 512), dtype=np.float32) for i in range(3)}
    codes["fortran"] = np.asfortranarray(codes["style 0"][0])
    codes["bool"] = np.array([True, False])
    program = pickle.dumps(np.array(codes, dtype=object), protocol)
    programs = {program}
    if protocol < 4:  # later ones spell out the lengths of names
        programs |= {program.replace(b"numpy._core", b"numpy.core"), program.replace(b"numpy.core", b"numpy._core")}
    assert len(programs) == (1 if protocol == 4 else 2)  # as numpy 1 and numpy 2 call its core
    for program in programs:
        found = read_npy(npy(tmp_path, program))
        assert list(found) == list(codes)
        for name, code in codes.items():
            assert found[name].dtype == code.dtype and np.array_equal(found[name], code)


def test_npy_as_numpy_saves_it(tmp_path):
    np.save(tmp_path / "a.npy", {"a": np.ones((1, 2, 3), np.float32), "b": "text"})
    found = read_npy(tmp_path / "a.npy")
    assert found["a"].shape == (1, 2, 3) and found["b"] == "text"
    for array in (np.arange(6).reshape(2, 3), np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.float32(3)):
        np.save(tmp_path / "b.npy", array)
        assert np.array_equal(read_npy(tmp_path / "b.npy"), array)


# ---------------------------------------------------------------------------------------------- hostile files
class Calls:
    """Pickles as a call of anything with anything."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


def attacks(marker: Path) -> dict[str, tuple[object, str]]:
    """Name → (object whose pickle runs something, what the refusal must name)."""
    script, builtin = f"open({str(marker)!r}, 'w')", "(__builtin__|builtins)"
    return {
        "os.system": (Calls(os.system, f"touch {marker}"), f"{os.system.__module__}.system"),
        "subprocess": (Calls(subprocess.check_output, ["touch", str(marker)]),
                       "(commands|subprocess).check_output"),
        "eval": (Calls(eval, script), f"{builtin}.eval"),
        "exec": (Calls(exec, script), f"{builtin}.exec"),
        "open": (Calls(open, str(marker), "w"), r"_?io\.open"),
        "getattr": (Calls(getattr, Calls(__import__, "os"), "system"), f"{builtin}.getattr"),
        "numpy load": (Calls(np.load, str(marker)), "numpy.load"),
        "numpy memmap": (Calls(np.memmap, str(marker), "uint8", "w+", 0, (1,)), r"numpy\.\S*memmap"),
        "torch load": (Calls(torch.load, str(marker)), "torch.serialization.load"),
        "type call": (Calls(torch._tensor._rebuild_from_type_v2, eval, torch.Tensor, (), {}),
                      "torch._tensor._rebuild_from_type_v2"),
        "partial": (Calls(functools.partial, eval, script), "functools.partial"),
        "extension class": (Calls(collections.defaultdict, eval), f"{builtin}.eval|collections.defaultdict"),
        "path": (Path(str(marker)), r"pathlib\S*\.\w*Path"),
        "class itself": (builtins.dict, f"{builtin}.dict"),
    }


@pytest.mark.parametrize("where", ["top", "in the state dict", "in a Namespace"])
@pytest.mark.parametrize("attack", attacks(Path("marker")))
def test_nothing_runs_in_a_checkpoint(save, tmp_path, attack, where):
    marker = tmp_path / "marker"
    evil, named = attacks(marker)[attack]
    weights = {"w": torch.ones(2)}
    path = save({"top": evil, "in the state dict": {"g_ema": {**weights, "x": evil}},
                 "in a Namespace": {"g_ema": weights, "opts": argparse.Namespace(x=evil)}}[where])
    with refuses("unsafe", "file.pt") as caught:
        read_checkpoint(path)
    assert re.search(rf"({named}), ", str(caught.value)) and not marker.exists()


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("attack", attacks(Path("marker")))
def test_nothing_runs_in_an_npy(tmp_path, attack, protocol):
    marker = tmp_path / "marker"
    evil, named = attacks(marker)[attack]
    for contents in (evil, {"x": evil, "style": np.zeros(3)}, np.array({"style": evil}, dtype=object)):
        with refuses("unsafe", "hostile.npy") as caught:
            read_npy(npy(tmp_path, pickle.dumps(contents, protocol)))
        assert re.search(rf"({named}), ", str(caught.value))
    assert not marker.exists()


def test_these_attacks_are_real(tmp_path):
    """The same files do run when python's own unpickler reads them: the tests above would notice."""
    marker = tmp_path / "marker"
    for attack in ("os.system", "eval", "open", "subprocess"):
        pickle.loads(pickle.dumps(attacks(marker)[attack][0]))
        assert marker.exists(), attack
        marker.unlink()


DAMAGED = "damaged or no file of weights .*nothing in it was run"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
TRICKS = {
    "INST": (b"(" + text("touch {marker}") + b"ios\nsystem\n", DAMAGED),
    "OBJ": (b"(cos\nsystem\n" + text("touch {marker}") + b"o", "names os.system"),
    "EXT1": (b"\x82\x01(" + text("touch {marker}") + b"tR", "names 1"),
    "dotted name": (text("collections") + text("OrderedDict.__init__.__globals__") + b"\x93)R",
                    DAMAGED + "|names collections.OrderedDict.__init__.__globals__"),
    "names from the memo": (text("os") + b"q\x01" + text("system") + b"q\x02" + b"h\x01h\x02\x93",
                            DAMAGED + "|names os.system"),
    "call of a string": (text("os.system") + b"(" + text("touch {marker}") + b"tR", DAMAGED),
    "slots of a function": (REBUILD + b"(N}" + text("__defaults__") + b")stb",
                            DAMAGED + "|names torch._utils._rebuild"),
    "state of a class": (b"cargparse\nNamespace\n(N}" + text("array") + b"K\1stb", DAMAGED),
    "state of a dict": (b"}}" + text("__class__") + b"Nsb", DAMAGED),
    "append to a string": (text("a") + text("b") + b"a", DAMAGED),
    "key of tuples": (b"}N" + b"\x85" * 300_000 + b"Ns", "holds more values"),
    "memo": (b"Nr\xff\xff\xff\x7f", "holds more values"),
    "BINBYTES8 of an exabyte": (b"\x8e" + struct.pack("<Q", 1 << 60) + b"abc", DAMAGED),
    "LONG4": (b"\x8b" + struct.pack("<I", 0x7FFFFFFF) + b"\x01", DAMAGED),
    "FRAME": (b"\x95" + struct.pack("<Q", 1 << 50) + b"e", DAMAGED),
    "BINUNICODE": (b"X" + struct.pack("<I", 0xFFFFFFFF) + b"abc", DAMAGED),
    **{repr(program): (program, DAMAGED) for program in (
        b"h\x05", b"", b"0", b"e", b"(", b"R", b"b", b"s", b"\x87", b"Q", b"\xff")},
}


@pytest.mark.parametrize("trick", TRICKS)
def test_tricks_with_single_instructions(tmp_path, trick):
    marker = tmp_path / "marker"
    program, message = TRICKS[trick]
    program = PROTO + program.replace(text("touch {marker}"), text(f"touch {marker}")) + b"."
    for path, read in ((rewritten(tmp_path, program), read_checkpoint), (npy(tmp_path, program), read_npy)):
        with pytest.raises(VToonifyError, match=message + "|names os.system"):
            read(path)
    assert not marker.exists()
    assert torch._utils._rebuild_tensor_v2.__defaults__ == (None,)


def test_tuples_of_many_weights_are_no_trick(save):
    """Optimizers of all three networks: 4,000 tensors, four tuples each."""
    assert len(read_checkpoint(save({str(i): torch.zeros(1) for i in range(4000)}))) * 4 < MOST_TUPLES


def test_an_extension_code_that_python_knows_is_refused(tmp_path):
    """copyreg keeps what extension codes stand for, past find_class of python's own unpickler."""
    copyreg.add_extension("builtins", "eval", 201)
    try:
        program = PROTO + b"\x82\xc9(" + text("1") + b"tR."
        for path, read in ((rewritten(tmp_path, program), read_checkpoint), (npy(tmp_path, program), read_npy)):
            with refuses("unsafe", 201):
                read(path)
    finally:
        copyreg.remove_extension("builtins", "eval", 201)


def test_deep_nesting_and_laughs_do_no_harm(tmp_path):
    deep = b"]" * 100_000 + b"a" * 99_999
    cycle = b"]q\0h\0a"
    laughs = b"]q\0" + b"".join(b"]" + (b"h" + bytes([i]) + b"a") * 10 + b"q" + bytes([i + 1]) for i in range(12))
    for program in (deep, cycle, laughs):
        assert isinstance(read_checkpoint(rewritten(tmp_path, PROTO + program + b".")), list)
        with pytest.raises(VToonifyError, match=DAMAGED):
            read_npy(npy(tmp_path, PROTO + program + b"."))


# ---------------------------------------------------------------------------------------------- wrong claims
def tensor_program(count: int = 6, size: tuple = (6,), stride: tuple = (1,), offset: int = 0, key: str = "0") -> bytes:
    """The pickle of one tensor that makes these claims."""
    class Stored:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return ("storage", torch.FloatStorage, key, "cpu", count) if isinstance(value, Stored) else None

    stream = io.BytesIO()
    Pickler(stream, 2).dump({"g_ema": {"w": Calls(torch._utils._rebuild_tensor_v2, Stored(), offset, size, stride,
                                                  False, collections.OrderedDict())}})
    return stream.getvalue()


@pytest.mark.parametrize("claim", [
    {"size": (7,)}, {"offset": 1}, {"stride": (2,)}, {"size": (1 << 62,)}, {"size": (-6,)}, {"offset": -1},
    {"size": (6, 1)}, {"size": (1 << 39,), "stride": (0,)}, {"size": (1 << 31, 1 << 29), "stride": (0, 0)},
    {"count": 1 << 36, "size": (1 << 36,)}, {"count": 7, "size": (7,)}, {"count": 5, "size": (5,)}, {"count": -1},
    {"key": "../../../etc/passwd"},
])
def test_tensors_that_claim_too_much(tmp_path, claim):
    with refuses("unreadable", "hostile.pt"):
        read_checkpoint(rewritten(tmp_path, tensor_program(**claim)))


def test_the_claims_above_are_otherwise_right(tmp_path):
    assert torch.equal(read_checkpoint(rewritten(tmp_path, tensor_program()))["g_ema"]["w"], torch.arange(6.0))


@pytest.mark.parametrize(("shape", "kind", "order", "data"), [
    ((3,), "f4", "<", b"\0" * 8), ((1 << 39,), "f4", "<", b""), ((2,), "O8", "|", [1, 2]),
    ((2,), "f4", ">", b"\0" * 8), ((1,), "V8", "|", b"\0" * 8), ((1,), "O8", "|", b"\0" * 8),
])
def test_arrays_that_claim_too_much(tmp_path, shape, kind, order, data):
    class Kind:
        def __reduce__(self):
            return np.dtype, (kind, False, True), (3, order, None, None, None, -1, -1, 0)

    class Claim:
        def __reduce__(self):
            return np.array(0).__reduce__()[0], (np.ndarray, (0,), b"b"), (1, shape, Kind(), False, data)

    with refuses("unreadable", "hostile.npy"):
        read_npy(npy(tmp_path, pickle.dumps(np.array({"a": Claim()}, dtype=object), 3)))


# ---------------------------------------------------------------------------------------------- wrong files
def test_other_files(tmp_path):
    marker, tar = tmp_path / "marker", io.BytesIO()  # torch.load(weights_only=True) ran tars until 2.5 (CVE-2025-32434)
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for name in ("sys_info", "pickle", "tensors", "storages"):
            data = pickle.dumps(Calls(os.system, f"touch {marker}"), 2)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    for name, data in {"page.pt": b"<!DOCTYPE html><html>", "empty.pt": b"", "text.npy": b"hello, world",
                       "plain.pt": pickle.dumps({"g_ema": 1}, 2), "old.pt": tar.getvalue()}.items():
        (tmp_path / name).write_bytes(data)
        with refuses("unreadable", tmp_path / name):
            (read_npy if name.endswith("npy") else read_checkpoint)(tmp_path / name)
    assert not marker.exists()
    with refuses("unreadable", "none.pt", "No such file"):
        read_checkpoint(tmp_path / "none.pt")
    with refuses("unreadable", tmp_path, "Is a directory"):
        read_npy(tmp_path)


def test_archives_that_torch_did_not_write(tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as source, zipfile.ZipFile(tmp_path / "b.pt", "w") as squeezed, \
            zipfile.ZipFile(tmp_path / "c.pt", "w") as script, zipfile.ZipFile(tmp_path / "d.pt", "w") as two:
        for name in source.namelist():
            squeezed.writestr(name, source.read(name), zipfile.ZIP_DEFLATED)
            script.writestr(name, source.read(name))
            two.writestr(name, source.read(name))
        script.writestr("a/constants.pkl", b"")
        two.writestr("a/DATA.PKL", pickle.dumps(Calls(eval, "1")))  # torch's reader of archives makes no difference
    for name, fact in {"b.pt": "compressed", "c.pt": "zip archive", "d.pt": "zip archive"}.items():
        with refuses("unreadable", tmp_path / name, fact):
            read_checkpoint(tmp_path / name)


def test_truncated_and_damaged_files(save, tmp_path):
    data = save({"g_ema": {"w": torch.zeros(1000)}}).read_bytes()
    broken = tmp_path / "broken.pt"
    for keep in (len(data) // 2, len(data) - 600, len(data) - 4000):
        broken.write_bytes(data[:keep])
        with refuses("unreadable", broken):
            read_checkpoint(broken)
    if data.startswith(b"PK"):  # only this format has checksums
        middle = len(data) // 2
        broken.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1:])
        with refuses("unreadable", broken):
            read_checkpoint(broken)


def test_npy_that_ends_too_early(tmp_path):
    with open(tmp_path / "a.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40,)})
    with refuses("unreadable", tmp_path / "a.npy"):
        read_npy(tmp_path / "a.npy")
