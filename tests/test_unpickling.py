"""Reading pickles as data: what the published formats contain comes back, and whatever else a file asks for is refused
by name before it happens. Every hostile file here would leave a marker if anything in it ran."""

from __future__ import annotations

import argparse
import builtins
import collections
import io
import os
import pickle
import struct
import subprocess
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from vtoonify_lib.config import VToonifyError
from vtoonify_lib.weights.unpickling import machine, read_checkpoint, read_npy, values

FORMATS = {"zip": True, "legacy": False}
PROTO = pickle.PROTO + b"\x02"


@pytest.fixture(params=FORMATS)
def save(request, tmp_path):
    """torch.save in both formats → path."""
    def write(contents, name: str = "file.pt") -> Path:
        torch.save(contents, tmp_path / name, _use_new_zipfile_serialization=FORMATS[request.param])
        return tmp_path / name
    return write


def rewritten(tmp_path: Path, program: bytes, keep: bool = True, name: str = "hostile.pt") -> Path:
    """A zip checkpoint of torch's whose pickle was replaced."""
    torch.save({"g_ema": {"w": torch.arange(6.0)}}, tmp_path / "honest.pt")
    with zipfile.ZipFile(tmp_path / "honest.pt") as honest, zipfile.ZipFile(tmp_path / name, "w") as hostile:
        for entry in honest.namelist():
            data = honest.read(entry)
            if keep or not entry.endswith("/data/0"):
                hostile.writestr(entry, program if entry.endswith("data.pkl") else data)
    return tmp_path / name


def npy(tmp_path: Path, program: bytes) -> Path:
    """An .npy file that holds one pickled object."""
    path = tmp_path / "hostile.npy"
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        file.write(program)
    return path


def call(module: str, name: str, *arguments: bytes) -> bytes:
    """GLOBAL, arguments, REDUCE."""
    return f"c{module}\n{name}\n(".encode() + b"".join(arguments) + b"tR"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


# ---------------------------------------------------------------------------------------------- honest files
def honest() -> dict:
    generator = torch.Generator().manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    shared = torch.randn(10, generator=generator)
    return {
        "g_ema": module.state_dict(),  # OrderedDict with _metadata, an int64 scalar
        "strided": torch.randn(4, 5, generator=generator).t(), "slice": shared[2:5], "same": shared[4:],
        "half": shared.half(), "bfloat": shared.bfloat16(), "bytes": torch.arange(5, dtype=torch.uint8),
        "empty": torch.zeros(0, 3), "scalar": torch.tensor(2.5), "parameter": torch.nn.Parameter(shared.clone()),
        "size": shared.shape, "numpy": np.arange(6, dtype=np.float32).reshape(2, 3), "number": np.float64(1.5),
        "opts": argparse.Namespace(n_styles=18, lr=1e-4, name="psp", flags=[True, None, (1, -2)]),
        "large": 1 << 70, "negative": -5,
    }


def test_what_torch_saves_comes_back(save):
    original = honest()
    path = save(original)
    found = read_checkpoint(path)
    assert list(found) == list(original)
    opts = found.pop("opts")
    assert opts == vars(original["opts"])
    assert np.array_equal(found.pop("numpy"), original["numpy"]) and found.pop("number") == 1.5
    assert found["size"] == (10,) and found["large"] == 1 << 70 and found["negative"] == -5
    assert not found["parameter"].requires_grad
    for name, tensor in {**found, **found["g_ema"]}.items():
        if isinstance(tensor, torch.Tensor):
            expected = original.get(name, original["g_ema"].get(name))
            assert tensor.dtype == expected.dtype and torch.equal(tensor, expected), name


def test_agrees_with_torch_itself(save):
    contents = {k: v for k, v in honest().items() if k not in ("numpy", "number", "opts")}
    path = save(contents)
    ours, theirs = read_checkpoint(path), torch.load(path, weights_only=True)
    assert ours.keys() == theirs.keys()
    for name, value in theirs["g_ema"].items():
        assert torch.equal(ours["g_ema"][name], value)
    assert all(torch.equal(ours[k], v) for k, v in theirs.items() if isinstance(v, torch.Tensor))


