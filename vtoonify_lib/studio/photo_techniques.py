"""Techniques of a hand, on top of a film drawing: a comic's flat tones and ink, a painter's brush."""
from __future__ import annotations

import cv2
import numpy as np

from .filters import along, blur, disk, luma, masked_blur, mix, sharpened, smoothstep, structure
from .photo_film import FilmDrawing

INK = np.float32([0.07, 0.05, 0.08])
SECTORS = 8         # of the Kuwahara filter
# Skin in a comic: below which parts of its own brightness it lies in the shade and in the deep one, above which part it
# gleams, and how much darker and brighter these are; judged on 12 faces. Tones as elsewhere made blotches of cheeks and
# stubble, and one shade made a mask of a face lit from the side.
SHADE, SHADE_DEPTH = 0.80, 0.16
DEEP, DEEP_DEPTH = 0.55, 0.22
GLEAM, GLEAM_DEPTH = 1.20, 0.08
EDGE, GLEAM_EDGE = 0.02, 0.06  # half the width of such borders, as a part of brightness
OWN_LIGHT = 0.4     # how much of the film's own light skin keeps beside its tones
LIGHT_SIZE = 0.09   # eye distances over which light on skin is averaged before it is divided into tones
FORM = 0.5          # how far the fitted head's own shading helps to say what lies in the shade
# Beards keep the film's strands: skin darker than the face's own, and of less colour, by how much (none, all of it).
BEARD_DARK, BEARD_GREY = (0.12, 0.30), (0.05, 0.30)
BROW_DARK, BROW_FILL = (0.03, 0.14), 0.35  # how much darker than skin a brow is (none, all of it); how it is darkened
FEATURES = 1.4      # how much fainter than others the edges of nose, mouth and jaw may be and still be inked
PLAIN_SKIN = 0.5    # how much fainter ink is on skin elsewhere: each wrinkle inked makes anybody old
INNER_INK, BROW_INK = 0.4, 0.2  # ink in eyes and mouth, which are drawn already, and along brows, or they are wires
# What a comic is drawn of: strokes so many eye distances wide, and for its ink so much of the film besides. Of the film
# alone, each strand of hair was a dash.
COMIC_STROKE, INK_DETAIL = 0.10, 0.25
# A painting: width of the brush on faces and on hair over elsewhere; how far it smears over its width; how crisp
# strokes are; the bristles' relief, below which texture there is none (brightness), and at which steps of brightness it
# ends.
FACE_STROKE, HAIR_STROKE, SMEAR, CRISP = 0.3, 0.55, 1.6, 1.5
# Where broad strokes lose something (Hertzmann 1998), such as a badge, an earring or a pattern: how much contrast (none
# of it comes back, all of it), of what size and how wide the finer strokes are there, in eye distances.
LOST, DETAIL_SIZE, FINE_STROKE = (0.015, 0.05), 0.08, 0.02
COARSE = 6          # px: strokes n times as broad are found n times smaller: off by .001, a third quicker at 1,536 px
RELIEF, RELIEF_FLOOR, RELIEF_EDGE = 0.09, 0.012, (0.04, 0.16)


def comic(film: np.ndarray, pen: FilmDrawing) -> np.ndarray:
    """Skin in light or in shade, all else in few flat tones, and lines of ink along edges (Winnemöller et al. 2006)."""
    eye, person = pen.eye, pen.masks["person"]
    source = np.clip(film, 0, 1).astype(np.float32)
    flat, _, _ = _brushed(source, pen, COMIC_STROKE * eye)
    lab = cv2.cvtColor(flat, cv2.COLOR_RGB2LAB)
    light = lab[..., 0] / 100
    skin = blur(pen.skin, 0.01 * eye)
    tone = mix(_tones(light, pen.look.tones), _cel(light, pen), skin)
    lab[..., 0] = 100 * np.clip(tone, 0, 1)
    lab[..., 1:] *= (1.25 - 0.17 * skin)[..., None]
    out = np.clip(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), 0, 1)
    kept = np.clip(pen.region["eyes"] + pen.region["mouth"] + 0.7 * pen.region["lips"] + 0.8 * _beard(film, pen), 0, 1)
    out = mix(out, film, blur(kept, 0.01 * eye))
    out = _filled_brows(out, film, pen)
    out = mix(film, out, 0.25 + 0.75 * person)
    return mix(out, INK, pen.look.ink * _ink(mix(flat, film, INK_DETAIL), pen) * (0.15 + 0.85 * person))


