"""The landmark network: what the shipped one sees in a photograph, its geometry, and how it is taught."""

from __future__ import annotations

import runpy
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from people import GREY, HOPPER, photograph, scene

from vtoonify_lib.config import DATA, VToonifyError
from vtoonify_lib.faces.crop import eye_distance
from vtoonify_lib.faces.detector import FaceFinder
from vtoonify_lib.faces.landmarks import (
    EYES,
    apply,
    box_from_landmarks,
    crop,
    eye_distance_of,
    eye_matrices,
    face_matrix,
    inverse,
    load_landmarks,
)
from vtoonify_lib.faces.searching import apart, search, windows
from vtoonify_lib.faces.tracker import FaceTrack
from vtoonify_lib.models.landmarks import EYE_HEIGHT, EYE_WIDTH, FACE_SIDE, LandmarkNet
from vtoonify_lib.studio.geometry import rotation
from vtoonify_lib.training import landmark_crops, landmark_data, landmarks
from vtoonify_lib.training.landmark_data import Example
from vtoonify_lib.weights.bundle import load_bundle

pseudo_labels = SimpleNamespace(**runpy.run_path(str(DATA / "pseudo_labels.py")))  # it stands by itself
PUPILS = np.array([(217, 188), (307, 185)], np.float32)  # marked by hand, as HOPPER
BOX = box_from_landmarks(HOPPER)


@pytest.fixture(scope="module")
def path():
    return load_bundle("studio-t").path("landmarks")


@pytest.fixture(scope="module")
def model(path):
    return load_landmarks(path)


@pytest.fixture(scope="module")
def finder(path):
    return FaceFinder(path)


