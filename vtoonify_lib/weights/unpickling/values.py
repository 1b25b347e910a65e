"""What a published file may contain, and nothing else: tensors, numpy arrays and numbers, OrderedDict, and
argparse.Namespace of plain values.

While a pickle runs, each of them is a small description that checks what the file claims about it: a tensor stays
inside its storage, an array fits its bytes. :func:`plain` turns the finished tree of descriptions into real values.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from .machine import Admitted, Refusal, Stateful

NODE_LIMIT = 1_000_000  # values in one file: a list that is referred to a thousand times counts a thousand times
DEPTH_LIMIT = 50        # containers inside containers
LARGEST = 1 << 40       # of any size, stride or offset
DIMENSIONS = 32         # of a tensor or array; the product of a million of them would take hours
PLAIN = (str, int, float, bool, bytes, type(None))

STORAGES = {"HalfStorage": torch.float16, "BFloat16Storage": torch.bfloat16, "FloatStorage": torch.float32,
            "DoubleStorage": torch.float64, "ByteStorage": torch.uint8, "CharStorage": torch.int8,
            "ShortStorage": torch.int16, "IntStorage": torch.int32, "LongStorage": torch.int64}
NUMBERS = {f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)} | {"f2", "f4", "f8", "b1"}  # numpy's type codes
OBJECTS = {"O", "O8"}


class Storage:
    """Where tensors keep their numbers: announced by the pickle, filled from the rest of the file.

    identifier  torch's persistent id: ("storage", type, key, device it was on, count[, None])
    """

    def __init__(self, identifier: Any):
        if type(identifier) is not tuple or len(identifier) not in (5, 6) or identifier[0] != "storage" \
                or identifier[5:] not in ((), (None,)):
            raise Refusal("refers to something outside of itself that is not the storage of a tensor")
        _, self.dtype, self.key, _, self.count = identifier[:5]
        if type(self.dtype) is not torch.dtype or type(self.key) is not str or not _counts([self.count]):
            raise Refusal("describes the storage of a tensor wrongly")
        self.bytes = self.count * self.dtype.itemsize

    def filled(self, data: bytes) -> torch.Tensor:
        """The storage as a flat tensor of its type."""
        if len(data) != self.bytes:
            raise Refusal(f"is damaged: storage {self.key} has {len(data)} bytes, expected {self.bytes}; "
                          "fetch it again")
        return torch.frombuffer(bytearray(data), dtype=self.dtype) if data else torch.empty(0, dtype=self.dtype)


class Tensor:
    """A view of a storage. It may not reach outside, nor have more numbers than the storage (strides of 0 would)."""

    def __init__(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any):
        if type(storage) is not Storage or type(size) is not tuple or type(stride) is not tuple \
                or len(size) != len(stride) or not _counts([offset, *size, *stride]):
            raise Refusal("describes a tensor wrongly")
        count = math.prod(size)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if count else offset - 1
        if max(count, last + 1) > storage.count:
            raise Refusal(f"claims a tensor of shape {list(size)} in a storage of {storage.count} numbers")
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride

    def over(self, data: torch.Tensor) -> torch.Tensor:
        """The tensor itself, given its filled storage."""
        return torch.as_strided(data, self.size, self.stride, self.offset)


class NumberType(Stateful):
    """A numpy dtype; only of numbers, or of one object (which is how np.save writes a dict)."""

    def __init__(self, code: Any, *_: Any):
        if type(code) is not str or code not in NUMBERS | OBJECTS:
            raise Refusal(f"has an array of {code if type(code) is str else 'an unknown type'}; expected numbers")
        self.code = code

    def build(self, state: Any) -> None:
        _, order, subtype, names, fields, *_ = state
        if order not in ("<", "|", "=") or (subtype, names, fields) != (None, None, None):
            raise Refusal("has an array of a structured or big-endian type; expected plain numbers")

    def read(self, data: Any, shape: Any) -> np.ndarray:
        """Flat array of these bytes, which must be exactly as many as the shape needs."""
        if self.code not in NUMBERS or type(data) is not bytes or type(shape) is not tuple or not _counts(shape) \
                or len(data) != math.prod(shape) * int(self.code[1:]):
            raise Refusal("claims an array that does not fit its bytes")
        return np.frombuffer(data, "<" + self.code)


class Array(Stateful):
    """A numpy array: made empty, then filled by its state. `value` is the array, or the one object in it."""

    def __init__(self, *_: Any):
        self.value: Any = None

    def build(self, state: Any) -> None:
        _, shape, kind, fortran, data = state
        if type(kind) is not NumberType:
            raise Refusal("describes an array wrongly")
        if kind.code in NUMBERS:
            self.value = kind.read(data, shape).reshape(shape, order="F" if fortran else "C")
        elif shape == () and type(data) is list and len(data) == 1:
            self.value = data[0]
        else:
            raise Refusal("has an array of objects; expected numbers, or one object")


class Ordered(Stateful, dict):
    """OrderedDict as a dict. Its state is torch's `_metadata`, version numbers of layers that nobody here asks for."""

    def build(self, state: Any) -> None:
        pass


