"""The inference form gives the trained form's pictures, and its cost is counted honestly."""

from __future__ import annotations

import pytest
import torch

from vtoonify_lib import fast
from vtoonify_lib.config import INPUT_CHANNELS, PUBLISHED, STUDIO, TINY, GeneratorConfig, VToonifyConfig, VToonifyError
from vtoonify_lib.models.encoders import ParsingNet
from vtoonify_lib.models.vtoonify import VToonify
from vtoonify_lib.ops import StyledConv

SMALL = VToonifyConfig(GeneratorConfig(256, 32, 2, ((4, 8), (8, 8), (16, 8), (32, 24), (64, 16), (128, 8), (256, 8))),
                       in_size=64)


def shaken(config):
    """A network whose every number differs from its initialisation, biases and fusion included."""
    torch.manual_seed(0)
    net = VToonify(config).eval().requires_grad_(False)
    for p in net.parameters():
        p.add_(0.1 * p.std(correction=0) * torch.randn_like(p) + 0.03 * torch.randn_like(p))
    return net


def relative(a, b):
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("config, h, w", [(TINY, 32, 32), (SMALL, 64, 64), (SMALL, 8, 40), (STUDIO, 32, 64)])
def test_folded_equals_plain(config, h, w):
    net = shaken(config)
    x, code = torch.randn(2, INPUT_CHANNELS, h, w), torch.randn(1, net.generator.n_latent, config.generator.style_dim)
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


def test_parsing_net_with_batch_norm_folded():
    torch.manual_seed(0)
    net = ParsingNet()
    for _ in range(3):
        net(torch.randn(2, 3, 32, 32))  # moves the running statistics
    net.eval()
    x = torch.randn(1, 3, 64, 40)
    folded = fast.fold(net)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in net.modules())
    with torch.no_grad():
        assert relative(folded(x), net(x)) <= 1e-4


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


def test_cost_of_the_presets():
    published = fast.report_cost(PUBLISHED, 256, 256)
    assert published.parameters == 78_828_991
    # 21.5 M are never used (mapping, layers below 32²); 1.8 M of modulation end in the weights.
    assert published.parameters - published.parameters_used == pytest.approx(23.3e6, rel=0.01)
    studio = fast.report_cost(STUDIO, 128, 128)
    assert studio.parameters < 3e6 and studio.macs < 5e9
