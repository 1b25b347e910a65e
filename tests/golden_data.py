"""Reader of `tests/golden/`: published file formats and reference outputs, built from keys (see golden/README.md)."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).parent / "golden"


def rand(key: str, shape: list[int]) -> np.ndarray:
    """Standard normal array that depends on nothing but its key."""
    bits = np.random.Philox(key=zlib.crc32(key.encode()))
    return np.random.Generator(bits).standard_normal(int(np.prod(shape))).reshape(shape)


def value(key: str, shape: list[int], init: dict, dtype: str = "float32") -> torch.Tensor:
    """One state-dict entry by its rule."""
    rule = init["rule"]
    if rule == "fir":
        taps = np.array([1.0, 3, 3, 1])
        array = np.outer(taps, taps) / 64 * init["gain"]
    elif rule == "normal":
        array = init.get("mean", 0.0) + init["std"] * rand(key, shape)
    elif rule == "half_one":
        array = init["std"] * rand(key, shape) + (np.arange(shape[0]) < shape[0] // 2)
    elif rule == "abs":
        array = init["base"] + init["std"] * np.abs(rand(key, shape))
    elif rule == "values":
        array = np.reshape(init["values"], shape)
    else:
        raise NotImplementedError(rule)
    return torch.from_numpy(np.asarray(array, dtype=dtype))


def manifest(case: str) -> list[dict]:
    """Entries of one module's state dict, in order."""
    return json.loads((FOLDER / f"{case}.json").read_text())["entries"]


def state_dict(case: str, prefix: str = "") -> dict[str, torch.Tensor]:
    """The state dict of a case; `prefix` changes the keys the values are drawn from, not the names."""
    return {e["name"]: value(prefix + e["name"], e["shape"], e["init"], e["dtype"]) for e in manifest(case)}


def block_state(case: str, block: str) -> dict[str, torch.Tensor]:
    """Entries `<block>.<name>` of a manifest that lists many blocks."""
    dot = f"{block}."
    return {k.removeprefix(dot): v for k, v in state_dict(case).items() if k.startswith(dot)}


class Case:
    """Inputs and sampled outputs of one case."""

    def __init__(self, name: str):
        with np.load(FOLDER / f"{name}.npz") as file:
            self.arrays = dict(file)
        meta = json.loads(str(self.arrays["meta"]))
        self.inputs = {}
        for key, recipe in meta["inputs"].items():
            x = recipe["std"] * rand(recipe["key"], recipe["shape"])
            x = x if recipe["clip"] is None else x.clip(-recipe["clip"], recipe["clip"])
            self.inputs[key] = torch.from_numpy(x.astype(np.float32))

    def check(self, output: str, actual: torch.Tensor, tolerance: float = 1e-4) -> float:
        """Compare samples (relative to the largest) and statistics; → relative error of the samples."""
        a = actual.detach().double().numpy()
        assert list(a.shape) == self.arrays[f"{output}/shape"].tolist(), f"{output}: shape {a.shape}"
        expected = self.arrays[f"{output}/sample"].astype(np.float64)
        sample = a.reshape(-1)[:: int(self.arrays[f"{output}/stride"])]
        error = float(np.abs(sample - expected).max() / max(np.abs(expected).max(), 1e-30))  # all zeros: must be equal
        assert error <= tolerance, f"{output}: relative error {error:.2e}"
        stats = np.array([a.mean(), a.std(), a.min(), a.max(), np.abs(a).mean()])
        np.testing.assert_allclose(stats, self.arrays[f"{output}/stats"], rtol=tolerance,
                                   atol=tolerance * np.abs(a).max(), err_msg=output)
        return error
