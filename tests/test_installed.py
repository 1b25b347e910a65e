"""What a wheel holds: installed somewhere else, with the repository out of sight, it finds what it needs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytest.importorskip("setuptools", minversion="77")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Folder of an installation of this repository's wheel, without its dependencies."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("vtoonify_lib", "data"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps",
           "--no-build-isolation", "--target"]
    done = subprocess.run([*pip, folder, source], capture_output=True, text=True, check=False)
    if "No module named pip" in done.stderr:
        pytest.skip("there is no pip here")
    assert not done.returncode, done.stderr
    return folder


def test_an_installed_copy_finds_its_data(installed, tmp_path):
    code = ("import vtoonify_lib, sys; from vtoonify_lib.weights.bundle import list_bundles;"
            "from vtoonify_lib.inference.toonifier import SAMPLE, Toonifier;"
            "from vtoonify_lib.styles.table import PICTURES;"
            "assert vtoonify_lib.__file__.startswith(sys.argv[1]), vtoonify_lib.__file__;"
            "assert SAMPLE.is_file() and (PICTURES / 'photographs' / 'comic').is_dir();"
            "print(*(bundle.name for bundle in list_bundles()));"
            "print(Toonifier.load(device='cpu').image(SAMPLE.with_name('portrait_1.jpg')).shape)")
    done = subprocess.run([sys.executable, "-c", code, str(installed)], capture_output=True, text=True, check=True,
                          cwd=tmp_path, env={"PYTHONPATH": str(installed), "PATH": "", "HOME": str(tmp_path)})
    bundles, shape = done.stdout.splitlines()
    assert {"film", "looks", "studio-t", "studio-d"} <= set(bundles.split()) and shape.endswith(" 3)")
