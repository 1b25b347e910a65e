"""A folder of clips and pictures, drawn by several processes or by Ray, and taken up again after a break."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
from people import scene, write_clip

from vtoonify_lib.apps import batch as module
from vtoonify_lib.apps.batch import MANIFEST, Manifest, Task, Worker, batch, find_tasks, ignored_files
from vtoonify_lib.apps.cli import main
from vtoonify_lib.config import VToonifyError
from vtoonify_lib.media.images import write_image
from vtoonify_lib.media.video import probe
from vtoonify_lib.styles.request import AS_TRAINED

HOW = {"look": AS_TRAINED, "padding": None, "frame": "crop", "faces": "largest", "smooth": True}


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two clips, one of them deeper and without a face, a picture, and what is to be left alone."""
    source = tmp_path / "in"
    (source / "deep").mkdir(parents=True)
    write_clip(source / "a.mp4", [scene()] * 3)
    write_clip(source / "deep" / "nobody.mkv", [scene(people=[])] * 2)
    write_image(source / "b.png", scene())
    (source / "notes.txt").write_text("no clip")
    (source / ".hidden.mp4").write_bytes(b"")
    return source


def test_what_is_drawn_and_under_which_name(folder):
    (folder / "a.avi").touch()
    (folder / "out").mkdir()
    (folder / "out" / "old.mp4").touch()
    found = {task.name: str(task.dst.relative_to(folder / "out")) for task in find_tasks(folder, folder / "out")}
    assert found == {"a.avi": "a.mp4", "a.mp4": "a.mp4.mp4", "b.png": "b.png", "deep/nobody.mkv": "deep/nobody.mkv"}
    assert ignored_files(folder, folder / "out") == ["notes.txt"]
    assert len(find_tasks(folder / "deep", folder)) == 1, "results may go above what they are made of"


def test_a_worker_says_what_became_of_each_file(folder, tiny_bundle, tmp_path):
    worker = Worker(tiny_bundle.folder, "cpu", 1, HOW)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker.toonifier, "image", lambda *a, **k: 1 / 0)
        outcome = worker.draw(Task(folder / "b.png", tmp_path / "x.png", "b.png"))[1]
    assert outcome["error"].startswith("ZeroDivisionError"), "it stops none of the others"
    outcomes = [worker.draw(task)[1] for task in find_tasks(folder, tmp_path / "out")]
    assert outcomes[0]["frames"] == 3 and outcomes[1] == {"warnings": []}
    assert outcomes[2]["code"] == "no-face"
    assert probe(tmp_path / "out" / "a.mp4").has_audio and (tmp_path / "out" / "b.png").is_file()


