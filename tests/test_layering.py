"""Imports point down only, never in a circle, and each outside library stays in its own corner (docs/layout.md)."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import vtoonify_lib
from vtoonify_lib.config import CODES

PACKAGE = Path(__file__).parents[1] / "vtoonify_lib"
FLOORS = [  # top to bottom: a room imports from floors below its own, and neither from those above nor from beside it
    {"apps", "vtoonify_lib"},  # `vtoonify_lib` stands for the package's own __init__.py
    {"inference", "training"},
    {"styles", "evaluation"},
    {"studio", "weights.published"},
    {"faces"},
    {"weights"},
    {"media", "models"},
    {"config"},
]
MOST_ENTRIES = 12  # files and folders at the top of the package
CORNERS = {  # library → the only rooms that know it
    "cv2": {"faces", "media", "studio", "training"}, "dlib": {"faces", "apps.evaluate_photos"},
    "av": {"media"}, "ipywidgets": {"apps.panels", "apps.notebook_setup"}, "ipyvolume": {"apps.panels"},
    "moderngl": {"studio"}, "matplotlib": {"apps.plotting", "apps.panels"}, "urllib": {"weights.downloads"},
    "pickletools": {"weights.unpickling"},
}
Graph = dict[str, dict[str, int]]  # module → what it imports and in which line; names without `vtoonify_lib.`


def modules(package: Path) -> dict[str, Path]:
    """Every file by its dotted name inside the package; the package's own __init__.py is called as the package."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts) or package.name] = path
    return found


def absolute_imports(path: Path, package: Path) -> list[tuple[int, str]]:
    """(line, absolute dotted name) of all that a file imports, in functions and under TYPE_CHECKING, too."""
    here, found = [package.name, *path.relative_to(package).parts[:-1]], []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            found += [(node.lineno, f"{stem}.{alias.name}") for alias in node.names]
    return found


def import_graph(package: Path) -> Graph:
    """Which file imports which. An import also runs the __init__.py of the folders on the way, unless it is in them."""
    files, graph = modules(package), {}
    for name, path in files.items():
        arrows = graph[name] = {}
        for line, target in absolute_imports(path, package):
            if target.split(".")[0] != package.name:
                continue
            target = target.removeprefix(package.name).removeprefix(".")
            while target:
                folder = files.get(target, path).name == "__init__.py"
                inside = folder and (name == target or name.startswith(f"{target}."))
                if target in files and not inside:
                    arrows.setdefault(target, line)
                target = target.rpartition(".")[0]
    return graph


