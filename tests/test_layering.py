"""Imports point down only, and each outside library stays in its own corner (see vtoonify_lib/__init__.py)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "vtoonify_lib"
FACES = {"faces", "framing", "tracking", "people", "clips", "overlap", "planning", "preprocessing", "landmarks",
         "searching"}  # one job
LAYERS = [  # top to bottom; a module may import from lower rows, and from its own row
    {"cli", "listing", "panels", "notebook", "bench", "batch"},
    {"plotting"},
    {"pipeline", "animation", "drawing", "portraits", "quality", "preview", "demo", "networks", "look", "recipe",
     "styles", "training", "metrics"},
    {"published"},
    FACES - {"framing"},
    {"synthesis", "blending", "losses", "checkpoints", "fast"},
    {"models", "framing", "images", "parsing", "video", "studio", "unpickling", "downloads"},
    {"flow"},
    {"ops", "devices"},
    {"latents"},
    {"config"},
]
CORNERS = {  # library → the only parts that know it
    "cv2": FACES | {"parsing", "flow", "video", "studio", "training"}, "dlib": FACES, "av": {"video"},
    "ipywidgets": {"panels", "notebook"}, "ipyvolume": {"panels"}, "moderngl": {"studio"},
    "matplotlib": {"plotting", "panels"}, "urllib": {"downloads"}, "pickletools": {"unpickling"},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def part(path: Path) -> str:
    """'models' for models/stylegan2.py, 'ops' for ops.py."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def rank(name: str) -> int:
    return next((i for i, row in enumerate(LAYERS) if name in row), -1)


def imports(path: Path) -> list[tuple[int, str]]:
    """(line, absolute dotted name) of everything a file imports, wherever in the file."""
    package = ["vtoonify_lib", *path.relative_to(PACKAGE).parts[:-1]]
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            found += [(node.lineno, f"{stem}.{alias.name}") for alias in node.names]
    return found


def test_every_part_has_a_place():
    parts = {part(f) for f in FILES} - {"__init__", "__main__"}
    assert parts <= set().union(*LAYERS), f"add {parts - set().union(*LAYERS)} to LAYERS"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path):
    here = part(path)
    for line, name in imports(path):
        library, *rest = name.split(".")
        where = f"{path.name}:{line} imports {name}"
        if library == "vtoonify_lib" and rest and rank(rest[0]) >= 0 and here not in ("__init__", "__main__"):
            assert rank(rest[0]) >= rank(here), f"{where}: {rest[0]} lies above {here}"
        elif library in CORNERS:
            assert here in CORNERS[library], f"{where}: only {', '.join(sorted(CORNERS[library]))} may know {library}"


def test_models_never_open_files():
    for path in FILES:
        if part(path) == "models":
            calls = [n.func for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
            names = {c.id if isinstance(c, ast.Name) else getattr(c, "attr", "") for c in calls}
            assert not names & {"open", "load", "read_text", "read_bytes", "save"}, path.name


def test_the_checker_sees_a_wrong_import(tmp_path, monkeypatch):
    (tmp_path / "ops.py").write_text("def f():\n    from .models import stylegan2\n    from . import config\n")
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    with pytest.raises(AssertionError, match="models lies above ops"):
        test_imports_point_down(tmp_path / "ops.py")