def test_keys_that_nobody_asked_for_are_not_read(save, monkeypatch):
    path = save({"g": torch.zeros(1000), "g_ema": {"w": torch.ones(3)}, "opts": None})
    filled = []
    original = values.Storage.filled
    monkeypatch.setattr(values.Storage, "filled", lambda self, data: filled.append(self.count) or original(self, data))
    assert torch.equal(read_checkpoint(path, only=["g_ema"])["g_ema"]["w"], torch.ones(3))
    assert filled == [3]
    assert read_checkpoint(path, only=["nothing"]) == {}


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_style_codes(tmp_path, protocol):
    """The dictionary in exstyle_code.npy. Protocol 5 has another constructor for arrays; numpy never saves with it."""
    codes = {f"style {i}": np.random.default_rng(i).standard_normal((1, 18, 512), dtype=np.float32) for i in range(3)}
    codes["fortran"] = np.asfortranarray(codes["style 0"][0])
    program = pickle.dumps(np.array(codes, dtype=object), protocol)
    programs = {program}
    if protocol < 4:  # later ones spell out the lengths of names
        programs |= {program.replace(b"numpy._core", b"numpy.core"), program.replace(b"numpy.core", b"numpy._core")}
    assert len(programs) == (1 if protocol == 4 else 2)  # as numpy 1 and numpy 2 call its core
    for program in programs:
        found = read_npy(npy(tmp_path, program))
        assert list(found) == list(codes)
        for name, code in codes.items():
            assert found[name].dtype == np.float32 and np.array_equal(found[name], code)


def test_npy_as_numpy_saves_it(tmp_path):
    np.save(tmp_path / "a.npy", {"a": np.ones((1, 2, 3), np.float32), "b": np.zeros(2, bool)})
    found = read_npy(tmp_path / "a.npy")
    assert found["a"].shape == (1, 2, 3) and found["b"].dtype == bool
    for array in (np.arange(6).reshape(2, 3), np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.float32(3)):
        np.save(tmp_path / "b.npy", array)
        assert np.array_equal(read_npy(tmp_path / "b.npy"), array)


