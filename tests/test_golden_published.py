"""Parity of the networks that published checkpoints need: outputs to 1e-4 of the largest sample."""

from __future__ import annotations

import json

import pytest
import torch
from golden_data import FOLDER, Case, manifest, state_dict
from golden_modules import VTOONIFY, filled, unread_weights

from vtoonify_lib.config import PUBLISHED, PUBLISHED_D
from vtoonify_lib.faces.parsing_maps import network_input, parsing_logits
from vtoonify_lib.models import latents
from vtoonify_lib.models.bisenet import PublishedParser
from vtoonify_lib.models.psp import PSP
from vtoonify_lib.models.vtoonify_d import build_vtoonify
from vtoonify_lib.training import objectives

SMALL_D = "vtoonify_d_in64_out256_cm1"


@pytest.fixture(scope="module")
def small_d():
    return filled(SMALL_D)


@pytest.fixture(scope="module")
def parser():
    net = PublishedParser()
    net.load_state_dict(PublishedParser.state_of(state_dict("bisenet_19")), strict=True)
    return net.eval().requires_grad_(False)


def test_dualstylegan():
    case, net = Case("dualstylegan_s64_cm1"), filled("dualstylegan_s64_cm1")
    z, w, exemplar, exemplar_plus = (case.inputs[key] for key in ("z", "wplus", "exz", "exzplus"))
    degree = net.degrees(0.6, 0.3)
    case.check("style_ex", net.style(exemplar))
    case.check("image_w", net(w, exemplar_plus, degree, space="w", noise=True))
    case.check("image_default", net(z, exemplar, noise=True))
    case.check("image_nores", net(z, noise=True))
    case.check("image_w0", net(w, exemplar_plus, net.degrees(0.0, 1.0), space="w", noise=True))
    near = latents.truncate(w, 0.5, torch.zeros(1))
    case.check("image_trunc0", net(near, exemplar_plus, degree, space="w", noise=True))
    case.check("image_zplus", net(exemplar_plus, exemplar_plus, degree, noise=True))
    # The published `fuse_index` 5 lets the extrinsic code into layers 0 … 5: the same as degree 0 in all others.
    case.check("image_fuse5", net(w, exemplar_plus, [1.0] * 6 + [0.0] * 4, space="w", noise=True))
    feature, skip = net(w, exemplar_plus, degree, space="w", noise=True, until=32)
    case.check("feat", feature)
    case.check("feat_skip", skip)


def test_conditional_discriminator():
    case, net = Case("cond_discriminator_s64_cm1_cond"), filled("cond_discriminator_s64_cm1_cond")
    case.check("y", net(case.inputs["x"], torch.tensor([0, 0.2, 0.5, 1]), torch.tensor([0, 4, 2, 2])))


def test_without_a_condition_it_is_the_plain_discriminator():
    case, net = Case("cond_discriminator_s64_cm1"), filled("discriminator_s64_cm1")
    case.check("y", net(case.inputs["x"]))


def test_vtoonify_d_small(small_d):
    case = Case(SMALL_D)
    x, w = case.inputs["x"], case.inputs["style"]
    picture, masks, _ = small_d.draw(x, w, 0.5)
    case.check("y_d0.5", picture)
    for level, mask in enumerate(masks):
        case.check(f"mask{level}", mask)
    case.check("y_d0", small_d(x, w, 0))
    case.check("y_d1", small_d(x, w, torch.ones(2)))
    case.check("y_2d", small_d(x, w[:, 0], 0.5))
    feature, skip = small_d.encode(x, w, 0.5)
    case.check("feat", feature)
    case.check("skip", skip)
    case.check("zplus2wplus", small_d.map(w))


def test_inference_form_draws_the_same(small_d):
    """From the weights that are left: mapping network, encoder, ModRes, fusions, fine layers."""
    case, config = Case(SMALL_D), VTOONIFY[SMALL_D]
    with torch.device("meta"):
        net = build_vtoonify(config, inference=True)
    unread = unread_weights(config)
    kept = {name: value for name, value in small_d.state_dict().items() if name not in unread}
    net.load_state_dict(kept, strict=True, assign=True)
    case.check("y_d0.5", net(case.inputs["x"], case.inputs["style"], 0.5))
    case.check("zplus2wplus", net.map(case.inputs["style"]))


