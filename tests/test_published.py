"""The published checkpoints: their conversion. Every file is written here, in the published format."""

from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path

import golden_data
import numpy as np
import pytest
import torch
from errors import refuses
from golden_modules import unread_weights
from published_files import (
    LAYERS,
    STYLE_DIM,
    TINY_D,
    checkpoint,
    encoder,
    parser,
    quiet,
    replace,
    styles,
    write_repository,
)
from safetensors.torch import load_file

from vtoonify_lib.config import PUBLISHED, PUBLISHED_D, TINY
from vtoonify_lib.models.bisenet import PublishedParser
from vtoonify_lib.weights.bundle import load_bundle
from vtoonify_lib.weights.published import (
    PRESETS,
    UnfitFile,
    conversion,
    convert,
    preset,
    preset_of,
    style_code,
)
from vtoonify_lib.weights.published.presets import LANDMARKS
from vtoonify_lib.weights.published.weights import vtoonify_config

D, T = PRESETS["pixar-d"], PRESETS["pixar-t"]
pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(scope="module")
def full(pristine, tmp_path_factory):
    """pixar-d in full precision."""
    return convert(D, pristine, tmp_path_factory.mktemp("full") / "pixar-d", half=False)


def test_a_converted_vtoonify_d_draws_the_same(full):
    original, network = checkpoint("dualstylegan", sum(map(ord, D.file))), full.network("vtoonify")
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 22, 32, 24, generator=generator)
    z = torch.randn(2, LAYERS, STYLE_DIM, generator=generator)
    degree = torch.tensor([0.2, 0.9])
    assert torch.equal(network.map(z), original.map(z))
    assert torch.equal(network(x, original.map(z), degree), original(x, original.map(z), degree))
    assert full.config == TINY_D and full.published and full.problem() is None
    assert "non-commercial" in full.licence and full.info["provenance"]["licence"].startswith("https://")


def test_only_what_frames_read_is_kept(full):
    stored = load_file(full.path("vtoonify")).keys()
    unread = unread_weights(TINY_D)
    assert unread and not stored & unread
    assert stored | unread == checkpoint("dualstylegan").state_dict().keys()
    assert not [k for k in load_file(full.path("parsing")) if "conv_out16" in k or "conv_out32" in k]
    assert not [k for k in load_file(full.path("style_encoder")) if k.startswith("decoder")]


def test_helpers_of_the_network_are_converted_too(full):
    image = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert torch.equal(full.network("style_encoder")(image), encoder()(image))
    whole = PublishedParser(width=8)
    whole.load_state_dict(PublishedParser.state_of(parser().state_dict()))
    small = image[..., :64, :72]
    with torch.no_grad():
        assert torch.equal(full.network("parsing")(small), whole.eval()(small))


def test_styles_become_w_plus(full):
    original = checkpoint("dualstylegan", sum(map(ord, D.file)))
    codes = list(styles(D.style + 2).values())
    for asked, number in ((None, D.style), (0, 0), (53, 53)):
        torch.testing.assert_close(style_code(full, asked), original.map(torch.from_numpy(codes[number])))
    assert full.published["style_names"][3] == "portrait 3.jpg"
    assert preset_of(full).styles == len(codes) == 54  # as many as there are in the file
    with refuses("unknown", "pixar", 54, 53):
        style_code(full, 54)


def test_a_checkpoint_of_one_style_keeps_one(repository, tmp_path):
    single = preset("pixar")
    write_repository(repository.parent / "single", single)
    bundle = convert("pixar", repository.parent / "single", tmp_path / "out")
    assert bundle.tensors("styles")["w_plus"].shape == (1, LAYERS, STYLE_DIM)
    original = checkpoint("dualstylegan", sum(map(ord, single.file)))
    expected = original.map(torch.from_numpy(styles(54)["portrait 52.jpg"]))
    torch.testing.assert_close(style_code(bundle), expected)
    torch.testing.assert_close(style_code(bundle, 52), expected)
    assert bundle.published["style_names"] == ["portrait 52.jpg"]
    with refuses("unable", 52, "--style", "pixar-d"):
        style_code(bundle, 1)


