"""The three networks of a bundle made ready on a device: face → style code, crop → picture.

Both families of bundles end here. Ours: the style encoder answers in w+. Published: pSp answers in z+, which the
checkpoint's own mapping network turns into w+; VToonify-D mixes it with the exemplar's (SPEC §4).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from . import fast, latents
from .checkpoints import Bundle
from .devices import memory_errors, pick_dtype
from .images import to_tensor
from .look import Look
from .models.psp import PSP
from .parsing import network_input, parsing_logits
from .preprocessing import Preprocessing
from .published import style_code

Draw = Callable[[np.ndarray], np.ndarray]


class Networks:
    """Precision follows the device: float16 on CUDA, bfloat16 on CPUs that are fast in it, else float32."""

    def __init__(self, bundle: Bundle, device: torch.device, preprocessing: Preprocessing) -> None:
        self.bundle, self.device, self.dtype = bundle, device, pick_dtype(device)
        self.to_image = preprocessing.to_image
        with memory_errors(device, "the networks of the bundle"):
            self.vtoonify = bundle.network("vtoonify")
            self.parsing = fast.fold(bundle.network("parsing"), dtype=self.dtype).to(device)
            self.encoder = bundle.network("style_encoder").to(device)

    @property
    def face_size(self) -> int:
        """Side of the aligned face that `style_code` reads, in pixels."""
        return self.encoder.image_size

    def style_code(self, aligned: np.ndarray, look: Look) -> Tensor:
        """Style code w+ [1,L,D], or [1,1,D] for all layers alike, of an aligned face, uint8 RGB [S,S,3].

        look: decided. With an exemplar, its structure layers and the face's colour layers, or all of its own.
        """
        exemplar = None if look.style is None else style_code(self.bundle, look.style)
        if exemplar is not None and look.color:
            return exemplar
        with torch.inference_mode(), memory_errors(self.device, "the style encoder"):
            face = self.encoder(to_tensor(aligned, self.device)).float().cpu()
            if isinstance(self.encoder, PSP):
                face = self.vtoonify.map(face)
            return face if exemplar is None else latents.with_color_of(exemplar, face)

    def painter(self, style: Tensor, structure: float | None = None) -> Draw:
        """The network with this style folded in: uint8 RGB [B,H,W,3] → [B,sH,sW,3]; H, W multiples of 8."""
        network = self._drawing(style.cpu(), structure)

        def draw(crops: np.ndarray) -> np.ndarray:
            with torch.inference_mode(), memory_errors(self.device, f"a crop of {crops.shape[2]}×{crops.shape[1]} px"):
                rgb = to_tensor(crops, self.device)
                logits = parsing_logits(self.parsing, rgb.to(self.dtype))
                return self.to_image(network(network_input(rgb, logits)))

        return draw

    def _drawing(self, style: Tensor, structure: float | None) -> Callable[[Tensor], Tensor]:
        """Input [B,22,H,W] → picture."""
        with memory_errors(self.device, "the network"):
            network = fast.fold(self.vtoonify, style, self.dtype).to(self.device)
        return network if structure is None else partial(network, degree=structure)
