"""Renders and data sets of the portrait studio; skipped without EGL."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from dataclasses import fields, replace

import numpy as np
import pytest
from studio_people import CLASS, PEOPLE, easy

from vtoonify_lib.config import PARSING_CLASSES, VToonifyError
from vtoonify_lib.studio import geometry, shards
from vtoonify_lib.studio.brows import Brow
from vtoonify_lib.studio.people import Person, person, unit_target
from vtoonify_lib.studio.styles import PHOTO, STORYBOOK, STYLES, restyle


def test_a_render_and_its_truth(studio):
    for z in PEOPLE[:6]:
        for style in STYLES.values():
            shot = studio.portrait(person(z), style)
            assert shot.image.shape == (128, 128, 3) and shot.image.dtype == np.uint8
            assert shot.parsing.shape == (128, 128) and shot.parsing.max() < PARSING_CLASSES
            assert shot.landmarks.shape == (68, 2) and shot.landmarks.dtype == np.float32
            assert np.array_equal(np.isfinite(shot.depth), shot.parsing > 0)
            near = shot.depth[np.isfinite(shot.depth)]
            assert geometry.NEAR < near.min() and near.max() < geometry.FAR
            assert {CLASS["skin"], CLASS["nose"], CLASS["u_lip"], CLASS["l_lip"]} <= set(np.unique(shot.parsing))
            assert CLASS["hat"] not in shot.parsing and CLASS["ear_r"] not in shot.parsing
            assert shot.image.std() > 10


def test_triton_may_be_loaded_after_the_studio_was_made(studio):
    """Torch's builds for GPUs load it at times of their own; see `painter._context`."""
    pytest.importorskip("triton", reason="only torch's builds for GPUs bring Triton")
    code = "from vtoonify_lib.studio.render import Studio; Studio(size=32); import triton"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_truth_only_the_picture_is_made(studio):
    whole, bare = (studio.portrait(person(PEOPLE[0]), truth=truth) for truth in (True, False))
    assert np.array_equal(whole.image, bare.image) and bare.parsing is None and bare.depth is None


def test_the_same_z_gives_the_same_bytes(studio):
    first = studio.portrait(person(PEOPLE[0], wide=True), STORYBOOK)
    studio.portrait(person(PEOPLE[1]))
    again = studio.portrait(person(PEOPLE[0], wide=True), STORYBOOK)
    for name in ("image", "parsing", "landmarks", "depth"):
        assert np.array_equal(getattr(first, name), getattr(again, name)), name


def test_eye_distance_is_a_quarter_of_the_width(studio):
    for z in PEOPLE[:4]:
        who = person(0.5 * z).with_(pose=np.zeros(3))
        scene = studio.sculptor.scene(who)
        eyes = geometry.project(np.array([eye.center for eye in scene.eyes]), scene.camera)
        mouth = geometry.project(scene.landmarks[[48, 54]], scene.camera)
        across, down = np.hypot(*(eyes[0] - eyes[1])), np.hypot(*(mouth.mean(0) - eyes.mean(0)))
        assert max(4 * across, 3.6 * down) == pytest.approx(1, abs=1e-6)
        assert 0.22 < across < 0.2501, "a quarter, or a little less in a long face"


def test_landmarks_lie_where_the_parsing_says(studio):
    places = {"nose": range(28, 36), "r_eye": range(36, 42), "l_eye": range(42, 48), "u_lip": range(48, 55),
              "l_lip": range(55, 60)}
    rows, columns = np.mgrid[:128, :128] + 0.5
    for z in PEOPLE:
        shot = studio.portrait(easy(person(z)))
        for name, indices in places.items():
            inside = shot.parsing == CLASS[name]
            pixels = np.stack([columns[inside], rows[inside]], 1)
            away = np.linalg.norm(shot.landmarks[list(indices)][:, None] - pixels[None], axis=-1).min(1)
            assert away.max() < 3 and np.median(away) < 1.5, (name, away)
        x, y = np.clip(shot.landmarks[:17].astype(int), 0, 127).T
        assert (shot.parsing[y, x] > 0).mean() > 0.6, "the jaw line is on the person, or at the very edge"
        assert shot.landmarks[39, 0] < shot.landmarks[42, 0], "the subject's right eye is on the left"


