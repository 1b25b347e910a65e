"""Classes for photographs, to train a parsing net on: fitted head, face mesh, person mask and colour models together.

A net taught by renders alone is lost on cloth, backdrops and grey hair. Here four materials (backdrop, skin, hair,
clothes) are told apart by their colours in this very photograph, after priors that say where each may be; within the
skin, the parts of a face lie where landmarks put them. Mesh and mask are MediaPipe's; without them the fitted head and
the net's probabilities serve. Nothing here knows hats or jewellery: a hat comes out as hair.

    python -m vtoonify_lib.training.photo_labels PHOTOS … --out runs/labels
    python data/pseudo_labels.py runs/labels --canvases     (where `mediapipe` is installed)
    python -m vtoonify_lib.training.photo_labels PHOTOS … --out runs/labels

The first call writes NAME_photo.png, the canvases; the last one NAME.png, the classes, 255 beyond the photograph.
"""
from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..config import exit_code
from ..evaluation.metrics import UNMARKED
from ..studio.filters import blur, bounding_box, dilated, disk, laid_to_edges, masked_blur
from ..studio.fitted_person import FittedPerson
from ..studio.photo_cartoon import PhotoStudio
from ..studio.photo_prepared import Prepared
from ..studio.portraits import PhotoReader, as_bytes
from ..weights.bundle import DEFAULT_BUNDLE
from .perception import PHOTO
from .photo_pairs import photographs

SIDE = 256          # px on which colours are modelled
ROUNDS = 3          # of fitting colours to materials and materials to colours
MIXTURE = 6         # Gaussians a material
SAMPLES = 3000      # pixels that a mixture is fitted to, at most
SURE, LIKELY = 0.6, 0.4  # a pixel teaches a material's colours where its share is SURE and by place alone is LIKELY
COLOR_WEIGHT = 0.5  # of the colours' log likelihood: neighbouring pixels repeat each other
UNKNOWN = (-14.0, -18.0, -16.0, -12.0)  # log density of a colour that no Gaussian knows: clothes have any
SHADOW = 1.0        # variance of lightness added to skin's, in tens of L: with UNKNOWN, the IoU of necks .58 → .64
JAW = 0.1           # eye distances that the mesh's oval lies within the edge of the face
FINER = 4           # times: polygons are filled so much larger, because filling takes in the pixels of their edges
BROW_REACH = 0.02   # eye distances around the mesh's brow within which hairs belong to it
BROW_CONTRAST = 6.0  # of L: how much darker than the skin a brow is that can be told from it
BROW_SHARE = 0.4    # of a brow's contrast from which on a pixel is brow: .55 of IoU with brows marked by hand, for .45
SKIN, HAIR = 1, 2
CLASSES = (0, 1, 17, 16)  # of the materials: backdrop, skin, hair, clothes
FACE, BROWS, EARS, NOSE, NECK, GLASSES, MOUTH = (1, 2, 3, 4, 5, 10, 11, 12, 13), (2, 3), (7, 8), 10, 14, 6, 11

OVAL = (10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149,
        150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109)
