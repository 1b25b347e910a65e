"""Every notebook: runs in fast mode, and what is committed is short, small, stamped and free of errors.

Running one takes a Jupyter kernel (nbclient, ipykernel) and the bundle and samples that come with the repository;
without them that part is skipped and says why. Committed outputs come from a full run by `notebook_setup.run`.
"""

from __future__ import annotations

import ast
import os
import re
from functools import cache
from pathlib import Path

import pytest

from vtoonify_lib.apps.notebook_setup import MODE_VARIABLE
from vtoonify_lib.config import VToonifyError
from vtoonify_lib.inference.toonifier import DEFAULT_BUNDLE, SAMPLE
from vtoonify_lib.weights.bundle import load_bundle, models_folders

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CELL_SECONDS = 240
MOST_LINES, HARD_LIMIT = 15, 25  # of a code cell; the few longer ones must have a reason
MOST_BYTES = 1_000_000
STAMP = re.compile(r"^stamp: (\w+) mode · bundle (\S+) ([0-9a-f]{12}) · commit ([0-9a-f]{7,}\+?|unknown) · ", re.M)
EMBEDDED = "](data:image/jpeg;base64,"  # GitHub, Colab, VS Code and Jupyter all show it; not so attachments and files

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed: pip install -e '.[test]'")
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@cache
def read(path: Path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(notebook) -> str:
    return "".join(out.get("text", "") for cell in code_cells(notebook) for out in cell.outputs)


def python(cell) -> ast.Module:
    """The cell's syntax tree; shell lines (!, %) count as `pass`."""
    return ast.parse(re.sub(r"^(\s*)[!%].*$", r"\1pass", cell.source, flags=re.M))


def calls(cell, name: str) -> bool:
    return any(isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == name
               for node in ast.walk(python(cell)))


def has_outputs(notebook) -> bool:
    return any(cell.outputs for cell in code_cells(notebook))


def test_there_are_notebooks():
    assert [path.stem for path in NOTEBOOKS][:1] == ["00_start_here"]


# ---------------------------------------------------------------------------------------------- running
@each
@pytest.mark.timeout(900)
def test_runs_in_fast_mode(path, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed: pip install -e '.[test]'")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed: pip install -e '.[test]'")
    _skip_without_weights()
    monkeypatch.setenv(MODE_VARIABLE, "fast")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(path, as_version=4)
    if "studio" in code_cells(notebook)[0].source.rsplit("setup(", 1)[1]:
        _skip_without_renderer()
    client = nbclient.NotebookClient(notebook, timeout=CELL_SECONDS, kernel_name="python3",
                                     resources={"metadata": {"path": str(tmp_path)}})  # any folder must do
    client.execute()
    assert STAMP.search(printed(notebook)).group(1) == "fast"
    assert any("image/jpeg" in out.get("data", {}) for cell in code_cells(notebook) for out in cell.outputs)


def _skip_without_weights() -> None:
    if not any((folder / DEFAULT_BUNDLE / "bundle.json").is_file() for folder in models_folders()):
        pytest.skip(f"the bundle {DEFAULT_BUNDLE} is not in data/models; `make train-default` makes it")
    if not SAMPLE.is_file():
        pytest.skip(f"the sample clip {SAMPLE.relative_to(ROOT)} is missing")


def _skip_without_renderer() -> None:
    from vtoonify_lib.studio.render import Studio

    try:
        Studio(size=32)
    except VToonifyError as error:
        pytest.skip(str(error))


# ---------------------------------------------------------------------------------------------- as committed
@each
def test_cells_are_short(path):
    lines = {cell.id: len(cell.source.strip().splitlines()) for cell in code_cells(read(path))}
    assert max(lines.values()) <= HARD_LIMIT
    long = [number for number in lines.values() if number > MOST_LINES]
    assert len(long) <= len(lines) // 10, f"cells of {long} lines; one idea takes at most {MOST_LINES}"


@each
def test_begins_with_a_question_and_a_picture_and_ends_with_prose(path):
    cells = read(path).cells
    title = cells[0].source.splitlines()[0]
    assert cells[0].cell_type == cells[-1].cell_type == "markdown"
    assert title.startswith("# ") and "?" in title
    opening = "\n".join(cell.source for cell in cells[:3])
    assert EMBEDDED in opening and "GPU" in opening
    assert re.search(r"what fails", cells[-1].source, re.I)


@each
def test_set_up_and_settings_are_where_they_belong(path):
    cells = code_cells(read(path))
    assert calls(cells[0], "setup") and "google.colab" in cells[0].source
    assert len([cell for cell in cells if calls(cell, "pick")]) == 1, "only the Settings cell calls pick"
    assert not any(MODE_VARIABLE in cell.source or re.search(r"\bmode\(\)", cell.source) for cell in cells)
    assert calls(cells[-1], "stamp")


@each
def test_is_small_and_names_no_private_place(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) <= MOST_BYTES
    assert not re.search(r"/work/|/home/|/root/|/opt/", text)


@each
def test_outputs_are_those_of_a_full_run_without_errors(path):
    """To make them anew: python -m vtoonify_lib.apps.notebook_setup notebooks/NAME.ipynb"""
    notebook = read(path)
    if not has_outputs(notebook):
        pytest.skip(f"{path.name} is committed without outputs")
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "run all cells, in order, once"
    outputs = [out for cell in cells for out in cell.outputs]
    assert not [out for out in outputs if out.output_type == "error" or out.get("name") == "stderr"]
    kinds = {kind for out in outputs for kind in out.get("data", {})}
    assert "image/jpeg" in kinds and "image/png" not in kinds, "pictures are shown as JPEG: use apps.plotting"
    assert "application/vnd.jupyter.widget-view+json" not in kinds, "a saved widget is an error message elsewhere"
    assert STAMP.search(printed(notebook)), "the last code cell prints a stamp"


@each
def test_outputs_are_those_of_the_shipped_bundle(path):
    notebook = read(path)
    found = STAMP.search(printed(notebook))
    folder = ROOT / "data" / "models"
    if not found:
        pytest.skip(f"{path.name} is committed without outputs")
    mode, name, sha, *_ = found.groups()
    assert mode == "full"
    try:
        bundle = load_bundle(folder / name)
    except VToonifyError as error:
        pytest.skip(f"the bundle {name} is not in data/models ({error})")
    assert sha == bundle.version("vtoonify")[:12], f"{path.name} shows another {name}: run it again, see above"
