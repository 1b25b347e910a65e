"""A picture drawn again and again, as fast as a slider moves: what does not depend on the look is computed once.

Widgets are in `panels`; here is only what they show.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from . import latents
from .config import VToonifyError
from .look import AS_TRAINED, Look
from .pipeline import Toonifier


class Preview:
    """The face of one picture, ready to be drawn in any look: `Preview(toonifier, "me.jpg").draw(Look("comic"))`.

    Finding the face, its code, parsing map and encoder features are kept; a new look costs folding its style into the
    weights and the layers after them. source, padding, warnings and errors: as for `Toonifier.image`.
    """

    def __init__(self, toonifier: Toonifier, source: str | Path | np.ndarray | Image.Image,
                 padding: float | None = None) -> None:
        self.toonifier = toonifier
        self.face = toonifier.face_in(source, padding)
        self._own = toonifier.networks.read(self.face.aligned)
        self._repaint = toonifier.networks.repainter(self.face.crop[None])

    @property
    def crop(self) -> np.ndarray:
        """What is drawn, uint8 RGB [H,W,3]: the photograph's region at working size."""
        return self.face.crop

    def draw(self, look: Look = AS_TRAINED, layers: Sequence[float] | None = None) -> np.ndarray:
        """The cartoon, uint8 RGB [sH,sW,3], as `Toonifier.image` gives it.

        layers  how much of the style each style layer reads, 0 … 1; `layer_names` says which they are; default all 1
        """
        networks = self.toonifier.networks
        look = self.toonifier.decide(look).still()
        code = networks.mix(self._own, networks.exemplar_code(look), look)
        if layers is not None:
            code = self._partly(code, look, layers)
        return self._repaint(code, look.structure)[0]

    def _partly(self, code: torch.Tensor, look: Look, layers: Sequence[float]) -> torch.Tensor:
        """w+ between the photograph's own and `code`, by layer."""
        count = len(layer_names(self.toonifier.config.out_size))
        share = torch.as_tensor(layers, dtype=code.dtype)
        if share.shape != (count,) or not bool(((share >= 0) & (share <= 1)).all()):
            raise VToonifyError(f"layers are {list(layers)}; expected {count} numbers from 0 to 1")
        plain = self.toonifier.networks.mix(self._own, self._own, look)
        plain, code = (latents.to_plus(w, count) for w in (plain, code))
        return torch.lerp(plain, code, share[None, :, None])


def layer_names(size: int) -> list[str]:
    """The style layers of a generator of `size` pixels, for people: "4²", "8² a", …, "256² rgb"."""
    names = ["4²"]
    for layer in range(1, latents.n_latent(size) - 1):
        r = latents.layer_resolution(layer)
        names.append(f"{r}² {'ab'[(layer + 1) % 2]}")
    return [*names, f"{size}² rgb"]


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
