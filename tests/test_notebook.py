"""Set-up, mode, file button and stamp of the notebooks, here and as if on Colab."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from media_files import make_clip, sound_times

from vtoonify_lib.apps import notebook_setup
from vtoonify_lib.config import VToonifyError
from vtoonify_lib.media.video import probe, read_frames


# ---------------------------------------------------------------------------------------------- set-up
@pytest.fixture
def commands(monkeypatch) -> list[list[str]]:
    """The commands that would have been run."""
    ran: list[list[str]] = []

    def run(command, **_):
        ran.append(command)
        return SimpleNamespace(returncode=0, stderr="", stdout="")

    monkeypatch.setattr(subprocess, "run", run)
    return ran


def test_here_setup_installs_nothing(commands, capsys, monkeypatch):
    monkeypatch.delenv(notebook_setup.MODE_VARIABLE, raising=False)
    notebook_setup.setup()
    assert not commands
    said = capsys.readouterr().out
    assert re.match(r"Ready: Python 3\.\d+\.\d+ on this machine, .*\d+ processor cores.*, full mode\n$", said)


def test_here_setup_says_what_is_missing(commands, monkeypatch):
    monkeypatch.setattr(notebook_setup, "_requirements", lambda extras: ["numpy>=1.0", "no-such-library>=2"])
    with pytest.raises(VToonifyError, match=r"lacks no-such-library>=2; start Jupyter with `make lab`"):
        notebook_setup.setup()
    assert not commands


def test_on_colab_only_what_is_missing_is_added_and_its_libraries_stay(commands, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "google.colab", SimpleNamespace())
    present = ("matplotlib", "tqdm", "pillow")
    monkeypatch.setattr(notebook_setup, "_satisfied", lambda text: notebook_setup._name(text) in present)
    notebook_setup.setup()
    added, package = commands
    assert all("--no-deps" in command for command in commands)
    assert [notebook_setup._name(text) for text in added if re.match(r"[a-z]+.*>=", text)] == ["av", "safetensors"]
    assert package[-2:] == ["-e", str(notebook_setup.ROOT)]
    words = " ".join(" ".join(command[1:]) for command in commands).replace(str(notebook_setup.ROOT), "")
    assert not re.search(r"torch|numpy|ipywidgets|opencv|dlib", words)
    assert "on Google Colab" in capsys.readouterr().out


def test_on_colab_a_failed_install_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", SimpleNamespace())
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=1, stderr="x\nno network\n"))
    with pytest.raises(VToonifyError, match="failed: no network"):
        notebook_setup.setup()


def test_versions_are_compared():
    assert notebook_setup._satisfied("numpy>=1.0") and notebook_setup._satisfied("opencv-python-headless>=4.10")
    assert not notebook_setup._satisfied("numpy>=99") and not notebook_setup._satisfied("no-such-library")


# ---------------------------------------------------------------------------------------------- mode
@pytest.mark.parametrize(("value", "expected"), [(None, 3), ("", 3), ("full", 3), ("fast", 1)])
def test_pick_follows_the_mode(monkeypatch, value, expected):
    monkeypatch.delenv(notebook_setup.MODE_VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(notebook_setup.MODE_VARIABLE, value)
    assert notebook_setup.pick(full=3, fast=1) == expected


def test_an_unknown_mode_is_said(monkeypatch):
    monkeypatch.setenv(notebook_setup.MODE_VARIABLE, "quick")
    with pytest.raises(VToonifyError, match="'quick'; expected full or fast"):
        notebook_setup.pick(full=1, fast=2)


def test_excerpt_keeps_the_beginning_and_the_sound(tmp_path):
    clip = make_clip(tmp_path / "clip.mp4", frames=20)
    short = notebook_setup.excerpt(clip, tmp_path / "short.mp4", seconds=0.2)
    assert len(list(read_frames(short))) == 5 and probe(short).has_audio
    assert 0.1 < sound_times(short)[-1] <= 0.2  # and no more of it than of the picture
    assert len(list(read_frames(notebook_setup.excerpt(clip, tmp_path / "one.mp4", seconds=0)))) == 1
    assert notebook_setup.excerpt(clip, tmp_path / "unused.mp4") == clip and not (tmp_path / "unused.mp4").exists()


def test_the_folder_for_results_is_in_the_drive_only_when_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert notebook_setup.out_folder() == notebook_setup.out_folder("out", drive=True) == Path("out")
    assert Path("out").is_dir()
    mounted, made = [], []
    colab = SimpleNamespace(drive=SimpleNamespace(mount=mounted.append))
    monkeypatch.setitem(sys.modules, "google", SimpleNamespace(colab=colab))
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    monkeypatch.setattr(Path, "mkdir", lambda self, **_: made.append(self))
    assert notebook_setup.out_folder() == Path("out") and not mounted
    assert notebook_setup.out_folder("mine", drive=True) == Path("/content/drive/MyDrive/mine")
    assert mounted == ["/content/drive"] and made[-1] == Path("/content/drive/MyDrive/mine")


def test_a_result_is_offered(tmp_path, monkeypatch):
    import IPython.display

    shown, sent = [], []
    monkeypatch.setattr(IPython.display, "display", shown.append)
    path = tmp_path / "mine.mp4"
    path.touch()
    notebook_setup.offer(path)
    assert isinstance(shown[0], IPython.display.FileLink) and shown[0].path == str(path)
    colab = SimpleNamespace(files=SimpleNamespace(download=sent.append))
    monkeypatch.setitem(sys.modules, "google", SimpleNamespace(colab=colab))
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    notebook_setup.offer(path)
    assert sent == [str(path)] and len(shown) == 1


# ---------------------------------------------------------------------------------------------- your own file
SEVEN = {"me.jpg": {"metadata": {"name": "me.jpg", "type": "image/jpeg", "size": 3}, "content": b"abc"}}
EIGHT = ({"name": "me.jpg", "type": "image/jpeg", "size": 3, "content": memoryview(b"abc"), "last_modified": None},)


@pytest.mark.parametrize("value", [SEVEN, EIGHT], ids=["ipywidgets 7", "ipywidgets 8"])
def test_a_picked_file_becomes_a_file_here(value):
    path = notebook_setup.Picker(SimpleNamespace(value=value)).path
    assert path.name == "me.jpg" and path.read_bytes() == b"abc"


@pytest.mark.parametrize("value", [{}, (), []])
def test_nothing_picked_is_none(value):
    assert notebook_setup.Picker(SimpleNamespace(value=value)).path is None


@pytest.mark.parametrize(("name", "safe"), [("../../etc/passwd", "passwd"), ("C:\\Users\\me\\a b.mp4", "a b.mp4"),
                                            ("..", "file"), ("", "file")])
def test_a_file_name_cannot_leave_its_folder(name, safe):
    assert notebook_setup.uploaded(({"name": name, "content": b""},))[0] == safe
    assert notebook_setup.uploaded({name: {"metadata": {}, "content": b""}})[0] == safe


def test_upload_shows_a_button_and_goes_on(monkeypatch):
    ipywidgets = pytest.importorskip("ipywidgets")
    import IPython.display

    shown = []
    monkeypatch.setattr(IPython.display, "display", shown.append)
    picker = notebook_setup.upload()
    assert shown == [picker.widget] and isinstance(picker.widget, ipywidgets.FileUpload)
    assert picker.path is None and not picker.widget.multiple


def test_without_ipywidgets_there_is_a_sentence(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert notebook_setup.upload().path is None
    assert "ipywidgets is not installed" in capsys.readouterr().out


# ---------------------------------------------------------------------------------------------- stamp
def test_stamp_names_mode_bundle_and_commit(monkeypatch, capsys, tiny_bundle):
    monkeypatch.setenv(notebook_setup.MODE_VARIABLE, "fast")
    notebook_setup.stamp(tiny_bundle)
    sha = tiny_bundle.info["files"]["vtoonify"]["sha256"]
    pattern = r"stamp: fast mode · bundle tiny ([0-9a-f]{12}) · commit ([0-9a-f]{7,}\+?|unknown) · Python 3"
    assert re.match(pattern, capsys.readouterr().out).group(1) == sha[:12]
    notebook_setup.stamp(tiny_bundle.folder)
    assert " bundle tiny " in capsys.readouterr().out


def test_outside_of_git_the_commit_is_unknown(monkeypatch, tmp_path):
    monkeypatch.setattr(notebook_setup, "ROOT", Path(tmp_path))
    assert notebook_setup.commit() == "unknown"


# ---------------------------------------------------------------------------------------------- saved outputs
def test_run_saves_outputs_but_no_widgets(tmp_path):
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    cells = ["print(6 * 7)", "from ipywidgets import FileUpload\nFileUpload()",
             "from pathlib import Path\nPath('here.txt').resolve()"]
    path = tmp_path / "a.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells]), path)
    notebook_setup.run(path)
    first, second, third = nbformat.read(path, as_version=4).cells
    assert first.outputs[0].text == "42\n" and first.execution_count == 1
    assert not second.outputs and "execution" not in second.metadata
    assert third.outputs[0].data["text/plain"] == "PosixPath('here.txt')"
