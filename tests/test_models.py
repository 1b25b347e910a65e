"""Properties of the networks at the smallest sizes: any frame size, batches, presets, errors, initialisation."""

from __future__ import annotations

import pytest
import torch

from vtoonify_lib.config import INPUT_CHANNELS, STUDIO, TINY, GeneratorConfig, VToonifyConfig, VToonifyError
from vtoonify_lib.models import layers
from vtoonify_lib.models.encoders import ParsingNet, StyleEncoder
from vtoonify_lib.models.stylegan2 import Discriminator, Generator, minibatch_stddev
from vtoonify_lib.models.vtoonify import VToonify, identity_fusion

SMALL = VToonifyConfig(GeneratorConfig(256, 32, 2, tuple((2**k, 8) for k in range(2, 9))), in_size=64)


def build(cls, *args, seed=0):
    torch.manual_seed(seed)
    return cls(*args).eval().requires_grad_(False)


def close(a, b, tolerance=1e-5):
    return (a - b).abs().max() <= tolerance * b.abs().max()


@pytest.mark.parametrize("config, h, w",
                         [(TINY, 32, 32), (TINY, 8, 8), (TINY, 40, 24), (SMALL, 64, 64), (SMALL, 8, 104)])
def test_any_size_that_is_a_multiple_of_eight(config, h, w):
    net = build(VToonify, config)
    y = net(torch.randn(1, INPUT_CHANNELS, h, w), torch.randn(1, config.generator.style_dim))
    assert y.shape == (1, 3, h * config.scale, w * config.scale)


def test_studio_preset():
    net, d = build(VToonify, STUDIO), build(Discriminator, STUDIO.generator)
    y = net(torch.randn(1, INPUT_CHANNELS, 128, 128), torch.randn(1, 14, 128))
    assert d(y).shape == (1, 1)
    assert sum(p.numel() for p in net.parameters()) < 3e6


def test_batch_equals_singles():
    net = build(VToonify, SMALL)
    x, w = torch.randn(3, INPUT_CHANNELS, 32, 40), torch.randn(3, 14, 32)
    singles = torch.cat([net(x[i : i + 1], w[i : i + 1]) for i in range(3)])
    assert close(net(x, w), singles)
    shared = net(x, w[:1])
    assert close(shared[2:], net(x[2:], w[:1]))


def test_only_color_layers_are_read():
    net, x, w = build(VToonify, TINY), torch.randn(1, INPUT_CHANNELS, 32, 32), torch.randn(1, 10, 32)
    other = w.clone()
    other[:, :7] = 0
    assert net(x, w).equal(net(x, other))
    other[:, 7] = 0
    assert not net(x, w).equal(net(x, other))


def test_translation_equivariance_inside():
    """Crop then stylise = stylise then crop, away from the border, for shifts of whole encoder strides."""
    net = build(VToonify, SMALL)
    x, w = torch.randn(1, INPUT_CHANNELS, 160, 160), torch.randn(1, 32)
    whole, part = net(x, w), net(x[:, :, 8:152, 8:152], w)
    inside = slice(240, 336)
    shifted = slice(240 + 32, 336 + 32)
    assert close(part[:, :, inside, inside], whole[:, :, shifted, shifted], 1e-3)


def test_fusion_starts_as_identity():
    torch.manual_seed(0)
    f_g, f_e = torch.randn(1, 16, 9, 7), torch.randn(1, 24, 9, 7)
    fused = identity_fusion(16, 24, 16)(torch.cat([f_g, f_e], 1))
    assert (fused - f_g).abs().max() < 0.2 and torch.nn.functional.cosine_similarity(fused, f_g).min() > 0.99


@pytest.mark.parametrize("shape, message", [
    ((1, 22, 250, 304), "frame is 304×250; both sides must be multiples of 8; use faces.crop.plan_crop"),
    ((1, 3, 32, 32), r"expected \[B,22,H,W\]"),
    ((22, 32, 32), r"expected \[B,22,H,W\]"),
    ((1, 22, 0, 32), "multiples of 8"),
])
def test_wrong_frames(shape, message):
    with pytest.raises(VToonifyError, match=message):
        build(VToonify, TINY)(torch.zeros(shape), torch.zeros(1, 32))


@pytest.mark.parametrize("shape", [(1, 9, 32), (2, 10, 32), (1, 10, 16)])
def test_wrong_style_codes(shape):
    with pytest.raises(VToonifyError, match="style code has shape"):
        build(VToonify, TINY)(torch.zeros(1, 22, 32, 32), torch.zeros(shape))


def test_wrong_arguments_of_the_generator():
    g = build(Generator, TINY.generator)
    z = torch.randn(1, 32)
    for bad, message in [({"space": "s"}, "space"), ({"until": 128}, "feature map at resolution 128")]:
        with pytest.raises(VToonifyError, match=message):
            g(z, **bad)
    with pytest.raises(VToonifyError, match="truncation needs a centre"):
        g.to_w(z, truncation=0.5)
    with pytest.raises(VToonifyError, match="16 numbers; this generator reads 32"):
        g(z[:, :16])
    with pytest.raises(VToonifyError, match=r"expected \[B,3,64,64\]"):
        build(Discriminator, TINY.generator)(torch.zeros(1, 3, 32, 32))
    with pytest.raises(VToonifyError, match="VToonify-T"):
        VToonify(VToonifyConfig(TINY.generator, 32, "dualstylegan"))


