"""Published styles: the licence is asked for, presets are removed, and what the command line says."""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from people import photograph, scene, write_clip

from vtoonify_lib.apps import cli
from vtoonify_lib.config import VToonifyError
from vtoonify_lib.inference.toonifier import Toonifier
from vtoonify_lib.media.images import write_image
from vtoonify_lib.media.video import probe
from vtoonify_lib.weights import published
from vtoonify_lib.weights.published import PRESETS

pytestmark = pytest.mark.usefixtures("cache")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "accepted"), [("y\n", True), (" YES \n", True), ("n\n", False), ("\n", False),
                                                  ("", False), ("why?\n", False)])
def test_a_terminal_is_asked(monkeypatch, capsys, answer, accepted):
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    assert published.ask_user("NOTICE") is accepted
    out, err = capsys.readouterr()
    assert err == "NOTICE\nDo you accept this licence? [y/N] " and not out


@pytest.mark.parametrize("stdin", [None, io.StringIO("y\n")])
def test_where_nobody_sits_the_answer_is_no(monkeypatch, capsys, stdin):
    monkeypatch.setattr(sys, "stdin", stdin)
    assert published.ask_user("NOTICE") is False and capsys.readouterr() == ("", "")


def test_a_notebook_is_asked_with_input(files, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=1)))
    questions = []
    monkeypatch.setattr("builtins.input", lambda question: questions.append(question) or "y")
    Toonifier.load("pixar-t", "cpu", source=files, progress=False)
    assert questions == ["Do you accept this licence? [y/N] "] and "non-commercial use only" in capsys.readouterr().out

    def nobody(question):
        raise RuntimeError("raw_input was called, but this frontend does not support input requests.")

    monkeypatch.setattr("builtins.input", nobody)
    assert published.ask_user("NOTICE") is False


