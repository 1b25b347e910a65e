"""Layer-wise blending: the published rule, and what must come out at the ends."""

from __future__ import annotations

import pytest
import torch
from golden_data import Case, state_dict

from vtoonify_lib.config import TINY, GeneratorConfig, VToonifyError
from vtoonify_lib.models.stylegan2 import Generator
from vtoonify_lib.weights import layer_swap


def parents():
    torch.manual_seed(0)
    return Generator(TINY.generator), Generator(TINY.generator)


def test_golden_blends():
    case = Case("blend_models")
    tuned, base = (state_dict("generator_s64_cm1", prefix) for prefix in ("low:", "high:"))
    weights = {
        "default": [1.0] * 7 + [0.0] * 3,
        "cartoon": [1.0] * 9 + [0.0],
        "half": [0.5] * 7 + [1.0] * 3,
        "ramp": case.arrays["weights/ramp"].tolist()[:10],
    }
    keys = case.arrays["keys"].tolist()
    for name, values in weights.items():
        blended = layer_swap.blend_states(tuned, base, values)
        assert sorted(blended) == keys
        case.check(f"{name}/means", torch.stack([blended[k].double().mean() for k in keys]))
        case.check(f"{name}/stds", torch.stack([blended[k].double().std(correction=0) for k in keys]))


def test_weight_one_is_the_tuned_model_where_layers_are_concerned():
    tuned, base = parents()
    ones, zeros = layer_swap.blend(tuned, base, 1.0).state_dict(), layer_swap.blend(tuned, base, 0.0).state_dict()
    for name, value in base.state_dict().items():
        assert zeros[name].equal(value)
        assert ones[name].equal(value if layer_swap.layer_of(name) is None else tuned.state_dict()[name])
    assert ones["style.1.weight"].equal(base.style[1].weight) and ones["input.input"].equal(base.input.input)


def test_parents_stay_as_they_are():
    tuned, base = parents()
    before = [p.clone() for p in [*tuned.parameters(), *base.parameters()]]
    blended = layer_swap.blend(tuned, base, 0.5)
    middle = (tuned.convs[0].conv.weight + base.convs[0].conv.weight) / 2
    assert torch.allclose(blended.convs[0].conv.weight, middle, atol=1e-6)
    with torch.no_grad():
        blended.style[1].weight.zero_()
    assert all(a.equal(b) for a, b in zip(before, [*tuned.parameters(), *base.parameters()], strict=True))


def test_every_layer_is_counted():
    layers = {layer_swap.layer_of(name) for name in Generator(TINY.generator).state_dict()}
    assert layers == {None, *range(10)}


def test_swap():
    assert layer_swap.swap_at(64, 10) == [1.0] * 7 + [0.0] * 3
    assert layer_swap.swap_at(8, 4, weight=0.5) == [0.5, 0.0, 0.0, 0.0]


def test_wrong_weights():
    tuned, base = parents()
    for weights, message in [([1.0] * 18, "got 18 blending weights; this generator has 10"), (1.5, r"lie in \[0,1\]")]:
        with pytest.raises(VToonifyError, match=message):
            layer_swap.blend(tuned, base, weights)
    other = Generator(GeneratorConfig(8, 32, 2, ((4, 16), (8, 16))))
    with pytest.raises(VToonifyError, match="different sizes"):
        layer_swap.blend(tuned, other, 1.0)
