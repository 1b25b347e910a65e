"""The photograph itself as a cartoon: warped by the fitted head's change of shape, then redrawn region by region.

Identity, hair, hats and backdrops stay those of the photograph, so that a drawing and its photograph are a pair that
teaches a network on real people, at any degree. Structure is the warp and the technique, colour the grading; at 0, 0
the drawing is the photograph. How a look draws is in `photo_film` and `photo_techniques`.
"""
from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ..config import VToonifyError
from .filters import mix, smoothstep
from .fitted_person import FittedPerson
from .fitting import grown
from .kit import Kit
from .photo_film import FilmDrawing
from .photo_looks import PhotoLook
from .photo_prepared import Prepared, prepared
from .photo_techniques import comic, paint
from .photo_warp import carried, displacement, exact_of, fetch_at
from .render import Studio

EXACT_SIDE = 512    # px of the exact buffers: displacement and normals are smooth, they are enlarged to any canvas
MOST_GROWN = 1.4    # how far a weight grows at the most: beyond, faces fold
BONES = ("head/", "chin/", "nose/", "cheek/", "forehead/")  # what is exaggerated; a mouth in motion would fold
FINISHES = {"film": lambda film, pen: film, "comic": comic, "paint": paint}


@dataclass(frozen=True)
class Drawing:
    """A photograph drawn.

    picture, warped  float32 [S,S,3] in [0,1]: the drawing, and the photograph in its proportions
    labels           uint8 [S,S]: classes, as `Prepared.labels`; landmarks [68,2] in canvas pixels
    move             float32 [S,S,2] from each pixel to its place in the photograph, x and y in pixels
    """

    picture: np.ndarray
    labels: np.ndarray
    landmarks: np.ndarray
    move: np.ndarray
    warped: np.ndarray


def check_degrees(structure: float, color: float) -> None:
    """VToonifyError where a degree is not in [0,1]."""
    for name, degree in (("structure", structure), ("color", color)):
        if not 0 <= degree <= 1:
            raise VToonifyError(f"the {name} degree is {degree}; give a number from 0 (the photo) to 1 (the look)")


class PhotoStudio:
    """Draws fitted photographs: `PhotoStudio(kit).draw(studio.prepare(fit, parsing), FILM, 0.55)`."""

    def __init__(self, kit: Kit | None = None):
        self.studio = Studio(kit, EXACT_SIDE)

    def prepare(self, fit: FittedPerson, parsing: np.ndarray) -> Prepared:
        """What every look needs of a photograph; parsing [p,p,19]: class probabilities on its canvas."""
        return prepared(self.studio, fit, parsing)

    def draw(self, ready: Prepared, look: PhotoLook, structure: float = 0.55, color: float = 0.5) -> Drawing:
        """The photograph in a look. structure, color in [0,1]: 0, 0 is the photograph."""
        check_degrees(structure, color)
        fit = ready.fit
        warp = {name: weight * structure for name, weight in look.warp.items()}
        who = fit.person
        if look.exaggerate:
            who = who.with_(shape=grown(who.shape, look.exaggerate * structure, BONES, MOST_GROWN))
        target = self.studio.sculptor.scene(who, warp, fit.camera)
        exact = exact_of(self.studio, target, fit.person)
        move = displacement(self.studio, target, ready.scene, fit.person, exact.label, ready.exact.depth, ready.masks,
                            fit.eye, fit.size)
        warped = np.clip(fetch_at(fit.photo, move, cv2.INTER_CUBIC), 0, 1)
        masks = {name: fetch_at(mask, move) for name, mask in ready.masks.items()}
        marks = carried(fit.landmarks, move)
        pen = FilmDrawing(ready, look, warped, masks, exact, marks, move)
        drawn = FINISHES[look.finish](pen.film(), pen)
        technique = float(smoothstep(np.float32(structure), 0, 0.5))
        out = mix(warped, drawn, technique)
        out = pen.graded(out, color)
        labels = fetch_at(ready.labels, move, cv2.INTER_NEAREST)
        return Drawing(np.clip(out, 0, 1).astype(np.float32), labels, marks, move, warped)
