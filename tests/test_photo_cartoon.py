"""Cartoons out of photographs, on renders whose truth is known and on one real face."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from people import HOPPER, SIZE, Z, photograph

from vtoonify_lib.config import VToonifyError
from vtoonify_lib.studio import fitting, photo_eyes, photo_film
from vtoonify_lib.studio.exemplars import EXEMPLARS
from vtoonify_lib.studio.filters import blur, luma, masked_blur
from vtoonify_lib.studio.geometry import project
from vtoonify_lib.studio.people import person, unit_target
from vtoonify_lib.studio.photo_looks import FILM, LOOKS, exemplar, flattering, photo_look
from vtoonify_lib.studio.photo_warp import carried, fetch_at
from vtoonify_lib.studio.strands import HairStyle


def test_no_degree_is_the_photograph(photo_studio, plain):
    drawing = photo_studio.draw(plain, FILM, 0, 0)
    assert np.abs(drawing.picture - plain.fit.photo).mean() < 0.004
    assert np.abs(drawing.move).max() < 0.5 and np.abs(drawing.landmarks - plain.fit.landmarks).max() < 0.5


def test_degrees_are_continuous_and_touch_different_things(photo_studio, plain):
    drawn = {at: photo_studio.draw(plain, FILM, *at) for at in ((0.5, 0.3), (0.52, 0.3), (0.5, 0.34), (0.5, 0.9))}
    base = drawn[0.5, 0.3].picture
    assert 0 < np.abs(drawn[0.52, 0.3].picture - base).mean() < 0.01
    assert 0 < np.abs(drawn[0.5, 0.34].picture - base).mean() < 0.005
    assert np.array_equal(drawn[0.5, 0.9].landmarks, drawn[0.5, 0.3].landmarks)


def test_landmarks_go_where_the_style_puts_them(photo_studio, plain):
    drawing = photo_studio.draw(plain, FILM, 1.0, 0.5)
    target = photo_studio.studio.sculptor.scene(plain.fit.person, FILM.warp, plain.fit.camera)
    wanted = project(target.landmarks, target.camera) * SIZE - 0.5
    off = np.linalg.norm(drawing.landmarks - wanted, axis=1) / plain.fit.eye
    moved = np.linalg.norm(plain.fit.landmarks - wanted, axis=1) / plain.fit.eye
    assert off[36:48].mean() < 0.25 * moved[36:48].mean() and off[27:].mean() < 0.03


def test_carried_points_come_back():
    rows, columns = np.mgrid[:80, :80].astype(np.float32)
    move = np.stack([3 * np.sin(rows / 15), 2 * np.cos(columns / 12)], -1).astype(np.float32)
    points = np.array([[30.0, 40.0], [50.5, 20.25]])
    there = carried(points, move)
    back = [there[i] + fetch_at(move, np.tile(np.float32(there[i]), (80, 80, 1)) - np.dstack([columns, rows]))[0, 0]
            for i in range(2)]
    assert np.abs(np.array(back) - points).max() < 0.05


def darkest(picture, lids, width):
    """Where an eye is darkest, [2] = x, y."""
    inside = photo_eyes.opening_mask(lids, len(picture), 1.0) > 0.6
    dark = np.where(inside, np.clip(0.35 - blur(luma(picture), 0.02 * width), 0, None), 0)
    rows, columns = np.mgrid[:len(picture), :len(picture)]
    return np.array([(columns * dark).sum(), (rows * dark).sum()]) / max(dark.sum(), 1e-6)


def test_eyes_look_where_the_person_looks(photo_studio, sit):
    centres = []
    for yaw in (-0.3, 0.3):
        ready = sit(gaze=np.array([yaw, 0.0]))
        drawing = photo_studio.draw(ready, FILM, 0.7, 0.5)
        lids = drawing.landmarks[42:48]
        width = np.linalg.norm(lids[3] - lids[0])
        centres.append((darkest(drawing.picture, lids, ready.fit.eye) - lids.mean(0))[0] / width)
    assert centres[1] - centres[0] > 0.12, centres


def test_a_shut_eye_stays_shut_and_an_open_one_is_painted(photo_studio, sit):
    name = unit_target("eye-left-closure", np.array([1, 0, 0]))
    changes = {}
    for closed in (0.0, 1.0):
        ready = sit(expression={name: closed})
        bare = replace(FILM, eyes=replace(FILM.eyes, iris=0.01, white=0, lash=0, glint=0.01))
        with_eyes, without = (photo_studio.draw(ready, look, 0.7, 0).picture for look in (FILM, bare))
        x, y = ready.fit.landmarks[42:48].mean(0).astype(int)
        near = (slice(y - 20, y + 20), slice(x - 25, x + 25))
        changes[closed] = np.abs(with_eyes - without)[near].mean()
    assert changes[1.0] < 0.35 * changes[0.0], changes


@pytest.mark.parametrize("color, channel", [((0.08, 0.20, 0.42), 2), ((0.12, 0.05, 0.02), 0)])
def test_irises_keep_their_colour(photo_studio, sit, color, channel):
    ready = sit(iris=np.array(color), iris2=np.array(color))
    assert ready.iris_color.argmax() == channel
    assert photo_eyes._toned(ready.iris_color, 0.5, FILM.eyes).argmax() == channel


def test_a_wink_does_not_change_the_other_eyes_colour(sit):
    blue = {"iris": np.array([0.08, 0.20, 0.42]), "iris2": np.array([0.08, 0.20, 0.42])}
    wink = sit(expression={unit_target("eye-left-closure", np.array([1, 0, 0])): 1.0}, **blue)
    assert np.abs(wink.iris_color / sit(**blue).iris_color - 1).max() < 0.35 and wink.iris_color.argmax() == 2


def test_irises_are_as_large_as_irises_are(photo_studio, sit):
    ready = sit(iris=np.array([0.9, 0.05, 0.05]), iris2=np.array([0.9, 0.05, 0.05]), pupil=0.3)
    drawing = photo_studio.draw(ready, replace(FILM, warp={}), 0.5, 0)
    wide = ready.fit.landmarks[45] - ready.fit.landmarks[42]
    red = (drawing.picture[..., 0] - drawing.picture[..., 1] > 0.25)
    x, y = ready.fit.irises[1].astype(int)
    across = red[y - 2:y + 3, x - 25:x + 26].any(0).sum()
    assert 0.75 < across / (2 * photo_eyes.IRIS * FILM.eyes.iris * ready.fit.eye) < 1.25, (across, np.linalg.norm(wide))


def test_gloss_on_skin_becomes_no_grey_spot(photo_studio, sit):
    ready = sit(skin=dict(person(Z).skin, tone=np.array([0.20, 0.10, 0.065])))
    x, y = ready.fit.landmarks[[19, 24]].mean(0) - [0, 0.45 * ready.fit.eye]
    rows, columns = np.mgrid[:SIZE, :SIZE]
    spot = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * (0.16 * ready.fit.eye) ** 2)).astype(np.float32)
    shiny = replace(ready, fit=replace(ready.fit, photo=(ready.fit.photo + 0.35 * spot[..., None]).clip(0, 1)))

    def gloss(picture, without):  # how much brighter, and how much greyer
        near = fetch_at(spot, drawings[0].move) > 0.8
        a, b = picture[near].mean(0), without[near].mean(0)
        return luma(a) - luma(b), (a[0] / a[2]) / (b[0] / b[2])

    drawings = [photo_studio.draw(r, replace(FILM, warp={}), 0.7, 0) for r in (ready, shiny)]
    (bright, grey), (left, hue) = (gloss(*(getattr(d, name) for d in drawings[::-1])) for name in ("warped", "picture"))
    assert 0.1 * bright < left < 0.75 * bright and grey < 0.85 and hue > 0.95, (left / bright, grey, hue)


def test_hair_gets_strands_and_spectacles_stay(photo_studio, sit):
    plain = sit()
    dressed = sit(hair=HairStyle(length=0.5),
                  glasses={"round": 0.5, "color": np.array([0.02, 0.02, 0.02]), "thick": 0.03})
    assert plain.masks["glasses"].max() == 0 and dressed.masks["glasses"].max() > 0.9
    assert dressed.masks["hair"].mean() > plain.masks["hair"].mean() + 0.02
    drawing = photo_studio.draw(dressed, FILM, 0.6, 0)
    frame = fetch_at(dressed.masks["glasses"], drawing.move) > 0.95
    assert np.abs(drawing.picture - drawing.warped)[frame].mean() < 0.02
    hair = (fetch_at(dressed.masks["hair"], drawing.move) > 0.9) & (drawing.labels == 17)
    assert np.abs(drawing.picture - drawing.warped)[hair].mean() > 0.01


def test_labels_are_those_of_the_head_that_is_drawn(photo_studio, sit):
    ready = sit()
    drawing = photo_studio.draw(ready, FILM, 1.0, 0)
    target = photo_studio.studio.sculptor.scene(ready.fit.person, FILM.warp, ready.fit.camera)
    truth = (photo_studio.studio.exact(target, ready.fit.person)[..., 0] * 255).round()
    truth = cv2.resize(truth.astype(np.uint8), (SIZE, SIZE), interpolation=cv2.INTER_NEAREST)
    for classes in ((4, 5), (12, 13), (10,)):
        a, b = np.isin(drawing.labels, classes), np.isin(truth, classes)
        assert (a & b).sum() / (a | b).sum() > 0.6, classes


def test_caricatures_lead_away_from_the_average(photo_studio, sit):
    nose = {"nose/nose-scale-vert-incr": 1.2}
    ready = sit(shape={**person(Z).shape, **nose})
    lengths = []
    for look in (replace(LOOKS["caricature"], exaggerate=0.0), LOOKS["caricature"]):
        marks = photo_studio.draw(ready, look, 1.0, 0).landmarks
        lengths.append(np.linalg.norm(marks[33] - marks[27]))
    assert lengths[1] > 1.02 * lengths[0]


def test_light_from_the_side_is_on_that_side(photo_studio, plain):
    halves = []
    for side in (-0.9, 0.9):
        picture = photo_studio.draw(plain, replace(FILM, side_light=0.6, side=side), 0.6, 1.0).picture
        bare, middle = plain.masks["skin"] > 0.9, plain.fit.landmarks[30, 0]
        columns = np.mgrid[:SIZE, :SIZE][1]
        halves.append(luma(picture)[bare & (columns > middle)].mean() - luma(picture)[bare & (columns < middle)].mean())
    assert halves[1] > halves[0] + 0.03


@pytest.mark.parametrize("tone", [(0.80, 0.55, 0.42), (0.14, 0.075, 0.047)])
def test_skin_stays_as_dark_and_as_warm_as_it_is(photo_studio, sit, tone):
    skin = dict(person(Z).skin, tone=np.array(tone), mottle=1.0, freckles=0.5)
    ready = sit(skin=skin)
    drawing = photo_studio.draw(ready, FILM, 0.6, 0.5)
    bare = fetch_at(ready.masks["skin"], drawing.move) > 0.9
    before, after = drawing.warped[bare], drawing.picture[bare]
    assert abs(luma(after).mean() / luma(before).mean() - 1) < 0.12
    assert abs((after[:, 0].mean() / after[:, 2].mean()) / (before[:, 0].mean() / before[:, 2].mean()) - 1) < 0.2
    cheeks = bare & (cv2.erode((drawing.labels == 1).astype(np.uint8), np.ones((9, 9))) > 0)
    fine = [np.abs(luma(p) - blur(luma(p), 2))[cheeks].mean() for p in (drawing.warped, drawing.picture)]
    assert fine[1] < 0.75 * fine[0]  # pores and blotches are gone


@pytest.mark.parametrize("name", ["comic", "paint"])
def test_warm_skin_does_not_turn_orange(photo_studio, sit, name):
    """Chroma of skin: a hand's technique adds little to what film does."""
    ready = sit(skin=dict(person(Z).skin, tone=np.array([0.75, 0.42, 0.24])))
    seen = []
    for look in (FILM, LOOKS[name]):
        drawing = photo_studio.draw(ready, look, 0.6, 1.0)
        pixels = drawing.picture[fetch_at(ready.masks["skin"], drawing.move) > 0.9]
        seen.append((pixels.max(-1) - pixels.min(-1)).mean())
    assert seen[1] < 1.08 * seen[0]


