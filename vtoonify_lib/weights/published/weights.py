"""What is in each published file: read as data, sizes deduced from the shapes, every name and shape checked, and what
no frame ever reads left out.

Formats: a checkpoint holds the network under `g_ema`; `encoder.pt` holds pSp under `state_dict`, every
name with `encoder.` in front, and `latent_avg`; `faceparsing.pth` is a BiSeNet's state dict; `exstyle_code.npy` holds a
pickled dict, name → z+ [1,L,D]. Nothing is written here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...config import HANDOFF, GeneratorConfig, VToonifyConfig, VToonifyError
from ...models.bisenet import BiSeNet, PublishedParser
from ...models.psp import PSP
from ...models.vtoonify import VToonify
from ...models.vtoonify_d import build_vtoonify
from ..bundle import check_state, fill
from ..unpickling import read_checkpoint, read_npy

LARGEST_STEPS = 9  # doublings from 4 px; a file that claims more is no VToonify
State = dict[str, torch.Tensor]


class UnfitFile(VToonifyError):
    """A published file that is damaged, hostile, or not what it should be. `path` says which one."""

    def __init__(self, path: Path, message: str, code: str = "unreadable"):
        super().__init__(message, code)
        self.path = path


def read_vtoonify(path: Path, backbone: str) -> VToonify:
    """The network of a checkpoint, built for inference. UnfitFile for another backbone, or a name or shape too many."""
    with fits(path):
        state = _state(read_checkpoint(path), "g_ema")
        config = vtoonify_config(state)
        if config.backbone != backbone:
            raise VToonifyError(f"it is made for the backbone {config.backbone!r}, expected {backbone!r}")
        with torch.device("meta"):
            network = build_vtoonify(config)
        check_state(network.state_dict(), state, str(path))
        used = network.for_inference().state_dict()
        return fill(network, {name: state[name] for name in used}, str(path))


def read_styles(path: Path, layers: int, style_dim: int) -> dict[str, torch.Tensor]:
    """Name → z+ [L,D] of every exemplar, in the order in which they are numbered."""
    with fits(path):
        styles = read_npy(path)
        if not isinstance(styles, dict) or not styles:
            raise VToonifyError("it does not hold style codes; expected a dict of arrays")
        for name, code in styles.items():
            numbers = isinstance(code, np.ndarray) and code.dtype.kind == "f" and np.isfinite(code).all()
            if not numbers or code.shape not in ((1, layers, style_dim), (layers, style_dim)):
                raise VToonifyError(f"style {str(name)[:50]!r} is not a code of finite numbers "
                                    f"[1,{layers},{style_dim}], which this checkpoint reads")
        return {str(name): torch.tensor(code, dtype=torch.float32).reshape(layers, style_dim)
                for name, code in styles.items()}


def read_parser(path: Path) -> tuple[PublishedParser, dict[str, Any]]:
    """BiSeNet without the heads that only training reads → the network and its constructor's arguments."""
    with fits(path):
        state = _state(read_checkpoint(path))
        arguments = {"width": _shape(state, "cp.resnet.conv1.weight")[0]}
        with torch.device("meta"):
            whole, parser = BiSeNet(**arguments).state_dict(), PublishedParser(**arguments)
        check_state(whole, state, str(path))
        return fill(parser, PublishedParser.state_of(state), str(path)), arguments


def read_style_encoder(path: Path) -> tuple[PSP, dict[str, Any]]:
    """pSp's encoder with the average code → the network and its constructor's arguments.

    pSp's decoder, a StyleGAN, may be in the file too and is left out.
    """
    with fits(path):
        contents = read_checkpoint(path)
        state = {k: v for k, v in _state(contents, "state_dict").items() if k.startswith("encoder.")}
        average = contents.get("latent_avg")
        if not isinstance(average, torch.Tensor):
            raise VToonifyError("it has no latent_avg, the average code; expected pSp's checkpoint")
        arguments = {"n_styles": len({k.split(".")[2] for k in state if k.startswith("encoder.styles.")}),
                     "width": _shape(state, "encoder.input_layer.0.weight")[0]}
        with torch.device("meta"):
            encoder = PSP(**arguments)
        layers, style_dim = encoder.latent_avg.shape
        if average.shape in ((style_dim,), (1, style_dim), (1, layers, style_dim)):
            average = average.reshape(-1, style_dim).expand(layers, -1)
        return fill(encoder, {**state, "latent_avg": average}, str(path)), arguments


def vtoonify_config(state: Mapping[str, torch.Tensor]) -> VToonifyConfig:
    """Sizes of a published VToonify, read off the shapes of its weights. VToonifyError when it is none."""
    backbone = "dualstylegan" if any(name.startswith("generator.generator.") for name in state) else "toonify"
    root = "generator.generator" if backbone == "dualstylegan" else "generator"
    convs, layers, fusions = (
        sum(bool(re.fullmatch(pattern, name)) for name in state) for pattern in
        (rf"{root}\.convs\.\d+\.conv\.weight", rf"{root}\.style\.\d+\.weight", r"fusion_skip\.\d+\.weight"))
    steps = convs // 2
    if not 0 < steps <= LARGEST_STEPS or not 0 < fusions <= LARGEST_STEPS or not layers:
        raise VToonifyError("it does not hold a VToonify: its weights have other names")
    widths = [(4, _shape(state, f"{root}.conv1.conv.weight")[1])]
    widths += [(8 << i, _shape(state, f"{root}.convs.{2 * i + 1}.conv.weight")[1]) for i in range(steps)]
    style_dim = _shape(state, f"{root}.conv1.conv.modulation.weight")[1]
    return VToonifyConfig(GeneratorConfig(4 << steps, style_dim, layers, tuple(widths)), HANDOFF << (fusions - 1),
                          backbone)


@contextmanager
def fits(path: Path) -> Iterator[None]:
    """What turns out to be wrong inside is the fault of this file."""
    try:
        yield
    except VToonifyError as error:
        message = str(error)
        code = "unsafe" if error.code == "unsafe" else "unreadable"
        raise UnfitFile(path, message if str(path) in message else f"{path} cannot be used: {message}", code) from error


def _state(contents: Any, key: str | None = None) -> State:
    """The state dict in a checkpoint, possibly under a key."""
    state = contents.get(key) if key and isinstance(contents, dict) else contents
    if not isinstance(state, dict) or not state or not all(isinstance(v, torch.Tensor) for v in state.values()) \
            or not all(isinstance(name, str) for name in state):
        raise VToonifyError("it does not hold the weights of a network" + (f" under {key!r}" if key else ""))
    return state


def _shape(state: Mapping[str, torch.Tensor], name: str) -> Sequence[int]:
    """Shape of a weight from which sizes are deduced: a convolution or a matrix."""
    if name not in state or state[name].ndim < 2 or not state[name].numel():
        raise VToonifyError(f"it does not hold the network it should: {name} is missing or has another shape")
    return state[name].shape
