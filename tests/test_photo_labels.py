"""Classes of photographs, on renders whose truth is known, and on a real face."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from people import SIZE, Z, photograph, photographed
from PIL import Image

from vtoonify_lib.evaluation.metrics import class_iou
from vtoonify_lib.studio.people import person
from vtoonify_lib.training import photo_labels
from vtoonify_lib.training.photo_labels import Teachers

BLIND = 0.5  # share of the pixels in which the net's guess is drawn by lot


@pytest.fixture(scope="module")
def sit(photo_studio, camera_studio):
    """Somebody's render, prepared as a photograph; what a net that is lost sees in it; the truth."""
    def prepared(**changes):
        who = person(Z).with_(**{"glasses": None, "pose": np.array([0.1, 0.0, 0.05]), **changes})
        fit, truth = photographed(camera_studio, who, bald=True)
        rng = np.random.default_rng(0)
        cells = rng.integers(0, 19, (SIZE // 16, SIZE // 16)).astype(np.uint8)
        lost = cv2.resize((rng.random(cells.shape) < BLIND).astype(np.uint8), (SIZE, SIZE), interpolation=0) > 0
        seen = np.where(lost, cv2.resize(cells, (SIZE, SIZE), interpolation=0), truth)
        parsing = np.eye(19, dtype=np.float32)[seen]
        return photo_studio.prepare(fit, parsing), parsing, truth

    return prepared


def test_a_lost_net_is_set_right(sit):
    ready, parsing, truth = sit()
    before = class_iou([(parsing.argmax(-1), truth)])
    after = class_iou([(photo_labels.photo_labels(ready, parsing, Teachers(person=truth > 0)), truth)])
    for part in ("0", "1", "10", "16", "17"):
        assert after[part] > max(0.7, before[part] + 0.15)


def test_the_mesh_says_where_the_parts_are(sit):
    ready, parsing, truth = sit()
    mesh = np.full((478, 3), -9.0)
    around = np.linspace(0, 2 * np.pi, len(photo_labels.PARTS[5]), endpoint=False)
    mesh[list(photo_labels.OVAL), :2] = cv2.ellipse2Poly((192, 200), (80, 110), 0, 0, 350, 10)
    mesh[list(photo_labels.PARTS[5]), :2] = np.c_[120 + 20 * np.cos(around), 90 + 10 * np.sin(around)]
    out = photo_labels.photo_labels(ready, parsing, Teachers(mesh, truth > 0))
    rows, columns = np.nonzero(out == 5)
    assert len(rows) == pytest.approx(np.pi * 20 * 10, rel=0.03)
    assert (columns.mean(), rows.mean()) == pytest.approx((119.5, 89.5), abs=0.15)


def test_a_brow_is_what_is_dark(sit):
    fit = sit()[0].fit
    where, hairs = np.zeros((SIZE, SIZE), bool), np.zeros((SIZE, SIZE), bool)
    where[100:112, 100:160], hairs[104:114, 104:156] = True, True
    photo = np.where(hairs[..., None], 0.2, np.linspace(0.5, 0.7, SIZE)[:, None]).astype(np.float32)
    found = photo_labels._brow(where, replace(fit, photo=np.ascontiguousarray(np.broadcast_to(photo, (SIZE, SIZE, 3)))))
    assert (found & hairs).sum() / (found | hairs).sum() > 0.85 > (where & hairs).sum() / (where | hairs).sum()
    even = replace(fit, photo=np.full((SIZE, SIZE, 3), 0.6, np.float32))
    assert np.array_equal(photo_labels._brow(where, even), where)


def test_the_command_goes_in_two_steps(photo_studio, tmp_path):
    (tmp_path / "people").mkdir()
    Image.fromarray(photograph()).save(tmp_path / "people" / "hopper.png")
    Image.fromarray(photograph()[:100]).save(tmp_path / "people" / "nobody.png")
    out = tmp_path / "out"
    command = [str(tmp_path / "people"), "--out", str(out), "--size", "256"]
    assert photo_labels.main(command) == 0
    assert [p.name for p in out.iterdir()] == ["people-hopper_photo.png"]
    np.savez(out / "people-hopper_teachers.npz", mesh=np.zeros((0, 3)), person=np.full((256, 256), 255, np.uint8))
    assert photo_labels.main(command) == 0
    classes = np.asarray(Image.open(out / "people-hopper.png"))
    assert classes.shape == (256, 256) and {0, 1, 10, 16, 17} & set(np.unique(classes)) >= {1, 10, 16}
    assert photo_labels.main([str(tmp_path / "out" / "none"), "--out", str(out)]) == 2