def turned(degrees: float, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """The photograph on a larger canvas, turned, and its landmarks."""
    matrix = cv2.getRotationMatrix2D((267, 240), degrees, scale)
    matrix[:, 2] += 120
    return cv2.warpAffine(photograph(), matrix, (760, 800), borderValue=(GREY,) * 3), apply(matrix, HOPPER)


def example() -> Example:
    return Example(photograph(), np.concatenate([HOPPER, PUPILS]), np.array([0.3, 0.3], np.float32))


def error(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.linalg.norm(found - truth, axis=1).mean()) / eye_distance(HOPPER)


# -- the shipped network ----------------------------------------------------------------------------------------------
def test_both_bundles_share_one_small_file(path):
    assert load_bundle("studio-d").path("landmarks") == path and path.stat().st_size <= 2_000_000


def test_sees_eyes_and_irises_in_a_photograph(model):
    marks, = model.fit(photograph(), [BOX])
    assert error(marks.landmarks[27:], HOPPER[27:]) < 0.07  # not the brows: her spectacles have a rim as dark as those
    assert max(error(marks.landmarks[eye], HOPPER[eye]) for eye in EYES) < 0.09
    assert error(marks.irises, PUPILS) < 0.05
    assert marks.confidence > 0.9 and marks.spread < 0.1 and (0.15 < marks.openness).all()


def test_turned_dark_and_grey_faces_keep_their_landmarks(model):
    for degrees in (-30, 30):
        picture, truth = turned(degrees)
        marks, = model.fit(picture, [box_from_landmarks(truth)])
        assert error(marks.landmarks[17:], truth[17:]) < 0.1 and marks.confidence > 0.8
    dark = (photograph() * 0.15).astype(np.uint8)
    grey = np.repeat(photograph().mean(-1, keepdims=True), 3, -1).astype(np.uint8)
    for picture in (dark, grey):
        assert error(model.fit(picture, [BOX])[0].landmarks[17:], HOPPER[17:]) < 0.09


def test_a_lid_that_is_painted_shut_is_seen(model):
    shut = photograph().copy()
    shut[177:197, 188:242] = shut[198:218, 188:242]  # the skin under the eye over it, and a line where the lids meet
    shut[192:194, 198:234] = (60, 35, 30)
    before, after = (model.fit(picture, [BOX])[0].openness for picture in (photograph(), shut))
    assert after[0] < 0.7 * before[0] and after[1] > 0.8 * before[1]


def test_confidence_tells_faces_from_anything_else(model):
    picture = scene(700, 300, [(0, 0, 300)])
    noise = np.random.default_rng(0).integers(0, 256, (300, 700, 3), dtype=np.uint8)
    face = tuple(np.array(box_from_landmarks(HOPPER)) / 2)
    wall, beside = (500, 60, 600, 160), (face[0] + 90, face[1], face[2] + 90, face[3])
    yes, *no = model.confidence(picture, [face, wall, beside])
    assert yes > 0.9 and max(no) < 0.3 and model.confidence(noise, [face])[0] < 0.3


def test_a_face_that_the_detector_misses_is_searched_for(finder, model, monkeypatch):
    picture, truth = turned(45)
    monkeypatch.setattr(FaceFinder, "_search", lambda *a, **k: [])
    assert finder.faces(picture, thorough=False) == []
    face, = finder.faces(picture)
    assert error(face.landmarks[17:], truth[17:]) < 0.12 and face.confidence > 0.8
    assert search(model, np.full((300, 400, 3), GREY, np.uint8)) == []


def test_one_answer_over_the_whole_picture_is_that_of_a_crop(model):
    found = apart(windows(model, photograph()))
    box, logit = found[0]
    alone, = model.fit(photograph(), [box])
    assert error(alone.landmarks, HOPPER) < 0.15 and logit > 1
    np.testing.assert_allclose(box, BOX, atol=0.2 * (BOX[2] - BOX[0]))


def test_a_track_has_irises_and_lids(finder):
    track = FaceTrack(finder)
    faces = [track.update(scene(480, 240, [(x, 0, 240)]), x / 100) for x in range(20, 60, 4)]
    assert all(face.irises.shape == (2, 2) and face.openness.shape == (2,) for face in faces)
    assert error(faces[-1].irises, PUPILS * 0.4 + [56, 0]) < 0.1


def test_a_file_that_is_no_landmark_network_is_refused(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"nothing")
    with pytest.raises(VToonifyError, match="not a readable safetensors"):
        load_landmarks(tmp_path / "a.safetensors")
    with pytest.raises(VToonifyError, match="does not fit its description"):
        load_landmarks(load_bundle("studio-t").path("parsing"))


# -- geometry ---------------------------------------------------------------------------------------------------------
def test_the_left_eye_is_mirrored_into_a_right_one():
    right, left = eye_matrices(HOPPER)
    assert np.linalg.det(right[:, :2]) > 0 > np.linalg.det(left[:, :2])
    for matrix, corners in ((right, (36, 39)), (left, (45, 42))):  # outer corner to the left, inner to the right
        outer, inner = apply(matrix, HOPPER[list(corners)])
        assert 0 < outer[0] < 20 and EYE_WIDTH - 20 < inner[0] < EYE_WIDTH
        assert abs(apply(matrix, HOPPER[36:42] if matrix is right else HOPPER[42:48]).mean(0)[1] - EYE_HEIGHT / 2) < 1
        np.testing.assert_allclose(apply(inverse(matrix), apply(matrix, HOPPER)), HOPPER, atol=1e-3)


@pytest.mark.parametrize("factor", [3, 7])
def test_crops_of_a_large_picture_are_those_of_a_small_one(factor):
    small, size = photograph(), (FACE_SIDE, FACE_SIDE)
    large = cv2.resize(small, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    matrix = face_matrix(np.array(BOX), turn=0.3)
    enlarged = np.c_[matrix[:, :2] / factor, matrix[:, 2] + matrix[:, :2] @ np.full(2, 0.5 / factor - 0.5)]
    difference = crop(small, matrix, size).astype(int) - crop(large, enlarged, size)
    assert np.abs(difference).mean() < 4
    shifted = np.roll(crop(small, matrix, size).astype(int), 1, 1)
    assert np.abs(difference).mean() < 0.5 * np.abs(shifted - crop(small, matrix, size)).mean()


# -- teaching ---------------------------------------------------------------------------------------------------------
def test_a_mirrored_face_has_its_points_where_they_were():
    mirrored = landmark_crops.mirrored(example())
    again = landmark_crops.mirrored(mirrored)
    np.testing.assert_allclose(again.points, example().points)
    assert mirrored.points[36, 0] < mirrored.points[45, 0] and mirrored.points[68, 0] < mirrored.points[69, 0]
    assert mirrored.points[8] == pytest.approx(HOPPER[8] * [-1, 1] + [511, 0])


def test_samples_keep_points_on_the_face():
    rng = np.random.default_rng(0)
    for _ in range(12):
        sample = landmark_crops.face_sample(example(), rng, [photograph()])
        assert sample.image.shape == (FACE_SIDE, FACE_SIDE, 3) and sample.image.dtype == np.uint8
        if sample.face:
            assert np.abs(sample.points[17:].mean(0)).max() < 0.8
        eye = landmark_crops.eye_sample(example(), rng)
        assert eye.image.shape == (EYE_HEIGHT, EYE_WIDTH, 3) and np.abs(eye.points[:6].mean(0)).max() < 0.6
        assert 2 < eye.size < 3, "an eye's crop is 0.8 eye distances wide"
    assert landmark_crops.beside_sample(example(), rng).face == 0


@pytest.mark.parametrize("cover", ["sunglasses", "hat"])
def test_covers_hide_what_they_should(cover):
    points = np.concatenate([HOPPER, PUPILS])
    rng, before = np.random.default_rng(1), photograph()
    after = getattr(landmark_crops, cover)(before, points, rng).astype(int)
    hidden, free = {"sunglasses": ((188, 217), (281, 265)), "hat": ((60, 265), (281, 265))}[cover]
    assert np.abs(after[hidden] - before[hidden]).max() > 20 and (after[free] == before[free]).all()


def test_labels_become_faces_with_room(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), photograph()[..., ::-1])
    np.savez(tmp_path / "labels.npz", path=["a.png", "b.png"], points=np.stack([HOPPER + 0.5] * 2),
             irises=np.stack([PUPILS + 0.5] * 2), openness=np.full((2, 2), 0.3), found=[True, True])
    (name, face, weight), = landmark_data.read_labels(tmp_path / "labels.npz", tmp_path, without={"b.png"})
    assert name == "a.png" and weight == 1
    back = np.array([face.image[round(y), round(x)] for x, y in face.points.tolist()], int)
    truth = np.array([photograph()[round(y), round(x)] for x, y in [*HOPPER.tolist(), *PUPILS.tolist()]], int)
    assert np.abs(back - truth).mean() < 12
    np.savez(tmp_path / "other.npz", path=["a.png"])
    with pytest.raises(VToonifyError, match="has no found, irises, openness, points"):
        list(landmark_data.read_labels(tmp_path / "other.npz"))


def test_a_mesh_is_moved_to_where_the_renders_have_their_points():
    rng = np.random.default_rng(0)
    head = rng.normal(0, 1, (478, 3))
    head[[33, 263, 10, 152]] = (-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0)
    meshes = np.stack([rng.uniform(20, 60) * head @ rotation(*rng.normal(0, 0.4, 3)).T + rng.normal(0, 50, 3)
                       for _ in range(40)])
    offset = np.array([0.05, -0.1, 0.2])
    points = meshes[:, [pseudo_labels.OWN.get(i, pseudo_labels.OVAL[3]) for i in range(70)], :2]
    points[:, 8] += np.stack([offset @ pseudo_labels.frame(mesh)[:, :2] for mesh in meshes])
    points[::10] += 500  # renders that the mesh misses
    vertices, offsets = pseudo_labels.calibrate(meshes, points)
    assert vertices[8] == pseudo_labels.OVAL[3] and vertices[36] == 33 and not offsets[36:].any()
    np.testing.assert_allclose(offsets[8], offset, atol=0.01)
    found, opened = pseudo_labels.labels(meshes[1], vertices, offsets)
    np.testing.assert_allclose(found[8], points[1, 8], atol=1)
    np.testing.assert_allclose(found[36:48], points[1, 36:48], atol=1e-6)
    assert opened.shape == (2,)


def test_renders_know_lids_and_irises(tmp_path):
    pytest.importorskip("moderngl")
    faces = landmark_data.renders(landmark_data.render(tmp_path, 6))
    assert landmark_data.renders(landmark_data.render(tmp_path, 6))[5].openness.tolist() == faces[5].openness.tolist()
    for face in faces:
        assert face.points.shape == (70, 2) and (0.03 < face.openness).all() and (face.openness < 0.6).all()
        for iris, eye in zip(face.points[68:], EYES, strict=True):
            assert np.linalg.norm(iris - face.points[eye].mean(0)) < 0.35 * eye_distance_of(face.points[:68])


def test_openness_falls_to_next_to_nothing_when_lids_are_shut():
    from dataclasses import replace

    from vtoonify_lib.studio.geometry import Sculptor
    from vtoonify_lib.studio.kit import Kit
    from vtoonify_lib.studio.people import person, sample_z, unit_target

    who, sculptor = person(sample_z(np.random.default_rng(1), 1)[0]), Sculptor(Kit())
    shut = {unit_target("eye-left-closure", who.ethnicity): 1.0}
    right, left = landmark_data.openness(sculptor.scene(replace(who, expression=shut)).landmarks)
    assert right > 0.2 and left < 0.1


def test_training_goes_on(tmp_path, monkeypatch, one_thread):
    monkeypatch.setattr(landmarks, "MINE_EVERY", 2)
    monkeypatch.setattr(landmarks, "MINED", 2)
    faces = landmarks.LandmarkExamples([example()], [example()], np.ones(1), [np.full((64, 64, 3), GREY, np.uint8)])
    first = landmarks.train(faces, tmp_path, iterations=3, batch=4)
    assert landmarks.train(faces, tmp_path, iterations=3, batch=4).face.mean.equal(first.face.mean)
    assert "nan" not in (tmp_path / "log.csv").read_text()
    assert first.state_dict().keys() == LandmarkNet().state_dict().keys()


def test_command_line(tmp_path, monkeypatch, capsys, one_thread):
    monkeypatch.setattr(landmark_data, "render", lambda folder, *a: [folder])
    monkeypatch.setattr(landmark_data, "renders", lambda paths: [example()])
    monkeypatch.setattr(sys, "argv", ["landmarks", "--folder", str(tmp_path), "--iterations", "2", "--batch", "2",
                                      "--device", "cpu"])
    landmarks.main()
    assert "'openness_r'" in capsys.readouterr().out
    marks, = load_landmarks(tmp_path / "landmarks.safetensors").fit(photograph(), [BOX])
    assert np.isfinite(marks.landmarks).all() and np.isfinite(marks.openness).all()
