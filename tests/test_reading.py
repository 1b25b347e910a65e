"""Video files that are bad, cut short or damaged: what can be read is, and what cannot is said in one line."""

from __future__ import annotations

import warnings
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from media_files import AVI, UNEVEN, VP9, copy, make_clip, make_sound, picture, rewritten, times

from vtoonify_lib.config import VToonifyError
from vtoonify_lib.media.reading import open_video, tags
from vtoonify_lib.media.video import probe, read_frames


def still(path: Path) -> Path:
    cv2.imwrite(str(path), picture(0))
    return path


def no_samples(path: Path) -> Path:
    with av.open(str(path), "w", options={"movflags": "frag_keyframe+empty_moov"}) as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        out.start_encoding()
    return path


BAD = {
    "missing": (lambda d: d / "no.mp4", "does not exist"),
    "folder": (lambda d: d, "is a folder"),
    "empty": (lambda d: rewritten(d / "a.mp4", b""), "is empty"),
    "text": (lambda d: rewritten(d / "a.mp4", "not a video\n" * 400), "is not a video"),
    "text.txt": (lambda d: rewritten(d / "a.txt", "not a video\n" * 400), "is a text file"),
    "playlist": (lambda d: rewritten(d / "a.mp4", "ffconcat version 1.0\nfile " + make_clip(d / "b.mp4").name), "text"),
    "noise": (lambda d: rewritten(d / "a.mp4", np.random.default_rng(0).bytes(9999)), "is not a video"),
    "no index": (lambda d: rewritten(d / "a.mp4", make_clip(d / "b.mp4").read_bytes()[:3000]), "index is missing"),
    "sound only": (lambda d: make_sound(d / "a.mp4"), "only sound"),
    "sound only, mp3": (lambda d: make_sound(d / "a.mp3", "libmp3lame"), "only sound"),
    "no frames": (lambda d: no_samples(d / "a.mp4"), "no frame"),
    "still": (lambda d: still(d / "a.png"), "still picture"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_files_say_what_is_wrong_in_one_line(tmp_path, kind):
    make, words = BAD[kind]
    path = make(tmp_path)
    for use in (probe, lambda p: next(read_frames(p)), lambda p: copy(p, tmp_path / "out.mp4")):
        with pytest.raises(VToonifyError) as error:
            use(path)
        message = str(error.value)
        assert words in message and str(path) in message and "\n" not in message
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize(("name", "recipe"), [("a.mp4", {}), ("a.mkv", {}), ("a.webm", VP9), ("a.avi", AVI)])
def test_a_file_cut_short_gives_what_it_has_and_warns(tmp_path, name, recipe):
    whole = make_clip(tmp_path / name, frames=60, **{"sound": "libmp3lame"} | recipe)
    if name == "a.mp4":
        whole = copy(whole, tmp_path / "index_first.mp4")
    cut = rewritten(tmp_path / f"cut_{name}", whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    with pytest.warns(UserWarning, match=r"cut short; \d+ frames"):
        shown = times(cut)
    assert 20 < len(shown) < 50
    assert shown == times(whole)[: len(shown)]
    with pytest.warns(UserWarning, match="cut short"):
        assert times(copy(cut, tmp_path / "out.mp4")) == shown


def test_damage_in_the_middle_is_read_over(tmp_path):
    data = bytearray(make_clip(tmp_path / "a.mp4", frames=60, width=160, height=120).read_bytes())
    for at in np.random.default_rng(0).integers(len(data) // 3, len(data) // 2, 60):
        data[at] ^= 0xFF
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert len(times(rewritten(tmp_path / "b.mp4", bytes(data)))) > 40


def test_whole_files_do_not_warn(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, recipe in (("a.mp4", UNEVEN), ("a.mkv", {}), ("b.mp4", dict(ticks=[12, 13, 14])), ("a.webm", VP9)):
            times(make_clip(tmp_path / name, **recipe))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_tags_that_are_no_text_do_not_stop_a_clip(tmp_path, name):
    whole = make_clip(tmp_path / name, tags={"title": "Portrait", "artist": "Nobody"}, **AVI if ".avi" in name else {})
    assert whole.read_bytes().count(b"Portrait") == 1
    path = rewritten(tmp_path / f"b_{name}", whole.read_bytes().replace(b"Portrait", b"Port\xff\xfe\xc3("))
    with open_video(path) as container:
        assert {key.lower(): tag for key, tag in tags(container).items()} == {"artist": "Nobody"}
    assert probe(path).width == 64 and times(path) == times(whole)
