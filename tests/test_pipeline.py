"""Toonifier from file to file: pictures and clips of every kind, and what it says when it cannot."""

from __future__ import annotations

import warnings
import weakref
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from errors import refuses
from media_files import make_clip, make_sound, sound_packets
from people import GREY, photograph, scene, write_clip

from vtoonify_lib.apps.demo import demo
from vtoonify_lib.config import TINY, VToonifyError
from vtoonify_lib.faces.parsing_maps import network_input
from vtoonify_lib.inference import frame_renderer, networks, video
from vtoonify_lib.inference import toonifier as pipeline
from vtoonify_lib.inference.toonifier import Toonifier
from vtoonify_lib.inference.video import VideoResult
from vtoonify_lib.media.images import to_image, to_tensor, write_image
from vtoonify_lib.media.video import SegmentWriter, probe, read_frames
from vtoonify_lib.styles.request import Look, ResolvedLook

# ------------------------------------------------------------------------------------------ Toonifier.image


def test_faces_are_as_large_as_the_bundle_was_trained_for(toonifier, monkeypatch):
    """A bundle for twice as large faces sees the same region with four times the pixels."""
    usual = toonifier.image(photograph())
    monkeypatch.setattr(toonifier, "config", replace(toonifier.config, face_size=2 * toonifier.config.in_size))
    large = toonifier.image(photograph())
    assert np.abs(np.array(large.shape[:2]) - 2 * np.array(usual.shape[:2])).max() <= 4 * 8


def test_crop_is_the_region_times_the_scale(toonifier):
    picture = toonifier.image(photograph())
    narrow = toonifier.image(photograph(), padding=16)
    assert all(side % (8 * TINY.scale) == 0 for side in picture.shape[:2] + narrow.shape[:2])
    assert narrow.size < picture.size and max(narrow.shape) <= 2 * 16 * TINY.scale


def test_full_frame_changes_only_the_region(toonifier):
    rgb = scene(800, 400, [(250, 100, 240)])
    picture = toonifier.image(rgb, frame="full")
    assert picture.shape == rgb.shape
    assert (picture[:, :20] == rgb[:, :20]).all() and (picture[200, 360] != rgb[200, 360]).any()
    with pytest.raises(VToonifyError, match="expected crop or full"):
        toonifier.image(rgb, frame="half")


def test_two_faces_largest_is_used_and_said(toonifier):
    two = scene(480, 300, [(0, 60, 240), (210, 0, 300)])
    with pytest.warns(UserWarning, match="2 faces were found; the largest is used"):
        both = toonifier.image(two)
    assert both.size > 0


def test_no_face(toonifier, tmp_path):
    with refuses("no-face", "8×8 px"):
        toonifier.image(np.zeros((8, 8, 3), np.uint8))
    with refuses("no-face", tmp_path / "a.png"):
        toonifier.image(write_image(tmp_path / "a.png", scene(people=[])))


def test_4k_picture(toonifier):
    assert toonifier.image(scene(3840, 2160, [(1500, 400, 1500)])).size > 0


def test_folded_half_precision_draws_the_same_picture(tiny_bundle, toonifier, monkeypatch):
    monkeypatch.setattr(networks, "pick_dtype", lambda device: torch.float32)
    exact = Toonifier.load(tiny_bundle.folder, "cpu")
    style = exact.style_code(photograph()[:512])
    crop = photograph()[None, :64, :48]
    plain = exact.networks.vtoonify(network_input(to_tensor(crop), exact.networks.parsing(to_tensor(crop))), style)
    drawn = exact.painter(style)(crop)
    assert np.abs(drawn.astype(int) - to_image(plain)).max() <= 1
    assert np.abs(drawn.astype(int) - toonifier.painter(style)(crop)).mean() < 3


# ------------------------------------------------------------------------------------------ clips


def walk(xs, width=480):
    """Frames with the face at these left edges; None: nobody."""
    return [scene(width, 240, [] if x is None else [(x, 0, 240)]) for x in xs]


def toonify(toonifier, src, dst, **options) -> VideoResult:
    return toonifier.video(src, dst, progress=False, **options)