INNER_LIPS = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95)
PARTS = {3: (70, 63, 105, 66, 107, 55, 65, 52, 53, 46), 2: (300, 293, 334, 296, 336, 285, 295, 282, 283, 276),
         5: (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
         4: (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466),
         12: (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, *INNER_LIPS[10::-1]),
         13: (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, *INNER_LIPS[10:], 78),
         MOUTH: INNER_LIPS}
"""Vertices of the mesh around each part, by class; the subject's left brow is 2, the left eye 4."""


@dataclass(frozen=True)
class Teachers:
    """What other models say of the canvas; each may be missing.

    mesh    [478,2 or more] vertices in canvas pixels, the middle of the first one at 0.5
    person  [h,w] in [0,1]: how likely a pixel is a person
    """

    mesh: np.ndarray | None = None
    person: np.ndarray | None = None


def photo_labels(ready: Prepared, parsing: np.ndarray, teachers: Teachers) -> np.ndarray:
    """The 19 classes of a fitted photograph: uint8 [S,S] on its canvas.

    parsing [p,p,19]: a net's class probabilities on the canvas.
    """
    fit, size = ready.fit, ready.fit.size
    head = cv2.resize(ready.exact.label, (size, size), interpolation=cv2.INTER_NEAREST)
    face = np.isin(head, FACE) if teachers.mesh is None else _polygon(teachers.mesh, OVAL, size)
    shares = _materials(fit, head, face, parsing, teachers.person)
    fine = [laid_to_edges(share, fit.photo, 0.04 * fit.eye, 0.02) for share in shares]
    out = np.array(CLASSES, np.uint8)[np.argmax(fine, 0)]
    bare = out == 1
    rows, columns = np.mgrid[:size, :size]
    lobes = fit.landmarks[33, 1] + 0.3 * fit.eye
    edge = face if teachers.mesh is None else dilated(face, JAW * fit.eye)
    out[bare & ~edge & (rows > lobes)] = NECK
    beside = bare & ~face & (rows > fit.landmarks[17:27, 1].min()) & (rows < lobes)
    for ear, side in zip(EARS, (columns > fit.landmarks[27, 0], columns < fit.landmarks[27, 0]), strict=True):
        out[beside & side & dilated(head == ear, 0.2 * fit.eye)] = ear
    out[bare & (head == NOSE)] = NOSE
    for part, vertices in PARTS.items():
        where = head == part if teachers.mesh is None else _polygon(teachers.mesh, vertices, size)
        out[_brow(where, fit) & (out != 17) if part in BROWS else where] = part  # a fringe may hide brows
    out[ready.masks["glasses"] > 0.5] = GLASSES
    return out


def _polygon(mesh: np.ndarray, vertices: tuple[int, ...], size: int) -> np.ndarray:
    """What the vertices go around, bool [size,size]."""
    drawn = np.zeros((FINER * size,) * 2, np.uint8)
    cv2.fillPoly(drawn, [(mesh[list(vertices), :2] * FINER - 0.5).round().astype(np.int32)], 255)
    return cv2.resize(drawn, (size, size), interpolation=cv2.INTER_AREA) > 127


def _brow(where: np.ndarray, fit: FittedPerson) -> np.ndarray:
    """What is darker than the skin around in and near a polygon; the polygon itself, where nothing is."""
    rows, columns = bounding_box(where, round(0.4 * fit.eye))
    inside = where[rows, columns]
    light = cv2.cvtColor(fit.photo[rows, columns], cv2.COLOR_RGB2LAB)[..., 0]
    near = dilated(inside, BROW_REACH * fit.eye)
    skin = (dilated(inside, 0.25 * fit.eye) & ~near).astype(np.float32)
    dark = blur(masked_blur(light, skin, 0.15 * fit.eye) - light, 0.012 * fit.eye)
    core = np.percentile(dark[inside], 75) if inside.any() else 0
    if core < BROW_CONTRAST:
        return where
    found = (near & (dark > BROW_SHARE * core)).astype(np.uint8)
    count, pieces = cv2.connectedComponents(found)
    kept = [i for i in range(1, count) if (inside & (pieces == i)).sum() > 0.15 * inside.sum()]
    out = np.zeros_like(where)
    out[rows, columns] = np.isin(pieces, kept)
    return out


def _materials(fit: FittedPerson, head: np.ndarray, face: np.ndarray, parsing: np.ndarray, person: np.ndarray | None
               ) -> np.ndarray:
    """Shares of the materials, float32 [4,SIDE,SIDE], from where they may be and the colours they turn out to have.

    Hair that reaches the mouth may hide ears and go on below the chin; other hair may not, for dark suits look like it.
    """
    small = cv2.resize(fit.photo, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    colors = (cv2.cvtColor(small, cv2.COLOR_RGB2LAB).reshape(-1, 3) / [10, 5, 5]).astype(np.float64)
    head, face = (cv2.resize(x.astype(np.uint8), (SIDE, SIDE), interpolation=cv2.INTER_NEAREST) for x in (head, face))
    prior = _priors(fit, head, face, parsing, person)
    share = _shares(colors, face, prior)
    marks, eye = (fit.landmarks + 0.5) * SIDE / fit.size - 0.5, fit.eye * SIDE / fit.size
    rows, columns = np.mgrid[:SIDE, :SIDE]
    mouth, middle = marks[48:60, 1].mean(), marks[30, 0]
    band = (rows > marks[33, 1]) & (rows < mouth) & dilated(face, 0.5 * eye) & ~dilated(face, JAW * eye)
    grown = False
    for side in (columns < middle, columns > middle):
        if (band & side).any() and share[HAIR, band & side].mean() > 0.4:
            below = side & (rows > marks[17:27, 1].min()) & (abs(columns - middle) < 2.2 * eye) & (face == 0)
            below &= abs(columns - middle) > 0.35 * eye
            seen = 1 - prior[0]
            others = np.maximum(seen - prior[HAIR], 1e-6)
            hair = np.where(below, np.maximum(prior[HAIR], 0.5 * seen), prior[HAIR])
            prior[[1, 3]] *= np.where(below, np.maximum(seen - hair, 1e-6) / others, 1)
            prior[HAIR] = hair
            grown = True
    return _shares(colors, face, prior) if grown else share


def _priors(fit: FittedPerson, head: np.ndarray, face: np.ndarray, parsing: np.ndarray, person: np.ndarray | None
            ) -> np.ndarray:
    """How likely each material is by place alone: [4,SIDE,SIDE], sums to 1. head, face: uint8 [SIDE,SIDE]."""
    eye, marks = fit.eye / fit.size * SIDE, fit.landmarks / fit.size * SIDE
    nothing, strands = (cv2.resize(parsing[..., c], (SIDE, SIDE), interpolation=cv2.INTER_AREA) for c in (0, 17))
    strands = blur(strands, 0.1 * eye)
    row = np.arange(SIDE)[:, None] + np.zeros((1, SIDE))
    chin, mouth, brow = marks[8, 1], marks[48:60, 1].mean(), marks[17:27, 1].min()
    lower = np.clip((row - mouth) / max(chin - mouth, 1), 0, 1)  # 0 at the mouth, 1 at the chin
    hair = 0.9 * (1 - lower) + lower * np.clip(0.02 + 0.9 * strands**2, 0, 0.6)
    cloth = np.clip((row - chin) / (1.5 * eye), 0, 1) * 0.35 + 0.3  # the fitted body has a bare neck and breast
    ears = dilated(face, 0.35 * eye) & (row > brow) & (row < marks[33, 1] + 0.2 * eye)
    scalp = np.clip(0.1 + 0.9 * strands, 0, 0.8)
    share = np.stack([0.05 + 0 * hair, hair, 0.95 - hair])
    for where, values in ((ears & (head == 0), (0.5, 0.48, 0.02)),
                          (head == NECK, ((1 - cloth) * (1 - hair / 4), hair / 4, cloth * (1 - hair / 4))),
                          ((head == 1) & (lower == 0), (0.98 - scalp, scalp, 0.02 + 0 * hair)),
                          ((head == 1) & (lower > 0), (0.85, 0.1, 0.05)),
                          (np.isin(head, EARS), (0.85, 0.14, 0.01)), (face > 0, (0.98, 0.015, 0.005)),
                          ((face > 0) & (row < brow - 0.25 * eye), (0.8, 0.19, 0.01))):
        for one, value in zip(share, values, strict=True):
            one[where] = np.broadcast_to(value, where.shape)[where]
    share = np.stack([blur(one.astype(np.float32), 0.06 * eye) for one in share])
    seen = 1 - nothing if person is None else cv2.resize(person.astype(np.float32), (SIDE, SIDE),
                                                         interpolation=cv2.INTER_AREA)
    seen = np.clip(seen, 0.02, 0.98)
    seen[cv2.erode(face, disk(0.1 * eye)) > 0] = 0.998
    return np.concatenate([1 - seen[None], share * seen])


def _shares(colors: np.ndarray, face: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Posterior shares [4,SIDE,SIDE]. The face alone teaches what skin looks like: shirts are where a neck may be."""
    prior, inner = prior.reshape(len(CLASSES), -1), face.ravel() > 0
    share = prior
    rng = np.random.default_rng(0)
    for _ in range(ROUNDS):
        densities = []
        for material, one in enumerate(share):
            one = one * (inner if material == SKIN else prior[material] > LIKELY)
            sure = np.flatnonzero(one > min(SURE, np.sort(one)[-200]))
            spread = np.array([SHADOW if material == SKIN else 0.1, 0.1, 0.1])
            densities.append(_density(colors, rng.permutation(sure)[:SAMPLES], spread, UNKNOWN[material]))
        log = np.log(prior + 1e-6) + COLOR_WEIGHT * np.stack(densities)
        share = np.exp(log - log.max(0))
        share /= share.sum(0)
    return share.reshape(-1, SIDE, SIDE).astype(np.float32)


def _density(colors: np.ndarray, sample: np.ndarray, spread: np.ndarray, unknown: float) -> np.ndarray:
    """Log density [n] of colours [n,3] under a mixture of Gaussians, one a cluster of those in the sample."""
    cv2.setRNGSeed(0)
    known = colors[sample]
    k = min(MIXTURE, len(known))
    if not k:
        return np.full(len(colors), unknown)
    stop = (cv2.TERM_CRITERIA_COUNT, 15, 0)
    group = cv2.kmeans(known.astype(np.float32), k, None, stop, 1, cv2.KMEANS_PP_CENTERS)[1][:, 0]
    rows = [np.full(len(colors), unknown)]
    for own in (known[group == i] for i in range(k)):
        variance = own.var(0) + spread
        far = (np.square(colors - own.mean(0)) / variance).sum(1)
        rows.append(np.log(len(own) / len(known)) - 0.5 * (far + np.log(variance).sum()))
    return np.logaddexp.reduce(rows)


def label(photos: Sequence[Path], out: Path, size: int = 768, bundle: str = DEFAULT_BUNDLE) -> dict[str, str]:
    """Canvases of photographs and, where `pseudo_labels` has seen them, their classes → names and why some have none.

    Files that are there stay. VToonifyError without the base mesh, moderngl or EGL.
    """
    out.mkdir(parents=True, exist_ok=True)
    reader, refused = PhotoReader(bundle), {}
    studio = PhotoStudio(reader.fitter.kit)
    for path in photos:
        name = f"{path.parent.name}-{path.stem}"
        canvas, taught, classes = (out / f"{name}{end}" for end in (PHOTO, "_teachers.npz", ".png"))
        if classes.exists() or (canvas.exists() and not taught.exists()):
            continue
        read = reader(path, size)
        if isinstance(read, str):
            refused[name] = read
            continue
        fit, parsing = read
        if not taught.exists():
            cv2.imwrite(str(canvas), as_bytes(fit.photo)[..., ::-1])
            continue
        with np.load(taught) as data:
            teachers = Teachers(data["mesh"] if len(data["mesh"]) else None, data["person"] / np.float32(255))
        found = photo_labels(studio.prepare(fit, parsing), parsing, teachers)
        cv2.imwrite(str(classes), np.where(fit.covered > 0.5, found, UNMARKED).astype(np.uint8))
    return refused


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; → exit code."""
    parser = argparse.ArgumentParser(prog="python -m vtoonify_lib.training.photo_labels",
                                     description=__doc__.splitlines()[0])
    parser.add_argument("photos", nargs="+", type=Path, help="folders of photographs")
    parser.add_argument("--out", type=Path, required=True, help="folder for canvases and classes")
    parser.add_argument("--size", type=int, default=768, help="side of a canvas (default: %(default)s px)")
    args = parser.parse_args(arguments)

    def work() -> str | None:
        refused = label(photographs(args.photos), args.out, args.size)
        return "\n".join(f"{name}: {why}" for name, why in refused.items()) or None

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
