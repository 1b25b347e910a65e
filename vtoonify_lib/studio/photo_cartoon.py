"""The photograph itself as a cartoon: warped by the fitted head's change of shape, then drawn anew, region by region.

Identity, hair, hats and backdrops stay those of the photograph, so that a drawing and its photograph are a pair that
teaches a network on real people, at any degree. Structure is the warp and the technique, colour the grading; at 0, 0
the drawing is the photograph.
"""
from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from ..config import VToonifyError
from .filters import (
    along,
    blur,
    bounding_box,
    guided,
    luma,
    masked_blur,
    mix,
    saturate,
    sharpened,
    smoothstep,
    structure,
    to_display,
    to_linear,
)
from .fitting import FittedPerson
from .geometry import Scene, project
from .kit import Kit
from .photo_eyes import IRIS, EyePaint, iris_color, opening, paint_eye
from .photo_masks import masks_of
from .photo_warp import Exact, carried, displacement, exact_of, fetch_at
from .render import Studio
from .styles import both

EXACT_SIDE = 512    # px of the exact buffers: displacement and normals are smooth, they are enlarged to any canvas
SKIN, NECK, BROWS, EYES, MOUTH, LIPS = (1, 10, 7, 8), (14,), (2, 3), (4, 5), (11,), (12, 13)

FILM_WARP = both({
    "eyes/{s}-eye-scale-incr": 2.9, "eyes/{s}-eye-height2-incr": 0.4, "eyes/{s}-eye-trans-out": 0.2,
    "nose/nose-scale-vert-decr": 0.45, "nose/nose-scale-depth-decr": 0.5, "nose/nose-scale-horiz-decr": 0.55,
    "nose/nose-point-up": 0.35, "nose/nose-point-width-decr": 0.3, "head/head-age-decr": 0.9,
    "head/head-invertedtriangular": 0.5, "head/head-fat-decr": 0.35, "head/head-scale-vert-decr": 0.25,
    "chin/chin-width-decr": 1.0, "chin/chin-height-decr": 0.25, "chin/chin-bones-decr": 0.4,
    "eyebrows/eyebrows-trans-up": 0.4, "eyebrows/eyebrows-angle-up": 0.1,
    "mouth/mouth-scale-horiz-incr": 0.1, "neck/neck-scale-horiz-decr": 1.1, "neck/neck-scale-depth-decr": 0.6,
    "neck/neck-double-decr": 0.6})


@dataclass(frozen=True)
class PhotoLook:
    """A look that photographs are drawn in.

    warp      target weights added at structure 1
    exaggerate  how much the person's own features grow at structure 1
    eyes      how eyes are painted
    wrinkles  how much of the skin's fine relief stays; form: how much of the head's own shading is added
    strands   contrast of hair
    vivid, contrast  the grading
    """

    name: str
    warp: dict[str, float] = field(default_factory=dict)
    exaggerate: float = 0.0
    eyes: EyePaint = EyePaint()
    wrinkles: float = 0.35
    form: float = 0.5
    strands: float = 1.4
    vivid: float = 1.12
    contrast: float = 0.15


FILM = PhotoLook("film", FILM_WARP)
LOOKS = {look.name: look for look in (FILM,)}


def flattering(fit: FittedPerson) -> float:
    """The structure degree of `film` that suits a person: larger for the young, less for the old.

    Seen on 60 portraits: beyond .75 the nose of adults disappears, and beyond .5 old people become dolls. Age is what
    the shape of the face says, 0 to 1.
    """
    return float(np.clip(0.84 - 0.6 * fit.person.age, 0.5, 0.75))


@dataclass(frozen=True)
class Prepared:
    """A fitted photograph and all that every look needs of it; see `PhotoStudio.prepare`.

    labels   uint8 [S,S]: the 19 classes, from the fitted head where it is seen, else from the parsing net
    shading  light on the skin, see `_light`; iris_colors [2,3] linear RGB, None where irises were not found
    """

    fit: FittedPerson
    scene: Scene
    exact: Exact
    masks: dict[str, np.ndarray]
    shading: np.ndarray
    labels: np.ndarray
    iris_colors: np.ndarray | None
    exposure: float


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


