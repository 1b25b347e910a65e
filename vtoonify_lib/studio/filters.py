"""Image filters that the drawing techniques share: edge-preserving smoothing, structure, strokes along it.

Pictures are float32 [H,W,3] RGB in [0,1], masks float32 [H,W] in [0,1], widths in pixels. Nothing here knows faces.
"""
from __future__ import annotations

from functools import partial

import cv2
import numpy as np

LUMA = np.float32([0.3, 0.59, 0.11])


def use_one_thread() -> None:
    """For workers that share their cores with others: OpenCV would start a thread a core in each."""
    cv2.setNumThreads(1)


def luma(picture: np.ndarray) -> np.ndarray:
    """Brightness [H,W] of a picture [H,W,3]."""
    return picture @ LUMA


def to_linear(picture: np.ndarray) -> np.ndarray:
    """Display values → light, by a plain gamma of 2.2."""
    return np.maximum(picture, 0) ** 2.2


def to_display(light: np.ndarray) -> np.ndarray:
    """Reverse of :func:`to_linear`, clipped to [0,1]."""
    return np.clip(light, 0, 1) ** (1 / 2.2)


def smoothstep(x: np.ndarray, low: np.ndarray | float, high: np.ndarray | float) -> np.ndarray:
    """0 up to low, 1 from high on, smooth between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def mix(a: np.ndarray, b: np.ndarray, share: np.ndarray | float) -> np.ndarray:
    """a where the share is 0, b where it is 1; a share [H,W] serves every channel."""
    if isinstance(share, np.ndarray) and share.ndim == 2 and np.ndim(a) == 3:
        share = share[..., None]
    return a + (b - a) * share


def saturate(picture: np.ndarray, amount: float | np.ndarray) -> np.ndarray:
    """Chroma times amount, brightness kept."""
    grey = luma(picture)[..., None]
    return grey + (picture - grey) * amount


def blur(x: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian; large ones on a coarser grid, where they look the same."""
    k = int(sigma / 4)
    if k < 2 or min(x.shape[:2]) < 8 * k:
        return cv2.GaussianBlur(x, (0, 0), max(sigma, 0.1))
    small = cv2.resize(x, (x.shape[1] // k, x.shape[0] // k), interpolation=cv2.INTER_AREA)
    return cv2.resize(cv2.GaussianBlur(small, (0, 0), sigma / k), x.shape[1::-1], interpolation=cv2.INTER_LINEAR)


def masked_blur(x: np.ndarray, mask: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian mean of what the mask covers; defined everywhere where the mask is near."""
    weight = mask[..., None] if x.ndim == 3 else mask
    low = np.maximum(blur(mask, sigma), 1e-4)
    return blur(x * weight, sigma) / (low[..., None] if x.ndim == 3 else low)


def disk(radius: float) -> np.ndarray:
    """Structuring element of cv2's erode and dilate, at least one pixel in radius."""
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * max(1, round(radius)) + 1,) * 2)


def dilated(mask: np.ndarray, radius: float) -> np.ndarray:
    """A mask [h,w] grown by `radius` pixels, bool."""
    return cv2.dilate(mask.astype(np.uint8), disk(radius)) > 0


def _box_mean(x: np.ndarray, radius: int) -> np.ndarray:
    return cv2.boxFilter(x, -1, (2 * radius + 1,) * 2, borderType=cv2.BORDER_REFLECT)


def guided(x: np.ndarray, radius: float, epsilon: float) -> np.ndarray:
    """Guided filter (He et al. 2013): smooths x where it varies by less than epsilon, keeps its edges.

    x [H,W] or [H,W,C], each channel guided by itself: skin before a wall as bright as it differs in colour only. O(1)
    in the radius.
    """
    mean = partial(_box_mean, radius=round(radius))
    m = mean(x)
    spread = mean(x * x) - m * m
    a = spread / (spread + epsilon**2)
    return mean(a) * x + mean(m - a * m)


def laid_to_edges(mask: np.ndarray, picture: np.ndarray, radius: float, epsilon: float) -> np.ndarray:
    """A mask [h,w] laid to the edges of a picture [H,W,3] → [H,W] in [0,1]: the guided filter with a guide in colour.

    Its coefficients are found at the mask's size and enlarged (He and Sun 2015). radius in pixels of the picture.
    """
    height, width = picture.shape[:2]
    guide = cv2.resize(picture, mask.shape[::-1], interpolation=cv2.INTER_AREA)
    mean = partial(_box_mean, radius=max(1, round(radius * len(mask) / height)))

    def wide(v: np.ndarray) -> np.ndarray:
        return cv2.resize(v, (width, height), interpolation=cv2.INTER_LINEAR)

    m, mx = mean(guide), mean(mask)
    products = mean((guide[..., :, None] * guide[..., None, :]).reshape(*mask.shape, 9)).reshape(*mask.shape, 3, 3)
    spread = products - m[..., :, None] * m[..., None, :] + epsilon**2 * np.eye(3, dtype=np.float32)
    a = np.linalg.solve(spread, (mean(guide * mask[..., None]) - m * mx[..., None])[..., None])[..., 0]
    a = a.astype(np.float32)
    return np.clip((wide(mean(a)) * picture).sum(-1) + wide(mean(mx - (a * m).sum(-1))), 0, 1)


def structure(grey: np.ndarray, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Direction of least change, unit vectors [H,W,2], and coherence [H,W] in [0,1], from the structure tensor."""
    gx, gy = (cv2.Sobel(grey, cv2.CV_32F, *order) for order in ((1, 0), (0, 1)))
    a, b, c = (blur(v, sigma) for v in (gx * gx, gx * gy, gy * gy))
    root = np.sqrt((a - c) ** 2 + 4 * b * b)
    angle = 0.5 * np.arctan2(2 * b, a - c) + np.pi / 2
    return np.stack([np.cos(angle), np.sin(angle)], -1).astype(np.float32), root / (a + c + 1e-6)


def along(x: np.ndarray, direction: np.ndarray, length: float, step: float = 1.0) -> np.ndarray:
    """Line integral convolution (Cabral and Leedom 1993): x averaged along a field of directions without sign.

    direction [H,W,2] unit vectors; length: about how far, in pixels, to each side.
    """
    height, width = x.shape[:2]
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    total, weight = x.copy(), 1.0
    for sign in (1, -1):
        px, py, d = columns.copy(), rows.copy(), sign * direction
        for i in range(1, int(length / step) + 1):
            px, py = px + step * d[..., 0], py + step * d[..., 1]
            k = float(np.exp(-2 * (i * step / length) ** 2))
            total = total + k * cv2.remap(x, px, py, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            weight += k
            near = cv2.remap(direction, px, py, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
            turned = near[..., 0] * d[..., 0] + near[..., 1] * d[..., 1] < 0
            d = np.where(turned[..., None], -near, near)
    return total / weight


def sharpened(x: np.ndarray, sigma: float, amount: float) -> np.ndarray:
    """Unsharp mask."""
    return x + amount * (x - blur(x, sigma))


def bounding_box(mask: np.ndarray, margin: int) -> tuple[slice, slice]:
    """Rows and columns around what a mask covers, and a margin; the whole picture where it covers nothing."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return slice(0, mask.shape[0]), slice(0, mask.shape[1])
    return tuple(slice(max(0, found[0] - margin), min(side, found[-1] + margin + 1))
                 for found, side in ((rows, mask.shape[0]), (columns, mask.shape[1])))
