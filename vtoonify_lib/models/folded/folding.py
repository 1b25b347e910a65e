"""Which network becomes what: VToonify with a style, and any network with batch norms."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ...config import VToonifyError
from ..layers import channels_last
from ..vtoonify import VToonify
from ..vtoonify_d import VToonifyD
from .vtoonify_d import FoldedVToonifyD
from .vtoonify_t import FoldedVToonify


def fold(network: nn.Module, w: Tensor | None = None, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Inference form of a network; the original stays as it is, and may lack the weights that frames never read.

    A VToonify needs the style code w ([L,D], [1,L,D] or [1,D]) and becomes a :class:`FoldedVToonify`, a VToonify-D a
    :class:`FoldedVToonifyD`; any other network is copied with its batch norms folded. `.to(device, dtype)` works as
    always.
    """
    with torch.no_grad():
        if not isinstance(network, VToonify):
            folded = fold_batch_norm(network)
        elif w is None:
            raise VToonifyError("folding a VToonify needs a style code; use fold(network, w)")
        else:
            folded = (FoldedVToonifyD if isinstance(network, VToonifyD) else FoldedVToonify)(network, w)
        return folded.to(dtype).eval().requires_grad_(False)


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """Copy of a network in evaluation mode, each batch norm folded into the convolution registered just before it.

    One that no convolution precedes stays: in pSp's residual units it comes first, and the zeros around the picture,
    which the convolution after it adds, are not normalised.
    """
    network = copy.deepcopy(network).eval()
    for parent in list(network.modules()):
        children = list(parent.named_children())
        for (name, conv), (norm_name, norm) in zip(children, children[1:], strict=False):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                folded = fuse_conv_bn_eval(conv, norm)
                folded.weight = nn.Parameter(channels_last(folded.weight.detach()))
                setattr(parent, name, folded)
                setattr(parent, norm_name, nn.Identity())
    return network
