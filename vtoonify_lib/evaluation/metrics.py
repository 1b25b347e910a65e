"""Numbers a user can trust: how close the cartoon is to the true render, and whether it follows the face.

On held-out renders the truth is known exactly (the same person drawn in the other style). On photographs there is no
truth: landmarks found on input and output say whether the cartoon's eyes, brows and mouth are where the face's are.
Feature distances use our own parsing net in the part of LPIPS; they compare models of this project only.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..config import PARSING_CLASSES, VToonifyError
from ..faces.crop import align_face, eye_distance
from ..faces.detector import FaceFinder
from ..models import losses
from ..models.encoders import ParsingNet
from ..models.paired_crop import random_crop

UNMARKED = 255  # in a true parsing map: nobody knows, or beyond the photograph's edges
ALIGNED = 1024  # px: side of a face before it is averaged down; the alignment itself does not antialias
MIN_SPREAD = 0.05  # of the mean: features that hardly ever change must not decide a kernel distance


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of pictures [B,3,H,W] in [−1,1] → [B]."""
    return -10 * torch.log10(((a - b) / 2).float().square().mean((1, 2, 3)).clamp_min(1e-10))


def feature_distance(net: ParsingNet, a: Tensor, b: Tensor) -> Tensor:
    """LPIPS-like distance with our own parsing net: unit-length features at three scales, squared, averaged → [B]."""
    total = torch.zeros(a.shape[0], device=a.device)
    x = net.stem(torch.cat([a, b]))
    for stage in net.down[:3]:
        x = stage(x)
        p, q = torch.nn.functional.normalize(x.float(), dim=1, eps=1e-4).chunk(2)
        total = total + (p - q).square().sum(1).mean((1, 2))
    return total / 3


def face_features(net: ParsingNet, pictures: Tensor) -> Tensor:
    """What the parsing net thinks of a whole picture: means and spreads of its deeper maps, [B,3,H,W] → [B,D]."""
    x, found = net.stem(pictures), []
    for stage in net.down:
        x = stage(x)
        found += [x.mean((2, 3)), x.std((2, 3))]
    return torch.cat(found[2:], 1)


def kernel_distance(a: Tensor, b: Tensor) -> float:
    """KID of two sets of features [N,D], [M,D]: how differently they are distributed, 0 when they are not.

    The unbiased estimate of the squared maximum mean discrepancy with the kernel (x·y/D + 1)³ (Bińkowski et al. 2018,
    arXiv 1801.01401), here on features scaled to the spread of `b`. Small sets do: it has no bias, only noise.
    """
    if min(len(a), len(b)) < 2:
        raise VToonifyError(f"a kernel distance needs two pictures on each side; got {len(a)} and {len(b)}")
    mean, spread = b.double().mean(0), b.double().std(0)
    spread = spread.clamp_min(MIN_SPREAD * float(spread.mean()) + 1e-12)
    a, b = ((x.double() - mean) / spread for x in (a, b))

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / x.shape[1] + 1) ** 3

    def within(x: Tensor) -> Tensor:
        k = kernel(x, x)
        return (k.sum() - k.trace()) / (len(x) * (len(x) - 1))

    return float(within(a) + within(b) - 2 * kernel(a, b).mean())


def equivariance(network: Callable[[Tensor], Tensor], x: Tensor, rng: torch.Generator, crops: int = 4) -> float:
    """Flicker: root mean square of net(crop(x)) − crop(net(x)) in grey levels of 255, over random whole-pixel crops.

    network: x [B,22,H,W] → pictures, with its style bound.
    """
    out = network(x)
    errors = [losses.temporal(network, x, out, random_crop(*x.shape[2:], rng=rng)) for _ in range(crops)]
    return float(torch.stack(errors).mean().sqrt() * 127.5)


def landmark_shift(finder: FaceFinder, before: np.ndarray, after: np.ndarray) -> dict[str, float] | None:
    """How far each group of landmarks lies from where it was, in eye distances; None where a face is not found in both.

    before, after: uint8 [H,W,3] of one size.
    """
    faces = [finder.faces(image) for image in (before, after)]
    if not all(faces):
        return None
    return landmark_distance(faces[0][0].landmarks, faces[1][0].landmarks)


def landmark_distance(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """How far each group of landmarks lies apart, in eye distances of a; a, b [68,2]."""
    distance = np.linalg.norm(a - b, axis=1) / eye_distance(a)
    groups = {"brows": slice(17, 27), "nose": slice(27, 36), "eyes": slice(36, 48), "mouth": slice(48, 68)}
    return {"all": float(distance[17:].mean()), **{name: float(distance[part].mean()) for name, part in groups.items()}}


def sharpness(rgb: np.ndarray, landmarks: np.ndarray, size: int = 256) -> float:
    """Energy of the Laplacian of a face's brightness, in FFHQ's framing `size` pixels wide: how fine and how strong its
    detail is, whatever the resolution of the picture.

    rgb uint8 [H,W,3], landmarks [68,2] in its pixels, size a divisor of 1,024 → mean square in units of (1/255)², 0 for
    a flat picture. To be given as a share of the photograph's: its noise and pores count as detail, too.
    """
    face = Image.fromarray(align_face(rgb, landmarks, ALIGNED)).resize((size, size), Image.Resampling.BOX)
    luma = np.asarray(face, np.float64) @ (0.299, 0.587, 0.114)
    inner = 4 * luma[1:-1, 1:-1] - luma[:-2, 1:-1] - luma[2:, 1:-1] - luma[1:-1, :-2] - luma[1:-1, 2:]
    return float(np.square(inner).mean())


def class_iou(maps: Iterable[tuple[np.ndarray, np.ndarray]], classes: int = PARSING_CLASSES) -> dict[str, float]:
    """Intersection over union of parsing maps, pixels of all pictures counted together.

    maps: (found, true), both integers [H,W]; a pixel whose true class is UNMARKED does not count
    → each class that was marked or found, by its number, and "mean" of them all
    """
    table = np.zeros((classes, classes), np.int64)  # true class by found class
    for found, true in maps:
        marked = true != UNMARKED
        table += np.bincount(classes * true[marked].astype(np.int64) + found[marked], minlength=classes**2
                             ).reshape(classes, classes)
    union = table.sum(0) + table.sum(1) - table.diagonal()
    if not union.any():
        raise VToonifyError("no pixel is marked with a class; give parsing maps of at least one picture")
    iou = {str(c): float(table[c, c] / union[c]) for c in np.flatnonzero(union)}
    return {"mean": float(np.mean(list(iou.values()))), **iou}


def mean_of(rows: Iterable[dict[str, float] | None]) -> dict[str, float]:
    """Average of the rows that are there, and how many they are."""
    rows = [row for row in rows if row]
    names = rows[0] if rows else ()
    return {"count": len(rows), **{name: float(np.mean([row[name] for row in rows])) for name in names}}
