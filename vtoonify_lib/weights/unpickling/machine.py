"""The pickle machine: runs a pickle as data. It can make lists, dicts, tuples, numbers and strings, and nothing more
by itself; every name in the file is looked up in a table that the caller gives, and refused when it is not there.

There is no attribute access, no import, no `__setstate__` of a foreign class, no call but those of :class:`Admitted`.
Instructions that the published files do not use (INST, OBJ, EXT…, sets, out-of-band buffers) do not exist here.
"""

from __future__ import annotations

import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable, Mapping
from typing import IO, Any

KEYS = (str, int, float, bool, type(None))  # of dicts. No tuples: hashing a deeply nested one overflows Python's stack


class Refusal(Exception):
    """Something in the file that no published file contains. The message completes the sentence "FILE …"."""


class Admitted:
    """What a name in the file stands for: a constructor of ours. Slots, so that a file cannot hang anything on it."""

    __slots__ = ("make",)

    def __init__(self, make: Callable[..., Any]):
        self.make = make


class Stateful:
    """Base of what a file may make and then give a state (the BUILD instruction). `build` checks that state."""

    def build(self, state: Any) -> None:
        raise NotImplementedError


class Machine:
    """Runs one pickle from a stream up to its STOP.

    admitted    (module, name) → Admitted, or a value that is not callable
    persistent  makes a value of a persistent id, which is how torch refers to storages
    """

    def __init__(self, stream: IO[bytes], admitted: Mapping[tuple[str, str], Any],
                 persistent: Callable[[Any], Any] | None = None):
        self.stream, self.admitted, self.persistent = stream, admitted, persistent
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # stacks under each mark
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """→ the object. Refusal for a foreign name or instruction; ValueError and the like for a broken pickle."""
        for instruction, argument, _ in pickletools.genops(self.stream):
            name = instruction.name
            if name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name]())
            elif name in _LITERALS:
                self.stack.append(argument)
            elif name in _HANDLERS:
                _HANDLERS[name](self, argument)
            elif name == "STOP":
                return self.stack.pop()
            elif name not in ("PROTO", "FRAME"):
                text = f" for {argument.replace(' ', '.')}" if name == "INST" else ""
                raise Refusal(f"was refused: it has the pickle instruction {name}{text}, which a file of weights has "
                              "no use for; nothing in it was run")
        raise EOFError("the pickle has no end")  # unreachable: genops raises ValueError first

    # ------------------------------------------------------------------ names and calls
    def _global(self, module: str, name: str) -> None:
        if type(module) is not str or type(name) is not str or (module, name) not in self.admitted:
            raise Refusal(f"was refused: it names {_today(module, name)}, which a file of weights has no use for; "
                          "nothing in it was run")
        self.stack.append(self.admitted[module, name])

    def _named(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._global(module, name)

    def _named_on_stack(self, _: None) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self._global(module, name)

    def _call(self, _: None) -> None:
        arguments, what = self.stack.pop(), self.stack.pop()
        if type(what) is not Admitted or type(arguments) is not tuple:
            raise Refusal(f"was refused: it calls a {type(what).__name__}; nothing in it was run")
        self.stack.append(what.make(*arguments))

    def _build(self, _: None) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if not isinstance(target, Stateful):
            raise Refusal(f"was refused: it sets the state of a {type(target).__name__}; nothing in it was run")
        target.build(state)

    def _persistent(self, _: None) -> None:
        if self.persistent is None:
            raise Refusal("refers to a storage outside of itself")
        self.stack.append(self.persistent(self.stack.pop()))

    # ------------------------------------------------------------------ containers
    def _mark(self, _: None) -> None:
        self.below.append(self.stack)
        self.stack = []

    def _to_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def _list(self, _: None) -> None:
        items = self._to_mark()
        self.stack.append(items)

    def _tuple(self, _: None) -> None:
        items = self._to_mark()
        self.stack.append(tuple(items))

    def _short_tuple(self, count: int) -> None:
        if len(self.stack) < count:
            raise IndexError("not enough values for a tuple")
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def _dict(self, _: None) -> None:
        items = self._to_mark()
        self.stack.append({})
        self._set(items)

    def _append(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise Refusal(f"was refused: it appends to a {type(self.stack[-1]).__name__}")
        self.stack[-1].extend(items)

    def _set(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise Refusal(f"was refused: it sets items of a {type(target).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in KEYS:
                raise Refusal(f"was refused: it has a {type(key).__name__} as the key of a dict")
            target[key] = value

    def _put(self, index: int | None) -> None:
        self.memo[len(self.memo) if index is None else index] = self.stack[-1]


def _today(module: Any, name: Any) -> str:
    """The name as Python 3 knows it (pickles of protocol 2 say `__builtin__.eval`), for people to read.

    Of what is no string, only the type: a list of lists of lists that are all the same has no end when it is written.
    """
    module, name = (part[:100] if type(part) is str else f"<{type(part).__name__}>" for part in (module, name))
    return ".".join(NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name)))


_CONSTANTS = {"NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
              "EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}
_LITERALS = frozenset({"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "UNICODE",
                       "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8"})
_HANDLERS: dict[str, Callable[[Machine, Any], Any]] = {
    "GLOBAL": Machine._named, "STACK_GLOBAL": Machine._named_on_stack, "REDUCE": Machine._call,
    "NEWOBJ": Machine._call, "BUILD": Machine._build, "BINPERSID": Machine._persistent,
    "MARK": Machine._mark, "LIST": Machine._list, "TUPLE": Machine._tuple, "DICT": Machine._dict,
    "TUPLE1": lambda machine, _: machine._short_tuple(1),
    "TUPLE2": lambda machine, _: machine._short_tuple(2),
    "TUPLE3": lambda machine, _: machine._short_tuple(3),
    "APPEND": lambda machine, _: machine._append([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine._append(machine._to_mark()),
    "SETITEM": lambda machine, _: machine._set([machine.stack.pop(-2), machine.stack.pop()]),
    "SETITEMS": lambda machine, _: machine._set(machine._to_mark()),
    "PUT": Machine._put, "BINPUT": Machine._put, "LONG_BINPUT": Machine._put, "MEMOIZE": Machine._put,
    "GET": lambda machine, index: machine.stack.append(machine.memo[index]),
    "BINGET": lambda machine, index: machine.stack.append(machine.memo[index]),
    "LONG_BINGET": lambda machine, index: machine.stack.append(machine.memo[index]),
    "POP": lambda machine, _: machine.stack.pop(), "POP_MARK": lambda machine, _: machine._to_mark(),
}