def _tones(light: np.ndarray, steps: int) -> np.ndarray:
    """Brightness [S,S] in so many flat tones, their edges a little soft."""
    x = light * steps + 0.5
    return 0.4 * light + 0.6 * (np.floor(x) + smoothstep(x - np.floor(x), 0.44, 0.56) - 0.5) / steps


def _cel(light: np.ndarray, pen: FilmDrawing) -> np.ndarray:
    """Brightness [S,S] of skin in flat tones with edges: in the light, in two shades, and where it gleams."""
    bare = pen.skin > 0.5
    if bare.sum() < 50:
        return light
    bright = float(np.percentile(light[bare], 70))
    form = pen.shade(pen.normal)
    near = masked_blur(light, pen.skin + 1e-3, LIGHT_SIZE * pen.eye) / bright
    near = near * (form / float(np.median(form[bare]))) ** FORM
    shade = 1 - smoothstep(near, SHADE - EDGE, SHADE + EDGE)
    deep = 1 - smoothstep(near, DEEP - EDGE, DEEP + EDGE)
    gleam = smoothstep(near, GLEAM - GLEAM_EDGE, GLEAM + GLEAM_EDGE)
    tone = bright * (1.02 - SHADE_DEPTH * shade - DEEP_DEPTH * deep + GLEAM_DEPTH * gleam)
    return mix(tone, light, OWN_LIGHT)


def _beard(film: np.ndarray, pen: FilmDrawing) -> np.ndarray:
    """Beard and stubble [S,S] in [0,1]: skin that is darker than the face's own, and of less colour."""
    bare = pen.skin > 0.5
    if bare.sum() < 50:
        return np.zeros_like(pen.skin)
    smooth = blur(film, 0.02 * pen.eye)
    light, vivid = luma(smooth), 1 - smooth[..., 2] / np.maximum(smooth[..., 0], 1e-3)
    dark = smoothstep(1 - light / np.percentile(light[bare], 70), *BEARD_DARK)
    grey = smoothstep(1 - vivid / max(float(np.median(vivid[bare])), 1e-3), *BEARD_GREY)
    rows = np.arange(len(film), dtype=np.float32)[:, None]
    below = smoothstep(rows, pen.marks[30, 1], pen.marks[33, 1])
    return pen.skin * dark * grey * below


def _filled_brows(out: np.ndarray, film: np.ndarray, pen: FilmDrawing) -> np.ndarray:
    """Brows as filled shapes of their own colour, darkened: edges alone make wires of them."""
    mask = pen.brows * (1 - pen.masks["hair"]) * (1 - pen.masks["glasses"])
    light = np.sqrt(np.clip(luma(film), 0, 1))
    around = masked_blur(light, np.clip(pen.skin - mask, 0, 1) + 1e-4, 0.15 * pen.eye)
    dark = smoothstep(1 - light / np.maximum(around, 1e-3), *BROW_DARK)
    return mix(out, film * (1 - BROW_FILL * dark)[..., None], mask * dark)


def _ink(film: np.ndarray, pen: FilmDrawing) -> np.ndarray:
    """Where lines are, [S,S] in [0,1]: extended difference of Gaussians, smoothed along the edges."""
    grey, eye = np.sqrt(np.clip(luma(film), 0, 1)), pen.eye
    direction, _ = structure(grey, 0.02 * eye)
    sigma = 0.013 * eye
    lines = along((blur(grey, sigma) - blur(grey, 1.7 * sigma)).astype(np.float32), direction, 0.09 * eye, 1.5)
    features = _features(pen)
    plain = pen.skin * (1 - features) * (1 - 0.6 * blur(pen.region["eyes"], 0.06 * eye))
    ink = smoothstep(-lines * (1 + FEATURES * features) * (1 - PLAIN_SKIN * plain), 0.010, 0.026)
    inner = np.clip(pen.region["mouth"] + pen.region["eyes"], 0, 1)
    return ink * mix(1.0, INNER_INK, inner) * mix(1.0, BROW_INK, pen.brows)


