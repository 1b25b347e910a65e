"""VToonify-D (paper §4.2): VToonify on a DualStyleGAN, with a style degree that can change from frame to frame.

It differs from VToonify-T (`vtoonify`) in three places: a ModRes block after each residual block of the encoder brings
in the exemplar's structure, a mask driven by the degree says how much of the photograph's detail passes a fusion, and
colour codes go through DualStyleGAN's T_s. Names and shapes are those of the published checkpoints.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import HANDOFF, VToonifyConfig, VToonifyError, resolutions
from . import latents
from .dualstylegan import DualStyleGAN, modres_blocks
from .layers import SLOPE, AdaIN
from .vtoonify import StyleInput, VToonify, identity_fusion

DEFAULT_DEGREE = 0.5  # half-way between the photograph's structure and the exemplar's


class MaskedFusion(nn.Module):
    """A mask m_E, driven by the style degree, chooses how much of the encoder's detail to let in. Paper Eq. (5).

    f_G, f_E [B,C,H,W], degree [B] or float → (feature [B,O,H,W], mask m_E [B,1,H,W] in [0,1]).
    """

    LABEL = 128  # length of the code made from the degree

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.conv = identity_fusion(c_in, c_in, c_out)
        self.norm = AdaIN(2 * c_in, self.LABEL)
        self.conv2 = nn.Conv2d(2 * c_in, 1, 3, padding=1)
        self.linear = nn.Sequential(nn.Linear(1, 64), nn.LeakyReLU(SLOPE),
                                    nn.Linear(64, self.LABEL), nn.LeakyReLU(SLOPE))

    def forward(self, f_g: Tensor, f_e: Tensor, degree: Tensor | float = 1.0) -> tuple[Tensor, Tensor]:
        degree = torch.as_tensor(degree, dtype=f_g.dtype, device=f_g.device).reshape(-1, 1).expand(f_g.shape[0], 1)
        difference = torch.cat([f_g, (f_g - f_e).abs()], dim=1)
        mask = torch.tanh(F.relu(self.conv2(self.norm(difference, self.linear(degree)))))
        return self.conv(torch.cat([f_g, f_e * mask], dim=1)), mask


class VToonifyD(VToonify):
    """VToonify-D: frame, style code and structure degree → cartoon.

    x       [B,22,H,W]: RGB in [−1,1] and parsing logits · PARSING_SCALE; H, W multiples of 8, one of them 16 or more
    w       [B,L,D] (or [B,D], or batch 1 for all frames): structure layers (0 … 6) from the exemplar, colour layers
            from the face (keeps its colour) or from the exemplar (transfers it); `latents.with_color_of` mixes them
    degree  structure degree, 0 (the photograph's) … 1 (the exemplar's): a float, or one for each frame [B]
    →       [B,3,sH,sW], about [−1,1], s = config.scale
    """

    BACKBONE = "dualstylegan"
    STYLEGAN = "generator.generator"

    def __init__(self, config: VToonifyConfig):
        widths = {config.generator.width(r) for r in resolutions(HANDOFF)}
        if len(widths) > 1:
            raise VToonifyError(f"VToonify-D got {sorted(widths)} channels at resolutions up to {HANDOFF}; they must "
                                "be equal, because all its ModRes blocks work on the hand-off feature")
        super().__init__(config)
        self.res = nn.ModuleList(modres_blocks(config.generator, dilated=True))
        # DualStyleGAN's weights: where training starts, and where the published one stayed
        for mine, its in zip(self.res, self.generator.res, strict=False):
            mine.load_state_dict(its.state_dict())

    def _build_generator(self) -> nn.Module:
        return DualStyleGAN(self.config.generator)

    def _build_fusion(self, channels: int) -> nn.Module:
        return MaskedFusion(channels, channels)

    def unread(self) -> list[str]:
        """As for VToonify-T, with DualStyleGAN's own ModRes blocks, and the first of ours, which no block precedes."""
        return [*super().unread(), *(f"generator.res.{i}" for i in range(latents.n_structure())), "res.0"]

    def codes(self, w: Tensor, batch: int = 1) -> Tensor:
        """The codes that the layers read, [batch,L,D]: T_c of the structure layers, T_s of the colour layers."""
        w = super().codes(w, batch)
        structure = self.generator.style(w[:, : latents.n_structure()])
        return torch.cat([structure, self.generator.color_codes(w)], dim=1)

    def _style(self, x: Tensor, w: Tensor, degree: Tensor | float = DEFAULT_DEGREE) -> StyleInput:
        batch, codes = len(x), self.codes(w, len(x))
        return StyleInput(codes, as_degrees(degree, batch, codes.dtype, codes.device).expand(batch))

    def _encode(self, x: Tensor, style: StyleInput) -> tuple[list[Tensor], Tensor, Tensor]:
        check_handoff(x, self.config.in_size)
        return super()._encode(x, style)

    def _residual(self, index: int, block: nn.Module, x: Tensor, style: StyleInput) -> Tensor:
        layer = index + 1
        return self.res[layer](block(x), style.codes[:, layer], style.degree)

    def _fuse(self, level: int, x: Tensor, skip: Tensor, f_e: Tensor, style: StyleInput
              ) -> tuple[Tensor, Tensor, Tensor]:
        feature, mask = self.fusion_out[level](x, f_e, style.degree)
        return feature, self.fusion_skip[level](torch.cat([skip, f_e * mask], 1)), mask


def as_degrees(degree: Tensor | float, frames: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Structure degree, a float or a tensor of one number or one for each frame, → [1] or [frames]."""
    degree = torch.as_tensor(degree, dtype=dtype, device=device)
    if degree.ndim > 1 or degree.numel() not in (1, frames):
        raise VToonifyError(f"style degree has shape {list(degree.shape)}; expected one number, or one for each of "
                            f"the {frames} frames")
    return degree.reshape(-1)


def check_handoff(x: Tensor, in_size: int) -> None:
    """Raise a clear error for a frame of one pixel at hand-off: ModRes normalises over it, and nothing is left."""
    stride = in_size // HANDOFF
    if x.shape[2:] == (stride, stride):
        raise VToonifyError(f"frame is {stride}×{stride}; VToonify-D needs {2 * stride} pixels along one side at "
                            "least; more padding: faces.crop.plan_crop(frame.shape, landmarks, in_size, padding)")


def build_vtoonify(config: VToonifyConfig, inference: bool = False) -> VToonify:
    """The network that a configuration describes; with `inference`, without the weights that frames never read."""
    network = VToonifyD(config) if config.backbone == VToonifyD.BACKBONE else VToonify(config)
    return network.for_inference() if inference else network
