"""The quality card: numbers that see what they should, on clips whose truth is known."""

from __future__ import annotations

import json

import numpy as np
import pytest
from people import scene, write_clip
from PIL import Image
from test_parsing import moved, pattern

from vtoonify_lib.apps.cli import main
from vtoonify_lib.config import VToonifyError
from vtoonify_lib.evaluation.quality_card import QualityMeter, reliable_flow, warping_error
from vtoonify_lib.inference.toonifier import Toonifier


def larger(picture: np.ndarray) -> np.ndarray:
    return picture.repeat(2, 0).repeat(2, 1)


def test_a_drawing_that_follows_has_no_warping_error():
    a = pattern(size=128)
    b = moved(a, 3)
    flow, where = reliable_flow(a, b)
    assert where[16:-16, 16:-16].mean() > 0.9
    follows, stays = (warping_error(larger(255 - a), larger(255 - drawn), flow, where) for drawn in (b, a))
    assert follows < 2 < 3 * follows < stays
    trembling = np.clip(larger(255 - b).astype(int) + 10, 0, 255).astype(np.uint8)
    assert warping_error(larger(255 - a), trembling, flow, where) == pytest.approx(10, abs=2)


def test_flow_is_not_believed_where_the_picture_is_another():
    flow, where = reliable_flow(pattern(0, 128), 255 - pattern(5, 128))
    assert where.mean() < 0.3
    assert np.isnan(warping_error(pattern(0, 128), pattern(0, 128), flow, np.zeros((128, 128), bool)))


@pytest.fixture(scope="module")
def sample():
    return Toonifier.load("studio-d", "cpu")


def watched(toonifier, crops, draw):
    meter = QualityMeter(toonifier.bundle, toonifier.finder, toonifier.networks.small, len(crops))
    for crop in crops:
        meter.add(crop, draw(crop[None])[0])
    return meter.card(draw, found=0.75)


def test_the_photograph_itself_is_perfect(sample):
    crops = [scene(208, 200, [(4 + i, -40, 280)]) for i in range(6)]
    card = watched(sample, crops, lambda batch: np.stack([larger(crop) for crop in batch]))
    assert card.frames == 6 and card.found == 0.75 and card.equivariance == 0
    assert card.landmarks < 0.04 and card.identity > 0.98
    assert card.warping == pytest.approx(card.warping_input, abs=1) and card.warping < 3
    assert card.picture.dtype == np.uint8 and card.picture.shape[1] >= 5 * 160


def test_trembling_is_seen(sample):
    rng = np.random.default_rng(0)

    def draw(batch):
        light = rng.integers(-12, 13)
        return np.stack([np.clip(larger(crop).astype(int) + light, 0, 255).astype(np.uint8) for crop in batch])

    card = watched(sample, [scene(208, 200, [(4, -40, 280)])] * 6, draw)
    assert card.warping > card.warping_input + 3 and card.equivariance > 3


def test_the_sheet_is_wide_enough_for_its_words(sample):
    crops = [np.full((80, 40, 3), 90, np.uint8)] * 2
    card = watched(sample, crops, lambda crops: crops)
    assert card.picture.shape[1] > 300 and (card.picture[:, -8:] == 255).all(), "nothing is cut off"
    assert (card.picture[170:, -60:-8] < 128).any(), "and the words reach that far"


def test_without_a_face_or_a_frame_there_are_no_numbers(sample):
    blank = watched(sample, [np.full((64, 64, 3), 90, np.uint8)] * 2, lambda b: np.stack([larger(c) for c in b]))
    assert blank.landmarks is None and blank.identity is None and "unknown" in str(blank)
    nothing = QualityMeter(sample.bundle, sample.finder, sample.networks.small, 0).card(lambda batch: batch, 0.0)
    assert nothing.frames == 0 and nothing.warping is None and nothing.equivariance is None


def test_command_line_writes_the_card(tiny_bundle, tmp_path, capsys):
    src = write_clip(tmp_path / "a.mp4", [scene(480, 240, [(60 + i, 0, 240)]) for i in range(8)])
    assert main(["video", str(src), str(tmp_path / "b.mp4"), "--bundle", str(tiny_bundle.folder), "--device", "cpu",
                 "--card", str(tmp_path / "card.png")]) == 0
    numbers = json.loads((tmp_path / "card.json").read_text())
    assert numbers["frames"] == 8 and numbers["found"] == 1 and numbers["warping"] > 0 and numbers["identity"] is None
    assert Image.open(tmp_path / "card.png").width > 300 and "change along the flow" in capsys.readouterr().out


def test_a_card_that_cannot_be_written_is_said_before_any_work(toonifier, tmp_path, monkeypatch):
    src = write_clip(tmp_path / "a.mp4", [scene()] * 2)
    monkeypatch.setattr(toonifier.finder, "detect", lambda *a: pytest.fail("worked before checking"))
    for card, message in ((tmp_path / "none" / "card.png", "does not exist"), (tmp_path / "card.txt", "use .png")):
        with pytest.raises(VToonifyError, match=message):
            toonifier.video(src, tmp_path / "b.mp4", card=card, progress=False)


def test_flow_that_does_not_come_back_is_not_believed_whatever_the_colours():
    rng = np.random.default_rng(0)
    faint = [np.uint8(125 + rng.integers(0, 8, (96, 96, 1)).repeat(3, 2)) for _ in range(2)]
    assert reliable_flow(*faint)[1].mean() < 0.9
    _, where = reliable_flow(faint[0], faint[0] + np.uint8(40))
    assert not where.any(), "a flash: it comes back, and is another light"