def circle(graph: Graph) -> list[str] | None:
    """The modules of one circle of imports, in order, or None where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return None


def room(name: str) -> str | None:
    """The entry of FLOORS that a module belongs to: the longest that begins its name."""
    rooms = [r for row in FLOORS for r in row if name == r or name.startswith(f"{r}.")]
    return max(rooms, key=len, default=None)


def wrong_arrows(graph: Graph) -> list[str]:
    """Imports that do not point down, and modules that stand on no floor."""
    floor = {r: number for number, row in enumerate(FLOORS) for r in row}
    wrong = [f"{name} stands on no floor" for name in graph if room(name) is None]
    for name, arrows in graph.items():
        for target, line in arrows.items():
            here, there = room(name), room(target)
            if here != there and None not in (here, there) and floor[there] <= floor[here]:
                wrong.append(f"{name}:{line} imports {target}, which does not lie below it")
    return wrong


def entries(package: Path) -> set[str]:
    """Files and folders at the top of a package."""
    return {path.name for path in package.iterdir() if path.name != "__pycache__"}


def test_there_is_no_circle():
    assert circle(import_graph(PACKAGE)) is None


def test_every_import_points_down():
    assert wrong_arrows(import_graph(PACKAGE)) == []


def test_the_top_of_the_package_is_seen_at_a_glance():
    assert len(entries(PACKAGE)) <= MOST_ENTRIES, sorted(entries(PACKAGE))


def test_each_library_stays_in_its_corner():
    for name, path in modules(PACKAGE).items():
        for line, target in absolute_imports(path, PACKAGE):
            corner = CORNERS.get(target.split(".")[0])
            if corner is not None:
                at_home = any(name == part or name.startswith(f"{part}.") for part in corner)
                assert at_home, f"{path.name}:{line} imports {target}: only {', '.join(sorted(corner))} may know it"


def test_models_never_open_files():
    for name, path in modules(PACKAGE).items():
        if room(name) == "models" and name != "models.devices":  # which asks the system what the processor can do
            calls = [n.func for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
            names = {c.id if isinstance(c, ast.Name) else getattr(c, "attr", "") for c in calls}
            assert not names & {"open", "load", "read_text", "read_bytes", "save"}, path.name


def test_errors_have_the_codes_that_are_documented():
    """Every code that is written down is in CODES, and each of those is used."""
    found = {"value"}  # the default
    for path in modules(PACKAGE).values():
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") in ("VToonifyError", "_Refusal"):
                last = [keyword.value for keyword in call.keywords] or call.args[1:]
                found |= {node.value for node in last if isinstance(node, ast.Constant)}
    assert found == set(CODES)


def test_no_two_classes_have_one_name():
    homes: dict[str, list[str]] = {}
    for module, path in modules(PACKAGE).items():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(module)
    assert not {name: home for name, home in homes.items() if len(home) > 1}


def test_the_package_offers_three_names():
    assert [getattr(vtoonify_lib, name).__name__ for name in vtoonify_lib.__all__] == vtoonify_lib.__all__
    with pytest.raises(AttributeError, match="'vtoonify_lib' has no attribute 'toonify'"):
        vtoonify_lib.toonify  # noqa: B018


# ---------------------------------------------------------------------------------------------- can all this fail?
@pytest.fixture
def small(tmp_path):
    """A package that is in order; `write(name, text)` changes it."""
    package = tmp_path / "vtoonify_lib"

    def write(name: str, text: str) -> Path:
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return package

    write("__init__.py", "from .config import SIZE\n")
    write("config.py", "SIZE = 256\n")
    write("apps/__init__.py", "")
    write("apps/cli.py", "def main():\n    from ..models import layers\n")
    write("models/__init__.py", "")
    write("models/layers.py", "import torch\n\nfrom .. import config\n")
    return write


def test_a_package_in_order_passes(small):
    graph = import_graph(small("models/latents.py", "from ..config import SIZE\nfrom .layers import conv\n"))
    assert graph["models.latents"] == {"config": 1, "models.layers": 2} and graph["apps.cli"] == {
        "models.layers": 2, "models": 2}
    assert circle(graph) is None and wrong_arrows(graph) == []


@pytest.mark.parametrize("text", ["from . import latents\n", "def f():\n    from .latents import mix\n",
                                  "import vtoonify_lib.models.latents\n", "from ..models.latents import mix as m\n",
                                  "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from . import latents\n"])
def test_circles_are_seen_wherever_an_import_stands(small, text):
    small("models/latents.py", "from .layers import conv\n")
    graph = import_graph(small("models/layers.py", text))
    assert set(circle(graph)) == {"models.layers", "models.latents"} and wrong_arrows(graph) == []


def test_a_circle_through_the_init_of_another_folder_is_seen(small):
    small("models/folded/__init__.py", "from .fold import fold\n")
    small("models/folded/fold.py", "from ..layers import conv\n")
    assert circle(import_graph(small("models/vtoonify.py", ""))) is None
    found = circle(import_graph(small("models/layers.py", "from .folded.tiling import tile\n")))
    assert set(found) == {"models.layers", "models.folded", "models.folded.fold"}


@pytest.mark.parametrize("name, text, message", [
    ("models/layers.py", "def f():\n    from ..apps import cli\n", "models.layers:2 imports apps.cli, which does not"),
    ("media/video.py", "from ..models.layers import conv\n", "media.video:1 imports models.layers, which does not lie"),
    ("weights/bundle.py", "from .published import presets\n", "weights.bundle:1 imports weights.published.presets"),
    ("cellar/wine.py", "", "cellar.wine stands on no floor"),
])
def test_arrows_that_do_not_point_down_are_seen(small, name, text, message):
    assert wrong_arrows(import_graph(small("weights/published/presets.py", ""))) == []
    assert wrong_arrows(import_graph(small(name, text)))[0].startswith(message)


def test_a_thirteenth_entry_is_seen(small):
    package = small("__pycache__/cli.pyc", "")
    assert entries(package) == {"__init__.py", "config.py", "apps", "models"}
    for number in range(MOST_ENTRIES - 3):
        small(f"more_{number}.py", "")
    assert len(entries(package)) == MOST_ENTRIES + 1
