"""The three networks of a bundle made ready on a device: face → style code, crop → picture.

Both families of bundles end here. Ours: the style encoder gives one code in w+ for VToonify-T, a structure code and a
colour code for VToonify-D. Published: pSp answers in z+, which the checkpoint's mapping network turns into w+.
VToonify-D mixes the face's code with the exemplar's: structure layers take the exemplar's, colour layers a blend.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..faces.parsing_maps import SteadyParsing, network_input, parsing_logits, person_mask
from ..faces.preprocessing import Preprocessing
from ..media.images import to_tensor
from ..models import folded, latents
from ..models.detail import with_detail
from ..models.devices import memory_errors, pick_dtype
from ..models.psp import PSP
from ..styles.request import Look
from ..styles.table import StyleCode, StyleTable
from ..weights.bundle import Bundle
from ..weights.published import style_code

Draw = Callable[[np.ndarray], np.ndarray]
Parse = Callable[[np.ndarray], Tensor]


class Networks:
    """Precision follows the device: float16 on CUDA, bfloat16 on CPUs that are fast in it, else float32."""

    def __init__(self, bundle: Bundle, device: torch.device, preprocessing: Preprocessing) -> None:
        self.bundle, self.device, self.dtype = bundle, device, pick_dtype(device)
        self.to_image = preprocessing.to_image
        with memory_errors(device, "the networks of the bundle"):
            self.vtoonify = bundle.network("vtoonify")
            self.parsing = folded.fold(bundle.network("parsing"), dtype=self.dtype).to(device)
            self.encoder = bundle.network("style_encoder").to(device)
        self.styles = StyleTable(bundle) if bundle.styles else None

    @property
    def face_size(self) -> int:
        """Side of the aligned face that `style_code` reads, in pixels."""
        return self.encoder.image_size

    def style_code(self, aligned: np.ndarray, look: Look) -> Tensor:
        """Style code w+ [1,L,D], or [1,1,D] for all layers alike, of an aligned face, uint8 RGB [S,S,3].

        look: resolved and static. With an exemplar: its structure, and colours between the face's and its own.
        """
        exemplar = self.exemplar_code(look)
        alone = exemplar is not None and self.styles is None and look.color == 1  # the face's code is not needed
        return self.mix(exemplar if alone else self.read(aligned), exemplar, look)

    def read(self, aligned: np.ndarray) -> Tensor:
        """The code of an aligned face, uint8 RGB [S,S,3]: w+ [1,L,D] or [1,1,D]; with styles of ours, [1,2,D].

        For our VToonify-D all photographs have the null code: their colours reach it with the frame.
        """
        if self.styles is not None:
            return self.styles.null_code[None]
        with torch.inference_mode(), memory_errors(self.device, "the style encoder"):
            code = self.encoder(to_tensor(aligned, self.device)).float().cpu()
            return self.vtoonify.map(code) if isinstance(self.encoder, PSP) else code

    def read_style(self, aligned: np.ndarray) -> Tensor:
        """Structure code and colour code [2,D] of the style of an aligned picture, uint8 RGB [S,S,3]; ours only."""
        with torch.inference_mode(), memory_errors(self.device, "the style encoder"):
            return self.encoder(to_tensor(aligned, self.device)).float().cpu()[0]

    def exemplar_code(self, look: Look) -> Tensor | None:
        """The style of a resolved look: w+ [1,L,D], ours [1,2,D]; None where there is no style to choose."""
        if self.styles is None:
            return None if look.style is None else style_code(self.bundle, look.style)
        return sum(weight * (style.codes if isinstance(style, StyleCode) else self.styles.codes(style))
                   for style, weight in look.style)[None]

    def mix(self, face: Tensor, exemplar: Tensor | None, look: Look) -> Tensor:
        """Codes as `read` and `exemplar_code` give them → w+, at the degrees of a resolved, static look."""
        if exemplar is None:
            return face
        if self.styles is not None:
            layers = latents.n_latent(self.bundle.config.out_size)
            code, own = (latents.styled(face, wanted, look.structure, look.color, layers)
                         for wanted in (exemplar, face))
            return code if look.layers is None else torch.lerp(own, code, torch.tensor(look.layers)[None, :, None])
        return latents.with_color_of(exemplar, torch.lerp(face, exemplar, float(look.color)))

    def parse(self, crops: np.ndarray) -> Tensor:
        """Parsing logits [B,19,H,W] of crops as `painter` takes them, uint8 RGB [B,dH,dW,3]."""
        return self.parse_small(self.small(crops))

    def steady_parse(self, every: int) -> Parse:
        """`parse` for the frames of a clip, one after the other: see `faces.parsing_maps.SteadyParsing`."""
        steady = SteadyParsing(self.parse_small, every)
        return lambda crops: steady(self.small(crops))

    def small(self, crops: np.ndarray) -> np.ndarray:
        """Crops as `painter` takes them at input size: uint8 RGB [B,dH,dW,3] → [B,H,W,3]."""
        detail = self.bundle.config.detail
        if not detail:
            return crops
        return np.stack([np.asarray(Image.fromarray(crop).reduce(detail)) for crop in crops])

    def parse_small(self, crops: np.ndarray) -> Tensor:
        """Parsing logits [B,19,H,W] of crops at input size, uint8 RGB [B,H,W,3]; H, W multiples of 8."""
        with torch.inference_mode(), self._memory(crops):
            return parsing_logits(self.parsing, to_tensor(crops, self.device).to(self.dtype))

    def person_mask(self, picture: np.ndarray, logits: Tensor) -> np.ndarray:
        """Mask of the person in the drawing, uint8 RGB [sH,sW,3], or in the photograph with these logits [1,19,H,W].

        → float32 [H,W] in [0,1], see `faces.parsing_maps.person_mask`.
        """
        size = (logits.shape[3], logits.shape[2])
        small = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))
        return person_mask(logits[0], self.parse_small(small[None])[0])

    def painter(self, style: Tensor, structure: float | None = None, parse: Parse | None = None) -> Draw:
        """The network with this style folded in: uint8 RGB [B,dH,dW,3] → [B,sH,sW,3]; H, W multiples of 8.

        s is config.scale, d is config.detail or 1: a network that carries detail over sees crops at output size.
        parse  crops → logits, instead of `Networks.parse` (see `steady_parse`)
        """
        network = self._folded(style)

        def draw(crops: np.ndarray) -> np.ndarray:
            with torch.inference_mode(), self._memory(crops):
                x = self._input(crops, parse or self.parse)
                degree = () if structure is None else (structure,)
                return self.to_image(folded.run_with_oom_fallback(network, x, *degree))

        return draw

    def repainter(self, crops: np.ndarray) -> Callable[[Tensor, float | None], np.ndarray]:
        """Like `painter`, for fixed crops and a changing style: (style, structure) → pictures.

        What no style changes is computed once: parsing maps, and encoder features up to the residual blocks.
        """
        features: list[Tensor] = []

        def draw(style: Tensor, structure: float | None = None) -> np.ndarray:
            network = self._folded(style)
            with torch.inference_mode(), self._memory(crops):
                if not features:
                    features.extend(network.features(self._input(crops, self.parse)))
                details = [feature.clone() for feature in features]
                return self.to_image(network.draw(details) if structure is None else network.draw(details, structure))

        return draw

    def _folded(self, style: Tensor) -> folded.FoldedVToonify:
        with memory_errors(self.device, "the network"):
            return folded.fold(self.vtoonify, style.cpu(), self.dtype).to(self.device)

    def _memory(self, crops: np.ndarray) -> AbstractContextManager:
        return memory_errors(self.device, f"a crop of {crops.shape[2]}×{crops.shape[1]} px")

    def _input(self, crops: np.ndarray, parse: Parse) -> Tensor:
        """What the network sees of crops, uint8 RGB [B,dH,dW,3]."""
        photo, logits, detail = to_tensor(crops, self.device), parse(crops).to(self.device), self.bundle.config.detail
        if not detail:
            return network_input(photo, logits)
        return with_detail(network_input(F.avg_pool2d(photo, detail), logits), photo, detail)