def test_vtoonify_t_alone(pristine, tmp_path):
    """Nothing of VToonify-D is needed, and the names say so."""
    (tmp_path / "t").mkdir()
    for name in T.sources.values():
        (tmp_path / "t" / name).parent.mkdir(parents=True, exist_ok=True)
        os.link(pristine / name, tmp_path / "t" / name)
    bundle = convert("pixar-t", tmp_path / "t", tmp_path / "out", half=False)
    network, original = bundle.network("vtoonify"), checkpoint("toonify", sum(map(ord, T.file)))
    x, w = torch.randn(1, 22, 32, 32), torch.randn(1, LAYERS, STYLE_DIM)
    assert torch.equal(network(x, w), original(x, w))
    assert bundle.config == TINY and "styles" not in bundle.info["files"] and style_code(bundle) is None
    with refuses("unable", "pixar-t"):
        style_code(bundle, 1)


def test_half_precision(pristine, full, tmp_path):
    half = convert(D, pristine, tmp_path / "half")
    large = ("vtoonify", "parsing", "style_encoder")
    sizes = [sum(bundle.info["files"][key]["bytes"] for key in large) for bundle in (half, full)]
    assert 0.5 < sizes[0] / sizes[1] < 0.65  # names, vectors
    for key in large:
        found = half.network(key).state_dict()
        for name, value in full.network(key).state_dict().items():
            torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-6)
    assert torch.equal(style_code(half), style_code(full))  # from the mapping network in full precision


def test_published_sizes_are_read_off_the_weights():
    for case, config in (("vtoonify_d_in256_out1024_cm2", PUBLISHED_D), ("vtoonify_t_in256_out1024_cm2", PUBLISHED)):
        state = {e["name"]: torch.empty(e["shape"], device="meta") for e in golden_data.manifest(case)}
        assert vtoonify_config(state) == config


def test_checkpoints_in_the_older_format_and_with_more_in_them(repository, tmp_path, full):
    path = repository / D.sources["vtoonify"]
    contents = {"g": {"w": torch.ones(3)}, "g_ema": checkpoint("dualstylegan", sum(map(ord, D.file))).state_dict(),
                "args": argparse.Namespace(lr=1e-4, style="pixar"), "iteration": 2000}
    path.unlink()
    torch.save(contents, path, _use_new_zipfile_serialization=False)
    bundle = convert(D, repository, tmp_path / "out", half=False)
    assert load_file(bundle.path("vtoonify")).keys() == load_file(full.path("vtoonify")).keys()
    assert bundle.info["files"]["vtoonify"]["sha256"] == full.info["files"]["vtoonify"]["sha256"]


def test_landmarks_of_the_user_or_ours(repository, tmp_path, full, landmark_file):
    ours = load_bundle(conversion.OUR_LANDMARKS)
    assert full.info["files"]["landmarks"]["sha256"] == ours.info["files"]["landmarks"]["sha256"]
    shutil.copyfile(landmark_file, repository / LANDMARKS)
    bundle = convert(T, repository, tmp_path / "out")
    assert bundle.path("landmarks").read_bytes() == landmark_file.read_bytes()
    assert "not for commercial use" in bundle.info["provenance"]["landmarks"]
    (repository / LANDMARKS).write_bytes(b"68 points")
    with pytest.raises(UnfitFile, match="68_face_landmarks.dat is not a dlib shape predictor"):
        convert(T, repository, tmp_path / "spoilt")
    assert not (tmp_path / "spoilt" / "bundle.json").exists()


