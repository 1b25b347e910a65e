"""Evaluate bundles on a folder of photographs: against each other, and against the studio's own drawing.

`python -m vtoonify_lib.apps.evaluate_photos FOLDER --bundle studio-t film --sheet sheet.png`. Photographs are
framed as the studio frames them (`portraits`), so that outputs can be compared with the studio's drawings.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm

from ..config import VToonifyError, exit_code
from ..evaluation.metrics import feature_distance, landmark_distance, psnr, sharpness
from ..faces.crop import align_face, cut
from ..faces.detector import Face
from ..inference.toonifier import Toonifier
from ..media.images import read_image, to_tensor
from ..models.perceptual import VGGFeatures
from ..studio.portraits import Portraitist, as_bytes
from ..styles.request import AS_TRAINED, Look, ResolvedLook
from ..training.photo_pairs import photographs
from ..training.vgg import load_vgg
from ..weights.bundle import DEFAULT_BUNDLE, load_bundle
from .listing import table

CANVAS = 768  # px: 1.5 times FFHQ's square, whose 512 px are what a face of the default's output is wide
SHARPNESS_AT = (256, 512)  # px: widths of the face at which sharpness is compared
TILE = 384  # px: height of a picture on the sheet
PERCEIVED = 512  # px: perceptual distances are taken at this height or less
STUDIO = "studio"  # name of the studio's own drawing among the bundles

Identity = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(picture uint8 [H,W,3], landmarks [68,2]) → a code [D]; of one person the codes lie close (Euclidean)."""


@dataclass(frozen=True)
class DrawnPhoto:
    """One photograph by one bundle: crop, cartoon and the studio's drawing, uint8, all as large, with their faces."""

    crop: np.ndarray
    picture: np.ndarray
    target: np.ndarray | None
    face: Face
    drawn_face: Face | None
    target_face: Face | None


class Measured(NamedTuple):
    """A photograph by all bundles.

    rows    numbers, a row for each bundle and one for the studio
    column  of the sheet: the pictures below each other, uint8 [n·TILE,TILE,3]
    codes   of the person, photographed and drawn; None where there is no face
    """

    rows: list[dict[str, float]]
    column: np.ndarray
    codes: list[np.ndarray | None]


@dataclass(frozen=True)
class PhotoEvaluator:
    """Evaluates photographs one by one, see `evaluate`.

    style  a look, or one of its exemplars: the studio's, and that of bundles with styles; None: film, and what a bundle
           starts with
    structure, color  degrees; structure None: what suits the person in the studio, what a bundle starts with
    VToonifyError where a bundle with styles does not have this one.
    """

    toonifiers: dict[str, Toonifier]
    studio: Portraitist | None
    style: str | None = None
    structure: float | None = None
    color: float = 0.5
    vgg: VGGFeatures | None = None
    identity: Identity | None = None

    def __post_init__(self) -> None:
        for name in self.toonifiers:
            self._look(name)

    def _look(self, name: str) -> ResolvedLook:
        toonifier = self.toonifiers[name]
        asked = self.style is not None and toonifier.bundle.styles
        return toonifier.resolve(Look(self.style, self.structure, self.color) if asked else AS_TRAINED)

    def measure(self, path: Path) -> Measured | str:
        """A photograph's numbers, or why there are none."""
        found = self._framed(path)
        if isinstance(found, str):
            return found
        canvas, target = found
        rows, shown = [], []  # shown: pictures below each other, with their faces
        for name, toonifier in self.toonifiers.items():
            try:
                drawn = _draw(toonifier, self._look(name), canvas, target)
            except VToonifyError as error:
                return str(error)
            rows.append({"bundle": name, **self._row(drawn, drawn.picture, drawn.drawn_face),
                         **self._to_target(toonifier, drawn)})
            shown += [*([] if shown else [(drawn.crop, drawn.face)]), (drawn.picture, drawn.drawn_face)]
        if target is not None:
            rows.append({"bundle": STUDIO, **self._row(drawn, drawn.target, drawn.target_face)})
            shown.append((drawn.target, drawn.target_face))
        tiles = [Image.fromarray(picture).resize((TILE, TILE), Image.Resampling.LANCZOS) for picture, _ in shown]
        codes = [self._code(*each) for each in shown]
        return Measured(rows, np.concatenate([np.asarray(tile) for tile in tiles]), codes)

    def _framed(self, path: Path) -> tuple[np.ndarray, np.ndarray | None] | str:
        """The photograph as the studio frames it, and its drawing."""
        if self.studio is None:
            return read_image(path), None
        read = self.studio.reader(path, CANVAS)
        if isinstance(read, str):
            return read
        drawing = self.studio.drawing(*read, self.style or "film", self.structure, self.color)
        return as_bytes(read[0].photo), as_bytes(drawing.picture)

    def _row(self, drawn: DrawnPhoto, picture: np.ndarray, face: Face | None) -> dict[str, float]:
        row = {"found": float(face is not None)}
        if face is not None:
            row["followed"] = landmark_distance(drawn.face.landmarks, face.landmarks)["all"]
        for size in SHARPNESS_AT:
            own = sharpness(drawn.crop, drawn.face.landmarks, size)
            row[f"sharpness_{size}"] = sharpness(picture, drawn.face.landmarks, size) / max(own, 1e-6)
        return row

    def _to_target(self, toonifier: Toonifier, drawn: DrawnPhoto) -> dict[str, float]:
        """Distances to the studio's drawing, where there is one."""
        if drawn.target is None:
            return {}
        row = {}
        if drawn.drawn_face is not None and drawn.target_face is not None:
            marks = drawn.target_face.landmarks, drawn.drawn_face.landmarks
            row["landmark_shift"] = landmark_distance(*marks)["all"]
        ours, wanted = (to_tensor(p) for p in (drawn.picture, drawn.target))
        return row | {"psnr": float(psnr(ours, wanted)), "perceptual": self._distance(toonifier, ours, wanted)}

    @torch.no_grad()
    def _distance(self, toonifier: Toonifier, a: torch.Tensor, b: torch.Tensor) -> float:
        side = min(PERCEIVED, a.shape[-1]) // 8 * 8
        a, b = (torch.nn.functional.interpolate(p, (side, side), mode="area") for p in (a, b))
        if self.vgg is not None:
            return float(self.vgg.distance(a, b))
        return float(feature_distance(toonifier.bundle.network("parsing").eval(), a, b))

    def _code(self, picture: np.ndarray, face: Face | None) -> np.ndarray | None:
        return None if self.identity is None or face is None else self.identity(picture, face.landmarks)


