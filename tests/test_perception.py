"""The parsing net's training on marked photographs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fake_pairs import face, write_pairs
from PIL import Image
from safetensors.torch import load_file

from vtoonify_lib.evaluation.metrics import UNMARKED
from vtoonify_lib.faces.parsing_maps import CLASS_NAMES
from vtoonify_lib.models.encoders import ParsingNet
from vtoonify_lib.training import augment, loop, perception

LEFT, RIGHT, CLOTH = (CLASS_NAMES.index(name) for name in ("l_ear", "r_ear", "cloth"))
SIDE, STEP, WIDTHS = 64, 12, (16, 16, 16, 16)


def write(folder, *classes: np.ndarray) -> perception.MarkedPhotographs:
    """Photographs whose brightness is their class."""
    for n, labels in enumerate(classes):
        Image.fromarray(np.repeat(labels[..., None] * STEP, 3, 2).astype(np.uint8)).save(folder / f"{n}_photo.png")
        Image.fromarray(labels).save(folder / f"{n}.png")
    return perception.MarkedPhotographs(folder)


@pytest.fixture
def untouched(monkeypatch):
    """Colours stay."""
    monkeypatch.setattr(augment, "tint", lambda images, g, strength: images)
    monkeypatch.setattr(augment, "degrade", lambda x, g: x)


def seen(x: torch.Tensor) -> torch.Tensor:
    return ((x[:, 0] + 1) * 127.5 / STEP).round().long()


def ears(kind: int = CLOTH) -> np.ndarray:
    """A canvas with the person's left ear in the left half of the picture, the right one in the right, and a rim."""
    labels = np.full((192, 192), kind, np.uint8)
    labels[40:150, 20:90], labels[40:150, 102:172] = LEFT, RIGHT
    labels[:10] = UNMARKED
    return labels


def test_classes_move_with_the_picture_and_swap_where_it_is_mirrored(tmp_path, untouched, monkeypatch):
    monkeypatch.setattr(perception, "BEHIND_SHARE", 0.0)
    x, labels = write(tmp_path, ears()).batch(32, 128, 0, 1)
    known = labels != UNMARKED
    assert 0.4 < known.float().mean() < 0.98, "the rim, and what lies beyond the edges, teaches nothing"
    direct = (seen(x) == labels)[known].float().mean()
    swapped = (augment.MIRROR[seen(x).clamp(max=18)] == labels)[known].float().mean()
    assert direct > 0.5 and swapped > 0.5, "some are mirrored, some are not"
    either = (seen(x) == labels) | (augment.MIRROR[seen(x).clamp(max=18)] == labels)
    assert either[known].float().mean() > 0.95


def test_faces_are_as_large_as_in_use_and_up_to_twice_that(tmp_path, untouched, monkeypatch):
    """Stripes an eye distance wide: how many pixels they take."""
    monkeypatch.setattr(perception, "BEHIND_SHARE", 0.0)
    stripes = np.repeat(np.tile(np.repeat([0, 16], 32), 3)[None], 192, 0).astype(np.uint8)  # 192 px: eyes 32 px apart
    _, labels = write(tmp_path, stripes).batch(256, 128, 0, 1)
    borders = [((a != b) & (a != UNMARKED) & (b != UNMARKED)).sum() / max(1, ((a != UNMARKED).sum()))
               for a, b in ((one[:, :-1], one[:, 1:]) for one in labels)]
    widths = 1 / np.array([float(b) for b in borders if b > 0])
    assert np.percentile(widths, 5) < 24 and 28 < np.median(widths) < 50 and np.percentile(widths, 95) > 60


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_people_stand_in_front_of_other_photographs(tmp_path, untouched, monkeypatch, share):
    monkeypatch.setattr(perception, "BEHIND_SHARE", share)
    bare, cloth = np.zeros((192, 192), np.uint8), np.full((192, 192), CLOTH, np.uint8)
    x, labels = write(tmp_path, bare, cloth).batch(64, SIDE, 0, 1)
    known = labels != UNMARKED
    assert (seen(x) == labels)[known].float().mean() > 0.98
    behind = (labels == 0).float().mean() / known.float().mean()
    assert (0.4 < behind < 0.6) if share == 0 else (0.15 < behind < 0.35)


def test_photographs_teach_what_renders_do_not_have(tmp_path):
    """Renders know no cloth: a net taught by both tells it."""
    pairs, rng = write_pairs(tmp_path / "pairs"), np.random.default_rng(0)
    canvases = []
    for _ in range(4):
        labels = np.full((192, 192), CLOTH, np.uint8)
        labels[:128, 32:160] = face(128, rng)[0]
        canvases.append(labels)
    (tmp_path / "marked").mkdir()
    marked = write(tmp_path / "marked", *canvases)

    def train(folder, n, **more):
        return perception.train_parsing(pairs, tmp_path / folder, n, 4, 4, lr=1e-2, widths=WIDTHS, **more)

    x, labels = marked.batch(8, SIDE, 10**5, 9)
    shares = []
    for folder, more in (("renders", {}), ("both", {"photographs": marked})):
        found = train(folder, 30, **more)(x).argmax(1)
        shares.append(float(((found == CLOTH) & (labels == CLOTH)).sum() / (labels == CLOTH).sum()))
    assert shares[0] < 0.01 and shares[1] > 0.5


def test_a_killed_run_on_photographs_ends_in_the_same_net(tmp_path, monkeypatch):
    pairs = write_pairs(tmp_path / "pairs")
    (tmp_path / "marked").mkdir()
    marked = write(tmp_path / "marked", ears(), ears(0))

    def train(folder):
        return perception.train_parsing(pairs, tmp_path / folder, 4, 4, 4, widths=WIDTHS, photographs=marked)

    whole = train("whole").state_dict()
    monkeypatch.setattr(loop, "SAVE_SECONDS", -1)  # a checkpoint after each step
    step, steps = loop.optimizer_step, []

    def killed(*arguments, **more):
        step(*arguments, **more)
        steps.append(1)
        if len(steps) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "optimizer_step", killed)
        with pytest.raises(KeyboardInterrupt):
            train("killed")
    again = train("killed").state_dict()
    assert len(steps) == 3 and all(torch.equal(value, again[name]) for name, value in whole.items())


def test_the_command_trains_a_bundles_net_further(tmp_path, monkeypatch):
    monkeypatch.setattr(perception, "render_pairs", lambda folder, count, size: write_pairs(folder, count))
    (tmp_path / "marked").mkdir()
    write(tmp_path / "marked", ears(), ears(0))
    command = ["--folder", str(tmp_path / "run"), "--photographs", str(tmp_path / "marked"), "--renders", "16",
               "--start", "film", "--iterations", "2", "--device", "cpu"]
    assert perception.main(command) == 0
    written = load_file(tmp_path / "run" / "parsing.safetensors")
    ParsingNet().load_state_dict({name: value.float() if value.is_floating_point() else value
                                  for name, value in written.items()})
    assert perception.main([*command[:3], str(tmp_path / "nowhere"), *command[4:]]) == 2
