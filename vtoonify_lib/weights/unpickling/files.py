"""The containers: torch's zip format, the one it had before, and numpy's `.npy`.

Lengths are checked against the file before anything is allocated, and parts that were not asked for are not read.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...config import VToonifyError
from .machine import Machine, Refusal
from .values import ADMITTED, Storage, Tensor, plain

TORCH_MAGIC, TORCH_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # first two pickles of the format before zip
TAR_MAGIC = slice(257, 262)
PICKLE_LIMIT = 1 << 26  # bytes of pickle in a zip checkpoint; the published ones have less than a hundredth of it


def read_checkpoint(path: str | Path, only: Collection[str] | None = None) -> Any:
    """Contents of a file that `torch.save` wrote, in the zip format or the one before it.

    → dict, list and tuple of tensors (on the CPU, without gradients), numpy arrays, numbers and strings; OrderedDict
    and argparse.Namespace come back as dict. `only`: keys of the outermost dict to keep; the others are not read.
    Raises VToonifyError for a missing or damaged file, and for one that names anything but weights and settings.
    """
    with _opened(path) as file:
        head = file.read(TAR_MAGIC.stop)
        file.seek(0)
        if head[:4] == b"PK\x03\x04":
            return _read_zip(file, only)
        if head[TAR_MAGIC] == b"ustar":
            raise Refusal("was refused: it is a tar archive, a format that torch gave up long ago and that cannot be "
                          "read safely; save it again with a current torch")
        return _read_legacy(file, only)


def read_npy(path: str | Path) -> Any:
    """Contents of an `.npy` file: an array of numbers, or the one plain object (a dict of arrays) pickled into it.

    Raises VToonifyError as :func:`read_checkpoint` does.
    """
    with _opened(path) as file:
        version = np.lib.format.read_magic(file)
        headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in headers:
            raise Refusal(f"has version {version} of the npy format; expected 1.0 or 2.0")
        shape, fortran, dtype = headers[version](file)
        if dtype.hasobject:
            return plain(Machine(file, ADMITTED).run(), tensor=_no_tensor)
        count = math.prod(shape)
        if count * dtype.itemsize > file.size - file.tell():
            raise Refusal(f"is incomplete: it announces an array of shape {list(shape)} and ends before that; "
                          "fetch it again")
        return np.frombuffer(file.read(count * dtype.itemsize), dtype).reshape(shape, order="F" if fortran else "C")


# ---------------------------------------------------------------------------------------------- files
class _File(io.BufferedReader):
    """A file that never tries to read past its end: a claimed length of 2^60 bytes must not be allocated."""

    def __init__(self, path: str | Path):
        super().__init__(io.FileIO(path))
        self.size = self.seek(0, io.SEEK_END)
        self.seek(0)

    def read(self, size: int | None = -1) -> bytes:
        rest = max(0, self.size - self.tell())
        return super().read(rest if size is None or size < 0 else min(size, rest))


@contextmanager
def _opened(path: str | Path) -> Iterator[_File]:
    """The file; whatever goes wrong with it inside the block becomes one sentence for the user."""
    try:
        with _File(path) as file:
            yield file
    except Refusal as error:
        raise VToonifyError(f"{path} {error}") from error
    except zipfile.BadZipFile as error:
        raise VToonifyError(f"{path} is damaged or incomplete ({error}); fetch it again") from error
    except OSError as error:
        raise VToonifyError(f"{path} cannot be read ({error.strerror or error})") from error
    except Exception as error:  # whatever a broken file does to zipfile, numpy's header reader or the machine
        raise VToonifyError(f"{path} is not a readable file of weights ({type(error).__name__}: {error}); fetch it "
                            "again from where it was published") from error


# ---------------------------------------------------------------------------------------------- torch, zip
def _read_zip(file: _File, only: Collection[str] | None) -> Any:
    """`NAME/data.pkl`, and `NAME/data/KEY` for every storage."""
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        pickles = [name for name in names if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1 or any(name.endswith("constants.pkl") for name in names):
            raise Refusal("is a zip archive but not a checkpoint (a TorchScript program, or something else): it needs "
                          "exactly one data.pkl")
        if sum(info.file_size for info in archive.infolist()) > file.size:
            raise Refusal("was refused: its entries claim more bytes than the file has")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}byteorder" in names and _entry(archive, f"{root}byteorder", 16) != b"little":
            raise Refusal("was written on a big-endian machine; save it again on an ordinary one")
        program = io.BytesIO(_entry(archive, pickles[0], PICKLE_LIMIT))
        tree = _kept(Machine(program, ADMITTED, Storage).run(), only)
        data: dict[str, torch.Tensor] = {}

        def tensor(description: Tensor) -> torch.Tensor:
            storage = description.storage
            if storage.key not in data:
                data[storage.key] = storage.filled(_entry(archive, f"{root}data/{storage.key}", storage.bytes))
            return description.over(_same_type(data[storage.key], storage))

        return plain(tree, tensor)


def _entry(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """One entry. torch never compresses, so what it claims to hold is bounded by the file."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.file_size != info.compress_size:
        raise Refusal(f"was refused: its entry {name} is compressed or encrypted, which torch never does")
    if info.file_size > limit:
        raise Refusal(f"was refused: its entry {name} has {info.file_size} bytes; expected at most {limit}")
    return archive.read(info)


