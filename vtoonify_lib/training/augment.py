"""Batches of rendered pairs, and the augmentation that lets networks trained on renders hold on photographs.

Geometry and colour change input and target alike; degradations (blur, noise, compression-like blocking, uneven light)
change the input alone, so a network learns to see through them. Pairs made by two StyleGANs have no labels to move and
use `paired_crop.random_affine`, the paper's milder geometry, instead. Random numbers are drawn on the generator's
device, and everything happens there. Rendering is the studio's work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from ..config import VToonifyError
from ..faces.crop import align_face, ffhq_quad
from ..faces.parsing_maps import CLASS_NAMES, calm_background
from ..media.images import to_tensor
from ..studio.shards import Pairs
from .loop import rng_for
from .pairs import Pair

SMALL_PARTS = tuple(CLASS_NAMES.index(name) for name in (
    "l_brow", "r_brow", "l_eye", "r_eye", "eye_g", "mouth", "u_lip", "l_lip"))
"""Parsing classes of few pixels that matter most: brows, eyes, glasses, mouth, lips."""

OVERSAMPLING = 4  # of aligned pictures before they are averaged: the alignment itself does not antialias
BORDER = 0.05  # share of the side by which an aligned square may leave its picture

_TWINS = {f"{a}_{part}": f"{b}_{part}" for part in ("brow", "eye", "ear") for a, b in ("lr", "rl")}
MIRROR = torch.tensor([CLASS_NAMES.index(_TWINS.get(name, name)) for name in CLASS_NAMES])
"""Each class as a mirror shows it: left and right brows, eyes and ears change places. (l_lip is the lower one.)"""


@dataclass(frozen=True)
class Batch:
    """photo, styled [B,3,S,S] in [−1,1]; parsing, styled_parsing [B,S,S] int64."""

    photo: Tensor
    styled: Tensor
    parsing: Tensor
    styled_parsing: Tensor

    def map(self, pictures: Callable[[Tensor], Tensor], labels: Callable[[Tensor], Tensor]) -> Batch:
        """The same change to both pictures, and to both label maps."""
        return Batch(pictures(self.photo), pictures(self.styled), labels(self.parsing), labels(self.styled_parsing))


# -- reading ----------------------------------------------------------------------------------------------------------
def load(pairs: Pairs, index: np.ndarray, style: str | Sequence[str], device: str | torch.device = "cpu") -> Batch:
    """Read the entries of `index` (in any order) from the memory maps; `style`: one for all, or one for each."""
    def read(suffix: str, styles: Sequence[str]) -> np.ndarray:
        return np.stack([pairs[name + suffix][i] for name, i in zip(styles, index, strict=True)])

    both = ["photo"] * len(index), [style] * len(index) if isinstance(style, str) else style
    labels = [torch.from_numpy(read("_parsing", names)).to(device).long() for names in both]
    return Batch(*(to_tensor(read("", names), device) for names in both), *labels)


def draw(pairs: Pairs, n: int, iteration: int, seed: int, hold_out: int, style: str = "storybook",
         device: str | torch.device = "cpu") -> Batch:
    """A random training batch. The first `hold_out` entries are never drawn."""
    return load(pairs, choose(pairs, n, np.random.default_rng([seed, iteration]), hold_out), style, device)


def choose(pairs: Pairs, n: int, rng: np.random.Generator, hold_out: int) -> np.ndarray:
    """n random entries [n], none of the first `hold_out`."""
    pool = pairs.ready[pairs.ready >= hold_out]
    if not len(pool):
        raise VToonifyError(f"the data set in {pairs.folder} has {len(pairs.ready)} entries and {hold_out} are held "
                            "out, which leaves none to train on; render more people")
    return pool[rng.integers(0, len(pool), n)]


class Portraits:
    """Aligned portraits of one style in front of calm backgrounds, in memory: what a StyleGAN can learn to draw.

    A generator has to spend its code on everything in the picture; a backdrop of smooth colours leaves it to the face.

    index       entries of the data set
    size        side of `target`, uint8 [N,size,size,3]
    input_size  side of `photo`, uint8 [N,input_size,input_size,3]: the same people photographed, backgrounds untouched
    """

    def __init__(self, pairs: Pairs, index: np.ndarray, style: str, size: int, input_size: int):
        self.photo = aligned(pairs, index, "photo", input_size)
        self.target = aligned(pairs, index, style, size, calm=True)

    def batch(self, n: int, iteration: int, seed: int, device: str | torch.device = "cpu") -> tuple[Tensor, Tensor]:
        """n random portraits, mirrored and tinted alike: (photos, half of them degraded; targets), both in [−1,1]."""
        index = np.random.default_rng([seed, iteration]).integers(0, len(self.photo), n)
        g = rng_for(seed, iteration, device)
        side = _share(g, n) < 0.5
        both = [to_tensor(pictures[index], device) for pictures in (self.photo, self.target)]
        photo, target = tint([torch.where(side, x.flip(3), x) for x in both], g, strength=0.4)
        return torch.where(_share(g, n) < 0.5, degrade(photo, g), photo), target


def portrait_pool(pairs: Pairs, size: int, hold_out: int) -> np.ndarray:
    """Entries to train on that can be aligned at `size` pixels; the first `hold_out` never.

    Even entries are framed as FFHQ frames. The looser ones join in where their smaller faces lose nothing, at up to a
    quarter of the data set's size, if the aligned square stays within the picture.
    """
    pool, full = pairs.ready[pairs.ready >= hold_out], pairs["photo"].shape[1]
    small = 4 * size <= full
    found = [i for i in pool if i % 2 == 0 or (small and _inside(np.array(pairs["photo_landmarks"][i]), full))]
    if not found:
        raise VToonifyError(f"the data set in {pairs.folder} has no aligned people beside the {hold_out} held out; "
                            "render more people")
    return np.array(found)


def aligned(pairs: Pairs, index: np.ndarray, style: str, size: int, calm: bool = False, progress: bool = True
            ) -> np.ndarray:
    """Pictures of one style in FFHQ's framing, that of the photograph's landmarks: uint8 [N,size,size,3]."""
    out = np.empty((len(index), size, size, 3), np.uint8)
    for n, i in enumerate(tqdm(index, desc=f"aligning {style}, {size} px", mininterval=5, disable=not progress)):
        picture = np.array(pairs[style][i])
        if calm:
            picture = calm_background(picture, np.array(pairs[f"{style}_parsing"][i]) == 0)
        if i % 2:
            picture = align_face(picture, np.array(pairs["photo_landmarks"][i]), OVERSAMPLING * size)
        out[n] = Image.fromarray(picture).resize((size, size), Image.Resampling.BOX)
    return out


def _inside(landmarks: np.ndarray, side: int) -> bool:
    """True when hardly anything of the aligned square lies outside of the picture."""
    quad = ffhq_quad(landmarks)
    return max(-quad.min(), quad.max() - side) <= BORDER * side


# -- geometry ---------------------------------------------------------------------------------------------------------
def placements(n: int, g: torch.Generator, zoom: tuple[float, float] = (0.8, 1.25), turn: float = 0.35,
               shift: float = 0.12) -> Tensor:
    """Random affines [n,2,3] from positions of the result to those it is read from, both in [−1,1]; half mirror.

    zoom: least and largest; turn: radians; shift: share of the side
    """
    side = torch.where(_share(g, n).flatten() < 0.5, -1.0, 1.0)
    blank = torch.empty(n, device=g.device)
    scale = blank.uniform_(float(np.log(zoom[0])), float(np.log(zoom[1])), generator=g).exp().reciprocal()
    angle = turn * torch.empty_like(blank).uniform_(-1, 1, generator=g)
    dx, dy = shift * 2 * torch.empty(2, n, device=g.device).uniform_(-1, 1, generator=g)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    return torch.stack([torch.stack([side * cos, -sin, dx], 1), torch.stack([side * sin, cos, dy], 1)], 1)


def mirrored(theta: Tensor) -> Tensor:
    """Which of the affines [n,2,3] mirror, [n] bool."""
    return torch.linalg.det(theta[:, :, :2]) < 0


def move(batch: Batch, g: torch.Generator, zoom: tuple[float, float] = (0.8, 1.25), turn: float = 0.35,
         shift: float = 0.12) -> Batch:
    """Flip half of the batch; zoom, turn and shift everything, all four maps alike; see `placements`.

    Labels l_/r_ swap with the flip. Borders are mirrored; pictures are resampled bilinearly, labels by nearest pixel.
    """
    theta = placements(len(batch.photo), g, zoom, turn, shift)
    grid = F.affine_grid(theta, list(batch.photo.shape), align_corners=False)
    flipped = mirrored(theta)[:, None, None]

    def sample(x: Tensor, mode: str) -> Tensor:
        return F.grid_sample(x, grid, mode=mode, padding_mode="reflection", align_corners=False)

    def labels(x: Tensor) -> Tensor:
        moved = sample(x[:, None].float(), "nearest")[:, 0].long()
        return torch.where(flipped, MIRROR.to(moved.device)[moved], moved)

    return batch.map(lambda x: sample(x, "bilinear"), labels)


def flip(batch: Batch, g: torch.Generator) -> Batch:
    """Mirror half of the batch, without resampling."""
    side = _share(g, len(batch.photo)).flatten() < 0.5
    return batch.map(lambda x: torch.where(side[:, None, None, None], x.flip(3), x),
                     lambda x: torch.where(side[:, None, None], MIRROR.to(x.device)[x.flip(2)], x))


# -- colour and camera ------------------------------------------------------------------------------------------------
def tint(images: list[Tensor], g: torch.Generator, strength: float = 1.0) -> list[Tensor]:
    """One random change of exposure, contrast, white balance and saturation, the same for every picture of a pair.

    images: any number of [B,3,H,W] in [−1,1], of any sizes.
    """
    n = images[0].shape[0]
    gamma = torch.exp(strength * 0.35 * _uniform(g, n))
    gain = torch.exp(strength * 0.20 * _uniform(g, n))
    balance = torch.exp(strength * 0.12 * (2 * torch.rand(n, 3, 1, 1, generator=g, device=g.device) - 1))
    saturation = 1 + strength * 0.45 * _uniform(g, n)
    saturation = torch.where(_share(g, n) < 0.06 * min(1.0, strength), 0.0, saturation)
    luma = torch.tensor([0.3, 0.59, 0.11], device=g.device).view(1, 3, 1, 1)
    out = []
    for image in images:
        light = image.add(1).mul(0.5).clamp(0, 1).pow(gamma) * gain * balance
        grey = (light * luma).sum(1, keepdim=True)
        out.append((grey + (light - grey) * saturation).clamp(0, 1).mul(2).sub(1))
    return out


def degrade(x: Tensor, g: torch.Generator) -> Tensor:
    """What cameras do to a photograph: uneven light, blur, low resolution, noise, coarse pixels. [B,3,H,W] → same."""
    n, _, h, w = x.shape
    field = torch.randn(n, 1, 3, 3, generator=g, device=g.device)
    field = F.interpolate(field, (h, w), mode="bicubic", align_corners=True)
    x = (x + 1) * torch.exp(0.16 * field * _share(g, n)) - 1
    low = F.avg_pool2d(x, 2)
    kind = _share(g, n)  # below ½ softer, above ¾ sharper
    soft = F.interpolate(low, (h, w), mode="bilinear", align_corners=False)
    amount = _share(g, n) * (kind < 0.5)
    x = x + amount * (soft - x)
    sharpen = _share(g, n) * 0.7 * (kind > 0.75)
    x = x + sharpen * (x - soft)
    coarse = F.interpolate(F.avg_pool2d(x, 3, 3, ceil_mode=True), (h, w), mode="bilinear", align_corners=False)
    x = torch.where(_share(g, n) < 0.1, coarse, x)
    grain = torch.randn(n, 3, h, w, generator=g, device=g.device)
    clumped = F.avg_pool2d(F.pad(grain, (1, 1, 1, 1)), 3, 1) * 2
    grain = torch.where(_share(g, n) < 0.5, grain, clumped)
    return (x + 0.09 * _share(g, n) ** 2 * grain).clamp(-1, 1)


def half(x: Tensor) -> Tensor:
    """Area-average to half size: pictures [B,C,2h,2w] → [B,C,h,w]."""
    return F.avg_pool2d(x, 2)


def prepare(pairs: Pairs, n: int, iteration: int, seed: int, hold_out: int, style: str = "storybook",
            device: str | torch.device = "cpu") -> Pair:
    """An augmented batch of n entries that depends on (seed, iteration) alone."""
    return augment_batch(draw(pairs, n, iteration, seed, hold_out, style, device), rng_for(seed, iteration, device))


def augment_batch(batch: Batch, g: torch.Generator, repainted: Tensor | None = None) -> Pair:
    """The batch moved and tinted; the input, and only the input, at half size through :func:`degrade`.

    repainted  colour degrees [B] of the targets: people in the style's colours are tinted that much less along with the
               photograph. Backgrounds always have the photograph's colours.
    """
    batch = move(batch, g) if bool(_share(g, 1) < 0.5) else flip(batch, g)
    photo, styled = tint([batch.photo, batch.styled], g)
    if repainted is not None:
        share = repainted.view(-1, 1, 1, 1) * (batch.styled_parsing != 0)[:, None]
        styled = torch.lerp(styled, batch.styled, share)
    return Pair(degrade(half(photo), g), styled, photo, batch.parsing[:, ::2, ::2])


def _share(g: torch.Generator, n: int) -> Tensor:
    """A random number in [0,1) for each picture, [n,1,1,1]."""
    return torch.rand(n, 1, 1, 1, generator=g, device=g.device)


def _uniform(g: torch.Generator, n: int) -> Tensor:
    """A random number in [−1,1) for each picture, [n,1,1,1]."""
    return 2 * _share(g, n) - 1