def test_cheeks_blush_and_foreheads_do_not(photo_studio, plain):
    drawing = photo_studio.draw(plain, FILM, 1.0, 0)
    eye, marks = plain.fit.eye, drawing.landmarks

    def redder(x, y):
        """How much redder than the photograph, in its place, a patch is."""
        box = np.s_[int(y - 0.1 * eye):int(y + 0.1 * eye), int(x - 0.1 * eye):int(x + 0.1 * eye)]
        shares = [p[box][..., 0].mean() / p[box][..., 1].mean() for p in (drawing.picture, drawing.warped)]
        return shares[0] / shares[1]

    cheeks = [redder(*(0.42 * marks[a] + 0.58 * marks[b] - [0, 0.06 * eye])) for a, b in ((2, 31), (14, 35))]
    forehead = redder(*(marks[[19, 24]].mean(0) - [0, 0.35 * eye]))
    assert min(cheeks) > forehead + 0.015


def test_brows_are_darker_and_drawn_along(photo_studio, sit):
    ready = sit()
    drawing = photo_studio.draw(ready, FILM, 1.0, 0)
    brows = np.zeros((SIZE, SIZE), np.uint8)
    for points in (drawing.landmarks[17:22], drawing.landmarks[22:27]):
        cv2.polylines(brows, [points.round().astype(np.int32)], False, 1, 2)
    before, after = (luma(p)[brows > 0].mean() for p in (drawing.warped, drawing.picture))
    skin = (cv2.dilate(brows, np.ones((3, 3))) == 0) & (fetch_at(ready.masks["skin"], drawing.move) > 0.9)
    around = [luma(p)[skin].mean() for p in (drawing.warped, drawing.picture)]
    assert after / around[1] < 0.98 * before / around[0]