# ---------------------------------------------------------------------------------------------- hostile files
class Calls:
    """Pickles as a call of anything with anything."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.reduced


def attacks(marker: Path) -> dict[str, tuple[object, str]]:
    """Name → (object whose pickle runs something, what the refusal must name)."""
    touch, script = f"touch {marker}", f"open({str(marker)!r}, 'w')"
    system = f"{os.system.__module__}.system"
    return {
        "os.system": (Calls(os.system, touch), system),
        "subprocess": (Calls(subprocess.check_output, ["touch", str(marker)]), "subprocess.check_output"),
        "eval": (Calls(eval, script), "builtins.eval"),
        "exec": (Calls(exec, script), "builtins.exec"),
        "open": (Calls(open, str(marker), "w"), r"_?io\.open"),
        "getattr": (Calls(getattr, Calls(__import__, "os"), "system"), "builtins.getattr"),
        "import": (Calls(__import__, "os"), "builtins.__import__"),
        "numpy load": (Calls(np.load, str(marker)), "numpy.load"),
        "numpy fromfile": (Calls(np.fromfile, str(marker)), "numpy.fromfile"),
        "numpy memmap": (Calls(np.memmap, str(marker), "uint8", "w+", 0, (1,)), r"numpy\.\S*memmap"),
        "torch load": (Calls(torch.load, str(marker)), "torch.serialization.load"),
        "torch rebuild": (Calls(torch._utils._rebuild_qtensor), "torch._utils._rebuild_qtensor"),
        "type call": (Calls(torch._tensor._rebuild_from_type_v2, eval, torch.Tensor, (), {}),
                      "torch._tensor._rebuild_from_type_v2"),
        "partial": (Calls(__import__("functools").partial, eval, script), "functools.partial"),
        "operator": (Calls(__import__("operator").attrgetter, "system"), "operator.attrgetter"),
        "codecs": (Calls(__import__("codecs").open, str(marker), "w"), "codecs.open"),
        "extension class": (Calls(collections.defaultdict, eval), "builtins.eval|collections.defaultdict"),
        "path": (Path(str(marker)), r"pathlib\S*\.\w*Path"),
        "class itself": (builtins.dict, "builtins.dict"),
    }


@pytest.mark.parametrize("where", ["top", "in the state dict", "in a Namespace", "after the weights"])
@pytest.mark.parametrize("attack", attacks(Path("marker")))
def test_nothing_runs_in_a_checkpoint(save, tmp_path, attack, where):
    marker = tmp_path / "marker"
    evil, named = attacks(marker)[attack]
    weights = {"w": torch.ones(2)}
    contents = {"top": evil, "in the state dict": {"g_ema": {**weights, "x": evil}},
                "in a Namespace": {"g_ema": weights, "opts": argparse.Namespace(x=evil)},
                "after the weights": {"g_ema": weights, "zzz": evil}}[where]
    path = save(contents)
    with pytest.raises(VToonifyError, match=rf"file\.pt was refused: it names ({named}), .*nothing in it was run"):
        read_checkpoint(path, only=["g_ema"])
    assert not marker.exists()


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("attack", attacks(Path("marker")))
def test_nothing_runs_in_an_npy(tmp_path, attack, protocol):
    marker = tmp_path / "marker"
    evil, named = attacks(marker)[attack]
    for contents in (evil, {"x": evil, "style": np.zeros(3)}, np.array({"style": evil}, dtype=object)):
        with pytest.raises(VToonifyError, match=rf"hostile\.npy was refused: it names ({named}), "):
            read_npy(npy(tmp_path, pickle.dumps(contents, protocol)))
    assert not marker.exists()


def test_these_attacks_are_real(tmp_path):
    """The same files do run when python's own unpickler reads them: the tests above would notice."""
    marker = tmp_path / "marker"
    for attack in ("os.system", "eval", "open", "subprocess"):
        pickle.loads(pickle.dumps(attacks(marker)[attack][0]))
        assert marker.exists(), attack
        marker.unlink()


STORED = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\6tQ"
TRICKS = {
    "INST": (b"(" + text("touch {marker}") + b"ios\nsystem\n", "instruction INST for os.system"),
    "OBJ": (b"(cos\nsystem\n" + text("touch {marker}") + b"o", "names os.system"),
    "EXT1": (b"\x82\x01(" + text("touch {marker}") + b"tR", "instruction EXT1"),
    "PERSID": (b"Pos.system\n", "instruction PERSID"),
    "NEWOBJ_EX": (b"ccollections\nOrderedDict\n)}\x92", "instruction NEWOBJ_EX"),
    "dotted name": (text("collections") + text("OrderedDict.__init__.__globals__") + b"\x93)R",
                    "names collections.OrderedDict.__init__.__globals__"),
    "names made of calls": (call("_codecs", "encode", text("os"), text("latin1")) + text("system") + b"\x93",
                            "names <bytes>.system"),
    "names from the memo": (text("os") + b"q\x01" + text("system") + b"q\x02" + b"h\x01h\x02\x93", "names os.system"),
    "call of a string": (text("os.system") + b"(" + text("touch {marker}") + b"tR", "calls a str"),
    "call of a dtype": (b"ctorch\nFloatStorage\n)R", "calls a dtype"),
    "call of a list": (b"]]R", "calls a list"),
    "state of a class": (b"ccollections\nOrderedDict\n}" + text("__reduce__") + b"Nsb", "sets the state of a Admitted"),
    "slots of a function": (b"ctorch._utils\n_rebuild_tensor_v2\n(N}" + text("__defaults__") + b")stb",
                            "sets the state of a Admitted"),
    "state of a dict": (b"}}" + text("__class__") + b"Nsb", "sets the state of a dict"),
    "state of a tensor": (call("torch._utils", "_rebuild_tensor_v2", STORED, b"K\0K\6\x85K\1\x85") + b"}b",
                          "sets the state of a Tensor"),
    "append to a string": (text("a") + text("b") + b"a", "appends to a str"),
    "items of a list": (b"]K\0K\1s", "sets items of a list"),
    "tuple as key": (b"})Ns", "has a tuple as the key"),
    "class as value": (b"}" + text("x") + b"ccollections\nOrderedDict\ns", "holds a Admitted by itself"),
    "numpy's exec": (call("numpy.testing", "runstring", text("1"), b"}"), "names numpy.testing.runstring"),
    "latin1 only": (call("_codecs", "encode", text("x"), text("rot13")), "encodes bytes in an unknown way"),
    "type of objects": (call("numpy", "dtype", text("V8")), "has an array of V8"),
    "ndarray by itself": (call("numpy", "ndarray", b"K\1"), "calls a NoneType"),
}


