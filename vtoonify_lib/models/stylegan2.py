"""StyleGAN2 (arXiv 1912.04958, config-f): mapping network, synthesis network with skip outputs, residual discriminator.

Parameter names and shapes are the published ones. Training, augmentation and losses live elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..config import GeneratorConfig, VToonifyError, resolutions
from . import latents
from .layers import SQRT2, ConvLayer, EqualLinear, PixelNorm, StyledConv, ToRGB, channels_last

Modify = Callable[[int, Tensor], Tensor]  # (layer, feature) → feature

MAPPING_LR = 0.01  # the mapping network learns a hundred times slower; StyleGAN found it more stable


def _as_it_is(layer: int, feature: Tensor) -> Tensor:
    return feature


class ConstantInput(nn.Module):
    """The learned 4x4 picture every image starts from."""

    def __init__(self, channels: int):
        super().__init__()
        self.input = nn.Parameter(torch.randn(1, channels, 4, 4))

    def forward(self, batch: int) -> Tensor:
        return channels_last(self.input.expand(batch, -1, -1, -1))


class Generator(nn.Module):
    """Code → picture [B,3,S,S], about [−1,1].

    code   z or w [B,D], z+ or w+ [B,L,D], as `space` says ("z" or "w"); one code per layer is recognised by its shape
    noise  whether the stored noise maps are added, L−1 of them [1,1,h,w]; nothing is ever drawn
    """

    def __init__(self, config: GeneratorConfig):
        super().__init__()
        self.config = config
        self.n_latent = latents.n_latent(config.size)
        d, width = config.style_dim, config.width
        self.style = nn.Sequential(
            PixelNorm(), *(EqualLinear(d, d, lr_mul=MAPPING_LR, activate=True) for _ in range(config.n_mlp)))
        self.input = ConstantInput(width(4))
        self.conv1 = StyledConv(width(4), width(4), 3, d)
        self.to_rgb1 = ToRGB(width(4), d, up=False)
        self.convs, self.to_rgbs = nn.ModuleList(), nn.ModuleList()
        for r in resolutions(config.size)[1:]:
            self.convs.append(StyledConv(width(r // 2), width(r), 3, d, up=True))
            self.convs.append(StyledConv(width(r), width(r), 3, d))
            self.to_rgbs.append(ToRGB(width(r), d))
        self.noises = nn.Module()
        for i, r in enumerate(self.noise_sizes()):
            self.noises.register_buffer(f"noise_{i}", torch.randn(1, 1, r, r))

    def noise_sizes(self) -> list[int]:
        """Side of each noise map, in the order the convolutions read them: 4, 8, 8, 16, 16, …"""
        return [4] + [r for r in resolutions(self.config.size)[1:] for _ in range(2)]

    def map(self, z: Tensor) -> Tensor:
        """Mapping network over the last axis: z [B,D] → w, z+ [B,L,D] → w+."""
        return self.style(z)

    @torch.no_grad()
    def mean_w(self, n: int = 4096, rng: torch.Generator | None = None) -> Tensor:
        """Centre of the w space, [1,D]: the mean over n random codes."""
        like = self.style[1].weight
        z = torch.randn(n, self.config.style_dim, generator=rng, device=rng.device if rng else like.device)
        return self.map(z.to(like)).mean(0, keepdim=True)

    def forward(self, code: Tensor, space: str = "z", noise: bool = False, until: int | None = None
                ) -> Tensor | tuple[Tensor, Tensor]:
        """Map and synthesise; `to_w` truncates codes, `latents.mix` mixes them.

        until  a resolution: stop there and return (feature [B,C,until,until], skip picture [B,3,until,until])
        """
        return self.synthesize(self.to_w(code, space), noise, until)

    def to_w(self, code: Tensor, space: str = "z", truncation: float = 1.0, center: Tensor | None = None) -> Tensor:
        """Any code → w+ [B,L,D], truncated towards `center` [1,D]."""
        if space not in ("z", "w"):
            raise VToonifyError(f"code space is {space!r}; it must be 'z' or 'w'")
        if code.shape[-1] != self.config.style_dim:
            raise VToonifyError(f"code has {code.shape[-1]} numbers; this generator reads {self.config.style_dim}")
        w = self.map(code) if space == "z" else code
        if truncation != 1.0:
            if center is None:
                raise VToonifyError("truncation needs a centre to move towards; pass center=generator.mean_w()")
            w = latents.truncate(w, truncation, center)
        return latents.to_plus(w, self.n_latent)

    def synthesize(self, w: Tensor, noise: bool = False, until: int | None = None, modify: Modify = _as_it_is
                   ) -> Tensor | tuple[Tensor, Tensor]:
        """w+ [B,L,D] → picture, or (feature, skip) at resolution `until`.

        modify  called after each 3x3 convolution with the number of the code that it read: (layer, feature) → feature
        """
        if until is not None and until not in resolutions(self.config.size):
            raise VToonifyError(f"no feature map at resolution {until}; choose one of {resolutions(self.config.size)}")
        x = self.input(w.shape[0])
        maps = [*self.noises.buffers()] if noise else [None] * len(self.noise_sizes())
        x = modify(0, self.conv1(x, w[:, 0], maps[0]))
        skip = self.to_rgb1(x, w[:, 1])
        for i, r in enumerate(resolutions(self.config.size)[1:]):
            if r // 2 == until:
                return x, skip
            first, second, rgb = latents.style_layers(r)
            x = modify(first, self.convs[2 * i](x, w[:, first], maps[2 * i + 1]))
            x = modify(second, self.convs[2 * i + 1](x, w[:, second], maps[2 * i + 2]))
            skip = self.to_rgbs[i](x, w[:, rgb], skip)
        return skip if until is None else (x, skip)


class ResBlock(nn.Module):
    """The discriminator's residual block: [B,I,H,W] → [B,O,H/2,W/2]."""

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.conv1 = ConvLayer(c_in, c_in, 3)
        self.conv2 = ConvLayer(c_in, c_out, 3, down=True)
        self.skip = ConvLayer(c_in, c_out, 1, down=True, activate=False)

    def forward(self, x: Tensor) -> Tensor:
        return (self.conv2(self.conv1(x)) + self.skip(x)) / SQRT2


