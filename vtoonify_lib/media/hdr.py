"""High dynamic range for ordinary screens: PQ (SMPTE ST 2084) and HLG (ARIB STD-B67) become 8 bits of BT.709.

Faces stay as bright as they are in ordinary video: light up to 0.7 of diffuse white (203 cd/m², ITU-R BT.2408) is not
changed, what is brighter rolls off towards white, with its hue.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from av.video.reformatter import ColorPrimaries, ColorTrc

WHITE = 203.0    # cd/m² of diffuse white
PEAK = 1000.0    # cd/m² of the screen that HLG is meant for
KNEE = 0.7       # of diffuse white, above which light rolls off
GAMMA = 2.4      # of ordinary screens (BT.1886)
STEPS = 4096     # of the table that encodes light
WIDE_TO_ORDINARY = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]],
                            np.float32)  # BT.2020 to BT.709, linear light


def tone_mapper(transfer: int, primaries: int) -> Callable[[np.ndarray], np.ndarray] | None:
    """How frames with these FFmpeg numbers become 8 bits: uint16 RGB [H,W,3] → uint8; None for ordinary video."""
    if transfer not in (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67):
        return None
    light = pq_light() if transfer == ColorTrc.SMPTE2084 else hlg_signal()
    wide = primaries == ColorPrimaries.BT2020

    def mapped(rgb: np.ndarray) -> np.ndarray:
        linear = light[rgb]
        if transfer == ColorTrc.ARIB_STD_B67:  # the screen's own contrast (BT.2100): scene light to light on it
            brightness = np.maximum(linear @ np.array([0.2627, 0.678, 0.0593], np.float32), 1e-6)
            linear *= (PEAK / WHITE * brightness**0.2)[..., None]
        if wide:
            linear = linear @ WIDE_TO_ORDINARY.T
        brightest = np.maximum(linear.max(2, keepdims=True), 1e-6)
        linear *= roll_off(brightest) / brightest
        return _encoded()[(np.clip(linear, 0, 1) * (STEPS - 1) + 0.5).astype(np.uint16)]

    return mapped


def roll_off(light: np.ndarray) -> np.ndarray:
    """Light as a share of diffuse white → the same up to KNEE, then ever more slowly up to 1."""
    return np.where(light <= KNEE, light, 1 - (1 - KNEE) * np.exp((KNEE - light) / (1 - KNEE)))


@cache
def pq_light() -> np.ndarray:
    """Light on the screen, as a share of diffuse white, of each 16-bit PQ value: [65536]."""
    value = np.linspace(0, 1, 65536) ** (1 / (2523 / 32))
    light = (np.maximum(value - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * value)) ** (1 / (2610 / 16384))
    return (1e4 / WHITE * light).astype(np.float32)


@cache
def hlg_signal() -> np.ndarray:
    """Scene light in [0,1] of each 16-bit HLG value: [65536]."""
    value = np.linspace(0, 1, 65536)
    return np.where(value <= 0.5, value**2 / 3, (np.exp((value - 0.55991073) / 0.17883277) + 0.28466892) / 12
                    ).astype(np.float32)


@cache
def _encoded() -> np.ndarray:
    """The 8-bit value of light in [0,1], in STEPS steps."""
    return np.rint(255 * np.linspace(0, 1, STEPS) ** (1 / GAMMA)).astype(np.uint8)