def evaluate(paths: Iterable[Path], evaluator: PhotoEvaluator, sheet: Path | None = None, progress: bool = True
             ) -> dict:
    """Numbers of photographs → {"refused": {file: why}, "count", bundle: {measure: mean}}.

    found            share of the cartoons in which the face is found again
    followed         how far its landmarks lie from the photograph's, in eye distances (`metrics.landmark_distance`)
    sharpness_256, …  share of the photograph's, at so many pixels of face (`metrics.sharpness`)
    landmark_shift   from the studio's drawing, in eye distances; psnr, perceptual: to it
    rank_1           share of the people whose cartoon lies next to their own photograph among all

    The studio's own drawing has a row, too. sheet: a contact sheet, a column each person: photograph, bundles, studio.
    """
    rows: list[dict[str, float]] = []
    columns, codes, refused = [], [], {}
    for path in tqdm(sorted(paths), desc="photographs", disable=not progress):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = evaluator.measure(path)
        if isinstance(found, str):
            refused[path.name] = found
            continue
        rows += found.rows
        columns.append(found.column)
        codes.append(found.codes)
    if sheet and columns:
        contact_sheet(columns, 8 * max(column.shape[1] for column in columns)).save(sheet)
    names = list(dict.fromkeys(row["bundle"] for row in rows))
    out = {"refused": refused, "count": len(columns)}
    for number, name in enumerate(names, start=1):
        mine = [row for row in rows if row["bundle"] == name]
        keys = dict.fromkeys(key for row in mine for key in row if key != "bundle")
        out[name] = {key: round(float(np.mean([row[key] for row in mine if key in row])), 4) for key in keys}
        if evaluator.identity is not None:
            out[name]["rank_1"] = rank_1([(column[0], column[number]) for column in codes])
    return out


def rank_1(codes: Sequence[tuple[np.ndarray | None, np.ndarray | None]]) -> float:
    """Share of the people whose drawing's code is nearest to their own photograph's; without a face it is not."""
    photos = np.stack([photo for photo, _ in codes])
    nearest = [-1 if drawn is None else int(np.linalg.norm(photos - drawn, axis=1).argmin()) for _, drawn in codes]
    return round(float(np.mean(np.array(nearest) == np.arange(len(codes)))), 4)


