"""The affine really moves pictures, moves a pair alike, and does not alias; crops fall where they should."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from golden_data import Case

from vtoonify_lib.config import VToonifyError
from vtoonify_lib.models import paired_crop
from vtoonify_lib.models.paired_crop import AffineJitter, Crop

ALWAYS = AffineJitter(p=1.0)


def blob(size, cx, cy, radius=0.25, batch=1):
    """A soft disc; centre and radius in units of half the height."""
    t = (torch.arange(size) + 0.5) / size * 2 - 1
    distance = ((t[None, :] - cx) ** 2 + (t[:, None] - cy) ** 2).sqrt()
    return torch.sigmoid((radius - distance) * 16).expand(batch, 1, size, size)


def centre(picture):
    """Centre of mass in units of half the height."""
    size = picture.shape[-1]
    t = (torch.arange(size) + 0.5) / size * 2 - 1
    mass = picture[:, 0] / picture[:, 0].sum((1, 2), keepdim=True)
    return torch.stack([(mass.sum(1) * t).sum(1), (mass.sum(2) * t).sum(1)], dim=1)


def psnr(a, b):
    return float(-10 * torch.log10((a - b).square().mean() / (b.max() - b.min()).square()))


def test_translation_moves_by_a_share_of_the_picture():
    matrix = paired_crop.translation(torch.tensor([0.25]), torch.tensor([-0.125]))
    for size in (64, 128):
        moved = paired_crop.apply_affine(blob(size, 0.0, 0.0), matrix)
        assert torch.allclose(centre(moved), torch.tensor([[-0.25, 0.125]]), atol=2e-3)


def test_random_translation_moves():
    """The defect of the released code: a share of the picture applied as that many pixels."""
    only_shift = AffineJitter(p=1.0, drift=0, scale=0, angle=0)
    matrix = paired_crop.sample_affine(200, 64, 64, only_shift, torch.Generator().manual_seed(0))
    pixels = matrix[:, :2, 2] * 32
    assert pixels.abs().max() > 6 and pixels.abs().max() <= 8 and pixels.abs().mean() > 3
    assert torch.allclose(pixels, pixels.round(), atol=1e-5)


def test_probabilities():
    rng = torch.Generator().manual_seed(1)
    matrix = paired_crop.sample_affine(4000, 128, 128, AffineJitter(), rng)
    identity = (matrix == torch.eye(3)).all((1, 2)).float().mean().item()
    assert identity == pytest.approx(0.9 * 0.8**5, abs=0.03)  # no flip; shift, two scales, drift; either rotation
    assert (torch.linalg.det(matrix) < 0).float().mean().item() == pytest.approx(0.1, abs=0.02)
    never = paired_crop.sample_affine(10, 64, 64, AffineJitter(p=0.0), rng)
    assert (never == torch.eye(3)).all()


def test_a_pair_moves_alike():
    small, large = blob(64, 0.2, 0.1, batch=6), blob(128, 0.2, 0.1, batch=6)
    a, b = paired_crop.random_affine(small, large, jitter=ALWAYS, rng=torch.Generator().manual_seed(2))
    assert a.shape == small.shape and b.shape == large.shape
    assert not torch.allclose(a, small, atol=0.1)
    assert (a - torch.nn.functional.avg_pool2d(b, 2)).abs().max() < 0.03


def test_rectangular_pictures_are_not_sheared():
    """A quarter turn about the centre keeps a disc a disc, whatever the frame's shape."""
    wide = torch.nn.functional.pad(blob(64, 0.0, 0.5), [32, 32])
    turned = paired_crop.apply_affine(wide, paired_crop.rotation(torch.tensor([math.pi / 2])))
    expected = torch.nn.functional.pad(blob(64, 0.5, 0.0), [32, 32])
    assert (turned - expected)[..., 32:-32].abs().max() < 0.03  # further out lies the mirror image


def test_identity():
    x = torch.randn(2, 3, 16, 24)
    assert paired_crop.apply_affine(x, torch.eye(3).repeat(2, 1, 1)).equal(x)  # nothing drawn, nothing resampled
    almost = torch.eye(3)[None].clone()
    almost[0, 0, 2] = 1e-6
    smooth = blob(64, 0.1, -0.2)
    assert psnr(paired_crop.apply_affine(smooth, almost), smooth) > 50


def test_shrinking_does_not_alias():
    """Stripes too fine for the result turn grey instead of into coarse stripes."""
    stripes = torch.sin(torch.arange(128) * math.pi * 0.9).expand(1, 1, 128, 128)  # 0.9 of the finest that fits
    shrunk = paired_crop.apply_affine(stripes, paired_crop.scaling(torch.tensor([1.4]), torch.tensor([1.4])))
    assert shrunk[..., 20:-20, 20:-20].abs().mean() < 0.2 * stripes.abs().mean()


def test_direction_and_units_agree_with_the_released_code():
    """Its wavelet resampling differs from ours, so only correlation is asked; on white noise any slip gives about 0."""
    case = Case("random_apply_affine")
    matrix = torch.from_numpy(case.arrays["mixed/G"]).float()
    matrix[:, :2, 2] *= 2 / 40  # its translations are pixels, ours half-heights
    ours = paired_crop.apply_affine(case.inputs["img"], matrix).numpy().reshape(-1)
    ours = ours[:: int(case.arrays["mixed/y/stride"])]
    assert np.corrcoef(ours, case.arrays["mixed/y/sample"])[0, 1] > 0.85


def test_gradients_pass():
    x = torch.randn(1, 1, 16, 16, requires_grad=True)
    paired_crop.apply_affine(x, paired_crop.rotation(torch.tensor([0.3]))).square().sum().backward()
    assert x.grad.isfinite().all() and x.grad.abs().sum() > 0


def test_same_seed_same_affine():
    a, b = (paired_crop.random_affine(blob(32, 0, 0, batch=4), jitter=ALWAYS, rng=torch.Generator().manual_seed(5))[0]
            for _ in range(2))
    assert a.equal(b)
    with pytest.raises(VToonifyError, match=r"expected \[4,3,3\]"):
        paired_crop.apply_affine(a, torch.eye(3)[None])


def test_random_crop():
    rng = torch.Generator().manual_seed(0)
    windows = [paired_crop.random_crop(256, 128, rng=rng) for _ in range(200)]
    assert {(w.height, w.width) for w in windows} == {(224, 112)}
    assert {w.top for w in windows} >= {0, 32} and {w.left for w in windows} == set(range(17))
    with pytest.raises(VToonifyError, match="too small to crop"):
        paired_crop.random_crop(4, 64)


def test_crop_at_two_scales():
    x = torch.arange(16 * 16.0).reshape(1, 1, 16, 16)
    y = x.repeat_interleave(4, 2).repeat_interleave(4, 3)
    window = Crop(3, 5, 8, 8)
    assert paired_crop.crop(y, window, 4)[..., ::4, ::4].equal(paired_crop.crop(x, window))
