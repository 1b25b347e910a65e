"""The benchmark runs and compares like with like."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from people import scene, write_clip

from vtoonify_lib.apps import bench
from vtoonify_lib.apps.bench import forms, report, steps
from vtoonify_lib.apps.bench.textbook import textbook
from vtoonify_lib.apps.cli import main
from vtoonify_lib.config import PUBLISHED_D, TINY
from vtoonify_lib.models.bisenet import PublishedParser
from vtoonify_lib.models.layers import ModulatedConv2d, StyledConv, ToRGB
from vtoonify_lib.models.vtoonify_d import VToonifyD

FORMS = ["textbook float32", "plain float32", "plain bfloat16", "folded float32", "folded bfloat16"]


@pytest.fixture
def tiny(monkeypatch):
    """Small networks under the names "tiny" and "tiny-d", whose peak takes no process to find out."""
    monkeypatch.setitem(forms.SIZES, "tiny", TINY)
    monkeypatch.setitem(forms.SIZES, "tiny-d", replace(TINY, backbone="dualstylegan"))
    monkeypatch.setattr(report, "peak_memory", lambda name, form, side, device: FORMS.index(form) + 0.25)


@pytest.mark.parametrize("name", ["tiny", "tiny-d"])
def test_report_has_every_form_and_small_errors(name, tiny):
    told = bench.run(name, side=40, rounds=1, device="cpu")
    assert list(told["forms"]) == FORMS and told["forms"]["textbook float32"]["speed"] == 1
    for form, row in told["forms"].items():
        assert max(row["error"], row["parsing_error"]) < (0.1 if "bfloat16" in form else 1e-4)
        assert row["both"] == row["network"] + row["parsing"] == pytest.approx(1 / row["fps"])
        assert row["peak_gb"] == FORMS.index(form) + 0.25
    assert told["steps"] is None
    assert json.loads(json.dumps(told)) == told
    text = bench.as_text(told)
    rows = [line.split() for line in text.splitlines() if line.startswith("  ")]
    assert [" ".join(row[:2]) for row in rows] == FORMS * 3
    assert "40×40 → 80×80" in text and "allocator: " in text


@pytest.mark.parametrize("backbone", ["toonify", "dualstylegan"])
def test_the_textbook_computes_the_same_the_long_way(backbone):
    network, parsing, w = bench.build(replace(TINY, backbone=backbone), torch.device("cpu"))
    x = torch.randn(2, 22, 40, 32)
    with torch.inference_mode():
        short, long = network(x, w), textbook(network)(x, w)
    torch.testing.assert_close(long, short, atol=1e-4, rtol=1e-4)
    assert long.is_contiguous() and not short.is_contiguous(), "channels outermost, innermost"
    assert not any("forward" in vars(part) for part in textbook(parsing).modules()), "others are left as they are"
    assert any("forward" in vars(part) for part in textbook(network).modules())


@pytest.mark.parametrize("layer", [ModulatedConv2d(4, 6, 3, 8), ModulatedConv2d(4, 6, 3, 8, up=True), ToRGB(4, 8),
                                   ModulatedConv2d(4, 3, 1, 8, demodulate=False), StyledConv(4, 6, 3, 8, up=True)])
def test_textbook_layers_group_a_batch(layer):
    x, style = torch.randn(3, 4, 7, 5), torch.randn(3, 8)
    torch.testing.assert_close(textbook(layer)(x, style), layer(x, style), atol=1e-5, rtol=1e-4)


def test_forms_take_turns():
    calls: list[str] = []
    asked = {name: lambda name=name: (calls.append(name), torch.zeros(1))[1] for name in ("a", "b")}
    seconds = bench.measure(asked, torch.device("cpu"), rounds=2)
    assert calls == ["a", "b"] * (2 + forms.WARM_UP) and set(seconds) == {"a", "b"}


def test_a_bundle_is_measured_on_the_sample():
    it = bench.bench_case("studio-t", torch.device("cpu"), side=64)
    assert it.x.shape == (1, 3, 64, 64) and it.x.abs().max() <= 1 and it.w.shape[-1] == it.config.generator.style_dim
    assert it.x.std() > 0.2  # a picture, no noise and no blank


def test_peak_is_that_of_the_frame_alone():
    """Not of the process that asks, whatever it has used before; and larger frames need more."""
    ballast = len(b"\1" * 2 * 10**9)
    small, large = (bench.peak_memory("studio-t", "folded float32", side, "cpu") for side in (32, 640))
    feature = 32 * 1280**2 * 4 / 1e9  # one of the several maps at 1280×1280 that are there at a time
    assert 0.05 < small < large < forms.peak_of_process() and forms.peak_of_process() > ballast / 1e9
    assert large - small > 2 * feature


def test_steps_of_a_frame(toonifier, tmp_path):
    clip = write_clip(tmp_path / "in.mp4", [scene()] * 6)
    told = steps.split(toonifier, clip, frames=4)
    assert list(told) == ["decode", "faces", "crop", "parsing", "network", "encode", "sum", "whole"]
    assert all(seconds > 0 for seconds in told.values())
    assert told["sum"] == pytest.approx(sum(list(told.values())[:6]))


def test_command_line(tiny, tmp_path, capsys):
    assert main(["bench", "--bundle", "tiny", "--side", "40", "--rounds", "1", "--device", "cpu",
                 "--json", str(tmp_path / "bench.json")]) == 0
    assert json.loads((tmp_path / "bench.json").read_text())["crop"] == 40
    assert "parsing network" in capsys.readouterr().out
    for arguments, message in ((["--rounds", "0"], "must be at least 1"), (["--bundle", "nobody"], "nobody"),
                               (["--json", str(tmp_path)], "is a folder")):
        assert main(["bench", *arguments]) == 2 and message in capsys.readouterr().err


def test_published_sizes_come_with_the_published_parser():
    network, parsing, w = bench.build(PUBLISHED_D, torch.device("meta"))
    assert isinstance(network, VToonifyD) and isinstance(parsing, PublishedParser) and w.shape == (1, 18, 512)
