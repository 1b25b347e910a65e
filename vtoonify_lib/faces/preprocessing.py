"""Two ways from a frame to the crop a network sees, and from what it draws to bytes: ours, and the published system's.

Published checkpoints were trained and are known with the second one, quirks and all: scale from the horizontal
eye distance, a blur that shifts the picture, 8 bits by truncation. A toonifier asks its bundle once which
of the two it wants; nothing else tells them apart. The crop of a whole clip is always ours (`inference.crop_plan`): the
published rule looks at the first frame alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from ..media.images import to_image
from .crop import CropPlan, cut, plan_crop, published_cut, published_plan


@dataclass(frozen=True)
class Preprocessing:
    """One of the two ways.

    plan      (frame shape, landmarks [68,2], in_size, padding or None) → CropPlan of one picture
    cut       (frame uint8 [H,W,3], plan on whole pixels) → its crop, uint8
    to_image  picture, float [B,3,H,W] in about [−1,1] → uint8 [B,H,W,3]
    """

    plan: Callable[[tuple[int, ...], np.ndarray, int, float | None], CropPlan]
    cut: Callable[[np.ndarray, CropPlan], np.ndarray]
    to_image: Callable[[torch.Tensor], np.ndarray]


def truncated_image(batch: torch.Tensor) -> np.ndarray:
    """As `images.to_image`, but rounded down."""
    pixels = batch.detach().float().clamp(-1, 1).add_(1).mul_(127.5).to(torch.uint8)
    return np.ascontiguousarray(pixels.movedim(-3, -1).cpu().numpy())


OURS = Preprocessing(plan_crop, cut, to_image)
PUBLISHED = Preprocessing(published_plan, published_cut, truncated_image)
