"""Pictures, curves and clips inside a notebook, without a browser: what would be displayed, and how large it is."""

from __future__ import annotations

import re
from base64 import b64decode
from fractions import Fraction
from io import BytesIO

import IPython.display
import numpy as np
import pytest
from media_files import make_clip
from PIL import Image

from vtoonify_lib.apps import plotting
from vtoonify_lib.config import VToonifyError
from vtoonify_lib.media.video import VideoWriter, probe, read_frames

RED, GREEN, BLUE = (np.full((40, 60, 3), colour, np.uint8) for colour in ((220, 30, 30), (30, 200, 40), (30, 40, 220)))


@pytest.fixture
def shown(monkeypatch) -> list:
    """What the functions hand to the notebook."""
    things: list = []
    monkeypatch.setattr(IPython.display, "display", lambda thing, **_: things.append(thing))
    return things


def picture(thing) -> np.ndarray:
    image = Image.open(BytesIO(b64decode(thing["image/jpeg"])))
    assert image.format == "JPEG"
    return np.asarray(image)


def near(pixel, colour) -> bool:
    return bool(np.abs(pixel.astype(int) - colour).max() < 25)


def test_show_puts_pictures_side_by_side(shown):
    plotting.show([RED, GREEN], ["red", "green"])
    image = picture(shown[0])
    height, width = image.shape[:2]
    assert width <= plotting.WIDTH + 1
    assert near(image[height // 2, width // 4], RED[0, 0]) and near(image[height // 2, 3 * width // 4], GREEN[0, 0])
    assert (image[2:20] < 100).any()  # the titles


@pytest.mark.parametrize("source", ["path", "pillow", "grey", "float"])
def test_show_takes_one_picture_of_any_kind(shown, source, tmp_path):
    Image.fromarray(RED).save(tmp_path / "red.png")
    image = {"path": tmp_path / "red.png", "pillow": Image.fromarray(RED), "grey": RED[..., 0],
             "float": RED / 255}[source]
    plotting.show(image, "one")
    assert picture(shown[0]).ndim == 3 and len(shown) == 1


def test_grid_has_rows_and_keeps_proportions(shown):
    tall = np.full((80, 40, 3), 90, np.uint8)
    plotting.grid([RED, tall, BLUE], columns=2)
    image = picture(shown[0])
    height, width = image.shape[:2]
    cell = (height - 8) / 2
    assert width == pytest.approx(cell * (60 / 40 + 40 / 80) + 8, abs=3)
    assert near(image[height // 4, width // 3], RED[0, 0]) and near(image[3 * height // 4, width // 3], BLUE[0, 0])
    assert near(image[3 * height // 4, -10], (255, 255, 255))


def test_a_row_without_titles_takes_no_room_for_them(shown):
    plotting.grid([RED, GREEN, BLUE, RED], 2, ["red", "green", "", ""])
    plotting.grid([RED, GREEN, BLUE, RED], 2, ["red", "green", "blue", "red"])
    some, all_of_them = map(picture, shown)
    assert len(all_of_them) - len(some) == pytest.approx(24, abs=2)
    assert near(some[-20, 100], BLUE[0, 0]) and near(some[len(some) // 2 - 20, 100], RED[0, 0])


def test_the_names_of_rows_stand_beside_them(shown):
    plotting.grid([RED, GREEN, BLUE], columns=2)
    plotting.grid([RED, GREEN, BLUE], columns=2, rows=["above", "below"])
    bare, named = map(picture, shown)
    assert named.shape[1] <= plotting.WIDTH + 1 and named.shape[0] < bare.shape[0]  # the names take from the pictures
    half = len(named) // 2
    assert all((part[:, :24] < 100).any() and (part[:, :4] > 200).all() for part in (named[:half], named[half:]))
    assert near(named[half // 2, 100], RED[0, 0]) and near(named[half + half // 2, 100], BLUE[0, 0])


def test_a_row_of_one_tall_picture_is_no_poster(shown):
    plotting.show(np.zeros((2000, 500, 3), np.uint8))
    assert picture(shown[0]).shape[0] <= plotting.MAX_HEIGHT + 1


@pytest.mark.parametrize("call", [lambda: plotting.grid([], 1), lambda: plotting.grid([RED], 0),
                                  lambda: plotting.show([RED, BLUE], ["one"]),
                                  lambda: plotting.grid([RED, BLUE], 1, rows=["one"])])
def test_what_cannot_be_shown_is_said(shown, call):
    with pytest.raises(VToonifyError):
        call()
    assert not shown


# ---------------------------------------------------------------------------------------------- curves
def test_curves_draw_every_number_of_a_log(shown, tmp_path):
    log = tmp_path / "log.csv"
    log.write_text("iteration,seconds,picture,feature\n20,1,0.5,\n40,2,0.25,0.1\n60,3,0.125,0.05\n")
    plotting.curves(log)
    wide = picture(shown[0])
    plotting.curves(log, ["feature"])
    assert wide.shape[1] == pytest.approx(plotting.WIDTH, abs=1)
    assert not np.array_equal(wide, picture(shown[1]))
    with pytest.raises(VToonifyError, match="no column 'colour'; it has seconds, picture, feature"):
        plotting.curves(log, ["colour"])
    log.write_text("iteration,seconds,picture\n")
    with pytest.raises(VToonifyError, match="no lines yet"):
        plotting.curves(log)


def test_the_running_mean_is_centred_and_honest_at_the_ends():
    line = np.arange(100.0)
    assert np.allclose(plotting._running_mean(line), line)  # neither late nor early
    wave = np.tile([0.0, 2.0], 50)
    assert np.allclose(plotting._running_mean(wave)[10:-10], 1, atol=0.1)
    assert np.allclose(plotting._running_mean(np.array([3.0, 1.0])), [3.0, 1.0])  # too few to average


# ---------------------------------------------------------------------------------------------- clips
def embedded(thing, folder):
    """The clip inside the HTML, as a file."""
    kind, data = re.search(r'src="data:video/(\w+);base64,([^"]+)"', thing.data).groups()
    path = folder / f"embedded.{kind}"
    path.write_bytes(b64decode(data))
    return path


def test_a_small_clip_is_embedded_as_it_is(shown, tmp_path):
    clip = make_clip(tmp_path / 'a"b.mp4')
    plotting.video(clip)
    assert embedded(shown[0], tmp_path).read_bytes() == clip.read_bytes()
    assert "controls" in shown[0].data and "a&quot;b.mp4" in shown[0].data


def test_a_large_clip_is_shrunk_and_keeps_its_frames_and_sound(shown, tmp_path):
    clip, rng = tmp_path / "large.mp4", np.random.default_rng(0)
    with VideoWriter(clip, source=make_clip(tmp_path / "sound.mp4")) as writer:
        for index in range(10):
            blocks = rng.integers(0, 255, (30, 40, 3), np.uint8)
            writer.write(blocks.repeat(16, axis=0).repeat(16, axis=1), Fraction(index, 25))
    limit = clip.stat().st_size // 3000
    plotting.video(clip, limit_kb=limit)
    copy = embedded(shown[0], tmp_path)
    info = probe(copy)
    assert copy.stat().st_size <= limit * 1000
    assert info.has_audio and info.width < 640 and info.width % 2 == info.height % 2 == 0
    assert info.width / info.height == pytest.approx(640 / 480, rel=0.05)
    assert len(list(read_frames(copy))) == 10


def test_a_clip_of_another_format_is_converted(shown, tmp_path):
    plotting.video(make_clip(tmp_path / "a.mkv"))
    assert probe(embedded(shown[0], tmp_path)).codec == "h264"


def test_a_clip_that_never_fits_is_not_embedded(shown, tmp_path, capsys):
    plotting.video(make_clip(tmp_path / "a.mp4", width=320, height=240), limit_kb=1)
    assert not shown and "too long" in capsys.readouterr().out


def test_a_missing_clip_is_said(shown, tmp_path):
    with pytest.raises(VToonifyError, match="does not exist"):
        plotting.video(tmp_path / "none.mp4")


def test_two_clips_are_compared_in_one_place(shown, tmp_path):
    before, after = (make_clip(tmp_path / name, frames=4) for name in ("before.mp4", "after.mp4"))
    plotting.compare(before, after)
    text = shown[0].data
    assert text.count("<video") == 2 and text.index("after.mp4") < text.index("before.mp4")
    assert text.count('type="range"') == 1 and "clipPath" in text and text.count(" muted") == 1
    for tag in re.findall(r"<video[^>]*>", text):
        assert "controls" in tag if "after.mp4" in tag else "clip-path: inset(0 50% 0 0)" in tag
    assert len(re.findall(r"base64,([A-Za-z0-9+/=]+)", text)) == 2


def test_of_two_compared_clips_only_one_carries_sound(shown, tmp_path):
    clips = [make_clip(tmp_path / name, frames=4, width=640, height=480) for name in ("before.mp4", "after.mp4")]
    plotting.compare(*clips)
    after, before = ("data:" + part for part in shown[0].data.split("data:")[1:])
    heard = []
    for part in (before, after):
        (tmp_path / "part.mp4").write_bytes(b64decode(re.search(r"base64,([^\"]+)", part)[1]))
        heard.append(probe(tmp_path / "part.mp4").has_audio)
    assert heard == [False, True]


def test_a_comparison_that_does_not_fit_is_said(shown, tmp_path, capsys):
    clip = make_clip(tmp_path / "clip.mp4", frames=4)
    plotting.compare(clip, clip, limit_kb=0)
    assert not shown and "too long to be played" in capsys.readouterr().out
