"""DualStyleGAN's training: the base stays, the extrinsic path learns to mix and to draw styles, artworks are read."""

from __future__ import annotations

import pytest
import torch
from fake_pairs import styled
from tiny_training import HOLD_OUT, SMALL, changed, distilled, equal, fresh, killed_after, log_of, parsing_net, state

from vtoonify_lib.config import TINY, VToonifyError
from vtoonify_lib.models import latents
from vtoonify_lib.models.encoders import StyleEncoder
from vtoonify_lib.training import augment, dualstylegan, exemplars, loop, style_fitting
from vtoonify_lib.training.dualstylegan import StyleSettings
from vtoonify_lib.training.pairs import StyleCondition

pytestmark = pytest.mark.usefixtures("one_thread")
LOOKS, PER_LOOK = ("storybook", "comic"), 2


@pytest.fixture(scope="module")
def lessons(pairs):
    pairs = styled(pairs, LOOKS)
    shown = exemplars.Exemplars.from_pairs(pairs, LOOKS, PER_LOOK, HOLD_OUT, 32)
    return exemplars.portrait_source(pairs, shown, 4, 64, HOLD_OUT)


@pytest.fixture
def dual():
    return dualstylegan.DualDistilled.from_base(distilled())


def two_codes(style_dim: int = TINY.generator.style_dim, n_latent: int = 2) -> StyleEncoder:
    """The style encoder of some VToonify-D, which starts with codes of unit size."""
    style = fresh(StyleEncoder, 9, n_latent=n_latent, style_dim=style_dim, **SMALL)
    style.head[-1].weight.data.div_(style.FIRST_OFFSET)
    return style


@pytest.fixture
def bank():
    return torch.randn(32, TINY.generator.style_dim, generator=torch.Generator().manual_seed(4))


def test_it_begins_as_the_base(dual):
    base, photo = distilled(), torch.randn(2, 3, 32, 32)
    condition = StyleCondition(torch.randn(2, 3, 32, 32), torch.zeros(2).long(), torch.zeros(2), torch.zeros(2))
    assert torch.allclose(dual(photo, condition), base(photo), atol=1e-5)
    assert torch.equal(dual.extrinsic(dual.style(photo))[:, 0], base.code(photo))


def test_it_draws_by_the_codes_that_an_order_tells(dual, monkeypatch):
    seen = []
    monkeypatch.setattr(dual, "extrinsic", lambda codes, structure: (seen.append(codes), latents.spread(codes, 10))[1])
    exemplar, codes, one = torch.randn(2, 3, 32, 32), torch.randn(2, 2, TINY.generator.style_dim), torch.ones(2)
    dual(exemplar, StyleCondition(exemplar, one.long(), one, one, codes, None, torch.tensor([True, False])))
    assert torch.equal(seen[0][0], codes[0]) and torch.equal(seen[0][1], dual.style(exemplar)[1])


def test_it_can_begin_with_a_style_encoder_of_its_own():
    base, style, photo = distilled(), two_codes(), torch.randn(2, 3, 32, 32)
    dual = dualstylegan.DualDistilled.from_base(base, style)
    assert torch.equal(dual.style(photo), style(photo)) and dual.style is not style
    assert torch.equal(dual.encoder(photo)[:, 0], base.code(photo))
    with pytest.raises(VToonifyError, match="gives 1 codes of 32 numbers; expected 2 of 32: take the one of"):
        dualstylegan.DualDistilled.from_base(base, two_codes(n_latent=1))
    with pytest.raises(VToonifyError, match="gives 2 codes of 16 numbers"):
        dualstylegan.DualDistilled.from_base(base, two_codes(16))


def test_equalised_layers_learn_at_a_rate_that_moves_them(dual):
    dual.requires_grad_(False)
    dual.generator.style.requires_grad_(True)
    dual.generator.res.requires_grad_(True)
    groups = loop.equalised_rates(dual)
    rates = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    learning = [*dual.generator.style.parameters(), *dual.generator.res.parameters()]
    assert sum(len(group["params"]) for group in groups) == len(rates) and rates.keys() == set(map(id, learning))
    block, transform, color = dual.generator.res[0], dual.generator.style[1], dual.generator.res[-1]
    assert rates[id(block.norm.style.weight)] == 1
    assert rates[id(block.conv[0].weight)] == rates[id(color.weight)] == 5
    assert rates[id(transform.weight)] == pytest.approx(500)


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
    dualstylegan.pretrain(dual, bank, tmp_path, 60, 4, lr=5e-3)
    assert error(dual) < 0.8 * first and (tmp_path / "samples" / "0000060.jpg").is_file()
    assert float(log_of(tmp_path)[-1]["mixing"]) > 0
    moved = {name.split(".", 1)[1] for name in changed(before, state(dual))}
    assert moved and all(name.startswith(("generator.res.", "generator.style.")) for name in moved)