def test_published_pipeline(small_d, parser):
    """Frames → parsing logits → style from exemplar and face → VToonify-D."""
    case = Case("pipeline_d_in64_out256_cm1")
    frames = case.inputs["frames"]
    style = latents.with_color_of(small_d.map(case.inputs["exstyle_zplus"]), small_d.map(case.inputs["psp_codes"]))
    case.check("style", style)
    logits = parsing_logits(parser, frames)
    case.check("parse", logits)
    case.check("y", small_d(network_input(frames, logits), style, 0.5).clamp(-1, 1))


def test_vtoonify_d_released_configuration():
    case, net = Case("vtoonify_d_in256_out1024_cm2"), filled("vtoonify_d_in256_out1024_cm2")
    picture, masks, _ = net.draw(case.inputs["x"], case.inputs["style"], 0.5)
    case.check("y_d0.5", picture)
    assert len(masks) == 4
    for level, mask in enumerate(masks):
        case.check(f"mask{level}", mask)


def test_bisenet():
    case, net = Case("bisenet_19"), filled("bisenet_19")
    for name, logits in zip(("out", "out16", "out32"), net(case.inputs["x"]), strict=True):
        case.check(name, logits)
    case.check("out_odd", net(case.inputs["x_odd"])[0])


def test_published_parser(parser):
    case = Case("bisenet_19")
    case.check("parse_half", parser(case.inputs["img"]))


def test_psp():
    case, net = Case("psp_50_irse_18"), filled("psp_50_irse_18")
    case.check("codes", net(case.inputs["x"]))
    case.check("codes64", net(case.inputs["x64"]))


def test_psp_with_its_average_has_the_names_of_the_checkpoint():
    with torch.device("meta"):
        ours = {name: list(value.shape) for name, value in PSP().state_dict().items()}
    published = {f"encoder.{e['name']}": e["shape"] for e in manifest("psp_50_irse_18")}
    assert ours == published | {"latent_avg": [18, 512]}


def test_lpips():
    case, net = Case("lpips_vgg_lin"), filled("lpips_vgg_lin")
    a, b = case.inputs["a"], case.inputs["b"]
    case.check("d", net(a, b))
    case.check("d_swap", net(b, a))
    case.check("d_same", net(a, a))
    for i, feature in enumerate(net.features(a)):
        case.check(f"feat{i}", feature)


def test_lpips_from_the_two_files_that_people_have():
    """torchvision's VGG-16, classifier and all, and the published linear heads."""
    state = state_dict("lpips_vgg_lin")
    vgg = {"features." + name.split(".", 2)[2]: value for name, value in state.items() if name.startswith("net.")}
    assert {"features.0.weight", "features.28.bias"} <= vgg.keys() and len(vgg) == 26
    heads = {name: value for name, value in state.items() if name.startswith("lin")}
    published = json.loads((FOLDER / "lpips_v0.1_vgg_file_keys.json").read_text())
    assert {name: list(value.shape) for name, value in heads.items()} == published
    net = objectives.lpips_of(vgg | {"classifier.0.weight": torch.zeros(2, 2)}, heads)
    assert all(net.state_dict()[name].equal(value) for name, value in state.items())


@pytest.mark.parametrize("config, total, unread", [(PUBLISHED, 78.8, 21.5), (PUBLISHED_D, 163.8, 67.7)])
def test_what_inference_drops(config, total, unread):
    """In millions of parameters. The mapping network is no part of a frame's work, but faces need it once: it stays."""
    with torch.device("meta"):
        whole, used = build_vtoonify(config), build_vtoonify(config, inference=True)
    whole, used, mapping = (sum(p.numel() for p in m.parameters()) / 1e6 for m in (whole, used, whole.stylegan.style))
    assert whole == pytest.approx(total, abs=0.05)
    assert whole - used + mapping == pytest.approx(unread, abs=0.05)


def test_unread_names_are_published_names():
    names = {e["name"] for e in manifest("vtoonify_d_in256_out1024_cm2")}
    unread = unread_weights(PUBLISHED_D)
    assert unread < names
    gone = {"res.0.conv.0.weight", "generator.res.6.conv.0.weight", "generator.generator.convs.5.conv.weight",
            "generator.generator.to_rgbs.2.bias", "generator.generator.noises.noise_16"}
    stay = {"res.1.conv.0.weight", "generator.res.7.weight", "generator.generator.convs.6.conv.weight",
            "generator.style.1.weight", "generator.generator.style.1.weight", "generator.generator.to_rgbs.3.bias"}
    assert gone <= unread and not stay & unread
