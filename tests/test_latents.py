"""Hand-off arithmetic, style mixing and truncation at several sizes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from vtoonify_lib.config import PUBLISHED, STUDIO, TINY, GeneratorConfig, VToonifyConfig, VToonifyError, resolutions
from vtoonify_lib.models import latents
from vtoonify_lib.models.stylegan2 import Generator


@pytest.mark.parametrize("size, layers", [(8, 4), (64, 10), (256, 14), (512, 16), (1024, 18)])
def test_layer_counts(size, layers):
    assert latents.n_latent(size) == layers
    assert latents.n_color(size) == layers - 7


def test_handoff_numbers_are_those_of_the_paper():
    assert latents.n_structure() == 7
    assert (latents.first_kept_conv(), latents.first_kept_to_rgb()) == (6, 3)
    assert latents.edit_layers() == slice(3, 7)
    assert latents.kept_resolutions(1024) == (64, 128, 256, 512, 1024)


@pytest.mark.parametrize("size", [8, 64, 1024])
def test_style_layers_cover_every_code(size):
    read = [i for r in resolutions(size) for i in latents.style_layers(r)]
    assert sorted(set(read)) == list(range(latents.n_latent(size)))
    assert latents.style_layers(64)[0] == latents.n_structure()


def test_first_kept_layers_belong_to_the_resolution_after_handoff():
    g = Generator(TINY.generator)
    assert len(g.convs) == latents.first_kept_conv() + 2
    assert len(g.to_rgbs) == latents.first_kept_to_rgb() + 1


def test_mixing_and_truncation():
    a, b = torch.zeros(2, 10, 4), torch.ones(2, 10, 4)
    mixed = latents.with_color_of(a, b)
    assert mixed[:, :7].eq(0).all() and mixed[:, 7:].eq(1).all()
    center = torch.full((1, 4), 3.0)
    assert latents.truncate(b, 1.0, center).equal(b)
    assert latents.truncate(b, 0.0, center).eq(3).all()
    per_sample = latents.truncate(b[:, 0], torch.tensor([[0.0], [1.0]]), center)
    assert per_sample[0].eq(3).all() and per_sample[1].eq(1).all()


def test_to_plus():
    w = torch.randn(2, 4)
    assert latents.to_plus(w, 10).shape == (2, 10, 4)
    assert torch.equal(latents.to_plus(w[:, None], 10), latents.to_plus(w, 10))
    with pytest.raises(VToonifyError, match=r"expected \[B,D\], \[B,1,D\] or \[B,10,D\]"):
        latents.to_plus(torch.zeros(2, 9, 4), 10)


@pytest.mark.parametrize("config", [TINY, STUDIO, PUBLISHED, replace(STUDIO, face_size=256),
                                    replace(STUDIO, detail=4, sharpen=0.2)])
def test_configs_round_trip(config):
    import json

    assert VToonifyConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert config.generator_scale * config.in_size == config.out_size


@pytest.mark.parametrize("make, message", [
    (lambda: GeneratorConfig(96), "power of two"),
    (lambda: GeneratorConfig(64, channels=((4, 8),)), "no channels given at resolution 8"),
    (lambda: GeneratorConfig(64, style_dim=0), "must be 1 or more"),
    (lambda: VToonifyConfig(GeneratorConfig.published(64), 64), "power of two from 32 to 32"),
    (lambda: VToonifyConfig(GeneratorConfig.published(64), 32, "stylegan3"), "one of toonify, dualstylegan"),
    (lambda: replace(TINY, face_size=8), "face_size is 8"),
    (lambda: replace(TINY, sharpen=-0.1), "sharpen is -0.1"),
    (lambda: VToonifyConfig.from_dict({"generator": {"size": 64}, "in_size": 32}), "incomplete"),
    (lambda: VToonifyConfig.from_dict({"in_size": 32}), "incomplete"),
])
def test_impossible_sizes_are_refused(make, message):
    with pytest.raises(VToonifyError, match=message):
        make()
