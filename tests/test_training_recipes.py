"""Recipes of training: they learn, their pairs are pairs, and their losses weigh what they say. No renderer."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_parsing import pattern
from tiny_training import BATCH, HOLD_OUT, SMALL, WIDTHS, changed, distilled, equal, fresh, log_of, state, task, train
from torch import nn

from vtoonify_lib.config import PARSING_CLASSES, TINY, GeneratorConfig, VToonifyError
from vtoonify_lib.faces.parsing_maps import CLASS_NAMES
from vtoonify_lib.inference.toonifier import Toonifier
from vtoonify_lib.media.images import to_tensor
from vtoonify_lib.models import latents
from vtoonify_lib.models.encoders import ParsingNet
from vtoonify_lib.models.stylegan2 import Discriminator, Generator
from vtoonify_lib.models.vtoonify import VToonify
from vtoonify_lib.training import augment, default, landmarks, loop, objectives, paper, perception, stylegan, vtoonify
from vtoonify_lib.training.adversary import Adversary
from vtoonify_lib.weights.bundle import load_bundle, save_bundle

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_discriminator_larger_than_the_pairs(pairs, parsing, tmp_path):
    source = vtoonify.render_source(pairs, BATCH, HOLD_OUT, window=24)
    with pytest.raises(VToonifyError, match="squares of 64 px and the pairs are only 48×48"):
        train(task(), source, parsing, tmp_path, 1, make_adversary=lambda: vtoonify.stylegan_adversary(64), square=64)


# -- learning ---------------------------------------------------------------------------------------------------------
def test_one_batch_overfits(pairs, parsing, tmp_path):
    pair = vtoonify.render_source(pairs, BATCH, HOLD_OUT)(0)
    train(task(), lambda i: pair, parsing, tmp_path, 80, lr=8e-3, flicker_from=1, sample_pairs=pair)
    first, *_, last = log_of(tmp_path)
    assert float(last["picture"]) < 0.6 * float(first["picture"])
    assert list((tmp_path / "samples").iterdir())


def test_pretraining_lowers_its_loss(parsing, base, stylised, tmp_path):
    paper.pretrain(base, stylised, parsing, fresh(VToonify, config=TINY), tmp_path, 60, 4, lr=2e-3)
    first, *_, last = (float(row["hand-off"]) for row in log_of(tmp_path))
    assert last < 0.8 * first


def test_parsing_is_learnt(pairs, tmp_path):
    net = perception.train_parsing(pairs, tmp_path, 160, 4, HOLD_OUT, lr=1e-2, widths=WIDTHS)
    first, *_, last = (float(row["loss"]) for row in log_of(tmp_path))
    assert last < 0.6 * first and not net.training
    untrained = perception.parsing_iou(fresh(ParsingNet, widths=WIDTHS).eval(), pairs, HOLD_OUT)["mean"]
    assert perception.parsing_iou(net, pairs, HOLD_OUT)["mean"] > 2 * untrained


def test_parsing_iou_of_a_known_answer(pairs):
    truth = torch.from_numpy(pairs["photo_parsing"][:HOLD_OUT, ::2, ::2].astype(np.int64))

    def oracle(x):
        return nn.functional.one_hot(truth, PARSING_CLASSES).movedim(-1, 1)

    score = perception.parsing_iou(oracle, pairs, HOLD_OUT)
    assert set(score.values()) == {1.0} and "0" in score and "18" not in score
    blind = perception.parsing_iou(lambda x: nn.functional.one_hot(truth * 0, PARSING_CLASSES).movedim(-1, 1), pairs,
                                   HOLD_OUT)
    assert blind["0"] == pytest.approx((truth == 0).float().mean().item()) and blind["1"] == 0


def test_mapping_goes_to_the_codes():
    rng = torch.Generator().manual_seed(0)
    d = TINY.generator.style_dim
    bank = 0.1 + torch.randn(512, d, generator=rng) * torch.linspace(0.05, 0.15, d)  # such small codes are usual
    generator = fresh(Generator, config=TINY.generator).requires_grad_(False)  # as `distill` returns it
    frozen = {k: v for k, v in state(generator).items() if ".style." not in k}
    z = torch.randn(2048, d, generator=rng)
    far = [generator.map(z).mean(0), generator.map(z).std(0)]
    start = stylegan.fit_mapping(fresh(Generator, config=TINY.generator).style, bank, 1, batch=256)
    end = stylegan.fit_mapping(generator.style, bank, 600, batch=256, directions=64)
    assert end < 0.1 * start
    near = [generator.map(z).detach().mean(0), generator.map(z).detach().std(0)]
    for a, b, truth, limit in zip(far, near, (bank.mean(0), bank.std(0)), (0.5, 0.35), strict=True):
        assert (b - truth).abs().mean() < limit * (a - truth).abs().mean()
    assert not changed(frozen, state(generator))


def test_code_bank(pairs):
    model = distilled()
    bank = stylegan.code_bank(model, pairs, HOLD_OUT)
    assert bank.shape == (8, TINY.generator.style_dim)  # people 4, 6, 8, 10 and their mirror images
    batch = augment.load(pairs, np.array([4]), "storybook")  # even entries are framed as FFHQ frames
    photo = augment.half(batch.photo)
    both = model.code(torch.cat([photo, photo.flip(3)]))
    assert torch.allclose(bank[[0, 4]], both, atol=2e-2)


def test_generators_grow_and_share_codes_and_mapping(pairs, parsing, tmp_path, monkeypatch):
    monkeypatch.setattr(stylegan, "fit_mapping", partial(stylegan.fit_mapping, iterations=2, batch=8))
    grown, distill = [], stylegan.distill

    def noted(*a, **k):
        grown.append((a[5], a[4].until(64), k["seed"]))  # target, resolution, seed
        return distill(*a, **k)

    monkeypatch.setattr(stylegan, "distill", noted)
    monkeypatch.setattr(stylegan, "Distilled", partial(stylegan.Distilled, **SMALL))
    stages = (loop.Stage(32, 1, 2), loop.Stage(64, 1, 2))
    plan = default.DefaultPlan(hold_out=HOLD_OUT, base=stages, storybook=stages)
    base, story = default.train_generators(pairs, parsing, tmp_path, plan, TINY)
    assert [g[:2] for g in grown] == [("photo", 32), ("photo", None), ("storybook", 32), ("storybook", None)]
    assert grown[0][2] != grown[1][2]  # or the second would see the first one's batches again
    assert sorted(p.name for p in tmp_path.iterdir()) == ["photo-32", "photo-64", "storybook-32", "storybook-64"]
    assert equal(state(base.encoder, base.generator.style), state(story.encoder, story.generator.style))
    assert not equal(state(base.generator.convs), state(story.generator.convs))


def test_the_default_bundle_from_nothing(pairs, tmp_path, monkeypatch):
    shipped = load_bundle("studio-t").path("landmarks")
    monkeypatch.setattr(default, "render_pairs", lambda *a, **k: pairs)
    monkeypatch.setattr(landmarks, "make", lambda folder, out, plan: shutil.copy(shipped, out) and {"all": 0.05})
    monkeypatch.setattr(stylegan, "fit_mapping", partial(stylegan.fit_mapping, iterations=2, batch=8))
    monkeypatch.setattr(default, "measure_generators", partial(default.measure_generators, random_faces=8))
    stages = (loop.Stage(None, 1, 2),)
    plan = default.DefaultPlan(12, HOLD_OUT, 1, 1, stages, stages, 1, 1, BATCH, window=24, square=32)
    default.train_default(tmp_path / "runs", tmp_path / "ours", plan, TINY)
    bundle = load_bundle(tmp_path / "ours")
    assert bundle.info["provenance"]["plan"]["base"] == [{"size": None, "iterations": 1, "batch": 2}]
    assert bundle.metrics["landmark_model"] == {"all": 0.05} and bundle.metrics["held_out_people"] == HOLD_OUT
    assert set(bundle.metrics["generators"]) == {"base", "stylized"}
    for numbers in bundle.metrics["generators"].values():
        assert all(math.isfinite(v) for v in numbers.values()) and 3 < numbers["psnr"] < 40
    last = torch.load(tmp_path / "runs" / "sharpen" / "last.pt", weights_only=True)["ema"]
    shipped = bundle.network("vtoonify").state_dict()
    assert all(torch.allclose(v, last[f"vtoonify.{k}"], rtol=2e-3, atol=1e-4) for k, v in shipped.items())
    code = bundle.network("style_encoder")(torch.zeros(1, 3, 64, 64))
    assert bundle.network("base")(code, "w").shape == bundle.network("stylized")(code, "w").shape == (1, 3, 64, 64)


def test_a_bundle_is_trained_further(pairs, teachers, tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr(default, "render_pairs", lambda _, people, **how: asked.update(how, people=people) or pairs)
    plan = default.DefaultPlan(12, HOLD_OUT, sharpen=2, batch=BATCH, window=24, square=32)
    default.train_further(tmp_path / "run", tmp_path / "further", str(teachers.folder), plan)
    made = load_bundle(tmp_path / "further")
    assert asked["people"] == 12 and asked["size"] == 64
    learnt = changed(teachers.network("vtoonify").state_dict(), made.network("vtoonify").state_dict())
    assert {name.split(".")[0] for name in learnt} >= {"encoder", "fusion_out", "generator"}
    for kept in ("style_encoder", "parsing", "base", "stylized"):
        assert not changed(teachers.network(kept).state_dict(), made.network(kept).state_dict())
    assert made.metrics["held_out_people"] == HOLD_OUT and "photographs" not in made.metrics
    assert made.metrics["generators"] == {"base": 1} and made.licence == teachers.licence
    assert made.info["provenance"]["history"].startswith("begun; VToonify-T was sharpened for 2 more iterations on 12")
    with pytest.raises(VToonifyError, match="studio-d is a VToonify-D; train it further with"):
        default.train_further(tmp_path / "run", tmp_path / "further", "studio-d", plan)


@pytest.fixture
def teachers(parsing, base, stylised, landmark_file, tmp_path):
    """A bundle whose generators can teach."""
    networks = {"vtoonify": fresh(VToonify, config=TINY), "parsing": parsing, "base": base, "stylized": stylised,
                "style_encoder": task().style}
    style = {"image_size": 32, "n_latent": 1, "style_dim": TINY.generator.style_dim, "width": 8}
    models = {"parsing": {"widths": list(WIDTHS)}, "style_encoder": style}
    return save_bundle(tmp_path / "teachers", name="teachers", title="", config=TINY, networks=networks,
                       files={"landmarks": landmark_file}, models=models, provenance={"history": "begun"},
                       metrics={"generators": {"base": 1}, "photographs": {}})


def test_the_paper_recipe_from_a_bundle(pairs, teachers, parsing, tmp_path, monkeypatch):
    monkeypatch.setattr(paper, "measure", lambda pairs, parsing, task, marks, people: {"people": people})
    plan = paper.PaperPlan(1, 1, 1, BATCH)
    few = replace(pairs, ready=pairs.ready[4:])
    with pytest.raises(VToonifyError, match="has only 0 of its first people; render 8 or more"):
        paper.train_paper(teachers, tmp_path / "run", tmp_path / "taught", plan, few)
    made = paper.train_paper(teachers, tmp_path / "run", tmp_path / "taught", plan, pairs)
    assert made.metrics == {"people": len(pairs.ready)} and made.info["provenance"]["plan"]["pairs"] == 1
    first, last = (bundle.network("vtoonify").state_dict() for bundle in (teachers, made))
    assert changed(first, last) and {name.split(".")[0] for name in changed(first, last)} >= {"encoder", "fusion_out"}
    taught = teachers.network("stylized").state_dict()
    assert all(torch.equal(last[f"generator.{name}"], value) for name, value in taught.items())
    assert Toonifier(made, "cpu").painter(torch.zeros(1, 1, TINY.generator.style_dim))
    teachers.info["files"]["base"]["sha256"] = "0" * 64
    monkeypatch.setattr(type(teachers), "network", lambda self, name: None if name == "vtoonify" else parsing)
    with pytest.raises(VToonifyError, match="was begun with other generators than those of teachers"):
        paper.train_paper(teachers, tmp_path / "run", tmp_path / "taught", plan)


# -- sources of pairs -------------------------------------------------------------------------------------------------
def test_render_source_cuts_input_and_target_alike(pairs):
    whole = vtoonify.render_source(pairs, BATCH, HOLD_OUT)(3)
    cut = vtoonify.render_source(pairs, BATCH, HOLD_OUT, window=24)(3)
    assert (cut.x.shape, cut.y.shape, cut.parsing.shape) == ((2, 3, 24, 24), (2, 3, 48, 48), (2, 24, 24))
    assert torch.equal(cut.aligned, whole.aligned)
    spots = [(t, r) for t in range(9) for r in range(9) if torch.equal(cut.x, whole.x[..., t : t + 24, r : r + 24])]
    (t, r), = spots
    assert torch.equal(cut.y, whole.y[..., 2 * t : 2 * t + 48, 2 * r : 2 * r + 48])
    assert torch.equal(cut.parsing, whole.parsing[..., t : t + 24, r : r + 24])


def test_generator_source(base, stylised):
    style = task().style
    source = paper.generator_source(base, stylised, style, TINY, 4)
    first = source(5)
    assert (first.x.shape, first.y.shape, first.parsing) == ((4, 3, 32, 32), (4, 3, 64, 64), None)
    assert all(p.min() >= -1 and p.max() <= 1 for p in (first.x, first.y))
    torch.manual_seed(77)
    again = paper.generator_source(base, stylised, style, TINY, 4)
    assert torch.equal(first.y, again(5).y) and torch.equal(first.x, source(5).x)
    other = paper.generator_source(base, stylised, style, TINY, 4, seed=6)
    assert not torch.equal(first.x, source(6).x) and not torch.equal(first.x, other(5).x)


def test_generator_source_moves_both_pictures_alike(base, stylised, monkeypatch):
    style = task().style
    plain = paper.generator_source(base, stylised, style, TINY, 4, transform=None)
    usual = paper.generator_source(base, stylised, style, TINY, 4)
    assert any(not torch.equal(usual(i).y, plain(i).y) for i in range(3))
    monkeypatch.setattr(paper, "random_affine", lambda *both, rng: [p.flip(3) for p in both])
    moved = paper.generator_source(base, stylised, style, TINY, 4)
    assert torch.allclose(moved(1).x, plain(1).x.flip(3), atol=1e-5) and torch.equal(moved(1).y, plain(1).y.flip(3))
    assert torch.equal(moved(1).aligned, plain(1).aligned)  # the code that y was made with


def test_synthetic_codes_are_edited_where_structure_is(base):
    centre = base.mean_w(64, loop.rng_for(0, 0))
    w = paper._edited_codes(base, 3, 1.0, centre, loop.rng_for(0, 1))
    plain = base.to_w(torch.randn(3, TINY.generator.style_dim, generator=loop.rng_for(0, 1)))
    differs = (w - plain).abs().amax((0, 2)) > 1e-4
    layers = latents.edit_layers()
    assert differs[layers].all() and differs.sum() == layers.stop - layers.start
    near = paper._edited_codes(base, 3, 0.5, centre, loop.rng_for(0, 1))
    assert torch.allclose(near - centre, 0.5 * (w - centre), atol=1e-5)


# -- weights of the losses --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("start", [0.0, 0.25, 0.5, 0.9])
def test_flicker_weight_is_a_ramp(start):
    weights = [vtoonify.flicker_weight(i, 100, start) / vtoonify.FLICKER_WEIGHT for i in range(101)]
    assert weights == pytest.approx([max(0, (i / 100 - start) / (1 - start)) for i in range(101)], abs=1e-12)
    assert vtoonify.flicker_weight(100, 100, 1.0) == 0


def test_detail_mask():
    classes = torch.zeros(1, 32, 32, dtype=torch.long)
    classes[:, :, 8:] = 1
    classes[:, 20, 20] = 4  # one pixel of an eye
    mask = vtoonify.detail_mask(classes, torch.zeros(1, 3, 64, 64))
    assert mask.shape == (1, 1, 64, 64)
    assert mask[0, 0, 5, 5] == vtoonify.BACKDROP_WEIGHT and mask[0, 0, 5, 30] == 1
    assert (mask == vtoonify.EYE_WEIGHT).sum() == 10 * 10  # two pixels around it, at twice the size
    brow = vtoonify.detail_mask(torch.where(classes == 4, 2, classes), torch.zeros(1, 3, 64, 64))
    assert (brow == vtoonify.DETAIL_WEIGHT).sum() == 10 * 10 and vtoonify.EYE_WEIGHT > vtoonify.DETAIL_WEIGHT > 1
    assert (vtoonify.detail_mask(None, torch.zeros(1, 3, 8, 8)) == 1).all()


def test_picture_loss_sees_colours_and_edges():
    y = torch.zeros(1, 3, 8, 8)
    step = torch.cat([torch.zeros(1, 3, 8, 4), torch.ones(1, 3, 8, 4)], 3)
    ones = torch.ones(1, 1, 8, 8)
    assert objectives.picture_loss(y + 0.5, y, ones).item() == pytest.approx(0.5)
    assert objectives.picture_loss(step, y, ones).item() == pytest.approx(0.5 + objectives.EDGE_WEIGHT / 7)
    assert objectives.picture_loss(y, y, ones) == 0


def test_the_discriminator_learns_and_the_generator_loss_leaves_it_alone():
    torch.manual_seed(0)
    critic = Adversary(Discriminator(GeneratorConfig(8, channels=((4, 8), (8, 8)))), lr=0.01, r1_every=2)
    real, fake = torch.ones(4, 3, 8, 8), (-torch.ones(4, 3, 8, 8)).requires_grad_()
    history = [critic.step(real, fake, i) for i in range(1, 40, 2)]  # odd: without R1
    assert history[-1] < 0.5 * history[0] and fake.grad is None
    before = state(critic.net)
    critic.optimizer.zero_grad()
    critic.generator_loss(fake).backward()
    assert fake.grad.abs().sum() > 0 and all(p.grad is None for p in critic.net.parameters())
    assert equal(before, state(critic.net)) and all(p.requires_grad for p in critic.net.parameters())
    assert critic.generator_loss(fake) > critic.generator_loss(real)


def test_class_weights():
    weights = dict(zip(CLASS_NAMES, perception.class_weights().tolist(), strict=True))
    assert weights["l_eye"] == weights["r_brow"] == weights["l_lip"] == perception.SMALL_PARTS_WEIGHT
    assert weights["hair"] == weights["skin"] == 1


def test_no_part_of_a_face_drowns_the_others():
    """In a usual picture: half of it backdrop, one hundredth eyes, three hundredths mouth and brows."""
    classes = torch.ones(1, 128, 128, dtype=torch.long)
    classes[:, :64] = 0
    classes[:, 80:86, 40:54], classes[:, 80:86, 74:88] = 4, 5
    classes[:, 72:74, 40:54], classes[:, 72:74, 74:88], classes[:, 108:116, 50:78] = 2, 3, 12
    mask = vtoonify.detail_mask(classes, torch.zeros(1, 3, 128, 128))[:, 0]
    eyes, small, backdrop = (mask[torch.isin(classes, torch.tensor(which))].sum() / mask.sum()
                             for which in ((4, 5), (2, 3, 12), (0,)))
    assert 0.03 < eyes < 0.3 and 0.03 < small < 0.3 and 0.1 < backdrop < 0.5, (eyes, small, backdrop)


def test_edges_pull_at_a_blurred_drawing_about_as_hard_as_colours():
    y = to_tensor(pattern(size=64)[::2, ::2])
    y = F.interpolate(y, (64, 64))  # pixels of two, which a blur mixes up

    def pull(weight):
        out = F.avg_pool2d(y, 5, 1, 2).requires_grad_()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(objectives, "EDGE_WEIGHT", weight)
            return torch.autograd.grad(objectives.picture_loss(out, y, torch.ones(1, 1, 64, 64)), out)[0]

    colours, both = pull(0.0), pull(objectives.EDGE_WEIGHT)
    assert 0.3 < (both - colours).norm() / colours.norm() < 3