def test_command_line_goes_on_with_what_is_left(folder, tiny_bundle, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    command = ["batch", str(folder), str(out), "--bundle", str(tiny_bundle.folder), "--device", "cpu", "--workers", "2"]
    with pytest.raises(SystemExit) as ended:
        main(command)
    said = capsys.readouterr()
    assert ended.value.code == 1 and "2 of 3 files are in" in said.out and "nobody.mkv: no face was found" in said.err
    assert said.err.splitlines()[-1].endswith("by their names: notes.txt")
    kept = json.loads((out / MANIFEST).read_text())
    assert set(kept) == {"a.mp4", "b.png", "deep/nobody.mkv"} and kept["a.mp4"]["frames"] == 3
    (folder / "deep" / "nobody.mkv").unlink()
    write_clip(folder / "c.mp4", [scene()] * 2)
    drawn = []
    monkeypatch.setattr(module, "_by_processes", lambda tasks, *a: (drawn.append(task.name) or (task, {"frames": 2})
                                                                    for task in tasks))
    assert main(command) == 0 and drawn == ["c.mp4"] and "3 of 3 files" in capsys.readouterr().out
    monkeypatch.undo()
    assert main(command) == 0 and "3 of 3 files" in capsys.readouterr().out, "nothing is left to do"
    monkeypatch.setattr(module, "_by_processes", lambda tasks, *a: (drawn.append(task.name) or (task, {"frames": 2})
                                                                    for task in tasks))
    assert main([*command, "--padding", "16"]) == 0 and len(drawn) == 4, "another region makes all of it anew"


def test_no_result_is_written_over_what_is_to_be_drawn(tmp_path):
    """Results above their sources, and an inner folder of the same name."""
    inner = tmp_path / "2020" / "2020"
    inner.mkdir(parents=True)
    for folder in (inner, inner.parent):
        (folder / "a.jpg").touch()
    with pytest.raises(VToonifyError, match=r"2020.2020.a\.jpg would be written over .*2020.a\.jpg"):
        batch(inner.parent, tmp_path, None, HOW)


def test_the_manifest_knows_what_has_changed(tmp_path):
    src, dst = tmp_path / "a.mp4", tmp_path / "out" / "a.mp4"
    src.write_bytes(b"1")
    dst.parent.mkdir()
    dst.touch()
    task, manifest = Task(src, dst, "a.mp4"), Manifest(dst.parent, "look")
    assert not manifest.has(task)
    manifest.note(task, {"frames": 1})
    assert Manifest(dst.parent, "look").has(task) and not Manifest(dst.parent, "other").has(task)
    assert not Manifest(dst.parent, "look").has(task._replace(dst=tmp_path / "other.mp4"))
    src.write_bytes(b"12")
    assert not Manifest(dst.parent, "look").has(task)
    manifest.note(task, {"error": "no face"})
    assert not Manifest(dst.parent, "look").has(task), "what failed is tried again"
    (dst.parent / MANIFEST).write_text("[]")
    assert not Manifest(dst.parent, "look").has(task)


def test_what_cannot_be_is_said(folder, toonifier, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    for source, more, message in ((tmp_path / "none", {}, "is no folder"), (tmp_path / "empty", {}, "no clips and no"),
                                  (folder, {"workers": 0}, "at least 1"),
                                  (tmp_path / "out", {}, "another folder for the results")):
        (tmp_path / "out").mkdir(exist_ok=True)
        with pytest.raises(VToonifyError, match=message):
            batch(source, tmp_path / "out", toonifier, HOW, progress=False, **more)

    class Broken:
        def __init__(self, *_):
            pass

        def submit(self, *_):
            raise BrokenProcessPool

        def shutdown(self, **_):
            pass

    monkeypatch.setattr(module, "ProcessPoolExecutor", Broken)
    with pytest.raises(VToonifyError, match="fewer --workers"):
        batch(folder, tmp_path / "out", toonifier, HOW, progress=False)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for child processes in /proc")
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_batch_that_is_stopped_leaves_no_worker_behind(tiny_bundle, tmp_path, stop):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    clip = write_clip(source / "a.mp4", [scene()] * 100, sound=False)
    for name in "bcd":
        (source / f"{name}.mp4").write_bytes(clip.read_bytes())
    command = [sys.executable, "-m", "vtoonify_lib.apps.cli", "batch", source, out, "--bundle", str(tiny_bundle.folder),
               "--device", "cpu", "--workers", "2"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1"},  # tests in the background ignore SIGINT
                          preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)) as process:
        end = time.monotonic() + 120
        while len(list(out.glob(".*/.*.part"))) < 2:  # until both are drawing
            assert process.poll() is None and time.monotonic() < end, process.stderr.read()
            time.sleep(0.02)
        family = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
        process.send_signal(stop)
        _, err = process.communicate(timeout=60)
    assert len(family) >= 2
    while any(_alive(pid) for pid in family):
        assert time.monotonic() < end, "workers live on"
        time.sleep(0.05)
    done = sorted(path.name for path in out.glob("*.mp4"))
    assert len(done) < 4, "it was stopped"
    if stop != signal.SIGKILL:
        assert process.returncode == 130 and "Traceback" not in err
        assert re.search(r"interrupted; \d of 4 files are done; the same command goes on with the others\n$", err)
        assert not [path for path in out.glob(".*") if path.name.endswith(".vtoonify")], "too short to keep anything of"
    if stop == signal.SIGKILL:  # which leaves most behind
        assert subprocess.run(command, capture_output=True, timeout=120).returncode == 0
        assert len(list(out.glob("*.mp4"))) == 4 and not list(out.glob(".*"))


def _alive(pid: int) -> bool:
    """Whether a process runs; one that ended and waits for its parent to ask does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_workers_share_devices_and_cores():
    assert module._shares(["cpu"], None, 16) == (4, 4) and module._shares(["cpu"], None, 2) == (1, 2)
    assert module._shares(["cuda:0", "cuda:1"], None, 16) == (2, 8) and module._shares(["cpu"], 3, 2) == (3, 1)


def test_without_ray_its_name_is_said(folder, toonifier, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(VToonifyError, match="pip install ray"):
        batch(folder, tmp_path / "out", toonifier, HOW, ray="local", progress=False)


def test_two_ray_workers(folder, toonifier, tmp_path):
    pytest.importorskip("ray")
    write_clip(folder / "c.mp4", [scene()] * 2)
    outcomes = batch(folder, tmp_path / "out", toonifier, HOW, workers=2, ray="local", progress=False)
    assert outcomes["a.mp4"]["frames"] == 3 and outcomes["c.mp4"]["frames"] == 2
    assert "no face" in outcomes["deep/nobody.mkv"]["error"] and probe(tmp_path / "out" / "c.mp4").frame_count == 2
