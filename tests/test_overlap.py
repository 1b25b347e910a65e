"""Who is behind whom, and whose pixels are whose."""

from __future__ import annotations

import numpy as np
import pytest

from vtoonify_lib.faces.crop import CropPlan, face_position, paste_all, paste_back
from vtoonify_lib.faces.trajectory import FaceTrajectory
from vtoonify_lib.inference.occlusion import HEAD, OcclusionModel, ownership_mask, split_identities

PLAN = CropPlan(0.5, 0, 0, 200, 160, 400, 320)  # all of a picture of 400×320, at half its size
NOBODY = (np.nan,) * 3


def track(xs, y=160.0, size=40.0, rate=25) -> FaceTrajectory:
    """Somebody whose eyes are at these x; None where they are not found."""
    made = FaceTrajectory(frame_shape=(320, 400))
    for i, x in enumerate(xs):
        made.times.append(i / rate)
        for values, value in ((made.x, x), (made.y, y), (made.distance, size)):
            values.append(np.nan if x is None else value)
    return made


def test_a_place_is_read_from_landmarks():
    landmarks = np.zeros((68, 2), np.float32)
    landmarks[36:42], landmarks[42:48] = (10, 20), (50, 20)
    assert face_position(landmarks) == (30, 20, 40)


def test_alone_everything_is_mine():
    assert (ownership_mask(np.array([(100, 160, 40), NOBODY]), 0, PLAN) == 1).all()


def test_pixels_between_two_people_are_shared_out_and_heads_stay_whole():
    positions = np.array([(120, 160, 40), (280, 160, 40)])
    left, right = ownership_mask(positions, 0, PLAN), ownership_mask(positions, 1, PLAN)
    assert left.shape == (160, 200) and left.dtype == np.float32
    np.testing.assert_allclose(left + right, 1, atol=1e-5)
    assert (left[:, :80] == 1).all() and (left[:, 120:] == 0).all() and left[80, 100] == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("front", [0, 1])
def test_the_one_in_front_keeps_the_whole_head(front):
    positions, ahead = np.array([(180, 160, 40), (220, 160, 40)]), np.zeros((2, 2), bool)
    ahead[front, 1 - front] = True
    mine, other = ownership_mask(positions, front, PLAN, ahead), ownership_mask(positions, 1 - front, PLAN, ahead)
    np.testing.assert_allclose(mine + other, 1, atol=1e-5)
    inside = slice(80 - int(0.7 * HEAD[1] * 20), 80 + int(0.7 * HEAD[1] * 20)), int(positions[front, 0] / 2)
    assert (mine[inside] == 1).all()
    edge = int(positions[front, 0] / 2) + (1 if front == 0 else -1) * int(0.7 * HEAD[0] * 20)  # towards the other one
    assert mine[80, edge] == 1 and other[80, 150 if front == 0 else 50] > 0.9


def test_larger_heads_are_in_front_where_nothing_else_is_known():
    positions = np.array([(180, 160, 60), (240, 160, 30)])
    assert ownership_mask(positions, 0, PLAN)[80, 115] == 1 and ownership_mask(positions, 1, PLAN)[80, 115] == 0


def test_who_is_not_seen_for_others_is_hidden_and_behind():
    steps = [100 + 5 * i for i in range(40)]
    behind = track([None if 150 < x < 250 else x for x in steps])
    occlusion = OcclusionModel([behind, track([200.0] * 40)])
    occluded = occlusion.occluded(0)
    assert occlusion.front.tolist() == [[False, False], [True, False]]
    assert (occluded[12:29] == 1).all() and occluded[5] == occluded[35] == 0 and 0 < occluded[9] < 1
    assert not occlusion.occluded(1).any()
    assert occlusion.positions[0, 0, 20] == pytest.approx(200), "in between as if it had moved evenly"


def test_whoever_is_not_found_where_nobody_else_is_is_not_hidden():
    occlusion = OcclusionModel([track([100.0] * 10 + [None] * 5 + [100.0] * 10), track([350.0] * 25)])
    assert not occlusion.occluded(0).any()


def test_a_small_head_in_front_is_in_front():
    large = track([None if 20 < i < 70 else 200.0 for i in range(90)], size=60)
    occlusion = OcclusionModel([large, track([215.0] * 90, size=30)])
    assert occlusion.front.tolist() == [[False, False], [True, False]]


def test_hiding_ends_with_the_scene():
    behind, front = track([200.0] * 10 + [None] * 10 + [300.0] * 10), track([200.0] * 20 + [50.0] * 10)
    for one in (behind, front):
        one.cuts.append(20)
    occluded = OcclusionModel([behind, front]).occluded(0)
    assert (occluded[10:20] == 1).all() and (occluded[20:] == 0).all() and 0 < occluded[7] < 1


