"""The exemplar-based bundle: codes of styles, and the recipe from a bundle with VToonify-T to one with VToonify-D."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_pairs import styled, write_pairs
from people import photograph
from tiny_training import HOLD_OUT, fresh

from vtoonify_lib.config import TINY, VToonifyConfig, VToonifyError
from vtoonify_lib.inference.toonifier import Toonifier
from vtoonify_lib.models.encoders import ParsingNet, StyleEncoder
from vtoonify_lib.models.stylegan2 import Generator
from vtoonify_lib.models.vtoonify import VToonify
from vtoonify_lib.studio import codes
from vtoonify_lib.studio.codes import style_codes
from vtoonify_lib.studio.exemplars import EXEMPLARS, LOOKS, exemplar
from vtoonify_lib.studio.photo_looks import LOOKS as PHOTO_LOOKS
from vtoonify_lib.studio.styles import PHOTO, at
from vtoonify_lib.styles.request import Look
from vtoonify_lib.training import dual_stage, identity, report, studio_d
from vtoonify_lib.training.dualstylegan import fit_sampler
from vtoonify_lib.training.loop import Stage
from vtoonify_lib.training.style_fitting import fitter
from vtoonify_lib.weights.bundle import load_bundle, save_bundle

pytestmark = pytest.mark.usefixtures("one_thread")
WIDE = VToonifyConfig(replace(TINY.generator, style_dim=128), TINY.in_size)  # a style takes 114 numbers


# -- codes -------------------------------------------------------------------------------------------------------------
def test_codes_tell_all_styles_apart_and_leave_each_other_room():
    table = style_codes(128)
    assert table.shape == (len(LOOKS) * EXEMPLARS + 1, 2, 128) and table.dtype == np.float32
    structure, color = (np.abs(table[:, kind]).max(0) > 0 for kind in (0, 1))
    assert not (structure & color).any() and structure[-1] and color[0] and structure.sum() > 60 and color.sum() > 30
    for kind in (0, 1):
        apart = np.linalg.norm(table[:, None, kind] - table[None, :, kind], axis=-1)
        assert apart[~np.eye(len(table), dtype=bool)].min() > 1
    assert np.abs(table).max() < 8 and 0.7 < table[:, 0, structure].std() < 1.3
    with pytest.raises(VToonifyError, match="a style takes 114 numbers, codes have room for 64"):
        style_codes(64)


def test_codes_of_photographs_tell_their_looks_apart():
    table, renders = style_codes(128, photographs=True), style_codes(128)
    assert table.shape == renders.shape and not np.allclose(table, renders, atol=1)
    structure, color = (np.abs(table[:, kind]).max(0) > 0 for kind in (0, 1))
    assert not (structure & color).any() and structure.sum() > 30 and color.sum() == 9
    apart = np.linalg.norm(table[:, None] - table[None], axis=(-1, -2))
    assert apart[~np.eye(len(table), dtype=bool)].min() > 1 and np.abs(table).max() < 10
    shape = table[:-1, 0].reshape(len(PHOTO_LOOKS), EXEMPLARS, -1)
    within, between = shape.std(1).mean(), shape.mean(1).std(0).mean()
    assert between > 0.3 * within  # a look is more than one of its exemplars


@pytest.mark.parametrize("look", LOOKS)
def test_half_way_codes_mean_half_way_styles(look):
    """`styles.at` scales the numbers of a style, all but goals, which are pulled to, and whole tones."""
    style = exemplar(look, 5)[1]
    warps, goals = sorted(style.warp), 3 * len(codes.GOALS)
    for degree in (0.25, 0.5, 1.0):
        ways = style, PHOTO, at(style, degree, degree)
        full, none, found = (np.array(codes._structure(s, warps))[-len(warps):] for s in ways)
        assert not none.any() and np.allclose(found, degree * full)
        full, none, found = (np.array(codes._color(s.palette)) for s in ways)
        scaled = np.isclose(found, none + degree * (full - none))
        assert np.allclose(found[:goals], full[:goals]) and (~scaled[goals:]).sum() <= 2  # where the light comes from


# -- the recipe --------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def start(tmp_path_factory, landmark_file):
    """A bundle with a random VToonify-T whose codes have room for a style."""
    models = {"parsing": {"widths": [8, 8, 16]},
              "style_encoder": {"image_size": 32, "n_latent": 1, "style_dim": 128, "width": 8}}
    networks = {"vtoonify": fresh(VToonify, config=WIDE), "parsing": fresh(ParsingNet, **models["parsing"]),
                "style_encoder": fresh(StyleEncoder, **models["style_encoder"]),
                "base": fresh(Generator, config=WIDE.generator)}
    return save_bundle(tmp_path_factory.mktemp("models") / "wide-t", name="wide-t", title="", config=WIDE,
                       networks=networks, files={"landmarks": landmark_file}, models=models)


def test_from_a_bundle_to_a_bundle(start, tmp_path, monkeypatch):
    """The whole recipe on fake people; only what the renderer would draw is made up."""
    pairs = styled(write_pairs(tmp_path / "pairs"), LOOKS)
    monkeypatch.setattr(type(pairs), "exemplars", lambda self, look: np.full((EXEMPLARS, 64, 64, 3), 90, np.uint8))
    monkeypatch.setattr(studio_d, "render_styles", lambda *a, **k: pairs)
    views = np.random.default_rng(0).integers(0, 255, (8, 3, 64, 64, 3), dtype=np.uint8)
    monkeypatch.setattr(identity, "render_views", lambda *a, **k: views)
    monkeypatch.setattr(report, "_truth", lambda z, number, size, progress: np.random.default_rng(1).integers(
        0, 255, (len(z), len(LOOKS), 3, size, size, 3), dtype=np.uint8))
    monkeypatch.setattr(identity.train_identity, "__defaults__", (8, 3, 2, 2, 2, "cpu"))
    monkeypatch.setattr(studio_d, "fit_sampler", lambda codes, iterations: fit_sampler(codes, iterations=3, batch=32))
    plan = studio_d.StudioDPlan(people=12, hold_out=HOLD_OUT, vtoonify=2, batch=2, window=24, identities=8,
                                identity=2, trials=2, sharpen=2, square=32,
                                dual=(Stage(None, 2, 2),))
    out = tmp_path / "wide-d"
    studio_d.train_studio_d(tmp_path / "runs", out, plan, str(start.folder))
    made = load_bundle(out)
    assert made.config.backbone == "dualstylegan"
    assert {"psnr", "looks", "monotone", "two_people", "equivariance", "read", "identities",
            "dualstylegan"} <= made.metrics.keys()
    assert len(made.styles["names"]) == 96 and set(made.styles["looks"].values()) <= set(made.styles["names"])
    toonifier = Toonifier.load(out, "cpu")
    pictures = [toonifier.image(photograph(), look=Look(style)).astype(int) for style in ("comic", "clay-00", "new")]
    assert all(np.abs(a - b).max() > 0 for a, b in zip(pictures, pictures[1:], strict=False))
    table = torch.from_numpy(style_codes(128))
    assert torch.equal(toonifier.styles.codes("comic-03"), table[2 * EXEMPLARS + 3])
    assert torch.equal(toonifier.styles.null_code, table[-1])
    # what was made can be trained further, and fits styles to pictures
    again = studio_d.initial_task(made)
    weights = made.network("vtoonify").state_dict()
    assert all(torch.equal(again.vtoonify.state_dict()[name], value) for name, value in weights.items())
    assert torch.equal(dual_stage.base_of(made).generator.input.input, start.network("base").input.input)
    read, fitted = (toonifier.style_of(photograph(), fit=fitter(n, progress=False)).codes for n in (0, 3))
    assert read.shape == fitted.shape and not torch.allclose(read, fitted)
    inactive = ~toonifier.styles.active_dims
    assert torch.allclose(read[inactive], fitted[inactive], atol=0.05)