def without(monkeypatch, **constants):
    """Film drawn without a part of it."""
    for name, value in constants.items():
        monkeypatch.setattr(photo_film, name, value)


def test_neck_is_darker_below_the_jaw_only(photo_studio, plain, monkeypatch):
    drawing = photo_studio.draw(plain, FILM, 0.7, 0)
    without(monkeypatch, JAW_SHADOW=0.0)
    lit = photo_studio.draw(plain, FILM, 0.7, 0).picture
    darker = masked_blur(luma(drawing.picture) / np.maximum(luma(lit), 1e-3), plain.masks["skin"] + 1e-4, 2.0)
    (x, chin), eye = drawing.landmarks[8], plain.fit.eye
    near, far, above = (darker[round(chin + d * eye), round(x)] for d in (0.12, 0.8, -0.15))
    assert near < 0.93 and near < far - 0.03 and above > 0.985, (near, far, above)


def test_gloss_is_what_is_brighter_and_greyer_on_dark_skin():
    def gloss(skin, spot):
        light = np.full((32, 32, 3), skin, np.float32)
        light[8:16, 8:16] = spot
        found = photo_film.FilmDrawing._sheen(None, light, light, np.ones((32, 32), np.float32))[1]
        assert found[20, 20] == 0
        return found[12, 12]

    dark = np.float32([0.10, 0.05, 0.03])
    assert gloss(dark, [0.14, 0.12, 0.11]) == 1 and gloss(dark, [0.06, 0.05, 0.045]) == 0, "a highlight, a grey shadow"
    assert gloss(dark, 2.2 * dark) == 0 and gloss([0.6, 0.4, 0.3], [0.95, 0.86, 0.82]) == 0, "a red light; light skin"


