"""Properties of VToonify-D and DualStyleGAN at the smallest sizes, with random weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from golden_modules import unread_weights

from vtoonify_lib.config import (
    INPUT_CHANNELS,
    PUBLISHED,
    PUBLISHED_D,
    TINY,
    GeneratorConfig,
    VToonifyConfig,
    VToonifyError,
)
from vtoonify_lib.models import latents
from vtoonify_lib.models.dualstylegan import DualStyleGAN
from vtoonify_lib.models.stylegan2 import Generator
from vtoonify_lib.models.vtoonify import VToonify
from vtoonify_lib.models.vtoonify_d import VToonifyD, build_vtoonify

TINY_D = replace(TINY, backbone="dualstylegan")
SMALL_D = VToonifyConfig(GeneratorConfig(256, 32, 7, tuple((2**k, 8) for k in range(2, 9))), 64, "dualstylegan")
LAYERS, D = latents.n_latent(TINY.out_size), TINY.generator.style_dim


def build(cls, *args, seed=0):
    """In evaluation mode, with weights far from "change nothing", where several parts start."""
    torch.manual_seed(seed)
    net = cls(*args).eval().requires_grad_(False)
    for name, value in net.named_parameters():
        if ".norm" in name or "conv2.0.weight" in name or "conv.0.weight" in name:
            value.add_(torch.randn_like(value), alpha=0.3)
    return net


def close(a, b, tolerance=1e-5):
    return (a - b).abs().max() <= tolerance * b.abs().max()


@pytest.fixture(scope="module")
def net() -> VToonifyD:
    return build(VToonifyD, TINY_D)


@pytest.fixture(scope="module")
def dual() -> DualStyleGAN:
    return build(DualStyleGAN, TINY.generator)


@pytest.fixture
def frames():
    torch.manual_seed(1)
    return torch.randn(3, INPUT_CHANNELS, 24, 40), torch.randn(3, LAYERS, D)


# -- VToonify-D --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("config, h, w", [(TINY_D, 32, 32), (TINY_D, 8, 8), (TINY_D, 40, 24), (SMALL_D, 8, 104),
                                          (SMALL_D, 64, 64)])
def test_any_size_that_is_a_multiple_of_eight(config, h, w):
    net = build(VToonifyD, config)
    x, style = torch.randn(1, INPUT_CHANNELS, h, w), torch.randn(1, config.generator.style_dim)
    picture, masks, _ = net.draw(x, style, 0.7)
    assert picture.shape == (1, 3, h * config.scale, w * config.scale)
    assert close(net(x, style, 0.7), picture)
    handoff = config.in_size // 32
    assert [m.shape for m in masks] == [(1, 1, h * 2**i // handoff, w * 2**i // handoff) for i in range(len(masks))]
    assert len(masks) == len(net.fusion_out) and all(0 <= m.min() and m.max() <= 1 for m in masks)


def test_a_degree_for_each_frame_equals_singles(net, frames):
    x, w = frames
    degrees = torch.tensor([0.0, 0.4, 1.0])
    singles = [net(x[i : i + 1], w[i : i + 1], float(degrees[i])) for i in range(3)]
    assert close(net(x, w, degrees), torch.cat(singles))
    assert not close(net(x, w, 0.4)[2:], singles[2], 1e-2)


def test_batch_equals_singles_in_one_go(net, frames):
    """What a GPU does: no splitting."""
    x, w = frames
    style = net._style(x, w, torch.tensor([0.1, 0.5, 0.9]))
    details, feature, skip = net._encode(x, style)
    whole, masks, _ = net._synthesize(feature, skip, details, style)
    expected, expected_masks, _ = net.draw(x, w, torch.tensor([0.1, 0.5, 0.9]))
    assert close(whole, expected) and all(close(a, b) for a, b in zip(masks, expected_masks, strict=True))


def test_one_style_for_all_frames(net, frames):
    x, w = frames
    assert close(net(x, w[:1], 0.3), net(x, w[:1].expand(3, -1, -1), torch.full((3,), 0.3)))


def test_degree_zero_leaves_modres_out(frames):
    x, w = frames
    net, other = build(VToonifyD, TINY_D), build(VToonifyD, TINY_D)
    for value in other.res.parameters():
        value.mul_(3)
    assert net(x, w, 0.0).equal(other(x, w, 0.0))
    assert not close(net(x, w, 0.5), other(x, w, 0.5), 1e-2)


def test_which_codes_are_read(net, frames):
    """Structure by ModRes, colour by the generator; code 0 belongs to the block that the encoder replaces."""
    x, w = frames
    plain = net(x, w, 0.5)
    for layer in range(LAYERS):
        other = w.clone()
        other[:, layer] = torch.randn(D, generator=torch.Generator().manual_seed(layer))
        assert net(x, other, 0.5).equal(plain) == (layer == 0), layer


def test_degree_is_differentiable_and_never_a_branch(net, frames):
    x, w = frames
    degree = torch.tensor([0.0, 0.5, 1.0], requires_grad=True)
    net(x, w, degree).square().sum().backward()
    assert degree.grad.isfinite().all() and (degree.grad != 0).all()
    with torch.device("meta"):  # where asking a tensor for its value is an error
        there = VToonifyD(TINY_D)
        assert there(x.to("meta"), w.to("meta"), torch.zeros(3)).shape == (3, 3, 48, 80)


def test_encode_is_what_the_generator_would_hand_over(net, frames):
    x, w = frames
    feature, skip = net.encode(x, w, torch.tensor([0.0, 0.5, 1.0]))
    target, target_skip = net.generator(w, w, net.generator.degrees(0.5, 0.0), space="w", until=32)
    assert feature.shape[:2] == target.shape[:2] and skip.shape[:2] == target_skip.shape[:2]
    assert not close(feature[1:2], net.encode(x[1:2], w[1:2], 0.0)[0], 1e-2)


def test_modres_starts_as_dualstylegans(net):
    fresh = VToonifyD(TINY_D)
    assert all(a.equal(b) for block, its in zip(fresh.res, fresh.generator.res, strict=False)
               for a, b in zip(block.parameters(), its.parameters(), strict=True))
    assert [block.conv[0].dilation for block in fresh.res][1:] == [4, 4, 2, 2, 1, 1]
    assert len(fresh.res) == latents.n_structure()


def test_fusion_starts_as_identity():
    torch.manual_seed(0)
    fusion = VToonifyD(TINY_D).fusion_out[0]
    f_g, f_e = torch.randn(1, 16, 9, 7), torch.randn(1, 16, 9, 7)
    assert F.cosine_similarity(fusion(f_g, f_e, 0.5)[0], f_g).min() > 0.98
    assert fusion.norm.style.bias[:32].eq(1).all()  # gamma


@pytest.mark.parametrize("degree", [torch.zeros(2), torch.zeros(3, 1), torch.zeros(1, 1)])
def test_wrong_degrees(net, frames, degree):
    with pytest.raises(VToonifyError, match="style degree has shape"):
        net(*frames, degree)


def test_wrong_frames_and_styles(net, frames):
    x, w = frames
    with pytest.raises(VToonifyError, match="multiples of 8"):
        net(x[:, :, :20], w)
    with pytest.raises(VToonifyError, match=r"style code has shape \[2, 10, 32\]; expected \[3 or 1,10,32\]"):
        net(x, w[:2])
    big = replace(SMALL_D, generator=GeneratorConfig(512, 8, 2, tuple((2**k, 4) for k in range(2, 10))), in_size=256)
    with pytest.raises(VToonifyError, match="frame is 8×8; VToonify-D needs 16 pixels along one side"):
        build(VToonifyD, big)(torch.zeros(1, INPUT_CHANNELS, 8, 8), torch.zeros(1, 8))
    assert build(VToonifyD, big)(torch.zeros(1, INPUT_CHANNELS, 8, 16), torch.zeros(1, 8)).isfinite().all()


def test_modres_needs_equal_widths():
    widths = ((4, 16), (8, 16), (16, 16), (32, 8), (64, 8))
    with pytest.raises(VToonifyError, match=r"\[8, 16\] channels at resolutions up to 32"):
        VToonifyD(VToonifyConfig(GeneratorConfig(64, 8, 2, widths), 32, "dualstylegan"))


def test_the_configuration_chooses_the_class():
    assert type(build_vtoonify(TINY)) is VToonify and type(build_vtoonify(TINY_D)) is VToonifyD
    with pytest.raises(VToonifyError, match="VToonify-D got backbone 'toonify'.*build_vtoonify"):
        VToonifyD(TINY)
    assert PUBLISHED_D == replace(PUBLISHED, backbone="dualstylegan")


@pytest.mark.parametrize("config", [TINY, TINY_D])
def test_inference_form(config, frames):
    """The same pictures and codes from fewer weights, under the same names; what is gone says so."""
    x, w = frames
    whole, used = build(build_vtoonify, config), build(build_vtoonify, config, True, seed=5)
    unread = unread_weights(config)
    assert unread == whole.state_dict().keys() - used.state_dict().keys() and unread
    used.load_state_dict({k: v for k, v in whole.state_dict().items() if k not in unread}, strict=True)
    assert used(x, w).equal(whole(x, w))
    assert used.map(w).equal(whole.map(w))
    assert used.stylegan.mean_w(8, torch.Generator().manual_seed(0)).shape == (1, D)
    with pytest.raises(VToonifyError, match="built for inference"):
        used.stylegan(w[:, 0], noise=True)


@pytest.mark.parametrize("config", [TINY, TINY_D])
def test_unread_weights_are_never_read(config, frames):
    """Filled with NaN, they leave no trace."""
    x, w = frames
    net, unread = build(build_vtoonify, config), unread_weights(config)
    expected = net(x, w)
    for name, value in net.state_dict().items():
        if name in unread:
            value.fill_(float("nan"))
    assert net(x, w).equal(expected)


# -- DualStyleGAN ------------------------------------------------------------------------------------------------------
def test_without_extrinsic_code_it_is_a_stylegan(dual):
    z, e = torch.randn(2, D), torch.randn(2, LAYERS, D)
    plain = dual.generator(z)
    assert dual(z).equal(plain)
    assert close(dual(z, e, 0.0), plain)
    assert not close(dual(z, e, 0.5), plain, 1e-2)


def test_degrees_per_sample_equal_singles(dual):
    z, e = torch.randn(3, D), torch.randn(3, LAYERS, D)
    degree = dual.degrees(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([1.0, 0.3, 0.0]))
    singles = torch.cat([dual(z[i : i + 1], e[i : i + 1], degree[i]) for i in range(3)])
    assert close(dual(z, e, degree), singles)
    assert close(dual(z, e, degree[1]), dual(z, e, degree[1:2].expand(3, -1)))
    assert close(dual(z, e[:1], degree), dual(z, e[:1].expand(3, -1, -1), degree))


def test_degrees():
    dual = DualStyleGAN(TINY.generator)
    assert dual.degrees(0.2, 0.8).tolist() == pytest.approx([0.2] * 7 + [0.8] * 3)
    both = dual.degrees(torch.tensor([0.1, 0.9]), 0.5)
    assert both.shape == (2, LAYERS) and both[1].tolist() == pytest.approx([0.9] * 7 + [0.5] * 3)


def test_color_degree_leaves_structure_alone(dual):
    z, e = torch.randn(1, D), torch.randn(1, D)
    plain = dual(z, until=32)
    colored = dual(z, e, dual.degrees(0.0, 1.0), until=32)
    assert close(colored[0], plain[0])
    assert not close(dual(z, e, dual.degrees(0.0, 1.0)), dual(z), 1e-2)
    shaped = dual(z, e, dual.degrees(1.0, 0.0), until=32)
    assert not close(shaped[0], plain[0], 1e-2)


def test_dualstylegan_starts_next_to_its_generator():
    """ModRes changes nearly nothing, and T_s returns nearly what it is given."""
    torch.manual_seed(0)
    dual, e = DualStyleGAN(TINY.generator).eval(), torch.randn(1, LAYERS, D)
    w = dual.map(torch.randn(1, D))
    feature, _ = dual(w, e, dual.degrees(1.0, 0.0), space="w", until=32)
    assert close(feature, dual(w, space="w", until=32)[0], 0.05)
    assert (dual.color_codes(e) - e[:, 7:]).abs().max() < 0.05


def test_no_branch_on_the_degrees(dual):
    with torch.device("meta"):
        there = DualStyleGAN(TINY.generator)
        assert there(torch.zeros(2, D), torch.zeros(2, D), torch.zeros(2, LAYERS)).shape == (2, 3, 64, 64)


def test_wrong_arguments_of_dualstylegan(dual):
    z, e = torch.randn(2, D), torch.randn(2, LAYERS, D)
    for bad, message in [((z, e[:, :, :16]), "extrinsic code"), ((z, torch.randn(3, LAYERS, D)), "extrinsic code"),
                         ((z, e[:, :9]), "style code"), ((z, e, torch.zeros(7)), "degree"),
                         ((z, e, torch.zeros(3, LAYERS)), "degree"), ((z, e, [1.0] * 18), "degree")]:
        with pytest.raises(VToonifyError, match=f"{message} has shape"):
            dual(*bad)
    with pytest.raises(VToonifyError, match="must be larger than 32"):
        DualStyleGAN(GeneratorConfig(32, 8, 2, tuple((2**k, 4) for k in range(2, 6))))


def test_generator_shows_every_convolution_once():
    g, seen = build(Generator, TINY.generator), []
    picture = g.synthesize(g.to_w(torch.randn(1, D)), modify=lambda layer, x: seen.append((layer, x.shape[-1])) or x)
    assert seen == [(layer, latents.layer_resolution(layer)) for layer in range(LAYERS - 1)]
    assert picture.shape == (1, 3, 64, 64)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_networks_follow_the_dtype(dtype):
    net = build(VToonifyD, TINY_D).to(dtype)
    x, w = torch.randn(2, 22, 16, 16, dtype=dtype), torch.randn(2, D, dtype=dtype)
    y = net(x, w, torch.tensor([0.0, 1.0]))
    assert y.dtype == dtype and y.isfinite().all()


def test_initialisation_is_deterministic():
    for cls, config in [(VToonifyD, TINY_D), (DualStyleGAN, TINY.generator)]:
        a, b, c = (build(cls, config, seed=s).state_dict() for s in (0, 0, 1))
        assert all(a[k].equal(b[k]) for k in a)
        assert any(not a[k].equal(c[k]) for k in a)