class PhotoStudio:
    """Draws fitted photographs: `PhotoStudio(kit).draw(studio.prepare(fit, parsing), FILM, 0.55)`."""

    def __init__(self, kit: Kit | None = None):
        self.studio = Studio(kit, EXACT_SIDE)

    def prepare(self, fit: FittedPerson, parsing: np.ndarray) -> Prepared:
        """Masks, light and irises of a photograph; parsing [p,p,19]: class probabilities on its canvas."""
        scene = self.studio.sculptor.scene(fit.person, None, fit.camera)
        exact = exact_of(self.studio, scene, fit.person)
        masks = masks_of(fit, exact, parsing)
        shading, exposure = _light(fit, exact, masks["skin"])
        colors = None
        if fit.irises is not None:
            colors = np.stack([iris_color(fit.photo, fit.landmarks[s:s + 6], c, IRIS * fit.eye)
                               for s, c in zip((36, 42), fit.irises, strict=True)])
            colors = np.broadcast_to(np.exp(np.log(colors).mean(0)), colors.shape)
        return Prepared(fit, scene, exact, masks, shading, _labels(exact, masks, parsing, fit.size), colors, exposure)

    def draw(self, ready: Prepared, look: PhotoLook, structure: float = 0.55, color: float = 0.5) -> Drawing:
        """The photograph in a look. structure, color in [0,1]: 0, 0 is the photograph."""
        for name, degree in (("structure", structure), ("color", color)):
            if not 0 <= degree <= 1:
                raise VToonifyError(f"the {name} degree is {degree}; give a number from 0 (the photo) to 1 (the look)")
        fit = ready.fit
        warp = {name: weight * structure for name, weight in look.warp.items()}
        target = self.studio.sculptor.scene(fit.person, warp, fit.camera)
        move = displacement(self.studio, target, ready.scene, fit.person, ready.exact.depth, ready.masks, fit.eye,
                            fit.size)
        exact = exact_of(self.studio, target, fit.person)
        warped = np.clip(fetch_at(fit.photo, move, cv2.INTER_CUBIC), 0, 1)
        masks = {name: fetch_at(mask, move) for name, mask in ready.masks.items()}
        marks = carried(fit.landmarks, move)
        pen = _Pen(ready, look, warped, masks, exact, marks, move)
        drawn = pen.film()
        technique = float(smoothstep(np.float32(structure), 0, 0.5))
        out = mix(warped, drawn, technique)
        out = pen.graded(out, color)
        labels = fetch_at(ready.labels, move, cv2.INTER_NEAREST)
        return Drawing(np.clip(out, 0, 1).astype(np.float32), labels, marks, move, warped)


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
        keep = off < 2.2 * off.std()
    return c, float(np.median(y))


def _closed(exact: Exact) -> np.ndarray:
    """Normals that go on beyond the head's outline."""
    there = (exact.label > 0).astype(np.float32)
    near = masked_blur(exact.normal, there, 6.0)
    near[..., 2] += 1e-3
    out = np.where(there[..., None] > 0, exact.normal, near)
    return (out / np.linalg.norm(out, axis=-1, keepdims=True)).astype(np.float32)


