"""Pictures without a twin (Yang et al. 2022, arXiv 2203.13248, §3.2 and §3.4): artworks that nobody can draw again.

`destylise` finds the person in an artwork, `refine` fits the codes of a style to it. Both start at what the encoders
guess and descend by the likeness of what DualStyleGAN draws; where a picture's style is one the encoder can tell, the
guess is hard to beat, see the bundle's numbers.
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
from ..models.encoders import ParsingNet, StyleEncoder
from ..styles.table import StyleTable
from ..weights.bundle import Bundle
from . import loop
from .criteria import Criterion, OurLosses
from .dualstylegan import DualDistilled
from .encoder import detail_mask

IDENTITY_WEIGHT = 0.1  # as in DualStyleGAN's destylisation (arXiv 2203.13248, §3.2)
NEAR_WEIGHT = 0.01  # keeps a person near the encoder's guess, where the generator draws faces
STYLE_NEAR_WEIGHT = 0.3  # keeps a style near the encoder's guess: codes of ours mean something, and far ones nothing


def destylise(model: DualDistilled, picture: Tensor, parsing: ParsingNet, iterations: int = 100, lr: float = 0.02,
              identity: StyleEncoder | None = None, progress: bool = False, criterion: Criterion | None = None
              ) -> Tensor:
    """Who is in an aligned artwork [1,3,S,S]: the intrinsic code [1,D] that the model draws as it in its own style.

    identity  network that tells people apart: what it sees must stay the same person (weight IDENTITY_WEIGHT)
    criterion  the likeness; None: ours, see `criteria`

    The paper also ties the codes of z+ to each other (their spread over the layers) and keeps noise maps noise (1e5):
    our one w feeds all layers, and we fit no noise. What is left, to stay a face of the base, is a pull to the guess.
    """
    likeness, degree = _likeness(model, picture, parsing, criterion)
    with torch.no_grad():
        guess, extrinsic = model.encoder(picture)[:, 0], model.extrinsic(model.style(picture))
        wanted = _identity(identity, picture) if identity else None

    def loss(code: Tensor) -> Tensor:
        out = model.generator(code, extrinsic, degree, space="w")
        total = likeness(out) + NEAR_WEIGHT * (code - guess).square().mean()
        if wanted is not None:
            total = total + IDENTITY_WEIGHT * (1 - (_identity(identity, out) * wanted).sum(1)).mean()
        return total

    return _fitted(loss, {guess: lr}, iterations, progress, "who is it")[0]


def refine(model: DualDistilled, picture: Tensor, parsing: ParsingNet, iterations: int = 100, color_lr: float = 0.02,
           structure_lr: float = 0.01, person: Tensor | None = None, room: Tensor | None = None,
           progress: bool = False, criterion: Criterion | None = None) -> Tensor:
    """Fit structure code and colour code [1,2,D] of one aligned artwork [1,3,S,S] to it, colours faster.

    Learning rates are lower than the published ones: the numbers of our codes mean something one by one.

    person  intrinsic code [1,D] of who is in it (default: `destylise`)
    room    which numbers [2,D] of a code may change, bool; a code of ours has places that mean nothing (`studio.codes`)
    → the codes of the least loss on the way, which is no more than that of the style encoder's
    """
    how = {"progress": progress, "criterion": criterion}
    person = destylise(model, picture, parsing, **how) if person is None else person.detach()
    likeness, degree = _likeness(model, picture, parsing, criterion)
    with torch.no_grad():
        guess = model.style(picture)
    free = torch.ones_like(guess) if room is None else room.to(guess)[None]
    structure, color = guess.split(1, 1)

    def loss(structure: Tensor, color: Tensor) -> Tensor:
        codes = torch.lerp(guess, torch.cat([structure, color], 1), free)
        near = STYLE_NEAR_WEIGHT * (codes - guess).square().sum() / free.sum()
        return near + likeness(model.generator(person, model.extrinsic(codes), degree, space="w"))

    return torch.cat(_fitted(loss, {structure: structure_lr, color: color_lr}, iterations, progress, "its style"), 1)


def fitter(steps: int, progress: bool = True) -> Callable[[Bundle, np.ndarray, torch.device], Tensor] | None:
    """What `Stylizer.style_of` takes to fit a style to its picture: steps to find who is in it, as many for the style.

    steps  100 are usual; 0: None, the style encoder's answer as it is
    The function it gives raises VToonifyError for a bundle without DualStyleGAN.
    """
    if steps < 0:
        raise VToonifyError(f"refine is {steps}; it must be 0 or more steps")

    def fit(bundle: Bundle, aligned: np.ndarray, device: torch.device) -> Tensor:
        with memory_errors(device, "DualStyleGAN"):
            dual, parsing = DualDistilled.of(bundle).to(device), bundle.network("parsing")
            picture, how = to_tensor(aligned, device), {"parsing": parsing.to(device), "progress": progress}
            person = destylise(dual, picture, iterations=steps, **how)
            return refine(dual, picture, iterations=steps, person=person, room=StyleTable(bundle).room, **how)[0]

    return fit if steps else None


def _fitted(loss: Callable[..., Tensor], start: dict[Tensor, float], iterations: int, progress: bool, title: str
            ) -> list[Tensor]:
    """Adam from the codes of `start` at their rates down loss(*codes) → the codes of the lowest loss on the way."""
    codes = [code.clone().requires_grad_(True) for code in start]
    optimizer = torch.optim.Adam([{"params": [c], "lr_scale": lr} for c, lr in zip(codes, start.values(), strict=True)])
    least, best = float("inf"), codes
    for i in tqdm(range(iterations + 1), desc=title, disable=not progress):
        value = loss(*codes)
        if value.item() < least:
            least, best = value.item(), [code.detach().clone() for code in codes]
        if i < iterations:
            loop.descend(value, optimizer, loop.warm_cosine(1.0, i, iterations, warmup=5))
    return best


def _likeness(model: DualDistilled, picture: Tensor, parsing: ParsingNet, criterion: Criterion | None
              ) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """Loss of drawings [1,3,S,S] of an artwork, small features first; and the degrees [L] that draw a whole style."""
    if picture.ndim != 4 or picture.shape[:2] != (1, 3) or picture.shape[2] != picture.shape[3]:
        raise VToonifyError(f"the artwork has shape {list(picture.shape)}; expected one aligned portrait [1,3,S,S] in "
                            "[-1,1]: cut it out with faces.crop.align_face")
    model.requires_grad_(False)
    side, parsing = model.generator.config.size, parsing.eval().requires_grad_(False)
    target = F.interpolate(picture, (side, side), mode="bilinear", antialias=True)
    with torch.no_grad():
        mask = detail_mask(parsing(target).argmax(1), target)

    criterion = criterion or OurLosses(parsing, whole=128)

    def loss(out: Tensor) -> Tensor:
        return sum(criterion(out, target, mask).values())

    return loss, model.generator.degrees(1.0, 1.0)


def _identity(net: StyleEncoder, picture: Tensor) -> Tensor:
    """Who the network sees, a vector of unit length [B,·]."""
    return F.normalize(net(picture).flatten(1), dim=1)
