"""Losses against recorded values, against their definitions, and where they must vanish."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from golden_data import Case, value

from vtoonify_lib.config import INPUT_CHANNELS, TINY, GeneratorConfig
from vtoonify_lib.models import losses
from vtoonify_lib.models.paired_crop import Crop
from vtoonify_lib.models.stylegan2 import Discriminator, Generator
from vtoonify_lib.models.vtoonify import VToonify


def recipe(name, shape):
    """Rule of a discriminator's entry: the 16-px one has no manifest, but follows the rules of the others."""
    if name.endswith("kernel"):
        return {"rule": "fir", "gain": 1.0}
    return {"rule": "normal", "std": 0.1 if name.endswith("bias") else 1.0}


def test_golden_losses():
    case = Case("losses")
    real, fake = case.inputs["real"], case.inputs["fake"]
    case.check("d_logistic", losses.discriminator_logistic(real, fake))
    case.check("g_nonsat", losses.generator_nonsaturating(fake))
    with torch.device("meta"):
        d = Discriminator(GeneratorConfig.published(16, 1))
    state = {k: value(k, list(v.shape), recipe(k, v.shape)) for k, v in d.state_dict().items()}
    d.load_state_dict(state, assign=True)
    case.check("r1", losses.r1_penalty(d, case.inputs["ximg"]))


def test_r1_of_a_known_gradient():
    slope = torch.randn(3, 5, 5)
    penalty = losses.r1_penalty(lambda x: (x * slope).sum((1, 2, 3)), torch.randn(4, 3, 5, 5))
    assert torch.allclose(penalty, slope.square().sum())


def test_r1_reaches_the_weights():
    torch.manual_seed(0)
    d = Discriminator(TINY.generator)
    losses.r1_penalty(d, torch.randn(2, 3, 64, 64)).backward()
    assert d.convs[0][0].weight.grad.abs().sum() > 0


def test_path_length_of_a_linear_map():
    """For image = A·w the length does not depend on w; with the mean at that length the penalty is about 0."""
    rng = torch.Generator().manual_seed(0)
    w = torch.randn(64, 1, 6, requires_grad=True)
    a = torch.randn(6, 3 * 32 * 32)
    image = (w[:, 0] @ a).reshape(64, 3, 32, 32)
    expected = (a.square().sum() / 32**2).sqrt()
    penalty, mean = losses.path_length(image, w, 0.0, rng, decay=1.0)
    assert mean.item() == pytest.approx(expected.item(), rel=0.1)
    assert penalty < 0.2 * expected**2
    _, slow = losses.path_length((w[:, 0] @ a).reshape(64, 3, 32, 32), w, 0.0, rng)
    assert slow.item() == pytest.approx(0.01 * mean.item(), rel=0.1)


def test_path_length_reaches_the_weights():
    torch.manual_seed(0)
    g = Generator(TINY.generator)
    w = g.to_w(torch.randn(2, 32))
    penalty, _ = losses.path_length(g.synthesize(w), w, 0.0, torch.Generator().manual_seed(0))
    penalty.backward()
    assert g.convs[3].conv.weight.grad.abs().sum() > 0 and g.style[1].weight.grad.abs().sum() > 0


def test_handoff_match():
    feature, skip = torch.randn(2, 8, 4, 4), torch.randn(2, 3, 4, 4)
    assert losses.handoff_match(feature, skip, feature, skip) == 0
    assert losses.handoff_match(feature + 2, skip, feature, skip - 1).item() == pytest.approx(5, rel=1e-5)


def test_temporal_is_zero_for_a_network_that_moves_with_the_frame():
    x, window = torch.randn(2, INPUT_CHANNELS, 40, 32), Crop(5, 3, 24, 16)
    def local(x):  # a purely local network of scale 2
        return torch.nn.functional.interpolate(x[:, :3], scale_factor=2, mode="nearest")

    assert losses.temporal(local, x, local(x), window) == 0
    net, w = VToonify(TINY), torch.randn(2, 32)
    loss = losses.temporal(partial(net, w=w), x, net(x, w), window)
    loss.backward()
    assert loss > 0 and net.encoder[0][0].weight.grad.abs().sum() > 0


def test_temporal_weight_follows_the_true_iteration():
    assert [losses.temporal_weight(i, 100) for i in (0, 50, 75, 100)] == [0, 0, 0.5, 1]


def test_losses_of_low_precision_logits_are_float32():
    logits = torch.randn(4, 1).bfloat16()
    assert losses.discriminator_logistic(logits, logits).dtype == torch.float32


def test_mask_budget_shrinks_with_the_degree():
    degree = torch.tensor([0.0, 1.0])
    half = torch.full((2, 1, 4, 4), 0.5)
    assert losses.mask_budget([half], degree).item() == pytest.approx(0.4 / 2)  # 1.0 allowed at 0, 0.1 at 1
    assert losses.mask_budget([half, half[..., :2, :2]], degree).item() == pytest.approx(0.4)
    assert losses.mask_budget([0.05 * half], degree) == 0
