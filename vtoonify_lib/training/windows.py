"""Patches of large pairs: cut and transformed in worker processes, tinted and degraded where the network is.

An entry of a data set is a photograph of S px and its drawing of S px; the network reads the photograph at S/scale.
A worker reads both memory maps only where the window lies, resamples them (or, for half of the entries, cuts them out
as they are, so that the drawing keeps its sharpness), covers a part of some faces, compresses some inputs, and hands
over bytes. What is cheap on a GPU, light and camera (`augment.tint`, `augment.degrade`), happens there. A batch
depends on (seed, iteration) alone.
"""

from __future__ import annotations

import io
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..config import VToonifyError
from ..faces.crop import eye_distance
from ..models.layers import channels_last
from ..studio.shards import Pairs
from . import augment, loop
from .exemplars import Exemplars
from .pairs import Pair, StyleCondition

JPEG_SHARE, JPEG_QUALITY = 0.4, (30, 95)  # of the inputs that are compressed
COARSE_SHARE, COARSE = 0.25, (1.3, 4.0)  # of the detailed inputs that are enlarged ones, and how far
DEGRADED_SHARE = 0.4  # of the inputs with detail that are degraded; most stay sharp: their pixels are carried over
COVER_SHARE, COVER = 0.15, (0.08, 0.22)  # of the pairs with something in front; its half axes, in shares of the window
FACE_SHARE, EYE_SHARE = 0.9, 0.6  # of the windows that have a landmark in them; of these, one of the eyes
STRONGER = 0.7  # how often the stronger of two drawings is taken: a weak one is hardly more than its photograph
NATURAL = 0.15  # that faces may be larger or smaller than in use: the zoom of the windows covers it
MARGIN = 4  # px around what is read, for the bicubic filter


@dataclass(frozen=True)
class Framing:
    """How windows are cut.

    side        of the window, in pixels of the input: a multiple of 8
    scale       output pixels per input pixel
    zoom, turn, shift  of the entries that are moved, see `augment.placements`
    moved       share of the entries that are; the others are cut out as they are, or mirrored
    face        side of the whole photograph that the style encoder sees
    flow_step   for a network that carries detail over (`Pair`): picture's pixels per pixel of its flow; else 0
    """

    side: int
    scale: int
    zoom: tuple[float, float] = (0.8, 1.25)
    turn: float = 0.35
    shift: float = 0.12
    moved: float = 0.5
    face: int = 64
    flow_step: int = 0


