"""VToonify-T with one style folded in; `vtoonify_d` adds what VToonify-D needs."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ...config import INPUT_CHANNELS, VToonifyError
from .. import latents
from ..detail import blended, detail_of
from ..layers import SQRT2, channels_last, fir_kernel
from ..vtoonify import N_RESIDUAL, VToonify, check_frame
from .layers import (
    Float32Conv,
    Float32ConvTranspose,
    activate,
    folded_conv,
    folded_rgb,
    folded_up,
    make_conv,
    plain_conv,
)


class FoldedVToonify(nn.Module):
    """VToonify-T with one style folded in: x as the network reads it → float32 [B,3,sH,sW]. Made by :func:`fold`.

    too_many, tile  state of `run_with_oom_fallback`: pixels of a batch that did not fit into memory, side of the tiles
    """

    def __init__(self, network: VToonify, w: Tensor):
        super().__init__()
        codes = self._codes(network, w)
        self.config, self.multiple = network.config, network.multiple
        self.flow = plain_conv(network.detail.flow) if network.config.detail else None
        self.pixels = plain_conv(network.detail.pixels) if network.config.detail else None
        self.too_many = self.tile = math.inf
        *down, blocks, to_skip = network.encoder
        self.down = nn.ModuleList(nn.ModuleList(plain_conv(m) for m in stage[::2]) for stage in down)
        self.blocks = nn.ModuleList(
            nn.ModuleList(plain_conv(c, bias_scale=SQRT2**i) for c in (block.conv, block.conv2))
            for i, block in enumerate(blocks))
        self.to_skip = plain_conv(to_skip)
        self.levels = nn.ModuleList(
            FoldedLevel(network, codes, level)
            for level in range(len(latents.kept_resolutions(network.config.out_size))))

    @staticmethod
    def _codes(network: VToonify, w: Tensor) -> Tensor:
        """The codes that the layers read, [1,L,D]."""
        w = w[None] if w.ndim == 2 and w.shape[0] != 1 else w
        if w.shape[0] != 1:
            raise VToonifyError(f"got {w.shape[0]} style codes; one can be folded in: use fold(network, w[i:i+1])")
        return network.codes(w.to(network.encoder[0][0].weight))

    @property
    def dtype(self) -> torch.dtype:
        """What the convolutions compute in."""
        return self.to_skip.weight.dtype

    def forward(self, x: Tensor) -> Tensor:
        return self.draw(self.features(x))

    def features(self, x: Tensor) -> list[Tensor]:
        """What no style changes: the encoder's features of x, from fine to coarse, up to the residual blocks; with
        config.detail the photograph before them.

        `draw` makes the picture of them, and spoils them on the way: give it copies to draw from them again.
        """
        config = self.config
        check_frame(x, self.multiple, config.input_channels)
        details = [detail_of(x, INPUT_CHANNELS, config.detail)] if config.detail else []  # in full precision
        x = channels_last(x.to(self.dtype))
        for stage in self.down:
            for conv in stage:
                x = activate(conv(x))
            details.append(x)
        return details

    def draw(self, details: list[Tensor], degree: Tensor | None = None) -> Tensor:
        """`forward` from the features of x; degree: [1] or [B], for VToonify-D."""
        photo, *details = details if self.config.detail else [None, *details]
        x, coarse = details[-1], None
        for i, (first, second) in enumerate(self.blocks):  # √2^(i+1) times the trained feature after block i
            x = self._residual(i, activate(second(activate(first(x)))).add_(x), degree)
        x = x.mul_(SQRT2**-N_RESIDUAL)
        skip = self.to_skip(x).float()
        for i, level in enumerate(self.levels):
            detail = self._detail(i, x, details.pop(), degree) if details else None
            x, skip = level(x, skip, detail)
            coarse = x if coarse is None else coarse
        if photo is None:
            return skip
        scale, finer = self.config.scale, self.config.scale // self.config.generator_scale
        return blended(photo, self.flow(coarse), self.pixels(x), skip, scale, finer)[0]

    def _residual(self, index: int, x: Tensor, degree: Tensor | None) -> Tensor:
        """What follows a residual block: here nothing."""
        return x

    def _detail(self, level: int, x: Tensor, detail: Tensor, degree: Tensor | None) -> Tensor:
        """What a fusion lets in of the encoder's detail: here all of it."""
        return detail


class FoldedLevel(nn.Module):
    """One resolution of the folded generator: fuse, double, convolve, add to the picture."""

    def __init__(self, network: VToonify, codes: Tensor, level: int):
        super().__init__()
        g, r = network.stylegan, latents.kept_resolutions(network.config.out_size)[level]
        first, second, color = latents.style_layers(r)
        conv, rgb = latents.first_kept_conv() + 2 * level, latents.first_kept_to_rgb() + level
        if level < len(network.fusion_out):
            fuse, fuse_skip = network.fusion_out[level], network.fusion_skip[level]
            self.fuse = plain_conv(fuse if isinstance(fuse, nn.Conv2d) else fuse.conv)  # VToonify-D's is a MaskedFusion
            self.fuse_rgb = make_conv(fuse_skip.weight[:, :3], fuse_skip.bias, cls=Float32Conv)
            self.fuse_detail = make_conv(fuse_skip.weight[:, 3:], None)
        else:
            self.fuse = None
        self.up, self.blur = folded_up(g.convs[conv], codes[:, first])
        self.conv = folded_conv(g.convs[conv + 1], codes[:, second])
        self.rgb = folded_rgb(g.to_rgbs[rgb], codes[:, color])
        self.enlarge = make_conv(fir_kernel(gain=4).to(codes).expand(3, 1, 4, 4), None, stride=2, padding=1, groups=3,
                                cls=Float32ConvTranspose)

    def forward(self, x: Tensor, skip: Tensor, detail: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.fuse is not None:
            skip = self.fuse_rgb(skip).add_(self.fuse_detail(detail))
            x = self.fuse(torch.cat([x, detail], dim=1))
        x = activate(self.blur(self.up(x)))
        x = activate(self.conv(x))
        return x, self.enlarge(skip).add_(self.rgb(x))
