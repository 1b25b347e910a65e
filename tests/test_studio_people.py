"""The people of the portrait studio, and the head that they are made of. Nothing is drawn."""

from __future__ import annotations

import numpy as np
import pytest
from studio_people import FFHQ, PEOPLE, differences, same

from vtoonify_lib.studio.kit import ETHNICITIES, VertexNormals, macro_weights
from vtoonify_lib.studio.people import LAYOUT, SHAPE, Z_SIZE, person, sample_z, split
from vtoonify_lib.studio.strands import TIED
from vtoonify_lib.studio.styles import PHOTO, STORYBOOK, STYLES, restyle


def test_layout_covers_z():
    z = np.arange(Z_SIZE, dtype=np.float32)
    parts = split(z)
    assert list(parts) == list(LAYOUT) and len(SHAPE) == LAYOUT["shape"]
    assert np.array_equal(np.concatenate(list(parts.values())), z)
    assert sample_z(np.random.default_rng(0), 3).shape == (3, Z_SIZE)
    assert sample_z(np.random.default_rng(0), 3).dtype == np.float32


@pytest.mark.parametrize("wide", [False, True])
def test_a_person_follows_from_z(wide):
    assert all(same(person(z, wide), person(z.copy(), wide)) for z in PEOPLE)
    assert not same(person(PEOPLE[0], wide), person(PEOPLE[1], wide))


def test_people_are_sensible():
    for z in sample_z(np.random.default_rng(1), 200):
        who = person(z, wide=True)
        assert 0 <= who.age <= 1 and 0 <= who.male <= 1 and who.ethnicity.sum() == pytest.approx(1)
        assert np.abs(who.pose).max() < 0.7 and np.abs(who.gaze).max() < 0.35
        assert 0.5 < who.framing[0] < 1.4 and np.abs(who.framing[1:]).max() < 0.3
        assert 0 < min(who.expression.values()) and max(who.expression.values()) <= 1
        for color in (who.skin["tone"], who.skin["lip"], who.hair_color, who.iris, who.clothes["color"]):
            assert color.shape == (3,) and 0 <= color.min() and color.max() <= 1
        assert min(map(np.min, who.light.values())) >= -1
        assert np.linalg.norm(who.light["key_dir"]) == pytest.approx(1)
        assert who.light["key_dir"][2] > 0, "the key light stands before the face"
        assert who.backdrop["blob"].shape == who.backdrop["paint"].shape == (10, 4)


def test_people_vary():
    crowd = [person(z) for z in sample_z(np.random.default_rng(2), 300)]
    hair = [who.hair for who in crowd if who.hair]
    assert 0.01 < 1 - len(hair) / 300 < 0.1 and np.ptp([style.length for style in hair]) > 3
    assert {style.tied for style in hair} == set(TIED) and {style.parting is None for style in hair} == {True, False}
    for name in ("curl", "volume", "receding", "fringe", "back"):
        assert np.std([getattr(style, name) for style in hair]) > 0.08, name
    assert 0.05 < np.mean([who.glasses is not None for who in crowd]) < 0.3
    assert {int(np.argmax(who.ethnicity)) for who in crowd} == {0, 1, 2}
    assert 0.3 < np.mean([who.male > 0.5 for who in crowd]) < 0.7


def test_blinks_are_seen_at_every_stage():
    closed = []
    for who in map(person, sample_z(np.random.default_rng(6), 1500)):
        units = {name.rsplit("/", 1)[1]: weight for name, weight in who.expression.items()}
        left, right, opened = (units.get(f"eye-{u}", 0.0) for u in ("left-closure", "right-closure", "left-opened-up"))
        assert min(left, right) < 0.29 or (abs(left - right) < 0.05 and opened < 1 - left + 0.05)
        closed.append((left + right) / 2)
    stages = np.histogram(closed, [0.3, 0.475, 0.65, 0.825, 1.001])[0] / 1500
    assert 0.07 < stages.sum() < 0.14 and stages.min() > 0.012, stages


@pytest.mark.parametrize("part, field", [("pose", "pose"), ("gaze", "gaze"), ("light", "light"),
                                         ("backdrop", "backdrop"), ("glasses", "glasses")])
def test_each_part_of_z_has_its_own_effect(part, field):
    start = list(LAYOUT).index(part)
    before = sum(list(LAYOUT.values())[:start])
    z = PEOPLE[0].copy()
    z[before : before + LAYOUT[part]] = 1.5
    assert differences(person(z), person(PEOPLE[0])) == {field}


def test_framing_varies_only_when_wide():
    assert all(np.array_equal(person(z).framing, FFHQ) for z in PEOPLE)
    assert len({person(z, wide=True).framing[0] for z in PEOPLE}) == len(PEOPLE)


def test_macro_weights():
    weights = macro_weights(np.array([0.2, 0.3, 0.5]), gender=0.3, age=0.4, weight=0.5)
    ethnic = {name: w for name, w in weights.items() if any(e in name for e in ETHNICITIES)}
    assert sum(ethnic.values()) == pytest.approx(1)
    assert sum(w for name, w in ethnic.items() if "/asian-" in name) == pytest.approx(0.5)
    assert sum(w for name, w in ethnic.items() if "-male-" in name) == pytest.approx(0.3)
    assert sum(w for name, w in weights.items() if "maxweight" in name) == pytest.approx(0.5)


def test_a_style_changes_looks_alone():
    for z in PEOPLE[:4]:
        who = person(z)
        assert restyle(who, PHOTO) is who
        drawn = restyle(who, STORYBOOK)
        for kept in ("pose", "gaze", "hair", "brow", "framing", "backdrop", "shape", "age", "glasses"):
            assert same(getattr(who, kept), getattr(drawn, kept)), kept
        assert drawn.iris_size > who.iris_size and not same(drawn.skin, who.skin)
    assert set(STYLES) == {"photo", "storybook"}


def test_normals_are_weighted_by_area():
    points = np.random.default_rng(0).standard_normal((9, 3))
    triangles = np.array([[0, 1, 2], [2, 1, 3], [4, 2, 0], [5, 6, 7], [3, 0, 1]])  # 8 is in none
    expected = np.zeros((9, 3))
    for a, b, c in triangles:
        for corner in (a, b, c):
            expected[corner] += np.cross(points[b] - points[a], points[c] - points[a])
    expected[:8] /= np.linalg.norm(expected[:8], axis=1, keepdims=True)
    found = VertexNormals(triangles, 9)(points)
    assert found.dtype == np.float32 and found == pytest.approx(expected, abs=1e-6)
