"""The portrait studio. What needs the portrait kit and EGL is skipped without them; the rest is arithmetic."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import subprocess
import sys
from dataclasses import fields, replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from vtoonify_lib.config import PARSING_CLASSES, VToonifyError
from vtoonify_lib.faces.parsing_maps import CLASS_NAMES
from vtoonify_lib.media import video
from vtoonify_lib.studio import clips, geometry, shards, speech
from vtoonify_lib.studio.kit import ETHNICITIES, KIT_VARIABLE, VertexNormals, find_kit, macro_weights
from vtoonify_lib.studio.people import LAYOUT, SHAPE, Z_SIZE, Person, person, sample_z, split, unit_target
from vtoonify_lib.studio.spectacles import tubes
from vtoonify_lib.studio.styles import PHOTO, STORYBOOK, STYLES, restyle

PEOPLE = sample_z(np.random.default_rng(5), 12)
CLASS = {name: i for i, name in enumerate(CLASS_NAMES)}
EYES, MOUTH = np.array([[0.6, 7.3, 1.2], [-0.6, 7.3, 1.2]]), np.array([[-0.22, 6.3, 1.3], [0.22, 6.3, 1.3]])
FFHQ = np.array([1.0, 0, 0, 0])


@pytest.fixture(scope="session")
def studio():
    """A small studio, or a skipped test."""
    from vtoonify_lib.studio.render import Studio

    try:
        return Studio(size=128)
    except VToonifyError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def clip(studio):
    """Person, performance and frames of a second of talk."""
    who = easy(person(0.6 * PEOPLE[0]))
    played = clips.perform(who, seconds=1.0, fps=25, seed=4)
    return SimpleNamespace(who=who, played=played, frames=list(clips.film(studio, who, played)))


def easy(who: Person) -> Person:
    """The person with nothing before the face, looking more or less into the camera, eyes open."""
    return clips.calm(who).with_(hair="none", glasses=None, pose=who.pose * [0.5, 0.5, 1.0])


def same(a: object, b: object) -> bool:
    """Equality of people and what they are made of."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return not differences(a, b) if isinstance(a, Person) else bool(np.array_equal(a, b))


def differences(a: Person, b: Person) -> set[str]:
    return {f.name for f in fields(Person) if not same(getattr(a, f.name), getattr(b, f.name))}


# -- z and people -------------------------------------------------------------------------------------------------
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
    assert len({who.hair for who in crowd}) >= 8
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


# -- without a kit ------------------------------------------------------------------------------------------------
def test_a_missing_kit_is_explained(tmp_path, monkeypatch):
    with pytest.raises(VToonifyError, match=f"no portrait_kit.npz in {tmp_path}; .*CC0 .*{KIT_VARIABLE}"):
        find_kit(tmp_path)
    monkeypatch.setenv(KIT_VARIABLE, str(tmp_path))
    with pytest.raises(VToonifyError, match=f"no portrait_kit.npz in {tmp_path}"):
        find_kit()


def test_the_kit_comes_with_the_repository(monkeypatch):
    monkeypatch.delenv(KIT_VARIABLE, raising=False)
    assert find_kit() == Path(__file__).parents[1] / "data" / "portrait_kit"
    assert len(list((find_kit() / "textures").glob("*.png"))) == 35


