"""The benchmark runs and compares like with like."""

import sys
from dataclasses import replace

import pytest
import torch

from vtoonify_lib import bench
from vtoonify_lib.config import PUBLISHED_D, STUDIO, TINY
from vtoonify_lib.models.bisenet import PublishedParser
from vtoonify_lib.models.vtoonify_d import VToonifyD

FORMS = ["plain float32", "plain bfloat16", "folded float32", "folded bfloat16"]


@pytest.mark.parametrize("backbone", ["toonify", "dualstylegan"])
def test_report_has_every_form_and_small_errors(backbone, monkeypatch):
    monkeypatch.setattr(bench, "peak_memory", lambda config, side, name, device: FORMS.index(name) + 0.25)
    report = bench.run(replace(TINY, backbone=backbone), side=40, rounds=1, device="cpu")
    rows = [line.split() for line in report.splitlines() if line.startswith("  ")]
    assert [" ".join(row[:2]) for row in rows] == FORMS * 3
    assert [row[3] for row in rows if row[:2] == ["plain", "float32"]] == ["1.00x"] * 3
    assert all(float(row[4]) < (0.1 if "bfloat16" in row else 1e-4) for row in rows[:8])
    assert [row[4] for row in rows[8:]] == ["0.25", "1.25", "2.25", "3.25"]
    for network, parsing, both in zip(rows, rows[4:], rows[8:], strict=False):
        assert float(both[2]) == pytest.approx(float(network[2]) + float(parsing[2]), abs=2e-4)
    assert "40×40 → 80×80" in report and "allocator: " in report


def test_forms_take_turns():
    calls: list[str] = []
    forms = {name: lambda name=name: (calls.append(name), torch.zeros(1))[1] for name in ("a", "b")}
    seconds = bench.measure(forms, torch.device("cpu"), rounds=2)
    assert calls == ["a", "b"] * (2 + bench.WARM_UP) and set(seconds) == {"a", "b"}


@pytest.mark.skipif(sys.platform == "win32", reason="no peak is known there")
def test_peak_is_that_of_the_frame_alone():
    """Not of the process that asks, whatever it has used before; and larger frames need more."""
    ballast = len(b"\1" * 10**9)
    small, large = (bench.peak_memory(TINY, side, "folded float32", "cpu") for side in (8, 512))
    feature = 16 * 1024**2 * 4 / 1e9  # one of the several maps at 1024×1024 that are there at a time
    assert 0.05 < small < large < bench.peak_of_process() and bench.peak_of_process() > ballast / 1e9
    assert large - small > 2 * feature


def test_command_line_chooses_network_and_crop(monkeypatch, capsys):
    monkeypatch.setattr(bench, "run", lambda *arguments: arguments)
    bench.main([])
    bench.main(["--config", "published-d", "--side", "400", "--rounds", "2", "--device", "cpu"])
    assert capsys.readouterr().out.splitlines() == [
        str((STUDIO, None, bench.ROUNDS, "auto")), str((PUBLISHED_D, 400, 2, "cpu"))]


def test_published_sizes_come_with_the_published_parser():
    network, parsing, w = bench.build(PUBLISHED_D, torch.device("meta"))
    assert isinstance(network, VToonifyD) and isinstance(parsing, PublishedParser) and w.shape == (1, 18, 512)
