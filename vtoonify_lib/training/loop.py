"""One training loop for every network: resume, average, log, sample. It knows nothing about what is trained."""
from __future__ import annotations

import copy
import csv
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from tqdm.auto import tqdm

from ..config import VToonifyError

SAVE_SECONDS = 180
EMA_DECAY = 0.5 ** (32 / 10_000)  # SPEC §7: half-life of 10 000 pictures at batch 32


class EMA:
    """Exponential moving average of a module's parameters; buffers are copied. `ema.model` is the averaged module."""

    def __init__(self, model: nn.Module, decay: float = EMA_DECAY):
        self.model, self.decay = copy.deepcopy(model).eval().requires_grad_(False), decay

    @torch.no_grad()
    def update(self, model: nn.Module, iteration: int) -> None:
        """Average in the model's weights; early on the average is shorter, so that it does not remember the start."""
        decay = min(self.decay, (1 + iteration) / (10 + iteration))
        for mine, theirs in zip(self.model.parameters(), model.parameters(), strict=True):
            mine.lerp_(theirs.detach().to(mine.dtype), 1 - decay)
        for mine, theirs in zip(self.model.buffers(), model.buffers(), strict=True):
            mine.copy_(theirs)

    def state_dict(self) -> dict:
        return self.model.state_dict()

    def load_state_dict(self, state: dict) -> None:
        self.model.load_state_dict(state)


def generator(seed: int, iteration: int, device: str | torch.device = "cpu") -> torch.Generator:
    """Random numbers of one iteration."""
    return torch.Generator(device).manual_seed(seed * 1_000_003 + iteration)


def save_checkpoint(path: Path, iteration: int, parts: dict) -> None:
    """Write to a temporary name, then rename: a disconnect cannot leave half a checkpoint."""
    temporary = path.with_suffix(".tmp")
    torch.save({"iteration": iteration, **{name: part.state_dict() for name, part in parts.items()}}, temporary)
    os.replace(temporary, path)


def load_checkpoint(path: Path, parts: dict) -> int:
    """Load every part in place → the iteration that comes next."""
    state = torch.load(path, weights_only=True)
    missing = [name for name in parts if name not in state]
    if missing:
        raise VToonifyError(f"{path} has no {', '.join(missing)}; it belongs to another kind of run, choose another folder")
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return state["iteration"]


def run(folder: str | os.PathLike, iterations: int, step: Callable[[int], dict[str, float]], parts: dict, sample: Callable[[int], object] | None = None,
        sample_every: int = 500, log_every: int = 20, seconds: float | None = None, title: str = "training") -> int:
    """Call step(i) for i = start … iterations−1, where start is what the checkpoint in `folder` says.

    step      → named losses (floats); it does its own optimiser step
    parts     name → module, optimiser or EMA: what is saved and restored
    sample    sample(i) → a PIL picture, written to folder/samples
    seconds   stop early after this long, checkpoint written; the next call goes on
    → iterations done so far
    """
    folder = Path(folder)
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    last = folder / "last.pt"
    i = load_checkpoint(last, parts) if last.exists() else 0
    started = saved = time.monotonic()
    totals: dict[str, float] = {}
    with tqdm(total=iterations, initial=i, desc=title, mininterval=5) as bar:
        while i < iterations and (seconds is None or time.monotonic() - started < seconds):
            for name, value in step(i).items():
                totals[name] = totals.get(name, 0.0) + float(value)
            i += 1
            bar.update()
            if i % log_every == 0 or i == iterations:
                means = {name: total / log_every for name, total in totals.items()}
                totals = {}
                _log(folder / "log.csv", {"iteration": i, "seconds": round(time.monotonic() - started, 1), **means})
                bar.set_postfix({k: f"{v:.4f}" for k, v in means.items()}, refresh=False)
            if sample and (i % sample_every == 0 or i == iterations):
                sample(i).save(folder / "samples" / f"{i:07d}.jpg", quality=90)
            if time.monotonic() - saved > SAVE_SECONDS:
                save_checkpoint(last, i, parts)
                saved = time.monotonic()
    save_checkpoint(last, i, parts)
    return i


def _log(path: Path, row: dict) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(row)
        writer.writerow([f"{v:.6g}" if isinstance(v, float) else v for v in row.values()])
