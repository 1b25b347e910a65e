"""Soft masks of a photograph: person, hair, spectacles, skin.

A parsing net guesses, the fitted head knows where a face must be, and colour models (GrabCut, Rother et al. 2004)
decide along the borders; a guided filter then lays the masks to the photograph's own edges.
"""
from __future__ import annotations

import cv2
import numpy as np

from .filters import blur, dilated, disk, laid_to_edges, mix, smoothstep
from .fitted_person import FittedPerson
from .photo_warp import Exact

SIDE = 192  # px on which colour models are fitted
HEAD, BODY, FACE = (1, 2, 3, 4, 5, 10, 11, 12, 13), (14, 16), (1, 10)
HAIR_REACH = 0.9    # eye distances above and beside the head within which a colour like the hair's is hair, not a tree
NOBODY = 1.25       # eye distances from the fitted head beyond which no hat or hair of 19 people fills half
# Odds that somebody is there before the net is asked: even at NEAR eye distances from the fitted head and body, and
# less by a factor of e every FADES.
NEAR, FADES = 0.3, 0.25
SURE = 5            # odds from which hair is certain; at 1, leaves at the head teach the colours of hair
GAP = 0.2           # eye distances that a strand may be interrupted by (an ear, its ring)
BRIDGE = 0.9        # share of the way between the eyes that spectacles cover: five wearers all, one .83, else up to .4
GLASSES, CLOTH, HAIR = 6, 16, 17
SKIN, NECK, BROWS, EYES, MOUTH, LIPS = (1, 10, 7, 8), (14,), (2, 3), (4, 5), (11,), (12, 13)


