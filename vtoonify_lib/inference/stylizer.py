"""Stylizer: a bundle ready to draw faces: networks, face finder, cropping, and the resolution of looks.

Files and clips are handled by `toonifier` and `video`. What differs between bundles of ours and published ones is in
`networks`, `faces.preprocessing` and `styles.request`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..config import VToonifyError
from ..faces.crop import CropPlan, align_face, cut
from ..faces.detector import FACE_NEEDS, FaceFinder
from ..faces.preprocessing import OURS, PUBLISHED
from ..media.images import read_image
from ..models.devices import pick_device
from ..styles.request import AS_TRAINED, Look
from ..styles.table import NEW, STYLE_SUFFIX, StyleCode, load_style
from ..weights.bundle import Bundle
from .networks import Draw, Networks, Parse

FitStyle = Callable[[Bundle, np.ndarray, torch.device], torch.Tensor]
"""(bundle, aligned portrait, uint8 RGB [S,S,3] of out_size, device) → structure code and colour code [2,D]."""


class Stylizer:
    """A bundle made ready on a device.

    device: "auto" (a CUDA GPU if there is one), "cpu", "cuda", "cuda:1", "mps".
    """

    def __init__(self, bundle: Bundle, device: str = "auto") -> None:
        self.bundle, self.config = bundle, bundle.config
        self.device = pick_device(device)
        self.preprocessing = PUBLISHED if bundle.published else OURS
        self.finder = FaceFinder(bundle.path("landmarks"))
        self.networks = Networks(bundle, self.device, self.preprocessing)

    def cut(self, rgb: np.ndarray, plan: CropPlan, whole: bool = True) -> np.ndarray:
        """The planned crop of a frame as the networks see it (see `Networks.painter`), uint8 RGB.

        whole: whether the plan lies on whole pixels, as that of a picture does; that of a gliding crop does not
        """
        if self.config.detail:
            return cut(rgb, plan, grow=self.config.detail)
        return (self.preprocessing.cut if whole else cut)(rgb, plan)

    # ------------------------------------------------------------------ styles
    def resolve(self, look: Look) -> Look:
        """The look with all fields resolved: defaults filled in, pictures and style files read, new styles made."""
        look = look.resolve(self.bundle)
        if self.networks.styles is None:
            return look
        return replace(look, style=tuple((self._style(style, look.seed), weight) for style, weight in look.style))

    def _style(self, style: str | Path | StyleCode, seed: int) -> str | StyleCode:
        if style == NEW:
            return self.new_style(seed)
        if not isinstance(style, Path):
            return style
        return load_style(style, self.bundle) if style.suffix == STYLE_SUFFIX else self.style_of(style)

    def style_of(self, source: str | Path | np.ndarray | Image.Image, name: str | None = None,
                 fit: FitStyle | None = None) -> StyleCode:
        """The style of a portrait in any picture, as the style encoder reads it.

        fit  fits the style to the picture from there, such as `training.style_fitting.fitter(100)`
        VToonifyError when the picture shows no face, or the bundle has one look.
        """
        what = Path(source).name if isinstance(source, str | Path) else "the picture"
        self._needs_styles()
        rgb = read_image(source)
        faces = self.finder.faces(rgb)
        if not faces:
            raise VToonifyError(f"no face was found in the style picture {what} ({rgb.shape[1]}×{rgb.shape[0]} px); "
                                f"{FACE_NEEDS}")
        side = self.config.out_size if fit else self.networks.face_size
        aligned = align_face(rgb, faces[0].landmarks, side)
        codes = fit(self.bundle, aligned, self.device) if fit else self.networks.read_style(aligned)
        return StyleCode.from_codes(name or Path(what).stem, codes)

    def new_style(self, seed: int) -> StyleCode:
        """A random style from the bundle's sampler; the same for the same seed."""
        self._needs_styles()
        null_code = self.networks.styles.null_code
        noise = torch.randn(1, null_code.numel(), generator=torch.Generator().manual_seed(seed))
        with torch.inference_mode():
            codes = self.bundle.network("sampler")(noise)
        return StyleCode.from_codes(f"{NEW}-{seed}", codes)

    def _needs_styles(self) -> None:
        if self.networks.styles is None:
            raise VToonifyError(f"{self.bundle.name} cannot take the style of a picture; load studio-d")

    # ------------------------------------------------------------------ the networks
    def style_code(self, aligned: np.ndarray, look: Look = AS_TRAINED) -> torch.Tensor:
        """Style code of an aligned face, uint8 RGB [S,S,3]: w+ [1,L,D], or [1,1,D] for all layers alike."""
        return self.networks.style_code(aligned, self.resolve(look).require_static())

    def painter(self, style: torch.Tensor, look: Look = AS_TRAINED, parse: Parse | None = None) -> Draw:
        """The network with this style folded in: uint8 RGB [B,H,W,3] → [B,sH,sW,3]; H, W multiples of 8.

        parse: see `networks.Networks.painter`.
        """
        return self.networks.painter(style, look.resolve(self.bundle).require_static().structure, parse)

    def animator(self, aligned: np.ndarray, look: Look, parse: Parse | None = None
                 ) -> Callable[[np.ndarray, float], np.ndarray]:
        """`painter` for a face and a look that may be animated: (crops, seconds) → pictures.

        A style that has changed is folded again: 24 ms for studio-d on two cores.
        """
        if not look.is_animated:
            draw = self.painter(self.style_code(aligned, look), look, parse)
            return lambda crops, seconds: draw(crops)
        look, networks = self.resolve(look), self.networks
        face, exemplar = networks.read(aligned), networks.exemplar_code(look)

        @lru_cache(maxsize=1)
        def painter(structure: float | None, color: float | None) -> Callable[[np.ndarray], np.ndarray]:
            now = replace(look, structure=structure, color=color)
            return networks.painter(networks.mix(face, exemplar, now), structure, parse)

        def draw_at(crops: np.ndarray, seconds: float) -> np.ndarray:
            now = look.at(seconds)
            return painter(now.structure, now.color)(crops)

        return draw_at
