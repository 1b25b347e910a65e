"""Faces: found, fitted, framed as published and as ours, followed through a clip, and put back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from errors import refuses
from people import GREY, HOPPER, photograph, scene

from vtoonify_lib.config import VToonifyError
from vtoonify_lib.faces.crop import (
    Box,
    align_face,
    cut,
    eye_distance,
    ffhq_quad,
    paste_back,
    plan_crop,
    published_plan,
    working_image,
)
from vtoonify_lib.faces.detector import Face, FaceFinder
from vtoonify_lib.faces.landmarks import box_from_landmarks
from vtoonify_lib.faces.tracker import FaceTrack, OneEuro
from vtoonify_lib.faces.trajectory import SceneCuts, track_clip
from vtoonify_lib.inference.crop_plan import plan_clip
from vtoonify_lib.weights.bundle import load_bundle

GOLDEN = np.load(Path(__file__).parent / "golden" / "preprocess.npz")


@pytest.fixture(scope="module", params=["dlib", "network"])
def finder(request, landmark_file):
    """With a shape predictor, as some published bundles have it, and with the shipped network."""
    return FaceFinder(landmark_file if request.param == "dlib" else load_bundle("studio-t").path("landmarks"))


def away(landmarks, truth):
    """Mean distance of nose, eyes and mouth, in eye distances: the studio's jaw and brows are not marked by hand."""
    return np.linalg.norm(landmarks - truth, axis=1)[27:].mean() / eye_distance(truth)


# ------------------------------------------------------------------------------------------ published numbers


def test_published_plan():
    cases = zip(GOLDEN["crop/landmarks"], GOLDEN["crop/image_hw_and_padding_lrtb"],
                GOLDEN["crop/h_w_top_bottom_left_right_scale"], strict=True)
    same = [case for case in cases if len(set(case[1][2:])) == 1]  # as much on each side, as all users ask for
    for landmarks, (height, width, padding, *_), expected in same:
        plan = published_plan((height, width), landmarks, 256, padding)
        found = [round(height * plan.scale), round(width * plan.scale), plan.top, plan.bottom, plan.left, plan.right]
        np.testing.assert_allclose([*found, plan.scale], expected, rtol=1e-12)
    assert len(same) == 16


def test_ffhq_quad():
    for landmarks, corners in zip(GOLDEN["quad/landmarks"], GOLDEN["quad/corners"], strict=True):
        np.testing.assert_allclose(ffhq_quad(landmarks), corners, atol=1e-9)


