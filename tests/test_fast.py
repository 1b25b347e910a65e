"""The inference form gives the trained form's pictures, and its cost is counted honestly."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from vtoonify_lib.config import (
    INPUT_CHANNELS,
    LARGE,
    PUBLISHED,
    PUBLISHED_D,
    STUDIO,
    TINY,
    GeneratorConfig,
    VToonifyConfig,
    VToonifyError,
)
from vtoonify_lib.models import folded as fast
from vtoonify_lib.models.bisenet import BiSeNet, PublishedParser
from vtoonify_lib.models.encoders import ParsingNet
from vtoonify_lib.models.latents import n_latent
from vtoonify_lib.models.layers import StyledConv
from vtoonify_lib.models.psp import IMAGE_SIZE, PSP
from vtoonify_lib.models.vtoonify_d import DEFAULT_DEGREE, build_vtoonify

TINY_D = replace(TINY, backbone="dualstylegan")
SMALL = VToonifyConfig(GeneratorConfig(256, 32, 2, ((4, 8), (8, 8), (16, 8), (32, 24), (64, 16), (128, 8), (256, 8))),
                       in_size=64)
SMALL_D = VToonifyConfig(GeneratorConfig(256, 32, 7, ((4, 8), (8, 8), (16, 8), (32, 8), (64, 16), (128, 8), (256, 8))),
                         64, "dualstylegan")
NARROW_D = replace(LARGE, generator=GeneratorConfig(1024, 32, 2, tuple((2**k, 8) for k in range(2, 11))),
                   backbone="dualstylegan")
PUBLISHED_INPUT_D = VToonifyConfig(GeneratorConfig(512, 32, 2, tuple((2**k, 8) for k in range(2, 10))), 256,
                                   "dualstylegan")


def shaken(config, inference=False):
    """A network whose every number differs from its initialisation, biases and fusion included; ModRes has its say."""
    torch.manual_seed(0)
    net = build_vtoonify(config, inference).eval().requires_grad_(False)
    for name, p in net.named_parameters():
        amount = 0.3 if name.startswith("res.") else 0.03
        p.add_(0.1 * p.std(correction=0) * torch.randn_like(p) + amount * torch.randn_like(p))
    return net


def random_code(config):
    return torch.randn(1, n_latent(config.out_size), config.generator.style_dim)


def relative(a, b):
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("config, h, w", [(SMALL, 8, 40), (STUDIO, 32, 64), (replace(TINY, detail=2), 32, 40),
                                          (replace(SMALL, detail=8), 24, 16)])
def test_folded_equals_plain(config, h, w):
    net = shaken(config)
    x = torch.randn(2, config.input_channels, h, w)
    code = torch.randn(1, net.generator.n_latent, config.generator.style_dim)
    before = x.clone()
    y = fast.fold(net, code)(x)
    assert relative(y, net(x, code)) <= 1e-4
    assert x.equal(before), "in-place activations must not reach the input"
    assert not any(p.requires_grad for p in fast.fold(net, code).parameters())


def test_style_code_forms():
    net, x = shaken(TINY), torch.randn(1, INPUT_CHANNELS, 16, 16)
    code = torch.randn(1, 10, 32)
    assert fast.fold(net, code)(x).equal(fast.fold(net, code[0])(x))
    assert relative(fast.fold(net, code[:, 3])(x), net(x, code[:, 3])) <= 1e-4
    assert relative(fast.fold(net, code[:, 3:4])(x), net(x, code[:, 3])) <= 1e-4
    with pytest.raises(VToonifyError, match="got 2 style codes"):
        fast.fold(net, code.repeat(2, 1, 1))
    with pytest.raises(VToonifyError, match="needs a style code"):
        fast.fold(net)
    with pytest.raises(VToonifyError, match="multiples of 8"):
        fast.fold(net, code)(x[..., :12])


@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 0.05), (torch.float16, 0.01)])
def test_low_precision_keeps_the_picture_in_float32(dtype, tolerance):
    net, x = shaken(SMALL), torch.randn(1, INPUT_CHANNELS, 32, 32)
    code = torch.randn(1, 14, 32)
    folded = fast.fold(net, code, dtype)
    y = folded(x)
    assert folded.dtype == dtype and y.dtype == torch.float32
    assert relative(y, net(x, code)) <= tolerance
    level = folded.levels[0]
    assert level.fuse_rgb.weight.dtype == torch.float32 and level.conv.weight.dtype == dtype
    assert fast.fold(net, code).to("cpu", dtype)(x).equal(y)


def test_folding_drops_what_a_frame_does_not_use():
    net = shaken(TINY)
    folded = fast.fold(net, torch.randn(1, 10, 32))
    names = {n.split(".")[0] for n, _ in folded.named_parameters()}
    assert names == {"down", "blocks", "to_skip", "levels"}
    assert fast.count_parameters(folded) < fast.count_parameters(net)


# -- VToonify-D --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("config, h, w, degree", [
    (TINY_D, 8, 40, 0.0), (TINY_D, 8, 40, 1.0), (TINY_D, 8, 40, torch.tensor([0.7])),
    *((config, h, w, torch.tensor([1.0, 0.0, 0.3])) for config, h, w in (
        (TINY_D, 32, 32), (SMALL_D, 56, 24), (NARROW_D, 16, 24)))])
def test_folded_d_equals_plain(config, h, w, degree):
    net, x, code = shaken(config, inference=True), torch.randn(3, INPUT_CHANNELS, h, w), random_code(config)
    before, (plain, masks, _) = x.clone(), net.draw(x, code, degree)
    assert relative(fast.fold(net, code)(x, degree), plain) <= 1e-5
    assert x.equal(before), "in-place activations must not reach the input"
    assert all(0.02 < mask.mean() < 0.98 and mask.std() > 0.02 for mask in masks), "masks that choose nothing"


def test_each_frame_of_a_batch_has_its_own_degree():
    net, x, code = shaken(SMALL_D), torch.randn(3, INPUT_CHANNELS, 32, 48), random_code(SMALL_D)
    folded, degrees = fast.fold(net, code), torch.tensor([0.0, 0.5, 1.0])
    singles = torch.cat([folded(x[i : i + 1], float(degrees[i])) for i in range(3)])
    assert relative(folded(x, degrees), singles) <= 1e-5
    assert relative(folded(x, degrees)[2], folded(x)[2]) > 1e-2
    assert folded(x).equal(folded(x, DEFAULT_DEGREE)) and relative(folded(x), net(x, code)) <= 1e-5


def test_flat_features_are_normalised_as_in_the_trained_form():
    """Where the variance is small, what AdaIN adds to it counts, and has to follow the scale of the folded feature."""
    net, x, code = shaken(TINY_D), torch.randn(1, INPUT_CHANNELS, 32, 32), random_code(TINY_D)
    *_, last, blocks, _ = net.encoder
    for conv in (last[2], *(conv for block in blocks for conv in (block.conv, block.conv2))):
        conv.weight.mul_(0.03)
        conv.bias.zero_()
    assert net.encode(x, code, 0.0)[0].var((2, 3)).max() < 1e-3
    assert relative(fast.fold(net, code)(x, 1.0), net(x, code, 1.0)) <= 1e-5


def test_degree_is_not_looked_at():
    """On the meta device no tensor has a value to branch on."""
    with torch.device("meta"):
        folded = fast.fold(build_vtoonify(TINY_D), random_code(TINY_D))
        assert folded(torch.zeros(2, INPUT_CHANNELS, 16, 24), torch.zeros(2)).shape == (2, 3, 32, 48)


@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 0.05), (torch.float16, 0.01)])
def test_low_precision_of_d(dtype, tolerance):
    net, x, code = shaken(SMALL_D), torch.randn(2, INPUT_CHANNELS, 32, 32), random_code(SMALL_D)
    folded, degree = fast.fold(net, code, dtype), torch.tensor([0.2, 0.9])
    y, plain = folded(x, degree), net(x, code, degree)
    assert folded.dtype == dtype and y.dtype == torch.float32
    assert (y - plain).norm() <= tolerance * plain.norm()
    assert folded.masks[0].label[0].weight.dtype == torch.float32, "steps of the degree would show"
    assert fast.fold(net, code).to("cpu", dtype)(x, degree).equal(y)


def test_wrong_arguments_of_d():
    net, x = shaken(TINY_D), torch.randn(2, INPUT_CHANNELS, 16, 16)
    folded = fast.fold(net, random_code(TINY_D))
    for degree in (torch.zeros(3), torch.zeros(2, 1), [0.1] * 3):
        with pytest.raises(VToonifyError, match="one for each of the 2 frames"):
            folded(x, degree)
    with pytest.raises(VToonifyError, match="multiples of 8"):
        folded(x[..., :12])
    with pytest.raises(VToonifyError, match="VToonify-D needs 16 pixels"):
        fast.fold(shaken(PUBLISHED_INPUT_D), random_code(PUBLISHED_INPUT_D))(x[..., :8, :8])
    with pytest.raises(VToonifyError, match="got 2 style codes"):
        fast.fold(net, torch.randn(2, 10, 32))


def test_folding_d_drops_what_a_frame_does_not_use():
    whole, used, code = shaken(TINY_D), build_vtoonify(TINY_D, inference=True), random_code(TINY_D)
    used.load_state_dict({k: v for k, v in whole.state_dict().items() if k in used.state_dict()})
    x, a, b = torch.randn(1, INPUT_CHANNELS, 16, 16), fast.fold(whole, code), fast.fold(used.eval(), code)
    assert a(x, 0.8).equal(b(x, 0.8))
    assert {n.split(".")[0] for n, _ in a.named_parameters()} == {"down", "blocks", "to_skip", "levels", "modres",
                                                                 "masks"}
    assert not a.state_dict().keys() & whole.state_dict().keys() - {"to_skip.weight", "to_skip.bias"}


# -- batch norms -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("make, h, w, stay", [
    (ParsingNet, 64, 40, 0), (lambda: PublishedParser(width=8), 48, 72, 0), (lambda: BiSeNet(width=8), 67, 96, 0),
    (lambda: PSP(n_styles=8, width=4), IMAGE_SIZE, IMAGE_SIZE, 24)], ids=["studio", "published", "bisenet", "psp"])
def test_batch_norms_are_folded(make, h, w, stay):
    torch.manual_seed(0)
    net, x = make(), torch.randn(2, 3, h, w)
    norms = [m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        for t, spread in ((norm.weight, 0.3), (norm.bias, 0.3), (norm.running_mean, 0.3), (norm.running_var, 0.1)):
            t.data += spread * torch.randn_like(t)
    folded = fast.fold(net)
    left = [name for name, m in folded.named_modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(left) == stay and all(name.endswith("res_layer.0") for name in left), "no convolution comes before these"
    assert all(isinstance(m, torch.nn.BatchNorm2d) for m in norms) and net.training, "the original stays as it is"
    with torch.no_grad():
        plain, half = answers(net.eval()(x)), fast.fold(net, dtype=torch.bfloat16)
        for a, b, c in zip(plain, answers(folded(x)), answers(half(x.bfloat16())), strict=True):
            assert relative(b, a) <= 1e-5
            assert c.dtype == torch.bfloat16 and (c.float() - a).norm() <= 0.05 * a.norm()


def answers(y):
    return y if isinstance(y, tuple) else (y,)


# -- cost --------------------------------------------------------------------------------------------------------------
def test_macs_of_one_layer_by_hand():
    layer = StyledConv(8, 6, 3, 16, up=True)
    h, w = 10, 12
    by_hand = (16 * 8            # modulation: style [16] → [8]
               + h * w * 8 * 6 * 9                         # each input pixel writes a 3x3 patch
               + (2 * h) * (2 * w) * 6 * 16)               # depthwise 4x4 blur on the output
    assert fast.count_macs(layer, torch.zeros(1, 8, h, w), torch.zeros(1, 16)) == by_hand


def test_macs_of_a_whole_network_by_hand():
    h, w, c, stem = 16, 24, 16, 32
    pixels = h * w  # TINY: hand-off at input size, then one doubling
    encoder = pixels * 9 * (22 * stem + stem * c + 6 * 2 * c * c) + pixels * 3 * c
    fusion = pixels * 9 * (2 * c * c + 3 * (c + 3))
    level = pixels * 9 * c * c + 4 * pixels * (16 * c + 9 * c * c + 3 * c) + pixels * 16 * 3
    assert fast.report_cost(TINY, h, w).macs == encoder + fusion + level


def test_macs_of_d_by_hand():
    h, w, c = 16, 24, 16
    modres = 6 * 2 * 9 * c * c
    mask = 9 * 2 * c  # the sum of the nine products is no convolution
    label = 64 + 64 * 128 + 128 * 4 * c
    extra = fast.report_cost(TINY_D, h, w).macs - fast.report_cost(TINY, h, w).macs
    assert extra == h * w * (modres + mask) + label


def test_what_the_published_d_holds_more_than_t():
    d, t = (fast.report_cost(config, 256, 256) for config in (PUBLISHED_D, PUBLISHED))
    modres = 6 * 2 * (512 * 512 * 9 + 512 + 2 * 512)
    masks = sum(9 * 2 * c + 1 + 2 * 64 + 65 * 128 + 129 * 4 * c for c in (512, 512, 256, 128))
    assert d.parameters_used - t.parameters_used == modres + masks
    assert d.parameters == sum(p.numel() for p in build_on_meta(PUBLISHED_D).parameters())


def build_on_meta(config):
    with torch.device("meta"):
        return build_vtoonify(config)


def test_cost_of_the_presets():
    published = fast.report_cost(PUBLISHED, 256, 256)
    assert published.parameters == 78_828_991
    # 21.5 M are never used (mapping, layers below 32²); 1.8 M of modulation end in the weights.
    assert published.parameters - published.parameters_used == pytest.approx(23.3e6, rel=0.01)
    studio = fast.report_cost(STUDIO, 128, 128)
    assert studio.parameters < 3e6 and studio.macs < 5e9


@pytest.mark.parametrize("config", [TINY, TINY_D])
def test_folding_stays_on_the_device_of_the_network(config):
    with torch.device("meta"):
        net = build_vtoonify(config)
        folded = fast.fold(net, torch.zeros(1, n_latent(config.out_size), config.generator.style_dim))
    assert {t.device.type for t in (*folded.parameters(), *folded.buffers())} == {"meta"}
    net = build_vtoonify(config).to("meta")  # made elsewhere, and moved
    folded = fast.fold(net, torch.zeros(1, n_latent(config.out_size), config.generator.style_dim, device="meta"))
    assert {t.device.type for t in (*folded.parameters(), *folded.buffers())} == {"meta"}


# ------------------------------------------------------------------------------------------ tiles


@pytest.mark.parametrize("config", [TINY, SMALL])
def test_tiles_make_the_same_picture(config):
    network = fast.fold(shaken(config), random_code(config))
    margin = fast.receptive_radius(network)
    assert margin % network.multiple == 0 and margin < 128
    x = torch.randn(1, INPUT_CHANNELS, 72, 264)
    with torch.inference_mode():
        whole, tiled = network(x), fast.draw_tiled(network, x, 64, margin, config.scale)
        scanty = fast.draw_tiled(network, x, 64, network.multiple, config.scale)
    assert relative(tiled, whole) < 1e-5 < relative(scanty, whole)


def test_tiles_of_a_network_for_256_px():
    config = replace(NARROW_D, backbone="toonify")
    network = fast.fold(shaken(config), random_code(config))
    margin = fast.receptive_radius(network)
    assert 128 < margin < 256, "it looks further than the smaller ones"
    x = torch.randn(1, INPUT_CHANNELS, 24, 456)
    with torch.inference_mode():
        whole, tiled = network(x), fast.draw_tiled(network, x, 64, margin, config.scale)
        scanty = fast.draw_tiled(network, x, 64, 64, config.scale)
    assert whole.shape == (1, 3, 96, 1824) and relative(tiled, whole) < 1e-5 < relative(scanty, whole)


def test_a_network_that_looks_at_everything_is_not_tiled():
    with pytest.raises(VToonifyError, match="the whole frame at once"):
        fast.receptive_radius(fast.fold(shaken(TINY_D), random_code(TINY_D)))


@pytest.mark.parametrize("config, degree", [(TINY, ()), (TINY_D, (0.5,))])
def test_too_little_memory_means_smaller_batches(config, degree, monkeypatch):
    network, x = fast.fold(shaken(config), random_code(config)), torch.randn(5, INPUT_CHANNELS, 64, 64)
    with torch.inference_mode():
        whole = network(x, *degree)
        forward, seen = type(network).forward, []

        def meagre(self, x, *degree):
            seen.append(len(x))
            if len(x) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return forward(self, x, *degree)

        monkeypatch.setattr(type(network), "forward", meagre)
        assert relative(fast.run_with_oom_fallback(network, x, *degree), whole) < 1e-5 and seen == [5, 3, 2, 1, 2]
        assert relative(fast.run_with_oom_fallback(network, x, *degree), whole) < 1e-5
        assert seen[5:] == [2, 1, 2]  # no 5, no 3


def test_too_little_memory_for_one_frame_of_d_is_said(monkeypatch):
    network = fast.fold(shaken(TINY_D), random_code(TINY_D))

    def never(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(type(network), "forward", never)
    with pytest.raises(torch.OutOfMemoryError):
        fast.run_with_oom_fallback(network, torch.randn(2, INPUT_CHANNELS, 64, 64), 0.5)


def test_too_little_memory_means_smaller_tiles(monkeypatch):
    network, x = fast.fold(shaken(TINY), random_code(TINY)), torch.randn(1, INPUT_CHANNELS, 256, 320)
    with torch.inference_mode():
        whole = network(x)
        forward, seen = type(network).forward, []

        def meagre(self, x):
            seen.append(tuple(x.shape[2:]))
            if x.shape[2] * x.shape[3] > 256 * 256:
                raise RuntimeError("CUDA out of memory")
            return forward(self, x)

        monkeypatch.setattr(type(network), "forward", meagre)
        assert relative(fast.run_with_oom_fallback(network, x), whole) < 1e-5
        assert seen[0] == (256, 320) and max(h * w for h, w in seen[1:]) <= 256 * 256
        seen.clear()
        assert relative(fast.run_with_oom_fallback(network, x), whole) < 1e-5
        assert max(h * w for h, w in seen) <= 256 * 256
        monkeypatch.setattr(type(network), "forward", lambda *_: (_ for _ in ()).throw(RuntimeError("another error")))
        with pytest.raises(RuntimeError, match="another error"):
            fast.run_with_oom_fallback(network, x)