def test_teaching_can_leave_the_style_encoder_alone(lessons, tmp_path):
    dual = dualstylegan.DualDistilled.from_base(distilled(), two_codes())
    before = state(dual)
    averaged = dualstylegan.train_styles(dual, lessons, parsing_net(), tmp_path,
                                         StyleSettings(12, fixed_style=True, lr=5e-3))
    for model in (dual, averaged):
        moved = {name.split(".", 1)[1] for name in changed(before, state(model))}
        assert moved and all(name.startswith(("generator.res.", "generator.style.")) for name in moved)


def test_the_norm_is_that_of_the_convolutions_of_modres(dual, lessons, tmp_path):
    kernels = [conv[0].weight for block in dual.generator.res[:7] for conv in (block.conv, block.conv2)]
    norm = sum(float(p.detach().square().mean()) for p in kernels) / len(kernels)
    dualstylegan.train_styles(dual, lessons, parsing_net(), tmp_path, StyleSettings(1))
    assert float(log_of(tmp_path)[0]["norm"]) == pytest.approx(dualstylegan.NORM_WEIGHT * norm, rel=1e-4)


@pytest.mark.parametrize("until", [None, 32])
def test_teaching_lowers_the_loss_and_leaves_the_base_and_the_person_encoder_alone(dual, lessons, tmp_path, until):
    if until:
        whole, lessons_at = lessons, augment.half
        lessons = lambda i: (whole(i)[0], lessons_at(whole(i)[1]), whole(i)[2])  # noqa: E731
    before = state(dual)
    averaged = dualstylegan.train_styles(dual, lessons, parsing_net(), tmp_path, StyleSettings(30, until, lr=4e-3))
    first, last = (float(row["picture"]) for row in (log_of(tmp_path)[0], log_of(tmp_path)[-1]))
    assert last < 0.95 * first
    moved = {name.split(".", 1)[1] for name in changed(before, state(dual))}
    assert all(name.startswith(("generator.res.", "generator.style.", "style.")) for name in moved)
    assert {name.split(".")[0] for name in moved} == {"generator", "style"}
    photo, target, condition = lessons(0)
    assert averaged(photo, condition, until).shape == target.shape
    assert (tmp_path / "samples" / "0000030.jpg").is_file()


@pytest.mark.parametrize("kind", ["pretrain", "teach", "fixed"])
def test_resume_is_exact(kind, lessons, bank, tmp_path):
    def run(folder):
        dual = dualstylegan.DualDistilled.from_base(distilled())
        if kind == "pretrain":
            return state(dual, dualstylegan.pretrain(dual, bank, folder, 4, 4))
        return state(dual, dualstylegan.train_styles(dual, lessons, parsing_net(), folder,
                                                     StyleSettings(4, fixed_style=kind == "fixed")))

    whole = run(tmp_path / "a")
    with killed_after(2), pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b")
    assert 0 < torch.load(tmp_path / "b" / "last.pt", weights_only=True)["iteration"] < 4
    assert equal(whole, run(tmp_path / "b"))


def test_lessons_show_aligned_people_in_the_ordered_style(pairs, lessons):
    numbers = set()
    for i in range(8):
        photo, target, condition = lessons(i)
        assert (photo.shape, target.shape) == ((4, 3, 64, 64), (4, 3, 64, 64))
        numbers |= set(condition.index.tolist())
        red = target[:, 0].mean((1, 2)) - target[:, 1].mean((1, 2))
        full = condition.color == 1
        assert all(red[full & (condition.index % 2 == 1)] > 0.1)
    assert numbers == {0, 1, 2, 3}
    assert torch.equal(lessons(3)[1], lessons(3)[1]) and not torch.equal(lessons(3)[0], lessons(4)[0])


