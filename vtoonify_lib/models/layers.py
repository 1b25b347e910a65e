"""Layers of StyleGAN2 (arXiv 1912.04958) and of DualStyleGAN's ModRes in plain PyTorch: any device, no compiled ops.

Attribute names are those of the published checkpoints. Three rewrites keep the numbers and save time, in training too:

* the [1,3,3,1] blur is a depthwise convolution, and x2 up-sampling its transpose;
* a modulated convolution scales its *input* by the style and its *output* by the demodulation, so that one shared
  kernel serves the batch: conv(x, W·s) = conv(x·s, W);
* √2 after leaky ReLU goes in front of it, because leaky ReLU is positively homogeneous.

Networks call :func:`channels_last` on what they read: on a CPU, training is two to six times faster that way.
Everything is differentiable twice (R1, path length). Layers follow the input's dtype; blur kernels are cast to it.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.2  # of every leaky ReLU in StyleGAN2
SQRT2 = math.sqrt(2.0)  # keeps unit variance through a leaky ReLU, roughly
FIR = (1, 3, 3, 1)  # StyleGAN2's resampling filter


def fir_kernel(gain: float = 1.0) -> Tensor:
    """FIR along both axes, [4,4], whose sum is `gain`."""
    k = torch.tensor(FIR, dtype=torch.float32)
    k = torch.outer(k, k)
    return k / k.sum() * gain


def filtered(x: Tensor, kernel: Tensor, pad: int = 0, down: int = 1) -> Tensor:
    """Pad x [B,C,H,W], convolve each channel with `kernel` [k,k], keep every `down`-th sample."""
    kernel = kernel.to(x.dtype).expand(x.shape[1], 1, *kernel.shape)
    return F.conv2d(x, kernel.flip(2, 3), stride=down, padding=pad, groups=x.shape[1])


def channels_last(x: Tensor) -> Tensor:
    """The same [B,C,H,W] tensor with channels innermost in memory, where depthwise convolutions are fast."""
    return x.contiguous(memory_format=torch.channels_last)


class PixelNorm(nn.Module):
    """Scale the last axis of a code to unit mean square."""

    def forward(self, z: Tensor) -> Tensor:
        return z * torch.rsqrt(z.square().mean(-1, keepdim=True) + 1e-8)


class Upsample(nn.Module):
    """x2 larger, [B,C,H,W] → [B,C,2H,2W]."""

    def __init__(self):
        super().__init__()
        self.register_buffer("kernel", fir_kernel(gain=4))

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.kernel.to(x.dtype).expand(x.shape[1], 1, *self.kernel.shape)
        # A transposed convolution writes x[m]·kernel at 2·m: zero insertion and filter at once, without the zeros.
        return F.conv_transpose2d(x, kernel, stride=2, padding=1, groups=x.shape[1])


class Blur(nn.Module):
    """The filter alone, at a given padding; `down` keeps every second sample, `gain` 4 follows a zero insertion."""

    def __init__(self, pad: int, gain: float = 1.0, down: int = 1):
        super().__init__()
        self.pad, self.down = pad, down
        self.register_buffer("kernel", fir_kernel(gain))

    def forward(self, x: Tensor) -> Tensor:
        return filtered(x, self.kernel, self.pad, self.down)


def leaky_relu_sqrt2(x: Tensor, bias: Tensor) -> Tensor:
    """√2 · leaky_relu(x + bias), bias already shaped for broadcasting."""
    return F.leaky_relu(torch.add(bias * SQRT2, x, alpha=SQRT2), SLOPE, inplace=True)


class FusedLeakyReLU(nn.Module):
    """Bias [C], leaky ReLU and √2 over [B,C,H,W]."""

    def __init__(self, channels: int):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return leaky_relu_sqrt2(x, self.bias.to(x.dtype)[:, None, None])


class EqualLinear(nn.Module):
    """Linear layer with equalised learning rate: weight N(0,1)/lr_mul, scaled by lr_mul/√in at run time."""

    def __init__(self, d_in: int, d_out: int, bias_init: float = 0.0, lr_mul: float = 1.0, activate: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(d_out, d_in) / lr_mul)
        self.bias = nn.Parameter(torch.full((d_out,), bias_init / lr_mul))
        self.scale, self.lr_mul, self.activate = lr_mul / math.sqrt(d_in), lr_mul, activate

    def forward(self, x: Tensor) -> Tensor:
        if self.activate:
            y = F.linear(x, self.weight * self.scale)
            return leaky_relu_sqrt2(y, self.bias.to(y.dtype) * self.lr_mul)
        return F.linear(x, self.weight * self.scale, self.bias * self.lr_mul)


class EqualConv2d(nn.Module):
    """Convolution without bias, with equalised learning rate: weight N(0,1), scaled by 1/√fan_in at run time."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(c_out, c_in, kernel, kernel))
        self.scale = 1 / math.sqrt(c_in * kernel**2)
        self.stride, self.padding, self.dilation = stride, padding, dilation

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.scale, None, self.stride, self.padding, self.dilation)


