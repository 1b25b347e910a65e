"""Tiny networks to train in tests, and what a training did to them."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

from vtoonify_lib.config import TINY
from vtoonify_lib.models.encoders import ParsingNet
from vtoonify_lib.models.stylegan2 import Generator
from vtoonify_lib.training import loop, stylegan, vtoonify

HOLD_OUT, BATCH = 4, 2
SMALL = {"image_size": 32, "width": 8}  # style encoder
WIDTHS = (8, 16, 16)  # parsing net


def fresh(module, seed: int = 3, **arguments):
    """A module whose random weights depend on the seed alone."""
    torch.manual_seed(seed)
    return module(**arguments)


def parsing_net() -> ParsingNet:
    return fresh(ParsingNet, 0, widths=WIDTHS).eval()


def frozen_generator(seed: int) -> Generator:
    return fresh(Generator, seed, config=TINY.generator).requires_grad_(False)


def task() -> vtoonify.VToonifyTask:
    return fresh(vtoonify.VToonifyTask, config=TINY, **SMALL)


def train(task, source, parsing, folder, n, sample_pairs=None, make_adversary=None, criterion=None, **how):
    """`vtoonify.train` for n iterations; how: its settings."""
    settings = vtoonify.TrainingSettings(n, **how)
    return vtoonify.train(task, source, parsing, folder, settings, sample_pairs, make_adversary, criterion)


def distilled() -> stylegan.Distilled:
    return fresh(stylegan.Distilled, config=TINY.generator, **SMALL)


@contextmanager
def killed_after(steps: int) -> Iterator[None]:
    """Trainings write a checkpoint after each step, and end by KeyboardInterrupt in the step after so many."""
    left, optimizer_step = iter(range(steps)), loop.optimizer_step

    def killed(*arguments, **more):
        if next(left, None) is None:
            raise KeyboardInterrupt
        optimizer_step(*arguments, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "SAVE_SECONDS", -1)
        patch.setattr(loop, "optimizer_step", killed)
        yield


def state(*modules: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of all weights; names begin with the number of the module."""
    return {f"{i}.{k}": v.clone() for i, module in enumerate(modules) for k, v in module.state_dict().items()}


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def changed(before: dict, after: dict) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def log_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))