def test_brows_are_a_little_wider_than_the_mesh_says_and_no_more(photo_studio, plain, monkeypatch):
    drawing = photo_studio.draw(plain, FILM, 0.7, 0)
    without(monkeypatch, BROW_REACH=0.0)
    wider = np.abs(drawing.picture - photo_studio.draw(plain, FILM, 0.7, 0).picture).max(-1)
    brows = np.ones((SIZE, SIZE), np.uint8)
    for points in (drawing.landmarks[17:22], drawing.landmarks[22:27]):
        cv2.polylines(brows, [points.round().astype(np.int32)], False, 0, 1)
    far = cv2.distanceTransform(brows, cv2.DIST_L2, 5) > 0.35 * plain.fit.eye
    assert wider.max() > 0.02 > 0.01 > wider[far].max(), (wider.max(), wider[far].max())


def test_brows_behind_spectacles_are_not_drawn_along_their_rims(photo_studio, sit, monkeypatch):
    dressed = sit(glasses={"round": 0.5, "color": np.array([0.02, 0.02, 0.02]), "thick": 0.03})
    drawing = photo_studio.draw(dressed, FILM, 0.7, 0)
    without(monkeypatch, BROW_REACH=0.3)
    assert np.array_equal(drawing.picture, photo_studio.draw(dressed, FILM, 0.7, 0).picture)


