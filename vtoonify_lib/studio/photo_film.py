"""The technique of an animated film, on a warped photograph: smooth skin, painted eyes, clean strands.

Skin is split into light, relief and hue (each smoothed on its own), and modelled anew by the fitted head's normals;
hair and brows are drawn along their strands.
"""
from __future__ import annotations

from functools import cached_property

import cv2
import numpy as np

from .filters import (
    along,
    blur,
    bounding_box,
    disk,
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
from .photo_eyes import IRIS, paint_eye
from .photo_looks import PhotoLook
from .photo_masks import BROWS, EYES, LIPS, MOUTH, NECK, SKIN
from .photo_prepared import Prepared
from .photo_warp import Exact, carried, fetch_at

# A gloss on dark skin: less red than the face's own tone, by how much, and brighter than it (none, and all of it); how
# bright such a face is (all of it, and none); how far it is darkened. Smoothing alone makes a grey spot of it.
PALE, LIT, DARK, DULLED = (0.12, 0.40), (1.0, 1.4), (0.18, 0.30), 0.3
SHARED_EXPOSURE = 0.7  # how far both eyes are painted as bright as their mean: apart, they do not belong together
EVEN_TINT = 0.35  # how far the skin's tint is the face's own everywhere
BROW_REACH = 0.05  # eye distances by which brows may be wider than the mesh's, or they become wires
BAG_RELIEF = 0.5  # how much of the skin's relief stays below eyes, of what stays elsewhere
STRAND_TINT = 0.5  # how far a strand keeps its own hue; at 1, skin between strands and before grey hair turns orange
PATTERN = 0.052  # median difference of hue from which hair is a printed cloth: .060 in a turban, .020 to .045 in hair
JAW_SHADOW = 0.4  # how much darker the neck is right below the jaw: without, the two melt into one


def _closed(exact: Exact) -> np.ndarray:
    """Normals that go on beyond the head's outline."""
    there = (exact.label > 0).astype(np.float32)
    near = masked_blur(exact.normal, there, 6.0)
    near[..., 2] += 1e-3
    out = np.where(there[..., None] > 0, exact.normal, near)
    return (out / np.linalg.norm(out, axis=-1, keepdims=True)).astype(np.float32)


class FilmDrawing:
    """One drawing in the making: the warped photograph, where everything is, and the light."""

    def __init__(self, ready: Prepared, look: PhotoLook, warped: np.ndarray, masks: dict[str, np.ndarray],
                 exact: Exact, marks: np.ndarray, move: np.ndarray):
        self.ready, self.look, self.warped, self.masks, self.marks, self.move = ready, look, warped, masks, marks, move
        self.eye, self.skin, size = ready.fit.eye, masks["skin"], ready.fit.size
        self.region = {name: exact.share(classes, size) for name, classes in
                       (("face", SKIN), ("neck", NECK), ("brows", BROWS), ("eyes", EYES), ("mouth", MOUTH),
                        ("lips", LIPS))}
        self.normal = self._enlarged(_closed(exact))
        self.region["neck"] = self._neck()
        self.old_normal = fetch_at(self._enlarged(_closed(ready.exact)), move)
        key = ready.shading[1:] + [0, 0.15 * abs(ready.shading[0]), 0.35 * abs(ready.shading[0])]
        self.key = key / (np.linalg.norm(key) + 1e-6)

    def _enlarged(self, normal: np.ndarray) -> np.ndarray:
        """Normals at the picture's size; a little smoothed, or the mesh's own contours show as thin lines."""
        size = self.ready.fit.size
        out = blur(cv2.resize(normal, (size, size), interpolation=cv2.INTER_LINEAR), 0.02 * self.eye)
        return out / np.linalg.norm(out, axis=-1, keepdims=True)

    def _neck(self) -> np.ndarray:
        """Neck [S,S] in [0,1]: what the mesh calls so, and the underside of the chin, which it calls face."""
        chin, size = self.marks[6:11], len(self.skin)
        corners = [[chin[-1, 0] + self.eye, chin[-1, 1]], [size, 2 * size], [0, 2 * size],
                   [chin[0, 0] - self.eye, chin[0, 1]]]
        below = np.zeros_like(self.skin)
        cv2.fillPoly(below, [(np.concatenate([chin, corners]) * 8).round().astype(np.int32)], 1.0, cv2.LINE_AA, 3)
        return np.clip(self.region["neck"] + self.region["face"], 0, 1) * blur(below, 0.015 * self.eye)

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
        usual, sheen = self._sheen(light, low, face_mask)
        grey, low_grey = luma(light), luma(low)
        relief = np.log(np.clip(grey / np.maximum(low_grey, 1e-3), 0.06, 6))
        low_grey = low_grey * (1 - DULLED * sheen)
        kept = look.wrinkles + (1 - look.wrinkles) * smoothstep(np.abs(relief), 0.08, 0.32)
        relief = relief * mix(kept, np.float32(BAG_RELIEF * look.wrinkles), self._under_eyes())
        shade = self.shade(self.normal)
        around = np.maximum(masked_blur(shade, plain + 1e-3, 0.16 * e), 1e-3)
        drawn = look.form * np.log(np.clip(shade / around, 0.4, 2))
        changed = np.log(np.clip(shade / np.maximum(self.shade(self.old_normal), 1e-3), 0.75, 1.3))
        twice = np.minimum(np.maximum(relief, drawn), 0)  # what photo and form both darken is dark once
        bright = low_grey * np.exp(np.clip(relief + drawn + 0.6 * changed - 0.8 * twice, -2.2, 0.6))
        hue = lows(light, 0.09 * e)
        hue = mix(hue / np.maximum(luma(hue), 1e-3)[..., None], usual, np.maximum(0.8 * sheen, EVEN_TINT))
        own = light / np.maximum(grey, 1e-3)[..., None]
        dark = smoothstep(-relief, 0.35, 0.9)  # beards and brows keep their own colour
        own_share = 0.25 * (1 - sheen)
        hue = mix(hue, own, own_share + (1 - own_share) * dark)
        out = bright[..., None] * hue
        out = out * self._blush() * (1 - self._jaw_shadow())[..., None]
        half = self.key + [0, 0, 1.0]
        half /= np.linalg.norm(half)
        gleam = np.clip(self.normal @ half.astype(np.float32), 0, 1) ** 42
        return to_display(out + (0.05 * gleam * (0.3 + 0.7 * low_grey))[..., None])

    def _jaw_shadow(self) -> np.ndarray:
        """How much of the light the head keeps from the neck [S,S]: strongest right below the jaw."""
        e = self.eye
        neck = self.region["neck"]
        face = np.clip(self.region["face"] - neck, 0, 1)
        below = cv2.warpAffine(blur(face, 0.15 * e), np.float32([[1, 0, 0], [0, 1, 0.22 * e]]),
                               self.skin.shape[::-1], borderMode=cv2.BORDER_REPLICATE)
        left, right = self.marks[[6, 10], 0]  # beside the chin a jaw's place is less sure: there the shadow fades
        beside = abs(np.arange(neck.shape[1], dtype=np.float32) - (left + right) / 2) - (right - left) / 2
        return JAW_SHADOW * below * neck * (1 - smoothstep(beside, 0, 0.4 * e))

    def _sheen(self, light: np.ndarray, low: np.ndarray, face: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """→ the face's own hue (linear RGB of brightness 1), and how much of a gloss is where [S,S],
        on dark skin; on light skin it is what lights a face."""
        seen = light[face > 0.5]
        if len(seen) < 50:
            return np.ones(3, np.float32), np.zeros_like(face)
        tone = np.maximum(np.median(seen, 0), 1e-3)
        pale = 1 - (low[..., 0] / np.maximum(low[..., 2], 1e-3)) / (tone[0] / tone[2])
        dark = 1 - smoothstep(np.percentile(luma(seen), 75), *DARK)
        return tone / luma(tone), dark * smoothstep(pale, *PALE) * smoothstep(luma(low) / luma(tone), *LIT)

    def _under_eyes(self) -> np.ndarray:
        """Below the lower lids, where bags would be dark and lashes be left as dots."""
        out = np.zeros_like(self.skin)
        for start in (36, 42):
            lids = self.marks[start:start + 6]
            width = np.linalg.norm(lids[3] - lids[0])
            low = lids[[0, 5, 4, 3]] + [0, 0.18 * width]
            curve = (low * 8).round().astype(np.int32)
            cv2.polylines(out, [curve], False, 1.0, max(1, int(0.34 * width)), cv2.LINE_AA, 3)
        return blur(out, 0.02 * self.eye)

    def shade(self, normal: np.ndarray) -> np.ndarray:
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

    @cached_property
    def brows(self) -> np.ndarray:
        """Brows [S,S] in [0,1], as wide as they may be, soft."""
        return blur(cv2.dilate(self.region["brows"], disk(BROW_REACH * self.eye)), 0.025 * self.eye)

    def _brows(self, out: np.ndarray) -> np.ndarray:
        """Brows along their hairs; where spectacles are worn they stay as skin is drawn, or rims become more brows."""
        if self.masks["glasses"].any():
            return out
        mask = self.brows * (1 - self.masks["hair"])
        box = bounding_box(mask > 0.02, int(0.1 * self.eye))
        part = self.warped[box]
        direction, _ = structure(luma(part), 0.02 * self.eye)
        lines = along(part, direction, 0.07 * self.eye, 1.5)
        lines = np.clip(sharpened(lines, 0.05 * self.eye, 1.5) * 0.85, 0, 1)
        out = out.copy()
        out[box] = mix(out[box], lines, 0.8 * mask[box])
        return out

    def _hair(self, out: np.ndarray) -> np.ndarray:
        e, hair = self.eye, np.clip(self.masks["hair"], 0, 1)
        if hair.max() < 0.95:
            return out
        box = bounding_box(hair > 0.05, int(0.2 * e))
        hair, own = hair[box], self.warped[box]
        tone = masked_blur(own, hair + 1e-4, 0.35 * e)
        hue = (tone + 0.05) / (luma(tone)[..., None] + 0.05)  # of hair in the shade little is known
        if np.median(np.abs(own - luma(own)[..., None] * hue).max(-1)[hair > 0.9]) > PATTERN:
            return out
        own = mix(masked_blur(own, smoothstep(hair, 0.4, 0.9) + 1e-4, 0.06 * e), own, smoothstep(hair, 0.3, 0.9))
        direction, _ = structure(luma(own), 0.045 * e)
        fine = along(own, direction, 0.12 * e, 2.0)
        wide = along(blur(own, 0.02 * e), direction, 0.25 * e, 3.0)
        strands = wide + self.look.strands * (fine - blur(fine, 0.05 * e))
        strands = tone + 1.12 * (strands - tone)
        strands = np.clip(mix(luma(strands)[..., None] * hue, strands, STRAND_TINT), 0, 1)
        out = out.copy()
        out[box] = mix(out[box], strands, smoothstep(hair, 0.35, 0.9))
        return out

    def _eyes(self, out: np.ndarray) -> np.ndarray:
        ready, fit = self.ready, self.ready.fit
        if ready.iris_color is None:
            return out
        centres = carried(fit.irises, self.move)
        white = [self._exposure(self.marks[start:start + 6]) for start in (36, 42)]
        white = np.exp(mix(np.log(white), np.log(white).mean(), SHARED_EXPOSURE))
        for k, start in enumerate((36, 42)):
            before, after = fit.landmarks[start:start + 6], self.marks[start:start + 6]
            grown = np.linalg.norm(after[3] - after[0]) / max(np.linalg.norm(before[3] - before[0]), 1e-3)
            out = paint_eye(out, after, self.marks[27], centres[k], IRIS * self.eye * grown, ready.iris_color,
                            float(white[k]), self.look.eyes)
        glasses = self.masks["glasses"]
        return mix(out, self.warped, glasses) if glasses.any() else out

    def _exposure(self, lids: np.ndarray) -> float:
        """Brightness (linear) of white near an eye, from the skin around it."""
        x, y = lids.mean(0)
        reach = int(0.55 * self.eye)
        box = (slice(max(0, int(y) - reach), int(y) + reach), slice(max(0, int(x) - reach), int(x) + reach))
        seen = self.skin[box] > 0.5
        local = np.percentile(luma(to_linear(self.warped[box][seen])), 65) if seen.sum() > 50 else self.ready.exposure
        return float(np.clip(1.6 * local + 0.08, 0.1, 0.85))

    def _side_light(self) -> np.ndarray:
        """Factor [S,S,1] of the look's own light on the head, about 1; soft, for hair has no normals of its own."""
        look = self.look
        ahead = np.float32([np.sin(look.side), 0.35, np.cos(look.side)])
        lit = blur(self.normal, 0.05 * self.eye) @ (ahead / np.linalg.norm(ahead))
        return (1 + look.side_light * (np.clip(lit, -0.2, 1) - 0.62) * self.masks["person"])[..., None]

    def graded(self, out: np.ndarray, color: float) -> np.ndarray:
        """The look's colours at a degree in [0,1]: all of them on the person, a quarter on the backdrop."""
        look = self.look
        new = saturate(out, look.vivid) * np.float32(look.tint) * self._side_light()
        new = np.clip(new, 0, 1)
        new = mix(new, new * new * (3 - 2 * new), look.contrast)
        return mix(out, new, color * (0.25 + 0.75 * np.clip(self.masks["person"], 0, 1)))
