"""A picture redrawn at interactive speed: what does not depend on the look is computed once.

The widgets that show it are in `apps.panels`.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from ..styles.request import AS_TRAINED, Look, ResolvedLook
from .toonifier import Toonifier


class Preview:
    """The face of one picture, ready to be drawn in any look: `Preview(toonifier, "me.jpg").draw(Look("comic"))`.

    Face, face code, parsing map and encoder features are computed once; a new look costs folding its style into the
    weights and the layers after them. source, padding, warnings and errors: as for `Toonifier.image`.
    """

    def __init__(self, toonifier: Toonifier, source: str | Path | np.ndarray | Image.Image,
                 padding: float | None = None) -> None:
        self.toonifier = toonifier
        self.face = toonifier.face_in(source, padding)
        self._encode = cache(lambda: toonifier.networks.encode(self.face.aligned))
        self._repaint = toonifier.networks.repainter(self.face.crop[None])

    @property
    def crop(self) -> np.ndarray:
        """What is drawn, uint8 RGB: the photograph's region as the network sees it, at working or at output size."""
        return self.face.crop

    def draw(self, look: Look | ResolvedLook = AS_TRAINED) -> np.ndarray:
        """The cartoon, uint8 RGB [sH,sW,3], as `Toonifier.image` gives it."""
        look = self.toonifier.resolve(look)
        return self._repaint(look.code(self._encode), look.request.structure)[0]


def wipe(before: np.ndarray, after: np.ndarray, share: float) -> np.ndarray:
    """`after`, uint8 RGB [H,W,3], with its left `share` (0 … 1) uncovered to show `before`, of any size."""
    height, width = after.shape[:2]
    if before.shape != after.shape:
        before = np.asarray(Image.fromarray(before).resize((width, height), Image.Resampling.BICUBIC))
    out, edge = after.copy(), round(float(np.clip(share, 0, 1)) * width)
    out[:, :edge] = before[:, :edge]
    if 0 < edge < width:
        out[:, edge - 1 : edge + 1] = 255
    return out
