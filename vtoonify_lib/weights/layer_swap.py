"""Layer-wise weight blending (Toonify, arXiv 2010.05334): coarse layers of one generator, fine layers of another.

The fine-tuned model brings the cartoon's shapes (coarse layers, weight 1), the base model keeps the photo's colours and
textures (fine layers, weight 0). What has no layer of its own (mapping network, constant, noise buffers) comes from the
base, so that both models keep reading the same codes. No training happens here.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence

import torch
from torch import Tensor

from ..config import VToonifyError
from ..models.stylegan2 import Generator

Weights = float | Sequence[float]


def blend(tuned: Generator, base: Generator, weights: Weights) -> Generator:
    """New generator: weight_l · tuned + (1 − weight_l) · base for every style layer l. Parents stay as they are.

    weights: one number for all layers, or one for each of the n_latent layers, in [0,1].
    """
    if tuned.config != base.config:
        raise VToonifyError(f"cannot blend generators of different sizes: {tuned.config} and {base.config}")
    blended = copy.deepcopy(base)
    states = blend_states(tuned.state_dict(), base.state_dict(), layer_weights(weights, base.n_latent))
    blended.load_state_dict(states)
    return blended


def blend_states(tuned: dict[str, Tensor], base: dict[str, Tensor], weights: Sequence[float]) -> dict[str, Tensor]:
    """The same for state dicts with equal keys; `weights` has one number for each layer."""
    blended = {}
    for name, value in base.items():
        layer = layer_of(name)
        blended[name] = value.clone() if layer is None else torch.lerp(value, tuned[name], weights[layer])
    return blended


def layer_of(name: str) -> int | None:
    """Style layer a generator's entry belongs to: convolution i → i+1, to-rgb i → 2i+3; None for all that is shared."""
    if name.startswith("conv1."):
        return 0
    if name.startswith("to_rgb1."):
        return 1
    match = re.match(r"(convs|to_rgbs)\.(\d+)\.", name)
    if match is None:
        return None
    i = int(match[2])
    return i + 1 if match[1] == "convs" else 2 * i + 3


def layer_weights(weights: Weights, layers: int) -> list[float]:
    """One checked weight for each layer."""
    values = [float(weights)] * layers if isinstance(weights, int | float) else [float(v) for v in weights]
    if len(values) != layers:
        raise VToonifyError(f"got {len(values)} blending weights; this generator has {layers} layers, give one each")
    if not all(0 <= v <= 1 for v in values):
        raise VToonifyError(f"blending weights must lie in [0,1]; got {values}")
    return values


def swap_at(resolution: int, layers: int, weight: float = 1.0) -> list[float]:
    """Weights that take layers below `resolution` from the tuned model and the rest from the base: Toonify's swap."""
    coarse = 2 * (resolution.bit_length() - 1) - 5  # first style layer of `resolution`, see latents.style_layers
    return [weight if layer < coarse else 0.0 for layer in range(layers)]