class _Pen:
    """One drawing in the making: the warped photograph, where everything is, and the light."""

    def __init__(self, ready: Prepared, look: PhotoLook, warped: np.ndarray, masks: dict[str, np.ndarray],
                 exact: Exact, marks: np.ndarray, move: np.ndarray):
        self.ready, self.look, self.warped, self.masks, self.marks, self.move = ready, look, warped, masks, marks, move
        self.eye, size = ready.fit.eye, ready.fit.size
        self.region = {name: exact.share(classes, size) for name, classes in
                       (("face", SKIN), ("neck", NECK), ("brows", BROWS), ("eyes", EYES), ("mouth", MOUTH), ("lips", LIPS))}
        self.normal = cv2.resize(_closed(exact), (size, size), interpolation=cv2.INTER_LINEAR)
        self.old_normal = fetch_at(cv2.resize(_closed(ready.exact), (size, size), interpolation=cv2.INTER_LINEAR), move)
        self.skin = masks["skin"]
        key = ready.shading[1:] + [0, 0.15 * abs(ready.shading[0]), 0.35 * abs(ready.shading[0])]
        self.key = key / np.linalg.norm(key)

    def film(self) -> np.ndarray:
        """Smooth skin, painted eyes, clean strands: the technique of an animated film."""
        base = self._base()
        out = mix(base, self._skin(base), blur(self.skin, 0.01 * self.eye))
        out = self._lips(out)
        out = self._mouth(out)
        out = self._brows(out)
        out = self._hair(out)
        return np.clip(self._eyes(out), 0, 1)

    def _base(self) -> np.ndarray:
        """The photograph without grain: flat areas smooth, edges crisp."""
        out = self.warped
        for _ in range(2):
            out = guided(out, 0.035 * self.eye, 0.045)
        return sharpened(out, 0.02 * self.eye, 0.6)

    def _skin(self, base: np.ndarray) -> np.ndarray:
        e, look = self.eye, self.look
        small = np.clip(self.region["lips"] + self.region["mouth"] + self.region["eyes"] + self.region["brows"], 0, 1)
        plain = np.clip(self.skin - cv2.dilate(small, np.ones((5, 5))), 0, 1)
        neck = blur(self.region["neck"], 0.01 * e)
        light = to_linear(base)
        face_mask, neck_mask = plain * (1 - neck), plain * neck

        def lows(x: np.ndarray, sigma: float) -> np.ndarray:  # face and neck apart: the jaw's edge stays
            return mix(masked_blur(x, face_mask + 1e-4, sigma), masked_blur(x, neck_mask + 1e-4, sigma), neck)

        low = lows(light, 0.16 * e)
        grey, low_grey = luma(light), luma(low)
        relief = np.log(np.clip(grey / np.maximum(low_grey, 1e-3), 0.06, 6))
        kept = look.wrinkles + (1 - look.wrinkles) * smoothstep(np.abs(relief), 0.10, 0.45)
        relief = relief * mix(kept, np.float32(look.wrinkles), self._under_eyes())
        shade = self._shade(self.normal)
        drawn = look.form * np.log(np.clip(shade / np.maximum(masked_blur(shade, plain + 1e-3, 0.16 * e), 1e-3), 0.4, 2))
        changed = np.log(np.clip(shade / np.maximum(self._shade(self.old_normal), 1e-3), 0.75, 1.3))
        twice = np.minimum(np.maximum(relief, drawn), 0)  # what photo and form both darken is dark once
        bright = low_grey * np.exp(np.clip(relief + drawn + 0.6 * changed - 0.8 * twice, -2.2, 0.6))
        hue = lows(light, 0.09 * e)
        hue = hue / np.maximum(luma(hue), 1e-3)[..., None]
        own = light / np.maximum(grey, 1e-3)[..., None]
        dark = smoothstep(-relief, 0.35, 0.9)  # beards and brows keep their own colour
        hue = mix(hue, own, 0.25 + 0.75 * dark)
        out = bright[..., None] * hue
        out = out * self._blush()
        half = self.key + [0, 0, 1.0]
        half /= np.linalg.norm(half)
        gleam = np.clip(self.normal @ half.astype(np.float32), 0, 1) ** 42
        return to_display(out + (0.05 * gleam * (0.3 + 0.7 * low_grey))[..., None])

    def _under_eyes(self) -> np.ndarray:
        """Below the lower lids, where lashes would be left as dots."""
        out = np.zeros_like(self.skin)
        for start in (36, 42):
            lids = self.marks[start:start + 6]
            width = np.linalg.norm(lids[3] - lids[0])
            low = lids[[0, 5, 4, 3]] + [0, 0.10 * width]
            cv2.polylines(out, [(low * 8).round().astype(np.int32)], False, 1.0, max(1, int(0.2 * width)), cv2.LINE_AA, 3)
        return blur(out, 0.02 * self.eye)

    def _shade(self, normal: np.ndarray) -> np.ndarray:
        """How bright the estimated light makes a surface, about 1."""
        lit = normal @ self.key.astype(np.float32)
        return 0.55 + 0.45 * np.clip((lit + 0.35) / 1.35, 0, 1)

    def _blush(self) -> np.ndarray:
        rows, columns = np.mgrid[:len(self.skin), :len(self.skin)].astype(np.float32)
        rosy = np.zeros_like(self.skin)
        for a, b in ((2, 31), (14, 35)):
            x, y = 0.42 * self.marks[a] + 0.58 * self.marks[b] - [0, 0.06 * self.eye]
            rosy += np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * (0.24 * self.eye) ** 2))
        x, y = self.marks[30]
        rosy += 0.6 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * (0.14 * self.eye) ** 2))
        return 1 - 0.10 * np.clip(rosy, 0, 1)[..., None] * np.float32([0, 0.75, 0.62])

    def _lips(self, out: np.ndarray) -> np.ndarray:
        lips = blur(self.region["lips"], 0.012 * self.eye) * (1 - self.masks["hair"])
        smooth = guided(self.warped, 0.03 * self.eye, 0.06)
        smooth = np.clip(saturate(sharpened(smooth, 0.02 * self.eye, 0.5), 1.12), 0, 1)
        return mix(out, smooth, 0.85 * lips)

    def _mouth(self, out: np.ndarray) -> np.ndarray:
        teeth = guided(self.warped, 0.02 * self.eye, 0.08)
        grey = luma(teeth)
        bright = smoothstep(grey, 0.35, 0.6)
        teeth = mix(teeth, np.repeat(grey[..., None], 3, -1), 0.35 * bright) * (1 + 0.05 * bright[..., None])
        return mix(out, np.clip(teeth, 0, 1), blur(self.region["mouth"], 0.01 * self.eye))

    def _brows(self, out: np.ndarray) -> np.ndarray:
        mask = blur(cv2.dilate(self.region["brows"], np.ones((3, 3))), 0.025 * self.eye)
        mask = mask * (1 - self.masks["glasses"]) * (1 - self.masks["hair"])
        box = bounding_box(mask > 0.02, int(0.1 * self.eye))
        part = self.warped[box]
        direction, _ = structure(luma(part), 0.02 * self.eye)
        lines = along(part, direction, 0.07 * self.eye, 1.5)
        lines = np.clip(sharpened(lines, 0.05 * self.eye, 1.0) * 0.94, 0, 1)
        out = out.copy()
        out[box] = mix(out[box], lines, 0.8 * mask[box])
        return out

    def _hair(self, out: np.ndarray) -> np.ndarray:
        e, hair = self.eye, np.clip(self.masks["hair"], 0, 1)
        if hair.max() < 0.3:
            return out
        box = bounding_box(hair > 0.05, int(0.2 * e))
        hair, own = hair[box], self.warped[box]
        tone = masked_blur(own, hair + 1e-4, 0.35 * e)
        own = mix(masked_blur(own, smoothstep(hair, 0.4, 0.9) + 1e-4, 0.06 * e), own, smoothstep(hair, 0.3, 0.9))
        direction, _ = structure(luma(own), 0.045 * e)
        fine = along(own, direction, 0.12 * e, 2.0)
        wide = along(blur(own, 0.02 * e), direction, 0.25 * e, 3.0)
        strands = wide + self.look.strands * (fine - blur(fine, 0.05 * e))
        strands = np.clip(saturate(tone + 1.12 * (strands - tone), 1.1), 0, 1)
        out = out.copy()
        out[box] = mix(out[box], strands, smoothstep(hair, 0.35, 0.9))
        return out

    def _eyes(self, out: np.ndarray) -> np.ndarray:
        ready, fit = self.ready, self.ready.fit
        if ready.iris_colors is None:
            return out
        centres = carried(fit.irises, self.move)
        for k, start in enumerate((36, 42)):
            before, after = fit.landmarks[start:start + 6], self.marks[start:start + 6]
            grown = np.linalg.norm(after[3] - after[0]) / max(np.linalg.norm(before[3] - before[0]), 1e-3)
            degree = float(smoothstep(np.float32(opening(before)), 0.06, 0.2))
            out = paint_eye(out, after, centres[k], IRIS * self.eye * grown, ready.iris_colors[k],
                            self._exposure(after), self.key, self.look.eyes, degree)
        glasses = self.masks["glasses"]
        return mix(out, self.warped, glasses) if glasses.any() else out

    def _exposure(self, lids: np.ndarray) -> float:
        """Brightness (linear) of white near an eye, from the skin around it."""
        x, y = lids.mean(0)
        reach = int(0.55 * self.eye)
        box = (slice(max(0, int(y) - reach), int(y) + reach), slice(max(0, int(x) - reach), int(x) + reach))
        seen = self.skin[box] > 0.5
        local = np.percentile(luma(to_linear(self.warped[box][seen])), 65) if seen.sum() > 50 else self.ready.exposure
        return float(np.clip(1.35 * local + 0.06, 0.08, 0.85))

    def graded(self, out: np.ndarray, color: float) -> np.ndarray:
        look = self.look
        new = np.clip(saturate(out, look.vivid), 0, 1)
        new = mix(new, new * new * (3 - 2 * new), look.contrast)
        return mix(out, new, color * (0.25 + 0.75 * np.clip(self.masks["person"], 0, 1)))
