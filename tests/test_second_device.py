"""What a GPU would refuse: tensors of two devices in one operation. No GPU is needed, see `second_device`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("second_device.py")


@pytest.mark.parametrize(("bundle", "drawn"), [("studio-t", ["picture 1", "clip 5"]),
                                               ("studio-d", ["picture 1", "looks 4", "clip 5"])])
def test_a_second_device_draws_the_same(bundle, drawn, tmp_path):
    done = subprocess.run([sys.executable, SCRIPT, bundle, tmp_path], capture_output=True, text=True, check=False)
    if "is not linked with support for cuda devices" in done.stderr or "no NVIDIA driver" in done.stderr:
        pytest.skip("this torch asks for the driver where the one that this was written for does not")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == drawn
