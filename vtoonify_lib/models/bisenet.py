"""BiSeNet face parsing (Yu et al. 2018, arXiv 1808.00897) with a ResNet-18, under the published names.

A context path sees the whole picture at 1/32 and brings what it saw back to 1/8, where it is fused with the detail of
that resolution. `PublishedParser` is the way VToonify uses it. Ours, a hundredth of the cost, is in `encoders`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import PARSING_CLASSES, VToonifyError
from .layers import channels_last

WIDTH = 64  # channels of ResNet-18's first stage; everything else is a multiple
AUXILIARY = ("conv_out16", "conv_out32")  # heads that only training reads
MIN_SIDE = 8  # of a picture to parse; the context path needs one pixel at a 32nd of twice that
GAIN = 2.0  # VToonify feeds twice the picture: the network was trained on ImageNet's scale, ours is [−1,1]


class ConvNormAct(nn.Module):
    """Convolution that keeps the size, batch norm, ReLU."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 3):
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class BasicBlock(nn.Module):
    """ResNet's block of two 3x3 convolutions; `stride` 2 halves the size."""

    def __init__(self, c_in: int, c_out: int, stride: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.downsample = None
        if stride != 1 or c_in != c_out:
            self.downsample = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet18(nn.Module):
    """RGB [B,3,H,W] → features at 1/8, 1/16 and 1/32 with 2, 4 and 8 times `width` channels."""

    def __init__(self, width: int = WIDTH):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            nn.Sequential(BasicBlock(width * c_in, width * c_out, stride), BasicBlock(width * c_out, width * c_out))
            for c_in, c_out, stride in ((1, 1, 1), (1, 2, 2), (2, 4, 2), (4, 8, 2)))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(image))), 3, stride=2, padding=1)
        eighth = self.layer2(self.layer1(x))
        sixteenth = self.layer3(eighth)
        return eighth, sixteenth, self.layer4(sixteenth)


class AttentionRefinement(nn.Module):
    """Convolution whose channels are weighted by a glance at the whole map."""

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.conv = ConvNormAct(c_in, c_out)
        self.conv_atten = nn.Conv2d(c_out, c_out, 1, bias=False)
        self.bn_atten = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x * torch.sigmoid(self.bn_atten(self.conv_atten(x.mean((2, 3), keepdim=True))))


class ContextPath(nn.Module):
    """RGB → detail at 1/8, context at 1/8, context at 1/16, each with 2·width channels."""

    def __init__(self, width: int = WIDTH):
        super().__init__()
        c = 2 * width
        self.resnet = ResNet18(width)
        self.arm16 = AttentionRefinement(4 * width, c)
        self.arm32 = AttentionRefinement(8 * width, c)
        self.conv_head32 = ConvNormAct(c, c)
        self.conv_head16 = ConvNormAct(c, c)
        self.conv_avg = ConvNormAct(8 * width, c, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        f8, f16, f32 = self.resnet(image)
        x = self.arm32(f32) + self.conv_avg(f32.mean((2, 3), keepdim=True))
        x16 = self.conv_head32(F.interpolate(x, size=f16.shape[2:], mode="nearest"))
        x = self.arm16(f16) + x16
        return f8, self.conv_head16(F.interpolate(x, size=f8.shape[2:], mode="nearest")), x16


class FeatureFusion(nn.Module):
    """Detail and context, concatenated, mixed and weighted by channel: [B,C,h,w] twice → [B,2C,h,w]."""

    def __init__(self, channels: int):
        super().__init__()
        c = 2 * channels
        self.convblk = ConvNormAct(c, c, 1)
        self.conv1 = nn.Conv2d(c, c // 4, 1, bias=False)
        self.conv2 = nn.Conv2d(c // 4, c, 1, bias=False)

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        x = self.convblk(torch.cat([detail, context], dim=1))
        weight = torch.sigmoid(self.conv2(F.relu(self.conv1(x.mean((2, 3), keepdim=True)))))
        return x + x * weight


class Head(nn.Module):
    """Logits at the resolution of the features."""

    def __init__(self, c_in: int, c_mid: int, classes: int):
        super().__init__()
        self.conv = ConvNormAct(c_in, c_mid)
        self.conv_out = nn.Conv2d(c_mid, classes, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_out(self.conv(x))


class BiSeNet(nn.Module):
    """RGB [B,3,H,W] → three heads of logits [B,classes,H,W]; H and W of any size.

    auxiliary  False leaves out the two heads that only training reads, and `forward` gives a single one
    """

    def __init__(self, classes: int = PARSING_CLASSES, width: int = WIDTH, auxiliary: bool = True):
        super().__init__()
        self.cp = ContextPath(width)
        self.ffm = FeatureFusion(2 * width)
        self.conv_out = Head(4 * width, 4 * width, classes)
        if auxiliary:
            self.conv_out16 = Head(2 * width, width, classes)
            self.conv_out32 = Head(2 * width, width, classes)
        self.auxiliary = auxiliary

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        detail, context, coarse = self.cp(channels_last(image))
        logits = [self.conv_out(self.ffm(detail, context))]
        if self.auxiliary:
            logits += [self.conv_out16(context), self.conv_out32(coarse)]
        return tuple(F.interpolate(x, size=image.shape[2:], mode="bilinear", align_corners=True) for x in logits)

    def first_head(self, image: Tensor) -> Tensor:
        """The first head alone, at the resolution it is computed in: [B,classes,⌈H/8⌉,⌈W/8⌉]."""
        detail, context, _ = self.cp(channels_last(image))
        return self.conv_out(self.ffm(detail, context))


class PublishedParser(nn.Module):
    """Face parsing as VToonify uses BiSeNet: RGB [B,3,H,W] in [−1,1] → logits [B,classes,H,W].

    The network sees twice the picture (GAIN) at twice the size; of its answer every second row and column is kept. Only
    the first head is computed. `PublishedParser.state_of` makes its state dict from the published file's.
    """

    def __init__(self, classes: int = PARSING_CLASSES, width: int = WIDTH):
        super().__init__()
        self.net = BiSeNet(classes, width, auxiliary=False)

    @staticmethod
    def state_of(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """State dict of a whole BiSeNet → of a PublishedParser, without the auxiliary heads."""
        return {f"net.{k}": v for k, v in published.items() if k.split(".")[0] not in AUXILIARY}

    def forward(self, image: Tensor) -> Tensor:
        if image.ndim != 4 or image.shape[1] != 3 or min(image.shape[2:]) < MIN_SIDE:
            raise VToonifyError(f"parsing got a picture of shape {list(image.shape)}; expected [B,3,H,W] with RGB in "
                                f"[-1,1], H and W {MIN_SIDE} or more")
        h, w = image.shape[2:]
        double = F.interpolate(GAIN * image, size=(2 * h, 2 * w), mode="bilinear", align_corners=False)
        logits = self.net.first_head(double)
        rows, columns = every_second(logits.shape[2], h, logits.device), every_second(logits.shape[3], w, logits.device)
        return (rows @ logits.float() @ columns.T).to(logits.dtype)


def every_second(n: int, side: int, device: torch.device | str = "cpu") -> Tensor:
    """Matrix [side,n]: n values drawn out linearly to 2·side, corner on corner, of which every second one is kept.

    The same numbers as enlarging and throwing away, without ever making 19 maps of twice the picture's size.
    """
    at = 2 * (n - 1) * torch.arange(side, device=device) / (2 * side - 1)
    return (1 - (at[:, None] - torch.arange(n, device=device)).abs()).clamp(min=0)