class Namespace(Stateful, dict):
    """argparse.Namespace as the dict of its attributes."""

    def build(self, state: Any) -> None:
        if type(state) is not dict:
            raise Refusal("describes a Namespace wrongly")
        self.update(state)


def _scalar(kind: Any, data: Any) -> int | float | bool:
    """A number of a numpy type, as a Python number."""
    if type(kind) is not NumberType:
        raise Refusal("describes a number wrongly")
    return kind.read(data, (1,))[0].item()


def _bytes(text: Any, encoding: Any) -> bytes:
    """`_codecs.encode`: how pickles of protocol 2 write bytes."""
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise Refusal("was refused: it encodes bytes in an unknown way; expected latin1")
    return text.encode("latin-1")


def _size(numbers: Any) -> tuple:
    return tuple(numbers) if type(numbers) in (tuple, list) else ()


ADMITTED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): Admitted(lambda: Ordered()),
    ("argparse", "Namespace"): Admitted(lambda: Namespace()),
    ("torch._utils", "_rebuild_tensor"): Admitted(Tensor),
    ("torch._utils", "_rebuild_tensor_v2"): Admitted(Tensor),
    ("torch._utils", "_rebuild_parameter"): Admitted(lambda tensor, *_: tensor),
    ("torch", "Size"): Admitted(_size),
    **{("torch", name): dtype for name, dtype in STORAGES.items()},
    ("_codecs", "encode"): Admitted(_bytes),
    ("numpy", "ndarray"): None,  # named as an argument of _reconstruct; never made by itself
    ("numpy", "dtype"): Admitted(NumberType),
    **{(f"numpy.{core}.multiarray", name): Admitted(make)  # numpy 2 renamed its core
       for core in ("core", "_core") for name, make in (("_reconstruct", Array), ("scalar", _scalar))},
}
"""Everything a published file may name. No entry is a function of another library, or leads to one."""


def plain(tree: Any, tensor: Callable[[Tensor], Any]) -> Any:
    """The tree with real values: dict, list, tuple, numbers, strings, arrays, and `tensor(description)` for tensors."""
    nodes = 0

    def real(value: Any, depth: int) -> Any:
        nonlocal nodes
        nodes += 1
        if nodes > NODE_LIMIT or depth > DEPTH_LIMIT:
            raise Refusal("holds more values, or more deeply nested ones, than a file of weights can have")
        if type(value) in PLAIN:
            return value
        if type(value) is Tensor:
            return tensor(value)
        if type(value) is Array:
            return value.value if type(value.value) is np.ndarray else real(value.value, depth + 1)
        if isinstance(value, dict):
            return {key: real(item, depth + 1) for key, item in value.items()}
        if type(value) in (list, tuple):
            return type(value)(real(item, depth + 1) for item in value)
        raise Refusal(f"holds a {type(value).__name__} by itself; expected weights and plain settings")

    return real(tree, 0)


def _counts(numbers: Any) -> bool:
    """True for a few non-negative ints of sane size."""
    return len(numbers) <= 2 * DIMENSIONS + 1 and all(type(n) is int and 0 <= n < LARGEST for n in numbers)
