"""Techniques of a hand, on top of a film drawing: a comic's flat tones and ink, a painter's brush."""
from __future__ import annotations

import cv2
import numpy as np

from .filters import along, blur, guided, luma, masked_blur, mix, smoothstep, structure
from .photo_film import FilmDrawing

INK = np.float32([0.07, 0.05, 0.08])
SECTORS = 8         # of the Kuwahara filter
# Skin in a comic: below what part of its own brightness it lies in the shade, above what part it gleams, and how much
# darker and brighter these are; judged on 12 faces. Tones as elsewhere made blotches of cheeks and stubble.
SHADE, SHADE_DEPTH = 0.80, 0.20
GLEAM, GLEAM_DEPTH = 1.20, 0.08
EDGE = 0.02         # half the width of such a border, as a part of brightness
LIGHT_SIZE = 0.09   # eye distances over which light on skin is averaged before it is divided into tones
FORM = 0.5          # how far the fitted head's own shading helps to say what lies in the shade
FEATURES = 2.0      # how much fainter than others the edges of nose, mouth and jaw may be and still be inked


def comic(film: np.ndarray, pen: FilmDrawing) -> np.ndarray:
    """Skin in light or in shade, all else in few flat tones, and lines of ink along edges (Winnemöller et al. 2006)."""
    eye, person = pen.eye, pen.masks["person"]
    flat = film
    for _ in range(2):
        flat = guided(flat, 0.06 * eye, 0.07)
    lab = cv2.cvtColor(np.clip(flat, 0, 1), cv2.COLOR_RGB2LAB)
    light = lab[..., 0] / 100
    skin = blur(pen.skin, 0.01 * eye)
    tone = mix(_tones(light, pen.look.tones), _cel(light, pen), skin)
    lab[..., 0] = 100 * np.clip(tone, 0, 1)
    lab[..., 1:] *= (1.25 - 0.32 * skin)[..., None]
    out = np.clip(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), 0, 1)
    kept = np.clip(pen.region["eyes"] + pen.region["mouth"] + 0.7 * pen.region["lips"], 0, 1)
    out = mix(out, film, blur(kept, 0.01 * eye))
    out = mix(film, out, 0.25 + 0.75 * person)
    return mix(out, INK, pen.look.ink * _ink(film, pen) * (0.15 + 0.85 * person))


def _tones(light: np.ndarray, steps: int) -> np.ndarray:
    """Brightness [S,S] in so many flat tones, their edges a little soft."""
    x = light * steps + 0.5
    return 0.4 * light + 0.6 * (np.floor(x) + smoothstep(x - np.floor(x), 0.44, 0.56) - 0.5) / steps


def _cel(light: np.ndarray, pen: FilmDrawing) -> np.ndarray:
    """Brightness [S,S] of skin in flat tones with edges: in the light, in the shade, and where it gleams."""
    bare = pen.skin > 0.5
    if bare.sum() < 50:
        return light
    bright = float(np.percentile(light[bare], 70))
    form = pen.shade(pen.normal)
    near = masked_blur(light, pen.skin + 1e-3, LIGHT_SIZE * pen.eye) / bright
    near = near * (form / float(np.median(form[bare]))) ** FORM
    shade = 1 - smoothstep(near, SHADE - EDGE, SHADE + EDGE)
    gleam = smoothstep(near, GLEAM - EDGE, GLEAM + EDGE)
    return 0.35 * light + 0.65 * bright * (1.02 - SHADE_DEPTH * shade + GLEAM_DEPTH * gleam)


def _ink(film: np.ndarray, pen: FilmDrawing) -> np.ndarray:
    """Where lines are, [S,S] in [0,1]: extended difference of Gaussians, smoothed along the edges."""
    grey, eye = np.sqrt(np.clip(luma(film), 0, 1)), pen.eye
    direction, _ = structure(grey, 0.02 * eye)
    sigma = 0.013 * eye
    lines = along((blur(grey, sigma) - blur(grey, 1.7 * sigma)).astype(np.float32), direction, 0.09 * eye, 1.5)
    return smoothstep(-lines * (1 + FEATURES * _features(pen)), 0.010, 0.026)


