"""Adaptive augmentation: it leaves alone what it should, changes the rest as the paper says, and steers itself."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_training import equal, fresh, log_of, state

from vtoonify_lib.config import TINY, VToonifyError
from vtoonify_lib.models.paired_crop import apply_affine
from vtoonify_lib.models.stylegan2 import Generator
from vtoonify_lib.training import ada, loop, stylegan
from vtoonify_lib.training.ada import AdaptiveStrength, _affine, apply_colors, augment, sample_colors

pytestmark = pytest.mark.usefixtures("one_thread")


def pictures(n: int = 6, side: int = 16) -> torch.Tensor:
    return torch.rand(n, 3, side, side, generator=loop.rng_for(0, 0)) * 2 - 1


def rng(seed: int = 1) -> torch.Generator:
    return loop.rng_for(seed, 0)


# -- augmentations ----------------------------------------------------------------------------------------------------
def test_nothing_is_changed_at_0_and_little_at_little():
    x = pictures(200)
    assert torch.equal(augment(x, 0.0, rng()), x)
    y = augment(x, 0.02, rng())
    untouched = (y == x).flatten(1).all(1).float().mean().item()
    chances = 1 - 0.02 * torch.tensor([1 / 2, 3 / 4, 1, 1, 1, 1, 1, 1, 1, 1 / 2, 1, 1])  # mirror, turns, … grey mirror
    assert untouched == pytest.approx(chances.prod().item(), abs=0.09)
    assert y.shape == x.shape and (augment(x, 1.0, rng()) != x).flatten(1).any(1).all()


def test_same_numbers_same_changes():
    x = pictures()
    assert torch.equal(augment(x, 0.7, rng()), augment(x, 0.7, rng()))
    assert not torch.equal(augment(x, 0.7, rng()), augment(x, 0.7, rng(2)))


def test_gradients_come_through():
    x = pictures().requires_grad_()
    y = augment(x, 0.8, rng())
    y.square().sum().backward()
    assert x.grad.isfinite().all() and (x.grad.flatten(1).abs().sum(1) > 0).all()
    step = 1e-3 * torch.randn(x.shape, generator=rng(3))
    truth = augment((x + step).detach(), 0.8, rng()).square().sum() - y.square().sum()
    assert truth.item() == pytest.approx((x.grad * step).sum().item(), rel=0.05, abs=0.02)


def test_blits_only_move_pixels(monkeypatch):
    """Mirror, quarter turns and whole pixels: a smooth picture's colours stay, up to the resampling filter."""
    ramp = torch.linspace(-1, 1, 32)
    x = torch.stack([ramp.expand(32, 32), ramp[:, None].expand(32, 32), torch.zeros(32, 32)]).expand(64, -1, -1, -1)
    for name in ("DRIFT", "SCALE", "TURN"):  # of geometry
        monkeypatch.setattr(ada, name, 0.0)
    y = apply_affine(x, _affine(x, 1.0, rng()))[:, :2, 8:-8, 8:-8]  # the middle, which no border reaches
    steps = [torch.stack([y.diff(dim=d)[:, i].mean((1, 2)) for i in (0, 1)], 1) * 31 / 2 for d in (3, 2)]
    turn = torch.stack(steps, 1).round()  # [B,2,2]: which channel rises along which axis
    assert torch.equal(turn.abs().sum(1), torch.ones(64, 2)) and turn.unique(dim=0).shape[0] == 8
    shift = y.mean((2, 3)) * 31 / 2
    assert (shift.abs() <= 32 / 8 + 0.1).all() and ((2 * shift).round() / 2 - shift).abs().max() < 0.05


def test_geometry_has_the_range_of_the_paper(monkeypatch):
    monkeypatch.setattr(ada, "SHIFT", 0.0)  # of blits
    m = _affine(pictures(2000), 1.0, rng())
    zoom = torch.linalg.det(m).abs().log2() / 2
    assert zoom.mean().abs() < 0.02 and zoom.std().item() == pytest.approx(0.2, rel=0.1)
    assert (m[:, :2, 2] / 2).std().item() == pytest.approx(0.125, rel=0.1)  # in units of half the side
    angle = torch.atan2(m[:, 1, 0] - m[:, 0, 1], m[:, 0, 0] + m[:, 1, 1])
    assert angle.cos().mean().abs() < 0.05 and angle.sin().mean().abs() < 0.05  # all directions alike


def test_colors_have_the_range_of_the_paper():
    m = sample_colors(4000, 1.0, rng())
    gain = torch.linalg.svdvals(m[:, :, :3])
    grey = m[:, :, :3].sum(1).sum(1) / 3  # along the grey axis: contrast, half of them mirrored
    assert (grey < 0).float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert grey.abs().log2().std().item() == pytest.approx(0.5, rel=0.1)
    assert (m[:, :, 3].mean(1) / grey).std().item() == pytest.approx(0.2, rel=0.1)  # brightness comes first
    others = [g[(g.log2() - s.abs().log2()).abs() > 1e-3] for g, s in zip(gain[:200], grey[:200], strict=True)]
    pull = torch.stack([g[0] / s.abs() for g, s in zip(others, grey[:200], strict=True) if len(g) == 2])
    assert pull.log2().std().item() == pytest.approx(1.0, rel=0.15)