def dlib_identity(path: str | Path) -> Identity:
    """dlib's face recognition (`dlib_face_recognition_resnet_model_v1.dat`, the user's own file)."""
    import dlib

    if not Path(path).is_file():
        raise VToonifyError(f"{path} does not exist; name dlib's face recognition model")
    net = dlib.face_recognition_model_v1(str(path))
    return lambda picture, marks: np.array(net.compute_face_descriptor(
        np.ascontiguousarray(align_face(picture, marks, 150))))


def our_identity(bundle: str = "studio-d") -> Identity:
    """The identity encoder of a bundle of ours: not independent of the bundles that it evaluates."""
    net = load_bundle(bundle).network("identity").eval()

    @torch.no_grad()
    def code(picture: np.ndarray, marks: np.ndarray) -> np.ndarray:
        found = net(to_tensor(align_face(picture, marks, net.image_size)))[0, 0].float()
        return torch.nn.functional.normalize(found, dim=0).numpy()

    return code


def _draw(toonifier: Toonifier, look: ResolvedLook, canvas: np.ndarray, target: np.ndarray | None) -> DrawnPhoto:
    """A photograph by one bundle. VToonifyError where there is no face."""
    face, scale = toonifier.face_in(canvas), toonifier.config.scale
    picture = toonifier.painter(toonifier.style_code(face.aligned, look), look)(face.crop[None])[0]
    crop = cut(canvas, face.plan, grow=scale)
    wanted = None if target is None else cut(target, face.plan, grow=scale)
    faces = [None if p is None else next(iter(toonifier.finder.faces(p)), None) for p in (crop, picture, wanted)]
    if faces[0] is None:
        raise VToonifyError("the face is lost in the crop")
    return DrawnPhoto(crop, picture, wanted, *faces)


def contact_sheet(tiles: list[np.ndarray], width: int) -> Image.Image:
    """Pictures of one height, set in lines of at most `width` pixels."""
    lines: list[list[np.ndarray]] = [[]]
    for tile in tiles:
        if lines[-1] and sum(t.shape[1] for t in lines[-1]) + tile.shape[1] > width:
            lines.append([])
        lines[-1].append(tile)
    rows = [np.concatenate(line, 1) for line in lines]
    wide = max(row.shape[1] for row in rows)
    return Image.fromarray(np.concatenate([np.pad(row, ((0, 0), (0, wide - row.shape[1]), (0, 0))) for row in rows]))


def _photographs(source: Path) -> list[Path]:
    """Those of a folder, or those that a text file names."""
    if source.is_file():
        return [Path(line.strip()) for line in source.read_text().splitlines() if line.strip()]
    return photographs([source])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; → exit code."""
    parser = argparse.ArgumentParser(prog="python -m vtoonify_lib.apps.evaluate_photos",
                                     description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="folder of photographs, or a text file with one a line")
    parser.add_argument("--bundle", nargs="+", default=[DEFAULT_BUNDLE], help="one or several")
    parser.add_argument("--look", help="of the studio's drawing and of bundles with styles: a look, or one of its "
                        "exemplars such as comic-07 (default: film, and what a bundle starts with)")
    parser.add_argument("--structure", type=float, help="structure degree (default: what suits the person)")
    parser.add_argument("--color", type=float, default=0.5, help="colour degree (default: %(default)s)")
    parser.add_argument("--no-studio", action="store_true", help="hold nothing against the studio's own drawing")
    parser.add_argument("--identity", help="dlib's face recognition model, a file; or 'ours'")
    parser.add_argument("--vgg", help="VGG-16 features, a file of training.vgg (default: our parsing net's)")
    parser.add_argument("--sheet", type=Path, help="write a contact sheet here")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    args = parser.parse_args(arguments)

    def work() -> str:
        identity = None if not args.identity else (
            our_identity() if args.identity == "ours" else dlib_identity(args.identity))
        evaluator = PhotoEvaluator({name: Toonifier.load(name) for name in args.bundle},
                                   None if args.no_studio else Portraitist(), args.look, args.structure, args.color,
                                   load_vgg(args.vgg, "cpu") if args.vgg else None, identity)
        results = evaluate(_photographs(args.source), evaluator, args.sheet)
        if args.json:
            args.json.write_text(json.dumps(results, indent=1))
        refused, count = results.pop("refused"), results.pop("count")
        rows = [(f"{count} photographs", *results)]
        for key in dict.fromkeys(key for found in results.values() for key in found):
            rows.append((key, *(f"{found.get(key, float('nan')):.4g}" for found in results.values())))
        return "\n".join([*(f"{name}: {why}" for name, why in refused.items()), table(rows)])

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
