"""Damaged files of every kind that a user may hand over: each ends in a VToonifyError or in a result, and ends.

The damage follows from a number, so that what is reported can be made again: `damaged(data, 17)`.
"""

from __future__ import annotations

import io
import itertools
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from media_files import make_clip
from PIL import Image
from test_parsing import pattern

from vtoonify_lib.config import VToonifyError
from vtoonify_lib.faces.crop import resolve_padding
from vtoonify_lib.media.images import read_image
from vtoonify_lib.media.video import SegmentWriter, left_out, probe, read_frames
from vtoonify_lib.styles.recipe import Recipe
from vtoonify_lib.styles.request import Keyframes, Look, check_faces
from vtoonify_lib.styles.table import StyleCode, StyleTable, load_style, save_style
from vtoonify_lib.training.loop import load_checkpoint
from vtoonify_lib.weights.bundle import load_bundle
from vtoonify_lib.weights.unpickling import read_checkpoint, read_npy

TIERS = pytest.mark.parametrize("count", [50, pytest.param(1000, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])])
JUNK = (None, True, -1, 0, 3, 0.5, 2**63, float("inf"), float("nan"), "", "a", "\0", "../none", [], {}, [[]], [1, "a"])


def damaged(data: bytes, seed: int) -> bytes:
    """Bytes flipped, missing, twice, cleared, overwritten or cut off; at the beginning, where files describe
    themselves, as often as anywhere else."""
    rng, out = np.random.default_rng(seed), bytearray(data)
    for _ in range(rng.integers(1, 4)):
        end = len(out) if rng.random() < 0.5 else min(len(out), 400)
        start = int(rng.integers(max(end, 1)))
        part = slice(start, start + int(rng.integers(1, 40)))
        match rng.integers(6):
            case 0:
                for at in rng.integers(max(end, 1), size=rng.integers(1, 9)):
                    out[at] ^= 1 << rng.integers(8)
            case 1:
                del out[part]
            case 2:
                out[part.start:part.start] = out[part]
            case 3:
                out[part] = bytes(len(out[part]))
            case 4:
                out[part] = rng.bytes(len(out[part])) if rng.random() < 0.5 else b"\xff" * len(out[part])
            case 5:
                del out[max(start, 1):]
        out = out or bytearray(b"\0")
    return bytes(out)


def changed(data: object, seed: int) -> bytes:
    """JSON in which a value is another one, or missing; now and then the text itself is damaged."""
    rng, data = np.random.default_rng(seed), json.loads(json.dumps(data))
    if rng.random() < 0.2:
        return damaged(json.dumps(data).encode(), seed)
    places = []

    def walk(node: dict | list) -> None:
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            places.append((node, key))
            if isinstance(value, dict | list):
                walk(value)

    walk(data)
    depth = {}  # a list of numbers is no more worth looking at than its neighbour
    for node, key in places:
        depth.setdefault(id(node), []).append((node, key))
    node, key = (group := list(depth.values())[rng.integers(len(depth))])[rng.integers(len(group))]
    if rng.random() < 0.2:
        del node[key]
    else:
        node[key] = JUNK[rng.integers(len(JUNK))]
    return json.dumps(data).encode()


def survive(count: int, path: Path, make, use) -> None:
    """Write damaged files, one after the other, and use them; every other exception is a failure."""
    wrong, refused = [], 0
    for seed in range(count):
        path.write_bytes(make(seed))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                use(path)
        except VToonifyError as error:
            refused += 1
            if "\n" in str(error) or not str(error):
                wrong.append(f"{seed}: more than a sentence: {error!r}")
        except Exception as error:
            wrong.append(f"{seed}: {type(error).__name__}: {str(error)[:160]}")
    assert not wrong, f"{len(wrong)} of {count}:\n" + "\n".join(wrong[:20])
    assert refused > count / 20, "the damage does none"


