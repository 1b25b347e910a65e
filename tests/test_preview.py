"""Drawing one picture again and again: the same as drawing it once, only with less work."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from errors import refuses
from people import photograph

from vtoonify_lib.config import VToonifyError
from vtoonify_lib.inference.preview import Preview, wipe
from vtoonify_lib.inference.toonifier import Toonifier
from vtoonify_lib.models.latents import layer_names
from vtoonify_lib.styles.request import Keyframes, Look


@pytest.fixture(scope="module")
def styled():
    """The shipped bundle with styles."""
    return Toonifier.load("studio-d", device="cpu")


@pytest.fixture(scope="module")
def portrait(styled):
    from vtoonify_lib.inference.toonifier import SAMPLE

    return SAMPLE.with_name("portrait_1.jpg")


def near(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and np.abs(a.astype(int) - b).mean() < 0.5


def test_it_draws_what_the_toonifier_draws(styled, portrait):
    preview = Preview(styled, portrait)
    for look in (Look("comic"), Look("clay-03", structure=0.3, color=1.0), Look("comic")):  # last: nothing was spoilt
        assert np.array_equal(preview.draw(look), styled.image(portrait, look=look))


def test_a_bundle_of_one_style_can_be_previewed_too(toonifier):
    preview = Preview(toonifier, photograph())
    assert np.array_equal(preview.draw(), toonifier.image(photograph()))
    assert preview.crop.ndim == 3 and preview.draw().shape[0] == 2 * preview.crop.shape[0]


def test_faces_and_features_are_found_once(styled, portrait, monkeypatch):
    preview = Preview(styled, portrait)
    preview.draw(Look("comic"))

    def never(*_, **__):
        raise AssertionError("found or parsed again")

    monkeypatch.setattr(styled.finder, "faces", never)
    monkeypatch.setattr(styled.networks, "parsing", never)
    monkeypatch.setattr(styled.networks, "encode", never)
    assert not near(preview.draw(Look("comic", structure=0.0)), preview.draw(Look("comic", structure=1.0)))


def test_layers_choose_how_much_style_each_reads(styled, portrait):
    preview, count = Preview(styled, portrait), len(layer_names(styled.config.out_size))
    look = Look("comic", structure=1.0, color=1.0)
    whole = preview.draw(look)
    assert near(preview.draw(replace(look, layers=[1.0] * count)), whole)
    fine = [0.0] * 7 + [1.0] * (count - 7)
    coarse = [1.0 - share for share in fine]
    drawn = [preview.draw(replace(look, layers=layers)).astype(int) for layers in (fine, coarse, [0.0] * count)]
    assert near(styled.image(portrait, look=replace(look, layers=fine)), drawn[0])
    assert all(np.abs(a - whole).mean() > 1 for a in drawn)
    plain = preview.draw(Look("comic", structure=0.0, color=0.0)).astype(int)
    assert np.abs(drawn[0] - plain).mean() > np.abs(drawn[1] - plain).mean()  # colours live in the fine layers


@pytest.mark.parametrize("layers", [[1.0], [2.0] * 14, [-0.1] + [1.0] * 13, [float("nan")] * 14])
def test_layers_out_of_range_are_refused(styled, portrait, layers):
    with pytest.raises(VToonifyError, match="numbers from 0 to 1"):
        Preview(styled, portrait).draw(Look("comic", layers=layers))


def test_what_cannot_be_drawn_is_said(styled, toonifier):
    with refuses("no-face"):
        Preview(styled, np.full((200, 200, 3), 128, np.uint8))
    preview = Preview(toonifier, photograph())
    with pytest.raises(VToonifyError, match="has one look"):
        preview.draw(Look("comic"))
    with pytest.raises(VToonifyError, match="keyframes are for clips"):
        Preview(styled, photograph()).draw(Look("comic", structure=Keyframes(((0.0, 1.0),))))


def test_layer_names():
    assert layer_names(64) == ["4²", "8² a", "8² b", "16² a", "16² b", "32² a", "32² b", "64² a", "64² b", "64² rgb"]


def test_wipe_uncovers_from_the_left():
    before, after = np.zeros((4, 6, 3), np.uint8), np.full((8, 12, 3), 200, np.uint8)
    half = wipe(before, after, 0.5)
    assert half.shape == after.shape and not half[:, :5].any() and (half[:, 7:] == 200).all()
    assert (half[:, 5:7] == 255).all()
    assert np.array_equal(wipe(before, after, 0.0), after) and not wipe(before, after, 1.0).any()
    assert after.min() == 200  # the original is left alone
