"""Reconstruction losses: ours, or the published ones (arXiv 2209.11224).

A criterion maps an output and its target to weighted terms; adversarial, flicker and mask losses are added elsewhere.
Ours need only the parsing net. The published ones compare features of VGG-16, whose weights are files of the user's:
`load_lpips`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import VToonifyError
from ..evaluation.metrics import feature_distance
from ..models.encoders import ParsingNet
from ..models.paired_crop import Crop, crop
from ..models.perceptual import LPIPS, VGGFeatures, unit
from ..weights.bundle import fill
from ..weights.unpickling import read_checkpoint
from . import augment

FEATURE_WEIGHT, EDGE_WEIGHT = 0.25, 0.5
CHROMA_WEIGHT, CHROMA_PIXELS = 1.0, 8  # of colours without their brightness; px of output that are averaged
VGG_WEIGHT = 0.1  # pulls at a drawing blurred by 4 px as hard as colours and edges do (gradients' L1: 1.5 each)
DETAIL_SHARE = 0.6  # of the squares for VGG and the adversary that lie around small facial features
SEEN = 512  # px: largest side that LPIPS and VGG compare

Criterion = Callable[..., dict[str, Tensor]]
"""(out, y, mask, rng=None) → parts: out, y [B,3,H,W] in [−1,1]; mask [B,1,H,W], how much pixels count; rng: random
numbers of the iteration, for those that need some.
`.flicker`: weight of the flicker loss beside it, None: that of `vtoonify`."""


class OurLosses:
    """L1 of colours and edges, and the distance of our parsing net's features, at half size above `whole` pixels."""

    flicker = None

    def __init__(self, parsing: ParsingNet, whole: int = 0) -> None:
        self.parsing, self.whole = parsing, whole

    def __call__(self, out: Tensor, y: Tensor, mask: Tensor, rng: torch.Generator | None = None
                 ) -> dict[str, Tensor]:
        a, b = (augment.half(p) if p.shape[-1] > self.whole else p for p in (out, y.to(out.dtype)))  # half: for speed
        return {"picture": picture_loss(out.float(), y, mask),
                "feature": FEATURE_WEIGHT * feature_distance(self.parsing, a, b).mean()}


class SharpLosses:
    """Ours, the colours (`chroma_loss`), and the L1 distance of VGG's unit features (relu1_2 … 4_3) on a square of each
    picture (`squares`).

    A square, because VGG on all of 512 px costs six times as much as the network; at full size, because a shrunk
    picture does not show sharpness.

    square  its side in output pixels; smaller pictures are compared whole
    weight  of the features' distance
    """

    flicker = None

    def __init__(self, parsing: ParsingNet, vgg: VGGFeatures, square: int = 256, weight: float = VGG_WEIGHT) -> None:
        self.ours, self.vgg, self.square, self.weight = OurLosses(parsing), vgg, square, weight

    def __call__(self, out: Tensor, y: Tensor, mask: Tensor, rng: torch.Generator | None = None
                 ) -> dict[str, Tensor]:
        drawn, wanted = squares((out, y), mask, min(self.square, *out.shape[2:]), rng)
        with torch.no_grad():
            wanted = self.vgg(wanted)
        drawn = self.vgg(drawn.to(y.dtype))
        apart = sum((unit(a.float()) - unit(b.float())).abs().sum(1).mean() / b.shape[1] ** 0.5
                    for a, b in zip(drawn, wanted, strict=True))
        return self.ours(out, y, mask) | {"chroma": CHROMA_WEIGHT * chroma_loss(out.float(), y, mask),
                                          "vgg": self.weight * apart}


class PublishedLosses:
    """VToonify's: 0.1·MSE + 0.01·LPIPS at 512 px or less; the flicker loss beside it weighs 1."""

    flicker = 1.0

    def __init__(self, lpips: LPIPS) -> None:
        self.lpips = lpips

    def __call__(self, out: Tensor, y: Tensor, mask: Tensor, rng: torch.Generator | None = None
                 ) -> dict[str, Tensor]:
        return {"picture": 0.1 * F.mse_loss(out.float(), y),
                "feature": 0.01 * self.lpips(seen(out.float()), seen(y)).mean()}