def test_landmarks_lie_on_the_brow_that_is_worn(studio):
    worn = [Brow(), *(replace(Brow(), **{f.name: end}) for f in fields(Brow) for end in (0.1, 0.9))]
    rows, columns = np.mgrid[:128, :128] + 0.5
    for style in STYLES.values():
        for i, brow in enumerate(worn):
            who = easy(person(0.5 * PEOPLE[i % len(PEOPLE)])).with_(brow=brow, pose=np.zeros(3))
            colors = np.zeros(3), np.array([1.0, 0.0, 0.0])
            shots = [studio.portrait(who.with_(brow_color=color), style, truth=False) for color in colors]
            drawn = np.abs(shots[0].image.astype(int) - shots[1].image).max(-1) > 12
            for side, indices in (("right", slice(17, 22)), ("left", slice(22, 27))):
                marks = shots[0].landmarks[indices]
                inside = drawn & ((columns < 64) == (side == "right"))
                pixels = np.stack([columns[inside], rows[inside]], 1)
                away = np.linalg.norm(marks[:, None] - pixels[None], axis=-1).min(1)
                assert away.max() < 1.5, (brow, style.name, side, away)
                assert (np.diff(marks[:, 0]) > 0).all(), "from the right to the left"
                assert 0.7 < np.ptp(marks[:, 0]) / np.ptp(pixels[:, 0]) < 1.1, (brow, style.name, side)
                here = np.abs(pixels[:, 0] - marks[2, 0]) < 2
                assert pixels[here, 1].min() - 1 < marks[2, 1] < pixels[here, 1].max() + 1, (brow, style.name, side)


@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
def test_light_fades_towards_the_back_teeth(studio, style):
    wide = {"mouth-open": 0.8, "mouth-part-later": 0.2, "mouth-upward-retraction": 0.2}
    teeth = np.unique(studio.kit.group("helper-upper-teeth", "helper-lower-teeth"))
    back, found = studio.sculptor.rest[teeth, 2], {"side": [], "front": []}
    for i, yaw in itertools.product(range(5), (-0.5, 0.5)):
        who = easy(person(0.5 * PEOPLE[i])).with_(pose=np.array([yaw, 0, 0]))
        who = who.with_(expression={unit_target(unit, who.ethnicity): amount for unit, amount in wide.items()})
        dressed = restyle(who, style)
        scene = studio.sculptor.scene(dressed, style.warp)
        shot, corners = studio.draw(scene, dressed, style), scene.body.positions[teeth]
        x, y = np.clip(geometry.project(corners, scene.camera) * 128, 0, 127).astype(int).T
        seen = np.abs(shot.depth[y, x] - (geometry.VIEWPOINT[2] - corners[:, 2])) < 0.03
        seen &= shot.parsing[y, x] == CLASS["mouth"]
        bright = shot.image[y, x].mean(-1)
        found["side"] += list(bright[seen & (back < 1.2)])
        found["front"] += list(bright[seen & (back > 1.34)])
    assert min(map(len, found.values())) >= 20
    assert np.median(found["side"]) < 0.6 * np.median(found["front"])


def test_depth_is_measured_in_decimetres(studio):
    for z in PEOPLE[:4]:
        who = easy(person(z))
        scene = studio.sculptor.scene(who)
        shot = studio.draw(scene, who)
        nose = slice(28, 31)
        x, y = shot.landmarks[nose].astype(int).T
        assert shot.depth[y, x] == pytest.approx(geometry.VIEWPOINT[2] - scene.landmarks[nose, 2], abs=0.05)


def test_styles_share_person_and_place(studio):
    for z in PEOPLE[:4]:
        photo, story = (studio.portrait(person(z), style) for style in (PHOTO, STORYBOOK))
        empty = (photo.parsing == 0) & (story.parsing == 0)
        grey = [shot.image[empty].mean(-1) for shot in (photo, story)]
        assert np.abs(grey[0] - grey[1]).mean() < 12
        big = [np.isin(shot.parsing, (CLASS["l_eye"], CLASS["r_eye"])).sum() for shot in (photo, story)]
        assert big[1] > big[0] or big[0] < 20
        assert np.abs(photo.landmarks - story.landmarks).mean() < 0.06 * 128


def test_a_picture_need_not_be_square(studio):
    from vtoonify_lib.studio.render import Studio

    wide = Studio(studio.kit, size=(128, 192)).portrait(person(PEOPLE[2]))
    square = studio.portrait(person(PEOPLE[2]))
    assert wide.image.shape == (128, 192, 3) and wide.parsing.shape == (128, 192)
    assert wide.landmarks - [32, 0] == pytest.approx(square.landmarks, abs=1e-3)
    assert (wide.parsing[:, 32:160] == square.parsing).mean() > 0.998


