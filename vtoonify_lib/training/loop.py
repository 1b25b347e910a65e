"""One training loop for every network: resume, average, log, sample. It is independent of what is trained.

A run is a folder: `last.pt` (weights, optimisers, iteration), `log.csv` (mean losses) and `samples/` (pictures). Random
numbers are a function of (seed, iteration), see `rng_for`, so on a CPU an interrupted run ends in the same weights as
an uninterrupted one. Losses, precision and devices are up to the step function that the caller passes.
"""

from __future__ import annotations

import copy
import csv
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..config import VToonifyError
from ..models.layers import EqualConv2d, EqualLinear, ModulatedConv2d

SAVE_SECONDS = 180
EMA_DECAY = 0.5 ** (32 / 10_000)  # StyleGAN2's: half-life of 10 000 pictures at batch 32
SHORT_EMA_DECAY = 0.998  # of runs of some thousand iterations: half-life of 350
EQUALISED_LR_SCALE = 5.0  # learning rate of equalised layers, as a multiple of the others'


class EMA:
    """Exponential moving average of a module's parameters; buffers are copied. `ema.model` is the averaged module."""

    def __init__(self, model: nn.Module, decay: float = EMA_DECAY):
        self.model, self.decay = copy.deepcopy(model).eval().requires_grad_(False), decay

    @torch.no_grad()
    def update(self, model: nn.Module, iteration: int) -> None:
        """Average in the model's weights; early on the average is shorter, so that it does not remember the start."""
        decay = min(self.decay, (1 + iteration) / (10 + iteration))
        mine, theirs = (list(m.parameters()) for m in (self.model, model))  # all at once: one by one costs a GPU time
        torch._foreach_lerp_(mine, [p.detach() for p in theirs], 1 - decay)
        for mine, theirs in zip(self.model.buffers(), model.buffers(), strict=True):
            mine.copy_(theirs)

    def state_dict(self) -> dict[str, Tensor]:
        """State of the averaged module, under the module's own names."""
        return self.model.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Reverse of :meth:`state_dict`."""
        self.model.load_state_dict(state)


def rng_for(seed: int, iteration: int, device: str | torch.device = "cpu") -> torch.Generator:
    """The random generator of one iteration, which depends on (seed, iteration) alone."""
    return torch.Generator(device).manual_seed(seed * 1_000_003 + iteration)


def warm_cosine(lr: float, i: float, iterations: float, warmup: int = 1, floor: float = 0.0, done: int | None = None
                ) -> float:
    """Learning rate of iteration i: up to `lr` within `warmup` iterations, down a half cosine to the share `floor`.

    done  iterations done so far, where i and `iterations` are seconds or shares. A plain float comes back: checkpoints
    hold it, and torch.load(weights_only=True) refuses NumPy's numbers.
    """
    warm = min(1.0, ((i if done is None else done) + 1) / warmup)
    return float(lr * warm * (floor + (1 - floor) * (0.5 + 0.5 * np.cos(np.pi * i / iterations))))


@dataclass(frozen=True)
class Stage:
    """Part of a generator's training: resolution (None: full), iterations, batch."""

    size: int | None
    iterations: int
    batch: int = 32

    def until(self, full: int) -> int | None:
        """The argument `until` of training: the resolution, None for `full`. VToonifyError above `full`."""
        if self.size is not None and self.size > full:
            raise VToonifyError(f"a stage trains up to {self.size} px and the generator has {full}; leave its size out")
        return None if self.size == full else self.size


def check_stages(stages: Sequence[Stage], full: int) -> None:
    """Raise VToonifyError unless the last stage trains every layer of a generator of `full` pixels."""
    if stages and stages[-1].until(full) is not None:
        raise VToonifyError(f"the last stage trains up to {stages[-1].size} px and the generator has {full}, whose "
                            "finest layers would stay as they began; give the last stage size None")


