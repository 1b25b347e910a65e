"""StyleGAN2's layers (arXiv 1912.04958, appendix B) the way they are usually written: what all other forms are held
against. The numbers are those of `models.layers`; what it rewrote to save time is undone.

* every picture gets a kernel of its own, modulated and demodulated, and is one group of a grouped convolution;
* up-sampling writes zeros between the samples, and each channel goes through the filter as a picture of its own;
* noise is drawn, though VToonify multiplies it by zero; bias, activation and √2 are a pass each;
* channels stay outermost in memory.
"""

from __future__ import annotations

import copy
from types import MethodType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...models.layers import SLOPE, SQRT2, Blur, FusedLeakyReLU, ModulatedConv2d, NoiseInjection, StyledConv, Upsample
from ...models.vtoonify import VToonify


def textbook(network: nn.Module) -> nn.Module:
    """Copy of a VToonify whose layers compute the long way; of a network without such layers, simply a copy.

    What VToonify has no use for, down-sampling among it, is not undone: only a VToonify computes the same.
    """
    network = copy.deepcopy(network)
    for module in network.modules():
        if type(module) in LONG_WAYS:
            module.forward = MethodType(LONG_WAYS[type(module)], module)
    if isinstance(network, VToonify):
        network.encoder[0].register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),))
    return network


def _modulated_conv(self: ModulatedConv2d, x: Tensor, style: Tensor) -> Tensor:
    b, c_in, h, w = x.shape
    weight = self.scale * self.weight * self.modulation(style)[:, None, :, None, None]  # [B,O,I,k,k]
    if self.demodulate:
        weight = weight * torch.rsqrt(weight.square().sum((2, 3, 4), keepdim=True) + 1e-8)
    c_out, x = weight.shape[1], x.reshape(1, b * c_in, h, w)
    if self.up:
        y = F.conv_transpose2d(x, weight.transpose(1, 2).flatten(0, 1), stride=2, groups=b)
        return self.blur(y.unflatten(1, (b, c_out))[0])
    y = F.conv2d(x, weight.flatten(0, 1), padding=self.kernel // 2, groups=b)
    return y.unflatten(1, (b, c_out))[0]


def _styled_conv(self: StyledConv, x: Tensor, style: Tensor, noise: Tensor | None = None) -> Tensor:
    return self.activate(self.noise(self.conv(x, style), noise))


def _noise(self: NoiseInjection, x: Tensor, noise: Tensor | None) -> Tensor:
    drawn = x.new_empty(len(x), 1, *x.shape[2:]).normal_() if noise is None else noise
    return x + (0 if noise is None else self.weight) * drawn


def _fused_leaky_relu(self: FusedLeakyReLU, x: Tensor) -> Tensor:
    return F.leaky_relu(x + self.bias[:, None, None], SLOPE) * SQRT2


def _filtered(x: Tensor, kernel: Tensor, pad: tuple[int, int]) -> Tensor:
    b, c = x.shape[:2]
    y = F.pad(x.reshape(b * c, 1, *x.shape[2:]), [*pad, *pad])
    return F.conv2d(y, kernel.to(x.dtype).flip(0, 1)[None, None]).unflatten(0, (b, c))[:, :, 0]


def _blur(self: Blur, x: Tensor) -> Tensor:
    return _filtered(x, self.kernel, (self.pad, self.pad))


def _upsample(self: Upsample, x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    y = x.new_zeros(b, c, 2 * h, 2 * w)
    y[:, :, ::2, ::2] = x
    return _filtered(y, self.kernel, (2, 1))


LONG_WAYS = {ModulatedConv2d: _modulated_conv, StyledConv: _styled_conv, NoiseInjection: _noise,
             FusedLeakyReLU: _fused_leaky_relu, Blur: _blur, Upsample: _upsample}