def test_closed_eyes_have_no_eyes(studio):
    for style in STYLES.values():
        who = easy(person(0.5 * PEOPLE[1]))
        shut = {unit_target(f"eye-{side}-closure", who.ethnicity): 0.92 for side in ("left", "right")}
        seen = [np.isin(studio.portrait(w, style).parsing, (CLASS["l_eye"], CLASS["r_eye"])).sum()
                for w in (who, who.with_(expression={**who.expression, **shut}))]
        assert seen[0] > 30 and seen[1] < 0.15 * seen[0], style.name


def test_lids_of_both_styles_come_down_alike(studio):
    people = [easy(person(0.5 * z)).with_(gaze=np.zeros(2), pose=np.zeros(3)) for z in PEOPLE[:6]]

    def seen(who: Person, style, closure: float) -> int:
        down = {unit_target(f"eye-{side}-closure", who.ethnicity): closure for side in ("left", "right")}
        parsing = studio.portrait(who.with_(expression={**who.expression, **down}), style).parsing
        return np.isin(parsing, (CLASS["l_eye"], CLASS["r_eye"])).sum()

    wide = {style.name: [seen(who, style, 0.0) for who in people] for style in (PHOTO, STORYBOOK)}
    for closure, most in ((0.25, 0.85), (0.5, 0.6), (0.75, 0.3), (1.0, 0.03)):
        photo, story = (np.mean([seen(who, style, closure) / all_of_it for who, all_of_it in
                                 zip(people, wide[style.name], strict=True)]) for style in (PHOTO, STORYBOOK))
        assert abs(photo - story) < 0.045 and photo < most, (closure, photo, story)
        assert closure > 0.6 or photo > 0.25, "half-closed is neither open nor shut"


def test_the_truth_does_not_depend_on_how_finely_a_picture_is_drawn(studio):
    from vtoonify_lib.studio.render import Studio

    who = person(PEOPLE[3])
    coarse, fine = Studio(studio.kit, 128, fine=1).portrait(who), studio.portrait(who)
    assert np.array_equal(coarse.parsing, fine.parsing) and np.array_equal(coarse.landmarks, fine.landmarks)
    apart = np.abs(coarse.image.astype(int) - fine.image).mean(-1)
    assert 0.2 < apart.mean() < 6 and apart[fine.parsing == 0].mean() < apart[fine.parsing > 0].mean()


# -- data sets ----------------------------------------------------------------------------------------------------
def test_an_interrupted_data_set_ends_in_the_same_bytes(studio, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "CHUNK", 8)
    whole = shards.render_pairs(tmp_path / "a", 20, size=32, processes=1, progress=False)
    assert list(whole.ready) == list(range(20)) and list(whole["wide"][:3]) == [False, True, False]
    kept = {name: np.array(array) for name, array in whole.arrays.items()}
    assert kept["photo"].shape == (20, 32, 32, 3) and kept["photo"].std() > 10 and (kept["z"] != 0).all()
    (tmp_path / "a" / "done" / "00000008").unlink()
    for name in whole.arrays:
        np.load(tmp_path / "a" / f"{name}.npy", mmap_mode="r+")[8:16] = 0
    assert list(shards.Pairs.open(tmp_path / "a").ready) == [*range(8), *range(16, 20)]
    again = shards.render_pairs(tmp_path / "a", processes=1, progress=False)
    assert all(np.array_equal(kept[name], again[name]) for name in kept)


def test_a_data_set_keeps_its_settings(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "find_package", lambda: None)
    monkeypatch.setattr(shards, "in_processes", lambda work, jobs, processes: iter([]))
    shards.render_pairs(tmp_path / "a", 10, size=32, seed=3, progress=False)
    assert json.loads((tmp_path / "a" / "meta.json").read_text())["seed"] == 3
    with pytest.raises(VToonifyError, match="begun with size = 32, now size = 64"):
        shards.render_pairs(tmp_path / "a", size=64, progress=False)
    assert len(shards.render_pairs(tmp_path / "a", progress=False).ready) == 0
    with pytest.raises(VToonifyError, match="GB free"):
        shards.render_pairs(tmp_path / "b", 10**10, size=1024, progress=False)


def test_no_data_set_is_explained(tmp_path):
    with pytest.raises(VToonifyError, match="holds no data set; make one: python -m vtoonify_lib.studio.shards"):
        shards.Pairs.open(tmp_path)
