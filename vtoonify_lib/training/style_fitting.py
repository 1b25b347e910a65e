"""Fitting a style to an artwork without its photograph (Yang et al. 2022, arXiv 2203.13248, §3.2 and §3.4).

`destylise` finds the person's code in an artwork, `refine` fits the style's codes to it. Both start at the encoders'
codes and minimise a perceptual loss of DualStyleGAN's output. Where the style encoder knows the style, its codes are
hard to improve on, see the bundle's numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from ..config import VToonifyError
from ..media.images import to_tensor
from ..models.devices import memory_errors
from ..models.encoders import ParsingNet
from ..styles.table import StyleTable
from ..weights.bundle import Bundle
from . import loop
from .dualstylegan import DualDistilled
from .objectives import OurLosses
from .vtoonify import detail_mask

NEAR_WEIGHT = 0.01  # keeps a person's code near the encoder's, where the generator draws faces
STYLE_NEAR_WEIGHT = 0.3  # keeps a style's codes near the encoder's, where the generator knows them


def destylise(model: DualDistilled, picture: Tensor, parsing: ParsingNet, iterations: int = 100, lr: float = 0.02,
              progress: bool = False) -> Tensor:
    """The person in an aligned artwork [1,3,S,S]: the intrinsic code [1,D] whose drawing in its own style matches it.

    The paper also holds the drawing to the artwork's identity, ties the codes of z+ to each other (their spread over
    the layers) and keeps noise maps noise (1e5): our one w feeds all layers, and no noise is fitted. A penalty on the
    distance to the encoder's code takes the place of all three.
    """
    likeness, degree = _likeness(model, picture, parsing)
    with torch.no_grad():
        guess, extrinsic = model.encoder(picture)[:, 0], model.extrinsic(model.style(picture))

    def loss(code: Tensor) -> Tensor:
        out = model.generator(code, extrinsic, degree, space="w")
        return likeness(out) + NEAR_WEIGHT * (code - guess).square().mean()

    return _fitted(loss, {guess: lr}, iterations, progress, "who is it")[0]


def refine(model: DualDistilled, picture: Tensor, parsing: ParsingNet, iterations: int = 100, color_lr: float = 0.02,
           structure_lr: float = 0.01, *, person: Tensor, active_dims: Tensor | None = None, progress: bool = False
           ) -> Tensor:
    """Fit structure code and colour code [1,2,D] of one aligned artwork [1,3,S,S] to it, colours faster.

    Learning rates are lower than the published ones: each dimension of our codes has a meaning of its own.

    person       intrinsic code [1,D] of the person in it, see `destylise`
    active_dims  dimensions [2,D] of a code that may change, bool; some of our codes' are unused (`studio.codes`)
    → the codes of the lowest loss, which is at most that of the style encoder's codes
    """
    likeness, degree = _likeness(model, picture, parsing)
    with torch.no_grad():
        guess = model.style(picture)
    free = torch.ones_like(guess) if active_dims is None else active_dims.to(guess)[None]
    structure, color = guess.split(1, 1)

    def loss(structure: Tensor, color: Tensor) -> Tensor:
        codes = torch.lerp(guess, torch.cat([structure, color], 1), free)
        near = STYLE_NEAR_WEIGHT * (codes - guess).square().sum() / free.sum()
        return near + likeness(model.generator(person.detach(), model.extrinsic(codes), degree, space="w"))

    return torch.cat(_fitted(loss, {structure: structure_lr, color: color_lr}, iterations, progress, "its style"), 1)


def fitter(steps: int, progress: bool = True) -> Callable[[Bundle, np.ndarray, torch.device], Tensor] | None:
    """The function that `Stylizer.style_of` takes as `fit`: so many steps for the person, as many for the style.

    steps  100 are usual; 0: returns None, the style encoder's codes are used as they are
    The function raises VToonifyError for a bundle without DualStyleGAN.
    """
    if steps < 0:
        raise VToonifyError(f"refine is {steps}; it must be 0 or more steps")

    def fit(bundle: Bundle, aligned: np.ndarray, device: torch.device) -> Tensor:
        with memory_errors(device, "DualStyleGAN"):
            dual, parsing = DualDistilled.from_bundle(bundle).to(device), bundle.network("parsing")
            picture, how = to_tensor(aligned, device), {"parsing": parsing.to(device), "progress": progress}
            person = destylise(dual, picture, iterations=steps, **how)
            active_dims = StyleTable(bundle).active_dims
            return refine(dual, picture, iterations=steps, person=person, active_dims=active_dims, **how)[0]

    return fit if steps else None


def _fitted(loss: Callable[..., Tensor], start: dict[Tensor, float], iterations: int, progress: bool, title: str
            ) -> list[Tensor]:
    """Minimise loss(*codes) by Adam from the codes of `start`, at their rates → the codes of the lowest loss."""
    codes = [code.clone().requires_grad_(True) for code in start]
    optimizer = torch.optim.Adam([{"params": [c], "lr_scale": lr} for c, lr in zip(codes, start.values(), strict=True)])
    least, best = float("inf"), codes
    for i in tqdm(range(iterations + 1), desc=title, disable=not progress):
        value = loss(*codes)
        if value.item() < least:
            least, best = value.item(), [code.detach().clone() for code in codes]
        if i < iterations:
            loop.optimizer_step(value, optimizer, loop.warm_cosine(1.0, i, iterations, warmup=5))
    return best


def _likeness(model: DualDistilled, picture: Tensor, parsing: ParsingNet) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """Loss of drawings [1,3,S,S] against an artwork, weighted by facial parts; and the degrees [L] of a full style."""
    if picture.ndim != 4 or picture.shape[:2] != (1, 3) or picture.shape[2] != picture.shape[3]:
        raise VToonifyError(f"the artwork has shape {list(picture.shape)}; expected one aligned portrait [1,3,S,S] in "
                            "[-1,1]: cut it out with faces.crop.align_face")
    model.requires_grad_(False)
    side, parsing = model.generator.config.size, parsing.eval().requires_grad_(False)
    target = F.interpolate(picture, (side, side), mode="bilinear", antialias=True)
    with torch.no_grad():
        mask = detail_mask(parsing(target).argmax(1), target)
    criterion = OurLosses(parsing, whole=128)
    return lambda out: sum(criterion(out, target, mask).values()), model.generator.degrees(1.0, 1.0)
