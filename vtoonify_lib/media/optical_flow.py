"""Optical flow between two frames, and pictures fetched along it. Only OpenCV's DIS flow, and NumPy.

Training needs no flow (paper §4.3): it is used here to steady parsing maps while a clip runs, and to measure flicker.
"""

from __future__ import annotations

import cv2
import numpy as np

LEAST = 32  # px: thinner pictures are padded, for OpenCV crashes on them


def dense_flow(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where each pixel of `a` is found in `b`: uint8 RGB [H,W,3] both → float32 [H,W,2], x and y in pixels.

    Dense inverse search (Kroeger et al. 2016, arXiv 1603.03590), OpenCV's "fast" preset: 1 ms at 200×200.
    """
    height, width = a.shape[:2]
    more = [(0, max(0, LEAST - side)) for side in (height, width)]
    grey = [np.pad(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), more, mode="edge") for picture in (a, b)]
    return cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST).calc(*grey, None)[:height, :width]


def fetch(source: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """`source` [H,W,C] read at every pixel's place plus flow [H,W,2] → [H,W,C]; beyond the edge its rim goes on."""
    height, width = flow.shape[:2]
    columns, rows = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
    return cv2.remap(source, flow[..., 0] + columns, flow[..., 1] + rows[:, None], cv2.INTER_LINEAR,
                     borderMode=cv2.BORDER_REPLICATE)