def _features(pen: FilmDrawing) -> np.ndarray:
    """Jaw, lower end of the nose and parting of the lips [S,S] in [0,1]: faint edges, without which a face is empty."""
    out = np.zeros_like(pen.skin)
    fixed = (pen.marks * 8).round().astype(np.int32)
    for curve, width in ((fixed[2:15], 0.12), (fixed[31:36], 0.16), (fixed[60:65], 0.10)):
        cv2.polylines(out, [curve], False, 1.0, max(1, int(width * pen.eye)), cv2.LINE_AA, 3)
    return blur(out, 0.03 * pen.eye)


def paint(film: np.ndarray, pen: FilmDrawing) -> np.ndarray:
    """A brush that follows the form: Kuwahara's filter, finer where the face is, with the relief of bristles."""
    eye, size = pen.eye, len(film)
    source = np.clip(film, 0, 1).astype(np.float32)
    fine = pen.region["eyes"] + pen.region["brows"] + pen.region["mouth"] + pen.region["lips"]
    fine = blur(cv2.dilate(np.clip(fine, 0, 1), np.ones((7, 7))), 0.03 * eye)
    broad = kuwahara(source, pen.look.stroke * eye)
    narrow = kuwahara(source, 0.45 * pen.look.stroke * eye)
    out = mix(broad, narrow, np.clip(pen.region["face"] * pen.skin, 0, 1))
    out = mix(out, source, 0.85 * np.clip(fine, 0, 1))
    direction, coherence = structure(luma(out), 0.08 * eye)
    direction = direction * coherence[..., None] * np.sign(direction[..., :1] + direction[..., 1:] + 1e-6)
    direction = blur(direction + np.float32([0.09, 0.16]), 0.05 * eye)  # without structure, all strokes go one way
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True) + 1e-6
    noise = np.random.default_rng(3).random((size, size)).astype(np.float32)
    bristles = along(blur(noise, 0.9), direction.astype(np.float32), 0.22 * eye, 3.0)
    bristles = (bristles - bristles.mean()) / max(float(bristles.std()), 1e-6)
    relief = cv2.Sobel(bristles, cv2.CV_32F, 1, 0) + cv2.Sobel(bristles, cv2.CV_32F, 0, 1)
    out = out * (1 + (0.016 * bristles + 0.011 * relief)[..., None] * (1 - 0.85 * np.clip(fine, 0, 1))[..., None])
    return np.clip(out, 0, 1)


def kuwahara(x: np.ndarray, radius: float) -> np.ndarray:
    """Generalised Kuwahara filter (Papari et al. 2007): each pixel takes the colour of its most even sector.

    x float32 [H,W,3]; radius in pixels.
    """
    r = max(2, round(radius))
    rows, columns = np.mgrid[-r:r + 1, -r:r + 1].astype(np.float32)
    angle, window = np.arctan2(rows, columns), np.exp(-(rows**2 + columns**2) / (2 * (0.5 * r) ** 2))
    total, weights = np.zeros_like(x), np.zeros(x.shape[:2], np.float32)
    square = x * x
    for k in range(SECTORS):
        off = np.abs((angle - 2 * np.pi * k / SECTORS + np.pi) % (2 * np.pi) - np.pi)
        kernel = window * np.clip(1 - off / (2.4 * np.pi / SECTORS), 0, 1)
        kernel[r, r] = window[r, r] / SECTORS
        kernel = (kernel / kernel.sum()).astype(np.float32)
        mean, spread = cv2.filter2D(x, -1, kernel), cv2.filter2D(square, -1, kernel)
        variance = np.maximum(spread - mean * mean, 0).sum(-1)
        weight = 1 / (1e-5 + variance) ** 4
        total, weights = total + weight[..., None] * mean, weights + weight
    return total / weights[..., None]
