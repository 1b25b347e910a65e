"""Bundles beside each other on photographs: numbers that see what they should, whoever is not drawn named."""

from __future__ import annotations

import json

import numpy as np
import pytest
from people import photograph
from PIL import Image

from vtoonify_lib.apps.evaluate_photos import (
    PhotoEvaluator,
    contact_sheet,
    dlib_identity,
    evaluate,
    main,
    our_identity,
    rank_1,
)
from vtoonify_lib.config import VToonifyError
from vtoonify_lib.inference.toonifier import Toonifier


@pytest.fixture
def folder(tmp_path):
    Image.fromarray(photograph()).save(tmp_path / "a.png")
    Image.fromarray(photograph()[:, ::-1]).save(tmp_path / "b.png")
    Image.fromarray(np.full((200, 200, 3), 90, np.uint8)).save(tmp_path / "nobody.png")
    return tmp_path


def test_a_bundle_that_keeps_the_photograph_and_one_that_draws_noise(folder, detailed, toonifier):
    def identity(picture, _):
        return np.array(Image.fromarray(picture).resize((8, 8)), float).ravel()

    evaluator = PhotoEvaluator({"detailed": Toonifier(detailed), "tiny": toonifier}, None,
                               identity=identity)
    results = evaluate(folder.glob("*.png"), evaluator, folder / "sheet.jpg", progress=False)
    assert results["count"] == 2 and list(results["refused"]) == ["nobody.png"]
    assert "no face was found" in results["refused"]["nobody.png"]
    assert results["detailed"]["found"] == 1 and results["tiny"]["found"] == 0
    assert results["detailed"]["sharpness_256"] == pytest.approx(1, abs=0.1)
    assert results["detailed"]["followed"] < 0.03 and "followed" not in results["tiny"]
    assert abs(results["tiny"]["sharpness_256"] - 1) > 0.2
    assert results["detailed"]["rank_1"] == 1 and results["tiny"]["rank_1"] == 0
    with Image.open(folder / "sheet.jpg") as sheet:
        assert sheet.height == 3 * 384 and sheet.width == 2 * 384


def test_a_look_that_a_bundle_lacks_is_said_at_once(folder, capsys):
    assert main([str(folder), "--bundle", "looks", "--look", "clay", "--no-studio"]) == 2
    assert "looks has no style 'clay'" in capsys.readouterr().err


def test_contact_sheet_breaks_lines():
    tiles = [np.full((10, width, 3), 200, np.uint8) for width in (30, 20, 30, 40)]
    sheet = contact_sheet(tiles, 60)
    assert sheet.size == (50, 30)  # 30 + 20, 30, 40
    shown = np.asarray(sheet)[::10, :, 0] > 0
    assert shown.sum(1).tolist() == [50, 30, 40]


def test_who_lies_nearest():
    here, there = np.array([0.0, 0]), np.array([1.0, 0])
    assert rank_1([(here, here + 0.1), (there, there)]) == 1
    assert rank_1([(here, there), (there, there)]) == 0.5
    assert rank_1([(here, None), (there, None)]) == 0


def test_the_studio_is_held_beside(folder, capsys):
    """Of the shipped bundle, on a photograph that everybody has: closer to the studio's drawing than chance."""
    (folder / "b.png").unlink()
    (folder / "list.txt").write_text(f"{folder / 'a.png'}\n\n{folder / 'nobody.png'}\n")
    assert main([str(folder / "list.txt"), "--identity", "ours", "--json", str(folder / "told.json")]) == 0
    results = json.loads((folder / "told.json").read_text())
    name = next(name for name in results if name not in ("refused", "count", "studio"))
    assert results[name]["landmark_shift"] < 0.08 and results[name]["psnr"] > 15 and results["studio"]["found"] == 1
    assert results[name]["rank_1"] == 1
    assert "1 photographs" in capsys.readouterr().out


def test_what_cannot_be_judged_is_said(folder, capsys):
    with pytest.raises(VToonifyError, match="name dlib's face recognition model"):
        dlib_identity(folder / "none.dat")
    assert main([str(folder), "--bundle", "no-such"]) == 2 and "error:" in capsys.readouterr().err
    assert our_identity()(photograph(), _marks()).shape == (128,)


def _marks():
    from vtoonify_lib.faces.detector import FaceFinder
    from vtoonify_lib.weights.bundle import load_bundle

    return FaceFinder(load_bundle("studio-t").path("landmarks")).faces(photograph())[0].landmarks