def test_clip_keeps_frames_times_and_sound(toonifier, tmp_path):
    src = write_clip(tmp_path / "a.mp4", walk(range(40, 64, 2)))
    result = toonify(toonifier, src, tmp_path / "b.mp4")
    before, after = list(read_frames(src)), list(read_frames(result.path))
    assert [f.pts for f in before] == [f.pts for f in after] and result.frames == len(after) == 12
    assert sound_packets(src) == sound_packets(result.path)
    assert result.steady and result.warnings == ()
    assert result.size == (result.crop[0] * TINY.scale, result.crop[1] * TINY.scale) == after[0].rgb.shape[1::-1]
    assert 0 < result.tracking_seconds < result.seconds and "12 frames" in str(result)
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["a.mp4", "b.mp4"]


def test_several_frames_at_a_time_give_the_same_clip(toonifier, tmp_path, monkeypatch):
    src = write_clip(tmp_path / "a.mp4", [*walk(range(40, 60, 2)), np.full((240, 320, 3), GREY, np.uint8)] * 3)
    monkeypatch.setattr(video, "SegmentWriter", lambda *a: SegmentWriter(*a, 10))
    one = [f.rgb for f in read_frames(toonify(toonifier, src, tmp_path / "one.mp4").path)]
    monkeypatch.setattr(frame_renderer, "frames_that_fit", lambda device, draw_one: (draw_one(), 4)[1])
    groups, stage = [], frame_renderer._RenderStage
    real = stage.draw
    monkeypatch.setattr(stage, "draw", lambda self, jobs: (groups.append(len(jobs)), real(self, jobs))[1])
    four = [f.rgb for f in read_frames(toonify(toonifier, src, tmp_path / "four.mp4").path)]
    assert groups == [4, 4, 2, 4, 4, 2, 4, 4, 2, 3]  # never across the edge of a segment
    assert len(one) == len(four) == 33
    assert max(np.abs(a.astype(int) - b).mean() for a, b in zip(one, four, strict=True)) < 2  # coded apart
    moving = SimpleNamespace(looks=(ResolvedLook(toonifier.bundle, Look(structure="0:0, 1:1")),))
    assert frame_renderer._batch_size(toonifier, [], moving) == 1  # it is folded anew for each frame


def test_clip_full_frame(toonifier, tmp_path):
    src = write_clip(tmp_path / "a.mp4", walk([60] * 4, width=640))
    result = toonify(toonifier, src, tmp_path / "b.mkv", frame="full")
    after = [f.rgb for f in read_frames(result.path)]
    assert result.size == (640, 240) and abs(int(after[2][120, 620].mean()) - GREY) < 6


