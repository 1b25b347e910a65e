"""The forms of a network against each other, on one frame: as textbooks write it, as it is trained, folded.

The forms take turns, so that a busy machine slows all of them alike, and run under one allocator setting, which the
report names: page faults of large buffers are a good part of the plain form's time. Memory is the peak of a process of
its own, for peaks do not go down.
"""

from __future__ import annotations

import copy
import multiprocessing
import os
import re
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...config import PUBLISHED, PUBLISHED_D, VToonifyConfig
from ...faces.parsing_maps import network_input
from ...inference.toonifier import SAMPLE, Toonifier
from ...media.images import to_tensor
from ...media.video import read_frames
from ...models import folded
from ...models.bisenet import PublishedParser
from ...models.detail import with_detail
from ...models.devices import processor
from ...models.encoders import ParsingNet
from ...models.vtoonify import MULTIPLE
from ...models.vtoonify_d import build_vtoonify
from .textbook import textbook

SIZES = {"published": PUBLISHED, "published-d": PUBLISHED_D}
"""Networks of the authors' sizes. Their weights are random; times do not depend on them."""

SIDE = 200 / 128
"""Side of the crop in working sizes: head and shoulders."""

ROUNDS = 15
"""Turns that are counted; the median is reported."""

WARM_UP = 2
"""Turns before, in which libraries choose their algorithms and buffers are made."""

Form = Callable[[], Tensor]


class BenchCase(NamedTuple):
    """What is measured: a VToonify as bundles hold it, its parsing network, a style code, a frame [1,3,H,W]."""

    config: VToonifyConfig
    network: nn.Module
    parsing: nn.Module
    w: Tensor
    x: Tensor


def bench_case(name: str, device: torch.device, side: int | None = None) -> BenchCase:
    """A bundle and the face of the sample clip, or one of SIZES and noise; the frame is side × side pixels."""
    if name in SIZES:
        config = SIZES[name]
        side = side or default_side(config)
        return BenchCase(config, *build(config, device), torch.randn(1, 3, side, side, device=device))
    toonifier = Toonifier.load(name, str(device))
    side, face = side or default_side(toonifier.config), toonifier.face_in(next(read_frames(SAMPLE)).rgb)
    network, parsing = (toonifier.bundle.network(part).to(device).eval() for part in ("vtoonify", "parsing"))
    x = F.interpolate(to_tensor(face.crop, device), (side, side), mode="bilinear", antialias=True)
    return BenchCase(toonifier.config, network, parsing, toonifier.style_code(face.aligned).to(device), x)


def network_frame(case: BenchCase) -> Tensor:
    """The input of a case's network."""
    x, detail = network_input(case.x, case.parsing(case.x)), case.config.detail
    return with_detail(x, F.interpolate(case.x, scale_factor=float(detail)), detail) if detail else x


def default_side(config: VToonifyConfig) -> int:
    """Pixels along each side of a crop of head and shoulders."""
    return int(SIDE * config.in_size) // MULTIPLE * MULTIPLE


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


def variants(device: torch.device) -> dict[str, tuple[str, torch.dtype]]:
    """The forms that are compared: name → (kind, precision); see `form_of`. The others are held against the first."""
    halves = (torch.bfloat16, torch.float16) if device.type == "cuda" else (torch.bfloat16,)
    pairs = [("textbook", torch.float32), *((kind, dtype) for kind in ("plain", "folded")
                                            for dtype in (torch.float32, *halves))]
    return {f"{kind} {str(dtype).removeprefix('torch.')}": (kind, dtype) for kind, dtype in pairs}


def build(config: VToonifyConfig, device: torch.device) -> tuple[nn.Module, nn.Module, Tensor]:
    """VToonify as bundles hold it, its parsing network and a style code; all random."""
    torch.manual_seed(0)
    with device:
        parsing = PublishedParser() if config in (PUBLISHED, PUBLISHED_D) else ParsingNet()
        network = build_vtoonify(config, inference=True)
        w = torch.randn(1, network.generator.n_latent, config.generator.style_dim)
    return network.eval(), parsing.eval(), w


def form_of(network: nn.Module, w: Tensor | None, kind: str, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """One form of a network, to be called on a float32 input.

    kind  "textbook", see the module of that name; "plain", as bundles hold it and training runs it; "folded", see
          `models.folded`
    """
    styles = () if w is None or kind == "folded" else (w.to(dtype),)
    if kind == "textbook":
        network = textbook(network).to(dtype)
    elif kind != "plain":
        network = folded.fold(network, w, dtype)
    elif dtype != torch.float32:
        network = copy.deepcopy(network).to(dtype)
    return lambda x: network(x.to(dtype), *styles)


def peak_memory(name: str, form: str, side: int, device: str) -> float:
    """Peak in GB of a new process that draws one frame of side × side pixels, parsing included, with one of `variants`.

    On a CPU all of the process counts, Python, libraries and unfolded weights too; on a GPU what torch had allocated
    there.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_here, (name, form, side, device))


def _peak_here(name: str, form: str, side: int, device: str) -> float:
    where = torch.device(device)
    with torch.inference_mode():
        case = bench_case(name, where, side)
        kind = variants(where)[form]
        case = case._replace(parsing=form_of(case.parsing, None, *kind))
        form_of(case.network, case.w, *kind)(network_frame(case))
    if where.type == "cuda":
        return torch.cuda.max_memory_allocated(where) / 1e9
    return peak_of_process()


def peak_of_process() -> float:
    """Most memory that this process ever held, in GB."""
    status = Path("/proc/self/status")  # before getrusage: on Linux that one starts at the peak of the parent process
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.is_file() else None
    if found:
        return int(found[1]) * 1024 / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def compare(forms: dict[str, Form], device: torch.device, rounds: int = ROUNDS
            ) -> tuple[dict[str, float], dict[str, float]]:
    """Median seconds of each form, and how far its picture is from the first one's, relative.

    That one is drawn in full float32, whose products GPUs else round to ten bits (TF32).
    """
    with torch.inference_mode():
        seconds = measure(forms, device, rounds)
        pictures = {name: form().float() for name, form in forms.items()}
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            first = next(iter(forms.values()))().float()
    return seconds, {name: float((picture - first).norm() / first.norm()) for name, picture in pictures.items()}


def table(title: str, forms: dict[str, Form], device: torch.device, rounds: int = ROUNDS) -> str:
    """`compare` as rows: seconds, speed relative to the first form, relative error against it."""
    seconds, errors = compare(forms, device, rounds)
    return rows(title, seconds, "error", {name: f"{error:.1e}" for name, error in errors.items()})


def rows(title: str, seconds: dict[str, float], last: str, values: dict[str, str]) -> str:
    """A table with one more column called `last`."""
    first = next(iter(seconds.values()))
    return "\n".join([f"{title:<34}{'s/frame':>10}{'speed':>9}{last:>11}", *(
        f"  {name:<32}{value:>10.4f}{first / value:>8.2f}x{values[name]:>11}" for name, value in seconds.items())])


def setting(device: torch.device) -> str:
    """One line that describes the measurement: machine, threads, versions, allocator."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    allocator = " ".join(f"{key}={os.environ[key]}" for key in ("GLIBC_TUNABLES", "LD_PRELOAD") if os.environ.get(key))
    threads = torch.get_num_threads()
    return f"{device} ({name}), {threads} threads, torch {torch.__version__}, allocator: {allocator or 'default'}"