def strands_of(picture):
    """A picture drawn as if all of it were hair."""
    pen = SimpleNamespace(eye=60.0, masks={"hair": np.ones(picture.shape[:2], np.float32)}, warped=picture, look=FILM)
    return photo_film.FilmDrawing._hair(pen, picture)


def test_skin_among_grey_hair_does_not_turn_orange():
    grey = 0.6 + 0.1 * np.sin(np.arange(160, dtype=np.float32))[None, :, None].repeat(160, 0).repeat(3, 2)
    grey[:, 76:84] = [0.6, 0.4, 0.28]  # a parting
    drawn = strands_of(grey)
    chroma = [np.ptp(p[40:120, 79:81].mean((0, 1))) for p in (grey, drawn)]
    light = [luma(p)[40:120, 20:60].std() for p in (grey, drawn)]
    assert 0.3 < chroma[1] / chroma[0] < 0.8 and light[1] > 0.8 * light[0], (chroma, light)


def test_a_print_is_not_drawn_as_hair():
    rng = np.random.default_rng(1)
    brown = np.float32([0.35, 0.22, 0.12]) * (1 + 0.3 * rng.standard_normal((160, 160, 1)).astype(np.float32))
    turban = cv2.resize(rng.random((20, 20, 3), np.float32), (160, 160))
    assert np.abs(strands_of(brown) - brown).mean() > 0.02 and np.array_equal(strands_of(turban), turban)


def test_a_tint_of_a_part_of_the_skin_fades_and_does_not_go(photo_studio, plain):
    x, y = plain.fit.landmarks[[2, 31]].mean(0)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    spot = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * (0.3 * plain.fit.eye) ** 2)).astype(np.float32)
    green = np.clip(plain.fit.photo + 0.06 * spot[..., None] * np.float32([-1, 1, -1]), 0, 1)
    tinted = replace(plain, fit=replace(plain.fit, photo=green))
    drawn = [photo_studio.draw(ready, replace(FILM, warp={}), 0.7, 0) for ready in (plain, tinted)]
    near = (fetch_at(spot, drawn[0].move) > 0.6) & (fetch_at(plain.masks["skin"], drawn[0].move) > 0.9)

    def tint(name):
        (a, b) = (getattr(drawing, name)[near].mean(0) for drawing in drawn[::-1])
        return (a[1] / a[0]) / (b[1] / b[0]) - 1

    assert 0.45 < tint("picture") / tint("warped") < 0.9, (tint("picture"), tint("warped"))


def test_bags_below_eyes_fade_more_than_folds(photo_studio, plain, monkeypatch):
    eye = plain.fit.eye
    fold = np.zeros((SIZE, SIZE), np.float32)
    x, y = plain.fit.landmarks[[46, 47]].mean(0)
    places = ((x, y + 0.14 * eye), (x, y - 1.0 * eye))  # below an eye, and on the forehead
    for px, py in places:
        cv2.ellipse(fold, (round(px), round(py)), (round(0.16 * eye), max(1, round(0.02 * eye))), 0, 0, 360, 1.0, -1)
    photo = plain.fit.photo * (1 - 0.3 * blur(fold, 1.0))[..., None]
    ready = replace(plain, fit=replace(plain.fit, photo=photo.astype(np.float32)))
    look = replace(FILM, warp={})
    deep = [luma(photo_studio.draw(r, look, 0.7, 0).picture) for r in (plain, ready)]
    below, brow = ((deep[1] / deep[0])[round(py), round(px)] for px, py in places)
    assert brow < 0.92 and below > brow + 0.05, (below, brow)