# -- pictures and clips -----------------------------------------------------------------------------------------------
@TIERS
def test_pictures(count, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned
    files = []
    for kind in ("jpeg", "png", "webp", "tiff", "gif", "bmp"):
        stream = io.BytesIO()
        Image.fromarray(pattern(size=48)).save(stream, kind, **({} if kind in ("gif", "bmp") else {"exif": exif}))
        files.append(stream.getvalue())

    def read(path):
        rgb = read_image(path)
        assert rgb.dtype == np.uint8 and rgb.ndim == 3 and rgb.shape[2] == 3 and rgb.size

    survive(count, tmp_path / "a.png", lambda seed: damaged(files[seed % 6], seed), read)


@TIERS
def test_clips(count, tmp_path):
    tags = {"title": "A portrait", "artist": "Nobody", "comment": "für alle"}
    vp9 = {"codec": "libvpx-vp9", "sound": "libopus", "sound_rate": 48000, "options": {}}
    clips = [make_clip(tmp_path / name, frames=4, tags=tags, **recipe).read_bytes() for name, recipe in
             {"a.mp4": {}, "b.mkv": {}, "c.webm": vp9, "d.avi": {"codec": "mpeg4", "options": {}}}.items()]

    def use(path):
        probe(path)
        left_out(path)
        with SegmentWriter(tmp_path / "out.mp4", path, {}) as writer:
            for frame in read_frames(path):
                writer.write(*frame)

    survive(count, tmp_path / "clip", lambda seed: damaged(clips[seed % len(clips)], seed), use)


# -- bundles, styles, recipes -----------------------------------------------------------------------------------------
@TIERS
def test_bundles(count, tiny_bundle, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    for path in tiny_bundle.folder.iterdir():
        (folder / path.name).hardlink_to(path)
    (folder / "bundle.json").unlink()

    roles = itertools.cycle(("vtoonify", "parsing", "style_encoder"))

    def use(path):
        bundle = load_bundle(folder)
        assert isinstance(bundle.title, str) and isinstance(bundle.licence, str) and bundle.bytes >= 0
        bundle.problem()
        StyleTable(bundle)
        bundle.path("landmarks")
        bundle.network(next(roles))

    styles = {"names": ["a-00", "a-01"], "looks": {"a": "a-00"}, "start": {"style": "a", "structure": 1, "color": 0}}
    info = dict(tiny_bundle.info) | {"styles": styles}
    survive(count, folder / "bundle.json", lambda seed: changed(info, seed), use)


@TIERS
def test_styles(count, tmp_path):
    bundle = load_bundle("studio-d")
    style = StyleCode.from_codes("mine", StyleTable(bundle).codes("comic-00"))
    data = save_style(tmp_path / "a.safetensors", style, bundle).read_bytes()
    survive(count, tmp_path / "b.safetensors", lambda seed: damaged(data, seed), lambda path: load_style(path, bundle))


@TIERS
def test_recipes(count, tmp_path):
    bundle = load_bundle("studio-d")
    table = StyleTable(bundle)
    style = StyleCode.from_codes("mine", table.codes("comic-00"))
    look = Look((("clay-03", 0.6), (style, 0.4)), Keyframes(((0.0, 0.2), (1.0, 0.7))), 0.5, 3, [1.0] * 14)
    recipe = Recipe(bundle.name, bundle.version("vtoonify"), look, 40.0, "full", 2)

    def use(path):
        read = Recipe.load(path)
        read.check(bundle)
        check_faces(read.faces, read.frame)
        resolve_padding(bundle.config.framing_size, read.padding)
        table.blend(read.look.resolve(bundle).style)
        assert read.save(tmp_path / "again.json").exists() and isinstance(read.smooth, bool)

    survive(count, tmp_path / "a.json", lambda seed: changed(recipe.data(), seed), use)


# -- checkpoints ------------------------------------------------------------------------------------------------------
@TIERS
def test_checkpoints(count, tmp_path):
    net, files = torch.nn.Linear(3, 2), []
    for zipped in (True, False):
        stream = io.BytesIO()
        torch.save({"iteration": 3, "net": net.state_dict()}, stream, _use_new_zipfile_serialization=zipped)
        files.append(stream.getvalue())

    def use(path):
        try:
            read_checkpoint(path)
        finally:
            load_checkpoint(path, {"net": net})

    survive(count, tmp_path / "last.pt", lambda seed: damaged(files[seed % 2], seed), use)


@TIERS
def test_arrays(count, tmp_path):
    files = []
    for contents in (np.arange(12.0), np.array({"a.jpg": np.ones((1, 4, 8), np.float32)}, dtype=object)):
        np.save(tmp_path / "a.npy", contents)
        files.append((tmp_path / "a.npy").read_bytes())
    survive(count, tmp_path / "b.npy", lambda seed: damaged(files[seed % 2], seed), read_npy)