@pytest.fixture
def downloaded(files, cache) -> Path:
    """pixar-d and pixar-t, converted from files that lie in the cache as if they had been downloaded."""
    for name in ("pixar-d", "pixar-t"):
        for path in PRESETS[name].sources.values():
            (cache / "files" / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(files / path, cache / "files" / path)
        published.obtain(name, accept_licence=True, tell=lambda line: None, progress=False)
    return cache


def used_bytes(folder: Path) -> int:
    """Of all files below, those with several names counted once."""
    return sum({f.stat().st_ino: f.stat().st_size for f in folder.rglob("*") if f.is_file()}.values())


def test_removing_a_preset_leaves_what_others_need(downloaded):
    (downloaded / "bundles" / "pixar-d" / "mine.txt").write_text("mine")
    part = downloaded / "files" / f"{PRESETS['pixar-d'].sources['vtoonify']}.0a1b2c3d.part"
    part.write_bytes(b"half of it")
    before = used_bytes(downloaded)
    assert published.remove("pixar-d") == before - used_bytes(downloaded) > 0
    assert [f.name for f in (downloaded / "bundles" / "pixar-d").iterdir()] == ["mine.txt"] and not part.exists()
    left = {str(f.relative_to(downloaded / "files")) for f in (downloaded / "files").rglob("*.*")}
    assert left == set(PRESETS["pixar-t"].sources.values())
    assert Toonifier.load("pixar-t", "cpu").image(photograph()).size > 0
    before = used_bytes(downloaded)
    assert published.remove("pixar-t") == before - used_bytes(downloaded)
    assert not list((downloaded / "files").rglob("*.*")) and published.has_consent()
    assert (downloaded / "pins.json").is_file()  # a file that is fetched again must still be the one first seen
    with pytest.raises(VToonifyError, match="there is nothing of pixar-t in .*; `vtoonify models` shows what is there"):
        published.remove("pixar-t")


def test_downloads_are_needed_no_more(downloaded):
    before = used_bytes(downloaded)
    assert published.clear_downloads() == before - used_bytes(downloaded) > 0
    assert not list((downloaded / "files").rglob("*.*")) and published.clear_downloads() == 0
    assert Toonifier.load("pixar-d", "cpu").bundle.problem() is None


def test_a_users_own_files_stay_when_a_preset_is_removed(files, cache):
    published.obtain("pixar-t", files, accept_licence=True, tell=lambda line: None, progress=False)
    before = used_bytes(files)
    published.remove("pixar-t")
    assert used_bytes(files) == before and not (cache / "bundles" / "pixar-t").exists()


# ---------------------------------------------------------------------------------------------- command line
def run(capsys, *arguments) -> tuple[int, str, str]:
    code = cli.main([str(a) for a in arguments])
    return code, *capsys.readouterr()


def test_command_line_from_an_empty_cache(files, cache, tmp_path, capsys):
    """As a new user: a picture, then a clip with wishes, then what is there, then away with it."""
    src, end = write_image(tmp_path / "a.png", scene()), ("--bundle", "pixar-d", "--device", "cpu")
    code, out, err = run(capsys, "image", src, tmp_path / "b.png", *end, "--from", files)
    assert code == 2 and err.count("\n") == 1 and "was not accepted" in err and "--accept-licence" in err and not out
    code, out, err = run(capsys, "image", src, tmp_path / "b.png", *end, "--from", files, "--accept-licence")
    assert code == 0 and "b.png: " in out and out.count("\n") == 1
    assert "S-Lab License 1.0" in err and err.count("sha256") == 5
    clip = write_clip(tmp_path / "a.mp4", [scene()] * 3)
    wishes = ("--style", 4, "--structure", "0.25", "--color", "0", "--padding", "20")
    code, out, err = run(capsys, "video", clip, tmp_path / "b.mp4", *end, *wishes)
    assert code == 0 and "3 frames" in out and "sha256" not in err and probe(tmp_path / "b.mp4").frame_count == 3
    code, out, _ = run(capsys, "models")
    lines = {line.split()[0]: line for line in out.splitlines() if line}
    assert all(word in lines["pixar-d"] for word in (" pixar ", "style 52 of 0–121", "non-commercial", "ready, "))
    assert lines["cartoon1"].endswith("non-commercial  -") and "CC0-1.0" in lines["studio-t"]
    assert set(PRESETS) <= lines.keys() and out.count("pixar-d ") == 1  # not among our bundles too
    assert "--from" in out and str(cache) in out
    code, out, _ = run(capsys, "models", "--remove", "pixar-d")
    assert code == 0 and out.startswith("pixar-d removed, ") and not (cache / "bundles" / "pixar-d").exists()
    code, out, err = run(capsys, "models", "--remove", "pixar-d")
    assert code == 2 and "there is nothing of pixar-d in" in err


@pytest.mark.parametrize(("wishes", "message"), [
    (("--bundle", "cartoon1", "--style", "3"), "this checkpoint has one style, 26; drop --style or load cartoon1-d"),
    (("--bundle", "pixar-d", "--structure", "2"), "the structure degree is 2; it must lie between 0"),
    (("--bundle", "pixar-d", "--structure", "nan"), "the structure degree is nan"),
    (("--bundle", "pixar-d", "--color", "0.5"), "the colour degree is 0.5; it is 0"),
    (("--bundle", "pixar-d", "--padding", "3"), "padding is 3 px"),
    (("--bundle", "pixar-d", "--padding", "inf"), "padding is inf px; it must be at least 8, and finite"),
    (("--bundle", "studio-t", "--style", "3"),
     "studio-t has one look, in one strength and in your colours; drop --style"),
    (("--bundle", "studio-t", "--structure", "0.3"), "drop --structure"),
    (("--bundle", "studio-t", "--color", "1"), "drop --color"),
    (("--bundle", "pixar-d", "--style", "comic"), "pixar-d knows its styles by number and takes no 'comic'"),
    (("--bundle", "pixar-d", "--structure", "0:0,1:2"), "the structure degree is 2; it must lie between 0"),
    (("--bundle", "pixar-d", "--structure", "0:0,1:1"), "keyframes are for clips"),
    (("--from", "/tmp"), "film is not a published preset, so there is nothing to fetch; drop --from"),
    (("--bundle", "pixart"), "did you mean the published pixar-t"),
    (("--bundle", "comic1-d", "--accept-licence", "--from", "/none/such"), "/none/such is not a folder"),
])
def test_command_line_says_what_to_do(ready, tmp_path, capsys, wishes, message):
    src = write_image(tmp_path / "a.png", scene())
    code, out, err = run(capsys, "image", src, tmp_path / "b.png", "--device", "cpu", *wishes)
    assert code == 2 and err.startswith("vtoonify: ") and err.count("\n") == 1 and message in err and not out
    assert not (tmp_path / "b.png").exists()


def test_video_and_demo_say_the_same(ready, tmp_path, capsys):
    clip, wish = write_clip(tmp_path / "a.mp4", [scene()] * 2), ("--bundle", "cartoon1", "--style", "3")
    for paths in (("video", clip, tmp_path / "b.mp4"), ("demo", tmp_path / "out")):
        code, out, err = run(capsys, *paths, *wish)
        assert code == 2 and err.endswith("one style, 26; drop --style or load cartoon1-d\n") and not out
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_wishes_are_refused_before_anything_is_fetched(files, cache, tmp_path, capsys):
    src = write_image(tmp_path / "a.png", scene())
    code, _, err = run(capsys, "image", src, tmp_path / "b.png", "--bundle", "cartoon1", "--style", "3",
                       "--accept-licence", "--from", files)
    assert code == 2 and "one style, 26" in err and not cache.exists()


def test_models_wants_one_thing_at_a_time(capsys):
    with pytest.raises(SystemExit):
        cli.main(["models", "--remove", "pixar-d", "--clear-downloads"])
    assert "not allowed with" in capsys.readouterr().err
    assert run(capsys, "models", "--clear-downloads")[:2] == (0, "downloads removed, 0.0 MB freed\n")
    assert "no published preset 'pixel'" in run(capsys, "models", "--remove", "pixel")[2]
    assert "no published preset '../files'" in run(capsys, "models", "--remove", "../files")[2]