@pytest.mark.parametrize("trick", TRICKS)
def test_tricks_with_single_instructions(tmp_path, trick):
    marker = tmp_path / "marker"
    program, named = TRICKS[trick]
    program = PROTO + program.replace(text("touch {marker}"), text(f"touch {marker}")) + b"."
    with pytest.raises(VToonifyError, match=named):
        read_checkpoint(rewritten(tmp_path, program))
    assert not marker.exists()


def test_an_extension_code_that_python_knows_is_refused(tmp_path):
    """copyreg keeps what extension codes stand for, past find_class of python's own unpickler."""
    import copyreg

    copyreg.add_extension("builtins", "eval", 201)
    try:
        path = rewritten(tmp_path, PROTO + b"\x82\xc9(" + text("1") + b"tR.")
        with pytest.raises(VToonifyError, match="instruction EXT1"):
            read_checkpoint(path)
    finally:
        copyreg.remove_extension("builtins", "eval", 201)


def test_a_file_cannot_change_what_the_next_one_meets(tmp_path, save):
    before = {name: getattr(value, "make", value) for name, value in values.ADMITTED.items()}
    with pytest.raises(VToonifyError, match="sets the state of a Admitted"):
        read_checkpoint(rewritten(tmp_path, PROTO + b"ccollections\nOrderedDict\n(N}" + text("make") + b"K\1stb."))
    overridden = PROTO + b"cargparse\nNamespace\n)R}" + text("build") + b"K\1sb."
    assert read_checkpoint(rewritten(tmp_path, overridden)) == {"build": 1}  # a plain value under an unlucky name
    assert {name: getattr(value, "make", value) for name, value in values.ADMITTED.items()} == before
    assert not hasattr(machine.Admitted(dict), "__dict__")
    assert read_checkpoint(save({"opts": argparse.Namespace(a=1)})) == {"opts": {"a": 1}}


def test_no_admitted_name_is_a_function_of_another_library():
    for name, value in values.ADMITTED.items():
        make = getattr(value, "make", None)
        assert make is None or make.__module__ == "vtoonify_lib.weights.unpickling.values", name


# ---------------------------------------------------------------------------------------------- wrong claims
def tensor_program(count: int = 6, size: tuple = (6,), stride: tuple = (1,), offset: int = 0, key: str = "0") -> bytes:
    """The pickle of one tensor that makes these claims."""
    class Claim:
        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, (Stored(), offset, size, stride, False, collections.OrderedDict())

    class Stored:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return ("storage", torch.FloatStorage, key, "cpu", count) if isinstance(value, Stored) else None

    stream = io.BytesIO()
    Pickler(stream, 2).dump(Claim())
    return stream.getvalue()


