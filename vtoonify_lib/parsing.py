"""Face-parsing maps: the 19 channels that VToonify reads beside the RGB picture (SPEC §4, §5).

The network takes *logits*, not classes, times PARSING_SCALE, so that soft borders reach it. Which network makes them is
not decided here: any module from RGB [B,3,H,W] in [−1,1] to logits [B,19,H,W] will do. Colours are for people only.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import nn

from .config import PARSING_CLASSES, PARSING_SCALE, VToonifyError

# Order of CelebAMask-HQ as BiSeNet uses it; in our own renders and networks l_ is the person's left, r_ the right.
CLASS_NAMES = ("background", "skin", "l_brow", "r_brow", "l_eye", "r_eye", "eye_g", "l_ear", "r_ear", "ear_r", "nose",
               "mouth", "u_lip", "l_lip", "neck", "neck_l", "cloth", "hair", "hat")

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


def calm_background(image: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Replace what `outside` [S,S] bool marks by its own colours, blurred over the width: uint8 [S,S,3] → same."""
    weight = outside.astype(np.float32)
    small = [cv2.resize(x, (32, 32), interpolation=cv2.INTER_AREA) for x in (image * weight[..., None], weight)]
    colours, share = (cv2.GaussianBlur(x, (0, 0), 5, borderType=cv2.BORDER_REFLECT) for x in small)
    colours /= np.maximum(share, 1e-4)[..., None]
    smooth = cv2.resize(colours, outside.shape[::-1], interpolation=cv2.INTER_CUBIC).round().clip(0, 255)
    return np.where(outside[..., None], smooth, image).astype(np.uint8)
