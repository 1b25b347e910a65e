"""VToonify (Yang et al. 2022, arXiv 2209.11224): a fully convolutional encoder in front of StyleGAN's fine layers.

Here: VToonify-T, built on a toonified StyleGAN2. VToonify-D (DualStyleGAN) differs in three places only, each a method:
what follows a residual block (`_residual`), how a feature is fused (`_fuse`) and which codes reach the generator
(`_modulate`). Names and shapes are those of the published checkpoints. Zero noise means that none is drawn.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import latents
from ..config import HANDOFF, INPUT_CHANNELS, VToonifyConfig, VToonifyError, resolutions
from ..ops import SLOPE, SQRT2, AdaIN, channels_last
from .stylegan2 import Generator

STEM = 32  # width of the encoder's first convolution, as published
N_RESIDUAL = 6  # residual blocks at hand-off
FUSION_INIT = 0.01  # fusion starts as "return f_G" plus this much of a random convolution
MULTIPLE = 8  # input sides must divide by this: the published encoder halves three times


class VToonifyResBlock(nn.Module):
    """(x + f(x))/√2 with two 3x3 convolutions, [B,C,H,W] → same."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.conv(x), SLOPE)
        y = F.leaky_relu(self.conv2(y), SLOPE)
        return (x + y) / SQRT2


class MaskedFusion(nn.Module):
    """VToonify-D's fusion: a mask m_E, driven by the style degree, chooses how much of the encoder's detail to let in.

    f_G, f_E [B,C,H,W], degree [B] or float → (feature [B,O,H,W], mask m_E [B,1,H,W] in [0,1]). Paper Eq. (5).
    """

    LABEL = 128  # length of the code made from the degree

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.conv = nn.Conv2d(2 * c_in, c_out, 3, padding=1)
        self.norm = AdaIN(2 * c_in, self.LABEL)
        self.conv2 = nn.Conv2d(2 * c_in, 1, 3, padding=1)
        self.linear = nn.Sequential(nn.Linear(1, 64), nn.LeakyReLU(SLOPE),
                                    nn.Linear(64, self.LABEL), nn.LeakyReLU(SLOPE))

    def forward(self, f_g: Tensor, f_e: Tensor, degree: Tensor | float = 1.0) -> tuple[Tensor, Tensor]:
        degree = torch.as_tensor(degree, dtype=f_g.dtype, device=f_g.device).reshape(-1, 1).expand(f_g.shape[0], 1)
        difference = torch.cat([f_g, (f_g - f_e).abs()], dim=1)
        mask = torch.tanh(F.relu(self.conv2(self.norm(difference, self.linear(degree)))))
        return self.conv(torch.cat([f_g, f_e * mask], dim=1)), mask


