"""A quality card for a toonified clip: how steady it is, and how close to the face, without knowing the true cartoon.

    warping       grey levels by which a drawing differs from the next one fetched back along the photographs' optical
                  flow, where that is reliable; beside it the photographs' own, which noise and light keep from being 0
    equivariance  RMS change, in grey levels, when the crop moves by whole pixels (see `metrics.equivariance`)
    landmarks     how far brows, nose, eyes and mouth lie from the photograph's, in eye distances
    identity      cosine of photograph and drawing, by the bundle's identity encoder if it has one
    found         share of the frames in which the face was found

Numbers compare clips and settings of this project only: flow, landmarks and identity are measured with our own eyes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from ..faces.crop import align_face
from ..faces.detector import FaceFinder
from ..media.images import to_tensor, write_image
from ..media.optical_flow import dense_flow, fetch
from ..models.paired_crop import crop as cut_window
from ..models.paired_crop import random_crop
from ..models.vtoonify import MULTIPLE
from ..weights.bundle import Bundle
from ..weights.downloads import write_json
from .metrics import landmark_shift, mean_of

LOOKED_AT = 16      # frames, spread over the clip, whose landmarks and identity are measured
MOVED = 4           # of these, for the equivariance
SLICE_ROWS = 240    # of the space-time slices, at most
SLICE_AT = 0.45     # height in the crop, from the top, of the row that they show: the eyes
RELIABLE = 12.0     # grey levels by which a pixel may change along a flow that is reliable
ROUND_TRIP = 1.0    # pixels by which flow there and back may miss where it began
SHOWN = 6           # pairs of pictures on the card
SIDE = 160          # of the card's pictures


def reliable_flow(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Optical flow from a to b, uint8 [H,W,3], and where it is reliable, [H,W] bool: it agrees with the backward flow,
    and colours are similar."""
    there, back = dense_flow(a, b), dense_flow(b, a)
    miss = np.linalg.norm(there + fetch(back, there), axis=2)
    change = np.abs(fetch(b, there).astype(np.float32) - a).mean(2)
    return there, (miss < ROUND_TRIP) & (change < RELIABLE)


def warping_error(a: np.ndarray, b: np.ndarray, flow: np.ndarray, where: np.ndarray) -> float:
    """Mean difference, in grey levels, of a and of b fetched back along the flow; all of one size, or a and b larger.

    a, b: uint8 [sH,sW,3];  flow [H,W,2] from a to b in its own pixels;  where [H,W] bool. nan where nothing is counted.
    """
    scale = a.shape[1] / flow.shape[1]
    if scale != 1:
        size = (a.shape[1], a.shape[0])
        flow = np.stack([_to(flow[..., axis] * scale, size) for axis in (0, 1)], axis=2)
        where = _to(where.astype(np.float32), size) > 0.5
    error = np.abs(fetch(b, flow).astype(np.float32) - a).mean(2)
    return float(error[where].mean()) if where.any() else float("nan")