def test_the_full_frame_keeps_what_is_no_person(toonifier, tmp_path, monkeypatch):
    """Of the crop, only what one of the parsing maps takes for a person is drawn."""
    def maps(crops):
        logits = torch.zeros(len(crops), 19, *crops.shape[1:3])
        logits[:, 0], logits[:, 1, :, : crops.shape[2] // 2] = 10, 20  # skin on the left, background on the right
        return logits

    monkeypatch.setattr(toonifier.networks, "parse_small", maps)
    monkeypatch.setattr(toonifier.networks, "fold",
                        lambda *_: lambda crops, logits: 255 - np.repeat(np.repeat(crops, 2, 1), 2, 2))
    before = walk([60] * 2, width=640)[0]
    drawn = toonifier.image(before, frame="full")
    src = write_clip(tmp_path / "a.mp4", walk([60] * 2, width=640))
    clip = list(read_frames(toonify(toonifier, src, tmp_path / "b.mp4", frame="full").path))[0].rgb
    plan = toonifier.face_in(before).plan
    left, _, right, _ = plan.box
    row, quarter = 120, int((right - left) / 4)
    for picture in (drawn, clip):
        change = np.abs(picture[row].astype(int) - before[row]).mean(1)
        assert change[int(left) + quarter - 8 : int(left) + quarter + 8].mean() > 20
        assert change[int(left) + 3 * quarter :].mean() < 4


def test_variable_frame_rate(toonifier, tmp_path):
    ticks = [0, 40, 70, 180, 181, 400]
    src = write_clip(tmp_path / "a.mp4", walk([60] * 6), ticks=ticks, sound=False)
    result = toonify(toonifier, src, tmp_path / "b.mp4")
    assert [round(f.pts * 1000) for f in read_frames(result.path)] == ticks


def test_rotated_phone_video(toonifier, tmp_path):
    frames = [np.rot90(f).copy() for f in walk([60] * 3, width=320)]
    src = write_clip(tmp_path / "a.mp4", frames, rotation=90)
    assert (probe(src).width, probe(src).height) == (320, 240)
    result = toonify(toonifier, src, tmp_path / "b.mp4", frame="full")
    assert result.warnings == () and result.size == (320, 240)


def test_face_only_later(toonifier, tmp_path):
    src = write_clip(tmp_path / "a.mp4", walk([None] * 20 + [60] * 4))
    result = toonify(toonifier, src, tmp_path / "b.mp4")
    after = [f.rgb for f in read_frames(result.path)]
    assert len(after) == result.frames == 24
    assert abs(after[0].astype(int) - GREY).max() < 8, "shown as it was"
    assert after[22].std() > 8
    assert any("not found in 20 of 24 frames" in text for text in result.warnings)


def test_face_lost_midway(toonifier, tmp_path):
    src = write_clip(tmp_path / "a.mp4", walk([60] * 4 + [None] * 60 + [60] * 2))
    for frame in ("crop", "full"):
        result = toonify(toonifier, src, tmp_path / f"{frame}.mp4", frame=frame)
        after = [f.rgb.astype(int) for f in read_frames(result.path)]
        assert len(after) == 66 and abs(after[34] - GREY).max() < 8, "the original, where there is nobody"
        assert any("not found in" in text for text in result.warnings)


def test_two_faces_in_a_clip(toonifier, tmp_path):
    frames = [scene(480, 300, [(0, 60, 240), (210, 0, 300)])] * 3
    result = toonify(toonifier, write_clip(tmp_path / "a.mp4", frames), tmp_path / "b.mp4")
    assert "2 faces were found; the largest is used" in result.warnings


def test_everybody_is_drawn_with_a_look_of_their_own(toonifier, tmp_path, monkeypatch):
    def animator(aligned, look):
        return lambda crops, seconds, logits=None: np.full(
            (len(crops), crops.shape[1] * 2, crops.shape[2] * 2, 3), look.request.seed, np.uint8)

    monkeypatch.setattr(toonifier, "animator", animator)
    monkeypatch.setattr(toonifier.networks, "person_mask",
                        lambda picture, logits: np.ones(logits.shape[2:], np.float32))
    frames = [scene(760, 300, [(0, 60, 240), (420, 0, 300)])] * 16
    src, looks = write_clip(tmp_path / "a.mp4", frames), [Look(seed=20), Look(seed=230)]
    result = toonify(toonifier, src, tmp_path / "b.mp4", frame="full", faces="all", look=looks, padding=24)
    shown = list(read_frames(result.path))[8].rgb.astype(int)
    assert result.people == 2 and result.size == (760, 300) and result.warnings == ()
    assert abs(shown[160, 105] - 20).max() < 12 and abs(shown[130, 551] - 230).max() < 12


@pytest.mark.parametrize("faces", [1, "largest"])
def test_who_stands_beside_the_largest_is_left_alone(toonifier, tmp_path, monkeypatch, faces):
    """Its crop holds both of them."""
    monkeypatch.setattr(toonifier, "animator", lambda aligned, look: lambda crops, seconds, logits=None: np.full(
        (len(crops), crops.shape[1] * 2, crops.shape[2] * 2, 3), 20, np.uint8))
    monkeypatch.setattr(toonifier.networks, "person_mask",
                        lambda picture, logits: np.ones(logits.shape[2:], np.float32))
    frames = [scene(760, 300, [(0, 60, 240), (420, 0, 300)])] * 16
    src = write_clip(tmp_path / "a.mp4", frames)
    result = toonify(toonifier, src, tmp_path / "b.mp4", frame="full", faces=faces, look=[Look(), Look()], padding=90)
    shown = list(read_frames(result.path))[8].rgb.astype(int)
    assert result.warnings == ("2 faces were found; the largest is used",
                               "2 styles were given for 1 of the faces; the last ones are not used")
    assert result.people == 1 and abs(shown[130, 551] - 20).max() < 12
    assert abs(shown[130, 420] - 20).max() < 12, "the crop reaches far beyond its head"
    assert abs(shown[160, 105] - frames[0][160, 105]).max() < 30


def test_everybody_in_a_picture(toonifier):
    picture = scene(760, 300, [(0, 60, 240), (420, 0, 300)])
    one, both = (toonifier.image(picture, frame="full", faces=faces, padding=24) for faces in (1, "all"))
    left, right = (slice(100, 200), slice(60, 150)), (slice(80, 180), slice(500, 600))
    assert (one[left] == picture[left]).all() and (one[right] != picture[right]).any()
    assert (both[left] != picture[left]).any() and (both[right] == one[right]).all()
    assert [face.plan.box[0] for face in toonifier.faces_in(picture)] == sorted(
        face.plan.box[0] for face in toonifier.faces_in(picture))
    with pytest.raises(VToonifyError, match="--frame full"):
        toonifier.image(picture, faces="all")


def test_face_that_walks_through_the_picture(toonifier, tmp_path):
    src = write_clip(tmp_path / "a.mp4", walk(np.linspace(-20, 620, 20), width=800))
    result = toonify(toonifier, src, tmp_path / "b.mp4", padding=16)
    assert not result.steady and any("glides" in text for text in result.warnings)
    assert probe(result.path).frame_count == 20


def test_odd_sizes_and_truncated_clip(toonifier, tmp_path):
    src = write_clip(tmp_path / "a.mkv", [f[:-2, :-6] for f in walk([60] * 12)])
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(src.read_bytes()[: src.stat().st_size * 2 // 3])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the user hears of it through the result
        result = toonify(toonifier, cut, tmp_path / "b.mp4")
    assert 0 < result.frames < 12 and any("cut short" in text for text in result.warnings)


def test_clips_that_cannot_be_used(toonifier, tmp_path):
    def refused(src, code, *facts):
        with refuses(code, src, *facts):
            toonify(toonifier, src, tmp_path / "out.mp4")
        assert not (tmp_path / "out.mp4").exists()

    nobody = write_clip(tmp_path / "nobody.mp4", walk([None] * 3))
    refused(nobody, "no-face", "3 frames")
    refused(tmp_path / "none.mp4", "missing")
    refused(make_sound(tmp_path / "sound.mp4"), "unreadable", "only sound")
    refused(make_clip(tmp_path / "tiny.mp4", width=8, height=8, frames=2), "no-face", "2 frames")
    (tmp_path / "text.mp4").write_text("hello\n" * 50)
    refused(tmp_path / "text.mp4", "unreadable")
    (tmp_path / "empty.mp4").touch()
    refused(tmp_path / "empty.mp4", "unreadable", "0 bytes")


def test_clip_outputs_are_checked_before_any_work(toonifier, tmp_path, monkeypatch):
    src = write_clip(tmp_path / "a.mp4", walk([60] * 2))
    monkeypatch.setattr(toonifier.finder, "detect", lambda *a: pytest.fail("worked before checking"))
    for dst, fact in [(src, src), (tmp_path / "none" / "b.mp4", tmp_path / "none"), (tmp_path / "b.gif", "'.gif'")]:
        with refuses("unwritable", fact):
            toonify(toonifier, src, dst)


def test_failure_midway_leaves_nothing(toonifier, tmp_path, monkeypatch):
    src = write_clip(tmp_path / "a.mp4", walk([60] * 8))
    calls = []

    def fold(code, structure):
        def draw(crops, logits):
            calls.append(1)
            if len(calls) == 5:
                raise KeyboardInterrupt
            return np.repeat(np.repeat(crops, 2, 1), 2, 2)
        return draw

    monkeypatch.setattr(toonifier.networks, "fold", fold)
    with pytest.raises(KeyboardInterrupt):
        toonify(toonifier, src, tmp_path / "b.mp4")
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_memory_does_not_grow_with_the_clip(toonifier, tmp_path, monkeypatch):
    alive = [0, 0]  # whole frames now, and at most

    def counted(path, skip=0):
        for frame in read_frames(path, skip):
            alive[0] += 1
            alive[1] = max(alive)
            weakref.finalize(frame.rgb, lambda: alive.__setitem__(0, alive[0] - 1))
            yield frame

    monkeypatch.setattr(frame_renderer, "read_frames", counted)
    src = write_clip(tmp_path / "a.mp4", [scene()] * 80)
    assert toonify(toonifier, src, tmp_path / "b.mp4", frame="full").frames == 80
    assert alive[1] <= 16


def test_demo(tiny_bundle, tmp_path, monkeypatch):
    sample = write_clip(tmp_path / "sample.mp4", walk([60] * 4))
    monkeypatch.setattr(pipeline, "SAMPLE", sample)
    (result,) = demo(tmp_path / "new" / "out", tiny_bundle.folder, "cpu")
    compare = probe(tmp_path / "new" / "out" / "demo_compare.mp4")
    assert result.path.name == "demo.mp4" and compare.has_audio and compare.width > result.size[0]
    monkeypatch.setattr(pipeline, "SAMPLE", tmp_path / "none.mp4")
    with pytest.raises(VToonifyError, match="sample clip .* is missing"):
        demo(tmp_path, tiny_bundle.folder, "cpu")