@dataclass(frozen=True)
class Source:
    """A data set and the entries of it that may be trained on.

    side  in output pixels, to which the pictures are scaled so that faces are as large as in use (`natural_side`)
    """

    pairs: Pairs
    pool: np.ndarray
    side: int

    @property
    def size(self) -> int:
        return self.pairs["photo"].shape[1]

    @property
    def samples(self) -> int:
        """Samples a pixel and axis, where the pictures are shrunk."""
        return -(-self.size // self.side)


class PatchDataset(Dataset):
    """Batches of windows by iteration: what `PairLoader` turns into pairs, as bytes.

    sources    take turns, entry by entry, so that two give half of a batch each
    looks      of the drawings; each entry of a batch is drawn in a random one of them
    exemplars  of these looks, for VToonify-D
    shares     how often each look is drawn, beside the others (default: all alike)
    """

    def __init__(self, sources: Sequence[Source], looks: Sequence[str], framing: Framing, batch: int, seed: int,
                 exemplars: Exemplars | None = None, shares: Sequence[float] = ()) -> None:
        shares = np.array(shares or [1.0] * len(looks))
        if len(shares) != len(looks) or not (shares > 0).all():
            raise VToonifyError(f"{len(looks)} looks got the shares {shares.tolist()}; give a positive number for each")
        for source in sources:
            need = framing.side * framing.scale
            if source.side < need or not len(source.pool):
                raise VToonifyError(f"{source.pairs.folder} has {len(source.pool)} entries of {source.side} px to "
                                    f"train on; windows need one of {need} px at least")
        self.sources, self.looks, self.framing, self.batch, self.seed = tuple(sources), looks, framing, batch, seed
        self.exemplars, self.shares = exemplars, shares / shares.sum()

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([self.seed, i])
        rows = [self._entry(self.sources[(i + n) % len(self.sources)], rng) for n in range(self.batch)]
        return {name: torch.stack([torch.as_tensor(row[name]) for row in rows]) for name in rows[0]}

    def _entry(self, source: Source, rng: np.random.Generator) -> dict[str, Tensor | np.ndarray | float]:
        pairs, framing = source.pairs, self.framing
        kind, entry = self._chosen(source, rng)
        look = self.looks[kind]
        moved = bool(rng.random() < framing.moved)
        theta, window = self._place(np.array(pairs["photo_landmarks"][entry]) / source.size, source.side, moved, rng,
                                    mirrored=not pairs.photographs)
        side, k = framing.scale * framing.side, source.samples
        grid = window_grid(theta, *window, side, source.side, source.size, k)
        exact = not moved and source.size == k * source.side  # what is not moved keeps its pixels
        mode = "nearest" if exact else "bicubic"
        pictures = [F.avg_pool2d(fetch(pairs[name][entry], grid, mode), k) for name in ("photo", look)]
        classes, drawn = (fetch(pairs[f"{name}_parsing"][entry][..., None], grid[::k, ::k], "nearest")[0].long()
                          for name in ("photo", look))
        if augment.mirrored(theta[None])[0]:
            classes = augment.MIRROR[classes]
        x, y, cover = self._cover(*pictures, rng)
        x = _coarse(x, rng) if framing.flow_step else F.avg_pool2d(x[None], framing.scale)[0]
        x = _compressed(x, rng)
        classes = torch.where(cover, 0, classes)[:: framing.scale, :: framing.scale]
        row = {"x": x, "y": _bytes(y), "parsing": classes.byte(), "person": (drawn != 0) & ~cover,
               "face": _bytes(small(pairs["photo"][entry], theta, framing.face, pairs.margin)),
               "structure": _number(pairs, f"{look}_structure", entry),
               "color": _number(pairs, f"{look}_color", entry)}
        row["untinted"] = 0.0 if pairs.photographs else row["color"]
        if framing.flow_step:
            row["flow"] = self._flow(pairs[f"{look}_move"][entry], grid, theta, source)
        if self.exemplars is not None:
            index = np.array([self.exemplars.per_look * kind + int(pairs[f"{look}_style"][entry])])
            row |= {"index": int(index[0]), "exemplar": _bytes(self.exemplars.draw(index, rng)[0] * 127.5 + 127.5)}
        return row

    def _chosen(self, source: Source, rng: np.random.Generator) -> tuple[int, int]:
        """Number of a look, and an entry; of exemplars STRONGER of the time the one of two with more of the style."""
        kind = int(rng.choice(len(self.looks), p=self.shares))
        first, other = source.pool[rng.integers(len(source.pool), size=2)].tolist()
        if self.exemplars is None or rng.random() > STRONGER:
            return kind, first
        return kind, max(first, other, key=lambda entry: _number(source.pairs, f"{self.looks[kind]}_structure", entry))

    def _flow(self, move: np.ndarray, grid: Tensor, theta: Tensor, source: Source) -> Tensor:
        """Where the window's drawing has its pixels from, in input pixels: [2,h,w], one per `framing.flow_step` pixels.

        move [S/MOVE_STEP,S/MOVE_STEP,2]: of the entry, in its own pixels
        """
        step = self.framing.flow_step * source.samples
        places = F.avg_pool2d(grid.permute(2, 0, 1)[None], step)[0].permute(1, 2, 0)
        there = (2 * places + 1) / source.size - 1
        found = F.grid_sample(torch.from_numpy(np.array(move)).float().permute(2, 0, 1)[None], there[None],
                              padding_mode="border", align_corners=False)[0]
        turned = torch.linalg.inv(theta[:, :2]) * (source.side / source.size / self.framing.scale)
        return torch.einsum("ij,jhw->ihw", turned, found)

    def _place(self, marks: np.ndarray, size: int, moved: bool, rng: np.random.Generator, mirrored: bool = True
               ) -> tuple[Tensor, tuple[int, int]]:
        """→ affine [2,3] of the whole picture, and the window's top left corner, in output pixels.

        marks [68,2]: landmarks in picture widths; most windows have one of them somewhere in them, for faces are what
        is looked at, and a canvas is mostly hair, shoulders and backdrop. The corner is a multiple of the scale, so
        that an entry that is not moved is cut where the input's pixels are.

        mirrored: half of them. A mirrored drawing of a photograph would have the light in its eyes on the wrong side.
        """
        framing, g = self.framing, torch.Generator().manual_seed(int(rng.integers(2**62)))
        if moved:
            theta = augment.placements(1, g, framing.zoom, framing.turn, framing.shift)[0]
        else:
            theta = torch.tensor([[1.0 if rng.random() < 0.5 else -1.0, 0, 0], [0, 1, 0]])
        if not mirrored and augment.mirrored(theta[None])[0]:
            theta[:, 0] *= -1
        room = size // framing.scale - framing.side
        left, top = rng.integers(0, room + 1, 2)
        if rng.random() < FACE_SHARE:
            near = marks[36:48] if rng.random() < EYE_SHARE else marks
            place = 2 * near[rng.integers(len(near))] - 1
            linear, shift = theta[:, :2].numpy().astype(float), theta[:, 2].numpy().astype(float)
            mark = (np.linalg.solve(linear, place - shift) + 1) / 2 * size / framing.scale
            left, top = np.clip(mark - rng.uniform(0, 1, 2) * framing.side, 0, room).astype(int)
        return theta, (framing.scale * int(top), framing.scale * int(left))

    def _cover(self, x: Tensor, y: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Put the same smooth disc or bar in front of both pictures [3,H,W], or nothing → both, and where it is [H,W].

        Its colours are some of the photograph's, and what is flat and smooth is drawn as it is.
        """
        side = x.shape[-1]
        if rng.random() >= COVER_SHARE:
            return x, y, torch.zeros(side, side, dtype=torch.bool)
        v, u = torch.meshgrid(*2 * [torch.linspace(0, 1, side)], indexing="ij")
        cx, cy, angle, wide = rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.9), rng.uniform(0, np.pi), rng.uniform(*COVER)
        along = np.cos(angle) * (u - cx) + np.sin(angle) * (v - cy)
        across = np.cos(angle) * (v - cy) - np.sin(angle) * (u - cx)
        long = wide * rng.uniform(1, 4)
        far = (along / long).square() + (across / wide).square()
        share = ((1 - far) * side * wide / 3).clamp(0, 1)  # an edge of a pixel or two
        spots = x.reshape(3, -1)[:, rng.integers(0, side * side, 2)]
        paint = torch.lerp(spots[:, :1, None], spots[:, 1:, None], (0.5 + along / (2 * long)).clamp(0, 1)[None])
        return torch.lerp(x, paint, share), torch.lerp(y, paint, share), share > 0.5


def natural_side(pairs: Pairs, entries: np.ndarray, eyes: float, scale: int) -> int:
    """Side in output pixels at which the faces of a data set are `eyes` output pixels apart, a multiple of the scale.

    It is that of the pictures themselves where that is about right: what is not resampled stays sharp.
    """
    size = pairs["photo"].shape[1]
    found = [eye_distance(np.array(pairs["photo_landmarks"][entry])) for entry in entries]
    zoom = eyes / float(np.median(found))
    return size if abs(zoom - 1) < NATURAL and size % scale == 0 else round(size * zoom / scale) * scale


def window_grid(theta: Tensor, top: int, left: int, side: int, whole: int, size: int, k: int = 1) -> Tensor:
    """Where a window is read: [k·side,k·side,2] in pixels of a picture of `size` px, which is scaled to `whole` px and
    moved by theta [2,3]; k samples a pixel and axis."""
    spans = (((torch.arange(k * side) + 0.5) / k + at) * 2 / whole - 1 for at in (top, left))
    v, u = torch.meshgrid(*spans, indexing="ij")
    place = torch.stack([u, v, torch.ones_like(u)], -1) @ theta.T
    return ((place + 1) * size - 1) / 2


def fetch(picture: np.ndarray, grid: Tensor, mode: str = "bicubic") -> Tensor:
    """Resample a picture, bytes [S,S,C], at `window_grid` → float32 [C,h,w] in 0 … 255; borders are mirrored.

    Only the part that is needed is read. Where the grid lies on pixels, their values come back.
    """
    size, spans = picture.shape[0], []
    for axis in (grid[..., 1], grid[..., 0]):
        low, high = int(axis.min().floor()) - MARGIN, int(axis.max().ceil()) + MARGIN + 1
        spans.append((low, high) if low >= 0 and high <= size else (0, size))
    (top, bottom), (left, right) = spans
    part = torch.from_numpy(np.array(picture[top:bottom, left:right])).permute(2, 0, 1)[None].float()
    sides = torch.tensor([right - left, bottom - top])
    local = (2 * (grid - torch.tensor([left, top])) + 1) / sides - 1
    return F.grid_sample(part, local[None], mode=mode, padding_mode="reflection", align_corners=False)[0].clamp(0, 255)


def small(picture: np.ndarray, theta: Tensor, side: int, margin: float = 1.0) -> Tensor:
    """The moved picture [S,S,3] without its margin (see `Pairs`), `side` px wide: float32 [3,side,side] in 0 … 255."""
    theta = torch.cat([theta[:, :2] / margin, theta[:, 2:]], 1)
    step = int(picture.shape[0] / margin) // (2 * side)
    part = torch.from_numpy(np.array(picture[::max(1, step), ::max(1, step)])).permute(2, 0, 1)[None].float()
    grid = F.affine_grid(theta[None], [1, 3, 2 * side, 2 * side], align_corners=False)
    return F.avg_pool2d(F.grid_sample(part, grid, padding_mode="reflection", align_corners=False), 2)[0]


def _coarse(x: Tensor, rng: np.random.Generator) -> Tensor:
    """[3,h,w], some of them as a camera with fewer pixels sees them, enlarged: faces in clips are often small."""
    if rng.random() >= COARSE_SHARE:
        return x
    side = max(8, round(x.shape[-1] / rng.uniform(*COARSE)))
    small = F.interpolate(x[None], (side, side), mode="area")
    return F.interpolate(small, x.shape[1:], mode="bicubic", align_corners=False)[0].clamp(0, 255)


def _compressed(x: Tensor, rng: np.random.Generator) -> Tensor:
    """[3,h,w] in 0 … 255 → bytes, some of them through a JPEG."""
    pixels, quality = _bytes(x), int(rng.integers(*JPEG_QUALITY))
    if rng.random() >= JPEG_SHARE:
        return pixels
    stream = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(stream, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(stream))).permute(2, 0, 1)


def _bytes(x: Tensor) -> Tensor:
    return x.round().clamp(0, 255).byte()


def _number(pairs: Pairs, name: str, entry: int) -> float:
    """A degree of an entry; 1 where the data set does not say."""
    return float(pairs[name][entry]) if name in pairs.arrays else 1.0


class PairLoader:
    """Pairs for `vtoonify.train`: iteration → Pair, prepared ahead by worker processes.

    workers  0: in this process
    codes    of all styles, then of the photograph [N+1,2,D], where they are known: half of the pictures are drawn by
             them
    """

    def __init__(self, patches: PatchDataset, device: str | torch.device = "cpu", workers: int = 0,
                 codes: np.ndarray | None = None) -> None:
        self.patches, self.device, self.workers = patches, torch.device(device), workers
        self.table = None if codes is None else torch.from_numpy(codes).to(device)
        self._next, self._batches = -1, iter(())

    def __call__(self, i: int) -> Pair:
        if i != self._next:
            self._batches = self._from(i)
        self._next = i + 1
        return self._pair(next(self._batches), i)

    def _from(self, start: int) -> Iterator[dict[str, Tensor]]:
        if not self.workers:
            return (self.patches[i] for i in range(start, 2**31))
        forked = "fork" in multiprocessing.get_all_start_methods()  # memory maps need not travel to the workers then
        return iter(DataLoader(self.patches, batch_size=None, sampler=range(start, 2**31), num_workers=self.workers,
                               pin_memory=self.device.type == "cuda", prefetch_factor=4,
                               multiprocessing_context="fork" if forked else None))

    def _pair(self, found: dict[str, Tensor], i: int) -> Pair:
        there = {name: value.to(self.device, non_blocking=True) for name, value in found.items()}
        g = loop.rng_for(self.patches.seed, i, self.device)
        untinted = [channels_last(there[name].float().div_(127.5).sub_(1)) for name in ("x", "y", "face")]
        x, y, face = augment.tint(untinted, g)
        # The more a render has the style's colours instead of its own, the less it is tinted. Drawings of photographs
        # are: drawn from a tinted photograph they differ by .003 (film; comic .013) from themselves tinted, by .07 from
        # themselves as they were (means of 14 photographs).
        y = torch.lerp(y, untinted[1], there["untinted"].float().view(-1, 1, 1, 1) * there["person"][:, None])
        condition = self._condition(there, i) if "index" in there else None
        degraded = augment.degrade(x, g)
        if "flow" not in there:
            return Pair(degraded, y, face, there["parsing"].long(), condition)
        kept = torch.rand(len(x), 1, 1, 1, generator=g, device=self.device) >= DEGRADED_SHARE
        return Pair(torch.where(kept, x, degraded), y, face, there["parsing"].long(), condition, there["flow"],
                    self.patches.framing.scale)

    def _condition(self, there: dict[str, Tensor], i: int) -> StyleCondition:
        index, exemplar = there["index"], there["exemplar"].float().div_(127.5).sub_(1)
        condition = StyleCondition(exemplar, index, there["structure"].float(), there["color"].float())
        if self.table is None:
            return condition
        g = torch.Generator().manual_seed(self.patches.seed * 1_000_003 + i)
        return condition.coded(self.table, torch.rand(len(index), generator=g) < 0.5)


def whole(pairs: Pairs, entries: Sequence[int], look: str, scale: int, multiple: int,
          condition: Callable[[np.ndarray], StyleCondition] | None = None, face: int = 64, natural: int | None = None,
          detail: int = 1) -> Pair:
    """Entries without augmentation: the pair of whole pictures, their sides cut to what the network takes.

    natural  side to which they are scaled before, see `natural_side`
    detail   for a network that carries detail over, see `Pair`
    """
    natural = natural or pairs["photo"].shape[1]
    side = natural // (scale * multiple) * multiple
    photos, drawings = (torch.from_numpy(np.array(pairs[name][list(entries)])).permute(0, 3, 1, 2).float() / 127.5 - 1
                        for name in ("photo", look))
    if natural != photos.shape[-1]:
        photos, drawings = (F.interpolate(p, (natural, natural), mode="bicubic", align_corners=False, antialias=True)
                            .clamp(-1, 1) for p in (photos, drawings))
    photos, drawings = (p[..., : side * scale, : side * scale] for p in (photos, drawings))
    border = round(side * scale * (1 - 1 / pairs.margin) / 2)
    faces = F.interpolate(photos[..., border:side * scale - border, border:side * scale - border], (face, face),
                          mode="area")
    wanted = condition(np.array(entries)) if condition else None
    x = F.avg_pool2d(photos, scale) if detail == 1 else photos
    return Pair(x, drawings, faces, None, wanted, detail=detail)