@pytest.mark.parametrize(("claim", "message"), [
    ({"size": (7,)}, "claims a tensor of shape"),
    ({"offset": 1}, "claims a tensor"),
    ({"stride": (2,)}, "claims a tensor"),
    ({"size": (1 << 39,), "stride": (0,)}, "claims a tensor"),
    ({"size": (1 << 62,)}, "describes a tensor wrongly"),
    ({"size": (-6,)}, "describes a tensor wrongly"),
    ({"offset": -1}, "describes a tensor wrongly"),
    ({"size": (6, 1)}, "describes a tensor wrongly"),
    ({"size": (1,) * 5000, "stride": (1,) * 5000}, "describes a tensor wrongly"),
    ({"count": 1 << 36, "size": (1 << 36,)}, r"storage 0 has 24 bytes, expected 274877906944"),
    ({"count": 7, "size": (7,)}, r"storage 0 has 24 bytes, expected 28"),
    ({"count": 5, "size": (5,)}, r"entry \S*data/0 has 24 bytes; expected at most 20"),
    ({"count": -1}, "describes the storage of a tensor wrongly"),
    ({"key": "../../../etc/passwd"}, "There is no item named"),
])
def test_tensors_that_claim_too_much(tmp_path, claim, message):
    with pytest.raises(VToonifyError, match=message):
        read_checkpoint(rewritten(tmp_path, tensor_program(**claim)))


def test_the_claims_above_are_otherwise_right(tmp_path):
    assert torch.equal(read_checkpoint(rewritten(tmp_path, tensor_program())), torch.arange(6.0))


@pytest.mark.parametrize("program", [
    b"\x8e" + struct.pack("<Q", 1 << 60) + b"abc.",                       # BINBYTES8 of an exabyte
    b"\x8d" + struct.pack("<Q", 1 << 40) + b"abc.",                       # BINUNICODE8
    b"\x8b" + struct.pack("<I", 0x7FFFFFFF) + b"\x01.",                   # LONG4
    b"\x95" + struct.pack("<Q", 1 << 50) + b"e.",                         # FRAME, and nothing to extend
    b"X" + struct.pack("<I", 0xFFFFFFFF) + b"abc.",                       # BINUNICODE
    b"h\x05.", b".", b"0.", b"e.", b"(.", b"R.", b"b.", b"s.", b"\x87.", b"Q.", b"}K\1N", b"", b"\xff.", b"]N",
])
def test_broken_and_boastful_pickles(tmp_path, program):
    for path, read in ((rewritten(tmp_path, PROTO + program), read_checkpoint), (npy(tmp_path, program), read_npy)):
        with pytest.raises(VToonifyError, match=rf"{path.name} "):
            read(path)


def test_memo_and_nesting_bombs(tmp_path):
    deep = PROTO + b"]" * 100_000 + b"a" * 99_999 + b"."
    cycle = PROTO + b"]q\0h\0a."
    laughs = PROTO + b"]q\0" + b"".join(b"]" + b"h" + bytes([i]) * 1 + b"a" + b"".join(
        b"h" + bytes([i]) + b"a" for _ in range(9)) + b"q" + bytes([i + 1]) for i in range(12)) + b"."
    for program in (deep, cycle, laughs):
        with pytest.raises(VToonifyError, match="more values, or more deeply nested ones"):
            read_checkpoint(rewritten(tmp_path, program))
        as_name = program[:-1] + text("system") + b"\x93."  # must not be written out into the message
        with pytest.raises(VToonifyError, match="names <list>.system"):
            read_checkpoint(rewritten(tmp_path, as_name))
    memo = PROTO + b"Nr\xff\xff\xff\x7f."  # an index of two thousand million: python's own would allocate 16 GB
    assert read_checkpoint(rewritten(tmp_path, memo)) is None


