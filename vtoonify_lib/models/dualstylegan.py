"""DualStyleGAN (Yang et al. 2022, arXiv 2203.13248): a StyleGAN2 with a second, extrinsic style path.

The intrinsic code says who it is, the extrinsic code whose art it is in. Up to HANDOFF the extrinsic code acts on the
features through modulative residual blocks (ModRes): structure. Above, it replaces the intrinsic code: colour. A degree
for each layer says how much. Names and shapes are those of the published checkpoints. Training lives elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..config import HANDOFF, GeneratorConfig, VToonifyError
from . import latents
from .layers import AdaResBlock, EqualLinear, PixelNorm
from .stylegan2 import MAPPING_LR, Generator

TRANSFORM_DEPTH = 6  # layers by which the colour transform T_c is shallower than the mapping network
RESIDUAL_INIT = 0.01  # ModRes starts next to "change nothing"
COLOR_INIT = 0.01  # and T_s next to "return the code": this much noise around the identity

Degree = Tensor | Sequence[float] | float


class DualStyleGAN(nn.Module):
    """Intrinsic code, extrinsic code and degrees → picture [B,3,S,S], about [−1,1].

    style      T_c, the transform that prepares an extrinsic code for the structure layers
    generator  a StyleGAN2
    res        one for each style layer: ModRes blocks for the structure layers, then T_s, linear, for the colour layers

    x_i = conv_i(x) + degree_i · ModRes_i(conv_i(x), T_c(extrinsic_i))         structure layers, 0 … 6
    w_i = (1 − degree_i) · intrinsic_i + degree_i · T_s,i(extrinsic_i)        colour layers, from 7 on
    """

    def __init__(self, config: GeneratorConfig):
        super().__init__()
        if config.size <= HANDOFF:
            raise VToonifyError(f"DualStyleGAN got generator size {config.size}; it must be larger than {HANDOFF}")
        self.config, d = config, config.style_dim
        self.n_latent = latents.n_latent(config.size)
        depth = max(config.n_mlp - TRANSFORM_DEPTH, 1)
        self.style = nn.Sequential(
            PixelNorm(), *(EqualLinear(d, d, lr_mul=MAPPING_LR, activate=True) for _ in range(depth)))
        self.generator = Generator(config)
        self.res = nn.ModuleList(modres_blocks(config))
        for _ in range(latents.n_color(config.size)):
            transform = EqualLinear(d, d)
            with torch.no_grad():
                transform.weight.mul_(COLOR_INIT).add_(math.sqrt(d) * torch.eye(d))
            self.res.append(transform)

    def forward(self, code: Tensor, extrinsic: Tensor | None = None, degree: Degree = 1.0, *, space: str = "z",
                noise: bool = False, until: int | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Map the intrinsic code, let the extrinsic code in, synthesise.

        code       intrinsic: z or w [B,D], z+ or w+ [B,L,D], as `space` says
        extrinsic  [B,D] or [B,L,D], as it comes out of pSp or of the table of styles (z+); None: a plain StyleGAN2
        degree     the paper's interpolation weights: a float, one for each layer [L], or one for each sample and layer
                   [B,L]; 0 leaves the extrinsic code out. `degrees` makes them
        noise, until  as for `Generator`
        """
        w = self.generator.to_w(code, space)
        if extrinsic is None:
            return self.generator.synthesize(w, noise, until)
        extrinsic, degree = self._checked(extrinsic, degree, w)
        structure = self.style(extrinsic)

        def modify(layer: int, x: Tensor) -> Tensor:
            if layer >= latents.n_structure():
                return x
            return self.res[layer](x, structure[:, layer], degree[:, layer])

        first = latents.n_structure()
        color = torch.lerp(w[:, first:], self.color_codes(extrinsic).to(w.dtype), degree[:, first:, None])
        return self.generator.synthesize(torch.cat([w[:, :first], color], dim=1), noise, until, modify)

    def map(self, z: Tensor) -> Tensor:
        """Mapping network over the last axis: z → w, z+ → w+."""
        return self.generator.map(z)

    def degrees(self, structure: Tensor | float, color: Tensor | float) -> Tensor:
        """One degree a layer, [L], from a structure and a colour degree; [B,L] when either is [B]."""
        like = self.generator.style[1].weight
        pair = torch.broadcast_tensors(*(torch.as_tensor(v, dtype=like.dtype, device=like.device)
                                         for v in (structure, color)))
        layers = latents.n_structure(), latents.n_color(self.config.size)
        return torch.cat([v[..., None].expand(*v.shape, n) for v, n in zip(pair, layers, strict=True)], dim=-1)

    def color_codes(self, extrinsic: Tensor) -> Tensor:
        """T_s of the colour layers: extrinsic [B,L,D] → [B,L−7,D]."""
        first = latents.n_structure()
        return torch.stack([self.res[i](extrinsic[:, i]) for i in range(first, self.n_latent)], dim=1)

    def _checked(self, extrinsic: Tensor, degree: Degree, w: Tensor) -> tuple[Tensor, Tensor]:
        """Extrinsic code as [B,L,D], degree as [B,L]."""
        batch, layers, d = w.shape
        extrinsic = latents.to_plus(extrinsic, layers)
        if extrinsic.shape[0] not in (1, batch) or extrinsic.shape[2] != d:
            raise VToonifyError(f"extrinsic code has shape {list(extrinsic.shape)}; expected "
                                f"[{batch} or 1,{layers},{d}]")
        degree = torch.as_tensor(degree, dtype=w.dtype, device=w.device)
        if degree.shape not in ((), (layers,), (1, layers), (batch, layers)):
            raise VToonifyError(f"degree has shape {list(degree.shape)}; expected one number, [{layers}] or "
                                f"[{batch},{layers}]; see DualStyleGAN.degrees")
        return extrinsic.expand(batch, -1, -1), degree.expand(batch, layers)


def modres_blocks(config: GeneratorConfig, dilated: bool = False) -> list[AdaResBlock]:
    """ModRes for each structure layer.

    dilated  for features that all have HANDOFF's resolution: a block made for r² is spread by HANDOFF/r, so that it
             sees as much of the face as it was made for
    """
    blocks = []
    for layer in range(latents.n_structure()):
        r = latents.layer_resolution(layer)
        block = AdaResBlock(config.width(r), config.style_dim, dilation=HANDOFF // r if dilated else 1)
        with torch.no_grad():
            for conv in (block.conv, block.conv2):
                conv[0].weight.mul_(RESIDUAL_INIT)
        blocks.append(block)
    return blocks
