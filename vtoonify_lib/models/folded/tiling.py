"""Frames too large for memory: a batch in halves, one frame in tiles; the picture is the same, because VToonify-T is
fully convolutional.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from ...config import VToonifyError
from ..devices import out_of_memory
from .vtoonify_t import FoldedVToonify

PROBE = 1024  # pixels: length of the strip for `receptive_radius`; networks for 256 px have a radius of 150
LEAST = 64   # side of the smallest tile


@lru_cache(maxsize=1)
def receptive_radius(network: FoldedVToonify) -> int:
    """Radius of the network's receptive field in input pixels, rounded up to its multiple.

    Measured on a strip, because all kernels are square: one line of the input is NaN, and so becomes every line of the
    output that depends on it. VToonifyError where all do, as with the instance norms of VToonify-D.
    """
    where = next(network.parameters())
    x = torch.zeros(1, network.config.input_channels, PROBE, 2 * network.multiple, device=where.device)
    far = 0
    for at in range(PROBE // 2, PROBE // 2 + network.multiple):  # each place within the coarsest pixel
        probe = x.clone()
        probe[..., at, :] = torch.nan
        with torch.inference_mode():
            spoilt = network(probe)[0].isnan().any(0)
        rows = spoilt.any(1).nonzero().flatten().float() / spoilt.shape[0] * PROBE
        far = max(far, at - int(rows.min()), int(rows.max()) - at)
    if far >= PROBE // 2 - network.multiple:
        raise VToonifyError("this network looks at the whole frame at once, so a frame cannot be drawn in tiles; use a "
                            "smaller picture or less --padding")
    return -(-(far + 1) // network.multiple) * network.multiple


def draw_tiled(network: Callable[[Tensor], Tensor], x: Tensor, tile: int, margin: int, scale: int) -> Tensor:
    """network(x) for x [B,C,H,W] → float32 [B,3,sH,sW] on the CPU, drawn in tiles of `tile` pixels, a multiple of 8.

    margin  how far around a tile the network must see, see `receptive_radius`
    """
    height, width = x.shape[2:]
    out = torch.empty(len(x), 3, height * scale, width * scale)
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            bottom, right = min(top + tile, height), min(left + tile, width)
            y0, x0 = max(top - margin, 0), max(left - margin, 0)
            part = network(x[..., y0 : min(bottom + margin, height), x0 : min(right + margin, width)])
            core = part[..., (top - y0) * scale : (bottom - y0) * scale, (left - x0) * scale : (right - x0) * scale]
            out[..., top * scale : bottom * scale, left * scale : right * scale] = core.float().cpu()
    return out


def run_with_oom_fallback(network: FoldedVToonify, x: Tensor, *degree: float) -> Tensor:
    """network(x, *degree), whole if memory allows, else a batch in halves, a frame in ever smaller tiles.

    A size that failed once is not tried again with this network. Raises the last error when even LEAST is too large,
    and for a single frame of VToonify-D, whose norms cover all of it.
    """
    divisible = len(x) > 1 or not degree
    pixels = len(x) * x.shape[2] * x.shape[3]
    if pixels < network.too_many or not divisible:
        try:
            return network(x, *degree)
        except (MemoryError, RuntimeError) as error:
            if not (divisible and out_of_memory(error)):
                raise
            network.too_many = pixels  # the error is let go here, and with it the failed attempt's memory
    if len(x) > 1:
        return torch.cat([run_with_oom_fallback(network, half, *degree).cpu() for half in x.chunk(2)])
    return _draw_in_tiles(network, x)


def _draw_in_tiles(network: FoldedVToonify, x: Tensor) -> Tensor:
    """network(x) in the largest tiles that memory allows, and no larger ones the next time."""
    margin, tile = receptive_radius(network), min(max(x.shape[2:]) // 2, network.tile)
    while True:
        tile = tile // network.multiple * network.multiple
        try:
            return draw_tiled(network, x, tile, margin, network.config.scale)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error) or tile // 2 < LEAST:
                raise
        tile = network.tile = tile // 2
