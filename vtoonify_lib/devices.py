"""Which device and precision to compute with, and what to say when that does not work. Knows torch, nothing of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .config import VToonifyError

DEVICES = ("cpu", "cuda", "mps", "xpu")


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


def fast_bfloat16() -> bool:
    """True on CPUs with AMX, which double float32's speed; AVX512-BF16 alone takes 1.7 times as long as float32."""
    check = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return check is not None and check()


@contextmanager
def memory_errors(device: torch.device, what: str) -> Iterator[None]:
    """Turn torch's out-of-memory errors, which differ per device, into one sentence."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        told = any(words in str(error).lower() for words in ("out of memory", "allocate memory"))
        if told or isinstance(error, MemoryError | torch.OutOfMemoryError):
            raise VToonifyError(f"not enough memory on {device} for {what}; use a smaller padding, another device, "
                                "or close other programs") from error
        raise
