"""Evaluation of a trained VToonify on held-out photographs and their drawings: numbers and contact sheets."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..evaluation import metrics
from ..faces.crop import eye_centres, eye_distance
from ..media.images import to_image
from ..models.encoders import ParsingNet
from ..models.perceptual import VGGFeatures
from ..studio.shards import Pairs
from .objectives import seen
from .pairs import Pair, StyleCondition
from .vtoonify import VToonifyTask, stylise
from .windows import whole

TILE = 384  # px: side of a picture on the sheets


@dataclass(frozen=True)
class HeldOutExample:
    """One held-out entry in one look; natural, detail: see `whole`.

    condition: for VToonify-D, by entry and look
    """

    pairs: Pairs
    entry: int
    look: str
    scale: int
    multiple: int
    condition: Callable[[int, str], StyleCondition] | None = None
    face: int = 64
    natural: int | None = None
    detail: int = 1

    def pair(self) -> Pair:
        """The whole picture, without augmentation."""
        condition = None if self.condition is None else lambda entries: self.condition(int(entries[0]), self.look)
        return whole(self.pairs, [self.entry], self.look, self.scale, self.multiple, condition, self.face,
                     self.natural, self.detail)

    def photo(self) -> Tensor:
        """The photograph at full size, cut as the drawing of `pair`: [1,3,S,S] in [−1,1]."""
        return whole(self.pairs, [self.entry], "photo", self.scale, self.multiple, natural=self.natural).y

    @property
    def landmarks(self) -> np.ndarray:
        """The photograph's, in pixels of `photo`."""
        size = self.pairs["photo"].shape[1]
        return np.array(self.pairs["photo_landmarks"][self.entry]) * (self.natural or size) / size


@torch.no_grad()
def score(task: VToonifyTask, parsing: ParsingNet, vgg: VGGFeatures | None, examples: Sequence[HeldOutExample],
          until: float = float("inf"), device: str | torch.device = "cpu") -> dict[str, float]:
    """Means over the examples, as many as fit until `time.monotonic()` is `until`, at least one.

    psnr, vgg        to the target drawing; vgg is `VGGFeatures.distance` at 512 px or less
    sharpness        share of the photograph's, `metrics.sharpness` at 256 px of face; sharpness_512: at 512
    input_…          the photograph instead of ours;  drawing_…: the target drawing
    """
    rows: list[dict[str, float]] = []
    for example in examples:
        if rows and time.monotonic() > until:
            break
        pair = example.pair().to(device)
        out, photo = stylise(task, parsing, pair), example.photo().to(device)
        row = {}
        for name, picture in (("", out), ("input_", photo)):
            row[f"{name}psnr"] = float(metrics.psnr(picture, pair.y))
            if vgg is not None:
                row[f"{name}vgg"] = float(vgg.distance(*map(seen, (picture, pair.y))))
        for size, suffix in ((256, ""), (512, "_512")):
            ours, theirs, drawn = (metrics.sharpness(to_image(p)[0], example.landmarks, size)
                                   for p in (out, photo, pair.y))
            theirs = max(theirs, 1e-6)
            row |= {f"sharpness{suffix}": ours / theirs, f"drawing_sharpness{suffix}": drawn / theirs}
        rows.append(row)
    return {"count": len(rows), **{name: round(float(np.mean([row[name] for row in rows])), 5) for name in rows[0]}}


@torch.no_grad()
def contact_sheets(task: VToonifyTask, parsing: ParsingNet, examples: Sequence[HeldOutExample],
                   device: str | torch.device = "cpu") -> tuple[Image.Image, Image.Image]:
    """Photograph, ours, drawing: whole pictures, and squares around the eyes, pixel by pixel; a column each example."""
    sheet, crops = [], []
    for example in examples:
        pair = example.pair().to(device)
        column = [to_image(p)[0] for p in (example.photo(), stylise(task.eval(), parsing, pair), pair.y)]
        sheet.append(np.concatenate([np.asarray(Image.fromarray(p).resize((TILE, TILE))) for p in column]))
        crops.append(np.concatenate([_eyes(p, example.landmarks) for p in column]))
    return Image.fromarray(np.concatenate(sheet, 1)), Image.fromarray(np.concatenate(crops, 1))


def _eyes(picture: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """The square of TILE px, or the whole picture, that has the eyes' centre in its middle."""
    x, y = np.mean(eye_centres(landmarks), 0) + (0, 0.3 * eye_distance(landmarks))
    side = min(TILE, *picture.shape[:2])
    left, top = (int(np.clip(at - side / 2, 0, n - side)) for at, n in ((x, picture.shape[1]), (y, picture.shape[0])))
    found = picture[top : top + side, left : left + side]
    return np.pad(found, ((0, TILE - side), (0, TILE - side), (0, 0)))
