"""Fitting the studio's head to photographs: against renders, whose person and camera are known, and one real face."""

from __future__ import annotations

import numpy as np
import pytest
from people import HOPPER, photograph

from vtoonify_lib.config import VToonifyError
from vtoonify_lib.faces.crop import eye_distance
from vtoonify_lib.studio import fitted_person, fitting
from vtoonify_lib.studio.fitted_person import canvas
from vtoonify_lib.studio.fitting import AVERAGE, Fitter, _axes, grown
from vtoonify_lib.studio.geometry import project
from vtoonify_lib.studio.people import person, sample_z, unit_target

BLANK = np.full((480, 480, 3), 128, np.uint8)


@pytest.fixture(scope="module")
def fitter():
    try:
        return Fitter()
    except VToonifyError as error:
        pytest.skip(str(error))


def seen(fitter, who, size=480):
    """Scene of a person, landmarks and irises in its picture, in pixels."""
    scene = fitter.sculptor.scene(who)
    exact = fitting.exact(scene, who, BLANK, project(scene.landmarks, scene.camera) * size)
    return scene, exact.landmarks, exact.irises


@pytest.mark.parametrize("seed", range(4))
def test_it_finds_pose_and_landmarks_of_a_render(fitter, seed):
    who = person(0.7 * sample_z(np.random.default_rng([3, seed]), 1)[0])
    _, marks, irises = seen(fitter, who)
    fit = fitter.fit(BLANK, marks, irises, 480)
    assert fit.residual < 0.02 and not fit.refusals
    assert np.abs(fit.person.pose - who.pose).max() < 0.12, (fit.person.pose, who.pose)


def test_gaze_follows_the_irises(fitter):
    base = person(np.zeros(len(sample_z(np.random.default_rng(0), 1)[0])))
    for gaze in ([0.3, 0.0], [-0.25, 0.1], [0.0, -0.1]):
        _, marks, irises = seen(fitter, base.with_(gaze=np.array(gaze)))
        assert np.abs(fitter.fit(BLANK, marks, irises, 480).person.gaze - gaze).max() < 0.08


def test_what_muscles_do_is_found(fitter):
    rest = person(np.zeros(len(sample_z(np.random.default_rng(0), 1)[0])))
    for unit in ("mouth-open", "mouth-corner-puller", "eye-left-closure"):
        name = unit_target(unit, np.array([1, 0, 0]))
        acting = rest.with_(expression={**rest.expression, name: rest.expression.get(name, 0) + 0.7})
        fits = [fitter.fit(BLANK, seen(fitter, who)[1], None, 480) for who in (rest, acting)]
        before, after = (fit.person.expression.get(name, 0) for fit in fits)
        assert after > before + 0.3, f"{unit}: {before:.2f} → {after:.2f}"
        assert fits[1].residual < 0.02


def test_a_wink_is_of_one_eye(fitter):
    rest = person(np.zeros(len(sample_z(np.random.default_rng(0), 1)[0])))
    left, right = (unit_target(f"eye-{side}-closure", np.array([1, 0, 0])) for side in ("left", "right"))
    winking = rest.with_(expression={**rest.expression, left: 0.8})
    fit = fitter.fit(BLANK, seen(fitter, winking)[1], None, 480)
    assert fit.person.expression.get(left, 0) > fit.person.expression.get(right, 0) + 0.3


def test_slopes_are_those_of_the_errors(fitter):
    rng = np.random.default_rng(2)
    points = (seen(fitter, person(0.5 * sample_z(rng, 1)[0]))[1] + 0.5) / 480
    caught = {}

    def spy(errors, x, slopes, **settings):
        caught.update(errors=errors, slopes=slopes)
        return type("Found", (), {"x": x + 0.05 * rng.standard_normal(len(x))})

    original = fitting.least_squares
    fitting.least_squares = lambda fun, x, *rest, **settings: (
        spy(fun, x, *rest) if rest else original(fun, x, **settings))
    try:
        x = fitter._solve(points)
    finally:
        fitting.least_squares = original
    exact = caught["slopes"](x)
    numeric = np.stack([(caught["errors"](x + step) - caught["errors"](x - step)) / 2e-5
                        for step in 1e-5 * np.eye(len(x))], 1)
    assert np.abs(exact - numeric).max() < 0.05 * np.abs(numeric).max()


def test_a_real_face(fitter):
    fit = fitter.fit(photograph(), HOPPER, None, 480)
    assert not fit.refusals and fit.residual < 0.05 and fit.person.gaze.tolist() == pytest.approx(
        person(np.zeros(len(sample_z(np.random.default_rng(0), 1)[0]))).gaze.tolist())
    assert 0.6 < eye_distance(fit.landmarks) / (480 / fitted_person.MARGIN / 4) < 1.1  # four eye distances
    assert fit.photo.shape == (480, 480, 3) and 0 < fit.covered.mean() <= 1


