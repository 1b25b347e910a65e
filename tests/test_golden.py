"""Parity with the published modules: names, shapes and order of the state dicts, and outputs to 1e-4."""

from __future__ import annotations

import pytest
import torch
from golden_data import Case, block_state, manifest
from golden_modules import IN_OTHER_ORDER, MODULES, empty, filled

from vtoonify_lib.models import latents, layers, stylegan2, vtoonify, vtoonify_d


@pytest.mark.parametrize("case", MODULES)
def test_state_dict_is_the_published_one(case):
    module = empty(case)
    ours = [(name, list(t.shape), str(t.dtype).removeprefix("torch.")) for name, t in module.state_dict().items()]
    published = [(e["name"], e["shape"], e["dtype"]) for e in manifest(case)]
    assert (sorted(ours) == sorted(published)) if case in IN_OTHER_ORDER else (ours == published)
    buffers = {name for name, _ in module.named_buffers()}
    assert buffers == {e["name"] for e in manifest(case) if e["kind"] == "buffer"}


def layer_calls() -> dict[str, tuple[str | None, object, tuple, int | None]]:
    """output → (block whose values it takes, module, inputs, which element of a tuple result)."""
    mod = layers.ModulatedConv2d
    ada = {d: layers.AdaResBlock(8, 16, dilation=d) for d in (1, 2, 4)}
    fusion = vtoonify_d.MaskedFusion(8, 6)
    return {
        "pixelnorm": (None, layers.PixelNorm(), ("z",), None),
        "downsample_even": (None, layers.Blur(1, down=2), ("x",), None),
        "downsample_odd": (None, layers.Blur(1, down=2), ("xo",), None),
        "upsample": (None, layers.Upsample(), ("x",), None),
        "blur_11": (None, layers.Blur(1, gain=4), ("x",), None),
        "blur_22": (None, layers.Blur(2), ("x",), None),
        "equal_linear": ("equal_linear", layers.EqualLinear(16, 24), ("s",), None),
        "equal_linear_mlp": ("equal_linear_mlp", layers.EqualLinear(16, 24, lr_mul=0.01, activate=True), ("s",), None),
        "modconv_plain": ("modconv_plain", mod(8, 6, 3, 16), ("x", "s"), None),
        "modconv_up": ("modconv_up", mod(8, 6, 3, 16, up=True), ("x", "s"), None),
        "modconv_nodemod": ("modconv_nodemod", mod(8, 6, 3, 16, demodulate=False), ("x", "s"), None),
        "styledconv": ("styledconv", layers.StyledConv(8, 6, 3, 16), ("x", "s", "noise"), None),
        "styledconv_up": ("styledconv_up", layers.StyledConv(8, 6, 3, 16, up=True), ("x", "s", "noise_up"), None),
        "torgb": ("torgb", layers.ToRGB(8, 16), ("x", "s", "skip"), None),
        "torgb_first": ("torgb_first", layers.ToRGB(8, 16, up=False), ("x", "s"), None),
        "convlayer": ("convlayer", layers.ConvLayer(8, 6, 3), ("x",), None),
        "convlayer_down": ("convlayer_down", layers.ConvLayer(8, 6, 3, down=True), ("x",), None),
        "convlayer_dil4": ("convlayer_dil4", layers.ConvLayer(8, 6, 3, dilation=4), ("x",), None),
        "resblock": ("resblock", stylegan2.ResBlock(8, 6), ("x",), None),
        "adain": ("adain", layers.AdaIN(8, 16), ("x", "s"), None),
        "adares_d1": ("adares_d1", ada[1], ("x", "s", 0.7), None),
        "adares_d2": ("adares_d2", ada[2], ("x", "s", 0.7), None),
        "adares_d4": ("adares_d4", ada[4], ("x", "s", 0.7), None),
        "adares_w0": ("adares_d1", ada[1], ("x", "s", 0.0), None),
        "vres": ("vres", vtoonify.VToonifyResBlock(8), ("x",), None),
        "fusion_out": ("fusion", fusion, ("x", "y", 0.3), 0),
        "fusion_mask": ("fusion", fusion, ("x", "y", 0.3), 1),
        "fusion_out_default": ("fusion", fusion, ("x", "y"), 0),
        "fusion_mask_default": ("fusion", fusion, ("x", "y"), 1),
    }


@pytest.mark.parametrize("output", layer_calls())
def test_layers(output):
    case = Case("layers")
    block, module, arguments, element = layer_calls()[output]
    if block is not None:
        module.load_state_dict(block_state("layers", block), strict=True)
    result = module.eval()(*(case.inputs.get(a, a) if isinstance(a, str) else a for a in arguments))
    case.check(output, result if element is None else result[element])


def test_generator():
    case, g = Case("generator_s64_cm1"), filled("generator_s64_cm1")
    z, w_plus = case.inputs["z"], case.inputs["wplus"]
    center = case.inputs["trunc_latent"]
    case.check("style", g.map(z))
    case.check("latent", g.to_w(z))
    case.check("image_fixed_noise", g(z, noise=True))
    case.check("image_wplus", g(w_plus, space="w", noise=True))
    case.check("image_zplus", g(case.inputs["zplus"], noise=True))
    case.check("image_trunc", g(g.to_w(z, "z", 0.5, center), space="w", noise=True))
    case.check("image_trunc0", g(g.to_w(w_plus, "w", 0.5, torch.zeros(1)), space="w", noise=True))
    mixed = latents.mix(g.to_w(z), g.to_w(case.inputs["z2"]), 3)
    case.check("image_mix", g(mixed, space="w", noise=True))
    side = int(case.arrays["feat/shape"][-1])
    feature, skip = g(w_plus, space="w", noise=True, until=side)  # recorded for the w+ code
    case.check("feat", feature)
    case.check("feat_skip", skip)
    for i, name in enumerate(dict(g.noises.named_buffers())):
        setattr(g.noises, name, case.inputs[f"noise{i}"])
    case.check("image_noise_list", g(z, noise=True))


def test_discriminator():
    case, d = Case("discriminator_s64_cm1"), filled("discriminator_s64_cm1")
    for batch in (1, 2, 4, 8):
        case.check(f"y{batch}", d(case.inputs[f"x{batch}"]))


def test_vtoonify_t_small():
    case, net = Case("vtoonify_t_in64_out256_cm1"), filled("vtoonify_t_in64_out256_cm1")
    x, w = case.inputs["x"], case.inputs["style"]
    case.check("y", net(x, w))
    case.check("y_w", net(x, w[:, 0]))
    feature, skip = net.encode(x)
    case.check("feat", feature)
    case.check("skip", skip)
    case.check("zplus2wplus", net.generator.map(w))


def test_vtoonify_t_released_configuration():
    case, net = Case("vtoonify_t_in256_out1024_cm2"), filled("vtoonify_t_in256_out1024_cm2")
    case.check("y", net(case.inputs["x"], case.inputs["style"]))
