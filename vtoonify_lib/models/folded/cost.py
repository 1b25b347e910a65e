"""What a frame costs, counted on shapes alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ...config import VToonifyConfig
from ..vtoonify_d import build_vtoonify
from .folding import fold


@dataclass(frozen=True)
class Cost:
    """What one frame costs; multiply-adds of convolutions and matrix products, element-wise work not counted."""

    parameters: int  # of the network as trained and saved
    parameters_used: int  # that the folded form still holds
    macs: int  # folded form, one frame


def report_cost(config: VToonifyConfig, height: int, width: int) -> Cost:
    """Parameters and multiply-adds of a VToonify-T or -D on one H×W frame; takes no memory and no time."""
    with torch.device("meta"):
        network = build_vtoonify(config)
        folded = fold(network, torch.zeros(1, network.generator.n_latent, config.generator.style_dim))
        macs = count_macs(folded, torch.zeros(1, config.input_channels, height, width))
    return Cost(count_parameters(network), count_parameters(folded), macs)


def count_parameters(network: nn.Module) -> int:
    """Numbers in a network's parameters."""
    return sum(p.numel() for p in network.parameters())


def count_macs(network: nn.Module, *inputs: Tensor) -> int:
    """Multiply-adds of one call: convolutions, transposed convolutions and matrix products."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(*inputs)
    return counter.get_total_flops() // 2
