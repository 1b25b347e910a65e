"""Error messages advise modules and functions that exist, and calls that these accept."""

from __future__ import annotations

import ast
import inspect
import re
from importlib import import_module
from pathlib import Path

import vtoonify_lib

PACKAGE = Path(vtoonify_lib.__file__).parent
ROOMS = "apps|evaluation|faces|inference|media|models|studio|styles|training|weights"
ADVICE = re.compile(rf"\b((?:{ROOMS})(?:\.[A-Za-z_]\w*)+)(\([^()]*\))?")


def messages(text: str) -> list[str]:
    """The fixed parts of all messages of VToonifyError in a module."""
    calls = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Call) and
             getattr(n.func, "id", "") == "VToonifyError"]
    return ["".join(part.value for arg in call.args for part in ast.walk(arg)
                    if isinstance(part, ast.Constant) and isinstance(part.value, str)) for call in calls]


def found(name: str) -> object:
    """A module of the package, or a name in one, from its dotted name without `vtoonify_lib.`; else AttributeError."""
    value: object = vtoonify_lib
    for part in name.split("."):
        if inspect.ismodule(value) and not hasattr(value, part):
            try:
                import_module(f"{value.__name__}.{part}")
            except ModuleNotFoundError as error:
                raise AttributeError(name) from error
        value = getattr(value, part)
    return value


def advice() -> list[tuple[str, str | None]]:
    return [match for path in sorted(PACKAGE.rglob("*.py")) for message in messages(path.read_text())
            for match in ADVICE.findall(message)]


def test_what_messages_name_exists_and_takes_the_arguments():
    given = advice()
    assert ("faces.crop.plan_crop", "(frame.shape, landmarks, in_size)") in given and len(given) >= 8
    for name, call in given:
        value = found(name)
        if call:
            inspect.signature(value).bind(*call[1:-1].split(", "))


def test_advice_that_does_not_exist_is_seen():
    assert messages('raise VToonifyError(f"got {x}; use faces" ".align(frame)")') == ["got ; use faces.align(frame)"]
    (name, call), = ADVICE.findall("use faces.align(frame)")
    try:
        found(name)
    except AttributeError:
        return
    raise AssertionError(f"{name}{call} does not exist and was found")