def test_destylise_and_refine_come_nearer_to_an_artwork(dual, lessons):
    _, target, condition = lessons(0)
    picture, net = target[:1], parsing_net()
    guess, likeness = dual.encoder(picture)[:, 0], likeness_of(dual, picture, net)
    person = style_fitting.destylise(dual, picture, net, 30)
    first = dual.style(picture)
    assert person.shape == guess.shape and likeness(person, first) < 0.98 * likeness(guess, first)
    codes = style_fitting.refine(dual, picture, net, 30, person=person)
    assert codes.shape == (1, 2, TINY.generator.style_dim) and not codes.requires_grad
    assert likeness(person, codes) < 0.98 * likeness(person, first)


def likeness_of(dual, picture, net):
    loss, full = style_fitting._likeness(dual, picture, net)

    @torch.no_grad()
    def likeness(who, codes):
        return float(loss(dual.generator(who, dual.extrinsic(codes), full, space="w")))

    return likeness


def test_refine_never_ends_worse_than_it_began(dual, lessons):
    picture, net = lessons(0)[1][:1], parsing_net()
    person, first = dual.encoder(picture)[:, 0], dual.style(picture)
    wild = style_fitting.refine(dual, picture, net, 2, color_lr=1e3, structure_lr=1e3, person=person)
    assert torch.equal(wild, first)
    tame = style_fitting.refine(dual, picture, net, 5, color_lr=0.0, person=person)
    assert torch.equal(tame[:, 1], first[:, 1]) and not torch.equal(tame[:, 0], first[:, 0])


def test_refine_moves_only_numbers_that_mean_something(dual, lessons):
    picture, net = lessons(0)[1][:1], parsing_net()
    person, first = dual.encoder(picture)[:, 0], dual.style(picture)
    active_dims = torch.rand(2, TINY.generator.style_dim, generator=torch.Generator().manual_seed(0)) < 0.5
    codes = style_fitting.refine(dual, picture, net, 5, person=person, active_dims=active_dims)[0]
    assert torch.equal(codes[~active_dims], first[0][~active_dims])
    assert not torch.equal(codes[active_dims], first[0][active_dims])


def test_the_colour_layers_read_as_much_structure_as_is_asked_for(dual):
    codes = torch.randn(2, 2, TINY.generator.style_dim)
    read, first = dual.extrinsic(codes, torch.tensor([0.0, 0.5])), latents.n_structure()
    assert torch.equal(read[:, :first], codes[:, :1].expand(-1, first, -1))
    assert torch.equal(read[0, first:], codes[0, 1].expand(3, -1))
    assert torch.allclose(read[1, first:], (codes[1, 1] + 0.5 * codes[1, 0]).expand(3, -1))


def test_progress_is_shown_on_demand_and_a_wrong_picture_is_refused(dual, lessons, capfd):
    picture, net = lessons(0)[1][:1], parsing_net()
    style_fitting.refine(dual, picture, net, 1, person=dual.encoder(picture)[:, 0])
    assert capfd.readouterr().err == ""
    style_fitting.destylise(dual, picture, net, 1, progress=True)
    assert "who is it" in capfd.readouterr().err
    for wrong in (picture[:, :, 8:], picture[0], picture.expand(2, -1, -1, -1)):
        with pytest.raises(VToonifyError, match="artwork has shape .* expected one aligned portrait"):
            style_fitting.destylise(dual, wrong, net, 1)


def test_sampler_draws_codes_like_those_it_was_shown():
    """Few codes, as in the table of exemplars: two clouds, with a direction along which they differ most."""
    g = torch.Generator().manual_seed(1)
    along = torch.nn.functional.normalize(torch.randn(16, generator=g), dim=0)
    flat = 0.3 * torch.randn(24, 16, generator=g) + 1.5 * torch.randn(24, 1, generator=g) * along
    codes = flat.reshape(24, 2, 8) + torch.tensor([2.0, -2.0])[:, None]
    sampler = fresh(lambda: dualstylegan.fit_sampler(codes, iterations=200, batch=128, directions=32))
    assert not any(p.requires_grad for p in sampler.parameters())
    drawn, flat = sampler(torch.randn(512, 16, generator=g)), codes.flatten(1)
    assert torch.allclose(drawn.mean(0), flat.mean(0), atol=0.15)
    assert float(drawn.var(0).sum()) == pytest.approx(float(flat.var(0).sum()), rel=0.15)
    spread = [float((x - x.mean(0)).matmul(along).std()) for x in (drawn, flat)]
    assert spread[0] == pytest.approx(spread[1], rel=0.15) and spread[1] > 3 * float(flat.std(0).median()) / 2
