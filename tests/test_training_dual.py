"""DualStyleGAN's training: the base stays, the extrinsic path learns to mix and to draw styles, artworks are read."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fake_pairs import styled
from tiny_training import HOLD_OUT, changed, distilled, equal, fresh, log_of, parsing_net, state

from vtoonify_lib import latents
from vtoonify_lib.config import TINY
from vtoonify_lib.training import data, dualstylegan, exemplars

pytestmark = pytest.mark.usefixtures("one_thread")
LOOKS, PER_LOOK = ("storybook", "comic"), 2


@pytest.fixture(scope="module")
def lessons(pairs):
    pairs = styled(pairs, LOOKS)
    shown = exemplars.Exemplars.of(pairs, LOOKS, PER_LOOK, HOLD_OUT, 32)
    return exemplars.portrait_source(pairs, shown, LOOKS, PER_LOOK, 4, 64, HOLD_OUT)


@pytest.fixture
def dual():
    return dualstylegan.DualDistilled.on(distilled(), 8)


@pytest.fixture
def bank():
    return torch.randn(32, TINY.generator.style_dim, generator=torch.Generator().manual_seed(4))


def test_it_begins_as_the_base(dual):
    base, photo = distilled(), torch.randn(2, 3, 32, 32)
    order = SimpleNamespace(exemplar=torch.randn(2, 3, 32, 32), structure=torch.zeros(2), color=torch.zeros(2))
    assert torch.allclose(dual(photo, order), base(photo), atol=1e-5)
    assert torch.equal(dual.extrinsic(photo)[:, 0], base.code(photo))


def test_spread_gives_structure_and_colour_layers_their_code():
    codes = torch.randn(3, 2, 5)
    w, n = latents.spread(codes, 10), latents.n_structure()
    assert torch.equal(w[:, :n], codes[:, :1].expand(-1, n, -1))
    assert torch.equal(w[:, n:], codes[:, 1:].expand(-1, 10 - n, -1))


def test_mixing_walks_from_colour_to_structure():
    assert [dualstylegan.mixing_layer(i, 100) for i in (0, 9, 10, 19, 20, 99)] == [7, 7, 6, 6, 5, 5]


def test_pretraining_mixes_better_and_touches_the_extrinsic_path_alone(dual, bank, tmp_path):
    @torch.no_grad()
    def error(model):
        own, other = (model.generator.generator.to_w(codes, "w") for codes in (bank[:8], bank[8:16]))
        mixed = model.generator.generator.synthesize(latents.mix(own, other, 5))
        return float((model.generator(own, other, 1.0, space="w") - mixed).abs().mean())

    before, first = state(dual), error(dual)
    dualstylegan.pretrain(dual, bank, tmp_path, 100, 4, lr=5e-3)
    assert error(dual) < 0.9 * first
    assert float(log_of(tmp_path)[-1]["mixing"]) > 0
    moved = {name.split(".", 1)[1] for name in changed(before, state(dual))}
    assert moved and all(name.startswith(("generator.res.", "generator.style.")) for name in moved)


@pytest.mark.parametrize("until", [None, 32])
def test_teaching_lowers_the_loss_and_leaves_the_base_and_the_person_encoder_alone(dual, lessons, tmp_path, until):
    if until:
        whole, lessons_at = lessons, data.half
        lessons = lambda i: (whole(i)[0], lessons_at(whole(i)[1]), whole(i)[2])  # noqa: E731
    before = state(dual)
    averaged = dualstylegan.teach(dual, lessons, parsing_net(), tmp_path, 60, until)
    first, last = (float(row["picture"]) for row in (log_of(tmp_path)[0], log_of(tmp_path)[-1]))
    assert last < 0.95 * first
    moved = {name.split(".", 1)[1] for name in changed(before, state(dual))}
    assert all(name.startswith(("generator.res.", "generator.style.", "style.")) for name in moved)
    assert {name.split(".")[0] for name in moved} == {"generator", "style"}
    photo, target, order = lessons(0)
    assert averaged(photo, order, until).shape == target.shape
    assert (tmp_path / "samples" / "0000060.jpg").is_file()


@pytest.mark.parametrize("kind", ["pretrain", "teach"])
def test_resume_is_exact(kind, lessons, bank, tmp_path):
    def run(folder, **more):
        dual = dualstylegan.DualDistilled.on(distilled(), 8)
        if kind == "pretrain":
            return state(dual, dualstylegan.pretrain(dual, bank, folder, 4, 4, **more))
        return state(dual, dualstylegan.teach(dual, lessons, parsing_net(), folder, 4, **more))

    whole = run(tmp_path / "a")
    with pytest.MonkeyPatch.context() as patch:
        clock = iter(range(10**6))
        patch.setattr("vtoonify_lib.training.loop.time", SimpleNamespace(monotonic=lambda: next(clock)))
        run(tmp_path / "b", seconds=6)
    assert 0 < torch.load(tmp_path / "b" / "last.pt", weights_only=True)["iteration"] < 4
    assert equal(whole, run(tmp_path / "b"))


def test_lessons_show_aligned_people_in_the_ordered_style(pairs, lessons):
    numbers = set()
    for i in range(8):
        photo, target, order = lessons(i)
        assert (photo.shape, target.shape) == ((4, 3, 64, 64), (4, 3, 64, 64))
        numbers |= set(order.index.tolist())
        red = target[:, 0].mean((1, 2)) - target[:, 1].mean((1, 2))
        full = order.color == 1
        assert all(red[full & (order.index % 2 == 1)] > 0.1)
    assert numbers == {0, 1, 2, 3}
    assert torch.equal(lessons(3)[1], lessons(3)[1]) and not torch.equal(lessons(3)[0], lessons(4)[0])


def test_destylise_and_refine_come_nearer_to_an_artwork(dual, lessons):
    _, target, order = lessons(0)
    picture, net = target[:1], parsing_net()
    full = dual.generator.degrees(1.0, 1.0)
    guess = dual.encoder(picture)[:, 0]
    person = dualstylegan.destylise(dual, picture, net, 30)

    @torch.no_grad()
    def error(who, codes):
        out = dual.generator(who, latents.spread(codes, dual.generator.n_latent), full, space="w")
        return float((out - picture).abs().mean())

    first = dual.style(picture)
    assert error(person, first) < 0.98 * error(guess, first)
    codes = dualstylegan.refine(dual, picture, net, 30, person=person)
    assert codes.shape == (1, 2, TINY.generator.style_dim) and error(person, codes) < error(person, first)


def test_sampler_draws_codes_like_those_it_was_shown():
    codes = torch.tensor([3.0, -3.0])[:, None] + 0.2 * torch.randn(64, 2, 8, generator=torch.Generator().manual_seed(1))
    sampler = fresh(lambda: dualstylegan.fit_sampler(codes, iterations=1200, batch=64, directions=32))
    drawn = sampler(torch.randn(256, 16)).reshape(-1, 2, 8)
    assert np.allclose(drawn.mean((0, 2)), [3, -3], atol=0.4)
    assert not any(p.requires_grad for p in sampler.parameters())
