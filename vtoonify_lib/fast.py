"""Inference form of the networks: the same pictures from fewer operations.

One style is used for a whole clip, so everything it touches is folded into the weights beforehand; what is left is a
plain convolutional network. In float32 its numbers are the trained form's to about 1e-6. It has no gradients.

    style        modulation, demodulation and √2 go into the weights (leaky ReLU is positively homogeneous)
    residuals    each 1/√2 of the encoder's residual blocks moves on, into biases and the layers that read the result
    up-sampling  the blur is a depthwise convolution that adds the bias; RGB is doubled by a depthwise transposed one
    memory       channels_last, activations in place, no noise, layers below the hand-off dropped
    precision    any dtype; the picture itself is summed in float32
    batch norm   folded into the convolution before it (parsing network)
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.flop_counter import FlopCounterMode

from . import latents
from .config import INPUT_CHANNELS, VToonifyConfig, VToonifyError
from .models.encoders import ConvNorm
from .models.vtoonify import N_RESIDUAL, VToonify, check_frame
from .ops import SLOPE, SQRT2, StyledConv, ToRGB, channels_last, fir_kernel


def fold(network: nn.Module, w: Tensor | None = None, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Inference form of a network; the original stays as it is.

    A VToonify needs the style code w ([L,D], [1,L,D] or [1,D]) and becomes a :class:`FoldedVToonify`; any other network
    is copied with its batch norms folded. `.to(device, dtype)` works as always.
    """
    with torch.no_grad():
        if isinstance(network, VToonify):
            if w is None:
                raise VToonifyError("folding a VToonify needs a style code; use fold(network, w)")
            return FoldedVToonify(network, w).to(dtype).eval().requires_grad_(False)
        return fold_batch_norm(network).to(dtype).eval().requires_grad_(False)


