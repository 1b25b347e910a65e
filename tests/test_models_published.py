"""Properties of the networks around VToonify that published checkpoints need, at the smallest sizes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from vtoonify_lib.config import TINY, VToonifyError
from vtoonify_lib.models.bisenet import BiSeNet, PublishedParser
from vtoonify_lib.models.conditional import ConditionalDiscriminator, ConditionalPatches
from vtoonify_lib.models.perceptual import LPIPS, unit
from vtoonify_lib.models.psp import PSP, GradualStyleEncoder
from vtoonify_lib.training import objectives


def build(cls, *args, seed=0):
    torch.manual_seed(seed)
    return cls(*args).eval().requires_grad_(False)


def close(a, b, tolerance=1e-5):
    return (a - b).abs().max() <= tolerance * b.abs().max()


@pytest.mark.parametrize("kind, arguments, shape", [
    (ConditionalDiscriminator, (TINY.generator, 5), (4, 1)), (ConditionalPatches, (5, 8), (4, 1, 16, 16))])
def test_conditional_discriminators_listen(kind, arguments, shape):
    net, image = build(kind, *arguments), torch.randn(4, 3, 64, 64)
    y = net(image, 0.5, 2)
    assert y.shape == shape
    assert close(net(image, torch.full((4, 1), 0.5), torch.full((4,), 2)), y)
    assert not close(net(image, 0.9, 2), y, 1e-3) and not close(net(image, 0.5, 3), y, 1e-3)


@pytest.mark.parametrize("degree, style, message", [
    (torch.zeros(3), 0, "degree has shape"),
    (0.5, 5, "style index is 5; this discriminator knows 0 … 4"),
    (0.5, torch.zeros(2, dtype=torch.long), "style index has shape")])
def test_wrong_conditions(degree, style, message):
    with pytest.raises(VToonifyError, match=message):
        build(ConditionalDiscriminator, TINY.generator, 5)(torch.zeros(4, 3, 64, 64), degree, style)


def test_a_conditional_discriminator_knows_styles():
    for make in (lambda: ConditionalDiscriminator(TINY.generator, 0), lambda: ConditionalPatches(0)):
        with pytest.raises(VToonifyError, match="got 0 styles"):
            make()


def test_patches_are_judged_where_they_are():
    net, image = build(ConditionalPatches, 5, 8), torch.zeros(1, 3, 64, 96)
    spoilt = image.clone()
    spoilt[..., 40:44, 60:64] = 1.0
    changed = (net(spoilt, 0.5, 2) - net(image, 0.5, 2))[0, 0].nonzero()
    assert len(changed) and (changed - torch.tensor([10, 15])).abs().max() <= 5


@pytest.mark.parametrize("h, w", [(32, 48), (33, 17), (16, 16), (72, 88)])
def test_bisenet_takes_any_size(h, w):
    heads = build(BiSeNet, 19, 4)(torch.randn(2, 3, h, w))
    assert [head.shape for head in heads] == [(2, 19, h, w)] * 3


@pytest.mark.parametrize("h, w", [(8, 8), (24, 40), (31, 50)])
def test_parser_is_the_first_head_at_twice_the_size(h, w):
    """Enlarge the picture, parse it, keep every second logit: by its definition, and as the parser does it."""
    whole, parser = build(BiSeNet, 19, 4), PublishedParser(19, 4).eval()
    parser.load_state_dict(PublishedParser.state_of(whole.state_dict()), strict=True)
    image = torch.randn(2, 3, h, w)
    double = F.interpolate(2 * image, scale_factor=2, mode="bilinear", align_corners=False)
    expected = F.interpolate(whole(double)[0], size=(h, w), mode="nearest")
    assert close(parser(image), expected, 1e-4)
    assert not any("16" in name.split(".")[1] or "32" in name.split(".")[1] for name in parser.state_dict())


def test_parser_follows_the_dtype_and_refuses_other_shapes():
    parser = build(PublishedParser, 19, 4)
    assert parser.to(torch.bfloat16)(torch.randn(1, 3, 16, 16, dtype=torch.bfloat16)).dtype == torch.bfloat16
    for shape in [(1, 22, 16, 16), (3, 16, 16), (1, 3, 4, 16)]:
        with pytest.raises(VToonifyError, match="parsing got a picture"):
            parser(torch.zeros(shape))


def test_psp_adds_the_average_and_wants_an_aligned_face():
    net = build(PSP, 10, 4)
    net.latent_avg.fill_(5.0)
    face = torch.randn(2, 3, 256, 256)
    codes = net(face)
    assert codes.shape == (2, 10, 32) and close(codes, net.encoder(face) + 5)
    assert close(codes[1:], net(face[1:]), 1e-4)
    with pytest.raises(VToonifyError, match="expected an aligned face"):
        net(face[:, :, :128])


def test_psp_styles_see_different_maps():
    """Three coarse styles, four middle ones, the rest fine: a deeper head for each larger map."""
    heads = GradualStyleEncoder(18, 4).styles
    assert [sum(isinstance(m, torch.nn.Conv2d) for m in head.convs) for head in heads] == [4] * 3 + [5] * 4 + [6] * 11


@pytest.fixture(scope="module")
def lpips():
    torch.manual_seed(0)
    return LPIPS()


def test_lpips_measures_and_never_trains(lpips):
    a, b = torch.randn(1, 3, 32, 16).clamp(-1, 1).requires_grad_(), torch.randn(1, 3, 32, 16).clamp(-1, 1)
    assert not lpips.train().training and not any(p.requires_grad for p in lpips.parameters())
    lpips(a, b).sum().backward()
    assert a.grad.isfinite().all() and a.grad.abs().sum() > 0
    shapes = [(64, 32, 16), (128, 16, 8), (256, 8, 4), (512, 4, 2), (512, 2, 1)]
    assert [feature.shape[1:] for feature in lpips.features(b)] == shapes
    nothing = torch.zeros(1, 3, 2, 2, requires_grad=True)  # what ReLU may leave of a pixel: no direction, no slope
    unit(nothing).sum().backward()
    assert nothing.grad.isfinite().all()


def test_lpips_refuses_what_does_not_fit(lpips):
    vgg = {f"features.{name.split('.', 1)[1]}": value for name, value in lpips.net.state_dict().items()}
    heads = {k: v for k, v in lpips.state_dict().items() if k.startswith("lin")}
    for bad, message in [
            ({}, "26 weights are missing and 0 are unknown"),
            (vgg | {"features.1.weight": torch.zeros(1)}, "1 are unknown, for example features.1.weight"),
            (vgg | {"features.0.bias": torch.zeros(3)}, r"slice1.0.bias has shape \[3\], expected \[64\]")]:
        with pytest.raises(VToonifyError, match=message):
            objectives.lpips_of(bad, heads)
    with pytest.raises(VToonifyError, match="5 weights are missing and 26 are unknown"):
        objectives.lpips_of(vgg, vgg)
    objectives.lpips_of(vgg, heads)
    with pytest.raises(VToonifyError, match="expected the same"):
        lpips(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 32))
    with pytest.raises(VToonifyError, match="H and W 16 or more"):
        lpips.features(torch.zeros(1, 3, 8, 16))


def test_initialisation_is_deterministic():
    for cls, args in [(BiSeNet, (19, 4)), (PSP, (10, 4)), (ConditionalDiscriminator, (TINY.generator, 5))]:
        a, b, c = (build(cls, *args, seed=s).state_dict() for s in (0, 0, 1))
        assert all(a[k].equal(b[k]) for k in a)
        assert any(not a[k].equal(c[k]) for k in a)