@pytest.mark.parametrize("command", [shards.main, clips.main])
def test_commands_say_what_is_missing(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(KIT_VARIABLE, str(tmp_path))
    assert command([str(tmp_path / "out")]) == 2
    assert KIT_VARIABLE in capsys.readouterr().err and not (tmp_path / "out").exists()


# -- geometry -----------------------------------------------------------------------------------------------------
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


# -- speech and acting --------------------------------------------------------------------------------------------
WHO = person(np.zeros(Z_SIZE))


def test_a_performance_is_a_function_of_its_seed():
    a, b, c = (clips.perform(WHO, 2.0, 25, seed) for seed in (1, 1, 2))
    assert len(a) == 50 and np.array_equal(a.pose, b.pose) and np.array_equal(a.sound, b.sound)
    assert not np.array_equal(a.pose, c.pose) and not np.array_equal(a.sound, c.sound)


@pytest.mark.parametrize("seconds, fps", [(1.0, 25), (2.5, 30), (1.37, 24)])
def test_sound_is_as_long_as_the_pictures(seconds, fps):
    played = clips.perform(WHO, seconds, fps)
    assert len(played) == round(seconds * fps)
    assert len(played.sound) == round(len(played) * speech.RATE / fps)
    assert all(len(weights) == len(played) for weights in played.units.values())


def test_the_voice_is_pleasant_and_in_time():
    played = clips.perform(WHO, 4.0, 25, 3)
    sound = played.sound.astype(float)
    assert played.sound.dtype == np.float32 and 0.1 < np.abs(sound).max() < speech.PEAK + 1e-6
    assert abs(sound.mean()) < 1e-3 and np.abs(sound[:4800]).max() < 1e-3, "no click, no hum"
    loud = np.sqrt((sound.reshape(100, -1) ** 2).mean(1))
    mouth = sum(weights for unit, weights in played.units.items() if unit in ("mouth-open", "mouth-parling"))
    assert mouth[loud > 0.03].mean() > 3 * mouth[loud < 0.003].mean(), "an open mouth where there is sound"
    spectrum = np.abs(np.fft.rfft(sound))
    low = spectrum[: len(spectrum) // 6] ** 2
    assert low.sum() > 0.9 * (spectrum**2).sum(), "a voice, not noise: most of it below 4 kHz"


def test_men_speak_lower():
    def pitch(male: float) -> float:
        sound = clips.perform(WHO.with_(male=male), 3.0, 25, 3).sound.astype(float)
        spectrum = np.abs(np.fft.rfft(sound)) ** 2
        echo = np.fft.irfft(spectrum)
        lags = np.arange(speech.RATE // 320, speech.RATE // 70)
        return speech.RATE / lags[np.argmax(echo[lags])]

    assert pitch(1.0) < 150 < pitch(0.0)


def test_motion_is_smooth_and_lively():
    for seed in range(5):
        played = clips.perform(WHO, 4.0, 25, seed)
        assert np.abs(np.diff(played.pose, axis=0)).max() < 0.06 and 0.1 < np.ptp(played.pose[:, 0]) < 0.8
        assert np.abs(played.gaze).max() < 0.3
        closed = played.units["eye-left-closure"]
        assert closed.max() > 0.85 and np.median(closed) == 0, "a blink is short"
        assert all(0 <= w.min() and w.max() <= 1 for w in played.units.values())


def test_acting_keeps_the_person():
    who = person(PEOPLE[3])
    played = clips.perform(who, 1.0, 25)
    quiet, acted = clips.calm(who), clips.act(who, played, 12)
    assert unit_target("mouth-open", who.ethnicity) not in quiet.expression
    assert differences(acted, who) == {"expression", "pose", "gaze"}
    assert acted.pose == pytest.approx(who.pose + played.pose[12])
    assert np.abs(acted.gaze + acted.pose[:2]).max() < 0.3, "it looks at the camera"


def test_too_short_a_clip_is_refused():
    with pytest.raises(VToonifyError, match="0.2 s"):
        clips.perform(WHO, 0.2)


def test_a_clip_is_written_with_its_sound(tmp_path):
    played = clips.perform(WHO, 1.0, 25)
    shades = [np.full((48, 64, 3), 40 + 5 * i, np.uint8) for i in range(len(played))]
    clips.write_clip(tmp_path / "a.mp4", shades, played)
    frames = list(video.read_frames(tmp_path / "a.mp4"))
    assert [f.pts for f in frames] == [Fraction(i, 25) for i in range(25)]
    assert abs(int(frames[20].rgb.mean()) - 140) <= 3
    with av.open(str(tmp_path / "a.mp4")) as file:
        heard = np.concatenate([f.to_ndarray()[0] for f in file.decode(audio=0)])
    assert 0 <= len(heard) - len(played.sound) < 2048, "sound ends with the pictures, to a packet"
    loud = lambda x: np.sqrt((x[: len(played.sound)].astype(float).reshape(100, -1) ** 2).mean(1))  # noqa: E731
    assert np.corrcoef(loud(heard), loud(played.sound))[0, 1] > 0.97, "in time"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4"]


# -- renders ------------------------------------------------------------------------------------------------------
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
    worn = [name for name in studio.kit.props if name.startswith("eyebrows/")]
    assert len(worn) >= 10
    rows, columns = np.mgrid[:128, :128] + 0.5
    for style in STYLES.values():
        for i, name in enumerate(worn):
            who = easy(person(0.5 * PEOPLE[i % len(PEOPLE)])).with_(brow=name, pose=np.zeros(3))
            colors = np.zeros(3), np.array([1.0, 0.0, 0.0])
            shots = [studio.portrait(who.with_(brow_color=color), style, truth=False) for color in colors]
            drawn = np.abs(shots[0].image.astype(int) - shots[1].image).max(-1) > 12
            for side, indices in (("right", slice(17, 22)), ("left", slice(22, 27))):
                marks = shots[0].landmarks[indices]
                inside = drawn & ((columns < 64) == (side == "right"))
                pixels = np.stack([columns[inside], rows[inside]], 1)
                away = np.linalg.norm(marks[:, None] - pixels[None], axis=-1).min(1)
                assert away.max() < 1.5, (name, style.name, side, away)
                assert (np.diff(marks[:, 0]) > 0).all(), "from the right to the left"
                assert 0.7 < np.ptp(marks[:, 0]) / np.ptp(pixels[:, 0]) < 1.1, (name, style.name, side)
                here = np.abs(pixels[:, 0] - marks[2, 0]) < 2
                assert pixels[here, 1].min() - 1 < marks[2, 1] < pixels[here, 1].max() + 1, (name, style.name, side)


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

    for closure, most in ((0.25, 0.85), (0.5, 0.6), (0.75, 0.3), (1.0, 0.03)):
        photo, story = (np.mean([seen(who, style, closure) / seen(who, style, 0.0) for who in people])
                        for style in (PHOTO, STORYBOOK))
        assert abs(photo - story) < 0.045 and photo < most, (closure, photo, story)
        assert closure > 0.6 or photo > 0.25, "half-closed is neither open nor shut"


def test_the_truth_does_not_depend_on_how_finely_a_picture_is_drawn(studio):
    from vtoonify_lib.studio.render import Studio

    who = person(PEOPLE[3])
    coarse, fine = Studio(studio.kit, 128, fine=1).portrait(who), studio.portrait(who)
    assert np.array_equal(coarse.parsing, fine.parsing) and np.array_equal(coarse.landmarks, fine.landmarks)
    apart = np.abs(coarse.image.astype(int) - fine.image).mean(-1)
    assert 0.2 < apart.mean() < 6 and apart[fine.parsing == 0].mean() < apart[fine.parsing > 0].mean()


# -- clips --------------------------------------------------------------------------------------------------------
def warp_back(picture: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """The next picture as seen through the flow, bilinear, float."""
    height, width = flow.shape[:2]
    rows, columns = np.mgrid[:height, :width]
    x = np.clip(columns + flow[..., 0], 0, width - 1.001)
    y = np.clip(rows + flow[..., 1], 0, height - 1.001)
    i, j = y.astype(int), x.astype(int)
    down, right = (y - i)[..., None], (x - j)[..., None]
    picture = picture.astype(float)
    top = picture[i, j] * (1 - right) + picture[i, j + 1] * right
    return top * (1 - down) + (picture[i + 1, j] * (1 - right) + picture[i + 1, j + 1] * right) * down


def test_the_camera_stands_while_the_head_moves(clip):
    assert len(clip.frames) == len(clip.played) == 25
    nose = np.array([f.portrait.landmarks[30] for f in clip.frames])
    assert np.ptp(nose[:, 0]) > 1.5, "the head moves in the picture"
    empty = np.all([f.portrait.parsing == 0 for f in clip.frames], axis=0)
    pictures = np.stack([f.portrait.image[empty] for f in clip.frames]).astype(int)
    assert np.mean(np.ptp(pictures, axis=0) == 0) > 0.97, "the backdrop does not"


def test_flow_carries_the_next_frame_back(clip):
    for now, later in zip(clip.frames[:-1:3], clip.frames[1::3], strict=True):
        there = now.visible & (now.portrait.parsing > 0)
        assert there.sum() > 0.95 * (now.portrait.parsing > 0).sum()
        error = np.abs(warp_back(later.portrait.image, now.flow) - now.portrait.image).mean(-1)
        still = np.abs(later.portrait.image.astype(float) - now.portrait.image).mean(-1)
        assert error[there].mean() < 4 and np.median(error[there]) < 1.5
        assert error[there].mean() < 0.7 * still[there].mean() or still[there].mean() < 2
        assert not now.flow[now.portrait.parsing == 0].any()


def test_flow_is_exact_at_landmarks(clip):
    moved = 0
    for now, later in zip(clip.frames[:-1], clip.frames[1:], strict=True):
        for k in (28, 29, 30):
            x, y = now.portrait.landmarks[k].astype(int)
            step = later.portrait.landmarks[k] - now.portrait.landmarks[k]
            assert now.flow[y, x] == pytest.approx(step, abs=0.08)
            moved = max(moved, np.hypot(*step))
    assert moved > 0.3
    assert clip.frames[-1].flow is None and clip.frames[-1].visible is None


def test_a_blink_closes_the_eyes(clip):
    closed = clip.played.units["eye-left-closure"]
    seen = [np.isin(f.portrait.parsing, (CLASS["l_eye"], CLASS["r_eye"])).sum() for f in clip.frames]
    assert closed.max() > 0.85 and seen[int(np.argmax(closed))] < 0.2 * seen[int(np.argmin(closed))]


def test_the_mouth_opens_with_the_sound(clip):
    gap = np.array([f.portrait.landmarks[66, 1] - f.portrait.landmarks[62, 1] for f in clip.frames])
    assert np.corrcoef(gap, clip.played.units["mouth-open"])[0, 1] > 0.5


def test_a_clip_in_a_style_is_the_same_motion(studio, clip):
    short = replace(clip.played, pose=clip.played.pose[:3])
    story = list(clips.film(studio, clip.who, short, STORYBOOK, truth=False, square=(16, 10, 96)))
    assert len(story) == 3 and story[0].flow is None and story[0].portrait.parsing is None
    step = [frames[2].portrait.landmarks[30] - frames[0].portrait.landmarks[30] for frames in (clip.frames, story)]
    assert step[1] == pytest.approx(step[0] * 96 / 128, abs=0.5)


def test_the_samples_are_those_of_the_readme():
    folder = Path(__file__).parents[1] / "data"
    listed = dict(re.findall(r"^\| `(\S+)` \|.*`([0-9a-f]{64})` \|$", (folder / "README.md").read_text(), re.MULTILINE))
    assert len(listed) >= 4
    for name, digest in listed.items():
        assert hashlib.sha256((folder / "samples" / name).read_bytes()).hexdigest() == digest, name
    talk = video.probe(folder / "samples" / "portrait.mp4")
    assert (talk.width, talk.height, talk.fps, talk.frame_count, talk.has_audio) == (640, 480, 25, 100, True)
    assert (folder / "samples" / "portrait.mp4").stat().st_size < 1.5e6


# -- data sets ----------------------------------------------------------------------------------------------------
def test_an_interrupted_data_set_ends_in_the_same_bytes(studio, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "CHUNK", 8)
    whole = shards.render_pairs(tmp_path / "a", 20, size=32, kit=studio.kit.folder, processes=1, progress=False)
    assert list(whole.ready) == list(range(20)) and list(whole["wide"][:3]) == [False, True, False]
    kept = {name: np.array(array) for name, array in whole.arrays.items()}
    assert kept["photo"].shape == (20, 32, 32, 3) and kept["photo"].std() > 10 and (kept["z"] != 0).all()
    (tmp_path / "a" / "done" / "00000008").unlink()
    for name in whole.arrays:
        np.load(tmp_path / "a" / f"{name}.npy", mmap_mode="r+")[8:16] = 0
    assert list(shards.Pairs.open(tmp_path / "a").ready) == [*range(8), *range(16, 20)]
    again = shards.render_pairs(tmp_path / "a", kit=studio.kit.folder, processes=1, progress=False)
    assert all(np.array_equal(kept[name], again[name]) for name in kept)


def test_a_data_set_keeps_its_settings(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "find_kit", lambda kit: kit)
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