def _features(pen: FilmDrawing) -> np.ndarray:
    """Jaw, lower end of the nose and parting of the lips [S,S] in [0,1]: faint edges, without which a face is empty."""
    out = np.zeros_like(pen.skin)
    fixed = (pen.marks * 8).round().astype(np.int32)
    for curve, width in ((fixed[2:15], 0.12), (fixed[31:36], 0.16), (fixed[60:65], 0.10)):
        cv2.polylines(out, [curve], False, 1.0, max(1, int(width * pen.eye)), cv2.LINE_AA, 3)
    return blur(out, 0.03 * pen.eye)


def paint(film: np.ndarray, pen: FilmDrawing) -> np.ndarray:
    """A brush that follows the form: Kuwahara's filter, finer where the face is, drawn along what is there.

    Colours are smeared along the strokes and sharpened across them (coherence-enhancing filtering, Kyprianidis and Kang
    2011); the relief of bristles is the photograph's own texture, drawn out: nothing that a network could not know.
    """
    eye = pen.eye
    source = np.clip(film, 0, 1).astype(np.float32)
    fine = pen.region["eyes"] + pen.region["brows"] + pen.region["mouth"] + pen.region["lips"]
    fine = np.clip(blur(cv2.dilate(np.clip(fine, 0, 1), disk(0.03 * eye)), 0.03 * eye), 0, 1)
    out, direction, span = _brushed(source, pen, pen.look.stroke * eye)
    own = luma(source - out)
    own = own - blur(own, 0.022 * eye)
    own = own / (np.sqrt(blur(own * own, 0.1 * eye)) + RELIEF_FLOOR)
    bristles = along(np.clip(own, -1, 1).astype(np.float32), direction, 0.14 * eye, 2.0)
    even = 1 - smoothstep(span, *RELIEF_EDGE)
    out = out * (1 + RELIEF * (bristles * even)[..., None])
    return np.clip(mix(out, source, 0.85 * fine), 0, 1)


def _brushed(source: np.ndarray, pen: FilmDrawing, stroke: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A picture in strokes so many pixels wide, finer on faces and hair.

    → picture; direction of the strokes [S,S,2]; range of brightness around each pixel [S,S].
    """
    eye = pen.eye
    hair = pen.masks["hair"]
    out = mix(_strokes(source, stroke), _strokes(source, HAIR_STROKE * stroke), 0.8 * hair)
    out = mix(out, _strokes(source, FACE_STROKE * stroke), np.clip(pen.region["face"] * pen.skin, 0, 1) * (1 - hair))
    direction, _ = structure(luma(out), 0.06 * eye)
    smeared = along(out, direction, SMEAR * stroke, 2.0)
    near = disk(0.02 * eye)  # sharpened colours stay between those beside them: beyond, edges get a halo
    low, high = cv2.erode(smeared, near), cv2.dilate(smeared, near)
    out = np.clip(sharpened(smeared, 0.03 * eye, CRISP), low, high)
    before, after = (np.abs(x - blur(x, DETAIL_SIZE * eye)).max(-1) for x in (source, out))
    lost = smoothstep(blur(before - after, FINE_STROKE * eye), *LOST) * pen.masks["person"] * (1 - hair)
    out = mix(out, kuwahara(source, FINE_STROKE * eye), lost)
    out = mix(out, source, pen.masks["glasses"])  # rims are thinner than any brush
    return out, direction, luma(high - low)


def _strokes(source: np.ndarray, radius: float) -> np.ndarray:
    """`kuwahara`; of a large radius in a smaller picture, which takes a fraction of the time."""
    k, (height, width) = max(1, int(radius / COARSE)), source.shape[:2]
    if k == 1:
        return kuwahara(source, radius)
    small = cv2.resize(source, (width // k, height // k), interpolation=cv2.INTER_AREA)
    return cv2.resize(kuwahara(small, radius / k), (width, height), interpolation=cv2.INTER_LINEAR)


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
        variance = cv2.transform(np.maximum(spread - mean * mean, 0), np.ones((1, 3), np.float32))
        weight = 1 / (1e-5 + variance) ** 4
        total, weights = total + weight[..., None] * mean, weights + weight
    return total / weights[..., None]
