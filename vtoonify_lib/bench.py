"""Seconds per frame of the plain and the folded networks, side by side in one run: `python -m vtoonify_lib.bench`.

The forms take turns, so that a busy machine slows all of them alike, and run under one allocator setting, which the
table names: page faults of large buffers are a good part of the plain form's time. Weights are random; times do not
depend on them. Video decoding, face tracking and encoding are not in these numbers; `vtoonify demo` prints the whole.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from functools import partial
from statistics import median
from time import perf_counter

import torch
from torch import Tensor

from . import fast
from .config import INPUT_CHANNELS, STUDIO, VToonifyConfig
from .devices import pick_device
from .models.encoders import ParsingNet
from .models.vtoonify import VToonify

SIDE = 200
"""A head-and-shoulders crop for a 128 px model; 400×400 comes out."""

ROUNDS = 15
"""Turns that are counted; the median is reported."""

WARM_UP = 2
"""Turns before, in which libraries choose their algorithms and buffers are made."""

Form = Callable[[], Tensor]


def measure(forms: dict[str, Form], device: torch.device, rounds: int = ROUNDS) -> dict[str, float]:
    """Median seconds of each form; they are called in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for turn in range(WARM_UP + rounds):
        for name, form in forms.items():
            began = perf_counter()
            form()
            if device.type != "cpu":
                torch.accelerator.synchronize(device)
            if turn >= WARM_UP:
                seconds[name].append(perf_counter() - began)
    return {name: median(values) for name, values in seconds.items()}


def forms_of(network: torch.nn.Module, x: Tensor, w: Tensor | None = None) -> dict[str, Form]:
    """The plain network and its folded forms, each ready to be called on x [1,C,H,W]."""
    forms: dict[str, Form] = {"plain float32": partial(network, x) if w is None else partial(network, x, w)}
    halves = (torch.bfloat16, torch.float16) if x.device.type == "cuda" else (torch.bfloat16,)
    for dtype in (torch.float32, *halves):
        forms[f"folded {str(dtype).removeprefix('torch.')}"] = partial(fast.fold(network, w, dtype), x.to(dtype))
    return forms


def table(title: str, forms: dict[str, Form], device: torch.device, rounds: int = ROUNDS) -> str:
    """Rows of seconds, speed relative to the first form, and relative error against it."""
    with torch.inference_mode():
        seconds = measure(forms, device, rounds)
        pictures = {name: form().float() for name, form in forms.items()}
    first = next(iter(forms))
    lines = [f"{title:<34}{'s/frame':>10}{'speed':>9}{'error':>11}"]
    for name, value in seconds.items():
        error = (pictures[name] - pictures[first]).norm() / pictures[first].norm()
        lines.append(f"  {name:<32}{value:>10.4f}{seconds[first] / value:>8.2f}x{error:>11.1e}")
    return "\n".join(lines)


def setting(device: torch.device) -> str:
    """One line that a number needs beside it: machine, threads, versions, allocator."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    allocator = " ".join(f"{key}={os.environ[key]}" for key in ("GLIBC_TUNABLES", "LD_PRELOAD") if os.environ.get(key))
    threads = torch.get_num_threads()
    return f"{device} ({name}), {threads} threads, torch {torch.__version__}, allocator: {allocator or 'default'}"


def run(config: VToonifyConfig = STUDIO, side: int = SIDE, rounds: int = ROUNDS, device: str = "auto") -> str:
    """The whole report for one frame of side × side pixels."""
    where = pick_device(device)
    torch.manual_seed(0)
    with where:
        network, parsing = VToonify(config).eval(), ParsingNet().eval()
        w = torch.randn(1, network.generator.n_latent, config.generator.style_dim)
        x, rgb = torch.randn(1, INPUT_CHANNELS, side, side), torch.randn(1, 3, side, side)
    cost = fast.report_cost(config, side, side)
    out = round(side * config.scale)
    return "\n".join([
        setting(where),
        f"{side}×{side} → {out}×{out}: {cost.parameters / 1e6:.1f} M parameters, "
        f"{cost.parameters_used / 1e6:.1f} M of them used; {2 * cost.macs / 1e9:.1f} GFLOP a frame",
        table("VToonify", forms_of(network, x, w), where, rounds),
        table("parsing network", forms_of(parsing, rgb), where, rounds),
    ])


if __name__ == "__main__":
    print(run())