# ---------------------------------------------------------------------------------------------- files that do not fit
def spoil(repository: Path, how: str) -> str:
    """Spoil one file; → its path in the repository."""
    paths = {role: repository / name for role, name in D.sources.items()}
    good = checkpoint("dualstylegan", 7).state_dict()
    few = {k: v[:, :3] for k, v in styles(60).items()}
    contents = {
        "no g_ema": ("vtoonify", {"g": good}), "not weights": ("vtoonify", {"g_ema": {"a": 1}}),
        "a list": ("vtoonify", [good]), "T for D": ("vtoonify", {"g_ema": checkpoint("toonify").state_dict()}),
        "missing weight": ("vtoonify", {"g_ema": {k: v for k, v in good.items() if k != "res.3.norm.style.bias"}}),
        "missing unread weight": ("vtoonify", {"g_ema": {k: v for k, v in good.items() if "noise_0" not in k}}),
        "foreign weight": ("vtoonify", {"g_ema": good | {"extra.weight": torch.ones(2)}}),
        "wrong shape": ("vtoonify", {"g_ema": good | {"encoder.2.weight": torch.ones(3, 8, 1, 1)}}),
        "number for a weight": ("vtoonify", {"g_ema": good | {"generator.generator.conv1.conv.weight": torch.ones(1)}}),
        "missing head": ("parsing", {k: v for k, v in parser().state_dict().items() if "conv_out32" not in k}),
        "nothing": ("parsing", {}),
        "no average": ("style_encoder", {"state_dict": {f"encoder.{k}": v for k, v in
                                                        encoder().encoder.state_dict().items()}}),
        "wrong average": ("style_encoder", {"state_dict": {f"encoder.{k}": v for k, v in
                                                           encoder().encoder.state_dict().items()},
                                            "latent_avg": torch.zeros(3, 3)}),
        "decoder only": ("style_encoder", {"state_dict": {"decoder.w": torch.ones(2)}, "latent_avg": torch.ones(2)}),
        "few styles": ("styles", styles(52)), "short styles": ("styles", few), "no dict": ("styles", np.ones(3)),
        "strings": ("styles", {"a": "b"}), "nan": ("styles", {k: v * np.nan for k, v in styles(60).items()}),
    }
    role, what = contents[how]
    paths[role].unlink()
    if role == "styles":
        np.save(paths[role], what)
    else:
        torch.save(what, paths[role])
    return D.sources[role]


UNFIT = {
    "no g_ema": "does not hold the weights of a network under 'g_ema'", "not weights": "does not hold the weights",
    "a list": "does not hold the weights", "T for D": "made for the backbone 'toonify', expected 'dualstylegan'",
    "missing weight": "1 weights are missing and 0 are unknown, for example res.3.norm.style.bias",
    "missing unread weight": "1 weights are missing .*noise_0", "foreign weight": "1 are unknown, .*extra.weight",
    "wrong shape": r"encoder.2.weight has shape \[3, 8, 1, 1\], expected \[3, 16, 1, 1\]",
    "number for a weight": "generator.generator.conv1.conv.weight is missing or has another shape",
    "missing head": "weights are missing .*conv_out32", "nothing": "does not hold the weights",
    "no average": "has no latent_avg", "wrong average": r"latent_avg has shape \[3, 3\], expected \[10, 32\]",
    "decoder only": "encoder.input_layer.0.weight is missing",
    "few styles": "has 52 styles, 0 to 51; pixar-d needs number 52", "short styles": "is not a code of finite numbers",
    "no dict": "does not hold style codes", "strings": "style 'a' is not a code", "nan": "is not a code of finite",
}


@pytest.mark.parametrize("how", UNFIT)
def test_files_that_do_not_fit(repository, tmp_path, full, how):
    name = spoil(repository, how)
    with pytest.raises(UnfitFile, match=UNFIT[how]) as caught:
        convert(D, repository, tmp_path / "out", half=False, siblings=[full])  # the sound parts are linked
    assert caught.value.path == repository / name and str(repository / name) in str(caught.value)
    assert not (tmp_path / "out" / "bundle.json").exists()


def test_encoder_of_another_size(repository, tmp_path, full):
    from vtoonify_lib.models.psp import PSP

    other = PSP(LAYERS + 2, 4).state_dict()
    average = other.pop("latent_avg")
    replace(repository / D.sources["style_encoder"], {"state_dict": other, "latent_avg": average[None]})
    with pytest.raises(UnfitFile, match=r"makes style codes \[12, 32\]; the checkpoint reads \[10, 32\]"):
        convert(D, repository, tmp_path / "out", half=False, siblings=[full])


@pytest.mark.parametrize("role", D.sources)
def test_hostile_files_are_refused_and_forgotten(repository, cache, tmp_path, role):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'marker'}",)

    path = repository / D.sources[role]
    path.unlink()
    if role == "styles":
        np.save(path, {"style": Evil()})
    else:
        torch.save({"g_ema": {"w": Evil()}, "state_dict": {"w": Evil()}, "w": Evil()}, path)
    with pytest.raises(UnfitFile, match=rf"{D.sources[role]} was refused: it names {os.system.__module__}.system"):
        quiet("pixar-d", repository, accept_licence=True)
    assert not (tmp_path / "marker").exists() and path.exists()  # a user's own file is not deleted
    assert json.loads((cache / "pins.json").read_text()).keys() == set(D.sources.values()) - {D.sources[role]}
    assert not (cache / "bundles" / "pixar-d" / "bundle.json").exists()


