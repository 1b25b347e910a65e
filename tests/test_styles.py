"""The style sets. What needs EGL is skipped without them; the rest is arithmetic."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from vtoonify_lib.config import VToonifyError
from vtoonify_lib.studio import exemplars, shards
from vtoonify_lib.studio.exemplars import EXEMPLARS, LOOKS, exemplar
from vtoonify_lib.studio.people import person, sample_z
from vtoonify_lib.studio.styles import LIMIT, OWN_FEATURES, PHOTO, STORYBOOK, Palette, at, restyle

PEOPLE = 0.8 * sample_z(np.random.default_rng(5), 6)
DATA = Path(__file__).parents[1] / "data" / "styles"
STEPS = (0, 0.25, 0.5, 0.75, 1)


def picture(studio, who, style) -> np.ndarray:
    return studio.portrait(who, style, truth=False).image.astype(float)


# -- degrees ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("look", LOOKS)
def test_the_ends_of_the_degrees(look):
    style = exemplar(look, 3)[1]
    assert at(style, 1, 1) == style
    zero = at(style, 0, 0)
    assert zero.warp == {} and max(zero.matte, zero.lumps, zero.flat, zero.ink, zero.paint, zero.exaggerate) == 0
    who = person(PEOPLE[0])
    assert restyle(who, zero) is who, "nothing is left of the style"


@pytest.mark.parametrize("look", LOOKS)
def test_structure_and_colour_do_not_touch_each_other(look):
    style, who = exemplar(look, 7)[1], person(PEOPLE[0])
    shaped, coloured = restyle(who, at(style, 1, 0)), restyle(who, at(style, 0, 1))
    for name in ("tone", "lip", "blush", "beard_color"):
        assert shaped.skin[name] == pytest.approx(who.skin[name]), name
    assert shaped.hair_color == pytest.approx(who.hair_color) and shaped.iris == pytest.approx(who.iris)
    assert shaped.light["key"] == pytest.approx(who.light["key"]) and shaped.iris_size != who.iris_size
    assert coloured.shape == who.shape and coloured.expression == who.expression
    assert coloured.iris_size == who.iris_size and at(style, 0, 1).warp == {}
    assert np.abs(coloured.hair_color - who.hair_color).max() > 0.01


@pytest.mark.parametrize("degrees", [(-0.1, 0), (0, 1.1), (float("nan"), 0)])
def test_degrees_have_a_range(degrees):
    with pytest.raises(VToonifyError, match="degree is .*; give a number from 0"):
        at(STORYBOOK, *degrees)


def test_a_palette_left_alone_does_nothing():
    who = person(PEOPLE[1])
    moved = restyle(who, replace(PHOTO, iris=1.0001))
    assert moved is not who and Palette() == PHOTO.palette
    for kept in ("hair_color", "brow_color", "iris", "iris2"):
        assert getattr(moved, kept) == pytest.approx(getattr(who, kept)), kept
    assert moved.skin["tone"] == pytest.approx(who.skin["tone"])
    assert moved.light["key_dir"] == pytest.approx(who.light["key_dir"])


def test_exaggeration_grows_what_is_ones_own():
    who = person(PEOPLE[2])
    grown = restyle(who, replace(PHOTO, exaggerate=1.5)).shape
    own = OWN_FEATURES & set(who.shape)
    others = set(who.shape) - own
    assert any(name.startswith("macro") for name in others) and any(name.startswith("asym") for name in others)
    assert all(grown[name] == who.shape[name] for name in others), "age, sex and origin are no features"
    assert all(grown[name] >= who.shape[name] for name in own)
    small = {name for name in own if 0.1 < who.shape[name] < 0.3}
    assert small and all(grown[name] > 1.9 * who.shape[name] for name in small)
    assert max(grown[name] for name in own if who.shape[name] < LIMIT) <= LIMIT, "to a limit"


# -- exemplars ----------------------------------------------------------------------------------------------------
def test_an_exemplar_is_always_the_same():
    first = {look: exemplar(look, 5) for look in LOOKS}
    exemplars._exemplars.cache_clear()
    for look in reversed(LOOKS):
        who, style = exemplar(look, 5)
        assert style == first[look][1] and style.name == look
        assert who.shape == first[look][0].shape and np.array_equal(who.hair_color, first[look][0].hair_color)


@pytest.mark.parametrize("look", LOOKS)
def test_exemplars_differ_in_structure_and_colour(look):
    styles = [exemplar(look, i)[1] for i in range(EXEMPLARS)]
    names = sorted(set().union(*(s.warp for s in styles)))
    warps = np.array([[s.warp.get(name, 0.0) for name in names] for s in styles])
    colours = np.array([[*s.palette.skin, *s.palette.hair, *s.palette.key, s.palette.from_side] for s in styles])
    for features, least in ((warps, 1.0), (colours, 0.1)):
        apart = np.linalg.norm(features[:, None] - features[None], axis=-1)[~np.eye(EXEMPLARS, dtype=bool)]
        assert apart.min() > least
    for who in (exemplar(look, i)[0] for i in range(EXEMPLARS)):
        assert np.array_equal(who.framing, [1, 0, 0, 0]) and abs(who.pose[0]) < 0.35
        assert (who.backdrop["blob"] < 0).all() and not who.backdrop["cloud"].any(), "a calm backdrop"


def test_exemplars_are_all_sorts_of_people():
    for look in LOOKS:
        people = [exemplar(look, i)[0] for i in range(EXEMPLARS)]
        assert {int(np.argmax(who.ethnicity)) for who in people} == {0, 1, 2}
        assert 8 <= sum(who.male > 0.5 for who in people) <= 16
        assert sum(who.glasses is not None for who in people) >= 2


@pytest.mark.parametrize("look, index, message", [
    ("oil", 0, "no look 'oil'; choose one of storybook, clay"), ("clay", 24, "choose one from 0 to 23"),
    ("clay", -1, "choose one from 0 to 23")])
def test_what_is_not_there_is_explained(look, index, message):
    with pytest.raises(VToonifyError, match=message):
        exemplar(look, index)


def test_every_exemplar_has_its_picture():
    assert {p.name for p in DATA.iterdir()} == {*LOOKS, "photographs"}
    for look in LOOKS:
        files = sorted((DATA / look).iterdir())
        assert [p.name for p in files] == [f"{i:02d}.jpg" for i in range(EXEMPLARS)]
        pictures = [np.asarray(Image.open(p), float) for p in files]
        assert all(p.shape == (256, 256, 3) for p in pictures)
        apart = [np.abs(a - b).mean() for i, a in enumerate(pictures) for b in pictures[:i]]
        assert min(apart) > 5 and max(p.stat().st_size for p in files) < 25_000


# -- renders ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("look", LOOKS)
def test_degrees_in_pictures(studio, look):
    far = []
    for k, z in enumerate(PEOPLE[:3]):
        who, style = person(z), exemplar(look, 4 + 5 * k)[1]
        shots = [picture(studio, who, at(style, d, d)) for d in STEPS]
        assert np.abs(shots[0] - picture(studio, who, PHOTO)).mean() < 1
        assert np.array_equal(shots[-1], picture(studio, who, style))
        steps = np.array([np.abs(a - b).mean() for a, b in zip(shots[:-1], shots[1:], strict=True)])
        far.append(np.abs(shots[-1] - shots[0]).mean())
        assert steps.max() < 3.5 * steps.min(), "no leaps"
        away = [np.abs(s - shots[0]).mean() for s in shots]
        assert away == sorted(away)
    assert min(far) > 4


@pytest.mark.parametrize("look", LOOKS)
def test_the_backdrop_is_left_alone(studio, look):
    for k, z in enumerate(PEOPLE[:3]):
        photo, drawn = (studio.portrait(person(z), s) for s in (PHOTO, exemplar(look, 3 + 7 * k)[1]))
        there = Image.fromarray(np.uint8(255 * (np.maximum(photo.parsing, drawn.parsing) > 0)))
        empty = np.asarray(there.filter(ImageFilter.MaxFilter(9))) == 0  # loose hair reaches a little further
        assert empty.sum() > 200
        assert np.abs(photo.image[empty].astype(int) - drawn.image[empty]).max() <= 1


def test_one_exemplar_keeps_two_people_apart(studio):
    for look in LOOKS:
        style = exemplar(look, 9)[1]
        shots = [picture(studio, person(z), style) for z in PEOPLE[:3]]
        apart = [np.abs(a - b).mean() for i, a in enumerate(shots) for b in shots[:i]]
        assert min(apart) > 15, look


def test_looks_differ(studio):
    who = person(PEOPLE[1])
    shots = [picture(studio, who, exemplar(look, 2)[1]) for look in LOOKS]
    assert min(np.abs(a - b).mean() for i, a in enumerate(shots) for b in shots[:i]) > 8


def test_ink_is_dark_and_stays_within_the_person(studio):
    who, style = person(PEOPLE[0]), exemplar("comic", 0)[1]
    inked, plain = (studio.portrait(who, s) for s in (style, replace(style, ink=0.0)))
    change = inked.image.astype(int) - plain.image
    assert (change.min(-1) < -60).mean() > 0.01 and change.max() < 25, "lines darken, but for what is darker"
    there = Image.fromarray(np.uint8(255 * (plain.parsing > 0)))
    there = there.filter(ImageFilter.MaxFilter(9))  # loose hair reaches a little further
    assert not change[np.asarray(there) == 0].any()
    thick = studio.portrait(who, replace(style, ink=2 * style.ink)).image.astype(int)
    assert (thick - plain.image).sum() < 1.3 * change.sum() < 0, "thicker lines, more ink"


def test_truth_does_not_depend_on_technique(studio):
    who = person(PEOPLE[3])
    style = exemplar("comic", 1)[1]
    bare = replace(style, ink=0.0, flat=0.0)
    one, other = studio.portrait(who, style), studio.portrait(who, bare)
    assert np.array_equal(one.parsing, other.parsing) and np.array_equal(one.depth, other.depth)
    assert np.array_equal(one.landmarks, other.landmarks)


# -- data sets ----------------------------------------------------------------------------------------------------
def test_lots():
    drawn = np.array([shards.draw_style("clay", 0, i) for i in range(4000)])
    assert set(drawn[:, 0]) == set(range(EXEMPLARS)) and 0 <= drawn.min() and drawn[:, 1:].max() <= 1
    assert np.mean(drawn[:, 1] == 1) == pytest.approx(0.55, abs=0.03)
    assert np.mean(drawn[:, 1] == 0) == pytest.approx(0.10, abs=0.02)
    assert [np.mean(drawn[:, 2] == end) for end in (0, 1)] == pytest.approx([0.35, 0.35], abs=0.03)
    assert abs(np.corrcoef(drawn.T)[np.triu_indices(3, 1)]).max() < 0.06
    assert shards.draw_style("clay", 0, 5) != shards.draw_style("comic", 0, 5)


def test_an_interrupted_style_set_ends_in_the_same_bytes(studio, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "CHUNK", 4)
    monkeypatch.setattr(shards, "PICTURE", 32)  # px: side of the exemplars
    options = {"looks": ("comic",), "processes": 1, "progress": False}
    whole = shards.render_styles(tmp_path / "a", 8, size=32, seed=3, **options)
    assert list(whole.ready) == list(range(8)) and {"photo", "comic_parsing", "comic_landmarks"} <= set(whole.arrays)
    kept = {name: np.array(array) for name, array in whole.arrays.items()}
    lots = [shards.draw_style("comic", 3, i) for i in range(8)]
    drawn = np.stack([kept[f"comic_{name}"] for name in ("style", "structure", "color")], 1)
    assert drawn == pytest.approx(np.array(lots)) and kept["comic_style"].dtype == np.int16
    assert kept["comic"].std() > 10 and whole.exemplars("comic").shape == (EXEMPLARS, 32, 32, 3)
    (tmp_path / "a" / "done" / "00000004").unlink()
    for name in whole.arrays:
        np.load(tmp_path / "a" / f"{name}.npy", mmap_mode="r+")[4:] = 0
    again = shards.render_styles(tmp_path / "a", processes=1, progress=False)
    assert all(np.array_equal(kept[name], again[name]) for name in kept)
    with pytest.raises(VToonifyError, match="begun with looks"):
        shards.render_styles(tmp_path / "a", **{**options, "looks": ("clay",)})


def test_data_sets_with_and_without_looks(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "find_package", lambda: None)
    monkeypatch.setattr(shards, "in_processes", lambda work, jobs, processes: iter([]))
    monkeypatch.setattr(shards, "studio_of", lambda size: None)
    monkeypatch.setattr(shards, "pictures", lambda look, studio: np.zeros((EXEMPLARS, 4, 4, 3), np.uint8))
    assert shards.main([str(tmp_path / "a"), "--count", "4", "--size", "16", "--looks"]) == 0
    opened = shards.Pairs.open(tmp_path / "a")
    assert {f"{look}_structure" for look in LOOKS} <= set(opened.arrays) and "storybook" in opened.arrays
    assert shards.main([str(tmp_path / "b"), "--count", "4", "--size", "16"]) == 0
    plain = shards.Pairs.open(tmp_path / "b")
    assert set(plain.arrays) == set(shards.fields(16, ("photo", "storybook")))
    with pytest.raises(VToonifyError, match="has no exemplars of clay; render them with the looks"):
        plain.exemplars("clay")
    assert shards.main([str(tmp_path / "b"), "--looks", "clay"]) == 2
    assert shards.main([str(tmp_path / "c"), "--looks", "oil"]) == 2 and not (tmp_path / "c").exists()
