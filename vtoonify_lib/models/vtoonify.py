"""VToonify (Yang et al. 2022, arXiv 2209.11224): a fully convolutional encoder in front of StyleGAN's fine layers.

Here: VToonify-T, built on a toonified StyleGAN2. VToonify-D (`vtoonify_d`, on a DualStyleGAN) differs in three places,
each a method: what follows a residual block (`_residual`), how a feature is fused (`_fuse`) and which codes the layers
read (`codes`). Names and shapes are those of the published checkpoints. Zero noise means that none is drawn.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import HANDOFF, INPUT_CHANNELS, VToonifyConfig, VToonifyError, resolutions
from . import latents
from .detail import DetailHead, detail_of
from .layers import SLOPE, SQRT2, channels_last
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


class Dropped(nn.Module):
    """Replaces a module that inference does not need, so that the other weights keep their published names."""

    def forward(self, *_: object, **__: object) -> Tensor:
        raise VToonifyError("this network was built for inference, without StyleGAN's layers up to the hand-off; "
                            "build it without `for_inference()` to train it or to draw random faces")


class StyleInput(NamedTuple):
    """The style input of a batch."""

    codes: Tensor  # [B,L,D], as the layers read them
    degree: Tensor | None = None  # [B], structure degree; VToonify-D only

    def picture(self, i: int) -> StyleInput:
        """Style of one picture, as a batch of one."""
        return StyleInput(*(None if t is None else t[i : i + 1] for t in self))


class VToonifyOutput(NamedTuple):
    """Output of a VToonify.

    picture [B,3,sH,sW]; masks [B,1,h,w] in [0,1] of the fusions, from coarse to fine, VToonify-D only; flow [B,2,·,·],
    with config.detail only: input pixels from each place to its place in the photograph
    """

    picture: Tensor
    masks: list[Tensor]
    flow: Tensor | None = None


class VToonify(nn.Module):
    """VToonify-T: frame and style code → cartoon.

    x  [B,22,H,W]: RGB in [−1,1] and parsing logits · PARSING_SCALE; H and W multiples of 8, at least 8; with
       config.detail the photograph's own pixels follow, see `detail.with_detail`
    w  [B,L,D] (or [B,1,D] or [B,D], or batch 1 for all frames); only the colour layers (7…) are read
    →  [B,3,sH,sW], about [−1,1], s = config.scale
    """

    BACKBONE = "toonify"
    STYLEGAN = "generator"  # where the StyleGAN2 sits whose fine layers draw the picture

    def __init__(self, config: VToonifyConfig):
        super().__init__()
        if config.backbone != self.BACKBONE:
            raise VToonifyError(f"VToonify-{self.BACKBONE[0].upper()} got backbone {config.backbone!r}; expected "
                                f"{self.BACKBONE!r}: vtoonify_d.build_vtoonify(config) chooses the class")
        self.config = config
        self.multiple = max(MULTIPLE, config.in_size // HANDOFF)
        self.generator = self._build_generator()
        self.encoder = build_encoder(config)
        self.fusion_out, self.fusion_skip = nn.ModuleList(), nn.ModuleList()
        for r in (r for r in resolutions(config.in_size) if r >= HANDOFF):  # where encoder and generator meet
            c = config.generator.width(r)
            self.fusion_out.append(self._build_fusion(c))
            self.fusion_skip.append(identity_fusion(3, c, 3))
        if config.detail:
            width = config.generator.width
            self.detail = DetailHead(width(2 * HANDOFF), width(config.out_size), config.detail,
                                     config.detail // config.generator_scale)

    def _build_generator(self) -> nn.Module:
        return Generator(self.config.generator)

    def _build_fusion(self, channels: int) -> nn.Module:
        return identity_fusion(channels, channels, channels)

    @property
    def stylegan(self) -> Generator:
        """The StyleGAN2 whose fine layers draw the picture."""
        return self.get_submodule(self.STYLEGAN)

    def unread(self) -> list[str]:
        """Parts that drawing a frame never reads: StyleGAN's layers up to the hand-off and its noise maps.

        The mapping network is not read by frames either, but turns a face's z+ into w+ once, so it is not listed.
        """
        parts = ["input", "conv1", "to_rgb1", "noises",
                 *(f"convs.{i}" for i in range(latents.first_kept_conv())),
                 *(f"to_rgbs.{i}" for i in range(latents.first_kept_to_rgb()))]
        return [f"{self.STYLEGAN}.{part}" for part in parts]

    def for_inference(self) -> VToonify:
        """Drop what frames never read and return self; all other weights keep their names."""
        for part in self.unread():
            self.set_submodule(part, Dropped())
        return self

    def map(self, z: Tensor) -> Tensor:
        """Mapping network over the last axis: z → w, z+ → w+, the codes that `forward` takes."""
        return self.stylegan.map(z)

    def forward(self, x: Tensor, w: Tensor, *degree: Tensor | float) -> Tensor:
        return self.draw(x, w, *degree).picture

    def draw(self, x: Tensor, w: Tensor, *degree: Tensor | float) -> VToonifyOutput:
        """As `forward`, with what the training looks at beside the picture; degree: of VToonify-D."""
        return self._draw(x, self._style(x, w, *degree))

    def encode(self, x: Tensor, *style: Tensor | float) -> tuple[Tensor, Tensor]:
        """Hand-off feature [B,C,h,w] and skip picture [B,3,h,w]: what pre-training matches to the generator's.

        style: w and degree for VToonify-D, whose ModRes blocks read them
        """
        _, feature, skip = self._encode(x, self._style(x, *style) if style else None)
        return feature, skip

    def codes(self, w: Tensor, batch: int = 1) -> Tensor:
        """The codes that the layers read, [batch,L,D], of w as `forward` takes it."""
        w = latents.to_plus(w, self.generator.n_latent)
        if w.shape[0] not in (1, batch) or w.shape[2] != self.config.generator.style_dim:
            raise VToonifyError(f"style code has shape {list(w.shape)}; expected [{batch} or 1,"
                                f"{self.generator.n_latent},{self.config.generator.style_dim}]")
        return w.expand(batch, -1, -1)

    def _style(self, x: Tensor, w: Tensor) -> StyleInput:
        return StyleInput(self.codes(w, batch=len(x)))

    def _draw(self, x: Tensor, style: StyleInput) -> VToonifyOutput:
        details, feature, skip = self._encode(x, style)
        if self.config.detail:
            details = [detail_of(x, INPUT_CHANNELS, self.config.detail), *details]
        if x.device.type != "cpu" or len(x) == 1:
            return self._synthesize(feature, skip, details, style)
        # On a CPU each picture goes alone: with a single style, modulation folds into the weights (layers.StyledConv).
        # `split` once a feature: slicing would fill a whole batch of zeros for each picture on the way back.
        singles = zip(feature.split(1), skip.split(1), *(f_e.split(1) for f_e in details), strict=True)
        pictures, masks, flows = zip(*(self._synthesize(f, s, f_e, style.picture(i))
                                       for i, (f, s, *f_e) in enumerate(singles)), strict=True)
        return VToonifyOutput(torch.cat(pictures), [torch.cat(level) for level in zip(*masks, strict=True)],
                              torch.cat(flows) if self.config.detail else None)

    def _encode(self, x: Tensor, style: StyleInput | None) -> tuple[list[Tensor], Tensor, Tensor]:
        """→ encoder features f_E from fine to coarse (before the residual blocks), hand-off feature, skip picture."""
        check_frame(x, self.multiple, self.config.input_channels)
        x = channels_last(x)
        *down, blocks, to_skip = self.encoder
        details = []
        for stage in down:
            x = stage(x)
            details.append(x)
        for i, block in enumerate(blocks):
            x = self._residual(i, block, x, style)
        return details, x, to_skip(x)

    def _residual(self, index: int, block: nn.Module, x: Tensor, style: StyleInput | None) -> Tensor:
        return block(x)

    def _fuse(self, level: int, x: Tensor, skip: Tensor, f_e: Tensor, style: StyleInput
              ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Let the encoder's detail into feature and skip picture; → both, and the mask that chose it, if any."""
        return self.fusion_out[level](torch.cat([x, f_e], 1)), self.fusion_skip[level](torch.cat([skip, f_e], 1)), None

    def _synthesize(self, x: Tensor, skip: Tensor, details: list[Tensor], style: StyleInput) -> VToonifyOutput:
        """StyleGAN's layers above hand-off, a fusion before each of the first up-convolutions.

        details  encoder features from fine to coarse; with config.detail the photograph comes before them
        """
        g, conv, rgb = self.stylegan, latents.first_kept_conv(), latents.first_kept_to_rgb()
        masks, coarse = [], None
        for level, r in enumerate(latents.kept_resolutions(self.config.out_size)):
            if level < len(self.fusion_out):
                x, skip, mask = self._fuse(level, x, skip, details[-1 - level], style)
                masks += [] if mask is None else [mask]
            first, second, color = latents.style_layers(r)
            x = g.convs[conv + 2 * level](x, style.codes[:, first])
            x = g.convs[conv + 2 * level + 1](x, style.codes[:, second])
            skip = g.to_rgbs[rgb + level](x, style.codes[:, color], skip)
            coarse = x if coarse is None else coarse
        if not self.config.detail:
            return VToonifyOutput(skip, masks)
        picture, flow = self.detail(details[0], coarse, x, skip)
        return VToonifyOutput(picture, masks, flow)


def build_encoder(config: VToonifyConfig) -> nn.ModuleList:
    """Stages: one at full size, one per halving down to HANDOFF, the residual blocks, 1x1 to the skip picture."""
    width, c = config.generator.width, config.generator.width(HANDOFF)
    stages = nn.ModuleList([conv_pair(config.input_channels, STEM, width(config.in_size), stride=1)])
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


def check_frame(x: Tensor, multiple: int = MULTIPLE, channels: int = INPUT_CHANNELS) -> None:
    """Raise a clear error unless x is [B,channels,H,W] with sides that `multiple` divides."""
    if x.ndim != 4 or x.shape[1] != channels:
        raise VToonifyError(f"frame tensor has shape {list(x.shape)}; expected [B,{channels},H,W]: RGB in [-1,1] "
                            "and parsing logits times PARSING_SCALE"
                            + (", then the photograph's pixels (models.detail.with_detail)" if channels > INPUT_CHANNELS
                               else ""))
    h, w = x.shape[2:]
    if h % multiple or w % multiple or not h or not w:
        raise VToonifyError(f"frame is {w}×{h}; both sides must be multiples of {multiple}; use "
                            "faces.crop.plan_crop(frame.shape, landmarks, in_size) and faces.crop.cut(frame, plan)")