class FoldedVToonify(nn.Module):
    """VToonify-T with one style folded in: x [B,22,H,W] → float32 [B,3,sH,sW]. Made by :func:`fold`."""

    def __init__(self, network: VToonify, w: Tensor):
        super().__init__()
        codes = latents.to_plus(w[None] if w.ndim == 2 and w.shape[0] != 1 else w, network.generator.n_latent)
        if codes.shape[0] != 1:
            raise VToonifyError(f"got {codes.shape[0]} style codes; one can be folded in: use fold(network, w[i:i+1])")
        codes = codes.to(network.encoder[0][0].weight)
        self.config, self.multiple = network.config, network.multiple
        *down, blocks, to_skip = network.encoder
        self.down = nn.ModuleList(nn.ModuleList(plain_conv(m) for m in stage[::2]) for stage in down)
        self.blocks = nn.ModuleList(
            nn.ModuleList(plain_conv(c, bias_scale=SQRT2**i) for c in (block.conv, block.conv2))
            for i, block in enumerate(blocks))
        self.to_skip = plain_conv(to_skip, input_scale=handoff_scale())
        self.levels = nn.ModuleList(
            FoldedLevel(network, codes, level)
            for level in range(len(latents.kept_resolutions(network.config.out_size))))

    @property
    def dtype(self) -> torch.dtype:
        """What the convolutions compute in."""
        return self.to_skip.weight.dtype

    def forward(self, x: Tensor) -> Tensor:
        check_frame(x, self.multiple)
        details, x = self._encode(channels_last(x.to(self.dtype)))
        skip = self.to_skip(x).float()
        for i, level in enumerate(self.levels):
            x, skip = level(x, skip, details[-1 - i] if i < len(details) else None)
        return skip

    def _encode(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        details = []
        for stage in self.down:
            for conv in stage:
                x = activate(conv(x))
            details.append(x)
        for first, second in self.blocks:  # √2^i times the trained feature after block i
            x = activate(second(activate(first(x)))).add_(x)
        return details, x


class FoldedLevel(nn.Module):
    """One resolution of the folded generator: fuse, double, convolve, add to the picture."""

    def __init__(self, network: VToonify, codes: Tensor, level: int):
        super().__init__()
        g, r = network.generator, latents.kept_resolutions(network.config.out_size)[level]
        first, second, color = latents.style_layers(r)
        conv, rgb = latents.first_kept_conv() + 2 * level, latents.first_kept_to_rgb() + level
        if level < len(network.fusion_out):
            fuse, fuse_skip = network.fusion_out[level], network.fusion_skip[level]
            weight = fuse.weight.clone()
            if level == 0:  # here f_G comes from the residual blocks
                weight[:, : weight.shape[1] // 2] *= handoff_scale()
            self.fuse = make_conv(weight, fuse.bias)
            self.fuse_rgb = make_conv(fuse_skip.weight[:, :3], fuse_skip.bias, cls=Float32Conv)
            self.fuse_detail = make_conv(fuse_skip.weight[:, 3:], None)
        else:
            self.fuse = None
        self.up, self.blur = folded_up(g.convs[conv], codes[:, first])
        self.conv = folded_conv(g.convs[conv + 1], codes[:, second])
        self.rgb = folded_rgb(g.to_rgbs[rgb], codes[:, color])
        self.enlarge = make_conv(fir_kernel(gain=4).expand(3, 1, 4, 4), None, stride=2, padding=1, groups=3,
                                cls=Float32ConvTranspose)

    def forward(self, x: Tensor, skip: Tensor, detail: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.fuse is not None:
            skip = self.fuse_rgb(skip).add_(self.fuse_detail(detail))
            x = self.fuse(torch.cat([x, detail], dim=1))
        x = activate(self.blur(self.up(x)))
        x = activate(self.conv(x))
        return x, self.enlarge(skip).add_(self.rgb(x))


class _Float32(nn.Module):
    """Stays in float32 whatever `.to(dtype)` says, so that the picture does not round at every resolution."""

    def _apply(self, fn, recurse=True):
        return super()._apply(lambda t: t.to(fn(t).device), recurse)


class Float32Conv(_Float32, nn.Conv2d):
    """A convolution over the picture."""


class Float32ConvTranspose(_Float32, nn.ConvTranspose2d):
    """A transposed convolution over the picture."""


def activate(x: Tensor) -> Tensor:
    """Leaky ReLU in place; √2, where there is one, sits in the weights."""
    return F.leaky_relu(x, SLOPE, inplace=True)


def handoff_scale() -> float:
    """What undoes the √2 of all residual blocks at once."""
    return SQRT2**-N_RESIDUAL


def make_conv(weight: Tensor, bias: Tensor | None, stride: int = 1, padding: int | None = None, groups: int = 1,
              cls: type[nn.Module] = nn.Conv2d) -> nn.Module:
    """A convolution around given weights [O,I/groups,k,k] (transposed: [I,O/groups,k,k]); keeps the size by default."""
    k = weight.shape[2]
    transposed = issubclass(cls, nn.ConvTranspose2d)
    c_out, c_in = weight.shape[0], weight.shape[1] * groups
    if transposed:
        c_in, c_out = weight.shape[0], weight.shape[1] * groups
    conv = cls(c_in, c_out, k, stride, k // 2 if padding is None else padding, groups=groups, bias=bias is not None,
               device="meta")
    conv.weight = nn.Parameter(channels_last(weight.detach().clone()), requires_grad=False)
    if bias is not None:
        conv.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return conv


def plain_conv(conv: nn.Conv2d, input_scale: float = 1.0, bias_scale: float = 1.0) -> nn.Module:
    """Copy of an ordinary convolution, with its input scaled (by way of the weights) or its bias."""
    return make_conv(conv.weight * input_scale, conv.bias * bias_scale, conv.stride[0], conv.padding[0])


def folded_conv(layer: StyledConv, code: Tensor) -> nn.Module:
    """Styled convolution → plain convolution; a leaky ReLU follows."""
    return make_conv(layer.conv.folded_weight(code) * SQRT2, layer.activate.bias * SQRT2)


def folded_up(layer: StyledConv, code: Tensor) -> tuple[nn.Module, nn.Module]:
    """Styled up-convolution → transposed convolution and depthwise blur that adds the bias; a leaky ReLU follows."""
    weight = layer.conv.folded_weight(code) * SQRT2
    up = make_conv(weight.transpose(0, 1), None, stride=2, padding=0, cls=nn.ConvTranspose2d)
    kernel, c = layer.conv.blur.kernel, weight.shape[0]
    blur = make_conv(kernel.flip(0, 1).expand(c, 1, *kernel.shape), layer.activate.bias * SQRT2, padding=1, groups=c)
    return up, blur


def folded_rgb(layer: ToRGB, code: Tensor) -> nn.Module:
    """To-rgb → 1x1 convolution."""
    return make_conv(layer.conv.folded_weight(code), layer.bias.flatten())


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """Copy of a network in evaluation mode, each ConvNorm's batch norm folded into its convolution."""
    network = copy.deepcopy(network).eval()
    for module in network.modules():
        if isinstance(module, ConvNorm):
            conv = fuse_conv_bn_eval(module[0], module[1])
            conv.weight = nn.Parameter(channels_last(conv.weight.detach()))
            module[0], module[1] = conv, nn.Identity()
    return network


@dataclass(frozen=True)
class Cost:
    """What one frame costs; multiply-adds of convolutions and matrix products, element-wise work not counted."""

    parameters: int  # of the network as trained and saved
    parameters_used: int  # that the folded form still holds
    macs: int  # folded form, one frame


def report_cost(config: VToonifyConfig, height: int, width: int) -> Cost:
    """Parameters and multiply-adds of a VToonify on one H×W frame, counted on shapes alone (no memory, no time)."""
    with torch.device("meta"):
        network = VToonify(config)
        folded = fold(network, torch.zeros(1, network.generator.n_latent, config.generator.style_dim))
        macs = count_macs(folded, torch.zeros(1, INPUT_CHANNELS, height, width))
    return Cost(count_parameters(network), count_parameters(folded), macs)


def count_parameters(network: nn.Module) -> int:
    """Numbers in a network's parameters."""
    return sum(p.numel() for p in network.parameters())


def count_macs(network: nn.Module, *inputs: Tensor) -> int:
    """Multiply-adds of one call: convolutions, transposed convolutions and matrix products."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(*inputs)
    return counter.get_total_flops() // 2
