"""Training VToonify-D: what it is shown, where it starts, what learns, and that it resumes to the bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tiny_training
import torch
import torch.nn.functional as F
from fake_pairs import styled, write_pairs
from tiny_training import HOLD_OUT, SMALL, changed, equal, fresh, log_of, parsing_net, state, task

from vtoonify_lib.config import TINY, VToonifyError
from vtoonify_lib.media.images import to_image
from vtoonify_lib.models import latents
from vtoonify_lib.models.conditional import ConditionalPatches
from vtoonify_lib.models.stylegan2 import Discriminator
from vtoonify_lib.studio.shards import Pairs
from vtoonify_lib.training import augment, exemplars, loop, objectives, vtoonify
from vtoonify_lib.training.adversary import Adversary

pytestmark = pytest.mark.usefixtures("one_thread")
LOOKS, PER_LOOK = ("storybook", "comic"), 2
TINY_D = replace(TINY, backbone="dualstylegan")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Pairs:
    return styled(write_pairs(tmp_path_factory.mktemp("data") / "styles"), LOOKS)


@pytest.fixture(scope="module")
def shown(pairs) -> exemplars.Exemplars:
    return exemplars.Exemplars.from_pairs(pairs, LOOKS, PER_LOOK, HOLD_OUT, 32)


@pytest.fixture
def source(pairs, shown):
    return exemplars.style_source(pairs, shown, 4, HOLD_OUT, window=24)


def duals() -> vtoonify.DualVToonifyTask:
    return fresh(vtoonify.DualVToonifyTask, config=TINY_D, **SMALL)


def train(source, folder, n, start=None, **more):
    return tiny_training.train(start or duals(), source, parsing_net(), folder, n, **{"flicker_from": 0.0, **more})


# -- what it is shown ------------------------------------------------------------------------------------------------
def test_exemplars_show_their_style_at_full_degree(pairs, shown):
    assert [len(p) for p in shown.pictures] == [2, 1, 2, 1]  # of 4, 6, 8: 10 is drawn at half degree
    colours = [p.reshape(-1, 3).mean(0) for p in shown.pictures]
    for look in (0, 2):
        plain, red = colours[look], colours[look + 1]
        assert red[0] > 2 * red[1] and plain[0] < 2 * plain[1]
    assert colours[2].mean() < 0.7 * colours[0].mean()
    with_own = exemplars.Exemplars.from_pairs(pairs, LOOKS, PER_LOOK, HOLD_OUT, 32,
                                              own=lambda look, n: np.full((32, 32, 3), 7, np.uint8))
    assert [len(p) for p in with_own.pictures] == [3, 2, 3, 2] and (with_own.pictures[3][0] == 7).all()


def test_a_style_without_a_picture_is_refused(pairs):
    with pytest.raises(VToonifyError, match="no picture of style 2; render more people, or give its exemplar"):
        exemplars.Exemplars.from_pairs(pairs, LOOKS, 3, HOLD_OUT, 32)


def test_orders_name_the_style_that_the_target_has(pairs, shown, source):
    seen = set()
    for i in range(12):
        pair = source(i)
        condition = pair.condition
        assert (pair.x.shape, pair.y.shape, pair.parsing.shape) == ((4, 3, 24, 24), (4, 3, 48, 48), (4, 24, 24))
        for picture, index, structure, color in zip(*condition[:4], strict=True):
            choices = shown.pictures[int(index)]
            found = to_image(picture[None])[0]
            assert any(np.array_equal(found, c) or np.array_equal(found, c[:, ::-1]) for c in choices)
            assert (structure == 1) == (color == 1)
            seen.add((int(index), float(color)))
    assert {index for index, _ in seen} == {0, 1, 2, 3} and {color for _, color in seen} == {0.25, 1.0}


def test_source_depends_on_seed_and_iteration_alone(pairs, shown, source):
    again = exemplars.style_source(pairs, shown, 4, HOLD_OUT, window=24)
    flat = [torch.cat([t.flatten() for t in (*s(5)[:3], *s(5).condition[:4])]) for s in (source, again)]
    assert torch.equal(*flat) and not torch.equal(source(5).x, source(6).x)


def test_tint_leaves_repainted_people_alone(pairs, monkeypatch):
    for name in ("move", "flip"):
        monkeypatch.setattr(augment, name, lambda batch, g: batch)
    batch = augment.load(pairs, np.array([4, 5]), LOOKS)
    person = (batch.styled_parsing != 0)[:, None].expand(-1, 3, -1, -1)
    made = [augment.augment_batch(batch, torch.Generator().manual_seed(3), repainted=share)
            for share in (None, torch.tensor([0.0, 1.0]))]
    (_, tinted, photo, *_), (_, styled, photo_too, *_) = made
    assert torch.equal(photo, photo_too) and torch.equal(styled[0], tinted[0])
    assert torch.equal(styled[1][person[1]], batch.styled[1][person[1]])
    assert torch.equal(styled[1][~person[1]], tinted[1][~person[1]])
    assert not torch.allclose(tinted, batch.styled, atol=0.02)


# -- where it starts ---------------------------------------------------------------------------------------------------
def test_dual_tasks_begin_as_the_simple_ones():
    simple = task()
    dual = exemplars.dual_task(simple, TINY_D)
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(dual.style(x), simple.style(x).expand(-1, 2, -1))
    for name in ("encoder", "fusion_skip"):
        assert equal(state(dual.vtoonify.get_submodule(name)), state(simple.vtoonify.get_submodule(name)))
    assert equal(state(dual.vtoonify.generator.generator), state(simple.vtoonify.generator))
    assert torch.equal(dual.vtoonify.fusion_out[0].conv.weight, simple.vtoonify.fusion_out[0].weight)


def test_codes_take_structure_from_the_exemplar_and_colours_from_both():
    layers, n = latents.n_latent(TINY.out_size), latents.n_structure()
    face, its = torch.zeros(2, 2, 8), torch.zeros(2, 2, 8)
    for codes in (face, its):  # as `studio.codes` lays them out: structure at the end, colour at the beginning
        codes[:, 0, 4:], codes[:, 1, :4] = torch.randn(2, 4), torch.randn(2, 4)
    for structure, color in ((0.0, 1.0), (torch.tensor([0.0, 0.5]), torch.tensor([0.25, 1.0]))):
        w = latents.styled(face, its, structure, color, layers)
        assert w.shape == (2, layers, 8) and torch.equal(w[:, :n], its[:, :1].expand(-1, n, -1))
        for kind, part, degree in ((0, slice(4, 8), structure), (1, slice(0, 4), color)):
            share = torch.as_tensor(degree).expand(2)[:, None]
            wanted = torch.lerp(face[:, kind, part], its[:, kind, part], share)
            assert all(torch.allclose(w[:, layer, part], wanted) for layer in range(n, layers))


def test_known_codes_draw_the_picture_and_teach_the_style_encoder(pairs, shown):
    table = np.random.default_rng(0).normal(size=(5, 2, 32)).astype(np.float32)
    source = exemplars.style_source(pairs, shown, 4, HOLD_OUT, window=24, codes=table,
                                    table_code_until=3)
    pair, later = source(0), source(3)
    assert pair.condition.use_table_code.all() and 0 < later.condition.use_table_code.sum() < 4
    assert np.array_equal(pair.condition.codes.numpy(), table[pair.condition.index.numpy()])
    assert np.array_equal(pair.condition.null_code.numpy(), np.broadcast_to(table[-1:], (4, 2, 32)))
    net = duals()
    w, loss = net.read(pair)
    layers = latents.n_latent(TINY.out_size)
    known = pair.condition
    drawn_by = latents.styled(known.null_code, known.codes, known.structure, known.color, layers)
    assert torch.equal(w, drawn_by) and loss > 0
    loss.backward()
    assert net.style.head[-1].weight.grad.abs().max() > 0
    w, _ = net.read(later)
    assert not w.requires_grad  # drawing does not bend the style encoder
    seen = net.style(later.condition.exemplar)[:, 0]
    for k, known in enumerate(later.condition.use_table_code):
        assert torch.allclose(w[k, 0], later.condition.codes[k, 0] if known else seen[k])


# -- training ----------------------------------------------------------------------------------------------------------
def test_three_steps_change_encoder_modres_masks_and_style_encoder(source, tmp_path):
    start = duals()
    trained, _ = train(source, tmp_path, 3, start)
    parts = {name.split(".", 1)[1] for name in changed(state(start), state(trained))}
    for part in ("style.", "vtoonify.encoder.", "vtoonify.res.1.", "vtoonify.fusion_out.0.conv2.",
                 "vtoonify.fusion_out.0.linear.", "vtoonify.generator.res.7.", "vtoonify.generator.style.1."):
        assert any(name.startswith(part) for name in parts), part
    assert {"mask", "flicker", "picture", "feature"} <= set(log_of(tmp_path)[-1])


def test_the_paper_recipe_leaves_the_generator_alone(source, tmp_path):
    start = duals()
    trained, _ = train(source, tmp_path, 2, start, recipe="paper")
    moved = changed(state(start.vtoonify), state(trained.vtoonify))
    assert moved and not any(name.startswith("0.generator.") for name in moved)


def test_no_loss_drowns_the_others_or_is_drowned(pairs, shown):
    """How hard each pulls at all weights, over the picture's loss: measured here, and ten times either way allowed."""
    table = 0.1 * np.random.default_rng(0).normal(size=(5, 2, 32)).astype(np.float32)
    pair = exemplars.style_source(pairs, shown, 4, HOLD_OUT, window=24, codes=table,
                                  table_code_until=3)(0)
    net, parsing = duals(), parsing_net().requires_grad_(False)
    out, parts = vtoonify._losses(net, parsing, objectives.OurLosses(parsing), pair, vtoonify.FLICKER_WEIGHT, 1.0,
                                  loop.rng_for(0, 0))
    adversary = Adversary(fresh(Discriminator, 1, config=TINY.generator))
    parts["sharp"] = vtoonify.SHARPEN_WEIGHT * adversary.generator_loss(F.interpolate(out.float(), (64, 64)))
    weights = [p for p in net.parameters() if p.requires_grad]

    def pull(loss):
        found = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
        return sum(g.square().sum().item() for g in found if g is not None) ** 0.5

    usual = {"feature": 1e-2, "flicker": 0.4, "mask": 3e-5, "code": 5e-4, "sharp": 1.4e-3}
    assert usual.keys() | {"picture"} == parts.keys()
    assert {name: pull(parts[name]) / pull(parts["picture"]) for name in usual} == {
        name: pytest.approx(ratio * 5.05, rel=0.98) for name, ratio in usual.items()}  # from a tenth to ten times


