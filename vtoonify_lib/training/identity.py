"""Our own identity encoder: it identifies the person in a portrait in any pose, light or drawing style.

It stands in for ArcFace (paper §5), whose weights are not for commercial use. It learns from the studio: the same
person in many photographs and drawings, against all others by InfoNCE (van den Oord et al. 2018,
arXiv 1807.03748). It knows the people, looks and FFHQ framing of the studio; on real photographs it is not tested.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from ..config import VToonifyError
from ..media.images import to_tensor
from ..models.devices import autocast
from ..models.encoders import StyleEncoder
from ..studio.exemplars import EXEMPLARS, LOOKS, exemplar
from ..studio.people import LAYOUT, Person, person, sample_z
from ..studio.shards import in_processes, studio_of
from ..studio.styles import PHOTO, Style, at
from . import augment, loop

KEPT = ("shape", "asymmetry", "macro", "hair", "skin", "face_hair", "eyes")
"""Parts of z that say who it is; pose, expression, gaze, light, backdrop, clothes and glasses are of the moment."""
SIZE, DRAWN = 64, 128  # side of a view, and of the render that is averaged down to it
PHOTOS = 2  # the first views of everybody; the others are drawn in some look
CHUNK = 16  # people a file
TEMPERATURE = 0.1
STREAM = 6403  # keeps these people apart from those of `studio.shards`, whatever the seeds

_WHO = np.repeat([name in KEPT for name in LAYOUT], list(LAYOUT.values()))


# -- views ------------------------------------------------------------------------------------------------------------
def views_of(index: int, count: int) -> list[tuple[Person, Style]]:
    """Person `index` seen `count` times: PHOTOS photos, then drawings by any exemplar at any two degrees."""
    rng = np.random.default_rng([STREAM, 0, index])
    who, seen = sample_z(rng, 1)[0], []
    for n in range(count):
        moment = sample_z(rng, 1)[0]
        look, number, degrees = rng.integers(len(LOOKS)), rng.integers(EXEMPLARS), rng.random(2)
        style = PHOTO if n < PHOTOS else at(exemplar(LOOKS[look], int(number))[1], *map(float, degrees))
        seen.append((person(np.where(_WHO, who, moment)), style))
    return seen


def render_views(folder: str | os.PathLike, people: int, views: int) -> np.ndarray:
    """Render everybody into `folder`, or finish what was begun there → uint8 [people,views,SIZE,SIZE,3].

    A person depends on the index alone. VToonifyError without the base mesh.
    """
    chunks = [(Path(folder) / f"{people}x{views}-{start:06d}.npy", range(start, min(start + CHUNK, people)))
              for start in range(0, people, CHUNK)]
    jobs = [(path, who, views) for path, who in chunks if not path.is_file()]
    Path(folder).mkdir(parents=True, exist_ok=True)
    for _ in tqdm(in_processes(_render_chunk, jobs), total=len(jobs), desc="identities", unit="file"):
        pass
    return np.concatenate([np.load(path) for path, _ in chunks])


def _render_chunk(path: Path, people: range, views: int) -> int:
    """Render some people; the file appears under its name only when complete → how many."""
    studio, out = studio_of(DRAWN), np.empty((len(people), views, SIZE, SIZE, 3), np.uint8)
    for i, index in enumerate(people):
        for n, (who, style) in enumerate(views_of(index, views)):
            picture = Image.fromarray(studio.portrait(who, style, truth=False).image)
            out[i, n] = np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BOX))
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.save(file, out)
    part.replace(path)
    return len(people)


# -- network ----------------------------------------------------------------------------------------------------------
def identity_net(dim: int = 128, width: int = 24, size: int = SIZE, seed: int = 5) -> StyleEncoder:
    """A fresh encoder; its codes are used at unit length, so it need not begin close to an average."""
    torch.manual_seed(seed)
    net = StyleEncoder(size, 1, dim, width)
    with torch.no_grad():
        net.head[-1].weight.div_(StyleEncoder.FIRST_OFFSET)
    return net


def embed(net: StyleEncoder, pictures: Tensor) -> Tensor:
    """Portraits in FFHQ's framing [B,3,S,S] in [−1,1], averaged to the size the net works at → unit length [B,D]."""
    if pictures.shape[2] != net.image_size:
        pictures = F.interpolate(pictures, (net.image_size, net.image_size), mode="area")
    return F.normalize(net(pictures)[:, 0].float(), dim=1)