def test_hue_turns_colours_about_grey():
    m = sample_colors(500, 1.0, rng())[:, :, :3]
    along = torch.full((3,), 1 / math.sqrt(3))
    image = m @ along
    assert torch.allclose(image / image.norm(dim=1, keepdim=True), image.sign() * along, atol=1e-3)  # grey stays grey
    red = torch.tensor([1.0, -0.5, -0.5])
    turned = m @ red / (m @ red).norm(dim=1, keepdim=True)
    assert turned.mean(0).abs().max() < 0.08 and turned.std(0).min() > 0.5  # every hue comes up
    x = pictures(2)
    assert torch.equal(apply_colors(x, torch.eye(3, 4).expand(2, 3, 4)), x)


def test_p_is_checked():
    for p in (-0.1, 1.1, math.nan):
        with pytest.raises(VToonifyError, match="give a probability from 0 to 1"):
            augment(pictures(), p)


# -- strength ---------------------------------------------------------------------------------------------------------
def test_it_rises_while_the_discriminator_knows_the_pictures_and_falls_otherwise():
    ada = AdaptiveStrength(ramp=80, every=4)
    sure, guessing = torch.full((4, 1), 2.0), torch.tensor([[3.0], [-1.0], [0.5], [-2.0]])
    assert [ada.watch(sure) for _ in range(3)] == [1.0] * 3 and ada.p == 0  # not yet
    ada.watch(sure)
    assert ada.p == pytest.approx(16 / 80)
    for _ in range(80):
        ada.watch(sure)
    assert ada.p == ada.most == 0.8
    assert [ada.watch(guessing) for _ in range(4)] == [0.0] * 4
    assert ada.p == pytest.approx(0.8 - 16 / 80)
    for _ in range(80):
        ada.watch(guessing)
    assert ada.p == 0


@pytest.mark.parametrize(("share", "rises"), [(0.75, False), (0.875, True)])  # r_t 0.5 and 0.75
def test_its_target_is_a_mean_over_steps(share, rises):
    ada = AdaptiveStrength(ramp=100, every=2, p=0.5)
    logits = torch.ones(16)
    logits[round(share * 16):] = -9.0  # how sure does not matter, only on which side
    ada.watch(torch.ones(16))
    ada.watch(torch.cat([logits, logits])[:16] if rises else -torch.ones(16))
    assert (ada.p > 0.5) == rises


def test_its_state_goes_through_a_checkpoint(tmp_path):
    ada, other = AdaptiveStrength(ramp=50), AdaptiveStrength(ramp=50)
    for _ in range(6):
        ada.watch(torch.ones(4))
    loop.save_checkpoint(tmp_path / "last.pt", 6, {"ada": ada})
    loop.load_checkpoint(tmp_path / "last.pt", {"ada": other})
    for one in (ada, other):
        for _ in range(2):
            one.watch(torch.ones(4))
    assert other.p == ada.p == pytest.approx(2 * 16 / 50)


# -- in the game ------------------------------------------------------------------------------------------------------
def game(folder, iterations: int, **more):
    """A fine-tune at half the resolution, every option on → generator, moving average, controller."""
    generator, ada = fresh(Generator, config=TINY.generator), AdaptiveStrength(ramp=40, every=2, p=0.3)
    how = stylegan.AdversarialSettings(iterations, r1_every=2, path_weight=2.0, path_every=2, until=32, head_start=2,
                                       **more)
    averaged = stylegan.adversarial(generator, lambda i: pictures(4, 32), folder, how, ada)
    return generator, averaged, ada


def test_a_stopped_fine_tune_ends_in_the_same_weights(tmp_path):
    *whole, strength = game(tmp_path / "whole", 9)
    for stop in (1, 3, 6, 9):
        *parts, again = game(tmp_path / "parts", stop)
    assert equal(state(*whole), state(*parts)) and strength.state_dict() == again.state_dict()
    assert strength.p != 0.3
    row = log_of(tmp_path / "whole")[-1]
    assert set(row) == {"iteration", "seconds", "d", "g", "r_t", "p", "path"}
    assert all(math.isfinite(float(value)) for value in row.values())


def test_a_head_start_leaves_the_generator_alone_and_until_what_is_above(tmp_path):
    fresh_state = state(fresh(Generator, config=TINY.generator))
    assert equal(state(game(tmp_path, 2)[0]), fresh_state)
    after = state(game(tmp_path, 5, mixed=True)[0])
    touched = {name for name in after if not torch.equal(after[name], fresh_state[name])}
    assert any(name.startswith("0.convs.5.") for name in touched)  # 32²
    assert not any(name.startswith(("0.convs.6.", "0.convs.7.", "0.to_rgbs.3.")) for name in touched)


def test_the_path_length_begins_at_what_it_is():
    generator, steps = fresh(Generator, config=TINY.generator), stylegan.PathLengthRegularizer()
    z = torch.randn(4, TINY.generator.style_dim, generator=rng())
    first = steps(generator, z, 16, rng())
    begun = float(steps.mean)
    assert begun > 0 and 0 <= float(first.detach()) < begun**2  # the spread about the mean, not the length itself
    steps(generator, z, 16, rng(2))
    assert float(steps.mean) != begun and abs(float(steps.mean) - begun) < 0.05 * begun
