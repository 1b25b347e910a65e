"""Several people in a clip, and who is who after a cut or behind somebody else."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from people import GREY, scene

from vtoonify_lib.faces.crop import Box
from vtoonify_lib.faces.detector import Face, FaceFinder
from vtoonify_lib.faces.multi_tracker import BINS, MultiFaceTracker, colours
from vtoonify_lib.faces.tracker import FaceTrack
from vtoonify_lib.faces.trajectory import track_faces
from vtoonify_lib.weights.bundle import load_bundle


@pytest.fixture(scope="module")
def finder(landmark_file):
    return FaceFinder(landmark_file)


def timed(frames):
    return ((rgb, i / 25) for i, rgb in enumerate(frames))


def painted(x=None, green=None, size=(760, 240)):
    """A frame with the photograph at x, and in front of it the same face with green skin at `green`."""
    picture = scene(*size, [] if x is None else [(x, 0, 240)])
    if green is not None:
        second = scene(*size, [(green, 0, 240)])
        lab = cv2.cvtColor(second, cv2.COLOR_RGB2LAB)
        lab[..., 1:] = 255 - lab[..., 1:]
        inside = (second != GREY).any(2)
        picture[inside] = cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)[inside]
    return picture


def walk(xs):
    """The photograph at these left edges; None is a frame without anybody."""
    return timed([painted(x) for x in xs])


def two(xs, ys, size=(760, 300)):
    """Frames with a face at each left edge of xs and, larger, of ys."""
    for index, (x, y) in enumerate(zip(xs, ys, strict=True)):
        yield scene(*size, ([] if x is None else [(x, 60, 240)]) + ([] if y is None else [(y, 0, 300)])), index / 25


def test_two_people_have_a_track_each(finder):
    xs, ys = np.linspace(10, 60, 15), [None] * 4 + [420] * 11
    first, second = track_faces(two(xs, ys), finder, 32, most=4, every=3)
    assert first.found.all() and np.abs(np.asarray(first.x) - (262 * 0.4 + xs)).max() < 8
    assert not second.found[:4].any() and second.found[6:].all() and second.frames == first.frames == 15
    assert np.nanmedian(second.x) == pytest.approx(420 + 262 * 0.5, abs=8)
    assert np.nanmedian(second.distance) > 1.15 * np.nanmedian(first.distance)
    assert first.aligned is not None and second.aligned is not None and first.most_faces == 2


def test_who_comes_back_is_the_same_person(finder):
    (track,) = track_faces(walk([60] * 5 + [None] * 20 + [70] * 5), finder, 32, most=4)
    assert track.found[:5].all() and track.found[-4:].all() and not track.found[18:25].any()


def test_when_all_places_are_taken_a_newcomer_gets_one_that_is_free(finder):
    grey = np.repeat(painted(220)[..., :1], 3, axis=2)
    frames = [painted(20)] * 4 + [painted(None, 420)] * 16 + [grey] * 8
    first, second = track_faces(timed(frames), finder, 32, most=2)
    assert first.found[:4].all() and second.found[5:20].all() and not first.found[15:20].any()
    assert first.found[-2:].all() and not second.found[-1], "the third one has the first one's place"


def test_people_without_a_face(finder):
    (track,) = track_faces(walk([None] * 3), finder, 32, most=3)
    assert track.frames == 3 and track.aligned is None and track.most_faces == 0


# -- colours ----------------------------------------------------------------------------------------------------------
def test_colours_tell_people_apart_and_survive_another_size(finder):
    def of(rgb):
        return colours(rgb, finder.faces(rgb)[0])

    one, other = of(painted(60)), of(painted(None, 300))
    larger = of(cv2.resize(painted(60), None, fx=1.7, fy=1.7, interpolation=cv2.INTER_CUBIC))
    assert np.linalg.norm(one) == pytest.approx(1, abs=1e-4) and one @ larger > 0.9 and one @ other < 0.6


def test_colours_of_a_face_that_leaves_the_picture(finder):
    face = finder.faces(painted(60))[0]
    assert not colours(np.zeros((4, 4, 3), np.uint8), face).any(), "nothing of it is inside"
    assert np.isfinite(colours(painted(60)[:, : int(face.centre[0])], face)).all()


def test_two_who_change_sides_at_a_cut_stay_who_they_are(finder):
    frames = [painted(20, 480)] * 8 + [255 - painted(size=(760, 240))] * 2 + [painted(480, 20)] * 8
    first, second = track_faces(timed(frames), finder, 32, most=4)
    left, right = (first, second) if first.x[0] < 380 else (second, first)
    assert np.nanmax(left.x[:8]) < 380 < np.nanmin(left.x[-8:]) and np.isfinite(left.x[-8:]).all()
    assert np.nanmin(right.x[:8]) > 380 > np.nanmax(right.x[-8:]) and np.isfinite(right.x[-8:]).all()


def test_another_person_in_the_same_place_is_another_person_and_the_first_one_is_known_again(finder):
    dark, light = painted(260), painted(None, 260)
    light[light.min(2) == GREY] = 250  # another room
    first, second = track_faces(timed([dark] * 8 + [light] * 8 + [dark] * 8), finder, 32, most=4)
    assert first.found.tolist() == [True] * 8 + [False] * 8 + [True] * 8
    assert second.found.tolist() == [False] * 8 + [True] * 8 + [False] * 8


def test_who_goes_behind_somebody_else_comes_out_as_the_same_person(finder):
    steps = np.linspace(0, 500, 40).astype(int)
    behind, front = track_faces(timed([painted(x, 500 - x) for x in steps]), finder, 32, most=4)
    behind, front = (behind, front) if behind.x[0] < front.x[0] else (front, behind)
    assert front.found.all() and np.abs(np.asarray(front.x) - (262 * 0.4 + 500 - steps)).max() < 60
    seen = behind.found
    assert seen[:12].all() and seen[-12:].all() and not seen[19:21].any()
    assert np.abs(np.asarray(behind.x) - (262 * 0.4 + steps))[seen].max() < 60


@pytest.mark.parametrize("at", [9, 10, 11, 12, 13])
def test_a_jump_without_a_cut_is_no_second_person(at):
    finder = FaceFinder(load_bundle("studio-t").path("landmarks"))  # the one of the tests believes in any background
    frames = [painted(20 if i < at else 400, size=(640, 480)) for i in range(18)]
    track, = track_faces(timed(frames), finder, 32, most=4)
    assert track.found[-3:].all() and track.x[-1] > 400


def test_a_newcomer_takes_the_place_of_the_one_lost_longest(finder):
    grey = np.repeat(painted(220)[..., :1], 3, axis=2)
    frames = [painted(None, 420)] * 6 + [painted(20)] * 12 + [painted(size=(760, 240))] * 20 + [grey] * 8
    first, second = track_faces(timed(frames), finder, 32, most=2)
    assert first.found[-2:].all() and not second.found[-1]


def test_a_single_face_is_followed_without_looking_at_colours(finder, monkeypatch):
    monkeypatch.setattr("vtoonify_lib.faces.multi_tracker.colours", None)
    tracker = MultiFaceTracker(finder, 1)
    assert tracker.update(painted(60), 0.0)[0] is not None


# -- who is who, without pictures --------------------------------------------------------------------------------------
def known(*places, following=False):
    """A tracker that knows people at these x, all of the same colours, and faces there."""
    tracker, faces = MultiFaceTracker(None, 4), [Face(Box(x, 0, x + 100, 100), 1.0) for x in places]
    for face in faces:
        tracker.tracks.append(FaceTrack(None))
        tracker.tracks[-1]._face, tracker.tracks[-1].following = face, following
        tracker._colours.append(np.float32([1, 0]))
    return tracker, faces


def test_colours_are_learnt_slowly():
    tracker, faces = known(0, following=True)
    odd = np.float32([0, 1])
    tracker._assign(faces, [odd], cut=False)
    assert tracker._colours[0] @ [1, 0] > 0.9, "one frame behind a hand"
    for _ in range(25):
        tracker._assign(faces, [odd], cut=False)
    assert tracker._colours[0] @ odd > 0.9, "another light"


@pytest.mark.parametrize("alike, same", [(0.8, True), (0.1, False)])
def test_who_was_lost_is_known_again_by_colours(alike, same):
    tracker, _ = known(0)
    seen = np.float32([alike, np.sqrt(1 - alike**2)])
    tracker._assign([Face(Box(20, 0, 120, 100), 1.0)], [seen], cut=False)
    assert len(tracker.tracks) == (1 if same else 2)


def test_of_people_of_the_same_colours_the_nearer_one_is_meant():
    tracker, _ = known(0, 400)
    assert list(tracker._assign([Face(Box(380, 0, 480, 100), 1.0)], [np.float32([1, 0])], cut=False)) == [1]


@pytest.mark.parametrize("apart, both", [(30, False), (80, True)])
def test_two_tracks_are_never_on_one_face(apart, both):
    tracker, faces = known(0, apart, following=True)
    for colour in range(2):
        tracker._colours[colour] = np.zeros(2 * np.prod(BINS), np.float32)
    tracker._separate(np.zeros((100, 200, 3), np.uint8), faces)
    assert all(faces) == both