def info_nce(a: Tensor, b: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Mean of −log softmax(a·bᵀ/τ) on the diagonal, both ways: a, b [B,D] of unit length, row i is person i in both."""
    logits = a @ b.T / temperature
    label = torch.arange(len(a), device=a.device)
    return (F.cross_entropy(logits, label) + F.cross_entropy(logits.T, label)) / 2


# -- training ---------------------------------------------------------------------------------------------------------
def train_identity(folder: str | os.PathLike, people: int = 1280, views: int = 6, iterations: int = 1600,
                   batch: int = 64, hold_out: int = 128, device: str | torch.device = "cpu"
                   ) -> tuple[StyleEncoder, dict[str, float]]:
    """Render and learn, both resumable in `folder` → the trained net and its `identity_report` on the held out people.

    people, views  how many are rendered, and how often each; the first `hold_out` are never trained on
    """
    seen = render_views(Path(folder) / "views", people, views)
    net = identity_net(size=seen.shape[2]).to(device)
    net = fit_encoder(net, seen, Path(folder) / "net", iterations, batch, hold_out)
    return net, identity_report(net, seen[:hold_out], device)


def fit_encoder(net: StyleEncoder, views: np.ndarray, folder: str | os.PathLike, iterations: int, batch: int = 64,
                hold_out: int = 128, lr: float = 1e-3, seed: int = 5) -> StyleEncoder:
    """InfoNCE over `batch` people in two views each, Adam under a half cosine; resumable in `folder`.

    net    trained in place;  views  uint8 [N,V,S,S,3]
    → the moving average of the net, in eval mode. VToonifyError where fewer than two people remain beside `hold_out`
    """
    if len(views) - hold_out < 2:
        raise VToonifyError(f"of {len(views)} people {hold_out} are held out, which leaves fewer than two to tell "
                            "apart; render more people")
    device = net.latent_avg.device
    optimizer = torch.optim.Adam(net.parameters(), lr)
    ema = loop.EMA(net, decay=0.995)

    def step(i: int) -> dict[str, float]:
        a, b = _two_views(views, batch, i, seed, hold_out, device)
        with autocast(a.device):
            codes = embed(net, torch.cat([a, b]))
        first, second = codes.chunk(2)
        loss = info_nce(first, second)
        loop.optimizer_step(loss, optimizer, loop.warm_cosine(lr, i, iterations, warmup=50))
        ema.update(net, i)
        found = (first @ second.T).argmax(1) == torch.arange(len(a), device=a.device)
        return {"loss": loss.item(), "found": found.float().mean().item()}

    loop.run(folder, iterations, step, {"net": net, "ema": ema, "optimizer": optimizer},
             title="identity")
    return ema.model


def _two_views(views: np.ndarray, n: int, i: int, seed: int, hold_out: int, device: str | torch.device
               ) -> tuple[Tensor, Tensor]:
    """n different people (all, if there are fewer) in two different views, independently mirrored, tinted and degraded:
    [n,3,S,S] twice."""
    rng, g = np.random.default_rng([seed, i]), loop.rng_for(seed, i, device)
    who = rng.permutation(np.arange(hold_out, len(views)))[:n]
    chosen = rng.random((len(who), views.shape[1])).argsort(1)[:, :2]
    x = to_tensor(np.concatenate([views[who, chosen[:, k]] for k in (0, 1)]), device)
    side = torch.rand(len(x), 1, 1, 1, generator=g, device=g.device) < 0.5
    x = torch.where(side, x.flip(3), x)
    return augment.degrade(augment.tint([x], g, strength=0.6)[0], g).chunk(2)


# -- how well it tells people apart -----------------------------------------------------------------------------------
@torch.no_grad()
def identity_report(net: StyleEncoder, views: np.ndarray, device: str | torch.device = "cpu") -> dict[str, Any]:
    """Mean cosines of the same and of other people, and ROC AUC of telling them apart, for people not trained on.

    views  uint8 [N,V,S,S,3], N ≥ 2, photos first. "photo": photo against photo; "styled": photo against drawing.
    """
    people, count = views.shape[:2]
    codes = torch.cat([embed(net, to_tensor(part, device)) for part in np.array_split(
        views.reshape(-1, *views.shape[2:]), max(1, people * count // 64))]).cpu().numpy()
    codes = codes.reshape(people, count, -1)
    report: dict[str, Any] = {"people": people}
    for name, others in (("photo", codes[:, 1:PHOTOS]), ("styled", codes[:, PHOTOS:])):
        mine = codes[:, :1] if name == "photo" else codes[:, :PHOTOS]
        cosine = np.einsum("ivd,jwd->ijvw", mine, others)  # [N,N,·,·]
        same = np.eye(people, dtype=bool)
        report |= {f"same_{name}": float(cosine[same].mean()), f"other_{name}": float(cosine[~same].mean()),
                   f"auc_{name}": auc(cosine[same], cosine[~same])}
    return report


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Share of (positive, negative) pairs in which the positive value is larger, ties by half: the ROC curve's area."""
    from scipy.stats import mannwhitneyu

    above = mannwhitneyu(positive.ravel(), negative.ravel(), method="asymptotic").statistic
    return float(above / (positive.size * negative.size))
