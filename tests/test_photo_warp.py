"""How a displacement goes on where the fitted head does not say it. No renderer is needed: its answers are made up."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from vtoonify_lib.studio import photo_warp

SIDE, EYE = 256, 24


def test_a_displacement_goes_far_into_the_hair_less_far_into_the_body_and_hardly_into_the_backdrop():
    square = np.zeros((SIDE, SIDE), np.float32)
    head, hair, body = square.copy(), square.copy(), square.copy()
    head[104:152, 104:152] = 1
    hair[:104, 64:192] = 1   # above the head
    body[152:, 64:192] = 1   # below it; beside it there is backdrop
    move = head[..., None] * np.float32([4, 0])
    person = np.maximum(np.maximum(head, hair), body)
    found = photo_warp._filled(move, head > 0, {"hair": hair, "person": person}, EYE, SIDE)[..., 0] / 4
    away = 2 * EYE  # from the edge of the head
    above, below, beside = found[104 - away, 128], found[152 + away, 128], found[128, 152 + away]
    assert found[128, 128] > 0.95 and above > 0.25 and 0.06 < below < 0.2 and beside < 0.06, (above, below, beside)


@pytest.mark.parametrize("behind, seen", [(0.0, True), (0.04, True), (0.5, False)])
def test_what_the_photograph_hides_is_not_taken_for_known(behind, seen):
    """The right half of a face moves by 9 px, but lies so far behind what the photograph shows there."""
    side = 64
    half = (np.arange(side) >= side // 2)[None, :, None] * np.ones((side, 1, 1), np.float32)
    move = np.concatenate([1 + 8 * half, 0 * half], -1).astype(np.float32)
    depth = np.full((side, side), 10.0, np.float32)
    studio = SimpleNamespace(height=side, flow=lambda *_: (move, depth))
    masks = {"person": np.ones((side, side), np.float32), "hair": np.zeros((side, side), np.float32)}
    found = photo_warp.displacement(studio, None, None, None, np.ones((side, side), np.uint8),
                                    depth - behind * half[..., 0], masks, 16.0, side)
    assert found[32, 8, 0] == pytest.approx(1, abs=0.2) and (found[32, 44, 0] > 7) == seen
