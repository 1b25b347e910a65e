"""Filters that the drawing techniques share."""

from __future__ import annotations

import numpy as np

from vtoonify_lib.studio.filters import along, guided, laid_to_edges, luma, structure
from vtoonify_lib.studio.photo_techniques import kuwahara


def test_guided_filter_keeps_edges_and_smooths_the_rest():
    rng = np.random.default_rng(0)
    clean = np.repeat((np.arange(64) > 31).astype(np.float32)[None], 64, 0) * 0.6 + 0.2
    out = guided(clean + 0.02 * rng.standard_normal((64, 64)).astype(np.float32), 5, 0.06)
    assert np.abs(out - clean)[:, :26].mean() < 0.008 and (out[:, 36] - out[:, 27]).mean() > 0.5


def test_strokes_follow_stripes():
    rows, columns = np.mgrid[:64, :64].astype(np.float32)
    stripes = 0.5 + 0.3 * np.sin(rows)
    direction, coherence = structure(stripes, 2.0)
    assert np.abs(direction[20:44, 20:44, 0]).min() > 0.98 and coherence[20:44, 20:44].min() > 0.9
    noisy = stripes + 0.2 * np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    smooth = along(noisy.astype(np.float32), direction, 6)
    assert np.abs(smooth - stripes)[16:48, 16:48].mean() < 0.5 * np.abs(noisy - stripes)[16:48, 16:48].mean()


def test_kuwahara_flattens_and_keeps_edges():
    rng = np.random.default_rng(1)
    clean = np.repeat(((np.arange(48) > 23) * 0.6 + 0.2)[None, :, None], 48, 0).repeat(3, 2).astype(np.float32)
    out = kuwahara(clean + 0.05 * rng.standard_normal(clean.shape).astype(np.float32), 5)
    assert np.abs(out - clean)[8:40, 8:40].mean() < 0.025 and (out[10:38, 25] - out[10:38, 22]).mean() > 0.45


def alike_in_brightness():
    """Skin before a wall as bright as it, [96,96,3], and where the skin is."""
    skin, wall = np.float32([0.62, 0.46, 0.40]), np.float32([0.45, 0.55, 0.38])
    wall *= luma(skin) / luma(wall)
    there = (np.arange(96) < 40)[None].repeat(96, 0)
    noise = 0.01 * np.random.default_rng(0).standard_normal((96, 96, 3))
    return (np.where(there[..., None], skin, wall) + noise).astype(np.float32), there


def test_edges_of_colour_alone_stay():
    picture, there = alike_in_brightness()
    out = guided(picture, 6, 0.045)
    step = (out[:, 38, 0] - out[:, 41, 0]).mean()
    assert step > 0.75 * (picture[:, :30, 0].mean() - picture[:, 60:, 0].mean())
    assert out[:, :30].std((0, 1)).max() < 0.4 * picture[:, :30].std((0, 1)).max()


def test_coarse_masks_are_laid_to_edges_of_colour():
    picture, there = alike_in_brightness()
    coarse = (np.arange(24) < 11)[None].repeat(24, 0).astype(np.float32)  # a cell too far: to 44 instead of 40
    mask = laid_to_edges(coarse, picture, 12, 0.03)
    assert mask.shape == (96, 96) and 0 <= mask.min() and mask.max() <= 1
    assert mask[:, :30].mean() > 0.95 and mask[:, 60:].mean() < 0.05
    assert (mask[:, 38] - mask[:, 41]).mean() > 0.45
