"""VToonify-D with one style folded in; the structure degree stays free, for it may change from frame to frame."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import SLOPE, SQRT2, AdaResBlock
from ..vtoonify_d import DEFAULT_DEGREE, MaskedFusion, VToonifyD, as_degrees, check_handoff
from .layers import Float32Linear, ada_in, equal_conv, folded_norm, make_conv
from .vtoonify_t import FoldedVToonify


class FoldedVToonifyD(FoldedVToonify):
    """VToonify-D with one style folded in: x [B,22,H,W], degree float or [B] → float32 [B,3,sH,sW]."""

    def __init__(self, network: VToonifyD, w: Tensor):
        super().__init__(network, w)
        codes = self._codes(network, w)
        self.modres = nn.ModuleList(
            FoldedModRes(block, codes[:, layer], scale=SQRT2**layer)
            for layer, block in enumerate(network.res) if layer)  # no block of the encoder precedes the first
        self.masks = nn.ModuleList(FoldedMask(fusion) for fusion in network.fusion_out)

    def forward(self, x: Tensor, degree: Tensor | float = DEFAULT_DEGREE) -> Tensor:
        check_handoff(x, self.config.in_size)
        return self.draw(self.features(x), degree)

    def draw(self, details: list[Tensor], degree: Tensor | float = DEFAULT_DEGREE) -> Tensor:
        frames, device = len(details[0]), details[0].device
        return super().draw(details, as_degrees(degree, frames, torch.float32, device))

    def _residual(self, index: int, x: Tensor, degree: Tensor) -> Tensor:
        return x.addcmul_(self.modres[index](x), degree.to(x.dtype)[:, None, None, None])

    def _detail(self, level: int, x: Tensor, detail: Tensor, degree: Tensor) -> Tensor:
        return detail.mul_(self.masks[level](x, detail, degree))


class FoldedModRes(nn.Sequential):
    """What ModRes adds to its input, `scale` times, for an input that is `scale` times the trained one."""

    def __init__(self, block: AdaResBlock, code: Tensor, scale: float):
        super().__init__(
            folded_norm(block.norm, code, scale), equal_conv(block.conv), nn.LeakyReLU(SLOPE, inplace=True),
            folded_norm(block.norm2, code), equal_conv(block.conv2, scale), nn.LeakyReLU(SLOPE, inplace=True))


class FoldedMask(nn.Module):
    """Mask m_E of a fusion: f_G, f_E [B,C,H,W], degree [1] or [B] → [B,1,H,W] in [0,1].

    A 3x3 convolution with a single output is slow, most of all in bfloat16. So the products of its nine taps are made
    as the nine channels of a 1x1 convolution, and `F.fold` adds each up where it belongs: a third of the time.
    """

    def __init__(self, fusion: MaskedFusion):
        super().__init__()
        self.label = nn.Sequential(float32_linear(fusion.linear[0]), nn.LeakyReLU(SLOPE),
                                   float32_linear(fusion.linear[2]), nn.LeakyReLU(SLOPE),
                                   float32_linear(fusion.norm.style))
        taps = fusion.conv2.weight[0].flip(1, 2).flatten(1).T[..., None, None]  # [9,2C,1,1]
        self.of_feature, self.of_difference = (make_conv(half, None) for half in taps.chunk(2, dim=1))
        self.bias = nn.Parameter(fusion.conv2.bias.detach().clone()[:, None, None])

    def forward(self, f_g: Tensor, f_e: Tensor, degree: Tensor) -> Tensor:
        gamma, beta = (t.chunk(2, dim=1) for t in self.label(degree[:, None]).to(f_g.dtype).chunk(2, dim=1))
        taps = self.of_feature(ada_in(f_g, gamma[0], beta[0]))
        taps += self.of_difference(ada_in((f_g - f_e).abs_(), gamma[1], beta[1]))
        return F.fold(taps.flatten(2), f_g.shape[2:], 3, padding=1).add_(self.bias).relu_().tanh_()


def float32_linear(layer: nn.Linear) -> nn.Linear:
    """Copy of a linear layer that stays in float32."""
    copy = Float32Linear(layer.in_features, layer.out_features, device="meta")
    copy.weight, copy.bias = (nn.Parameter(t.detach().float().clone(), requires_grad=False)
                              for t in (layer.weight, layer.bias))
    return copy
