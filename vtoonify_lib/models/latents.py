"""Style codes and which layer reads which of them: the only place with the numbers 7, 11 and 18.

A generator of size S has one style layer for the 4² convolution, one for the 4² to-rgb, and two more for each further
resolution (the to-rgb shares its code with the next up-convolution), so L = 2·log2(S) − 2. Codes come in four spaces:

    z   [B,D]    Gaussian                      z+  [B,L,D]   one z per layer
    w   [B,D]    after the mapping network     w+  [B,L,D]   one w per layer; what synthesis reads

VToonify replaces the layers up to HANDOFF: the first `n_structure()` codes shape the face, the rest colour it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..config import HANDOFF, VToonifyError

_K = HANDOFF.bit_length() - 1  # log2


def n_latent(size: int) -> int:
    """Style layers of a generator of `size` pixels; 18 for 1024."""
    return 2 * (size.bit_length() - 1) - 2


def n_structure() -> int:
    """Style layers that only feed resolutions up to HANDOFF: replaced by the encoder (T) or by ModRes (D)."""
    return 2 * _K - 3


def n_color(size: int) -> int:
    """Style layers that VToonify keeps."""
    return n_latent(size) - n_structure()


def first_kept_conv() -> int:
    """Index into `Generator.convs` of the up-convolution from HANDOFF to twice HANDOFF."""
    return 2 * (_K - 2)


def first_kept_to_rgb() -> int:
    """Index into `Generator.to_rgbs` of the first resolution above HANDOFF."""
    return _K - 2


def edit_layers() -> slice:
    """Layers of w+ at the two resolutions up to HANDOFF, the ones that a pre-training edit moves (3:7)."""
    return slice(n_structure() - 4, n_structure())


def style_layers(resolution: int) -> tuple[int, int, int]:
    """Codes read by (first convolution, second convolution, to-rgb) at `resolution`; 4² has one convolution only."""
    if resolution == 4:
        return 0, 0, 1
    k = resolution.bit_length() - 1
    return 2 * k - 5, 2 * k - 4, 2 * k - 3


def layer_resolution(layer: int) -> int:
    """Resolution of the convolution that reads code `layer`: 4, 8, 8, 16, 16, …"""
    return 2 ** ((layer + 1) // 2 + 2)


def layer_names(size: int) -> list[str]:
    """The style layers of a generator of `size` pixels, for people: "4²", "8² a", …, "256² rgb"."""
    names = ["4²"]
    for layer in range(1, n_latent(size) - 1):
        r = layer_resolution(layer)
        names.append(f"{r}² {'ab'[(layer + 1) % 2]}")
    return [*names, f"{size}² rgb"]


def kept_resolutions(size: int) -> tuple[int, ...]:
    """Resolutions above HANDOFF, in the order of synthesis."""
    return tuple(2**k for k in range(_K + 1, size.bit_length()))


def to_plus(w: Tensor, layers: int) -> Tensor:
    """w [B,D] or [B,1,D] → w+ [B,layers,D]; a w+ of the right length passes through. Errors: wrong length or rank."""
    if w.ndim == 2:
        w = w.unsqueeze(1)
    if w.ndim == 3 and w.shape[1] == 1:
        return w.expand(-1, layers, -1)
    if w.ndim != 3 or w.shape[1] != layers:
        raise VToonifyError(f"style code has shape {list(w.shape)}; expected [B,D], [B,1,D] or [B,{layers},D]")
    return w


def truncate(w: Tensor, amount: float | Tensor, center: Tensor) -> Tensor:
    """Move w towards `center` ([D] or broadcastable): center + amount·(w − center); amount 1 leaves w alone."""
    return center + amount * (w - center)


def mix(low: Tensor, high: Tensor, index: int) -> Tensor:
    """Style mixing: layers 0 … index−1 of `low` [B,L,D], the rest of `high` [B,L,D]."""
    return torch.cat([low[:, :index], high[:, index:]], dim=1)


def with_color_of(structure: Tensor, color: Tensor) -> Tensor:
    """w+ with the structure layers of the first code and the colour layers of the second, both [B,L,D]."""
    return mix(structure, color, n_structure())


def spread(codes: Tensor, layers: int) -> Tensor:
    """A structure code and a colour code, [B,2,D] → one code a layer, [B,layers,D]."""
    return with_color_of(*(to_plus(code, layers) for code in codes.split(1, dim=1)))


def styled(face: Tensor, exemplar: Tensor, structure: Tensor | float, color: Tensor | float, layers: int) -> Tensor:
    """What our VToonify-D reads: codes [B,2,D] of face and exemplar, degrees [B] or float → w+ [B,layers,D].

    The structure layers read the exemplar's structure code. The colour layers read colours between the face's and the
    exemplar's, and added to them structure between the two: ink and brush are structure, but the fine layers draw them.
    A structure code and a colour code fill different places, so their sum keeps both (`studio.codes`).
    """
    def between(kind: int, degree: Tensor | float) -> Tensor:
        share = torch.as_tensor(degree, dtype=face.dtype, device=face.device).reshape(-1, 1)
        return torch.lerp(face[:, kind], exemplar[:, kind], share)

    return spread(torch.stack([exemplar[:, 0], between(1, color) + between(0, structure)], 1), layers)
