"""Where the studio's camera stands and what is where in the picture: arithmetic alone."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from studio_people import FFHQ

from vtoonify_lib.studio import geometry
from vtoonify_lib.studio.spectacles import tubes

EYES, MOUTH = np.array([[0.6, 7.3, 1.2], [-0.6, 7.3, 1.2]]), np.array([[-0.22, 6.3, 1.3], [0.22, 6.3, 1.3]])


def test_ffhq_framing():
    camera = geometry.ffhq_camera(EYES, MOUTH, FFHQ)
    eyes, mouth = geometry.project(EYES, camera), geometry.project(MOUTH, camera)
    assert eyes[0, 0] - eyes[1, 0] == pytest.approx(1 / 4), "eye distance is a quarter of the width"
    assert eyes[0, 0] > 0.5, "the subject's left is on the right"
    assert eyes[:, 1] == pytest.approx(np.full(2, eyes[0, 1])) and mouth[0, 1] > eyes[0, 1], "rows run downwards"
    down = mouth.mean(0) - eyes.mean(0)
    assert eyes.mean(0) + 0.1 * down == pytest.approx([0.5, 0.5])


def test_a_long_face_is_framed_by_its_length():
    mouth = MOUTH - [0, 1.0, 0]
    camera = geometry.ffhq_camera(EYES, mouth, FFHQ)
    eyes, mouth = geometry.project(EYES, camera), geometry.project(mouth, camera)
    assert eyes[0, 0] - eyes[1, 0] < 0.24
    assert 3.6 * np.hypot(*(mouth.mean(0) - eyes.mean(0))) == pytest.approx(1)


def test_framing_levels_zooms_shifts_and_rolls():
    tilt = geometry.rotation(0, 0, 0.3)
    eyes, mouth = ((points - [0, 7, 0]) @ tilt.T + [0, 7, 0] for points in (EYES, MOUTH))
    level = geometry.project(eyes, geometry.ffhq_camera(eyes, mouth, FFHQ))
    assert level[0, 1] == pytest.approx(level[1, 1], abs=1e-3), "a tilted head is set upright"
    framed = geometry.project(EYES, geometry.ffhq_camera(EYES, MOUTH, np.array([2.0, 0.1, -0.05, 0])))
    plain = geometry.project(EYES, geometry.ffhq_camera(EYES, MOUTH, FFHQ))
    assert framed - 0.5 == pytest.approx(2 * (plain - 0.5) + [0.1, -0.05])
    rolled = geometry.project(EYES, geometry.ffhq_camera(EYES, MOUTH, np.array([1.0, 0, 0, 0.2])))
    across = rolled[0] - rolled[1]
    assert np.arctan2(*across[::-1]) == pytest.approx(0.2) and np.hypot(*across) == pytest.approx(1 / 4)


def test_depth_of_the_camera_is_the_distance_along_its_axis():
    camera = geometry.ffhq_camera(EYES, MOUTH, np.array([1.3, 0.1, 0, 0.2]))
    point = np.array([0.4, 7.0, 1.0, 1.0])
    clip = camera @ point
    assert clip[3] == pytest.approx(geometry.CAMERA_DISTANCE - 1.0)
    ndc, near, far = clip[2] / clip[3], geometry.NEAR, geometry.FAR
    assert 2 * far * near / (far + near - ndc * (far - near)) == pytest.approx(clip[3]), "what a depth buffer holds"


def test_a_wider_picture_holds_the_square():
    camera = geometry.ffhq_camera(EYES, MOUTH, FFHQ)
    inside = geometry.project(EYES, camera)
    assert geometry.widen(camera, 256, 256) == pytest.approx(camera)
    for height, width, square in ((480, 640, (170, 44, 300)), (640, 480, None)):
        left, top, side = square or (0, 80, 480)
        wide = geometry.project(EYES, geometry.widen(camera, height, width, square)) * [width, height]
        assert wide == pytest.approx(inside * side + [left, top])


def test_rotation_turns_as_documented():
    ahead = np.array([0, 0, 1.0])
    assert (geometry.rotation(0.3, 0, 0) @ ahead)[0] > 0, "+ yaw: to the subject's left, +x"
    assert (geometry.rotation(0, 0.3, 0) @ ahead)[1] < 0, "+ pitch: down"
    turn = geometry.rotation(0.3, -0.2, 0.1)
    assert turn @ turn.T == pytest.approx(np.eye(3)) and np.linalg.det(turn) == pytest.approx(1)


@pytest.mark.parametrize("roundness", [0.0, 1.0])
def test_spectacles_sit_before_the_eyes(roundness):
    ball = np.array([[x, y, z] for x in (-0.25, 0.25) for y in (-0.25, 0.25) for z in (-0.25, 0.25)])
    bridge, ears = [[0, 7.2, 1.5]], [[1.2, 7.2, 0], [-1.2, 7.2, 0]]
    flesh = np.concatenate([ball + [0.6, 7.2, 1.0], ball + [-0.6, 7.2, 1.0], bridge, ears])
    triangles = np.arange(8).reshape(-1, 2)
    regions = SimpleNamespace(landmarks=np.full(68, 16), ear_roots={"l": 17, "r": 18})
    points, faces = tubes({"round": roundness, "thick": 0.03}, flesh, {"l": triangles, "r": triangles + 8}, regions)
    assert faces.min() == 0 and faces.max() == len(points) - 1 and np.isfinite(points).all()
    assert points[:, 2].max() > 1.25 + 0.05, "in front of the eyeballs"
    assert points[:, 0].max() == pytest.approx(-points[:, 0].min(), abs=0.05), "as wide on both sides"
    assert np.abs(points[:, 0]).max() == pytest.approx(1.2, abs=0.1), "the temples reach the ears"
    corners = points[faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    assert area.min() > 0
