"""Perceptual distance LPIPS v0.1 (Zhang et al. 2018, arXiv 1801.03924) on VGG-16, without torchvision.

Five feature maps of a VGG-16, each pixel's vector brought to unit length, compared by squared difference and weighted
by learned linear heads. The maps serve other losses too: `VGGFeatures` has the first four, without heads. Weights come
from the user's files; none is opened here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import VToonifyError
from .layers import channels_last

# VGG-16's convolutions by their number in torchvision's `features`; the slices end with relu1_2, relu2_2, relu3_3, …
SLICES = (((0, 2), 64), ((5, 7), 128), ((10, 12, 14), 256), ((17, 19, 21), 512), ((24, 26, 28), 512))
SHIFT = (-0.030, -0.088, -0.188)  # ImageNet's mean and deviation, for pictures in [−1,1]
SCALE = (0.458, 0.448, 0.450)
CAFFE_MEAN = (122.67892, 116.66877, 104.00699)  # RGB of 255; the original VGG-16 reads pictures less this, and no more
EPSILON = 1e-10  # of the norm over channels


class Scaling(nn.Module):
    """RGB in [−1,1] → what VGG was trained on, by default torchvision's."""

    def __init__(self, shift: Sequence[float] = SHIFT, scale: Sequence[float] = SCALE):
        super().__init__()
        self.register_buffer("shift", torch.tensor(shift)[None, :, None, None])
        self.register_buffer("scale", torch.tensor(scale)[None, :, None, None])

    def forward(self, image: Tensor) -> Tensor:
        return (image - self.shift) / self.scale


class VGG16(nn.Module):
    """Scaled RGB [B,3,H,W] → the five feature maps after relu1_2, 2_2, 3_3, 4_3, 5_3, at 1/1 … 1/16; or the first."""

    def __init__(self, maps: int = len(SLICES)):
        super().__init__()
        c = 3
        for i, (numbers, channels) in enumerate(SLICES[:maps], start=1):
            convs = nn.Module()
            for number in numbers:
                convs.add_module(str(number), nn.Conv2d(c, channels, 3, padding=1))
                c = channels
            self.add_module(f"slice{i}", convs)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for i, convs in enumerate(self.children()):
            if i:
                x = F.max_pool2d(x, 2)
            for conv in convs.children():
                x = F.relu(conv(x))
            maps.append(x)
        return maps


class VGGFeatures(nn.Module):
    """Pictures [B,3,H,W] in [−1,1], sides 8 or more → VGG-16's maps relu1_2, 2_2, 3_3 and 4_3 in its original scaling.

    Random until `training.vgg` has filled it. Always in evaluation mode, and without gradients for its own weights.
    """

    MAPS = 4

    def __init__(self):
        super().__init__()
        self.scaling = Scaling([mean / 127.5 - 1 for mean in CAFFE_MEAN], [1 / 127.5] * 3)
        self.net = VGG16(self.MAPS)
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> VGGFeatures:
        return super().train(False)

    def forward(self, image: Tensor) -> list[Tensor]:
        return self.net(self.scaling(channels_last(image)))

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Pictures [B,3,H,W] in [−1,1] → mean squared difference of unit features, averaged over the maps, [B]."""
        maps = zip(self(a), self(b), strict=True)
        return sum((unit(x.float()) - unit(y.float())).square().sum(1).mean((1, 2)) for x, y in maps) / self.MAPS


class LPIPS(nn.Module):
    """Perceptual distance of two pictures [B,3,H,W] in [−1,1], sides 16 or more → [B,1,1,1], 0 when they are equal.

    Random until `training.objectives.lpips_of` has filled it. Always in evaluation mode, and without gradients for its
    own weights: it is a measure, not a model to train.
    """

    def __init__(self):
        super().__init__()
        self.scaling_layer = Scaling()
        self.net = VGG16()
        self.lin0, self.lin1, self.lin2, self.lin3, self.lin4 = (linear_head(channels) for _, channels in SLICES)
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> LPIPS:
        return super().train(False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        if a.shape != b.shape:
            raise VToonifyError(f"pictures to compare have shapes {list(a.shape)} and {list(b.shape)}; "
                                "expected the same")
        return sum(head["model"]((unit(x) - unit(y)).square()).mean((2, 3), keepdim=True)
                   for head, x, y in zip(self.heads(), self.features(a), self.features(b), strict=True))

    def heads(self) -> tuple[nn.ModuleDict, ...]:
        return self.lin0, self.lin1, self.lin2, self.lin3, self.lin4

    def features(self, image: Tensor) -> list[Tensor]:
        """VGG's five feature maps of a picture [B,3,H,W] in [−1,1]: 64, 128, 256, 512, 512 channels at 1/1 … 1/16."""
        if image.ndim != 4 or image.shape[1] != 3 or min(image.shape[2:]) < 16:
            raise VToonifyError(f"perceptual features of a picture of shape {list(image.shape)}; expected [B,3,H,W], "
                                "H and W 16 or more")
        return self.net(self.scaling_layer(channels_last(image)))


def linear_head(channels: int) -> nn.ModuleDict:
    """Non-negative weights of the channels, published as `model.1`; `model.0` is a dropout, which evaluation passes."""
    return nn.ModuleDict({"model": nn.Sequential(nn.Dropout(), nn.Conv2d(channels, 1, 1, bias=False))})


def unit(x: Tensor) -> Tensor:
    """Feature map [B,C,H,W] with unit length over its channels; where all are zero they stay so, gradient too."""
    return x * (torch.linalg.vector_norm(x, dim=1, keepdim=True) + EPSILON).reciprocal()  # dividing is the slower way