class VToonify(nn.Module):
    """VToonify-T: frame and style code → cartoon.

    x  [B,22,H,W]: RGB in [−1,1] and parsing logits · PARSING_SCALE; H and W multiples of 8, at least 8
    w  [B,L,D] (or [B,1,D] or [B,D], or batch 1 for all frames); only the colour layers (7…) are read
    →  [B,3,sH,sW], about [−1,1], s = config.scale
    """

    def __init__(self, config: VToonifyConfig):
        super().__init__()
        if config.backbone != "toonify":
            raise VToonifyError(f"VToonify-T got backbone {config.backbone!r}; expected 'toonify'")
        self.config = config
        self.multiple = max(MULTIPLE, config.in_size // HANDOFF)
        self.generator = Generator(config.generator)
        self.encoder = build_encoder(config)
        self.fusion_out, self.fusion_skip = nn.ModuleList(), nn.ModuleList()
        for r in self.fusion_resolutions():
            c = config.generator.width(r)
            self.fusion_out.append(identity_fusion(c, c, c))
            self.fusion_skip.append(identity_fusion(3, c, 3))

    def fusion_resolutions(self) -> tuple[int, ...]:
        """Nominal resolutions at which encoder and generator meet: HANDOFF … in_size."""
        return tuple(r for r in resolutions(self.config.in_size) if r >= HANDOFF)

    def encoder_parameters(self) -> list[nn.Parameter]:
        """What VToonify trains: encoder and fusion. The generator stays as it is."""
        modules = (self.encoder, self.fusion_out, self.fusion_skip)
        return [p for m in modules for p in m.parameters()]

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        codes = self._modulate(w, batch=x.shape[0])
        details, feature, skip = self._encode(x)
        if x.device.type != "cpu" or len(x) == 1:
            return self._synthesize(feature, skip, details, codes)
        # On a CPU each picture goes alone: with a single style, modulation folds into the weights (ops.StyledConv).
        alone = zip(*(t.split(1) for t in (feature, skip, codes, *details)), strict=True)
        return torch.cat([self._synthesize(f, s, d, c) for f, s, c, *d in alone])

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Hand-off feature [B,C,h,w] and skip picture [B,3,h,w]: what pre-training matches to the generator's."""
        _, feature, skip = self._encode(x)
        return feature, skip

    def _modulate(self, w: Tensor, batch: int) -> Tensor:
        w = latents.to_plus(w, self.generator.n_latent)
        if w.shape[0] not in (1, batch) or w.shape[2] != self.config.generator.style_dim:
            raise VToonifyError(f"style code has shape {list(w.shape)}; expected [{batch} or 1,"
                                f"{self.generator.n_latent},{self.config.generator.style_dim}]")
        return w.expand(batch, -1, -1)

    def _encode(self, x: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """→ encoder features f_E from fine to coarse (before the residual blocks), hand-off feature, skip picture."""
        check_frame(x, self.multiple)
        x = channels_last(x)
        *down, blocks, to_skip = self.encoder
        details = []
        for stage in down:
            x = stage(x)
            details.append(x)
        for i, block in enumerate(blocks):
            x = self._residual(i, block, x)
        return details, x, to_skip(x)

    def _residual(self, index: int, block: nn.Module, x: Tensor) -> Tensor:
        return block(x)

    def _fuse(self, level: int, x: Tensor, skip: Tensor, f_e: Tensor) -> tuple[Tensor, Tensor]:
        """Let the encoder's detail into feature and skip picture."""
        return self.fusion_out[level](torch.cat([x, f_e], 1)), self.fusion_skip[level](torch.cat([skip, f_e], 1))

    def _synthesize(self, x: Tensor, skip: Tensor, details: list[Tensor], codes: Tensor) -> Tensor:
        """StyleGAN's layers above hand-off, a fusion before each of the first up-convolutions."""
        g, conv, rgb = self.generator, latents.first_kept_conv(), latents.first_kept_to_rgb()
        for level, r in enumerate(latents.kept_resolutions(self.config.out_size)):
            if level < len(self.fusion_out):
                x, skip = self._fuse(level, x, skip, details[-1 - level])
            first, second, color = latents.style_layers(r)
            x = g.convs[conv + 2 * level](x, codes[:, first])
            x = g.convs[conv + 2 * level + 1](x, codes[:, second])
            skip = g.to_rgbs[rgb + level](x, codes[:, color], skip)
        return skip


def build_encoder(config: VToonifyConfig) -> nn.ModuleList:
    """Stages: one at full size, one per halving down to HANDOFF, the residual blocks, 1x1 to the skip picture."""
    width, c = config.generator.width, config.generator.width(HANDOFF)
    stages = nn.ModuleList([conv_pair(INPUT_CHANNELS, STEM, width(config.in_size), stride=1)])
    for r in reversed([r for r in resolutions(config.in_size // 2) if r >= HANDOFF]):
        stages.append(conv_pair(width(2 * r), width(r), width(r), stride=2))
    stages.append(nn.Sequential(*(VToonifyResBlock(c) for _ in range(N_RESIDUAL))))
    stages.append(nn.Conv2d(c, 3, 1))
    for module in stages.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, a=SLOPE)
            nn.init.zeros_(module.bias)
    return stages


def conv_pair(c_in: int, c_mid: int, c_out: int, stride: int) -> nn.Sequential:
    """Two 3x3 convolutions with leaky ReLU, the first with the given stride."""
    return nn.Sequential(nn.Conv2d(c_in, c_mid, 3, stride, padding=1), nn.LeakyReLU(SLOPE, inplace=True),
                         nn.Conv2d(c_mid, c_out, 3, padding=1), nn.LeakyReLU(SLOPE, inplace=True))


def identity_fusion(c_g: int, c_e: int, c_out: int) -> nn.Conv2d:
    """3x3 convolution over [f_G, f_E] that starts by returning f_G, plus a little of everything."""
    conv = nn.Conv2d(c_g + c_e, c_out, 3, padding=1)
    with torch.no_grad():
        nn.init.kaiming_normal_(conv.weight, a=SLOPE).mul_(FUSION_INIT)
        conv.weight[:, :c_g, 1, 1] += torch.eye(c_out, c_g)
        conv.bias.zero_()
    return conv


def check_frame(x: Tensor, multiple: int = MULTIPLE) -> None:
    """Raise a clear error unless x is [B,22,H,W] with sides that `multiple` divides."""
    if x.ndim != 4 or x.shape[1] != INPUT_CHANNELS:
        raise VToonifyError(f"frame tensor has shape {list(x.shape)}; expected [B,{INPUT_CHANNELS},H,W]: RGB in [-1,1] "
                            "and parsing logits times PARSING_SCALE")
    h, w = x.shape[2:]
    if h % multiple or w % multiple or not h or not w:
        raise VToonifyError(f"frame is {w}×{h}; both sides must be multiples of {multiple}; use faces.plan_crop(frame)")
