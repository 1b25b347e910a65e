"""Inference form of the networks: the same pictures from fewer operations.

One style is used for a whole clip, so everything it touches is folded into the weights beforehand; what is left is a
plain convolutional network, which for VToonify-D still reads the structure degree. In float32 its numbers are the
trained form's to about 1e-6. It has no gradients.

    style        modulation, demodulation and √2 go into the weights (leaky ReLU is positively homogeneous); of the
                 structure codes only γ and β of the ModRes blocks are left
    residuals    each 1/√2 of the encoder's residual blocks moves on, into biases; the hand-off makes up for all of them
    up-sampling  the blur is a depthwise convolution that adds the bias; RGB is doubled by a depthwise transposed one
    memory       channels_last, activations in place, no noise, layers below the hand-off dropped
    precision    any dtype; the picture itself is summed in float32
    batch norm   folded into the convolution before it (parsing networks, pSp)

    folding     fold(network, w, dtype)      vtoonify_t  VToonify-T     vtoonify_d  what VToonify-D adds to it
    layers      what they are made of        cost        parameters and multiply-adds
    tiling      frames larger than the memory
"""

from .cost import Cost, count_macs, count_parameters, report_cost
from .folding import fold, fold_batch_norm
from .tiling import draw_tiled, receptive_radius, run_with_oom_fallback
from .vtoonify_d import FoldedVToonifyD
from .vtoonify_t import FoldedVToonify

__all__ = ["Cost", "FoldedVToonify", "FoldedVToonifyD", "count_macs", "count_parameters", "draw_tiled", "fold",
           "fold_batch_norm", "receptive_radius", "report_cost", "run_with_oom_fallback"]
