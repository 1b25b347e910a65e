"""Speech, acting and clips of the portrait studio. What needs EGL is skipped without it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from studio_people import CLASS, PEOPLE, differences, easy

from vtoonify_lib.config import VToonifyError
from vtoonify_lib.media import video
from vtoonify_lib.studio import clips, speech
from vtoonify_lib.studio.people import Z_SIZE, person, unit_target
from vtoonify_lib.studio.styles import STORYBOOK


@pytest.fixture(scope="session")
def clip(studio):
    """Person, performance and frames of a second of talk."""
    who = easy(person(0.6 * PEOPLE[0]))
    played = clips.perform(who, seconds=1.0, fps=25, seed=4)
    return SimpleNamespace(who=who, played=played, frames=list(clips.film(studio, who, played)))


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