class ConvLayer(nn.Sequential):
    """[blur] → EqualConv2d → FusedLeakyReLU, the discriminator's and ModRes's layer; `down` halves the size."""

    def __init__(self, c_in: int, c_out: int, kernel: int, down: bool = False, dilation: int = 1,
                 activate: bool = True):
        layers: list[nn.Module] = []
        if down and kernel == 1:  # sampling commutes with a 1x1 convolution, so blur only what is kept
            layers += [Blur(1, down=2), EqualConv2d(c_in, c_out, 1)]
        elif down:
            layers += [Blur(2), EqualConv2d(c_in, c_out, kernel, stride=2)]
        else:
            pad = dilation * (kernel // 2)
            layers += [EqualConv2d(c_in, c_out, kernel, padding=pad, dilation=dilation)]
        super().__init__(*layers, *([FusedLeakyReLU(c_out)] if activate else []))


class ModulatedConv2d(nn.Module):
    """Convolution whose input channels are scaled by a style, and whose output is brought back to unit variance.

    x [B,I,H,W], style [B,D] → [B,O,H,W], twice the size with `up`. StyleGAN2 Eq. (1)–(3).
    """

    def __init__(self, c_in: int, c_out: int, kernel: int, style_dim: int, demodulate: bool = True, up: bool = False):
        super().__init__()
        self.kernel, self.demodulate, self.up = kernel, demodulate, up
        self.scale = 1 / math.sqrt(c_in * kernel**2)
        self.weight = nn.Parameter(torch.randn(1, c_out, c_in, kernel, kernel))
        if up:
            self.blur = Blur(1, gain=4)
        self.modulation = EqualLinear(style_dim, c_in, bias_init=1.0)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        weight = self.weight[0] * self.scale  # [O,I,k,k]
        s = self.modulation(style)  # [B,I]
        x = x * s.to(x.dtype)[:, :, None, None]
        if self.up:
            y = self.blur(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2))
        else:
            y = F.conv2d(x, weight, padding=self.kernel // 2)
        if self.demodulate:
            y = y * self.demodulation(s).to(y.dtype)[:, :, None, None]
        return y

    def demodulation(self, s: Tensor) -> Tensor:
        """1/‖W·s‖ for each output channel, modulation s [B,I] → [B,O], in the weight's dtype (autocast or not)."""
        energy = (self.weight[0] * self.scale).square().sum((2, 3))  # [O,I]
        return torch.rsqrt((s.to(energy.dtype).square()[:, None] * energy).sum(2) + 1e-8)

    def folded_weight(self, style: Tensor) -> Tensor:
        """Kernel [O,I,k,k] of a plain convolution that does the same for one style [1,D]."""
        s = self.modulation(style)  # [1,I]
        weight = self.weight[0] * self.scale * s.to(self.weight.dtype)[0, None, :, None, None]
        return weight * self.demodulation(s)[0, :, None, None, None] if self.demodulate else weight


class NoiseInjection(nn.Module):
    """Add noise [B or 1,1,H,W] times a learned strength; None adds nothing."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, noise: Tensor | None) -> Tensor:
        return x if noise is None else x + self.weight.to(x.dtype) * noise.to(x.dtype)


class StyledConv(nn.Module):
    """Modulated 3x3 convolution, noise, bias and activation: x [B,I,H,W], style [B,D] → [B,O,H,W] (x2 with `up`)."""

    def __init__(self, c_in: int, c_out: int, kernel: int, style_dim: int, up: bool = False):
        super().__init__()
        self.conv = ModulatedConv2d(c_in, c_out, kernel, style_dim, up=up)
        self.noise = NoiseInjection()
        self.activate = FusedLeakyReLU(c_out)

    def forward(self, x: Tensor, style: Tensor, noise: Tensor | None = None) -> Tensor:
        if x.shape[0] == 1 and noise is None:
            return self._folded(x, style)
        return self.activate(self.noise(self.conv(x, style), noise))

    def _folded(self, x: Tensor, style: Tensor) -> Tensor:
        """The same for a single picture: style, demodulation and √2 go into the weight, bias into the convolution.

        Five passes over the feature map fewer, which is most of the time of the large layers on a CPU.
        """
        conv, bias = self.conv, (self.activate.bias * SQRT2).to(x.dtype)
        weight = (conv.folded_weight(style) * SQRT2).to(x.dtype)
        if conv.up:
            y = conv.blur(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2))
            y = y.add_(bias[:, None, None])  # as the blur's own bias it would make that backward pass ten times slower
        else:
            y = F.conv2d(x, weight, bias, padding=conv.kernel // 2)
        return F.leaky_relu(y, SLOPE, inplace=True)


class ToRGB(nn.Module):
    """Picture of a feature map, added to the up-sampled picture of the resolution below: → [B,3,H,W]."""

    def __init__(self, c_in: int, style_dim: int, up: bool = True):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))
        if up:
            self.upsample = Upsample()
        self.conv = ModulatedConv2d(c_in, 3, 1, style_dim, demodulate=False)

    def forward(self, x: Tensor, style: Tensor, skip: Tensor | None = None) -> Tensor:
        rgb = self.conv(x, style) + self.bias.to(x.dtype)
        return rgb if skip is None else rgb + self.upsample(skip)


class AdaIN(nn.Module):
    """Adaptive instance norm: γ(style)·(x − mean)/std + β(style), style [B,D]."""

    def __init__(self, channels: int, style_dim: int):
        super().__init__()
        self.style = nn.Linear(style_dim, 2 * channels)
        with torch.no_grad():
            self.style.bias.copy_(torch.cat([torch.ones(channels), torch.zeros(channels)]))

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        gamma, beta = self.style(style)[:, :, None, None].chunk(2, dim=1)
        return gamma * F.instance_norm(x) + beta


class AdaResBlock(nn.Module):
    """DualStyleGAN's modulative residual block: x + degree·f(x, style), f = twice AdaIN and convolution.

    x [B,C,H,W], style [B,D], degree a float or [B].
    """

    def __init__(self, channels: int, style_dim: int, dilation: int = 1):
        super().__init__()
        self.conv = ConvLayer(channels, channels, 3, dilation=dilation)
        self.conv2 = ConvLayer(channels, channels, 3, dilation=dilation)
        self.norm = AdaIN(channels, style_dim)
        self.norm2 = AdaIN(channels, style_dim)

    def forward(self, x: Tensor, style: Tensor, degree: Tensor | float = 1.0) -> Tensor:
        y = self.conv(self.norm(x, style))
        y = self.conv2(self.norm2(y, style))
        return x + torch.as_tensor(degree, dtype=x.dtype, device=x.device).reshape(-1, 1, 1, 1) * y
