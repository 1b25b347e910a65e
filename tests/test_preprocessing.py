"""The published way from a frame to a crop and from a picture to bytes, next to ours."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from people import HOPPER, photograph

from vtoonify_lib.config import VToonifyError
from vtoonify_lib.faces import crop as framing
from vtoonify_lib.faces.crop import PREFILTER, cut, published_cut, published_plan
from vtoonify_lib.faces.preprocessing import OURS, PUBLISHED, truncated_image
from vtoonify_lib.media.images import to_image

GOLDEN = np.load(Path(__file__).parent / "golden" / "preprocess.npz")
PLANS = [case for case, padding in enumerate(GOLDEN["crop/image_hw_and_padding_lrtb"][:, 2:]) if len(set(padding)) == 1]


@pytest.mark.parametrize("case", PLANS)
def test_the_plan_has_the_published_numbers(case):
    height, width, padding = GOLDEN["crop/image_hw_and_padding_lrtb"][case][:3]
    _, _, top, bottom, left, right, scale = GOLDEN["crop/h_w_top_bottom_left_right_scale"][case]
    plan = PUBLISHED.plan((height, width, 3), GOLDEN["crop/landmarks"][case], 256, float(padding))
    assert (plan.left, plan.top, plan.right, plan.bottom) == (left, top, right, bottom)
    assert plan.scale == pytest.approx(scale, rel=1e-12) and (plan.frame_width, plan.frame_height) == (width, height)


def test_there_are_published_numbers_to_compare():
    assert len(PLANS) > 3


def test_a_face_that_is_upright_is_framed_alike_by_both():
    level = HOPPER.copy()
    level[36:48, 1] = 188
    ours, published = (way.plan((600, 512, 3), level, 128, None) for way in (OURS, PUBLISHED))
    assert published.scale == pytest.approx(ours.scale)
    for side in ("left", "top", "right", "bottom"):
        assert abs(getattr(published, side) - getattr(ours, side)) <= 8


def test_plans_that_cannot_be():
    with pytest.raises(VToonifyError, match="not side by side .* turn the picture upright"):
        published_plan((600, 512), HOPPER[:, ::-1] * [1, 0] + [0, 100], 256)
    with pytest.raises(VToonifyError, match="eyes are .* px apart but at least 8 px are needed"):
        published_plan((600, 512), HOPPER / 20, 256)
    with pytest.raises(VToonifyError, match="too small around the face"):
        published_plan((12, 512), HOPPER, 256)
    with pytest.raises(VToonifyError, match="padding is 2 px"):
        published_plan((600, 512), HOPPER, 256, 2)


def by_hand(frame: np.ndarray, passes: int, size: tuple[int, int]) -> np.ndarray:
    """Blur and bilinear resize in plain numpy, rounded where bytes are."""
    x = frame.astype(np.float64)
    for _ in range(passes):
        for axis in (0, 1):
            padded = np.pad(x, [(2, 1) if a == axis else (0, 0) for a in range(3)], mode="reflect")
            length = x.shape[axis]
            x = sum(weight * np.take(padded, range(i, i + length), axis) for i, weight in enumerate(PREFILTER))
        x = x.round()
    for axis, new in ((0, size[1]), (1, size[0])):
        old = x.shape[axis]
        at = ((np.arange(new) + 0.5) * old / new - 0.5).clip(0, old - 1)
        low = np.floor(at).astype(int)
        share = (at - low).reshape([-1 if a == axis else 1 for a in range(3)])
        x = np.take(x, low, axis) * (1 - share) + np.take(x, np.minimum(low + 1, old - 1), axis) * share
    return x


@pytest.mark.parametrize(("in_size", "passes"), [(256, 1), (128, 2), (320, 0)])
def test_published_cut(in_size, passes):
    rgb = photograph()
    plan = PUBLISHED.plan(rgb.shape, HOPPER, in_size, None)
    assert (plan.scale <= 0.75) + (plan.scale <= 0.375) == passes and plan.scale < 1
    size = round(rgb.shape[1] * plan.scale), round(rgb.shape[0] * plan.scale)
    expected = by_hand(rgb, passes, size)[plan.top : plan.bottom, plan.left : plan.right]
    crop = published_cut(rgb, plan)
    assert crop.shape == (plan.height, plan.width, 3) and crop.dtype == np.uint8
    assert np.abs(crop - expected).max() <= 1.5
    ours = cut(rgb, plan).astype(float)
    assert np.abs(crop - ours).mean() > np.abs(crop - expected).mean()


def test_published_cut_of_a_small_picture_needs_no_large_one():
    rgb = cv2.resize(photograph(), (128, 150), interpolation=cv2.INTER_AREA)
    plan = PUBLISHED.plan(rgb.shape, HOPPER / 4, 256, 60)
    size = round(rgb.shape[1] * plan.scale), round(rgb.shape[0] * plan.scale)
    whole = cv2.resize(rgb, size, interpolation=cv2.INTER_LINEAR)
    whole = whole[plan.top : plan.bottom, plan.left : plan.right].astype(int)
    assert plan.scale > 2 and np.abs(published_cut(rgb, plan) - whole).max() <= 1


def test_the_blur_shifts_by_half_a_pixel_a_pass(monkeypatch):
    ramp = np.broadcast_to(2 * np.arange(120, dtype=np.uint8)[None, :, None], (120, 120, 3)).copy()
    for in_size, passes in ((48, 1), (24, 2)):
        plan = PUBLISHED.plan(ramp.shape, HOPPER * 0.2, in_size, None)
        with monkeypatch.context() as patch:
            patch.setattr(framing, "PREFILTER_SCALES", ())
            sharp = published_cut(ramp, plan).astype(float)
        shift = (sharp - published_cut(ramp, plan))[8:-8, 8:-8].mean() / 2
        assert shift == pytest.approx(passes / 2, abs=0.1)


def test_bytes_as_published():
    rgb = torch.from_numpy(GOLDEN["to_uint8/rgb_in"])
    assert (truncated_image(rgb)[..., ::-1] == GOLDEN["to_uint8/bgr_out"]).all()
    wide = torch.tensor([-9.0, -1, 0.999, 1, 9]).expand(1, 3, 1, 5)
    assert truncated_image(wide)[0, 0, :, 0].tolist() == [0, 0, 254, 255, 255]
    assert to_image(wide)[0, 0, :, 0].tolist() == [0, 0, 255, 255, 255]
