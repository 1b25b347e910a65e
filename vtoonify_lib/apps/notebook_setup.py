"""What every notebook begins and ends with: set-up on Colab or here, full or fast mode, your own file, a stamp.

Colab's kernel is already running when a notebook starts, with libraries that fit each other and its GPU. Those are
left alone: only what is missing is added, without its dependencies. Pictures and players are in `plotting`.

`python -m vtoonify_lib.apps.notebook_setup notebooks/NAME.ipynb …` runs notebooks and saves them with their outputs.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import closing
from ctypes.util import find_library
from importlib import metadata
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

from ..config import VToonifyError

ROOT = Path(__file__).resolve().parents[2]
MODE_VARIABLE = "VTOONIFY_NOTEBOOK"  # environment variable: full or fast
MODES = ("full", "fast")
LEFT_ALONE = frozenset({"torch", "numpy", "ipywidgets", "opencv-python", "opencv-python-headless", "dlib", "dlib-bin",
                        "ipyvolume", "ipywebrtc"})
"""Never installed on Colab: it brings them, in versions that fit its GPU, its front end and each other, or it cannot
show them."""

WIDGET = "application/vnd.jupyter.widget-view+json"  # kind of an output that only a running kernel can draw

Choice = TypeVar("Choice")


# ---------------------------------------------------------------------------------------------- set-up
def on_colab() -> bool:
    """True inside a Google Colab notebook."""
    return "google.colab" in sys.modules


def setup(*extras: str) -> None:
    """Make the library usable in this kernel: on Colab install it and what it lacks, elsewhere check that all is there.

    extras  groups of pyproject.toml that the notebook needs besides: "studio", "panels"
    Raises VToonifyError that says what is missing and what to do.
    """
    begin, missing = perf_counter(), [text for text in _requirements(extras) if not _satisfied(text)]
    if on_colab():
        wanted = [text for text in missing if _name(text) not in LEFT_ALONE]
        if wanted:
            _pip(wanted)
        if "studio" in extras and find_library("EGL") is None:  # on Colab's machines without a GPU
            _run(["apt-get", "install", "--quiet", "--yes", "libegl1", "libgl1-mesa-dri"])
        _pip(["-e", str(ROOT)])  # brings the command line; this kernel finds the package by its path
    elif missing:
        raise VToonifyError(f"this notebook's Python ({sys.executable}) lacks {', '.join(missing)}; start Jupyter with "
                            "`make lab`, which has everything")
    where = "Google Colab" if on_colab() else "this machine"
    print(f"Ready: Python {platform.python_version()} on {where}, {_computer()}, {mode()} mode"
          + (f", after {perf_counter() - begin:.0f} s" if on_colab() else ""))


def _computer() -> str:
    """What computes here."""
    import torch

    cores = f"{os.cpu_count()} processor cores"
    return f"{torch.cuda.get_device_name()} and {cores}" if torch.cuda.is_available() else f"{cores}, no GPU"


def _requirements(extras: Sequence[str] = ()) -> list[str]:
    """What pyproject.toml asks for, and for the extras."""
    with open(ROOT / "pyproject.toml", "rb") as file:
        project = tomllib.load(file)["project"]
    return [*project["dependencies"], *(text for name in extras for text in project["optional-dependencies"][name])]


def _name(requirement: str) -> str:
    from packaging.requirements import Requirement

    return Requirement(requirement).name.lower()


def _satisfied(requirement: str) -> bool:
    from packaging.requirements import Requirement

    wanted = Requirement(requirement)
    try:
        return wanted.specifier.contains(metadata.version(wanted.name), prereleases=True)
    except metadata.PackageNotFoundError:
        # conda and Colab know OpenCV under other names
        return wanted.name.startswith("opencv") and importlib.util.find_spec("cv2") is not None


def _pip(arguments: Sequence[str]) -> None:
    """Install without dependencies, so that nothing that is there already is replaced."""
    _run([sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps", *arguments])
    importlib.invalidate_caches()


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        why = (done.stderr.strip() or "no reason was given").splitlines()[-1]
        raise VToonifyError(f"`{' '.join(command)}` failed: {why}")


# ---------------------------------------------------------------------------------------------- mode
def mode() -> str:
    """"full", or what the environment variable VTOONIFY_NOTEBOOK says: "fast" is for tests and a quick look."""
    name = os.environ.get(MODE_VARIABLE) or MODES[0]
    if name not in MODES:
        raise VToonifyError(f"{MODE_VARIABLE} is {name!r}; expected {' or '.join(MODES)}")
    return name


def pick(*, full: Choice, fast: Choice) -> Choice:
    """The value for the current mode. Only a notebook's Settings cell calls this."""
    return full if mode() == "full" else fast


