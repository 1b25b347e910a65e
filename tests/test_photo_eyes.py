"""Eyes that are painted over a photograph's: when, how large, and in which colour. No renderer is needed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vtoonify_lib.studio import photo_eyes
from vtoonify_lib.studio.photo_looks import FILM

RIGHT = np.array([[0, 0], [3, -2], [7, -2], [10, 0], [7, 2], [3, 2]], float) * 4  # six points of an eye, open by 0.4


def test_eyes_are_mirror_images_of_each_other():
    right = np.array([[0, 0], [3, -2], [7, -2], [10, 0], [7, 2], [3, 2]], float) * 4 + [30, 60]
    left = (right * [-1, 1] + [127, 0])[[3, 2, 1, 0, 5, 4]]
    plain = np.full((128, 128, 3), 0.6, np.float32)
    paint = {"radius": 7.0, "color": np.float32([0.1, 0.06, 0.03]), "exposure": 0.5,
             "how": replace(FILM.eyes, glint=0.0)}
    a, b = (photo_eyes.paint_eye(plain, lids, np.array([x, 60.0]), lids.mean(0), **paint)
            for lids, x in ((right, 127.0), (left, 0.0)))
    assert np.abs(a - plain).max() > 0.3 and np.abs(a - b[:, ::-1]).mean() < 0.003


def test_irises_reach_the_lids_within_reason():
    curves = [np.stack([np.linspace(0, 40, 9), np.full(9, y)], 1) for y in (10.0, 30.0)]
    grown = [photo_eyes._iris_radius(r, np.array([20.0, 20.0]), *curves) / r for r in (14.0, 9.0, 5.0)]
    assert grown[0] == 1 and grown[1] == pytest.approx(10 / 9) and grown[2] == photo_eyes.WIDER
    assert 1.1 < photo_eyes.WIDER < 1.35  # beyond it, startled eyes become buttons


def test_what_is_as_dark_as_black_is_brown():
    for color, brown in (([0.004, 0.004, 0.0066], True), ([0.010, 0.016, 0.025], False)):
        tone = photo_eyes._toned(np.float32(color), 0.3, FILM.eyes)
        assert (tone[0] > 1.5 * tone[2]) == brown


def test_opening_of_an_eye():
    eye = np.array([[0, 0], [3, -2], [7, -2], [10, 0], [7, 2], [3, 2]], float) * 4 + 40
    assert photo_eyes.opening(eye) == pytest.approx(0.4)
    mask = photo_eyes.opening_mask(eye, 128, 0.5)
    assert mask[40, 60] > 0.9 and mask[10, 60] == 0 and 0.5 < mask.sum() / (40 * 16) < 1.0


def test_the_narrower_an_eye_the_less_it_is_painted():
    def painted(height):
        plain = np.full((96, 96, 3), 0.6, np.float32)
        lids = RIGHT * [1, height / 0.4] + [28, 48]
        drawn = photo_eyes.paint_eye(plain, lids, np.array([90.0, 48.0]), lids.mean(0), 7.0,
                                     np.float32([0.1, 0.06, 0.03]), 0.5, FILM.eyes)
        return np.abs(drawn - plain)

    assert not painted(0.05).any() and 0 < painted(0.12).max() < painted(0.2).max() and painted(0.2).max() > 0.3


def test_dark_irises_become_brown_and_bright_ones_keep_their_colour():
    olive = np.float32([0.12, 0.11, 0.06])
    red = [tone[0] / tone[1] for tone in (photo_eyes._toned(share * olive, 0.5, FILM.eyes) for share in (1, 0.2))]
    assert red[0] < 1.3 and red[1] > 1.7


def test_the_white_of_an_eye_keeps_some_of_the_lights_tint():
    """In even light a warm white; in warm light a warmer one, and in blue light one that is hardly blue; never as much
    as the light itself."""
    def warmth(color: tuple) -> float:
        tint = photo_eyes._white_tint(np.float32([color] * 20))
        return float(tint[0] / tint[2])

    even, warm, blue = warmth((0.6, 0.6, 0.6)), warmth((0.7, 0.6, 0.45)), warmth((0.5, 0.6, 0.72))
    assert 1.02 < even < 1.12 and even * 1.1 < warm < 0.7 / 0.45 and 0.85 < blue < even
    assert warmth((0.9, 0.4, 0.1)) < 1.45, "veins and lids are no light"
    assert np.array_equal(photo_eyes._white_tint(np.zeros((0, 3), np.float32)), photo_eyes.WHITE)