@dataclass(frozen=True)
class QualityCard:
    """The numbers (see the module), None where there is none, and the picture, uint8 RGB [H,W,3]."""

    frames: int
    found: float
    warping: float | None
    warping_input: float | None
    equivariance: float | None
    landmarks: float | None
    identity: float | None
    picture: np.ndarray

    def numbers(self) -> dict[str, float | int | None]:
        """For JSON."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "picture"}

    def save(self, path: str | Path) -> Path:
        """The picture, and beside it the numbers in a file that ends in .json. VToonifyError if that cannot be."""
        path = write_image(Path(path), self.picture)
        write_json(path.with_suffix(".json"), self.numbers())
        return path

    def __str__(self) -> str:
        def formatted(value: float | None, how: str) -> str:
            return "unknown" if value is None else how.format(value)

        return "\n".join([
            f"{self.frames} frames, the face found in {self.found:.0%}",
            f"change along the flow {formatted(self.warping, '{:.2f}')}, the photograph's own "
            f"{formatted(self.warping_input, '{:.2f}')} of 255",
            f"flicker when the crop moves {formatted(self.equivariance, '{:.2f}')} of 255",
            f"landmarks moved by {formatted(self.landmarks, '{:.1%}')} of the eye distance",
            f"identity {formatted(self.identity, '{:.2f}')}"])


class QualityMeter:
    """Watches a clip being drawn, frame by frame, in constant memory; `card` at the end.

    bundle, finder  the networks that draw, and what finds faces
    small   crops as the networks see them, uint8 [B,dH,dW,3], at input size (`networks.Engine.small`)
    frames  how many are expected
    """

    def __init__(self, bundle: Bundle, finder: FaceFinder, small: Callable[[np.ndarray], np.ndarray],
                 frames: int) -> None:
        self.bundle, self.finder, self.small = bundle, finder, small
        self._every = max(1, frames // LOOKED_AT)
        self._row_every = -(-frames // SLICE_ROWS) or 1
        self._last: tuple[np.ndarray, np.ndarray] | None = None
        self._errors: list[tuple[float, float]] = []
        self._kept: list[tuple[np.ndarray, np.ndarray]] = []
        self._rows: list[tuple[np.ndarray, np.ndarray]] = []
        self._count = 0

    def add(self, crop: np.ndarray, picture: np.ndarray) -> None:
        """The next drawing, uint8 RGB [sh,sw,3], and the crop that it was made of, as the networks see it."""
        small = self.small(crop[None])[0]
        if self._last is not None and self._last[0].shape == small.shape:
            before, drawn = self._last
            flow, where = reliable_flow(before, small)
            self._errors.append((warping_error(drawn, picture, flow, where), warping_error(before, small, flow, where)))
        if self._count % self._every == 0 and len(self._kept) < LOOKED_AT:
            self._kept.append((crop, picture))
        if self._count % self._row_every == 0:
            self._rows.append(tuple(p[int(SLICE_AT * len(p))] for p in (crop, picture)))
        self._last, self._count = (small, picture), self._count + 1

    def card(self, draw: Callable[[np.ndarray], np.ndarray] | None, found: float) -> QualityCard:
        """draw: crops, uint8 [1,h,w,3] → drawings, to see what it makes of moved ones; found: share of the frames.

        draw None, for a look that moves: no equivariance.
        """
        pairs = [(_to(crop, picture.shape[1::-1]), picture) for crop, picture in self._kept]
        shifts = mean_of(landmark_shift(self.finder, *pair) for pair in pairs)
        errors = np.array(self._errors, np.float64).reshape(-1, 2)
        errors = errors[~np.isnan(errors).any(1)]
        warping, own = errors.mean(0).tolist() if len(errors) else (None, None)
        card = QualityCard(self._count, found, warping, own, self._equivariance(draw), shifts.get("all"),
                           self._identity(pairs), np.empty(0))
        return replace(card, picture=_sheet(pairs, self._rows, str(card)))

    def _equivariance(self, draw: Callable[[np.ndarray], np.ndarray] | None) -> float | None:
        if draw is None:
            return None
        squares = []
        for index, (crop, picture) in enumerate(self._kept[:: max(1, len(self._kept) // MOVED)]):
            multiple = MULTIPLE * (self.bundle.config.detail or 1)
            window = random_crop(*crop.shape[:2], multiple=multiple, rng=torch.Generator().manual_seed(index))
            moved, whole = (torch.from_numpy(p.astype(np.float32)).movedim(2, 0) for p in (crop, picture))
            again = draw(cut_window(moved, window).movedim(0, 2).numpy().astype(np.uint8)[None])[0]
            there = cut_window(whole, window, len(picture) // len(crop)).movedim(0, 2).numpy()
            squares.append(np.square(there - again).mean())
        return float(np.sqrt(np.mean(squares))) if squares else None

    def _identity(self, pairs: list[tuple[np.ndarray, np.ndarray]]) -> float | None:
        if "identity" not in self.bundle.info["models"]:
            return None
        net, cosines = self.bundle.network("identity").eval(), []
        for pair in pairs:
            faces = [self.finder.faces(picture) for picture in pair]
            if not all(faces):
                continue
            aligned = [align_face(p, f[0].landmarks, net.image_size) for p, f in zip(pair, faces, strict=True)]
            with torch.no_grad():
                codes = net(to_tensor(np.stack(aligned)))[:, 0].float()
            cosines.append(float(torch.cosine_similarity(*codes, dim=0)))
        return float(np.mean(cosines)) if cosines else None


def _sheet(pairs: list[tuple[np.ndarray, np.ndarray]], rows: list[tuple[np.ndarray, np.ndarray]], caption: str
           ) -> np.ndarray:
    """Photographs above drawings; below, what one row of pixels of both shows in the course of time; the numbers."""
    shown = pairs[:: max(1, len(pairs) // SHOWN)][:SHOWN]
    width = 3 * SIDE if not shown else len(shown) * round(SIDE * shown[0][1].shape[1] / shown[0][1].shape[0])
    lines = [np.concatenate([_to(pair[kind], (width // len(shown), SIDE)) for pair in shown], 1)
             for kind in (0, 1) if shown]
    if rows:
        lines.append(np.concatenate([_to(np.stack([row[kind] for row in rows]), (part, SIDE))
                                     for kind, part in enumerate((width // 2, width - width // 2))], 1))
    font = ImageFont.load_default(13)
    right, bottom = ImageDraw.Draw(Image.new("RGB", (1, 1))).multiline_textbbox((8, 8), caption, font)[2:]
    sheet = Image.new("RGB", (max(width, int(right) + 8), SIDE * len(lines) + int(bottom) + 8), "white")
    for number, line in enumerate(lines):
        sheet.paste(Image.fromarray(line), (0, SIDE * number))
    ImageDraw.Draw(sheet).multiline_text((8, SIDE * len(lines) + 8), caption, "black", font)
    return np.asarray(sheet)


def _to(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture, or one plane of numbers, at another size (width, height)."""
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))
