"""Seconds per frame and peak memory of the plain and the folded networks: `python -m vtoonify_lib.bench --help`.

The forms take turns, so that a busy machine slows all of them alike, and run under one allocator setting, which the
table names: page faults of large buffers are a good part of the plain form's time. Memory is the peak of a process of
its own, for peaks do not go down. Weights are random; times do not depend on them. Video decoding, face tracking and
encoding are not in these numbers; `vtoonify demo` prints the whole.
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
import os
import platform
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from torch import Tensor, nn

from . import fast
from .config import INPUT_CHANNELS, PUBLISHED, PUBLISHED_D, STUDIO, VToonifyConfig
from .devices import pick_device
from .models.bisenet import PublishedParser
from .models.encoders import ParsingNet
from .models.vtoonify import MULTIPLE
from .models.vtoonify_d import build_vtoonify
from .parsing import network_input

CONFIGS = {"studio": STUDIO, "published": PUBLISHED, "published-d": PUBLISHED_D}

SIDE = 200 / 128
"""Side of the crop in working sizes: head and shoulders."""

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


def variants(device: torch.device) -> dict[str, tuple[bool, torch.dtype]]:
    """The forms that are compared: name → (folded or not, precision). The first is what the others are held against."""
    halves = (torch.bfloat16, torch.float16) if device.type == "cuda" else (torch.bfloat16,)
    return {f"{'folded' if folded else 'plain'} {str(dtype).removeprefix('torch.')}": (folded, dtype)
            for folded in (False, True) for dtype in (torch.float32, *halves)}


def build(config: VToonifyConfig, device: torch.device) -> tuple[nn.Module, nn.Module, Tensor]:
    """VToonify as bundles hold it, the parsing network that goes with it, a style code; all random."""
    torch.manual_seed(0)
    with device:
        parsing = PublishedParser() if config in (PUBLISHED, PUBLISHED_D) else ParsingNet()
        network = build_vtoonify(config, inference=True)
        w = torch.randn(1, network.generator.n_latent, config.generator.style_dim)
    return network.eval(), parsing.eval(), w


def form_of(network: nn.Module, w: Tensor | None, folded: bool, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """One form of a network, to be called on a float32 input."""
    if folded:
        network, styles = fast.fold(network, w, dtype), ()
    else:
        network = network if dtype == torch.float32 else copy.deepcopy(network).to(dtype)
        styles = () if w is None else (w.to(dtype),)
    return lambda x: network(x.to(dtype), *styles)


def peak_memory(config: VToonifyConfig, side: int, name: str, device: str) -> float | None:
    """Peak in GB of a new process that draws one frame of side × side pixels, parsing included, with the form `name`.

    On a CPU all of the process counts, Python, libraries and unfolded weights too; on a GPU what torch had allocated
    there. None where that is not known.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_here, (config, side, name, device))


def _peak_here(config: VToonifyConfig, side: int, name: str, device: str) -> float | None:
    where = torch.device(device)
    with torch.inference_mode():
        network, parsing, w = build(config, where)
        draw, parse = (form_of(net, code, *variants(where)[name]) for net, code in ((network, w), (parsing, None)))
        rgb = torch.randn(1, 3, side, side, device=where)
        draw(network_input(rgb, parse(rgb)))
    if where.type == "cuda":
        return torch.cuda.max_memory_allocated(where) / 1e9
    return peak_of_process()


def peak_of_process() -> float | None:
    """Most memory that this process ever held, in GB; None where the system does not tell."""
    status = Path("/proc/self/status")  # before getrusage: on Linux that one starts at the peak of the parent process
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.is_file() else None
    if found:
        return int(found[1]) * 1024 / 1e9
    try:
        import resource  # not on Windows
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def table(title: str, forms: dict[str, Form], device: torch.device, rounds: int = ROUNDS
          ) -> tuple[str, dict[str, float]]:
    """Rows of seconds, speed relative to the first form, and relative error against it; and the seconds."""
    with torch.inference_mode():
        seconds = measure(forms, device, rounds)
        pictures = {name: form().float() for name, form in forms.items()}
    first = pictures[next(iter(forms))]
    errors = {name: f"{(picture - first).norm() / first.norm():.1e}" for name, picture in pictures.items()}
    return rows(title, seconds, "error", errors), seconds


def rows(title: str, seconds: dict[str, float], last: str, values: dict[str, str]) -> str:
    """A table with one more column called `last`."""
    first = next(iter(seconds.values()))
    return "\n".join([f"{title:<34}{'s/frame':>10}{'speed':>9}{last:>11}", *(
        f"  {name:<32}{value:>10.4f}{first / value:>8.2f}x{values[name]:>11}" for name, value in seconds.items())])


def setting(device: torch.device) -> str:
    """One line that a number needs beside it: machine, threads, versions, allocator."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    allocator = " ".join(f"{key}={os.environ[key]}" for key in ("GLIBC_TUNABLES", "LD_PRELOAD") if os.environ.get(key))
    threads = torch.get_num_threads()
    return f"{device} ({name}), {threads} threads, torch {torch.__version__}, allocator: {allocator or 'default'}"


def run(config: VToonifyConfig = STUDIO, side: int | None = None, rounds: int = ROUNDS, device: str = "auto") -> str:
    """The whole report for one frame of side × side pixels, by default of head and shoulders."""
    where = pick_device(device)
    side = side or int(SIDE * config.in_size) // MULTIPLE * MULTIPLE
    names = variants(where)
    peaks = {name: peak_memory(config, side, name, str(where)) for name in names}
    network, parsing, w = build(config, where)
    x = torch.randn(1, INPUT_CHANNELS, side, side, device=where)
    cost, out = fast.report_cost(config, side, side), round(side * config.scale)
    parts = []
    for title, net, code, source in (("VToonify", network, w, x), ("parsing network", parsing, None, x[:, :3])):
        forms = {name: partial(form_of(net, code, *variant), source) for name, variant in names.items()}
        parts.append(table(title, forms, where, rounds))
    whole = {name: sum(seconds[name] for _, seconds in parts) for name in names}
    memory = {name: "unknown" if peak is None else f"{peak:.2f} GB" for name, peak in peaks.items()}
    return "\n".join([
        setting(where),
        f"{side}×{side} → {out}×{out}: {cost.parameters / 1e6:.1f} M parameters, "
        f"{cost.parameters_used / 1e6:.1f} M of them used; {2 * cost.macs / 1e9:.1f} GFLOP a frame",
        *(text for text, _ in parts),
        rows("both", whole, "peak", memory),
    ])


def main(arguments: list[str] | None = None) -> None:
    """Print the report that the command line asks for."""
    parser = argparse.ArgumentParser(description="Seconds per frame and peak memory, plain and folded.")
    parser.add_argument("--config", choices=CONFIGS, default="studio", help="sizes of the network (default: studio)")
    parser.add_argument("--side", type=int, help="pixels along each side of the crop (default: head and shoulders)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"turns that are counted (default: {ROUNDS})")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, … (default: auto)")
    options = parser.parse_args(arguments)
    print(run(CONFIGS[options.config], options.side, options.rounds, options.device))


if __name__ == "__main__":
    main()
