"""Read the published `.pt`, `.pth` and `.npy` files, which are pickles, so that nothing that is in them runs.

A pickle is a program that may call whatever it names. Before anything is loaded, `pickletools` lists its instructions,
and names outside of NAMES are refused. Then a checkpoint is loaded by `torch.load(weights_only=True)`, which is safe
from torch 2.10 (older ones could be made to write outside of their memory, GHSA-63cw-57p8-fm3p), and the dictionary in
an `.npy` by a `pickle.Unpickler` that only notes down what it should make: numpy's own constructors believe what a file
claims about itself. The worst that a hostile file can do is to waste time and memory.
"""

from __future__ import annotations

import math
import pickle
import pickletools
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from ..config import VToonifyError

ZIP = b"PK\x03\x04"
LEGACY_PICKLES = 5  # magic number, version, machine, contents, order of the storages: torch's format before zip
MOST_TUPLES = 20_000  # four a tensor. A key of 300,000 tuples inside one another overflows Python's stack
MOST_VALUES = 1_000_000  # that a pickle remembers: Python allocates up to the highest number that it is told, 32 GB
NUMBERS = {f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)} | {"f2", "f4", "f8", "b1"}  # numpy's type codes


class Noted:
    """What a file makes besides tensors, noted down and not made: a numpy array or number, an argparse.Namespace."""

    def __init__(self, *arguments: Any):
        self.arguments, self.state = arguments, None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def array(self) -> np.ndarray:
        """The numpy array that it should be."""
        _, shape, kind, fortran, data = self.state
        if kind.arguments[0] not in NUMBERS or kind.state[1] not in ("<", "|") or type(data) is not bytes:
            raise _Refusal("has an array of something else than little-endian numbers")
        return np.frombuffer(data, "<" + kind.arguments[0]).reshape(shape, order="F" if fortran else "C")


NOTED = {"argparse Namespace", "numpy ndarray", "numpy dtype", *(
    f"numpy.{core}.multiarray {name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar"))}
NAMES = {*NOTED, "collections OrderedDict", "torch Size", "_codecs encode",  # protocol 2 writes bytes so
         *(f"torch._utils _rebuild_{what}" for what in ("tensor", "tensor_v2", "parameter")),
         *(f"torch {kind}Storage" for kind in ("Half", "BFloat16", "Float", "Double", "Byte", "Char", "Short", "Int",
                                               "Long", "Bool"))}  # all that a published file may name


def read_checkpoint(path: str | Path) -> Any:
    """Contents of a file that `torch.save` wrote, in the zip format or the one before it.

    → dict, list and tuple of tensors on the CPU, numbers and strings, and `Noted` for an argparse.Namespace and what is
    numpy's. Raises VToonifyError for a missing or damaged file, and for one that names anything but these.
    """
    with _opened(path) as file:
        if file.read(len(ZIP)) == ZIP:
            _check_zip(file)
        else:
            file.seek(0)
            for _ in range(LEGACY_PICKLES):
                _check_pickle(file)
        file.seek(0)
        with torch.serialization.safe_globals([(Noted, name.replace(" ", ".")) for name in NOTED]):
            contents = torch.load(file, map_location="cpu", weights_only=True)
        for part in (contents, *contents.values()) if isinstance(contents, dict) else ():
            for value in part.values() if isinstance(part, dict) else ():  # a stride of 0 makes any size of one number
                if isinstance(value, torch.Tensor) and math.prod(value.shape) > value.untyped_storage().nbytes():
                    raise _Refusal(f"claims a tensor of shape {list(value.shape)}, more than it holds")
        return contents


def read_npy(path: str | Path) -> Any:
    """Contents of an `.npy` file: an array of numbers, or the dict of arrays pickled into it. Errors as above."""
    with _opened(path) as file:
        read_header = {(1, 0): np.lib.format.read_array_header_1_0,
                       (2, 0): np.lib.format.read_array_header_2_0}[np.lib.format.read_magic(file)]
        if not read_header(file)[2].hasobject:
            return np.load(path, allow_pickle=False)
        start = file.tell()
        _check_pickle(file)
        file.seek(start)
        (contents,) = _NotingUnpickler(file).load().state[4]  # an array of one object
        return {key: value.array() if type(value) is Noted else value for key, value in contents.items()}


class _NotingUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        known = dict.fromkeys(NOTED, Noted) | {"_codecs encode": str.encode}
        return known.get(f"{module} {name}") or _refuse(f"{module} {name}")


def _check_zip(file: IO[bytes]) -> None:
    """Refuse an archive that torch did not write. It compresses nothing, so nothing in it is larger than the file."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if any(entry.compress_type for entry in entries):
            raise _Refusal("was refused: its entries are compressed, which torch never does")
        pickles = [entry for entry in entries if entry.filename.lower().endswith(".pkl")]
        if len(pickles) != 1:
            raise _Refusal("is a zip archive but not a checkpoint (a TorchScript program, or something else)")
        if archive.testzip():  # torch does not look at the checksums
            raise zipfile.BadZipFile
        with archive.open(pickles[0]) as program:
            _check_pickle(program)


def _check_pickle(file: IO[bytes]) -> None:
    """Refuse a pickle with names that are not in NAMES, before any of it runs. Leaves the file behind its end."""
    tuples = 0
    for instruction, argument, _ in pickletools.genops(file):
        kind = instruction.name
        if kind == "GLOBAL" and argument not in NAMES or kind.startswith("EXT"):  # which stands for a name by number
            _refuse(str(argument))
        tuples += kind.startswith("TUPLE")
        if tuples > MOST_TUPLES or kind.endswith("PUT") and argument > MOST_VALUES:
            raise _Refusal("was refused: it holds more values than a file of weights can have")


def _refuse(name: str) -> None:
    raise _Refusal(f"was refused: it names {name.replace(' ', '.')[:100]}, which a file of weights has no use for; "
                   "nothing in it was run", "unsafe")


class _Refusal(Exception):
    """Something in the file that no published file contains. The message completes the sentence "FILE …"."""

    def __init__(self, message: str, code: str = "unreadable") -> None:
        super().__init__(message)
        self.code = code


@contextmanager
def _opened(path: str | Path) -> Iterator[IO[bytes]]:
    """The file; whatever goes wrong with it inside the block becomes one sentence for the user."""
    try:
        with open(path, "rb") as file:
            yield file
    except _Refusal as error:
        raise VToonifyError(f"{path} {error}", code=error.code) from error
    except OSError as error:
        raise VToonifyError(f"{path} cannot be read ({error.strerror or error})", code="unreadable") from error
    except Exception as error:  # torch's own words advise to read it unsafely
        raise VToonifyError(f"{path} is damaged or no file of weights ({type(error).__name__}); nothing in it was run; "
                            "fetch it again from where it was published", code="unreadable") from error
