"""Evaluation of VToonify-D in numbers: held-out people in every look, beside their true renders.

The studio renders the truth at any degree, so accuracy, preservation of identity, the effect of the degree and the
difference between people can be measured. Cosines are those of our own `identity` encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..config import VToonifyError
from ..evaluation.metrics import equivariance, feature_distance, psnr
from ..media.images import to_image, to_tensor
from ..models.encoders import ParsingNet, StyleEncoder
from ..models.vtoonify import VToonifyOutput
from ..models.vtoonify_d import VToonifyD
from ..studio.exemplars import EXEMPLARS, LOOKS, exemplar
from ..studio.people import person
from ..studio.shards import Pairs
from ..studio.styles import at
from . import augment
from .identity import embed
from .pairs import Pair, StyleCondition
from .vtoonify import STYLE_IMAGE, DualVToonifyTask, stylise

DEGREES = (0.0, 0.5, 1.0)  # at which the truth is rendered
BATCH = 8
ASKED_FOR_CROPS = 4  # people per look for the equivariance, see `metrics.equivariance`
OPEN = 20.0  # tanh of it is 1, to the last bit
DrawTask = Callable[[Tensor, Pair], tuple[Tensor, list[Tensor]]]


# -- held-out people and their true drawings --------------------------------------------------------------------------
@dataclass(frozen=True)
class HeldOutPeople:
    """Held-out people in FFHQ's framing.

    number    [N] of the exemplar that draws each of them, in every look
    photo     uint8 [N,S,S,3];  truth uint8 [N,looks,DEGREES,S,S,3], structure and colour at the same degree
    exemplar  uint8 [N,looks,STYLE_IMAGE,STYLE_IMAGE,3], the pictures that are shown
    """

    number: np.ndarray
    photo: np.ndarray
    truth: np.ndarray
    exemplar: np.ndarray
    looks: tuple[str, ...] = LOOKS

    @classmethod
    def render(cls, pairs: Pairs, people: int = 24, hold_out: int = 256,
               progress: bool = True) -> HeldOutPeople:
        """The first even entries of `pairs`, which are framed as FFHQ frames; two neighbours share an exemplar.

        24 people are 288 pictures, some twenty seconds. VToonifyError where fewer are held out, or without the base
        mesh.
        """
        entries = pairs.ready[(pairs.ready < hold_out) & (pairs.ready % 2 == 0)][:people]
        number = np.arange(people) // 2 % EXEMPLARS
        if len(entries) < people:
            raise VToonifyError(f"{people} people are asked for, and {len(entries)} are held out and framed as FFHQ; "
                                "ask for fewer")
        shown = np.stack([[shrunk(pairs.exemplars(look)[n]) for look in LOOKS] for n in number])
        truth = _truth(np.array(pairs["z"])[entries], number, pairs["photo"].shape[1], progress)
        return cls(number, np.array(pairs["photo"])[entries], truth, shown)

    def pair(self, who: np.ndarray, look: int, degree: float, device: str | torch.device = "cpu") -> Pair:
        """Inputs of VToonify-D: people `who` in a look, structure and colour at one degree. y is the photograph."""
        photo, degrees = to_tensor(self.photo[who], device), torch.full((len(who),), float(degree), device=device)
        index = torch.from_numpy(look * EXEMPLARS + self.number[who]).to(device)
        condition = StyleCondition(to_tensor(self.exemplar[who, look], device), index, degrees, degrees)
        return Pair(augment.half(photo), photo, photo, None, condition)


def shrunk(picture: np.ndarray, size: int = STYLE_IMAGE) -> np.ndarray:
    """uint8 [S,S,3] averaged to [size,size,3]: an exemplar as the style encoder reads it."""
    return np.asarray(Image.fromarray(np.array(picture)).resize((size, size), Image.Resampling.BOX))


def _truth(z: np.ndarray, number: np.ndarray, size: int, progress: bool) -> np.ndarray:
    """People z [N,·] drawn by their exemplars: uint8 [N,looks,DEGREES,size,size,3]."""
    from ..studio.render import Studio

    studio = Studio(size=size)
    truth = np.empty((len(z), len(LOOKS), len(DEGREES), size, size, 3), np.uint8)
    for i in tqdm(range(len(z)), desc="trials", disable=not progress):
        who = person(z[i])
        for j, look in enumerate(LOOKS):
            style = exemplar(look, int(number[i]))[1]
            for k, degree in enumerate(DEGREES):
                truth[i, j, k] = studio.portrait(who, at(style, degree, degree), truth=False).image
    return truth


# -- drawing ----------------------------------------------------------------------------------------------------------
class TableCodedTask(nn.Module):
    """VToonify-D as a bundle uses it: styles given by a table of codes [styles + 1,2,D], the last one the null code.

    The codes are those of `studio.codes.style_codes`; `StyleCondition.index` selects one.
    use_table  False: the style encoder reads the exemplars instead
    """

    def __init__(self, task: DualVToonifyTask, codes: Tensor, use_table: bool = True):
        super().__init__()
        self.task, self.use_table = task, use_table
        self.register_buffer("table", codes)

    def forward(self, x: Tensor, pair: Pair) -> VToonifyOutput:
        use = torch.full_like(pair.condition.index, self.use_table, dtype=torch.bool)
        return self.task(x, pair._replace(condition=pair.condition.coded(self.table, use)))


@contextmanager
def masks_open(network: VToonifyD) -> Iterator[VToonifyD]:
    """For a while all fusion masks are 1: the photograph's detail passes everywhere, whatever the degree.

    It is done in the weights, so it holds in any copy and in the folded form.
    """
    kept = [p.detach().clone() for fusion in network.fusion_out for p in fusion.conv2.parameters()]
    try:
        for fusion in network.fusion_out:
            nn.init.zeros_(fusion.conv2.weight)
            nn.init.constant_(fusion.conv2.bias, OPEN)
        yield network
    finally:
        with torch.no_grad():
            for fusion in network.fusion_out:
                for p in fusion.conv2.parameters():
                    p.copy_(kept.pop(0))


# -- numbers ----------------------------------------------------------------------------------------------------------
@torch.no_grad()
def measure(task: DrawTask, parsing: ParsingNet, identity: StyleEncoder, held_out: HeldOutPeople,
            device: str | torch.device = "cpu") -> dict[str, Any]:
    """All numbers of a VToonify-D (DualVToonifyTask or `TableCodedTask`), for JSON. Networks in eval mode on `device`.

    looks         look → degree → `_scores`;  mean: degree → the same, over all looks
    monotone      share of (person, look) whose drawing moves away from the photograph from each of DEGREES to the next
    two_people    how different two people are, drawn by one exemplar at degree 1, as a share of what their true
                  renders are; None where no two share an exemplar
    equivariance  flicker at degree 1 in grey levels, see `metrics.equivariance`
    """
    looks: dict[str, dict[str, dict[str, float]]] = {}
    rises, alike, grey, apart = [], [], [], partial(feature_distance, parsing)
    for j, look in enumerate(held_out.looks):
        looks[look], moved = {}, []
        for k, degree in enumerate(DEGREES):
            out, truth = _drawn(task, parsing, held_out, j, degree, device), held_out.truth[:, j, k]
            moved.append(_each(apart, out, held_out.photo, device))
            looks[look][f"{degree:g}"] = _scores(out, truth, held_out.photo, parsing, identity, device)
        rises.append((np.diff(moved, axis=0) > 0).all(0))  # [N]
        one, other = np.nonzero(np.tril(held_out.number[:, None] == held_out.number, -1))  # drawn by one exemplar
        alike += [[_each(apart, p[one], p[other], device) for p in (out, truth)]] if len(one) else []
        few = held_out.pair(np.arange(min(ASKED_FOR_CROPS, len(out))), j, 1.0, device)
        grey.append(equivariance(lambda x, few=few: task(x, few)[0], few.input(parsing),
                                 torch.Generator().manual_seed(j)))
    mean = {f"{d:g}": {name: float(np.mean([looks[look][f"{d:g}"][name] for look in looks])) for name in
                       looks[held_out.looks[0]][f"{d:g}"]} for d in DEGREES}
    ours, true = np.mean(alike, (0, 2)) if alike else (0.0, 0.0)
    return {"people": len(held_out.photo), "looks": looks, "mean": mean,
            "monotone": float(np.mean(rises)),
            "two_people": float(ours / true) if true else None, "equivariance": float(np.mean(grey))}


def _scores(out: np.ndarray, truth: np.ndarray, photo: np.ndarray, parsing: ParsingNet, identity: StyleEncoder,
            device: str | torch.device) -> dict[str, float]:
    """Means over people, uint8 [N,S,S,3] each; input_… : the photograph itself in place of the output.

    psnr, feature    of the output to the truth
    moved            feature distance of the output to the photograph
    identity         cosine of photograph and output; identity_truth: of photograph and truth; identity_others: of the
                     output and everybody else's photograph
    """
    who = [torch.cat([embed(identity, to_tensor(part, device)) for part in _split(p)]) for p in (photo, out, truth)]
    cosine = (who[1] @ who[0].T).cpu().numpy()
    others = cosine[~np.eye(len(cosine), dtype=bool)]
    pictures, apart = {"": out, "input_": photo}, partial(feature_distance, parsing)
    return {
        **{f"{name}psnr": float(_each(psnr, p, truth, device).mean()) for name, p in pictures.items()},
        **{f"{name}feature": float(_each(apart, p, truth, device).mean()) for name, p in pictures.items()},
        "moved": float(_each(apart, out, photo, device).mean()),
        "identity": float(np.diag(cosine).mean()),
        "identity_truth": float((who[0] * who[2]).sum(1).mean()),
        "identity_others": float(others.mean()) if len(others) else 0.0,
    }


def _drawn(task: DrawTask, parsing: ParsingNet, held_out: HeldOutPeople, look: int, degree: float,
           device: str | torch.device) -> np.ndarray:
    """Everybody in a look at a degree, uint8 [N,S,S,3]."""
    return np.concatenate([to_image(stylise(task, parsing, held_out.pair(who, look, degree, device)))
                           for who in _split(np.arange(len(held_out.photo)))])


def _split(pictures: np.ndarray) -> list[np.ndarray]:
    """Pictures, or people's indices, BATCH at a time."""
    return np.split(pictures, range(BATCH, len(pictures), BATCH))


def _each(distance: Callable[[Tensor, Tensor], Tensor], a: np.ndarray, b: np.ndarray, device: str | torch.device
          ) -> np.ndarray:
    """distance(p, q) of each picture of a and that of b, uint8 [N,S,S,3] → [N]."""
    parts = zip(_split(a), _split(b), strict=True)
    return torch.cat([distance(to_tensor(p, device), to_tensor(q, device)) for p, q in parts]).cpu().numpy()
