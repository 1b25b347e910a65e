"""The command line: exit codes, one line on stderr, and nothing half-written after Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest
from people import scene, write_clip

from vtoonify_lib.apps import cli
from vtoonify_lib.inference import toonifier
from vtoonify_lib.media.images import read_image, write_image
from vtoonify_lib.media.video import probe


@pytest.fixture
def models(tiny_bundle, monkeypatch):
    """`tiny` can be named."""
    monkeypatch.setenv("VTOONIFY_MODELS", str(tiny_bundle.folder.parent))


def refused(capsys, *arguments) -> str:
    """Run, expect exit code 2 and exactly one line on stderr; returns it."""
    try:
        code = cli.main([str(a) for a in arguments])
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    assert code == 2 and err.count("\n") == 1 and err.startswith("vtoonify") and "Traceback" not in err and not out
    return err


def test_image(models, tmp_path, capsys):
    src = write_image(tmp_path / "a.png", scene(480, 300, [(0, 60, 240), (210, 0, 300)]))
    assert cli.main(["image", str(src), str(tmp_path / "b.jpg"), "--bundle", "tiny", "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    height, width = read_image(tmp_path / "b.jpg").shape[:2]
    assert f"b.jpg: {width}×{height}" in out and err == "vtoonify: note: 2 faces were found; the largest is used\n"
    assert cli.main(["image", str(src), str(tmp_path / "c.png"), "--bundle", "tiny", "--frame", "full"]) == 0
    assert read_image(tmp_path / "c.png").shape == (300, 480, 3)


def test_video(models, tmp_path, capsys):
    src = write_clip(tmp_path / "a.mp4", [scene()] * 3)
    assert cli.main(["video", str(src), str(tmp_path / "b.mp4"), "--bundle", "tiny", "--padding", "16"]) == 0
    out = capsys.readouterr().out
    assert "3 frames" in out and "seconds per frame" in out and probe(tmp_path / "b.mp4").frame_count == 3


def test_version(capsys):
    with pytest.raises(SystemExit) as done:
        cli.main(["--version"])
    assert not done.value.code and re.fullmatch(r"vtoonify \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_a_sheet_of_styles_makes_its_folder(tmp_path, capsys):
    assert cli.main(["styles", str(tmp_path / "new" / "sheet.jpg")]) == 0
    assert (tmp_path / "new" / "sheet.jpg").stat().st_size > 10_000 and "comic-00" in capsys.readouterr().out


def test_demo(models, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(toonifier, "SAMPLE", write_clip(tmp_path / "a.mp4", [scene()] * 3))
    assert cli.main(["demo", str(tmp_path / "out"), "--bundle", "tiny"]) == 0
    assert "seconds per frame" in capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["demo.mp4", "demo_compare.mp4"]


def test_models(models, capsys):
    assert cli.main(["models"]) == 0
    out = capsys.readouterr().out
    line = next(line for line in out.splitlines() if line.startswith("tiny"))
    assert "CC0-1.0" in line and "MB" in line and "complete" in line and "psnr 9.5" in line and "note" not in line


def test_models_without_any(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("vtoonify_lib.weights.bundle.MODELS_FOLDER", tmp_path)
    monkeypatch.setenv("VTOONIFY_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("VTOONIFY_MODELS", raising=False)
    assert cli.main(["models"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"no bundle in {tmp_path}") and "make train-default" in out and "pixar-d" in out


@pytest.mark.parametrize("command", [[], ["demo"], ["image"], ["video"], ["models"]])
def test_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([*command, "--help"])
    out = capsys.readouterr().out
    assert stop.value.code == 0 and "usage: vtoonify" in out
    assert command in ([], ["models"]) or all(f"--{name}" in out for name in ("bundle", "device", "style", "from"))


@pytest.mark.parametrize("command", ["image", "video"])
def test_bad_input_and_output(models, tmp_path, capsys, command):
    good = tmp_path / ("a.png" if command == "image" else "a.mp4")
    write_image(good, scene()) if command == "image" else write_clip(good, [scene()] * 2)
    new, end = tmp_path / f"new{good.suffix}", ["--bundle", "tiny", "--device", "cpu"]
    assert "does not exist" in refused(capsys, command, tmp_path / "none", new, *end)
    (tmp_path / "empty").touch()
    assert "empty" in refused(capsys, command, tmp_path / "empty", new, *end)
    assert "same file" in refused(capsys, command, good, good, *end)
    assert "does not exist" in refused(capsys, command, good, tmp_path / "none" / "b.mp4", *end)
    assert "cannot be written as" in refused(capsys, command, good, tmp_path / "b.txt", *end)
    assert "unknown device" in refused(capsys, command, good, new, "--bundle", "tiny", "--device", "toaster")
    assert "known bundles: " in refused(capsys, command, good, new, "--bundle", "zebra")
    assert "invalid choice" in refused(capsys, command, good, new, "--frame", "half")
    assert "padding is 1 px" in refused(capsys, command, good, new, *end, "--padding", "1")
    assert "required" in refused(capsys, command, good)
    assert not new.exists()


def test_no_face_and_wrong_hash(models, tiny_bundle, tmp_path, capsys):
    empty = write_image(tmp_path / "a.png", np.zeros((240, 320, 3), np.uint8))
    assert "no face was found" in refused(capsys, "image", empty, tmp_path / "b.png", "--bundle", "tiny")
    import shutil

    spoiled = shutil.copytree(tiny_bundle.folder, tmp_path / "spoiled")
    with open(spoiled / "vtoonify.safetensors", "ab") as file:
        file.write(b"x")
    line = refused(capsys, "image", write_image(tmp_path / "c.png", scene()), tmp_path / "b.png", "--bundle", spoiled)
    assert "sha256" in line


def test_read_only_folder(models, tmp_path, capsys):
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o500)
    if os.access(locked, os.W_OK):
        locked = "/proc"  # root may write anywhere but here
    src = write_image(tmp_path / "a.png", scene())
    line = refused(capsys, "image", src, f"{locked}/b.png", "--bundle", "tiny", "--device", "cpu")
    assert "read-only" in line or "could not be written" in line
    clip = write_clip(tmp_path / "a.mp4", [scene()] * 2)
    line = refused(capsys, "video", clip, f"{locked}/b.mp4", "--bundle", "tiny", "--device", "cpu")
    assert "read-only" in line or "cannot be written" in line


def test_unknown_command(capsys):
    assert "invalid choice" in refused(capsys, "paint")


@pytest.mark.parametrize("command", [[], *([run.__name__[1:]] for run, *_ in cli.COMMANDS)])
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([*command, "--help"])
    assert stop.value.code == 0 and capsys.readouterr().out.startswith(" ".join(["usage: vtoonify", *command]))


def test_help_does_not_wait_for_torch():
    code = "import sys; from vtoonify_lib.apps import cli; cli._parser(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_ctrl_c_leaves_nothing_half_written(models, tmp_path):
    src, dst = write_clip(tmp_path / "a.mp4", [scene()] * 400, sound=False), tmp_path / "b.mp4"
    dst.write_bytes(b"what was there before")
    command = [sys.executable, "-m", "vtoonify_lib.apps.cli", "video", src, dst, "--bundle", "tiny", "--device", "cpu"]
    # heard, even where the tests run in the background, which ignores it
    heard = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heard) as process:
        deadline = time.monotonic() + 120
        while not any(part.stat().st_size for part in tmp_path.glob(".*/.*.part")):  # until writing is under way
            assert process.poll() is None and time.monotonic() < deadline, process.stderr.read()
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err
    assert err.rstrip().endswith("what was found out about the clip is kept; the same command goes on from there")
    assert dst.read_bytes() == b"what was there before"
    assert sorted(p.name for p in tmp_path.iterdir()) == [".b.mp4.vtoonify", "a.mp4", "b.mp4"]
    assert sorted(p.name for p in (tmp_path / ".b.mp4.vtoonify").iterdir()) == ["job.json", "lock", "tracks.npz"]
