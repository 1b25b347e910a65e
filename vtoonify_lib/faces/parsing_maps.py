"""Face-parsing maps: the 19 channels that VToonify reads beside the RGB picture, and their smoothing in clips.

The network takes *logits*, not classes, times PARSING_SCALE, so that soft borders reach it. Which network makes them is
not decided here: any module from RGB [B,3,H,W] in [−1,1] to logits [B,19,H,W] will do. Colours are for people only.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import torch
from torch import nn

from ..config import PARSING_CLASSES, PARSING_SCALE, VToonifyError
from ..media.optical_flow import dense_flow, fetch

LOOKS_ALIKE = 0.2  # standard deviation of colours in [−1,1] in the confidence of a warped pixel, as published
MEMORY = 2.0       # weight of the maps of earlier frames against one new parsing
CUT = 0.3          # mean confidence below which a new scene is assumed

# Order of CelebAMask-HQ as BiSeNet uses it; in our own renders and networks l_ is the person's left, r_ the right.
CLASS_NAMES = ("background", "skin", "l_brow", "r_brow", "l_eye", "r_eye", "eye_g", "l_ear", "r_ear", "ear_r", "nose",
               "mouth", "u_lip", "l_lip", "neck", "neck_l", "cloth", "hair", "hat")

PERSON = [i for i, name in enumerate(CLASS_NAMES) if name not in ("background", "cloth", "neck_l")]
"""What is drawn where the rest of a frame stays as it was."""

PALETTE = np.array([
    (236, 236, 236), (255, 205, 170), (120, 72, 40), (150, 96, 56), (40, 110, 220), (70, 150, 250), (90, 90, 110),
    (240, 160, 130), (250, 175, 145), (255, 215, 0), (230, 150, 110), (110, 20, 40), (215, 70, 90), (235, 95, 115),
    (225, 180, 150), (180, 160, 220), (90, 160, 130), (70, 50, 60), (170, 80, 170)], dtype=np.uint8)
"""One RGB colour a class, [19,3] uint8: warm for skin, blue for eyes, red for the mouth, dark for hair."""


def parsing_logits(net: nn.Module, rgb: torch.Tensor) -> torch.Tensor:
    """Logits [B,19,H,W] of the frame [B,3,H,W] in [−1,1]; H and W multiples of 8."""
    logits = net(rgb)
    if logits.shape[1] != PARSING_CLASSES or logits.shape[2:] != rgb.shape[2:]:
        raise VToonifyError(f"parsing network returned {tuple(logits.shape)} for a frame {tuple(rgb.shape)}; "
                            f"expected [B,{PARSING_CLASSES},H,W] of the same size")
    return logits


def network_input(rgb: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """What VToonify reads: RGB [B,3,H,W] in [−1,1] and logits · PARSING_SCALE → [B,22,H,W]."""
    return torch.cat([rgb, logits.to(rgb.dtype) * PARSING_SCALE], dim=1)


def parsing_picture(logits: torch.Tensor) -> np.ndarray:
    """Logits [19,H,W] or classes [H,W] → colours uint8 [H,W,3] for display."""
    classes = logits.argmax(0) if logits.ndim == 3 else logits
    return PALETTE[classes.cpu().numpy()]


def person_mask(*logits: torch.Tensor) -> np.ndarray:
    """Where a person is, in any of several parsing maps [19,H,W] of one size: float32 [H,W] in [0,1], soft.

    Head, hair and neck; clothes, hands and what is behind are not. A little wider than the maps say.
    """
    shares = [one.float().softmax(0)[PERSON].sum(0).cpu() for one in logits]  # steady maps are on the CPU already
    found = torch.stack(shares).amax(0).numpy()
    side = max(found.shape)
    grown = cv2.dilate(found, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * (side // 64) + 1,) * 2))
    return cv2.GaussianBlur(grown, (0, 0), max(1.0, side / 100))


class SteadyParsing:
    """Parsing logits of a clip's frames, given in order, smoothed over time as the published system does, but causally.

    The maps of the previous frame are warped along the optical flow and trusted where its colours match the new one:
    b = exp(−‖I_fetched − I‖² / (2·0.2²)). The published window of eleven frames is a running mean here, which needs
    one flow per frame, constant memory and no future frames: S ← (L + MEMORY·b·S_fetched) / (1 + MEMORY·b).

    parse  uint8 RGB [1,H,W,3] → logits [1,19,H,W]
    every  only every n-th frame is parsed, the others reuse the warped maps; the first frame of a scene always is
    """

    def __init__(self, parse: Callable[[np.ndarray], torch.Tensor], every: int = 1) -> None:
        self.parse, self.every = parse, every
        self._known: np.ndarray | None = None  # [H,W,19] float32, of the frame self._frame
        self._frame, self._age = np.empty(0), 0

    def __call__(self, frames: np.ndarray) -> torch.Tensor:
        """Frames, uint8 RGB [B,H,W,3] → logits [B,19,H,W], float32 on the CPU."""
        return torch.stack([torch.from_numpy(self._next(frame)).permute(2, 0, 1) for frame in frames])

    def _next(self, frame: np.ndarray) -> np.ndarray:
        belief = self._fetch(frame) if self._frame.shape == frame.shape else None
        cut = belief is None or belief.mean() < CUT
        self._age = 0 if cut else self._age + 1
        if self._age % self.every == 0:
            new = self.parse(frame[None])[0].float().permute(1, 2, 0).cpu().numpy()
            self._known = new if cut else (new + MEMORY * belief * self._known) / (1 + MEMORY * belief)
        self._frame = frame
        return self._known

    def _fetch(self, frame: np.ndarray) -> np.ndarray:
        """Warp the known maps to this frame → confidence in them, [H,W,1] in [0,1]."""
        flow = dense_flow(frame, self._frame)
        self._known = fetch(self._known, flow)
        error = (fetch(self._frame, flow).astype(np.float32) - frame) / 127.5
        return np.exp(-np.square(error).sum(2, keepdims=True) / (2 * LOOKS_ALIKE**2))


def calm_background(image: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Replace what `outside` [S,S] bool marks by its own colours, blurred over the width: uint8 [S,S,3] → same."""
    weight = outside.astype(np.float32)
    small = [cv2.resize(x, (32, 32), interpolation=cv2.INTER_AREA) for x in (image * weight[..., None], weight)]
    colours, share = (cv2.GaussianBlur(x, (0, 0), 5, borderType=cv2.BORDER_REFLECT) for x in small)
    colours /= np.maximum(share, 1e-4)[..., None]
    smooth = cv2.resize(colours, outside.shape[::-1], interpolation=cv2.INTER_CUBIC).round().clip(0, 255)
    return np.where(outside[..., None], smooth, image).astype(np.uint8)
