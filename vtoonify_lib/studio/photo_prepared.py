"""What every look needs of a fitted photograph: masks, classes, light and irises, found once."""
from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .filters import luma, to_linear
from .fitted_person import FittedPerson
from .geometry import Scene
from .photo_eyes import BROWN, IRIS, iris_color
from .photo_masks import BROWS, EYES, LIPS, MOUTH, masks_of
from .photo_warp import Exact, exact_of
from .render import Studio


@dataclass(frozen=True)
class Prepared:
    """A fitted photograph and all that every look needs of it; see `PhotoStudio.prepare`.

    labels   uint8 [S,S]: the 19 classes, from the fitted head where it is seen, else from the parsing net
    shading  light on the skin, see `_light`; iris_color [3] linear RGB, None where irises were not found
    exposure median brightness (linear) of the skin
    """

    fit: FittedPerson
    scene: Scene
    exact: Exact
    masks: dict[str, np.ndarray]
    shading: np.ndarray
    labels: np.ndarray
    iris_color: np.ndarray | None
    exposure: float


def prepared(studio: Studio, fit: FittedPerson, parsing: np.ndarray) -> Prepared:
    """Masks, light and irises of a photograph; parsing [p,p,19]: class probabilities on its canvas."""
    scene = studio.sculptor.scene(fit.person, None, fit.camera)
    exact = exact_of(studio, scene, fit.person)
    masks = masks_of(fit, exact, parsing)
    shading, exposure = _light(fit, exact, masks["skin"])
    color = None
    if fit.irises is not None:
        seen = [iris_color(fit.photo, fit.landmarks[s:s + 6], c, IRIS * fit.eye)
                for s, c in zip((36, 42), fit.irises, strict=True)]
        seen = [one for one in seen if one is not None]
        color = np.exp(np.log(seen).mean(0)) if seen else BROWN
    return Prepared(fit, scene, exact, masks, shading, _labels(exact, masks, parsing, fit.size), color, exposure)


def _labels(exact: Exact, masks: dict[str, np.ndarray], parsing: np.ndarray, size: int) -> np.ndarray:
    """Classes [size,size]: the parsing net's, corrected by the masks and, on bare skin, by the fitted head's own."""
    out = cv2.resize(parsing.argmax(-1).astype(np.uint8), (size, size), interpolation=cv2.INTER_NEAREST)
    head = cv2.resize(exact.label, (size, size), interpolation=cv2.INTER_NEAREST)
    parts = np.isin(head, (*BROWS, *EYES, *MOUTH, *LIPS)) & (masks["hair"] < 0.5)
    bare = (masks["skin"] > 0.5) & (head > 0)
    out = np.where(bare | parts, head, out)
    out = np.where((masks["hair"] > 0.5) & ~parts, 17, out)
    out = np.where((masks["person"] < 0.5) & ~parts, 0, np.where((out == 0) & (masks["person"] > 0.5), 16, out))
    return np.where(masks["glasses"] > 0.5, 6, out).astype(np.uint8)


def _light(fit: FittedPerson, exact: Exact, skin: np.ndarray) -> tuple[np.ndarray, float]:
    """First-order spherical harmonics of the skin's brightness (linear), robustly: coefficients [4], 1 and x, y, z of
    the normal; and its median."""
    side = exact.label.shape[0]
    small = cv2.resize(fit.photo, (side, side), interpolation=cv2.INTER_AREA)
    mask = cv2.resize(skin, (side, side), interpolation=cv2.INTER_AREA) > 0.6
    if mask.sum() < 200:
        return np.array([0.4, 0, 0.05, 0.1]), 0.5
    y, a = luma(to_linear(small[mask])), np.c_[np.ones(mask.sum()), exact.normal[mask]]
    keep = np.ones(len(y), bool)
    for _ in range(3):
        c = np.linalg.solve(a[keep].T @ a[keep] + 30 * np.diag([0, 1, 1, 1]), a[keep].T @ y[keep])
        off = np.abs(y - a @ c)
        keep = off < 2.2 * np.sqrt((off**2).mean()) + 1e-6
    return c, float(np.median(y))
