"""A small network for the landmarks of a face: 68 points, two iris centres, how open the eyes are, and how sure it is.

Two parts that see two resolutions: `FaceNet` reads the whole face, `EyeNet` each eye by itself, as a batch of two,
because a lid is one or two pixels in the picture of a face. Both are regressions (points, not heat maps): a face costs
3 to 5 ms on one core. Where the crops come from is in `faces.landmarks`, training in `training.landmarks`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .encoders import ConvNorm, Residual
from .layers import channels_last

FACE_SIDE = 112            # side of the crop of a face
EYE_WIDTH, EYE_HEIGHT = 64, 48
POINTS = 70                # 68 landmarks (iBUG order), then the irises, the subject's right first
EYE_POINTS = 7             # outer corner, upper lid outer and inner, inner corner, lower lid inner and outer; iris
FACE_WIDTHS = (16, 32, 64, 112)
EYE_WIDTHS = (16, 32, 48, 64)
LEAST_CONTRAST = 0.05      # of a crop, over the whole range: flatter ones are not stretched to more


class FaceMarks(NamedTuple):
    """Output of `FaceNet` for B crops. Coordinates run from −1 to 1 over the crop.

    points [B,70,2]; spread [B], expected distance from the truth in frontal eye distances; face [B], logit
    """

    points: Tensor
    spread: Tensor
    face: Tensor


class EyeMarks(NamedTuple):
    """Output of `EyeNet` for B crops: points [B,7,2], −1 to 1 over the crop; openness [B], see `landmarks.Marks`."""

    points: Tensor
    openness: Tensor


def even_light(image: Tensor) -> Tensor:
    """Crops [B,3,H,W] at mean 0 and contrast 1 each: neither low light nor a pale print reaches the network."""
    mean = image.mean((1, 2, 3), keepdim=True)
    return (image - mean) / image.std((1, 2, 3), keepdim=True).clamp_min(2 * LEAST_CONTRAST)


def _trunk(widths: tuple[int, ...], deep: tuple[int, ...]) -> nn.Sequential:
    """Half size in every step; `deep` residual blocks after each."""
    layers: list[nn.Module] = []
    for c_in, c_out, blocks in zip((3, *widths), widths, deep, strict=False):
        layers += [ConvNorm(c_in, c_out, stride=2), *(Residual(c_out) for _ in range(blocks))]
    return nn.Sequential(*layers)


def _head(features: int, hidden: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(features, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, out))


class FaceNet(nn.Module):
    """RGB [B,3,112,112] in [−1,1] → :class:`FaceMarks`. `mean` [70,2] is the face from which points are counted."""

    def __init__(self, widths: tuple[int, ...] = FACE_WIDTHS):
        super().__init__()
        self.trunk = _trunk(widths, (0, 1, 2, 1))
        self.squeeze = nn.Sequential(nn.Conv2d(widths[-1], 24, 1, bias=False), nn.BatchNorm2d(24),
                                     nn.ReLU(inplace=True))
        self.head = _head(24 * (FACE_SIDE // 16) ** 2, 160, 2 * POINTS + 2)
        self.register_buffer("mean", torch.zeros(POINTS, 2))

    def forward(self, image: Tensor) -> FaceMarks:
        out = self.head(self.squeeze(self.trunk(channels_last(even_light(image))))).float()
        points = self.mean + out[:, : 2 * POINTS].reshape(-1, POINTS, 2)
        return FaceMarks(points, out[:, -2].clamp(-6, 2).exp(), out[:, -1])


class EyeNet(nn.Module):
    """RGB [B,3,48,64] in [−1,1] of right eyes, or mirrored left ones → :class:`EyeMarks`."""

    def __init__(self, widths: tuple[int, ...] = EYE_WIDTHS):
        super().__init__()
        self.trunk = _trunk(widths, (0, 1, 1, 0))
        self.squeeze = nn.Sequential(nn.Conv2d(widths[-1], 32, 1, bias=False), nn.BatchNorm2d(32),
                                     nn.ReLU(inplace=True))
        self.head = _head(32 * (EYE_WIDTH // 16) * (EYE_HEIGHT // 16), 96, 2 * EYE_POINTS + 1)
        self.register_buffer("mean", torch.zeros(EYE_POINTS, 2))

    def forward(self, image: Tensor) -> EyeMarks:
        out = self.head(self.squeeze(self.trunk(channels_last(even_light(image))))).float()
        return EyeMarks(self.mean + out[:, :-1].reshape(-1, EYE_POINTS, 2), 0.3 + 0.1 * out[:, -1])


class LandmarkNet(nn.Module):
    """Both parts, as they lie in one file: `net.face(crops)`, `net.eyes(crops)`."""

    def __init__(self) -> None:
        super().__init__()
        self.face, self.eyes = FaceNet(), EyeNet()
