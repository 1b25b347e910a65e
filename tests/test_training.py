"""Training: runs resume to the bit, and change only what they should. Tiny networks, no renderer."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_training import BATCH, HOLD_OUT, WIDTHS, changed, distilled, equal, fresh, log_of, state, task, train
from torch import nn

from vtoonify_lib.config import TINY, GeneratorConfig, VToonifyError
from vtoonify_lib.models import latents
from vtoonify_lib.models.stylegan2 import Discriminator, Generator
from vtoonify_lib.models.vtoonify import VToonify
from vtoonify_lib.training import augment, loop, paper, perception, stylegan, vtoonify
from vtoonify_lib.training.adversary import Adversary

pytestmark = pytest.mark.usefixtures("one_thread")


# -- every kind of run, on one footing: start(folder, iterations) → the state it ends in ------------------------------
def make_adversary(device="cpu"):
    return Adversary(Discriminator(GeneratorConfig(32, channels=tuple((r, 8) for r in (4, 8, 16, 32)))), device)


@pytest.fixture(scope="module")
def runs(pairs, parsing, base, stylised):
    def renders(folder, n, **more):
        return state(*train(task(), vtoonify.render_source(pairs, BATCH, HOLD_OUT), parsing, folder, n, **more))

    def sharpen(folder, n, **more):
        return renders(folder, n, make_adversary=make_adversary, square=32, flicker_from=0.0, **more)

    def pure(folder, n, **more):
        source = paper.generator_source(base, stylised, task().style, TINY, BATCH)
        return state(*train(task(), source, parsing, folder, n, recipe="paper", **more))

    def parse(folder, n, **more):
        return state(perception.train_parsing(pairs, folder, n, BATCH, HOLD_OUT, widths=WIDTHS, **more))

    def distill(folder, n, until=None, **more):
        return state(stylegan.distill(distilled(), pairs, parsing, folder, loop.Stage(until, n, BATCH),
                                      hold_out=HOLD_OUT, **more))

    def tune(folder, n, **more):
        return distill(folder, n, until=32, target="storybook", **more)

    def pretrain(folder, n, **more):
        return state(paper.pretrain(base, stylised, parsing, fresh(VToonify, config=TINY), folder, n, BATCH, **more))

    def game(folder, n, **more):
        generator = fresh(Generator, config=TINY.generator)

        def real(i):
            return augment.load(pairs, np.array([4, 5 + i % 3]), "photo").photo

        how = stylegan.AdversarialSettings(n, r1_every=2)
        return state(stylegan.adversarial(generator, real, folder, how, **more), generator)

    return {f.__name__: f for f in (renders, sharpen, pure, parse, distill, tune, pretrain, game)}


KINDS = ("renders", "sharpen", "pure", "parse", "distill", "tune", "pretrain", "game")


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_run_ends_in_the_same_weights(runs, kind, tmp_path, monkeypatch):
    whole = runs[kind](tmp_path / "whole", 6)
    monkeypatch.setattr(loop, "SAVE_SECONDS", -1)  # a checkpoint after each step
    steps, optimizer_step = [], loop.optimizer_step
    with monkeypatch.context() as patch:
        def killed(*arguments, **more):
            optimizer_step(*arguments, **more)
            steps.append(1)
            if len(steps) > 3 * (2 if kind in ("sharpen", "game") else 1):
                raise KeyboardInterrupt  # in the middle of the fourth step, which is lost

        patch.setattr(loop, "optimizer_step", killed)
        with pytest.raises(KeyboardInterrupt):
            runs[kind](tmp_path / "killed", 6)
    assert torch.load(tmp_path / "killed" / "last.pt")["iteration"] == 3
    assert equal(whole, runs[kind](tmp_path / "killed", 6))
    assert not equal(whole, runs[kind](tmp_path / "short", 3))


def test_flicker_weight_follows_the_true_iteration(runs, tmp_path, monkeypatch):
    asked, weight = [], vtoonify.flicker_weight
    monkeypatch.setattr(vtoonify, "flicker_weight", lambda *a: asked.append(a[:2]) or weight(*a))
    monkeypatch.setattr(loop, "SAVE_SECONDS", -1)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_log", lambda *a: None)
        patch.setattr(vtoonify.losses, "temporal", broken := raising(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            runs["renders"](tmp_path, 6)  # flicker sets in after iteration 3
    assert broken.calls == 1 and asked == [(i, 6) for i in range(5)]
    asked.clear()
    runs["renders"](tmp_path, 6)
    assert asked == [(4, 6), (5, 6)]
    assert float(log_of(tmp_path)[-1]["flicker"]) > 0


def raising(error):
    def call(*_):
        call.calls += 1
        raise error

    call.calls = 0
    return call


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_run_begun_on_a_gpu_goes_on_on_a_cpu(pairs, tmp_path):
    for n, device in ((2, "cuda"), (3, "cpu")):
        net = perception.train_parsing(pairs, tmp_path / "parse", n, BATCH, HOLD_OUT, widths=WIDTHS, device=device)
        model = stylegan.distill(distilled().to(device), pairs, net, tmp_path / "distill", loop.Stage(None, n, BATCH),
                                 hold_out=HOLD_OUT)
        source = vtoonify.render_source(pairs, BATCH, HOLD_OUT, device=device)
        simple, _ = train(task().to(device), source, net, tmp_path / "renders", n, flicker_from=0.0, square=32,
                          make_adversary=partial(make_adversary, device))
        assert stylegan.code_bank(model, pairs, HOLD_OUT).device.type == device
        assert all(v.isfinite().all() for v in state(net, model, simple).values())
    assert torch.load(tmp_path / "renders" / "last.pt", weights_only=True)["iteration"] == 3


# -- the loop ---------------------------------------------------------------------------------------------------------
def counting(folder, iterations, model=None, **more):
    """A run of nothing → iterations seen."""
    seen = []

    def step(i):
        seen.append(i)
        return {"loss": float(i)} | ({"late": 10.0 * i} if i >= 5 else {})

    done = loop.run(folder, iterations, step, {"model": model or nn.Linear(2, 2)}, **more)
    assert done == (seen[-1] + 1 if seen else done)
    return seen


def test_goes_on_where_it_was(tmp_path):
    assert counting(tmp_path, 4) == [0, 1, 2, 3]
    assert counting(tmp_path, 9) == [4, 5, 6, 7, 8]
    assert counting(tmp_path, 9) == []


def test_log_has_means_and_a_column_for_a_late_loss(tmp_path):
    counting(tmp_path, 7, log_every=3)
    rows = log_of(tmp_path)
    assert [(r["iteration"], float(r["loss"]), r["late"]) for r in rows] == [
        ("3", 1.0, ""), ("6", 4.0, "50"), ("7", 6.0, "60")]


def test_log_forgets_iterations_that_are_done_again(tmp_path):
    counting(tmp_path, 6, log_every=2)
    loop.save_checkpoint(tmp_path / "last.pt", 3, {"model": nn.Linear(2, 2)})  # as if killed after the save at 3
    counting(tmp_path, 6, log_every=2)
    rows = log_of(tmp_path)
    assert [(r["iteration"], r["loss"]) for r in rows] == [("2", "0.5"), ("4", "3"), ("6", "4.5")]


def test_samples_are_drawn(tmp_path):
    counting(tmp_path, 5, sample=lambda i: Image.new("RGB", (8, 8)), sample_every=2)
    assert sorted(p.name for p in (tmp_path / "samples").iterdir()) == ["0000002.jpg", "0000004.jpg", "0000005.jpg"]


def test_a_checkpoint_is_whole_or_the_one_before(tmp_path, monkeypatch):
    path, model = tmp_path / "last.pt", nn.Linear(2, 2)
    loop.save_checkpoint(path, 7, {"model": model})

    def disconnect(state, file):
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", disconnect)
    with pytest.raises(OSError, match="disk full"):
        loop.save_checkpoint(path, 8, {"model": model})
    assert loop.load_checkpoint(path, {"model": nn.Linear(2, 2)}) == 7


@pytest.mark.parametrize(("parts", "message"), [
    ({"net": nn.Linear(2, 2)}, "has no net; it belongs to another kind of run"),
    ({"model": nn.Linear(3, 2)}, "another size or content"), ({"model": nn.PReLU()}, "another size or content")])
def test_the_folder_of_another_run(tmp_path, parts, message):
    counting(tmp_path, 1)
    with pytest.raises(VToonifyError, match=message):
        loop.run(tmp_path, 2, lambda i: {}, parts)


@pytest.mark.parametrize("content", [b"", b"no checkpoint"])
def test_a_damaged_checkpoint(tmp_path, content):
    (tmp_path / "last.pt").write_bytes(content)
    with pytest.raises(VToonifyError, match="cannot be read; remove it"):
        counting(tmp_path, 2)


def test_ema():
    model = nn.BatchNorm1d(2)
    ema = loop.EMA(model, decay=0.9)
    with torch.no_grad():
        model.weight.add_(1)
    model.running_mean.fill_(5)
    ema.update(model, 0)  # early: decay 1/10
    assert torch.allclose(ema.model.weight, torch.full((2,), 1.9)) and (ema.model.running_mean == 5).all()
    ema.update(model, 10**6)  # late: as told
    assert torch.allclose(ema.model.weight, torch.full((2,), 1.91))
    assert not any(p.requires_grad for p in ema.model.parameters()) and not ema.model.training
    assert not (model.weight - 2).any()


@pytest.mark.parametrize(("decay", "least", "most"), [(loop.SHORT_EMA_DECAY, 100, 1500), (loop.EMA_DECAY, 150, 1000)])
def test_a_moving_average_is_of_hundreds_of_iterations(decay, least, most):
    """Fewer leave the noise of single batches in the weights; more, what was learnt in the first half of a run."""
    ema = loop.EMA(nn.Linear(1, 1, bias=False), decay)
    ema.model.weight.fill_(0)
    model, steps = nn.Linear(1, 1, bias=False).requires_grad_(False), 0
    model.weight.fill_(1)
    while ema.model.weight < 0.5:
        ema.update(model, 10**6)
        steps += 1
    assert least < steps < most


def test_learning_rate():
    rates = [loop.warm_cosine(0.1, i, 100, warmup=10, floor=0.2) for i in range(101)]
    assert rates[0] == pytest.approx(0.01, rel=1e-3) and max(rates) == pytest.approx(0.1, rel=0.05)
    assert rates[50] == pytest.approx(0.06) and rates[100] == pytest.approx(0.02)
    assert all(type(r) is float for r in rates)


def test_random_numbers_of_an_iteration():
    def draw(seed, i):
        return torch.rand(4, generator=loop.rng_for(seed, i)).tolist()

    assert draw(1, 2) == draw(1, 2)
    assert len({tuple(draw(seed, i)) for seed in range(3) for i in range(3)}) == 9


# -- what changes -----------------------------------------------------------------------------------------------------
STRUCTURE = tuple(f"vtoonify.generator.{part}" for part in (
    "style.", "input.", "conv1.", "to_rgb1.", "noises.",
    *(f"convs.{i}." for i in range(latents.first_kept_conv())),
    *(f"to_rgbs.{i}." for i in range(latents.first_kept_to_rgb()))))
NOISE = ".noise.weight"  # none is drawn, so its strength is never learnt


def of_tasks(recipe, pairs, parsing, base, stylised, folder) -> tuple[dict, dict]:
    start = task()
    source = vtoonify.render_source(pairs, BATCH, HOLD_OUT) if recipe == "renders" else \
        paper.generator_source(base, stylised, task().style, TINY, BATCH)
    trained, _ = train(start, source, parsing, folder, 3, recipe=recipe, seed=9)
    return start.state_dict(), trained.state_dict()


@pytest.mark.parametrize("recipe", vtoonify.RECIPES)
def test_three_steps_change_only_what_should_change(recipe, pairs, parsing, base, stylised, tmp_path):
    kept = state(parsing, base, stylised)
    before, after = of_tasks(recipe, pairs, parsing, base, stylised, tmp_path)
    trainable = {k for k in before if k.startswith(("vtoonify.encoder.", "vtoonify.fusion_"))}
    if recipe == "renders":
        trainable |= {k for k, _ in task().vtoonify.generator.named_parameters(prefix="vtoonify.generator")
                      if not k.startswith(STRUCTURE) and not k.endswith(NOISE)}
    assert changed(before, after) == trainable
    assert not changed(kept, state(parsing, base, stylised))


def test_a_frozen_generator_gathers_no_gradients(pairs, parsing, tmp_path):
    """They would count in the norm that is clipped, and grow from step to step."""
    trained, _ = train(task(), vtoonify.render_source(pairs, BATCH, HOLD_OUT), parsing, tmp_path, 2, recipe="paper")
    assert all(p.grad is None for p in [*trained.vtoonify.generator.parameters(), *trained.style.parameters()])


def test_unknown_recipe():
    with pytest.raises(VToonifyError, match="'paint'; it must be one of renders, paper"):
        vtoonify.TrainingSettings(2, recipe="paint")


@pytest.mark.parametrize("target", ["photo", "storybook"])
def test_three_steps_of_distillation(target, pairs, parsing, tmp_path):
    start = distilled().state_dict()
    after = stylegan.distill(distilled(), pairs, parsing, tmp_path, loop.Stage(None, 3, BATCH), target, HOLD_OUT
                             ).state_dict()
    parts = {name.split(".")[0] for name in changed(start, after)}
    assert parts == ({"generator", "encoder"} if target == "photo" else {"generator"})
    assert not any(name.startswith(("generator.style.", "generator.noises.")) for name in changed(start, after))


def test_distillation_up_to_a_resolution(pairs, parsing, tmp_path):
    start = distilled().state_dict()
    after = stylegan.distill(distilled(), pairs, parsing, tmp_path, loop.Stage(32, 2, BATCH), hold_out=HOLD_OUT
                             ).state_dict()
    names = changed(start, after)
    above = latents.first_kept_conv()  # of the next resolution
    assert any(n.startswith(f"generator.convs.{above - 1}.") for n in names)
    assert not any(n.startswith((f"generator.convs.{above}.", f"generator.convs.{above + 1}.")) for n in names)


def test_pretraining_changes_the_encoder_alone(parsing, base, stylised, tmp_path):
    before = state(parsing, base, stylised)
    vtoonify = fresh(VToonify, config=TINY)
    start = state(vtoonify)
    paper.pretrain(base, stylised, parsing, vtoonify, tmp_path, 3, BATCH)
    assert changed(start, state(vtoonify)) == {k for k in start if k.startswith("0.encoder.")}
    assert not changed(before, state(parsing, base, stylised))