def masks_of(fit: FittedPerson, exact: Exact, parsing: np.ndarray) -> dict[str, np.ndarray]:
    """person, hair, glasses, skin → float32 [S,S] in [0,1].

    parsing [p,p,19]: probabilities of the classes on the canvas; exact: the fitted head.
    """
    small = cv2.resize((fit.photo * 255).astype(np.uint8), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    guess = cv2.resize(parsing, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    label = cv2.resize(exact.label, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)
    eye = fit.eye / fit.size * SIDE
    points = fit.landmarks / fit.size * SIDE
    person = _person(small, guess, label, _odds(guess, label, points, eye), eye)
    hair = _hair(small, guess, label, person, points, eye)

    def fine(mask: np.ndarray) -> np.ndarray:
        return laid_to_edges(mask.astype(np.float32), fit.photo, 0.06 * fit.eye, 0.03)

    out = {"person": fine(person), "hair": fine(hair), "glasses": _glasses(parsing, fit)}
    out["skin"] = _skin(fit, exact, out)
    return out


def _eroded(mask: np.ndarray, radius: float) -> np.ndarray:
    return cv2.erode(mask.astype(np.uint8), disk(radius)) > 0


def _cut(small: np.ndarray, trimap: np.ndarray) -> np.ndarray | None:
    """GrabCut from a map of certain and probable pixels → foreground, or None where one side is empty."""
    if not (np.isin(trimap, (cv2.GC_FGD, cv2.GC_PR_FGD)).sum() > 20
            and np.isin(trimap, (cv2.GC_BGD, cv2.GC_PR_BGD)).sum() > 20):
        return None
    cv2.setRNGSeed(0)
    cv2.grabCut(small, trimap, None, np.zeros((1, 65)), np.zeros((1, 65)), 3, cv2.GC_INIT_WITH_MASK)
    return np.isin(trimap, (cv2.GC_FGD, cv2.GC_PR_FGD))


def _odds(guess: np.ndarray, label: np.ndarray, points: np.ndarray, eye: float) -> np.ndarray:
    """Odds that somebody is there [SIDE,SIDE], by what the parsing net says and where the fitted head and body are.

    Foliage looks like hair to it. How often it sees somebody is measured where nobody can be, beside and above the
    head; the more often, the less its word counts away from the head (Bayes' rule).
    """
    off = cv2.distanceTransform((label == 0).astype(np.uint8), cv2.DIST_L2, 5) / eye
    says = 1 - guess[..., 0]
    empty = (off > NOBODY) & (np.arange(SIDE)[:, None] < points[8, 1])
    wrong = max(float(np.median(says[empty])), 0.02) if empty.any() else 0.02
    return says / wrong * np.exp((NEAR - off) / FADES)


def _person(small: np.ndarray, guess: np.ndarray, label: np.ndarray, odds: np.ndarray, eye: float) -> np.ndarray:
    head, body = np.isin(label, HEAD), np.isin(label, BODY)
    near = dilated(head | body, eye)
    trimap = np.where((guess[..., 0] < 0.5) & (odds > 1), cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    trimap[(guess[..., 0] > 0.8) & ~near] = cv2.GC_BGD
    trimap[_eroded(head, 0.12 * eye) | ((guess[..., HAIR] > 0.9) & near & (odds > SURE))] = cv2.GC_FGD
    trimap[_eroded(body, 0.3 * eye) & (np.arange(SIDE)[:, None] > SIDE - 3)] = cv2.GC_FGD
    found = _cut(small, trimap)
    return found if found is not None else guess[..., 0] < 0.5


def _hair(small: np.ndarray, guess: np.ndarray, label: np.ndarray, person: np.ndarray, points: np.ndarray,
          eye: float) -> np.ndarray:
    row, chin = np.arange(SIDE)[:, None], points[8, 1]
    inner = _eroded(np.isin(label, HEAD), 0.1 * eye) & (row > points[17:27, 1].min())
    region = person & (row < chin + 0.9 * eye) & (label != CLOTH)
    trimap = np.where(guess[..., HAIR] > 0.45, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    trimap[_eroded(guess[..., HAIR] > 0.8, 2)] = cv2.GC_FGD
    trimap[region & ~dilated(label > 0, 0.05 * eye) & (row < chin - 0.3 * eye)] = cv2.GC_FGD
    trimap[(row > points[30, 1]) & (guess[..., HAIR] < 0.3)] = cv2.GC_BGD
    bald = (label == 1) & (blur(guess[..., HAIR], 2) < 0.15)
    head = np.isin(label, HEAD)
    beyond = ~dilated(head, HAIR_REACH * eye) & (row < points[17:27, 1].max()) & (guess[..., HAIR] < 0.9)
    trimap[~region | inner | bald | beyond] = cv2.GC_BGD
    calm = small.copy()
    calm[~region] = small[inner].mean(0) if inner.any() else 128
    found = _cut(calm, trimap)
    hair = (found if found is not None else guess[..., HAIR] > 0.5) & region & ~beyond
    return _hanging_together(hair, points[36:48, 1].mean(), GAP * eye)


def _hanging_together(hair: np.ndarray, eyes: float, gap: float) -> np.ndarray:
    """Hair that, but for gaps, goes on to above the row of the eyes: what does not is a collar, a scarf, a shirt."""
    _, parts = cv2.connectedComponents(dilated(hair, gap / 2).astype(np.uint8))
    return hair & np.isin(parts, np.unique(parts[:int(eyes)][hair[:int(eyes)]]))


def _glasses(parsing: np.ndarray, fit: FittedPerson) -> np.ndarray:
    """Frames of spectacles: what the net calls so around the eyes, where a bridge joins both; else it was a shadow."""
    seen = cv2.resize(parsing[..., GLASSES], (fit.size, fit.size), interpolation=cv2.INTER_LINEAR)
    frame = cv2.dilate((seen > 0.3).astype(np.float32), disk(0.015 * fit.eye))
    (left, top), (right, low) = fit.landmarks[[39, 42]].min(0), fit.landmarks[[39, 42]].max(0)
    aside, reach = 0.2 * (right - left), 0.3 * fit.eye
    between = frame[max(0, int(top - reach)):int(low + reach), max(0, int(left + aside)):int(right - aside)]
    if not between.size or between.max(0).mean() < BRIDGE:
        return np.zeros_like(frame)
    rows = np.arange(fit.size)[:, None]
    eyes = fit.landmarks[36:48, 1]
    frame = frame * ((rows > eyes.min() - 0.5 * fit.eye) & (rows < eyes.max() + 0.6 * fit.eye))
    return blur(frame, 0.012 * fit.eye)


def _skin(fit: FittedPerson, exact: Exact, masks: dict[str, np.ndarray]) -> np.ndarray:
    """Where the fitted head has skin and the photograph shows its colour: not hair, hat, hand or spectacles.

    Skulls differ from the fitted one, so skin may go on a little beyond it, where its colour is closer.
    """
    face = exact.share((*FACE, 7, 8), fit.size)
    head = np.maximum(face, exact.share((14,), fit.size))
    lab = cv2.cvtColor(fit.photo, cv2.COLOR_RGB2LAB)
    cheeks = np.zeros(face.shape, np.uint8)
    cv2.fillConvexPoly(cheeks, fit.landmarks[[1, 3, 5, 11, 13, 15]].round().astype(np.int32), 1)
    sure = (cheeks > 0) & (exact.share(FACE, fit.size) > 0.9)
    if sure.sum() < 50:
        return head * (1 - masks["hair"])
    middle = np.median(lab[sure], 0)
    spread = np.maximum(1.48 * np.median(np.abs(lab[sure] - middle), 0), [9, 7, 7])
    lit = np.clip(lab[..., :1] / max(middle[0], 1.0), 0.4, 1.5)  # chroma grows with the light
    far = np.sqrt((((lab[..., 1:] / lit - middle[1:]) / spread[1:]) ** 2).sum(-1))
    inner = blur(cv2.erode(face, disk(0.08 * fit.eye)), 0.05 * fit.eye)
    alike = mix(1 - smoothstep(far, 1.8, 3.2), 1 - smoothstep(far, 4.0, 7.0), inner)
    alike = cv2.resize(alike.astype(np.float32), (2 * SIDE,) * 2, interpolation=cv2.INTER_AREA)
    alike = laid_to_edges(alike, fit.photo, 0.05 * fit.eye, 0.02)
    reach = np.clip(blur(cv2.dilate(head, disk(0.25 * fit.eye)), 0.02 * fit.eye), 0, 1)
    inside = smoothstep(masks["person"], 0.5, 0.95)
    return reach * alike * inside * (1 - masks["hair"]) * (1 - masks["glasses"])
