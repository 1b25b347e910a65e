"""Where networks run and in which precision, how many frames at a time, and what is said when memory runs out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vtoonify_lib.config import VToonifyError
from vtoonify_lib.models import devices
from vtoonify_lib.models.devices import autocast, memory_errors, pick_device, pick_dtype


@pytest.mark.parametrize("gain", [2.5, 1.1, 0.6])
def test_bfloat16_only_where_it_is_faster(gain, monkeypatch):
    seconds = {torch.float32: gain, torch.bfloat16: 1.0}
    monkeypatch.setattr(devices, "fast_bfloat16", devices.fast_bfloat16.__wrapped__)
    monkeypatch.setattr(devices, "CPU_INFO", Path("/nowhere/cpuinfo"))
    monkeypatch.setattr(devices, "_conv_seconds", seconds.get)
    wanted = torch.bfloat16 if gain > 2 else torch.float32
    assert pick_dtype(torch.device("cpu")) == wanted
    with autocast("cpu"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == wanted


@pytest.mark.parametrize(("told", "fast"), [
    ("vendor_id : GenuineIntel\nflags : fpu avx512_bf16 amx_bf16\n", True),
    ("vendor_id : GenuineIntel\nflags : fpu avx512_bf16\n", False),
    ("vendor_id : AuthenticAMD\nflags : fpu avx512_bf16\n", True),
    ("vendor_id : AuthenticAMD\nflags : fpu avx2\n", False), ("Features : fp asimd bf16\n", None)])
def test_what_a_processor_is_known_for(told, fast, tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text(told)
    monkeypatch.setattr(devices, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(devices, "_conv_seconds", lambda dtype: 1.0 if fast is None else pytest.fail("measured"))
    assert devices.fast_bfloat16.__wrapped__() == bool(fast)


def test_devices(monkeypatch):
    assert pick_device("cpu").type == "cpu" and pick_device(torch.device("cpu")).type == "cpu"
    with pytest.raises(VToonifyError, match="unknown device 'tpu'; use auto, cpu"):
        pick_device("tpu")
    with pytest.raises(VToonifyError, match="unknown device 'meta'"):
        pick_device("meta")
    if not torch.cuda.is_available():
        assert pick_device("auto").type == "cpu"
        with pytest.raises(VToonifyError, match="cuda cannot be used on this machine"):
            pick_device("cuda")
    assert pick_dtype(torch.device("cuda")) == torch.float16
    monkeypatch.setattr("vtoonify_lib.models.devices.fast_bfloat16", lambda: True)
    assert pick_dtype(torch.device("cpu")) == torch.bfloat16 and pick_dtype(torch.device("mps")) == torch.float32


def test_a_gpu_takes_as_many_frames_as_half_its_memory_holds(monkeypatch):
    assert devices.frames_that_fit(torch.device("cpu"), lambda: 1 / 0) == 1
    used = {"now": 100, "peak": 100}
    for name, value in {"reset_peak_memory_stats": lambda _: None, "memory_allocated": lambda _: used["now"],
                        "max_memory_allocated": lambda _: used["peak"]}.items():
        monkeypatch.setattr(torch.cuda, name, value)

    def drawn(need, free):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, 10**6))
        return devices.frames_that_fit(torch.device("cuda"), lambda: used.update(peak=100 + need))

    assert [drawn(100, 1000), drawn(100, 10**5), drawn(1000, 1000)] == [5, devices.MOST_AT_ONCE, 1]


def test_out_of_memory_is_one_sentence():
    for error in (torch.OutOfMemoryError("CUDA"), MemoryError(), RuntimeError("can't allocate memory: 9 bytes"),
                  RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")):
        with pytest.raises(VToonifyError, match="not enough memory on cpu for a crop; use a smaller"):
            with memory_errors(torch.device("cpu"), "a crop"):
                raise error
    with pytest.raises(RuntimeError, match="something else"), memory_errors(torch.device("cpu"), "a crop"):
        raise RuntimeError("something else")