@pytest.mark.parametrize(("state", "message"), [
    ((1, (3,), "f4", b"\0" * 8), "does not fit its bytes"),
    ((1, (1 << 39,), "f4", b""), "does not fit its bytes"),
    ((1, (-1,), "f4", b"\0" * 4), "does not fit its bytes"),
    ((1, (2,), "O8", [1, 2]), "an array of objects"),
    ((1, (1, 1 << 20, 0), "f4", b""), None),
])
def test_arrays_that_claim_too_much(tmp_path, state, message):
    class Kind:
        def __reduce__(self):
            return np.dtype, (state[2], False, True), (3, "<", None, None, None, -1, -1, 0)

    class Claim:
        def __reduce__(self):
            rebuild = np.array(0).__reduce__()[0]
            return rebuild, (np.ndarray, (0,), b"b"), (state[0], state[1], Kind(), False, state[3])

    path = npy(tmp_path, pickle.dumps({"a": Claim()}, 3))
    if message is None:
        assert read_npy(path)["a"].shape == state[1]
        return
    with pytest.raises(VToonifyError, match=message):
        read_npy(path)


# ---------------------------------------------------------------------------------------------- wrong files
def test_tar_of_early_torch_is_refused(tmp_path):
    """torch.load(weights_only=True) ran these until 2.5 (CVE-2025-32434)."""
    marker, path = tmp_path / "marker", tmp_path / "old.pt"
    with tarfile.open(path, "w") as tar:
        for name in ("sys_info", "pickle", "tensors", "storages"):
            data = pickle.dumps(Calls(os.system, f"touch {marker}"), 2)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    with pytest.raises(VToonifyError, match="old.pt was refused: it is a tar archive"):
        read_checkpoint(path)
    assert not marker.exists()


def test_other_files(tmp_path, save):
    plain = tmp_path / "plain.pt"
    plain.write_bytes(pickle.dumps({"g_ema": 1}, 2))
    with pytest.raises(VToonifyError, match="is a pickle, but not one that torch.save wrote"):
        read_checkpoint(plain)
    with pytest.raises(VToonifyError, match="cannot be read .No such file"):
        read_checkpoint(tmp_path / "none.pt")
    with pytest.raises(VToonifyError, match="cannot be read .Is a directory"):
        read_npy(tmp_path)
    for name, data in {"page.pt": b"<!DOCTYPE html><html>", "empty.pt": b"", "text.npy": b"hello, world"}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(VToonifyError, match=f"{name} is not a readable file of weights"):
            (read_npy if name.endswith("npy") else read_checkpoint)(tmp_path / name)


def test_torchscript_and_compressed_archives(tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as source, zipfile.ZipFile(tmp_path / "b.pt", "w") as squeezed, \
            zipfile.ZipFile(tmp_path / "c.pt", "w") as script:
        for name in source.namelist():
            squeezed.writestr(name, source.read(name), zipfile.ZIP_DEFLATED)
            script.writestr(name, source.read(name))
        script.writestr("a/constants.pkl", b"")
    with pytest.raises(VToonifyError, match="b.pt was refused: .*compressed or encrypted"):
        read_checkpoint(tmp_path / "b.pt")
    with pytest.raises(VToonifyError, match="c.pt is a zip archive but not a checkpoint"):
        read_checkpoint(tmp_path / "c.pt")


def test_truncated_and_damaged_files(save, tmp_path):
    path = save({"g_ema": {"w": torch.randn(1000)}})
    data = path.read_bytes()
    broken = tmp_path / "broken.pt"
    for keep in (len(data) // 2, len(data) - 600, len(data) - 4000):
        broken.write_bytes(data[:keep])
        with pytest.raises(VToonifyError, match="broken.pt is (damaged|not a readable)"):
            read_checkpoint(broken)


def test_a_flipped_bit_in_a_zip_is_noticed(tmp_path):
    torch.save({"w": torch.zeros(1000)}, tmp_path / "a.pt")
    data = bytearray((tmp_path / "a.pt").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "a.pt").write_bytes(data)
    with pytest.raises(VToonifyError, match="damaged"):
        read_checkpoint(tmp_path / "a.pt")


def test_npy_that_ends_too_early(tmp_path):
    with open(tmp_path / "a.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40,)})
    with pytest.raises(VToonifyError, match="is incomplete: it announces an array of shape"):
        read_npy(tmp_path / "a.npy")
