"""Choice of device and precision, and their errors. Depends on torch only."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from time import perf_counter

import torch
from torch.nn.functional import conv2d

from ..config import VToonifyError

MOST_AT_ONCE = 8  # frames of a clip
DEVICES = ("cpu", "cuda", "mps", "xpu")
OUT_OF_MEMORY = ("out of memory", "allocate memory", "alloc_failed", "unable to find an engine")
"""What errors say of it: torch's own, the CPU's, cuBLAS' and cuDNN's, and cuDNN's without room to work in."""
CPU_INFO = Path("/proc/cpuinfo")
BFLOAT16_GAIN = 1.3  # least speed-up over float32 for which bfloat16 is worth its rounding


def pick_device(name: str | torch.device = "auto") -> torch.device:
    """The torch device of that name; VToonifyError when it is unknown or not in this machine."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in DEVICES:
        raise VToonifyError(f"unknown device {str(name)!r}; use auto, {', '.join(DEVICES)}, or a numbered one (cuda:1)")
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise VToonifyError(f"device {name} cannot be used on this machine; use --device cpu, or auto") from error
    return device


def pick_dtype(device: torch.device) -> torch.dtype:
    """The fastest precision that draws the same picture: half on CUDA, bfloat16 where the CPU is fast in it."""
    if device.type == "cuda":
        return torch.float16
    if device.type == "cpu" and fast_bfloat16():
        return torch.bfloat16
    return torch.float32


def autocast(device: str | torch.device) -> torch.autocast:
    """Mixed precision for training: bfloat16 where that is faster, else plain float32."""
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda" or (kind == "cpu" and fast_bfloat16()))


@cache
def fast_bfloat16() -> bool:
    """Whether this CPU convolves clearly faster in bfloat16 than in float32.

    Known for x86 where the system tells what it has: a busy machine must not change the answer, for pictures are
    repeated to the bit. Measured elsewhere, once a process, in some 50 ms.
    """
    known = _known_bfloat16(CPU_INFO)
    return known if known is not None else _conv_seconds(torch.float32) > BFLOAT16_GAIN * _conv_seconds(torch.bfloat16)


def _known_bfloat16(path: Path) -> bool | None:
    """AMX and AMD's AVX512-BF16 more than double the speed, Intel's AVX512-BF16 without AMX halves it; else None."""
    try:
        text = path.read_text()
    except OSError:
        return None
    flags = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    if not flags:
        return None
    has = set(flags[1].split())
    return "amx_bf16" in has or ("avx512_bf16" in has and "AuthenticAMD" in text)


def processor() -> str:
    """The name of this machine's processor, for people."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", CPU_INFO.read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def _conv_seconds(dtype: torch.dtype, rounds: int = 5) -> float:
    """The best time of a 3x3 convolution of 64 channels over 64×64 pixels; the first round only warms up."""
    x, weight = (torch.zeros(shape, dtype=dtype).to(memory_format=torch.channels_last)
                 for shape in ((4, 64, 64, 64), (64, 64, 3, 3)))
    times = []
    with torch.inference_mode():
        for _ in range(rounds + 1):
            start = perf_counter()
            conv2d(x, weight, padding=1)
            times.append(perf_counter() - start)
    return min(times[1:])


def out_of_memory(error: BaseException) -> bool:
    """Whether an error reports that a device is out of memory."""
    by_message = any(words in str(error).lower() for words in OUT_OF_MEMORY)
    return by_message or isinstance(error, MemoryError | torch.OutOfMemoryError)


def frames_that_fit(device: torch.device, draw_one: Callable[[], object]) -> int:
    """How many frames a device should draw at a time: on CUDA what half of its free memory holds, else one.

    draw_one  draws a frame as large as they will be, to see what it needs
    """
    if device.type != "cuda":
        return 1
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    draw_one()
    needed = torch.cuda.max_memory_allocated(device) - before
    return max(1, min(MOST_AT_ONCE, torch.cuda.mem_get_info(device)[0] // 2 // max(needed, 1)))


@contextmanager
def memory_errors(device: torch.device, what: str) -> Iterator[None]:
    """Turn torch's out-of-memory errors, which differ per device, into one sentence."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if out_of_memory(error):
            raise VToonifyError(f"not enough memory on {device} for {what}; use a smaller padding, another device, "
                                "or close other programs") from error
        raise