class Clock:
    """The time of a run that has so many seconds in all, interruptions not counted. A part of its checkpoints."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.before, self.began = seconds, 0.0, time.monotonic()

    def spent(self) -> float:
        """Seconds of this run so far, those before an interruption included."""
        return self.before + time.monotonic() - self.began

    def share(self) -> float:
        """How much of the time is over, 0 … 1."""
        return min(1.0, self.spent() / self.seconds) if self.seconds > 0 else 1.0

    def state_dict(self) -> dict[str, float]:
        return {"spent": self.spent()}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.before, self.began = float(state["spent"]), time.monotonic()


def optimizer_step(loss: Tensor, optimizer: torch.optim.Optimizer, lr: float | None = None,
                   clip: float | None = None) -> None:
    """One step of the optimiser on a scalar loss; `clip` bounds the whole gradient's norm.

    lr  learning rate, times the "lr_scale" of those parameter groups that have one
    """
    if lr is not None:
        for group in optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if clip is not None:
        nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], clip)
    optimizer.step()


def equalised_rates(module: nn.Module) -> list[dict]:
    """What learns in a module, as Adam's parameter groups for `optimizer_step`: equalised layers at a higher rate.

    Equalised weights have unit variance, so a step moves them little. T_c and ModRes start next to nothing: at the
    rate of other layers they would hardly have left it when the training ends.
    """
    rates = {}
    for part in module.modules():
        if isinstance(part, EqualConv2d | EqualLinear | ModulatedConv2d):
            rate = EQUALISED_LR_SCALE / getattr(part, "lr_mul", 1.0)
            rates |= {p: rate for p in part.parameters(recurse=False)}
    learning = [p for p in module.parameters() if p.requires_grad]
    return [{"params": [p for p in learning if rates.get(p, 1.0) == rate], "lr_scale": rate}
            for rate in sorted({rates.get(p, 1.0) for p in learning})]


def save_checkpoint(path: Path, iteration: int, parts: dict) -> None:
    """Write to a temporary name, then rename: a disconnect cannot leave half a checkpoint."""
    temporary = path.with_suffix(".tmp")
    torch.save({"iteration": iteration, **{name: part.state_dict() for name, part in parts.items()}}, temporary)
    os.replace(temporary, path)


def load_checkpoint(path: Path, parts: dict) -> int:
    """Load every part in place → the iteration that comes next.

    Raises VToonifyError for a file that cannot be read, and for one written by another kind or size of run.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch knows many for a damaged file, and its words advise to read it unsafely
        raise VToonifyError(f"{path} cannot be read; remove it to start the run again ({type(error).__name__})",
                            code="unreadable") from error
    missing = [name for name in ("iteration", *parts) if not isinstance(state, dict) or name not in state]
    if missing:
        raise VToonifyError(f"{path} has no {', '.join(missing)}; it belongs to another kind of run, "
                            "choose another folder")
    for name, part in parts.items():
        try:
            part.load_state_dict(state[name])
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise VToonifyError(f"{name} in {path} has another size or content than this run's; choose another folder "
                                f"({str(error).partition(chr(10))[0]})", code="mismatch") from error
    return state["iteration"]


def iterations_done(folder: str | os.PathLike) -> int:
    """How far the run in `folder` has come, 0 when it has no checkpoint yet."""
    last = Path(folder) / "last.pt"
    return load_checkpoint(last, {}) if last.exists() else 0


def run(folder: str | os.PathLike, iterations: int, step: Callable[[int], dict[str, float]], parts: dict,
        sample: Callable[[int], object] | None = None, sample_every: int = 250, log_every: int = 20,
        clock: Clock | None = None, title: str = "training") -> int:
    """Call step(i) for i = start … iterations−1, where start is what the checkpoint in `folder` says.

    step      → named losses (floats, or tensors, which are not waited for); it does its own optimiser step
    parts     name → module, optimiser or EMA: what is saved and restored
    sample    sample(i) → a PIL picture, written to folder/samples
    clock     stop when it has no time for another step, whichever call's time it was; one of the parts
    → iterations done so far
    """
    folder = Path(folder)
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    last = folder / "last.pt"
    i = load_checkpoint(last, parts) if last.exists() else 0
    started = saved = time.monotonic()
    took = 0.0  # by the last step
    window: dict[str, list[float | Tensor]] = {}  # losses since the last line of the log
    with tqdm(total=iterations, initial=i, desc=title, mininterval=5) as bar:
        while i < iterations and not _over(clock, took):
            before = time.monotonic()
            for name, value in step(i).items():
                window.setdefault(name, []).append(value)
            i, took = i + 1, time.monotonic() - before
            bar.update()
            if i % log_every == 0 or i == iterations or _over(clock, took):
                means = {name: sum(map(float, values)) / len(values) for name, values in window.items()}
                window = {}
                _log(folder / "log.csv", {"iteration": i, "seconds": round(time.monotonic() - started, 1), **means})
                bar.set_postfix({k: f"{v:.4f}" for k, v in means.items()}, refresh=False)
            if sample and (i % sample_every == 0 or i == iterations):
                sample(i).save(folder / "samples" / f"{i:07d}.jpg", quality=90)
            if time.monotonic() - saved > SAVE_SECONDS:
                save_checkpoint(last, i, parts)
                saved = time.monotonic()
    save_checkpoint(last, i, parts)
    return i


def _over(clock: Clock | None, took: float) -> bool:
    """Whether the clock has no time for another step."""
    return clock is not None and clock.spent() + took > clock.seconds


def _log(path: Path, row: dict[str, float]) -> None:
    """Write one row, `iteration` first. Rows of iterations that are done again go; a new loss gets a column."""
    header: list[str] = []
    rows: list[list[str]] = []
    if path.exists():
        with path.open(newline="") as file:
            header, *rows = list(csv.reader(file)) or [[]]
    header += [name for name in row if name not in header]
    rows = [[*old, *[""] * (len(header) - len(old))] for old in rows if old and int(old[0]) < row["iteration"]]
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows, [_text(row.get(name, "")) for name in header]])
    os.replace(temporary, path)


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