def seen(picture: Tensor) -> Tensor:
    """[B,3,S,S] averaged down to SEEN px, if it is larger."""
    return picture if picture.shape[-1] <= SEEN else F.interpolate(picture, (SEEN, SEEN), mode="area")


def squares(pictures: Sequence[Tensor], mask: Tensor, side: int, rng: torch.Generator | None = None) -> list[Tensor]:
    """A square of `side` px of each picture, in the same place of all of `pictures` [B,·,H,W] → [B,·,side,side] each.

    DETAIL_SHARE of them lie around a pixel that counts more than others, mask [B,1,H,W] > 1, where there is one, the
    more often, the more it counts: eyes are a hundredth of a picture, and what people look at.
    """
    spots = []
    for own in mask[:, 0]:
        more = (own - 1).clamp(min=0).float().cpu().flatten()
        if more.any() and float(torch.rand((), generator=rng)) < DETAIL_SHARE:
            chosen = float(torch.rand((), generator=rng)) * more.sum()
            centre = divmod(int(torch.searchsorted(more.cumsum(0), chosen).clamp(max=len(more) - 1)), own.shape[1])
            corner = [min(max(at - side // 2, 0), n - side) for at, n in zip(centre, own.shape, strict=True)]
        else:
            corner = [int(torch.randint(0, n - side + 1, (), generator=rng)) for n in own.shape]
        spots.append(Crop(*corner, side, side))
    return [torch.cat([crop(one, spot) for one, spot in zip(picture.split(1), spots, strict=True)])
            for picture in pictures]


def picture_loss(out: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    """Weighted L1 of colours and of their gradients: out, y [B,3,H,W], mask [B,1,H,W]."""
    error = out - y
    l1 = (mask * error.abs()).mean()
    dx = (mask[..., 1:] * (error[..., 1:] - error[..., :-1]).abs()).mean()
    dy = (mask[..., 1:, :] * (error[..., 1:, :] - error[..., :-1, :]).abs()).mean()
    return l1 + EDGE_WEIGHT * (dx + dy)


def chroma_loss(out: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    """Weighted L1 of colours without brightness, averaged over squares: as `picture_loss`.

    Where a pixel may be iris, pupil or the light in an eye, L1 of single pixels is least for a grey; the mean colour
    around it stays that of the iris.
    """
    error = F.avg_pool2d(mask * (out - y), CHROMA_PIXELS)
    return (error - error.mean(1, keepdim=True)).abs().mean()


def load_lpips(vgg: str | Path, heads: str | Path, device: str | torch.device = "cpu") -> LPIPS:
    """LPIPS v0.1 from the files its users know: torchvision's VGG-16 (`vgg16-397923af.pth`) and LPIPS's heads
    (`vgg.pth`, v0.1). VToonifyError for a file that is missing or holds something else."""
    for path in (vgg, heads):
        if not Path(path).is_file():
            raise VToonifyError(f"{path} does not exist; the published losses need torchvision's vgg16 weights and the "
                                "linear heads of LPIPS v0.1")
    return lpips_of(read_checkpoint(vgg), read_checkpoint(heads)).to(device)


def lpips_of(vgg: Mapping[str, Tensor], heads: Mapping[str, Tensor]) -> LPIPS:
    """LPIPS of state dicts with torchvision's names, `features.0.weight`, …, whose classifier no feature needs, and
    with LPIPS's, `lin0.model.1.weight`, …"""
    net = LPIPS()
    named = {f"features.{name.partition('.')[2]}": name for name in net.net.state_dict()}
    fill(net.net, {named.get(k, k): v for k, v in vgg.items() if not k.startswith("classifier.")}, "VGG-16")
    fill(nn.ModuleDict({f"lin{i}": head for i, head in enumerate(net.heads())}), heads, "the file of LPIPS heads")
    return net