def test_between_two_drawings_nothing_of_the_frame_is_seen():
    positions = np.array([(120, 160, 40), (280, 160, 40)])
    drawn = [np.full((160, 200, 3), 200, np.uint8)] * 2
    frame = np.zeros((320, 400, 3), np.uint8)
    parts = [(picture, PLAN, ownership_mask(positions, who, PLAN)) for who, picture in enumerate(drawn)]
    assert paste_all(frame, parts).min() >= 198
    assert (paste_all(frame, parts[:1]) == paste_back(frame, *parts[0])).all()


def test_in_a_clip_only_those_who_are_there_take_pixels_away():
    occlusion = OcclusionModel([track([160.0] * 20), track([240.0] * 10 + [None] * 10)])
    assert occlusion.ownership_mask(0, 5, PLAN, [1.0, 0.0])[80, 120] == 0, "found, if not drawn"
    assert occlusion.ownership_mask(0, 15, PLAN, [1.0, 0.3])[80, 120] == 0, "drawn, if not found"
    assert (occlusion.ownership_mask(0, 15, PLAN, [1.0, 0.0]) == 1).all()
    assert (occlusion.ownership_mask(0, 99, PLAN, [1.0]) == 1).all()


def test_others_are_all_who_are_elsewhere():
    """The largest is the first person, and the second in the next scene; in between it is lost for two frames."""
    largest = track([100.0] * 4 + [None] * 2 + [100.0] * 4 + [300.0] * 10)
    largest.cuts.append(10)
    first, second = track([100.0] * 10 + [101.0] * 10), track([300.0] * 20)
    largest.aligned, first.aligned = np.zeros((4, 4, 3), np.uint8), np.ones((4, 4, 3), np.uint8)
    mine, *beside = split_identities(largest, [first, second, track([100.0] * 10 + [None] * 10)])
    assert mine.aligned is first.aligned, "who comes first gives the style code"
    assert list(mine.x) == [100.0] * 10 + [300.0] * 10, "what only the other pass found is taken over"
    assert [one.found.tolist() for one in beside] == [[False] * 10 + [True] * 10, [True] * 10 + [False] * 10]
    assert list(beside[0].x)[10:] == [101.0] * 10 and list(first.x)[:10] == [100.0] * 10, "a copy"


@pytest.mark.parametrize("back", [12, 15, None])
def test_the_largest_does_not_walk_off_with_who_passes_in_front(back):
    """By place alone it did. If the person does not come back, the other one may be them in another light."""
    steps = [30.0 * i - 100 for i in range(20)]
    person, passer = track([200.0] * 9 + [None] * 11), track(steps, size=60)
    if back:
        person = track([200.0] * 9 + [None] * (back - 9) + [200.0] * (20 - back))
    mine, *beside = split_identities(track([200.0] * 9 + steps[9:]), [person, passer])
    if back is None:
        assert list(mine.x) == [200.0] * 9 + steps[9:] and not beside[0].found[9:].any()
        return
    assert mine.found.tolist() == person.found.tolist() and list(mine.x)[back:] == [200.0] * (20 - back)
    assert [list(one.x) for one in beside] == [steps]
    assert OcclusionModel([mine, *beside]).occluded(0)[9] == 1 and OcclusionModel([mine, *beside]).occluded(0)[0] == 0


def test_people_of_different_scenes_do_not_meet():
    first, second = track([200.0] * 10 + [None] * 10), track([None] * 10 + [200.0] * 10)
    first.cuts.append(10)
    second.cuts.append(10)
    occlusion = OcclusionModel([first, second])
    assert not occlusion.occluded(0).any() and not occlusion.occluded(1).any()
    assert np.isnan(occlusion.positions[0, 0, 15])


def test_a_scene_is_identified_by_more_than_its_first_frame():
    largest, person, beside = track([300.0] + [100.0] * 19), track([100.0] * 20), track([300.0] * 20)
    mine, *others = split_identities(largest, [person, beside])
    assert list(mine.x) == [100.0] * 20 and [list(one.x) for one in others] == [[300.0] * 20]


@pytest.mark.parametrize("heads, another", [(0.3, False), (0.8, True)])
def test_two_tracks_on_one_face_are_one_person(heads, another):
    twin = track([100 + heads * HEAD[0] * 40] * 20)
    assert bool(split_identities(track([100.0] * 20), [track([100.0] * 20), twin])[1:]) == another