def test_missing_files(repository, tmp_path):
    (repository / D.sources["styles"]).unlink()
    with refuses("missing", repository, D.sources["styles"]):
        convert(D, repository, tmp_path / "out")
    with refuses("missing", tmp_path / "nowhere.pt"):
        convert(T, {role: tmp_path / "nowhere.pt" for role in T.sources}, tmp_path / "out")


# ---------------------------------------------------------------------------------------------- sharing
def test_presets_from_the_same_files_share_them(pristine, cache, tmp_path):
    first = convert(T, pristine, cache / "bundles" / "pixar-t")
    second = convert(D, pristine, cache / "bundles" / "pixar-d", siblings=[first])
    for key in ("parsing", "style_encoder"):
        assert second.path(key).samefile(first.path(key))
    assert second.path("landmarks").samefile(first.path("landmarks"))
    assert not second.path("vtoonify").samefile(first.path("vtoonify"))
    third = convert(D, pristine, tmp_path / "other", siblings=[first, second])
    assert third.path("vtoonify").samefile(second.path("vtoonify"))
    assert third.path("styles").samefile(second.path("styles"))
    assert third.published["style_names"] == second.published["style_names"]
    assert third.network("vtoonify").config == TINY_D
    full = convert(T, pristine, tmp_path / "full", half=False, siblings=[first, second])
    assert not full.path("parsing").samefile(first.path("parsing"))  # another precision


def test_sharing_never_spreads_damage(pristine, cache, tmp_path, monkeypatch, landmark_file):
    first = convert(T, pristine, cache / "bundles" / "pixar-t")
    damaged = first.folder / "parsing.safetensors"
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)
    (first.folder / "style_encoder.safetensors").unlink()
    (first.folder / "landmarks.dat").write_bytes(b"damaged")
    second = convert(D, pristine, tmp_path / "other", siblings=[first])
    assert second.network("parsing") and second.network("style_encoder") and second.path("landmarks")
    monkeypatch.setattr(conversion.os, "link", lambda *_: (_ for _ in ()).throw(OSError("no links here")))
    third = convert(D, pristine, tmp_path / "copy", siblings=[second])
    assert not third.path("parsing").samefile(second.path("parsing")) and third.network("parsing")
    # Making one bundle anew leaves those that share its files as they are.
    monkeypatch.undo()
    fourth = convert(D, pristine, tmp_path / "fourth", siblings=[third])
    convert(D, pristine, third.folder, half=False)
    shutil.copyfile(landmark_file, tmp_path / "dlib.dat")
    files = {role: pristine / name for role, name in D.sources.items()}
    assert convert(D, files | {"landmarks": tmp_path / "dlib.dat"}, third.folder, half=False).path("landmarks")
    assert load_bundle(fourth.folder).network("parsing") and load_bundle(fourth.folder).path("landmarks")


def test_an_interrupted_conversion_is_no_bundle(pristine, tmp_path, monkeypatch):
    convert(T, pristine, tmp_path / "out")
    stop = lambda path: (_ for _ in ()).throw(KeyboardInterrupt)  # noqa: E731
    monkeypatch.setitem(conversion.READERS, "style_encoder", ("psp", stop))
    with pytest.raises(KeyboardInterrupt):
        convert(T, pristine, tmp_path / "out")
    assert not (tmp_path / "out" / "bundle.json").exists()
    monkeypatch.undo()
    assert convert(T, pristine, tmp_path / "out").problem() is None


def test_other_files_in_the_folder_stay(pristine, tmp_path):
    (tmp_path / "mine.safetensors").write_text("mine")
    bundle = convert(T, pristine, tmp_path)
    assert (tmp_path / "mine.safetensors").read_text() == "mine" and "mine" not in bundle.info["files"]


def test_a_folder_that_cannot_be_written(pristine, tmp_path):
    (tmp_path / "file").write_text("")
    with refuses("unwritable", tmp_path / "file"):
        convert(T, pristine, tmp_path / "file")
