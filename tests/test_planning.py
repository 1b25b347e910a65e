"""Which crop each frame of a clip gets, and how much of the cartoon it shows."""

from __future__ import annotations

from array import array

import numpy as np
import pytest

from vtoonify_lib.config import VToonifyError
from vtoonify_lib.faces.crop import PADDING_FRACTION
from vtoonify_lib.faces.trajectory import FaceTrajectory
from vtoonify_lib.inference.crop_plan import FADE, MISSED, REACH, fade_alpha, plan_clip, select_faces
from vtoonify_lib.styles.request import check_faces


def made_track(xs, distances, shape=(400, 800)) -> FaceTrajectory:
    track = FaceTrajectory(frame_shape=shape)
    for i, (x, d) in enumerate(zip(xs, distances, strict=True)):
        track.times.append(i / 25)
        track.x.append(x)
        track.y.append(150)
        track.distance.append(d)
    return track


def test_one_steady_crop_holds_a_face_that_moves_a_little():
    plan = plan_clip(made_track(np.linspace(300, 340, 50), [40] * 50), in_size=128)
    assert plan.steady
    left, _, right, _ = plan.at(0).box
    assert left <= 300 - 115 and right >= 340 + 115


def test_crop_glides_after_a_face_that_moves_far():
    xs = np.linspace(150, 650, 100)
    plan = plan_clip(made_track(xs, [20] * 100), in_size=128)
    sizes = {(p.width, p.height) for p in plan.plans}
    assert not plan.steady and len(plan.plans) == 100 and len(sizes) == 1 and plan.width % 8 == plan.height % 8 == 0
    centres = np.array([(p.box[0] + p.box[2]) / 2 for p in plan.plans])
    assert np.abs(centres - xs).max() < 60 and np.abs(np.diff(centres)).max() < 8
    assert plan.at(1000) == plan.plans[-1]


def test_gliding_is_smooth_in_time_not_in_frames():
    steady = made_track(150 + 500 * (np.arange(200) > 100), [20] * 200)
    kept = np.array([*range(0, 60, 12), *range(60, 140), *range(140, 200, 12)])  # slow, fast and slow again
    uneven = made_track(np.asarray(steady.x)[kept], [20] * len(kept))
    uneven.times[:] = array("d", np.asarray(steady.times)[kept])
    boxes = [np.array([p.box for p in plan_clip(track, in_size=128).plans]) for track in (steady, uneven)]
    np.testing.assert_allclose(boxes[1], boxes[0][kept], atol=3)


def test_a_clock_that_begins_anew_is_survived():
    track = made_track(np.linspace(150, 650, 100), [20] * 100)
    track.times[50:] = array("d", np.arange(50) / 25)
    track.cuts.append(10)
    assert (np.diff(track.monotonic_times) > 0).all() and track.monotonic_times[60] == pytest.approx(60 / 25)
    plans = plan_clip(track, in_size=128).plans
    centres = np.array([(p.box[0] + p.box[2]) / 2 for p in plans])
    assert len(plans) == 100 and np.abs(centres - np.asarray(track.x)).max() < 60 and (fade_alpha(track) == 1).all()


def test_crop_zooms_with_a_face_that_comes_closer_and_does_not_smear_a_cut():
    track = made_track([200.0] * 50 + [600.0] * 50, [20] * 50 + [60] * 50)
    track.cuts.append(50)
    plan = plan_clip(track, in_size=128)
    assert plan.at(49).scale == pytest.approx(32 / 20) and plan.at(50).scale == pytest.approx(32 / 60)
    assert plan.at(49).box[2] < 400 < plan.at(50).box[2]


def found_in(*frames: int, count: int = 100, cuts=()) -> FaceTrajectory:
    """A track of 25 frames a second in which the face was found in these frames."""
    track = made_track([300.0] * count, [40.0 if i in frames else np.nan for i in range(count)])
    track.cuts.extend(cuts)
    return track


def test_the_cartoon_fades_in_and_out():
    share = fade_alpha(found_in(*range(40, 60)))
    assert (share[40:60] == 1).all() and (share[[0, 10, 90, 99]] == 0).all()
    reach, fade = round(25 * REACH), round(25 * FADE)
    assert share[40 - reach] == 1 and share[59 + reach] == 1 and 0 < share[39 - reach] < 1
    assert (np.diff(share[:41]) >= 0).all() and np.diff(share).max() == pytest.approx(1 / fade, rel=0.01)


def test_short_gaps_are_closed_and_long_ones_are_not():
    gap = round(25 * MISSED)
    assert (fade_alpha(found_in(10, 10 + gap, count=20 + gap)) == 1).all()
    share = fade_alpha(found_in(10, 80))
    assert share[45] == 0 and share[10] == share[80] == 1


def test_nothing_fades_across_a_cut():
    share = fade_alpha(found_in(*range(50), cuts=[50]))
    assert (share[:50] == 1).all() and (share[50:] == 0).all()
    assert (fade_alpha(found_in()) == 0).all()


def person(x: float, distance: float, frames: int, count: int = 100) -> FaceTrajectory:
    track = made_track([x] * count, [distance if i < frames else np.nan for i in range(count)])
    track.x[frames:] = type(track.x)("d", [np.nan] * (count - frames))
    track.aligned = np.zeros((8, 8, 3), np.uint8) if frames else None
    return track


def test_who_is_drawn_stands_from_left_to_right():
    far, near, mistake, nobody = person(500, 20, 100), person(200, 60, 90), person(50, 90, 4), person(9, 9, 0)
    tracks = [nobody, far, near, mistake]
    assert select_faces(tracks, "all") == [near, far] and select_faces(tracks, 1) == [near]
    assert select_faces(tracks, "largest") == [near] and select_faces(tracks, 5) == [near, far]
    far.x[30:], near.x[30:] = array("d", [100] * 70), array("d", [700] * 60 + [np.nan] * 10)
    assert select_faces(tracks, "all") == [near, far], "as they were first seen"
    assert select_faces([nobody], "all") == [] and select_faces([nobody, mistake], "all") == [mistake]


def test_wishes_for_faces():
    for faces, frame in (("largest", "crop"), (1, "crop"), ("all", "full"), (3, "full")):
        check_faces(faces, frame)
    for faces, frame, message in (("two", "full", "expected largest, all or a number"), (0, "full", "a number from 1"),
                                  (True, "full", "faces is True"), ("all", "crop", "--frame full")):
        with pytest.raises(VToonifyError, match=message):
            check_faces(faces, frame)


@pytest.mark.parametrize("roam, closer, steady", [(0.5, 1, True), (2, 1, False), (0, 1.3, True), (0, 2.5, False)])
def test_a_crop_stands_still_until_that_would_be_wasteful(roam, closer, steady):
    """The face moves by so many paddings, or comes closer by this factor."""
    padding = PADDING_FRACTION * 128 / (128 / 4 / 40)  # in pixels of the frame
    xs = 400 + roam * padding * np.linspace(-0.5, 0.5, 100)
    assert plan_clip(made_track(xs, np.geomspace(40, 40 * closer, 100)), in_size=128).steady == steady


def test_a_gliding_crop_does_not_tremble_with_the_landmarks():
    trembling = np.linspace(150, 650, 100) + 10 * (-1) ** np.arange(100)
    boxes = plan_clip(made_track(trembling, [20] * 100), in_size=128).plans
    assert np.abs(np.diff([plan.box[0] for plan in boxes])).max() < 8
