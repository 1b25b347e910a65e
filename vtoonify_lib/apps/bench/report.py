"""Everything that is measured, as a dictionary for JSON and as a table for people."""

from __future__ import annotations

from functools import partial
from typing import Any

from ...inference.toonifier import DEFAULT_BUNDLE, Toonifier
from ...models import folded
from ...models.devices import pick_device
from .forms import (
    ROUNDS,
    SIZES,
    bench_case,
    compare,
    form_of,
    network_frame,
    peak_memory,
    rows,
    setting,
    variants,
)
from .steps import split


def run(name: str = DEFAULT_BUNDLE, side: int | None = None, rounds: int = ROUNDS, device: str = "auto"
        ) -> dict[str, Any]:
    """The whole report on one frame of side × side pixels, by default of head and shoulders.

    name  a bundle, or one of `forms.SIZES`, which have no weights and so no clip: "steps" is None for them
    → setting; crop, picture (sides in pixels); parameters, parameters_used, gflop (of VToonify); forms, each with
      network, parsing, both (seconds), fps, speed (relative to the first), error, parsing_error (relative), peak_gb;
      steps, see `split`
    """
    where = pick_device(device)
    case = bench_case(name, where, side)
    side = case.x.shape[-1]
    x, names = network_frame(case).detach(), variants(where)
    network, error = compare({form: partial(form_of(case.network, case.w, *how), x) for form, how in names.items()},
                             where, rounds)
    parsing, parsing_error = compare({form: partial(form_of(case.parsing, None, *how), case.x)
                                      for form, how in names.items()}, where, rounds)
    both = {form: network[form] + parsing[form] for form in names}
    first = next(iter(both.values()))
    cost = folded.report_cost(case.config, side, side)
    return {
        "name": name, "setting": setting(where), "crop": side, "picture": round(side * case.config.scale),
        "parameters": cost.parameters, "parameters_used": cost.parameters_used, "gflop": 2 * cost.macs / 1e9,
        "forms": {form: {
            "network": network[form], "parsing": parsing[form], "both": both[form], "fps": 1 / both[form],
            "speed": first / both[form], "error": error[form], "parsing_error": parsing_error[form],
            "peak_gb": peak_memory(name, form, side, str(where))} for form in names},
        "steps": None if name in SIZES else split(Toonifier.load(name, device)),
    }


def as_text(report: dict[str, Any]) -> str:
    """The report as tables."""
    forms = report["forms"]

    def part(title: str, key: str, last: str, how: str, of: str) -> str:
        values = {form: how.format(row[of]) for form, row in forms.items()}
        return rows(title, {form: row[key] for form, row in forms.items()}, last, values)

    lines = [
        report["setting"],
        f"{report['name']}: {report['crop']}×{report['crop']} → {report['picture']}×{report['picture']}, "
        f"{report['parameters'] / 1e6:.1f} M parameters, {report['parameters_used'] / 1e6:.1f} M of them used; "
        f"{report['gflop']:.1f} GFLOP a frame",
        part("VToonify", "network", "error", "{:.1e}", "error"),
        part("parsing network", "parsing", "error", "{:.1e}", "parsing_error"),
        part("both", "both", "peak", "{:.2f} GB", "peak_gb")]
    if report["steps"]:
        lines.append("a frame of the sample clip, in ms: " + ", ".join(
            f"{name} {1e3 * value:.1f}" for name, value in report["steps"].items()))
    return "\n".join(lines)
