"""Everything that is measured, as a dictionary for JSON and as a table for people."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch

from ...config import VToonifyError
from ...inference.toonifier import DEFAULT_BUNDLE, Toonifier
from ...models import folded
from ...models.devices import pick_device
from .forms import (
    ROUNDS,
    SIZES,
    bench_case,
    compare,
    form_of,
    measure,
    network_frame,
    peak_memory,
    rows,
    setting,
    variants,
)
from .steps import split

MATRIX, COPIED = 2048, 64 * 2**20
"""Sides of the matrices whose product, and bytes of the buffer whose copy, tells what the device can do."""

LARGER = 4, 16
"""So many times as large they are on a GPU, which small ones neither fill nor get past its cache."""


def run(name: str = DEFAULT_BUNDLE, side: int | None = None, rounds: int = ROUNDS, device: str = "auto",
        compiled: bool = False) -> dict[str, Any]:
    """The whole report on one frame of side × side pixels, by default of head and shoulders.

    name  a bundle, or one of `forms.SIZES`, which have no weights and so no clip: "steps" is None for them
    compiled  try torch.compile, too; VToonifyError where it does not work
    → setting; crop, picture (sides in pixels); parameters, parameters_used, gflop (of VToonify); forms, each with
      network, parsing, both (seconds), fps, speed (relative to the first), error, parsing_error (relative), peak_gb;
      limits, with the rates of the device and the shares of them that the fastest form reaches; steps, see `split`
    """
    where = pick_device(device)
    case = bench_case(name, where, side)
    side = case.x.shape[-1]
    x, names = network_frame(case).detach(), variants(where, compiled)
    with _compiler_errors() if compiled else nullcontext():
        network, error = compare({form: partial(form_of(case.network, case.w, *how), x) for form, how in names.items()},
                                 where, rounds)
        parsing, parsing_error = compare({form: partial(form_of(case.parsing, None, *how), case.x)
                                          for form, how in names.items()}, where, rounds)
    both = {form: network[form] + parsing[form] for form in names}
    first = next(iter(both.values()))
    cost = folded.report_cost(case.config, side, side)
    best = min(network, key=network.__getitem__)
    kind, dtype = names[best]
    fastest = form_of(case.network, case.w, "folded" if kind == "compiled" else kind, dtype)  # the same operations
    return {
        "name": name, "setting": setting(where), "crop": side, "picture": round(side * case.config.scale),
        "parameters": cost.parameters, "parameters_used": cost.parameters_used, "gflop": 2 * cost.macs / 1e9,
        "forms": {form: {
            "network": network[form], "parsing": parsing[form], "both": both[form], "fps": 1 / both[form],
            "speed": first / both[form], "error": error[form], "parsing_error": parsing_error[form],
            "peak_gb": peak_memory(name, form, side, str(where))} for form in names},
        "limits": limits(fastest, x, dtype, where)
        | {"form": best, "seconds": network[best], "gflop": 2 * cost.macs / 1e9},
        "steps": None if name in SIZES else split(Toonifier.load(name, device)),
    }


@contextmanager
def _compiler_errors() -> Iterator[None]:
    """Say in one sentence that torch.compile does not work: it brings no compiler of its own."""
    try:
        yield
    except RuntimeError as error:
        raise VToonifyError(f"torch.compile does not work here ({str(error).strip().partition(chr(10))[0]}); install a "
                            "C++ compiler and Python's headers, or leave --compile out") from error


def limits(network: Any, x: torch.Tensor, dtype: torch.dtype, device: torch.device) -> dict[str, float]:
    """What the device does at best: matrix products in TFLOP/s, copies in GB/s (read and written); bytes of a frame."""
    wider, longer = (1, 1) if device.type == "cpu" else LARGER
    side, copied = wider * MATRIX, longer * COPIED
    a = torch.randn(side, side, device=device).to(dtype)
    buffer = torch.zeros(copied, dtype=torch.uint8, device=device)
    target = torch.empty_like(buffer)
    with torch.inference_mode():
        seconds = measure({"matmul": lambda: a @ a, "copy": lambda: target.copy_(buffer)}, device)
    return {"matmul_tflops": 2 * side**3 / seconds["matmul"] / 1e12, "copy_gbs": 2 * copied / seconds["copy"] / 1e9,
            "gbytes": folded.count_bytes(network, x) / 1e9}


def as_text(report: dict[str, Any]) -> str:
    """The report as tables."""
    forms, most = report["forms"], report["limits"]

    def part(title: str, key: str, last: str, how: str, of: str) -> str:
        values = {form: "unknown" if row[of] is None else how.format(row[of]) for form, row in forms.items()}
        return rows(title, {form: row[key] for form, row in forms.items()}, last, values)

    compute = most["gflop"] / most["seconds"] / 1e3 / most["matmul_tflops"]
    traffic = most["gbytes"] / most["seconds"] / most["copy_gbs"]
    lines = [
        report["setting"],
        f"{report['name']}: {report['crop']}×{report['crop']} → {report['picture']}×{report['picture']}, "
        f"{report['parameters'] / 1e6:.1f} M parameters, {report['parameters_used'] / 1e6:.1f} M of them used; "
        f"{report['gflop']:.1f} GFLOP a frame",
        part("VToonify", "network", "error", "{:.1e}", "error"),
        part("parsing network", "parsing", "error", "{:.1e}", "parsing_error"),
        part("both", "both", "peak", "{:.2f} GB", "peak_gb"),
        f"{most['form']}: {compute:.0%} of the {most['matmul_tflops']:.2f} TFLOP/s of a matrix product, "
        f"{traffic:.0%} of the {most['copy_gbs']:.0f} GB/s of a copy"]
    if report["steps"]:
        lines.append("a frame of the sample clip, in ms: " + ", ".join(
            f"{name} {1e3 * value:.1f}" for name, value in report["steps"].items()))
    return "\n".join(lines)