def out_folder(name: str = "out", drive: bool = False) -> Path:
    """The folder for what a notebook writes, made if it is not there: beside it, or in your Google Drive.

    drive  on Colab, asks for your Drive and uses its folder `name`, which stays when the machine is taken away
    """
    folder = Path(name)
    if drive and on_colab():
        from google.colab import drive as google_drive

        google_drive.mount("/content/drive")
        folder = Path("/content/drive/MyDrive") / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def offer(path: str | Path) -> None:
    """Bring a file to the reader: Colab's browser downloads it, elsewhere a link is shown."""
    if on_colab():
        from google.colab import files

        files.download(str(path))
        return
    from IPython.display import FileLink, display

    display(FileLink(path))


def excerpt(src: str | Path, dst: str | Path, seconds: float | None = None) -> Path:
    """The first `seconds` of a clip, with its sound, written to `dst`; without `seconds`, `src` itself."""
    from ..media.video import VideoWriter, read_frames

    if seconds is None:
        return Path(src)
    with VideoWriter(dst, source=src, until=seconds) as writer, closing(read_frames(src)) as frames:
        for frame in frames:
            if writer.frames and float(frame.pts) >= seconds:
                break
            writer.write(*frame)
    return Path(dst)


# ---------------------------------------------------------------------------------------------- your own file
class Picker:
    """A button that takes one file from the reader's computer; see `upload`."""

    def __init__(self, widget: Any = None) -> None:
        self.widget = widget
        self._folder: Path | None = None  # outlives the picker: a path that was handed out stays good

    @property
    def path(self) -> Path | None:
        """The file that was picked last, as a file on this machine; None before anything was picked."""
        picked = uploaded(self.widget.value) if self.widget is not None else None
        if picked is None:
            return None
        name, content = picked
        self._folder = self._folder or Path(tempfile.mkdtemp(prefix="vtoonify-"))
        path = self._folder / name
        path.write_bytes(content)
        return path


def upload(accept: str = "image/*,video/*") -> Picker:
    """Show a file button and go on at once; read `.path` in a later cell. Without ipywidgets, a sentence instead."""
    try:
        from ipywidgets import FileUpload
    except ImportError:
        print("ipywidgets is not installed, so there is no file button; name a file in the Settings cell instead")
        return Picker()
    from IPython.display import display

    picker = Picker(FileUpload(accept=accept, multiple=False, description="Pick a file"))
    display(picker.widget)
    return picker


def uploaded(value: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> tuple[str, bytes] | None:
    """(file name, content) of a FileUpload's value, None when it is empty.

    ipywidgets 7 (Colab) has {name: {"metadata": {"name": …}, "content": bytes}},
    ipywidgets 8 ({"name": …, "content": memoryview},).
    """
    if isinstance(value, Mapping):
        entries = [{"name": name, **entry} for name, entry in value.items()]
    else:
        entries = list(value)
    if not entries:
        return None
    name = str(entries[-1]["name"]).replace("\\", "/").rsplit("/", 1)[-1]  # never a path of the browser's choosing
    return name if name.strip(".") else "file", bytes(entries[-1]["content"])


# ---------------------------------------------------------------------------------------------- stamp
def stamp(bundle: Any = None) -> None:
    """Print what these outputs were made with: mode, bundle (name, start of its sha256), commit, versions.

    bundle: a `Bundle`, a name or a path; default the bundle that `Toonifier.load()` takes.
    """
    import torch

    from ..weights.bundle import DEFAULT_BUNDLE, Bundle, load_bundle

    bundle = bundle if isinstance(bundle, Bundle) else load_bundle(bundle or DEFAULT_BUNDLE)
    print(f"stamp: {mode()} mode · bundle {bundle.name} {bundle.version('vtoonify')[:12]} · commit {commit()} · "
          f"Python {platform.python_version()}, torch {torch.__version__}")


def commit() -> str:
    """Short name of the checked-out commit, with a + when library or data differ from it; "unknown" outside of git."""
    try:
        def git(*arguments: str) -> str:
            return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True,
                                  timeout=30).stdout.strip()

        return git("rev-parse", "--short=7", "HEAD") + "+" * bool(git("status", "--porcelain", "vtoonify_lib", "data"))
    except (OSError, subprocess.SubprocessError):
        return "unknown"


# ---------------------------------------------------------------------------------------------- saved outputs
def run(path: str | Path) -> None:
    """Run all cells of a notebook in order and save it with its outputs, less the widgets, which need a live kernel,
    and less the place of its folder on this machine.

    Nothing is saved when a cell fails. The cells' kernel is this Python; the mode is that of the environment.
    """
    import nbformat
    from nbclient import NotebookClient

    path = Path(path)
    content = nbformat.read(path, as_version=4)
    NotebookClient(content, timeout=None, kernel_name="python3", store_widget_state=False,
                   resources={"metadata": {"path": str(path.parent)}}).execute()
    for cell in content.cells:
        cell.metadata.pop("execution", None)  # times of day: a difference in every commit
        if cell.cell_type == "code":
            cell.outputs = [out for out in cell.outputs if WIDGET not in out.get("data", {})]
        for out in cell.get("outputs", []):
            if "text/plain" in out.get("data", {}):
                out.data["text/plain"] = out.data["text/plain"].replace(f"{path.resolve().parent}/", "")
    nbformat.write(content, path)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        run(name)
