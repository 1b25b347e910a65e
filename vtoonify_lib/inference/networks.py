"""Engine: what runs the networks of a bundle; and the one that draws with PyTorch.

face → code, crop → parsing maps, crop and code → picture. Nothing else in the package calls a network to draw, so
another engine (ONNX Runtime) is one more subclass of `Engine`: `Toonifier.load("film", engine=Mine)`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..faces.parsing_maps import SteadyParsing, network_input, parsing_logits, person_mask
from ..faces.preprocessing import Preprocessing
from ..media.images import sharpened, to_tensor
from ..models import folded
from ..models.detail import with_detail
from ..models.devices import memory_errors, pick_dtype
from ..models.psp import PSP
from ..weights.bundle import Bundle

Draw = Callable[..., np.ndarray]
"""(crops, uint8 RGB [B,dH,dW,3]; their parsing logits, by default found) → pictures, uint8 RGB [B,sH,sW,3]."""
Parse = Callable[[np.ndarray], Tensor]


class Engine(ABC):
    """A bundle's networks, ready on a device. A subclass has three methods: `encode`, `parse_small` and `fold`.

    Crops are uint8 RGB [B,dH,dW,3], pictures [B,sH,sW,3]; H, W multiples of 8. s is config.scale, d is config.detail
    or 1: a network that carries detail over sees crops at output size. Codes are on the CPU.
    face_size  side of the aligned face that `encode` reads, in pixels
    precision  names how numbers are rounded: a clip that was begun with another one is drawn anew
    """

    face_size: int
    precision: str

    def __init__(self, bundle: Bundle, device: torch.device, preprocessing: Preprocessing) -> None:
        self.bundle, self.device, self._to_image = bundle, device, preprocessing.to_image

    def to_image(self, drawn: Tensor) -> np.ndarray:
        """What the network draws, [B,3,sH,sW] in about [−1,1], as pictures; sharpened where its bundle says so."""
        return sharpened(self._to_image(drawn), self.bundle.config.sharpen or 0.0)

    @abstractmethod
    def encode(self, aligned: np.ndarray) -> Tensor:
        """Style encoder: code w+ [1,L,D] or [1,1,D] of an aligned face, uint8 RGB [S,S,3]; [1,2,D] of a style's
        portrait, where the bundle has styles of ours: structure and colour."""

    @abstractmethod
    def parse_small(self, crops: np.ndarray) -> Tensor:
        """Parsing logits [B,19,H,W] of crops at input size, uint8 RGB [B,H,W,3]."""

    @abstractmethod
    def fold(self, code: Tensor, structure: float | None) -> Callable[[np.ndarray, Tensor], np.ndarray]:
        """VToonify with one style: (crops, their parsing logits) → pictures.

        code       w+, see `ResolvedLook.code`; structure: degree that VToonify-D reads beside it
        """

    def parse(self, crops: np.ndarray) -> Tensor:
        """Parsing logits [B,19,H,W] of crops as `painter` takes them."""
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

    def person_mask(self, picture: np.ndarray, logits: Tensor) -> np.ndarray:
        """Mask of the person in the drawing, uint8 RGB [sH,sW,3], or in the photograph with these logits [1,19,H,W].

        → float32 [H,W] in [0,1], see `faces.parsing_maps.person_mask`.
        """
        size = (logits.shape[3], logits.shape[2])
        small = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))
        return person_mask(logits[0], self.parse_small(small[None])[0])

    def painter(self, code: Tensor, structure: float | None = None) -> Draw:
        """`fold`, for crops whose logits need not be known."""
        draw = self.fold(code, structure)
        return lambda crops, logits=None: draw(crops, self.parse(crops) if logits is None else logits)

    def repainter(self, crops: np.ndarray) -> Callable[[Tensor, float | None], np.ndarray]:
        """Like `painter`, for fixed crops and a changing style: (code, structure) → pictures."""
        logits = self.parse(crops)
        return lambda code, structure=None: self.fold(code, structure)(crops, logits)


class TorchEngine(Engine):
    """PyTorch. Precision follows the device: float16 on CUDA, bfloat16 on CPUs that are fast in it, else float32."""

    def __init__(self, bundle: Bundle, device: torch.device, preprocessing: Preprocessing) -> None:
        super().__init__(bundle, device, preprocessing)
        self.dtype = pick_dtype(device)
        self.precision = str(self.dtype)
        with memory_errors(device, "the networks of the bundle"):
            self.vtoonify = bundle.network("vtoonify")
            self.parsing = folded.fold(bundle.network("parsing"), dtype=self.dtype).to(device)
            self.encoder = bundle.network("style_encoder").to(device)
        self.face_size = self.encoder.image_size

    def encode(self, aligned: np.ndarray) -> Tensor:
        """See `Engine`. Published: pSp answers in z+, which the checkpoint's mapping network turns into w+."""
        with torch.inference_mode(), memory_errors(self.device, "the style encoder"):
            code = self.encoder(to_tensor(aligned, self.device)).float().cpu()
            return self.vtoonify.map(code) if isinstance(self.encoder, PSP) else code

    def parse_small(self, crops: np.ndarray) -> Tensor:
        with torch.inference_mode(), self._memory(crops):
            return parsing_logits(self.parsing, to_tensor(crops, self.device).to(self.dtype))

    def fold(self, code: Tensor, structure: float | None) -> Callable[[np.ndarray, Tensor], np.ndarray]:
        """See `Engine`. Crops too large for the memory are drawn in tiles."""
        network, degree = self._folded(code), () if structure is None else (structure,)

        def draw(crops: np.ndarray, logits: Tensor) -> np.ndarray:
            with torch.inference_mode(), self._memory(crops):
                return self.to_image(folded.run_with_oom_fallback(network, self._input(crops, logits), *degree))

        return draw

    def repainter(self, crops: np.ndarray) -> Callable[[Tensor, float | None], np.ndarray]:
        """What no style changes is computed once: parsing maps, and encoder features up to the residual blocks."""
        features: list[Tensor] = []

        def draw(code: Tensor, structure: float | None = None) -> np.ndarray:
            network, degree = self._folded(code), () if structure is None else (structure,)
            with torch.inference_mode(), self._memory(crops):
                if not features:
                    features.extend(network.features(self._input(crops, self.parse(crops))))
                return self.to_image(network.draw([feature.clone() for feature in features], *degree))

        return draw

    def _folded(self, code: Tensor) -> folded.FoldedVToonify:
        with memory_errors(self.device, "the network"):
            return folded.fold(self.vtoonify, code.cpu(), self.dtype).to(self.device)

    def _memory(self, crops: np.ndarray) -> AbstractContextManager:
        return memory_errors(self.device, f"a crop of {crops.shape[2]}×{crops.shape[1]} px")

    def _input(self, crops: np.ndarray, logits: Tensor) -> Tensor:
        """What the network sees of crops, uint8 RGB [B,dH,dW,3]."""
        photo, logits, detail = to_tensor(crops, self.device), logits.to(self.device), self.bundle.config.detail
        if not detail:
            return network_input(photo, logits)
        return with_detail(network_input(F.avg_pool2d(photo, detail), logits), photo, detail)