def test_initialisation_is_deterministic():
    for cls, args in [(VToonify, (TINY,)), (Discriminator, (TINY.generator,)), (ParsingNet, ()),
                      (StyleEncoder, (64, 10, 32))]:
        a, b, c = (build(cls, *args, seed=s).state_dict() for s in (0, 0, 1))
        assert all(a[k].equal(b[k]) for k in a)
        assert any(not a[k].equal(c[k]) for k in a)


def test_zero_noise_draws_nothing():
    g, z = build(Generator, TINY.generator), torch.randn(1, 32)
    for conv in [g.conv1, *g.convs]:
        conv.noise.weight.fill_(0.3)
    before = torch.get_rng_state()
    assert g(z).equal(g(z))
    assert torch.get_rng_state().equal(before)
    assert not g(z, noise=True).equal(g(z)) and g(z, noise=True).equal(g(z, noise=True))


def test_generator_stops_where_told():
    g, z = build(Generator, TINY.generator), torch.randn(2, 32)
    for r in (4, 16, 64):
        feature, skip = g(z, until=r)
        assert feature.shape == (2, 16, r, r) and skip.shape == (2, 3, r, r)
    assert skip.equal(g(z))


def test_encoder_and_generator_agree_on_the_handoff():
    net = build(VToonify, SMALL)
    feature, skip = net.encode(torch.randn(1, INPUT_CHANNELS, 64, 64))
    target, target_skip = net.generator(torch.randn(1, 32), until=32)
    assert feature.shape == target.shape and skip.shape == target_skip.shape


@pytest.mark.parametrize("batch, group", [(1, 1), (2, 2), (3, 3), (4, 4), (5, 1), (6, 3), (8, 4)])
def test_minibatch_stddev_takes_any_batch(batch, group):
    x = torch.randn(batch, 5, 4, 4)
    y = minibatch_stddev(x)
    assert y.shape == (batch, 6, 4, 4) and y[:, :5].equal(x)
    first = x[:: batch // group]
    assert torch.allclose(y[0, 5, 0, 0], (first.var(0, unbiased=False) + 1e-8).sqrt().mean())


@pytest.mark.parametrize("down, pad, k", [(1, 2, 4), (2, 1, 4), (2, 0, 5)])
def test_a_filter_is_its_definition(down, pad, k):
    x, kernel = torch.randn(2, 3, 7, 6), torch.randn(k, k)
    padded = torch.nn.functional.pad(x, [pad] * 4)
    expected = torch.nn.functional.conv2d(padded, kernel.flip(0, 1).expand(3, 1, k, k), groups=3)[:, :, ::down, ::down]
    actual = layers.filtered(x, kernel, pad, down)
    assert actual.shape == expected.shape and close(actual, expected)


def test_upsampling_filters_what_zeros_were_put_into():
    x, net, zeros = torch.randn(2, 3, 7, 6), layers.Upsample(), torch.zeros(2, 3, 14, 12)
    net.kernel.copy_(torch.randn(4, 4))
    zeros[:, :, ::2, ::2] = x
    assert close(net(x), layers.filtered(torch.nn.functional.pad(zeros, [2, 1, 2, 1]), net.kernel))


def test_second_derivatives_exist():
    torch.manual_seed(0)
    d = Discriminator(TINY.generator)
    image = torch.randn(2, 3, 64, 64, requires_grad=True)
    (grad,) = torch.autograd.grad(d(image).sum(), image, create_graph=True)
    grad.square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in d.parameters())
    assert d.convs[1].conv2[1].weight.grad.abs().sum() > 0
    g = Generator(TINY.generator)
    w = g.map(torch.randn(2, 32)).detach().requires_grad_()
    (grad,) = torch.autograd.grad(g(w, space="w").square().sum(), w, create_graph=True)
    grad.norm().backward()
    assert g.convs[0].conv.weight.grad.isfinite().all() and g.convs[0].conv.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("h, w", [(8, 8), (24, 72), (128, 128)])
def test_parsing_net_gives_logits_at_full_size(h, w):
    assert build(ParsingNet)(torch.randn(2, 3, h, w)).shape == (2, 19, h, w)


def test_parsing_net_refuses_other_sizes():
    with pytest.raises(VToonifyError, match="multiples of 8"):
        build(ParsingNet)(torch.zeros(1, 3, 30, 32))


def test_style_encoder():
    net = build(StyleEncoder, 64, 10, 32)
    net.latent_avg.fill_(2.0)
    w = net(torch.randn(3, 3, 64, 64))
    assert w.shape == (3, 10, 32) and (w - 2).abs().max() < 0.5
    assert net(torch.randn(1, 3, 200, 200)).shape == (1, 10, 32)
    with pytest.raises(VToonifyError, match="square face"):
        net(torch.randn(1, 3, 64, 48))
    with pytest.raises(VToonifyError, match="multiples of 32"):
        StyleEncoder(100, 10, 32)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_networks_follow_the_dtype(dtype):
    net = build(VToonify, TINY).to(dtype)
    y = net(torch.randn(1, 22, 16, 16, dtype=dtype), torch.randn(1, 32, dtype=dtype))
    assert y.dtype == dtype and y.isfinite().all()
