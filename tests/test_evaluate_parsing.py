"""The command that holds parsing nets against marked photographs."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from studio_people import PEOPLE, easy

from vtoonify_lib.apps import evaluate_parsing
from vtoonify_lib.config import PARSING_CLASSES, VToonifyError
from vtoonify_lib.studio.people import person
from vtoonify_lib.training.perception import read_marked


def mark(folder, labels: np.ndarray, name: str = "one") -> None:
    """A photograph whose red channel is its class, and the classes."""
    shown = np.repeat(labels[..., None], 3, 2) * 12
    Image.fromarray(shown.astype(np.uint8)).save(folder / f"{name}_photo.png")
    Image.fromarray(labels).save(folder / f"{name}.png")


class Reader(torch.nn.Module):
    """Reads the classes off the colours of `mark`."""

    def forward(self, x):
        found = ((x[:, 0] + 1) * 127.5 / 12).round().long().clamp(0, PARSING_CLASSES - 1)
        return torch.nn.functional.one_hot(found, PARSING_CLASSES).movedim(-1, 1).float()


def test_a_net_that_knows_gets_full_marks(tmp_path):
    labels = np.zeros((192, 192), np.uint8)
    labels[64:, 64:], labels[:32] = 17, 255
    mark(tmp_path, labels)
    assert evaluate_parsing.evaluate(Reader(), tmp_path) == {"mean": 1, "background": 1, "hair": 1}
    wrong = labels.copy()
    wrong[128:, 64:] = 16
    Image.fromarray(wrong).save(tmp_path / "one.png")
    iou = evaluate_parsing.evaluate(Reader(), tmp_path)
    assert iou == {"mean": 0.5, "background": 1, "cloth": 0, "hair": 0.5}


def test_the_shipped_net_knows_the_studio_better_than_chance(studio, tmp_path, capsys):
    who = easy(person(PEOPLE[0]))
    drawn = studio.draw(studio.sculptor.scene(who), who)
    Image.fromarray(drawn.image).save(tmp_path / "render_photo.png")
    Image.fromarray(drawn.parsing).save(tmp_path / "render.png")
    assert evaluate_parsing.main([str(tmp_path), "--json", str(tmp_path / "iou.json")]) == 0
    iou = json.loads((tmp_path / "iou.json").read_text())["film"]
    assert iou["skin"] > 0.7 and iou["background"] > 0.9
    assert f"{iou['skin']:.3f}" in capsys.readouterr().out


def test_mistakes_get_a_sentence(tmp_path, capsys):
    assert evaluate_parsing.main([str(tmp_path)]) == 2
    assert "folder of marked photographs" in capsys.readouterr().err
    mark(tmp_path, np.full((64, 64), 19, np.uint8))
    with pytest.raises(VToonifyError, match="go up to 19; expected 0 to 18"):
        list(read_marked(tmp_path))
    (tmp_path / "one.png").unlink()
    with pytest.raises(VToonifyError, match="expected one.png"):
        list(read_marked(tmp_path))
