"""The photograph's own detail, carried into the picture along a flow and behind a mask."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import carrying
from people import photograph, scene, write_clip

from vtoonify_lib.config import INPUT_CHANNELS, TINY, VToonifyConfig, VToonifyError
from vtoonify_lib.faces.crop import cut
from vtoonify_lib.inference.toonifier import Toonifier
from vtoonify_lib.media.images import sharpened
from vtoonify_lib.media.video import read_frames
from vtoonify_lib.models.detail import detail_of, warp, with_detail
from vtoonify_lib.training.starting import initial_task
from vtoonify_lib.weights.bundle import load_bundle

BOTH = pytest.mark.parametrize("backbone", ["toonify", "dualstylegan"])
DRAWN = -30.0  # logit of the mask


def network(backbone="toonify", detail=4):
    return carrying(replace(TINY, backbone=backbone, detail=detail))


def frame(net, height=32, width=40):
    detail = net.config.detail
    photo = torch.rand(2, 3, detail * height, detail * width) * 2 - 1
    return with_detail(torch.randn(2, INPUT_CHANNELS, height, width), photo, detail), photo, torch.randn(2, 10, 32)


@BOTH
@pytest.mark.parametrize("detail", [2, 4])
def test_a_mask_of_one_is_the_photograph_and_of_none_the_drawing(backbone, detail):
    net = network(backbone, detail)
    x, photo, w = frame(net)
    assert torch.allclose(detail_of(x, INPUT_CHANNELS, detail), photo)
    assert torch.allclose(net(x, w), photo, atol=1e-5)
    net.detail.pixels.bias[3 * (detail // 2) ** 2:] = DRAWN
    drawn = net(x, w)
    assert drawn.shape == photo.shape and (drawn - photo).abs().mean() > 0.1
    other = with_detail(x[:, :INPUT_CHANNELS], photo.flip(3), detail)
    assert not torch.allclose(net(other, w), drawn, atol=1e-3), "the encoder does not read the photograph's pixels"


def test_a_flow_fetches_from_where_it_points_to():
    y, x = torch.meshgrid(torch.arange(24.0), torch.arange(32.0), indexing="ij")
    photo, flow = torch.stack([x, y, x + y])[None], torch.zeros(1, 2, 6, 8)
    flow[:, 0], flow[:, 1] = 1.5, -0.5  # input pixels, of 4 each
    moved = warp(photo, flow, 4)[0, :, 8:16, 8:20]
    assert torch.allclose(moved[0], x[8:16, 8:20] + 6, atol=1e-3)
    assert torch.allclose(moved[1], y[8:16, 8:20] - 2, atol=1e-3)


def test_the_picture_is_as_large_as_the_detail():
    config = replace(TINY, detail=8)
    assert (TINY.scale, config.scale, config.generator_scale, config.input_channels) == (2, 8, 2, 22 + 192)
    assert VToonifyConfig.from_dict(config.to_dict()) == config and "detail" not in TINY.to_dict()
    with pytest.raises(VToonifyError, match="detail is 3; it must be a multiple of 2"):
        replace(TINY, detail=3)


def test_input_without_detail_is_refused():
    net = network()
    with pytest.raises(VToonifyError, match=r"expected \[B,70,H,W\].*with_detail"):
        net(torch.zeros(1, INPUT_CHANNELS, 32, 32), torch.zeros(1, 10, 32))


@BOTH
def test_training_begins_with_the_photograph_and_a_quarter_of_the_drawing(backbone):
    bundle = load_bundle("studio-t")
    network = initial_task(bundle, replace(bundle.config, detail=4, backbone=backbone)).vtoonify.eval()
    x, photo, _ = frame(network, 64, 64)
    w = torch.zeros(1, network.generator.n_latent, 128)
    with torch.no_grad():
        picture, _, flow = network.draw(x[:1], w)
    drawn = 4 * picture - 3 * photo[:1]
    halves = F.avg_pool2d(drawn, 2)
    assert not flow.any()
    assert torch.allclose(F.interpolate(halves, scale_factor=2, mode="bilinear")[..., 2:-2, 2:-2],
                          drawn[..., 2:-2, 2:-2], atol=0.2), "a quarter is not the generator's picture, enlarged"


def test_a_bundle_that_carries_everything_gives_the_photograph(detailed):
    toonifier = Toonifier(detailed)
    face = toonifier.face_in(photograph())
    expected = cut(face.picture, face.plan, grow=8)
    assert face.crop.shape == expected.shape == toonifier.image(photograph()).shape
    assert np.abs(toonifier.image(photograph()).astype(int) - expected).max() <= 1
    whole = toonifier.image(photograph(), frame="full")
    assert whole.shape == photograph().shape
    assert np.abs(whole.astype(int) - photograph()).mean() < 6  # its eyes are further apart than 64 px


@pytest.mark.parametrize("frame", ["crop", "full"])
def test_a_clip_that_is_carried_over_stays_as_it_is(detailed, tmp_path, frame):
    toonifier, frames = Toonifier(detailed), [scene(people=((60 + 2 * i, 0, 240),)) for i in range(4)]
    src = write_clip(tmp_path / "a.mp4", frames)
    card = tmp_path / "card.png"
    toonifier.video(src, tmp_path / "b.mp4", frame=frame, card=card, progress=False)
    drawn = [item.rgb for item in read_frames(tmp_path / "b.mp4")]
    assert len(drawn) == 4
    if frame == "full":
        assert np.abs(drawn[0].astype(int) - next(read_frames(src)).rgb).mean() < 6
    else:
        assert drawn[0].shape[0] % 64 == 0 and Toonifier(detailed).finder.faces(drawn[0])
    told = json.loads(card.with_suffix(".json").read_text())
    assert told["equivariance"] < 3, "a photograph that is carried over moves with the camera"


def test_pictures_are_sharpened_as_the_bundle_says(detailed):
    """In use alone: the network itself, and what is trained further from it, know nothing of it."""
    plain, sharp = Toonifier(detailed), Toonifier(replace(detailed, info={
        **detailed.info, "config": {**detailed.config.to_dict(), "sharpen": 0.5}}))
    assert sharp.config.sharpen == 0.5
    assert np.array_equal(sharp.image(photograph()), sharpened(plain.image(photograph())[None], 0.5)[0])
    assert initial_task(sharp.bundle, detailed.config).vtoonify.config == sharp.config
    versions = [toonifier.bundle.version("vtoonify") for toonifier in (plain, sharp)]
    assert len(set(versions)) == 2, "a recipe, or a clip half drawn, of the one would go on with the other"
    assert plain.bundle.version("parsing") == sharp.bundle.version("parsing")
