"""Small files in every published format, laid out like the repository: the structure of the real ones, tiny sizes."""

from __future__ import annotations

import argparse
import dataclasses
import io
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from vtoonify_lib.config import TINY
from vtoonify_lib.models import latents
from vtoonify_lib.models.bisenet import BiSeNet
from vtoonify_lib.models.psp import PSP
from vtoonify_lib.models.vtoonify_d import build_vtoonify
from vtoonify_lib.weights.published import PRESETS, Preset, obtain
from vtoonify_lib.weights.published.presets import LANDMARKS

NAMES = ("pixar-d", "pixar-t", "cartoon1", "illustration2-d")
TINY_D = dataclasses.replace(TINY, backbone="dualstylegan")
LAYERS, STYLE_DIM = latents.n_latent(TINY.out_size), TINY.generator.style_dim
PARSER_WIDTH, ENCODER_WIDTH = 8, STYLE_DIM // 8


def checkpoint(backbone: str, seed: int = 0) -> nn.Module:
    """A whole VToonify with random weights; biases and strengths too, so that every weight counts."""
    return _random(lambda: build_vtoonify(TINY_D if backbone == "dualstylegan" else TINY), seed)


def parser() -> BiSeNet:
    return _random(lambda: BiSeNet(width=PARSER_WIDTH), 1)


def encoder() -> PSP:
    return _random(lambda: PSP(LAYERS, ENCODER_WIDTH), 2)


def styles(count: int) -> dict[str, np.ndarray]:
    """What exstyle_code.npy holds."""
    numbers = np.random.default_rng(3).standard_normal((count, 1, LAYERS, STYLE_DIM), dtype=np.float32)
    return {f"portrait {i}.jpg": code for i, code in enumerate(numbers)}


def write_repository(folder: Path, *presets: Preset) -> Path:
    """The files of these presets below `folder`; the parser in torch's older format, as it was published."""
    for preset in presets:
        paths = {role: folder / name for role, name in preset.sources.items()}
        for path in paths.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        network = checkpoint(preset.backbone, seed=sum(map(ord, preset.file)))
        torch.save({"g_ema": network.state_dict()}, paths["vtoonify"])
        torch.save(parser().state_dict(), paths["parsing"], _use_new_zipfile_serialization=False)
        psp = encoder().state_dict()
        torch.save({"state_dict": {k: v for k, v in psp.items() if k != "latent_avg"} | {"decoder.w": torch.ones(3)},
                    "latent_avg": psp["latent_avg"], "opts": vars(argparse.Namespace(n_styles=LAYERS, lr=1e-4))},
                   paths["style_encoder"])
        if preset.is_d:
            np.save(paths["styles"], styles(preset.style + 2))
    return folder


def linked(repository: Path, folder: Path) -> Path:
    """A copy of a repository that may be spoiled."""
    for path in repository.rglob("*.*"):
        target = folder / path.relative_to(repository)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, target)
    return folder


def replace(path: Path, contents) -> None:
    path.unlink()
    torch.save(contents, path)


def write_files(folder: Path, landmark_file: Path) -> Path:
    """A folder laid out like the repository; a landmark model lies where dlib's 68-point file would."""
    write_repository(folder, *(PRESETS[name] for name in NAMES))
    shutil.copyfile(landmark_file, folder / LANDMARKS)
    return folder


def fill_cache(cache: Path, files: Path) -> Path:
    """A cache in which all of them are converted already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VTOONIFY_CACHE", str(cache))
        for name in NAMES:
            quiet(name, files, accept_licence=True)
    return cache


def empty_cache(tmp_path: Path, monkeypatch) -> Path:
    """An empty cache; nothing may try the network, and nobody sits at the terminal."""
    monkeypatch.setenv("VTOONIFY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("VTOONIFY_MODELS", raising=False)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    return tmp_path / "cache"


def quiet(name: str, *arguments, **options) -> Path:
    return obtain(name, *arguments, tell=lambda line: None, progress=False, **options)


def _random(build, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build()
        for name, tensor in module.state_dict().items():
            if tensor.dtype == torch.float32 and tensor.ndim < 2 or name == "latent_avg":
                tensor.copy_(torch.rand_like(tensor) + 0.5 if name.endswith("running_var") else
                             tensor + 0.1 * torch.randn_like(tensor))
    return module.eval().requires_grad_(False)
