"""Stylizer: a bundle ready to draw faces: networks, face finder, cropping, and the resolution of looks.

Files and clips are handled by `toonifier` and `video`. What differs between bundles of ours and published ones is in
`networks`, `faces.preprocessing` and `styles.request`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, lru_cache
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
from ..styles.request import AS_TRAINED, Look, ResolvedLook
from ..styles.table import NEW, STYLE_SUFFIX, StyleCode, StyleTable, load_style
from ..weights.bundle import Bundle
from ..weights.published import style_code
from .networks import Draw, Engine, TorchEngine

FitStyle = Callable[[Bundle, np.ndarray, torch.device], torch.Tensor]
"""(bundle, aligned portrait, uint8 RGB [S,S,3] of out_size, device) → structure code and colour code [2,D]."""


class Stylizer:
    """A bundle made ready on a device.

    device: "auto" (a CUDA GPU if there is one), "cpu", "cuda", "cuda:1", "mps". engine: what runs the networks.
    """

    def __init__(self, bundle: Bundle, device: str = "auto", engine: type[Engine] = TorchEngine) -> None:
        self.bundle, self.config = bundle, bundle.config
        self.device = pick_device(device)
        self.preprocessing = PUBLISHED if bundle.published else OURS
        self.finder = FaceFinder(bundle.path("landmarks"))
        self.networks = engine(bundle, self.device, self.preprocessing)
        self.styles = StyleTable(bundle) if bundle.styles else None

    def cut(self, rgb: np.ndarray, plan: CropPlan, whole: bool = True) -> np.ndarray:
        """The planned crop of a frame as the networks see it (see `networks.Engine`), uint8 RGB.

        whole: whether the plan lies on whole pixels, as that of a picture does; that of a gliding crop does not
        """
        if self.config.detail:
            return cut(rgb, plan, grow=self.config.detail)
        return (self.preprocessing.cut if whole else cut)(rgb, plan)

    # ------------------------------------------------------------------ styles
    def resolve(self, look: Look | ResolvedLook) -> ResolvedLook:
        """The look with all fields resolved: defaults filled in, pictures and style files read, new styles made."""
        if isinstance(look, ResolvedLook):
            if look.bundle is self.bundle:
                return look
            look = look.request
        look = look.resolve(self.bundle)
        if self.styles is None:
            return ResolvedLook(self.bundle, look, None if look.style is None else style_code(self.bundle, look.style))
        look = replace(look, style=tuple((self._style(style, look.seed), weight) for style, weight in look.style))
        return ResolvedLook(self.bundle, look, self.styles.blend(look.style), self.styles.null_code[None])

    def _style(self, style: str | Path | StyleCode, seed: int) -> str | StyleCode:
        if style == NEW:
            return self.new_style(seed)
        if not isinstance(style, Path):
            return style
        return load_style(style, self.bundle) if style.suffix.lower() == STYLE_SUFFIX else self.style_of(style)

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
                                f"{FACE_NEEDS}", code="no-face")
        side = self.config.out_size if fit else self.networks.face_size
        aligned = align_face(rgb, faces[0].landmarks, side)
        codes = fit(self.bundle, aligned, self.device) if fit else self.networks.encode(aligned)
        return StyleCode.from_codes(name or Path(what).stem, codes)

    def new_style(self, seed: int) -> StyleCode:
        """A random style from the bundle's sampler; the same for the same seed."""
        self._needs_styles()
        null_code = self.styles.null_code
        noise = torch.randn(1, null_code.numel(), generator=torch.Generator().manual_seed(seed))
        with torch.inference_mode():
            codes = self.bundle.network("sampler")(noise)
        return StyleCode.from_codes(f"{NEW}-{seed}", codes)

    def _needs_styles(self) -> None:
        if self.styles is None:
            raise VToonifyError(f"{self.bundle.name} cannot take the style of a picture; load looks", code="unable")

    # ------------------------------------------------------------------ the networks
    def style_code(self, aligned: np.ndarray, look: Look | ResolvedLook = AS_TRAINED) -> torch.Tensor:
        """Style code of an aligned face, uint8 RGB [S,S,3]: w+ [1,L,D], or [1,1,D] for all layers alike."""
        return self.resolve(look).code(lambda: self.networks.encode(aligned))

    def painter(self, code: torch.Tensor, look: Look | ResolvedLook = AS_TRAINED) -> Draw:
        """The network with this style folded in: uint8 RGB [B,dH,dW,3] → [B,sH,sW,3], see `networks.Engine`."""
        return self.networks.painter(code, self.resolve(look).require_static().request.structure)

    def animator(self, aligned: np.ndarray, look: Look | ResolvedLook) -> Draw:
        """For a face and a look that may be animated: (crops, seconds, their logits, by default found) → pictures.

        A style that has changed is folded again: 24 ms for studio-d on two cores.
        """
        look, encode = self.resolve(look), cache(lambda: self.networks.encode(aligned))

        @lru_cache(maxsize=1)
        def painter(request: Look) -> Draw:
            return self.networks.painter(replace(look, request=request).code(encode), request.structure)

        def draw_at(crops: np.ndarray, seconds: float, logits: torch.Tensor | None = None) -> np.ndarray:
            return painter(look.request.at(seconds))(crops, logits)

        if not look.request.is_animated:
            painter(look.request)  # before memory is measured
        return draw_at
