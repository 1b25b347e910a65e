"""The benchmark runs and compares like with like."""

import torch

from vtoonify_lib import bench
from vtoonify_lib.config import TINY


def test_report_has_every_form_and_small_errors():
    report = bench.run(TINY, side=40, rounds=1, device="cpu")
    rows = [line.split() for line in report.splitlines() if line.startswith("  ")]
    assert [" ".join(row[:2]) for row in rows] == ["plain float32", "folded float32", "folded bfloat16"] * 2
    assert [row[3] for row in rows if row[0] == "plain"] == ["1.00x"] * 2
    assert all(float(row[4]) < (0.1 if "bfloat16" in row else 1e-4) for row in rows)
    assert "40×40 → 80×80" in report and "allocator: " in report


def test_forms_take_turns():
    calls: list[str] = []
    forms = {name: lambda name=name: (calls.append(name), torch.zeros(1))[1] for name in ("a", "b")}
    seconds = bench.measure(forms, torch.device("cpu"), rounds=2)
    assert calls == ["a", "b"] * (2 + bench.WARM_UP) and set(seconds) == {"a", "b"}