def test_fits_are_drawn_to_the_average_of_fits(fitter, monkeypatch):
    def neck(by):
        shape = by.fit(photograph(), HOPPER, None, 480).person.shape
        return shape.get("neck/neck-scale-horiz-incr", 0) - shape.get("neck/neck-scale-horiz-decr", 0)

    drawn = neck(fitter)
    monkeypatch.setitem(fitting.AVERAGE, "neck/neck-scale-horiz-incr", 0.0)
    assert drawn < neck(fitting.Fitter(fitter.kit)) - 0.05


@pytest.mark.parametrize("change, reason", [
    (lambda marks: marks[np.random.default_rng(0).permutation(68)], "fit no face"),
    (lambda marks: (marks - 200) * 0.1 + 200, "px apart"), (lambda marks: marks + [0, 320], "outside of the picture"),
    (lambda marks: (marks - 250) @ np.array([[0, 1], [-1, 0]]) + 250, "tilted by")])
def test_refusals_say_why(fitter, change, reason):
    assert any(reason in text for text in fitter.fit(photograph(), change(HOPPER), None, 240).refusals)


def test_a_profile_is_refused(fitter):
    who = person(np.zeros(len(sample_z(np.random.default_rng(0), 1)[0]))).with_(pose=np.array([0.95, 0, 0]))
    assert any("turned" in text for text in fitter.fit(BLANK, seen(fitter, who)[1], None, 240).refusals)


def test_what_is_no_photograph_is_refused(fitter):
    for marks in (HOPPER[:5], HOPPER * np.nan, np.zeros((68, 2))):
        with pytest.raises(VToonifyError, match="expected 68 finite points|less than a pixel"):
            fitter.fit(photograph(), marks)
    with pytest.raises(VToonifyError, match="expected uint8"):
        fitter.fit(np.zeros((10, 10, 3), np.float32), HOPPER)


@pytest.mark.parametrize("size", [700, 180, 90])
def test_canvas_moves_points_with_pixels(size):
    """Enlarged, and shrunk by so much that it is averaged first."""
    rows, columns = np.mgrid[:600, :512]
    blob = 255 * np.exp(-((rows - 300) ** 2 + (columns - 260) ** 2) / 400)
    photo = np.repeat(blob[..., None], 3, -1).astype(np.uint8)
    image, _, move = canvas(photo, HOPPER, size)
    spot = fitting._moved(np.array([[260, 300]]), move)[0]
    rows, columns = np.mgrid[:size, :size]
    weight = image[..., 0].astype(float)
    assert np.abs([(columns * weight).sum() / weight.sum(), (rows * weight).sum() / weight.sum()] - spot).max() < 0.1


def test_another_size_keeps_points_on_their_pixels(fitter):
    fit = fitter.fit(photograph(), HOPPER, HOPPER[[37, 44]], 600)
    small, again = fitted_person.at_size(fit, 240), fitter.fit(photograph(), HOPPER, HOPPER[[37, 44]], 240)
    assert np.abs(small.landmarks - again.landmarks).max() < 0.02 and np.abs(small.irises - again.irises).max() < 0.02
    assert small.enlarged == pytest.approx(again.enlarged)


def test_brow_points_may_slide_along_the_brow():
    axes = _axes(HOPPER / 600)
    brow = HOPPER[26] - HOPPER[22]
    along, across = brow / np.linalg.norm(brow), np.array([-brow[1], brow[0]]) / np.linalg.norm(brow)
    assert np.linalg.norm(axes[24] @ along) < 0.5 * np.linalg.norm(axes[24] @ across)
    assert np.linalg.norm(axes[40]) > 1.5 * np.linalg.norm(axes[8])  # lids count more than outlines


def test_growing_leads_away_from_the_average():
    shape = {"nose/nose-scale-vert-incr": AVERAGE["nose/nose-scale-vert-incr"] + 0.2, "head/head-oval": 0.3,
             "mouth/mouth-angles-up": 0.3}
    out = grown(shape, 3.0, ("nose/", "head/"), 1.3)
    assert out["nose/nose-scale-vert-incr"] > shape["nose/nose-scale-vert-incr"] + 0.4
    assert out["mouth/mouth-angles-up"] == 0.3
    average = {name: w for name, w in AVERAGE.items() if w > 0 and "{s}" not in name}
    same = grown(average, 3.0, ("nose/",), 1.3)
    assert all(same.get(name, 0) == pytest.approx(w) for name, w in average.items() if name.startswith("nose/"))
    huge = grown({"nose/nose-scale-vert-incr": 9.0}, 3.0, ("nose/",), 1.3)
    assert huge["nose/nose-scale-vert-incr"] < 9 + 1.3 + 1e-6


def test_lower_lip_goes_down_as_the_mouth_opens(fitter):
    marks = fitter.sculptor.regions.landmarks
    open_mouth = fitter.kit.morph({"expression/units/caucasian/mouth-open": 1.0}) - fitter.kit.vertices
    assert (open_mouth[marks[[65, 66, 67]], 1] < -0.2).all()
    assert (np.abs(open_mouth[marks[[61, 62, 63]], 1]) < 0.05).all()
