"""What the folded networks are made of: ordinary layers around weights that are computed once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import SLOPE, SQRT2, AdaIN, ConvLayer, StyledConv, ToRGB, channels_last

EPSILON = 1e-5  # of F.instance_norm, and so of AdaIN


class _Float32(nn.Module):
    """Stays in float32 whatever `.to(dtype)` says."""

    def _apply(self, fn, recurse=True):
        return super()._apply(lambda t: t.to(fn(t).device), recurse)


class Float32Conv(_Float32, nn.Conv2d):
    """A convolution over the picture, which would otherwise round at every resolution."""


class Float32ConvTranspose(_Float32, nn.ConvTranspose2d):
    """A transposed convolution over the picture."""


class Float32Linear(_Float32, nn.Linear):
    """A layer that reads the degree: in bfloat16 a slider would move in steps."""


def activate(x: Tensor) -> Tensor:
    """Leaky ReLU in place; √2, where there is one, sits in the weights."""
    return F.leaky_relu(x, SLOPE, inplace=True)


def make_conv(weight: Tensor, bias: Tensor | None, stride: int = 1, padding: int | None = None, groups: int = 1,
              dilation: int = 1, cls: type[nn.Module] = nn.Conv2d) -> nn.Module:
    """A convolution around given weights [O,I/groups,k,k] (transposed: [I,O/groups,k,k]); keeps the size by default."""
    k = weight.shape[2]
    c_out, c_in = weight.shape[0], weight.shape[1] * groups
    if issubclass(cls, nn.ConvTranspose2d):
        c_in, c_out = weight.shape[0], weight.shape[1] * groups
    conv = cls(c_in, c_out, k, stride, dilation * (k // 2) if padding is None else padding, groups=groups,
               bias=bias is not None, dilation=dilation, device="meta")
    conv.weight = nn.Parameter(channels_last(weight.detach().clone()), requires_grad=False)
    if bias is not None:
        conv.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return conv


def plain_conv(conv: nn.Conv2d, bias_scale: float = 1.0) -> nn.Module:
    """Copy of an ordinary convolution, with its bias scaled."""
    return make_conv(conv.weight, conv.bias * bias_scale, conv.stride[0], conv.padding[0])


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


def equal_conv(layer: ConvLayer, scale: float = 1.0) -> nn.Module:
    """ModRes's convolution → plain convolution with `scale` times its output; a leaky ReLU follows."""
    conv, act = layer
    return make_conv(conv.weight * (conv.scale * SQRT2 * scale), act.bias * (SQRT2 * scale), conv.stride, conv.padding,
                     dilation=conv.dilation)


def folded_norm(norm: AdaIN, code: Tensor, scale: float = 1.0) -> nn.GroupNorm:
    """AdaIN with one style code [1,D] → group norm with a group per channel, for an input that is `scale` times the
    trained one: what is added to its variance grows along."""
    gamma, beta = norm.style(code)[0].chunk(2)
    group = nn.GroupNorm(len(gamma), len(gamma), EPSILON * scale**2, device="meta")
    group.weight, group.bias = (nn.Parameter(t.detach().clone(), requires_grad=False) for t in (gamma, beta))
    return group


def ada_in(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """γ·(x − mean)/std + β, where γ and β [1,C] serve all pictures, or [B,C] each its own."""
    channels = x.shape[1]
    if len(gamma) == 1:
        return F.group_norm(x, channels, gamma[0], beta[0], EPSILON)
    return torch.addcmul(beta[..., None, None], F.group_norm(x, channels, eps=EPSILON), gamma[..., None, None])
