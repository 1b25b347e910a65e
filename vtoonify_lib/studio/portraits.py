"""Photographs drawn by the studio, without a network that toonifies: slower than one, at any size, for single pictures.

The same drawings teach the networks, see `training.photo_pairs`. Finding and parsing the face is done by a bundle,
fitting and drawing by the studio.
"""
from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..config import VToonifyError
from ..faces.detector import FaceFinder
from ..faces.parsing_maps import parsing_logits
from ..media.images import read_image, to_tensor
from ..weights.bundle import DEFAULT_BUNDLE, load_bundle
from .fitted_person import FittedPerson, at_size
from .fitting import Fitter
from .photo_cartoon import Drawing, PhotoStudio, check_degrees
from .photo_looks import flattering, photo_look

PARSED = 192        # px at which a canvas is parsed: eyes 32 px apart, as in use. IoU on photographs .50, at 384 px .44
LARGEST = 1536      # px: side of the canvas at which the face is as large as in a published cartoon
SIZES = (128, 2048)  # px: sides of a canvas that may be asked for; the largest takes 2 GB
MOST_ENLARGED = 3.0  # how much a photograph is enlarged where no size is asked for, at most


class PhotoReader:
    """Finds, fits and parses a photograph's face: `PhotoReader(bundle)(path, size)` → fit and parsing, or why not."""

    def __init__(self, bundle: str = DEFAULT_BUNDLE, labels: str | None = None):
        found = load_bundle(bundle)
        net = "photo_parsing" if "photo_parsing" in found.info["files"] else "parsing"
        self.finder, self.parser = FaceFinder(found.path("landmarks")), found.network(net).eval()
        self.fitter = Fitter()
        self.labels = read_labels(labels) if labels else None

    def __call__(self, source: str | Path | np.ndarray, size: int) -> tuple[FittedPerson, np.ndarray] | str:
        photo = read_image(source)
        marks = self._marks(source, photo)
        if isinstance(marks, str):
            return marks
        fit = self.fitter.fit(photo, *marks, size=size)
        if fit.refusals:
            return "; ".join(fit.refusals)
        return fit, self.parse(fit)

    def _marks(self, source: str | Path | np.ndarray, photo: np.ndarray) -> tuple[np.ndarray, np.ndarray | None] | str:
        """Landmarks and irises of the largest face, or why there are none."""
        if self.labels is not None:
            return self.labels.get(Path(source).resolve(), "the file of labels does not know it")
        faces = self.finder.faces(photo)
        return (faces[0].landmarks, faces[0].irises) if faces else "no face was found"

    def parse(self, fit: FittedPerson) -> np.ndarray:
        """Class probabilities [PARSED,PARSED,19] of the canvas."""
        with torch.inference_mode():
            logits = parsing_logits(self.parser, to_tensor(as_bytes(at_size(fit, PARSED).photo)))
        return logits.softmax(1)[0].permute(1, 2, 0).numpy()


def read_labels(path: str | Path) -> dict[Path, tuple[np.ndarray, np.ndarray] | str]:
    """Landmarks and irises by photograph, from an .npz of path, found, points [n,68,2] and irises [n,2,2].

    In the file the middle of the first pixel is (0.5, 0.5), as in renders; here (0, 0), as `FaceFinder` has it.
    """
    try:
        with np.load(path) as data:
            table = {name: data[name] for name in ("path", "found", "points", "irises")}
    except (OSError, ValueError, KeyError) as error:
        raise VToonifyError(f"{path} cannot be read as labels ({error}); expected an .npz of path, found, points and "
                            "irises") from error
    return {Path(p).resolve(): (a - 0.5, b - 0.5) if found else "no face was found"
            for p, found, a, b in zip(*table.values(), strict=True)}


class Portraitist:
    """Draws photographs: `Portraitist().draw("me.jpg", "film") → uint8 [H,W,3]`.

    VToonifyError without the base mesh, moderngl or EGL.
    """

    def __init__(self, bundle: str = DEFAULT_BUNDLE):
        self.reader = PhotoReader(bundle)
        self.studio = PhotoStudio(self.reader.fitter.kit)

    def draw(self, photo: str | Path | np.ndarray, look: str = "film", structure: float | None = None,
             color: float = 0.5, size: int | None = None) -> np.ndarray:
        """The square around the largest face, drawn.

        photo      file, or uint8 [H,W,3]
        look       one of `photo_looks.LOOKS`, or one of its exemplars, such as comic-07
        structure, color  degrees in [0,1]; structure None: what suits the person
        size       side of the square in pixels, one of SIZES or between; None: MOST_ENLARGED times the photograph's, at
                   most LARGEST
        → uint8 [h,w,3], no larger than the square: what lies beyond the photograph's edges is cut off.
        VToonifyError where there is no face that can be drawn.
        """
        photo_look(look)
        check_degrees(0 if structure is None else structure, color)
        if size is not None and not SIZES[0] <= size <= SIZES[1]:
            raise VToonifyError(f"the size is {size}; give one from {SIZES[0]} to {SIZES[1]} pixels")
        read = self.reader(photo, LARGEST if size is None else size)
        if isinstance(read, str):
            raise VToonifyError(f"this photograph cannot be drawn: {read}; take one in which the face is larger, "
                                "turned to the camera and not covered")
        fit, parsing = read
        if size is None:
            fit = at_size(fit, min(LARGEST, round(MOST_ENLARGED * fit.size / fit.enlarged)))
        return _cropped(self.drawing(fit, parsing, look, structure, color), fit)

    def drawing(self, fit: FittedPerson, parsing: np.ndarray, look: str = "film", structure: float | None = None,
                color: float = 0.5) -> Drawing:
        """What `reader` has read, drawn on its whole canvas; degrees as `draw`."""
        return self.studio.draw(self.studio.prepare(fit, parsing), photo_look(look),
                                flattering(fit) if structure is None else structure, color)


def _cropped(drawing: Drawing, fit: FittedPerson) -> np.ndarray:
    """The drawing without what lies beyond the photograph, uint8."""
    rows, columns = (np.flatnonzero((fit.covered > 0.5).any(axis)) for axis in (1, 0))
    part = drawing.picture[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1]
    return as_bytes(part)


def as_bytes(picture: np.ndarray) -> np.ndarray:
    """Numbers in [0,1] → uint8."""
    return (picture * 255).round().clip(0, 255).astype(np.uint8)