@pytest.mark.parametrize("case", range(8))
def test_align_face(case):
    landmarks, (height, width) = GOLDEN["align/landmarks"][case], GOLDEN["align/image_hw"][case]
    y, x = np.mgrid[:height, :width]
    blue = np.where((x // 16 + y // 16) % 2 == 1, 220, 20)
    picture = np.stack([x * 255 // (width - 1), y * 255 // (height - 1), blue], axis=-1).astype(np.uint8)
    work, quad = working_image(picture, ffhq_quad(landmarks), 256)
    assert work.size == tuple(GOLDEN["align/working_image_size_wh"][case])
    np.testing.assert_allclose(quad, GOLDEN["align/final_quad"][case], atol=1e-9)
    aligned = align_face(picture, landmarks, 256)[::8, ::8].astype(int)
    assert np.abs(aligned - GOLDEN["align/aligned_256_strided8"][case]).max() <= 2


# ------------------------------------------------------------------------------------------ our crop


def test_crop_plan_has_eyes_a_quarter_apart_on_the_grid():
    plan = plan_crop((600, 512), HOPPER, in_size=128)
    assert plan.scale == pytest.approx(32 / eye_distance(HOPPER))
    assert plan.width % 8 == plan.height % 8 == 0
    assert all(edge % 8 == 0 for edge in (plan.left, plan.top, plan.right, plan.bottom))
    left, top, right, bottom = plan.box
    assert 0 <= left < right <= 512 and 0 <= top < bottom <= 600


def test_crop_scale_does_not_change_with_head_roll():
    turn = np.radians(40)
    rolled = (HOPPER - 260) @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) + 260
    straight = plan_crop((600, 512), HOPPER, 128)
    assert plan_crop((600, 512), rolled, 128).scale == pytest.approx(straight.scale, rel=1e-6)
    assert published_plan((600, 512), rolled, 256).scale > 1.2 * published_plan((600, 512), HOPPER, 256).scale


def test_crop_plan_errors_say_what_to_do():
    with pytest.raises(VToonifyError, match="eyes are .* closer shot"):
        plan_crop((600, 512), HOPPER / 40, 128)
    with pytest.raises(VToonifyError, match="padding is 3 px"):
        plan_crop((600, 512), HOPPER, 128, padding=3)
    with pytest.raises(VToonifyError, match=r"expected \(68, 2\)"):
        plan_crop((600, 512), HOPPER[:5], 128)
    with pytest.raises(VToonifyError, match="planned for 512×600"):
        cut(np.zeros((80, 80, 3), np.uint8), plan_crop((600, 512), HOPPER, 128))


def test_paste_back_returns_the_frame_when_nothing_was_drawn():
    photo = photograph()
    plan = plan_crop(photo.shape, HOPPER, 256, padding=120)
    same = paste_back(photo, cut(photo, plan, grow=2), plan)
    assert np.abs(same.astype(int) - photo).mean() < 2
    left, top, right, bottom = (round(v) for v in plan.box)
    marked = paste_back(photo, np.zeros((plan.height, plan.width, 3), np.uint8), plan)
    assert (marked[:top] == photo[:top]).all() and (marked[:, right + 1:] == photo[:, right + 1:]).all()
    assert marked[(top + bottom) // 2, (left + right) // 2].max() == 0
    half = np.zeros((8, 8), np.float32)
    half[:, :4] = 1
    beside = paste_back(photo, np.zeros((plan.height, plan.width, 3), np.uint8), plan, half)
    middle = (top + bottom) // 2
    assert beside[middle, left + (right - left) // 4].max() == 0
    assert (beside[middle, right - 20] == photo[middle, right - 20]).all()
    step = np.abs(np.diff(marked[(top + bottom) // 2].astype(int), axis=0)).max()
    assert step <= np.abs(np.diff(photo[(top + bottom) // 2].astype(int), axis=0)).max() + 20, "no hard edge"


# ------------------------------------------------------------------------------------------ finding


def test_finds_the_photograph(finder):
    face, = finder.faces(photograph())
    assert face.score > 1 and face.spread < 0.1
    assert away(face.landmarks, HOPPER) < 0.07


def test_box_from_landmarks_is_about_the_detected_box(finder):
    found, = finder.detect(photograph())
    np.testing.assert_allclose(box_from_landmarks(HOPPER), found.box, atol=0.15 * found.side)


@pytest.mark.parametrize(("tall", "width", "height"), [(120, 160, 120), (600, 512, 600), (700, 3840, 2160)])
def test_finds_small_and_4k_faces(finder, tall, width, height):
    face, = finder.faces(scene(width, height, [(width / 4, height - tall, tall)]))
    truth = HOPPER * tall / 600 + [width / 4, height - tall]
    assert away(face.landmarks, truth) < 0.12


def test_finds_a_face_that_fills_the_picture(finder):
    assert finder.faces(np.ascontiguousarray(photograph()[130:350, 160:380]))


def test_largest_face_comes_first(finder):
    faces = finder.faces(scene(480, 300, [(0, 60, 240), (210, 0, 300)]))
    assert len(faces) == 2 and faces[0].centre[0] > 300 and faces[0].side > faces[1].side


def test_a_known_face_is_confirmed_only_where_it_is(finder):
    face, = finder.faces(scene())
    assert finder.confirm(scene(), face) and finder.confirm(scene(people=[]), face) is None


@pytest.mark.parametrize("shape", [(8, 8), (1, 1), (1, 300), (240, 320)])
def test_no_face(finder, shape):
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert finder.faces(noise) == []


def test_landmark_file_errors(tmp_path):
    with refuses("missing"):
        FaceFinder(tmp_path / "none.dat")
    (tmp_path / "text.dat").write_text("not a model")
    with refuses("unreadable"):
        FaceFinder(tmp_path / "text.dat")
    with pytest.raises(VToonifyError, match="no landmark model"):
        FaceFinder().faces(photograph())


# ------------------------------------------------------------------------------------------ following


def walk(xs, tall=240, size=(480, 240)):
    """(frame, seconds) pairs with the face at these left edges; None is a frame without anybody."""
    for index, x in enumerate(xs):
        yield scene(*size, [] if x is None else [(x, 0, tall)]), index / 25


def test_follows_a_moving_face_with_few_detections(finder, monkeypatch):
    calls = []
    detect = FaceFinder.detect
    monkeypatch.setattr(FaceFinder, "detect", lambda self, *a, **k: calls.append(1) or detect(self, *a, **k))
    xs = np.linspace(20, 120, 21)
    track = track_clip(walk(xs), finder, 32, every=5)
    assert track.found.all() and len(calls) <= 7
    np.testing.assert_allclose(track.x, 262 * 0.4 + xs, atol=8)
    assert track.aligned.shape == (32, 32, 3) and track.most_faces == 1 and track.cuts == []


def test_face_lost_midway_and_found_again(finder):
    track = track_clip(walk([60] * 6 + [None] * 30 + [70] * 6), finder, 32)
    assert track.frames == 42 and track.found[:6].all() and track.found[36:].all()
    assert not track.found[20:36].any(), "given up half a second later"
    plan = plan_clip(track, 32)
    assert plan.steady and plan.at(30) == plan.at(0)


def test_frames_before_the_face_are_counted(finder):
    track = track_clip(walk([None] * 20 + [60] * 5), finder, 32)
    assert track.first == 20 and not track.found[:20].any() and track.found[20:].all()


def test_clip_without_a_face(finder):
    track = track_clip(walk([None] * 3), finder, 32)
    assert track.first is None and track.aligned is None
    with refuses("no-face", "3 frames"):
        plan_clip(track, 32)


def test_follows_the_first_person_when_a_larger_one_enters(finder):
    frames = [(scene(700, 300, [(0, 60, 240)] + ([(320, 0, 300)] if i > 4 else [])), i / 25) for i in range(24)]
    track = track_clip(frames, finder, 32)
    assert track.most_faces == 2 and max(track.x) < 200 and track.cuts == []


def test_jump_to_another_place_is_a_cut(finder):
    track = track_clip(walk([20] * 5 + [300] * 5, size=(520, 240)), finder, 32)
    assert track.cuts == [5]


def test_one_euro_is_steady_at_rest_and_prompt_in_motion():
    rng, smooth = np.random.default_rng(0), OneEuro()
    still = np.stack([smooth(50 + rng.normal(size=(68, 2)), i / 25, 40.0) for i in range(100)])
    assert still[50:].std(0).mean() < 0.7
    smooth = OneEuro()
    moving = [smooth(np.full((68, 2), 4.0 * i), i / 25, 40.0)[0, 0] for i in range(50)]
    assert moving[-1] > 4.0 * 49 - 8


def test_scene_cuts_are_found_and_fast_motion_is_none():
    rng = np.random.default_rng(0)
    one, other = (rng.integers(0, 256, (9, 16, 3), dtype=np.uint8).repeat(20, 0).repeat(20, 1) for _ in range(2))
    cuts = SceneCuts()
    assert [cuts.update(frame) for frame in [one] * 4 + [other] * 4] == [False] * 4 + [True] + [False] * 3
    cuts = SceneCuts()
    assert not any(cuts.update(np.roll(one, 2 * i, 1)) for i in range(40)), "a pan"
    cuts = SceneCuts()
    assert not any(cuts.update(np.clip(one.astype(int) // 2 + 10 * i, 0, 255).astype(np.uint8)) for i in range(12))


def test_track_survives_times_that_stand_still(finder):
    track = FaceTrack(finder)
    for _ in range(3):
        assert track.update(scene(), 0.0) is not None


def test_background_stays_grey():
    assert (scene(people=[]) == GREY).all()


def test_a_shaking_camera_is_no_cut_and_a_cut_in_a_lively_clip_is_one():
    rng = np.random.default_rng(1)
    shaken, cuts = [np.uint8(128 + 50 * rng.choice([-1, 1], (18, 32, 1)).repeat(3, 2)) for _ in range(30)], SceneCuts()
    assert not any([cuts.update(np.kron(frame, np.ones((10, 10, 1), np.uint8))) for frame in shaken][8:])
    cuts, walk = SceneCuts(), [np.full((90, 160, 3), 40 + 6 * abs(i % 8 - 4), np.uint8) for i in range(24)]
    assert [cuts.update(frame) for frame in [*walk, np.full((90, 160, 3), 200, np.uint8)]] == [False] * 24 + [True]


class Blind:
    """A face finder that sees a face in the first frame alone, while the landmarks fit whatever is there."""

    face = Face(Box(40, 40, 140, 140), 1.0, np.random.default_rng(0).uniform(60, 120, (68, 2)), 0.0)

    def __init__(self):
        self.first = [self.face]

    def faces(self, rgb, thorough=True):
        seen, self.first = self.first, []
        return seen

    def fit(self, rgb, face):
        return self.face

    def confirm(self, rgb, face):
        return None


def test_a_face_that_the_detector_does_not_see_is_believed_for_a_moment():
    picture = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    track = FaceTrack(Blind(), every=1)
    found = [track.update(picture, i / 25) is not None for i in range(40)]
    assert all(found[:6]) and not any(found[25:])
