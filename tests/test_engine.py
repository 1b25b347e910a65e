"""Another engine than PyTorch is one class: it draws pictures, clips and previews, and no network is read beside it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from people import photograph, scene, write_clip

from vtoonify_lib.inference.networks import Engine
from vtoonify_lib.inference.preview import Preview
from vtoonify_lib.inference.toonifier import Toonifier
from vtoonify_lib.media.video import read_frames
from vtoonify_lib.styles.request import Look
from vtoonify_lib.weights.bundle import Bundle

SCALE = 2


class Negative(Engine):
    """NumPy: the crop's negative at output size, its left half the person; notes what it is asked for."""

    face_size, precision = 24, "uint8"

    def __init__(self, *how) -> None:
        super().__init__(*how)
        self.encoded, self.folded, self.batches = [], [], []

    def encode(self, aligned):
        self.encoded.append(aligned)
        return torch.full((1, 1, 4), float(aligned.mean()))

    def parse_small(self, crops):
        logits = torch.zeros(len(crops), 19, *crops.shape[1:3])
        logits[:, 0], logits[:, 1, :, : crops.shape[2] // 2] = 10, 20  # skin on the left, background on the right
        return logits

    def fold(self, code, structure):
        self.folded.append((code, structure))

        def draw(crops, logits):
            assert logits.shape == (len(crops), 19, *crops.shape[1:3])
            self.batches.append(len(crops))
            return 255 - crops.repeat(SCALE, 1).repeat(SCALE, 2)

        return draw


@dataclass(frozen=True)
class WithoutNetworks(Bundle):
    """A bundle of which PyTorch may run nothing."""

    def network(self, key: str, **_):
        raise AssertionError(f"{key} was read")


@pytest.fixture
def other(tiny_bundle):
    return Toonifier(WithoutNetworks(tiny_bundle.folder, tiny_bundle.info), "cpu", Negative)


def test_a_picture_is_drawn(other):
    face = other.face_in(photograph())
    assert (other.image(photograph()) == 255 - face.crop.repeat(2, 0).repeat(2, 1)).all()
    (aligned,), ((code, structure),) = other.networks.encoded, other.networks.folded
    assert aligned.shape == (24, 24, 3) and code.unique().item() == pytest.approx(aligned.mean()) and structure is None


def test_the_whole_picture_keeps_what_the_engine_takes_for_background(other):
    before, plan = scene(640), other.face_in(scene(640)).plan
    after = other.image(before, frame="full")
    left, top, right, bottom = plan.box
    row, quarter = int(top + bottom) // 2, int(right - left) // 4
    assert np.abs(after[row, int(left) + quarter].astype(int) + before[row, int(left) + quarter] - 255).max() < 12
    assert (after[row, int(right) - quarter // 2] == before[row, int(right) - quarter // 2]).all()


def test_a_clip_is_drawn_with_one_code(other, tmp_path):
    src = write_clip(tmp_path / "a.mp4", [scene()] * 6)
    result = other.video(src, tmp_path / "b.mp4", progress=False)
    crop = other.face_in(next(iter(read_frames(src))).rgb).crop
    assert result.frames == sum(other.networks.batches) == 6
    assert len(other.networks.encoded) == len(other.networks.folded) == 1
    shown = [frame.rgb.astype(int) for frame in read_frames(result.path)]
    assert len(shown) == 6 and abs(shown[3].mean() - (255 - crop).mean()) < 6


def test_a_preview_needs_no_method_more(other):
    preview = Preview(other, photograph())
    assert (preview.draw() == other.image(photograph())).all() and (preview.draw(Look()) == preview.draw()).all()


def test_an_engine_that_lacks_a_method_is_refused(tiny_bundle):
    class Half(Negative):
        fold = Engine.fold

    with pytest.raises(TypeError, match="abstract method .?fold"):
        Toonifier.load(tiny_bundle.folder, "cpu", Half)