# ---------------------------------------------------------------------------------------------- torch, before zip
def _read_legacy(file: _File, only: Collection[str] | None) -> Any:
    """Five pickles (magic number, version, machine, contents, order of the storages), then the storages' bytes."""
    if Machine(file, ADMITTED).run() != TORCH_MAGIC or Machine(file, ADMITTED).run() != TORCH_PROTOCOL:
        raise Refusal("is a pickle, but not one that torch.save wrote; expected a checkpoint")
    if Machine(file, ADMITTED).run().get("little_endian") is not True:
        raise Refusal("was written on a big-endian machine; save it again on an ordinary one")
    storages: dict[str, Storage] = {}

    def storage(identifier: Any) -> Storage:
        found = Storage(identifier)
        return storages.setdefault(found.key, found)

    tree = _kept(Machine(file, ADMITTED, storage).run(), only)
    wanted: set[str] = set()
    plain(tree, lambda description: wanted.add(description.storage.key))
    data = dict(_stored(file, storages, Machine(file, ADMITTED).run(), wanted))
    return plain(tree, lambda description: description.over(_same_type(data[description.storage.key],
                                                                       description.storage)))


def _stored(file: _File, storages: dict[str, Storage], order: Any, wanted: Collection[str]
            ) -> Iterator[tuple[str, torch.Tensor]]:
    """The wanted storages, in the order of the file: a count of eight bytes, then the numbers."""
    for key in order:
        storage = storages[key]
        count = int.from_bytes(file.read(8), "little")
        if count != storage.count or storage.bytes > file.size - file.tell():
            raise Refusal(f"is damaged or incomplete: storage {key} should have {storage.count} numbers; fetch it "
                          "again")
        if key in wanted:
            yield key, storage.filled(file.read(storage.bytes))
        else:
            file.seek(storage.bytes, io.SEEK_CUR)


# ---------------------------------------------------------------------------------------------- both
def _kept(tree: Any, only: Collection[str] | None) -> Any:
    return {key: tree[key] for key in tree if key in only} if only is not None and isinstance(tree, dict) else tree


def _same_type(data: torch.Tensor, storage: Storage) -> torch.Tensor:
    """A storage that is announced twice must be announced alike."""
    if data.dtype != storage.dtype or data.numel() != storage.count:
        raise Refusal(f"announces storage {storage.key} twice, differently")
    return data


def _no_tensor(_: Tensor) -> None:
    raise Refusal("holds a tensor; expected numpy arrays")