def test_both_eyes_are_about_as_bright(photo_studio, sit, monkeypatch):
    """Half a face in the shade: its eye is painted darker, but still as the other's pair."""
    ready = sit()
    dim = np.where(np.arange(SIZE) < ready.fit.landmarks[27, 0], 0.55, 1.0).astype(np.float32)
    ready = replace(ready, fit=replace(ready.fit, photo=ready.fit.photo * dim[None, :, None]))

    def ratio():
        drawing = photo_studio.draw(ready, replace(FILM, warp={}), 0.7, 0)
        eyes = [photo_eyes.opening_mask(drawing.landmarks[s:s + 6], SIZE, 0.5) > 0.9 for s in (36, 42)]
        left, right = (np.percentile(luma(drawing.picture)[eye], 40) for eye in eyes)
        return left / right

    pair = ratio()
    without(monkeypatch, SHARED_EXPOSURE=0.0)
    assert 1 > pair > ratio() + 0.05


def test_teeth_lose_their_yellow(photo_studio, sit):
    smile = {unit_target(unit, np.array([1, 0, 0])): weight for unit, weight in (
        ("mouth-open", 0.5), ("mouth-corner-puller", 0.8), ("mouth-upward-retraction", 0.6))}
    ready = sit(expression=smile)
    drawing = photo_studio.draw(ready, FILM, 1.0, 0)
    mouth = np.zeros((SIZE, SIZE), np.uint8)
    cv2.fillPoly(mouth, [drawing.landmarks[60:68].round().astype(np.int32)], 1)
    bright = (mouth > 0) & (luma(drawing.warped) > 0.6)
    assert bright.sum() > 20
    yellow = [(p[bright][:, 0] - p[bright][:, 2]).mean() for p in (drawing.warped, drawing.picture)]
    assert yellow[0] > 0.01 and yellow[1] < 0.85 * yellow[0]


@pytest.mark.parametrize("name", LOOKS)
def test_looks_of_a_real_face(photo_studio, name):
    fitter = fitting.Fitter(photo_studio.studio.kit)
    fit = fitter.fit(photograph(), HOPPER, np.array([HOPPER[36:42].mean(0), HOPPER[42:48].mean(0)]), 320)
    parsing = np.zeros((64, 64, 19), np.float32)
    parsing[..., 0] = 1
    drawing = photo_studio.draw(photo_studio.prepare(fit, parsing), LOOKS[name], 0.7, 0.7)
    assert drawing.picture.shape == (320, 320, 3) and np.isfinite(drawing.picture).all()
    assert 0.01 < np.abs(drawing.picture - fit.photo).mean() < 0.25
    assert set(np.unique(drawing.labels)) <= set(range(19))


def test_looks_differ(photo_studio, plain):
    pictures = [photo_studio.draw(plain, look, 0.8, 0.8).picture for look in LOOKS.values()]
    for i, a in enumerate(pictures):
        for b in pictures[:i]:
            assert np.abs(a - b).mean() > 0.005


def test_exemplars_differ_in_every_way_and_stay_what_they_are(photo_studio, plain):
    made = [exemplar("film", i) for i in range(EXEMPLARS)]
    assert made == [exemplar("film", i) for i in range(EXEMPLARS)] and len({str(look) for look in made}) == EXEMPLARS
    for value in (lambda a: a.vivid, lambda a: a.eyes.iris, lambda a: a.tint[0], lambda a: a.side,
                  lambda a: a.warp["eyes/l-eye-scale-incr"]):
        assert np.ptp([value(look) for look in made]) > 0.05
    pictures = [photo_studio.draw(plain, look, 1.0, 1.0).picture for look in made[:3]]
    assert min(np.abs(a - b).mean() for i, a in enumerate(pictures) for b in pictures[:i]) > 0.004
    assert photo_look("comic-07") is exemplar("comic", 7) and photo_look("comic") is LOOKS["comic"]
    for look, number, reason in (("oil", 0, "no look 'oil'"), ("film", EXEMPLARS, f"no exemplar {EXEMPLARS}")):
        with pytest.raises(VToonifyError, match=reason):
            exemplar(look, number)


def test_a_degree_beyond_the_look_is_refused(photo_studio, plain):
    with pytest.raises(VToonifyError, match="structure degree is 1.5"):
        photo_studio.draw(plain, FILM, 1.5)


def test_the_young_are_drawn_more_strongly(plain):
    degrees = [flattering(replace(plain.fit, person=plain.fit.person.with_(age=age))) for age in (0.1, 0.35, 0.9)]
    assert degrees[0] > degrees[1] > degrees[2] and 0.55 < degrees[2] < 0.65 and 0.8 < degrees[0] < 0.9