def minibatch_stddev(x: Tensor, group: int = 4) -> Tensor:
    """Append one channel that says how much the batch varies: x [B,C,H,W] → [B,C+1,H,W].

    The batch is split into groups of `group`, or of the largest smaller size that divides it; a group of one says 0.
    """
    b, _, h, w = x.shape
    group = next(g for g in range(min(group, b), 0, -1) if b % g == 0)
    members = x.float().reshape(group, b // group, -1)  # group i holds samples i, i + B/group, …
    std = (members.var(0, unbiased=False) + 1e-8).sqrt().mean(1)  # [B/group]
    return torch.cat([x, std.to(x.dtype).repeat(group).reshape(b, 1, 1, 1).expand(-1, -1, h, w)], dim=1)


class Discriminator(nn.Module):
    """Picture [B,3,S,S] in [−1,1] → realness logits [B,outputs]. Sizes and widths are those of the generator."""

    def __init__(self, config: GeneratorConfig, outputs: int = 1):
        super().__init__()
        self.config = config
        size, width = config.size, config.width
        sides = [size >> i for i in range(int(math.log2(size)) - 1)]  # size … 4
        self.convs = nn.Sequential(
            ConvLayer(3, width(size), 1), *(ResBlock(width(r), width(r // 2)) for r in sides[:-1]))
        self.final_conv = ConvLayer(width(4) + 1, width(4), 3)
        self.final_linear = nn.Sequential(
            EqualLinear(width(4) * 16, width(4), activate=True), EqualLinear(width(4), outputs))

    def forward(self, image: Tensor) -> Tensor:
        side = self.config.size
        if image.shape[1:] != (3, side, side):
            raise VToonifyError(f"discriminator got a picture of shape {list(image.shape)}; "
                                f"expected [B,3,{side},{side}]")
        x = self.final_conv(minibatch_stddev(self.convs(channels_last(image))))
        return self.final_linear(x.flatten(1))
