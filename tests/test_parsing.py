"""Optical flow, and parsing maps that flow along a clip instead of trembling."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vtoonify_lib.faces import parsing_maps
from vtoonify_lib.faces.parsing_maps import (
    CLASS_NAMES,
    PALETTE,
    SteadyParsing,
    calm_background,
    parsing_picture,
    person_mask,
)
from vtoonify_lib.media.optical_flow import dense_flow, fetch


def pattern(seed: int = 0, size: int = 64) -> np.ndarray:
    """Soft blobs, uint8 [size,size,3]."""
    noise = torch.from_numpy(np.random.default_rng(seed).random((1, 3, size // 8, size // 8), np.float32))
    picture = torch.nn.functional.interpolate(noise, (size, size), mode="bicubic").clamp(0, 1)
    return (picture[0].permute(1, 2, 0) * 255).byte().numpy()


class Parser:
    """Says the picture's red, with another error every time; remembers how often it was asked."""

    def __init__(self, error: float = 0.0):
        self.error, self.asked = error, 0

    def __call__(self, frames: np.ndarray) -> torch.Tensor:
        rng = np.random.default_rng(self.asked)
        self.asked += 1
        logits = frames[..., :1] / 255 * np.ones(19, np.float32) + self.error * rng.standard_normal((1, 64, 64, 19))
        return torch.from_numpy(logits.astype(np.float32)).permute(0, 3, 1, 2)


def moved(picture: np.ndarray, by: int) -> np.ndarray:
    return np.roll(picture, by, 1)


def test_flow_finds_a_shift_and_fetch_undoes_it():
    a = pattern()
    flow = dense_flow(moved(a, 3), a)  # what is at x was at x − 3
    inner = (slice(12, -12), slice(12, -12))
    assert flow.dtype == np.float32 and flow.shape == (64, 64, 2)
    assert np.allclose(flow[inner], [-3, 0], atol=0.3)
    back = fetch(a, flow)
    assert back.shape == a.shape and np.abs(back[inner].astype(int) - moved(a, 3)[inner]).mean() < 3


@pytest.mark.parametrize("shape", [(16, 96), (16, 200), (24, 200), (200, 16), (8, 8)])
def test_thin_pictures_do_not_crash(shape):
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert dense_flow(picture, picture).shape == (*shape, 2)


def test_fetch_takes_many_channels_and_goes_on_beyond_the_edge():
    source = np.random.default_rng(0).random((8, 6, 19)).astype(np.float32)
    assert np.allclose(fetch(source, np.zeros((8, 6, 2), np.float32)), source)
    left = fetch(source, np.full((8, 6, 2), (-100, 0), np.float32))
    assert np.allclose(left, source[:, :1])


def test_a_person_is_head_hair_and_neck_in_any_of_the_maps():
    def map_of(name, columns):
        logits = torch.zeros(19, 32, 64)
        logits[CLASS_NAMES.index("background")] = 10
        logits[CLASS_NAMES.index(name), :, columns] = 20
        return logits

    hair, skin, cloth = (map_of(name, columns) for name, columns in (
        ("hair", slice(0, 16)), ("skin", slice(16, 32)), ("cloth", slice(40, 64))))
    mask = person_mask(hair, skin, cloth)
    assert mask.dtype == np.float32 and mask.shape == (32, 64) and 0 <= mask.min() and mask.max() <= 1
    assert mask[:, 2:30].min() > 0.95 and mask[:, 40:].max() < 0.05
    assert 0 < mask[16, 33] < 1, "a soft edge, a little outside"


def test_jitter_is_averaged_away_where_the_picture_rests():
    frame, parser = pattern(), Parser(error=0.5)
    steady = SteadyParsing(parser)
    errors = [float((steady(frame[None]) - Parser()(frame[None])).std()) for _ in range(8)]
    assert errors[0] == pytest.approx(0.5, rel=0.05) and errors[-1] < 0.5 * errors[0]


def test_maps_follow_the_motion():
    frames = [moved(pattern(), 2 * i) for i in range(6)]
    steady = SteadyParsing(Parser(), every=6)
    last = [steady(frame[None]) for frame in frames][-1]
    inner = last[0, 0, 12:-12, 14:-14]
    assert (inner - torch.from_numpy(frames[-1][12:-12, 14:-14, 0] / 255)).abs().mean() < 0.03


def test_only_every_other_frame_is_parsed_and_a_new_scene_at_once():
    parser = Parser()
    steady = SteadyParsing(parser, every=3)
    asked = []
    for frame in [*[pattern(0)] * 4, *[255 - pattern(5)] * 3]:
        steady(frame[None])
        asked.append(parser.asked)
    assert asked == [1, 1, 1, 2, 3, 3, 3]


def test_nothing_of_the_old_scene_is_left():
    steady, new = SteadyParsing(Parser()), 255 - pattern(5)
    steady(pattern(0)[None])
    assert torch.equal(steady(new[None]), Parser()(new[None]))


def test_a_batch_is_its_frames_in_order(monkeypatch):
    frames = np.stack([moved(pattern(), i) for i in range(4)])
    one, many = SteadyParsing(Parser(0.1), 2), SteadyParsing(Parser(0.1), 2)
    assert torch.equal(torch.cat([one(frame[None]) for frame in frames]), many(frames))
    monkeypatch.setattr(parsing_maps, "MEMORY", 0.0)
    assert torch.allclose(SteadyParsing(Parser())(frames), torch.cat([Parser()(f[None]) for f in frames]))


def test_a_frame_of_another_size_begins_anew():
    steady = SteadyParsing(lambda frames: torch.zeros(1, 19, *frames.shape[1:3]))
    assert [steady(np.zeros((1, side, 16, 3), np.uint8)).shape[2] for side in (16, 24)] == [16, 24]


def test_every_class_has_a_name_and_a_colour_of_its_own():
    assert len(CLASS_NAMES) == len({tuple(c) for c in PALETTE.tolist()}) == 19
    logits = torch.zeros(19, 2, 2)
    logits[17] = 1
    assert (parsing_picture(logits) == PALETTE[17]).all()


def test_calm_background_touches_the_outside_alone():
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    picture[:, :32] //= 2  # darker on the left
    outside = np.ones((64, 64), bool)
    outside[20:44, 20:44] = False
    picture[~outside] = 255  # the inside must not glow outwards
    calm = calm_background(picture, outside).astype(int)
    assert (calm[~outside] == 255).all()
    assert np.abs(np.diff(calm[:16], axis=1)).max() < 12 < np.abs(np.diff(picture[:16].astype(int), axis=1)).mean()
    assert calm[:, :8].mean() + 20 < calm[:, -8:].mean() < 150
    assert (calm_background(picture, np.zeros_like(outside)) == picture).all()