def test_one_batch_is_learnt(pairs, shown, tmp_path):
    pair = exemplars.style_source(pairs, shown, 4, HOLD_OUT, window=24)(0).first(2)
    train(lambda i: pair, tmp_path, 40, lr=6e-3, flicker_from=1.0)
    first, last = (float(row["picture"]) for row in (log_of(tmp_path)[0], log_of(tmp_path)[-1]))
    assert last < 0.75 * first


def test_sharpening_asks_about_degree_and_style_and_resumes_to_the_bit(source, tmp_path, monkeypatch):
    def make_adversary():
        return Adversary(ConditionalPatches(len(LOOKS) * PER_LOOK, width=8), r1_weight=0.0)

    more = {"make_adversary": make_adversary, "square": 32}
    whole = train(source, tmp_path / "a", 3, **more)
    calls, optimizer_step = [], loop.optimizer_step

    def killed(*a, **k):
        calls.append(1)
        if len(calls) > 2:  # in the second step: each has two descents
            raise KeyboardInterrupt
        optimizer_step(*a, **k)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "SAVE_SECONDS", -1)
        patch.setattr(loop, "optimizer_step", killed)
        with pytest.raises(KeyboardInterrupt):
            train(source, tmp_path / "b", 3, **more)
    assert torch.load(tmp_path / "b" / "last.pt", weights_only=True)["iteration"] == 1
    assert equal(state(*whole), state(*train(source, tmp_path / "b", 3, **more)))
    assert float(log_of(tmp_path / "a")[-1]["adversary"]) > 0
    names = torch.load(tmp_path / "a" / "last.pt", weights_only=True)["adversary"]
    assert names["style_mapper.weight"].shape[0] == 4


def test_sheet_has_a_row_for_the_exemplars(source):
    assert vtoonify.sheet(duals(), parsing_net(), source(0)).size == (4 * 48, 4 * 48)
