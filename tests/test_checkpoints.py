"""Bundles: what is saved comes back, and a wrong or changed one is refused with a sentence that helps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from errors import refuses
from safetensors.torch import load_file

from vtoonify_lib.config import TINY
from vtoonify_lib.models.dualstylegan import DualStyleGAN
from vtoonify_lib.models.encoders import ParsingNet, StyleEncoder
from vtoonify_lib.models.sampler import style_sampler
from vtoonify_lib.models.vtoonify import VToonify
from vtoonify_lib.weights import bundle as checkpoints
from vtoonify_lib.weights.bundle import Bundle, list_bundles, load_bundle, save_bundle
from vtoonify_lib.weights.downloads import sha256_of


@pytest.fixture
def copy(tiny_bundle, tmp_path) -> Path:
    """A copy of the tiny bundle that may be spoiled."""
    return Path(shutil.copytree(tiny_bundle.folder, tmp_path / "copy"))


def edit(folder: Path, **changes) -> None:
    path = folder / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_round_trip_in_half_and_full_precision(tmp_path):
    torch.manual_seed(0)
    network, parsing = VToonify(TINY), ParsingNet(widths=(8, 16))
    networks, models = {"vtoonify": network, "parsing": parsing}, {"parsing": {"widths": [8, 16]}}
    for half in (False, True):
        bundle = save_bundle(tmp_path / str(half), name="a", title="A", config=TINY, half=half,
                             networks=networks, models=models)
        for key, original in networks.items():
            loaded = bundle.network(key)
            assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
            for name, value in original.state_dict().items():
                back = loaded.state_dict()[name]
                assert back.dtype == value.dtype
                torch.testing.assert_close(back, value, rtol=1e-3 if half else 0, atol=1e-6 if half else 0)
    sizes = [load_bundle(tmp_path / name).bytes for name in ("True", "False")]
    assert sizes[0] < 0.6 * sizes[1]
    assert bundle.config == TINY and bundle.problem() is None


def test_a_dualstylegan_and_what_belongs_to_it_survive_half_precision(tmp_path):
    """Weights of slow layers are a hundred times as large as they act, the mean of a sampler's codes is in its bias."""
    torch.manual_seed(0)
    d = TINY.generator.style_dim
    arguments = {"image_size": 32, "n_latent": 1, "style_dim": d, "width": 8}
    encoders = {"person_encoder": arguments, "identity": arguments}
    networks = {"dual": DualStyleGAN(TINY.generator), "sampler": style_sampler(2 * d),
                **{key: StyleEncoder(**arguments) for key in encoders}}
    networks["sampler"][-1].bias.data.fill_(3 / networks["sampler"][-1].lr_mul)
    bundle = save_bundle(tmp_path, name="a", title="", config=TINY, networks=networks, models=encoders)
    assert bundle.tensors("sampler")["1.weight"].dtype == torch.float16
    assert bundle.tensors("sampler")["4.bias"].dtype == torch.float32
    photo, noise, w = torch.randn(2, 3, 32, 32), torch.randn(64, 2 * d), torch.randn(2, d)
    asked = {"dual": (w, w.flip(0), 1.0), "sampler": (noise,), "person_encoder": (photo,), "identity": (photo,)}
    for key, network in networks.items():
        with torch.no_grad():
            want, got = (net.eval()(*asked[key]) for net in (network, bundle.network(key)))
        assert float((want - got).square().mean().sqrt()) < 0.01 * float(want.std()), key
    assert float(bundle.network("sampler")(noise).mean()) == pytest.approx(3, abs=0.5)


def test_vectors_and_huge_values_stay_in_full_precision(tmp_path):
    layer = torch.nn.Linear(4, 4)
    layer.weight.data[0, 0] = 1e6
    stored = {k: checkpoints._stored(v, half=True).dtype for k, v in layer.state_dict().items()}
    assert set(stored.values()) == {torch.float32}


def test_shared_and_transposed_weights_can_be_saved(tmp_path, monkeypatch):
    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3).t())
            self.register_buffer("b", self.a.data)

    monkeypatch.setitem(checkpoints.NETWORKS, "odd", lambda config, arguments: Odd())
    bundle = save_bundle(tmp_path, name="odd", title="", config=TINY, networks={"odd": Odd()}, half=False)
    assert torch.equal(load_file(bundle.path("odd"))["b"], Odd().b)


def test_bundle_json_describes_itself(tiny_bundle):
    info = json.loads((tiny_bundle.folder / "bundle.json").read_text())
    assert info["format"] == 1 and info["backbone"] == "toonify" and info["licence"] == "CC0-1.0"
    for entry in info["files"].values():
        path = tiny_bundle.folder / entry["path"]
        assert entry["bytes"] == path.stat().st_size and entry["sha256"] == sha256_of(path)
    assert load_bundle(tiny_bundle.folder / "bundle.json").info == info


def test_found_by_name_and_listed(tiny_bundle, monkeypatch):
    monkeypatch.setenv("VTOONIFY_MODELS", str(tiny_bundle.folder.parent))
    assert load_bundle("tiny").folder == tiny_bundle.folder
    assert "tiny" in [bundle.name for bundle in list_bundles()]


def test_unknown_bundle_lists_the_known_ones(tiny_bundle, monkeypatch, tmp_path):
    monkeypatch.setenv("VTOONIFY_MODELS", str(tiny_bundle.folder.parent))
    with refuses("unknown", "'pixar'", "tiny"):
        load_bundle("pixar")
    with refuses("unknown", "bundle.json"):
        load_bundle(tmp_path)


def test_wrong_hash_is_refused(copy):
    path = copy / "parsing.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with refuses("changed", path):
        load_bundle(copy).network("parsing")
    load_bundle(copy).network("vtoonify")


def test_missing_file(copy):
    (copy / "landmarks.dat").unlink()
    bundle = load_bundle(copy)
    assert bundle.problem() == "landmarks.dat is missing"
    with refuses("missing", "landmarks.dat"):
        bundle.path("landmarks")


@pytest.mark.parametrize(("changes", "fact"), [
    ({"format": 2}, "format 2"),
    ({"files": {"vtoonify": {"path": "../../secret", "sha256": "", "bytes": 1}}}, "files.vtoonify"),
    ({"files": {"vtoonify": {"path": "x"}}}, "files.vtoonify"),
])
def test_bad_descriptions(copy, changes, fact):
    edit(copy, **changes)
    with refuses("unreadable", copy / "bundle.json", fact):
        load_bundle(copy)


def test_description_that_is_not_json_or_no_bundle(copy):
    (copy / "bundle.json").write_text("{")
    with refuses("unreadable", copy / "bundle.json"):
        load_bundle(copy)
    (copy / "bundle.json").write_text("[]")
    with refuses("unreadable", "format"):
        load_bundle(copy)
    (copy / "bundle.json").write_text('{"format": 1, "name": "x"}')
    with refuses("unreadable", "backbone", "config", "files"):
        load_bundle(copy)


def test_weights_that_do_not_fit_their_description(copy):
    info = json.loads((copy / "bundle.json").read_text())
    edit(copy, models=info["models"] | {"parsing": {"widths": [8, 8, 24]}})
    with refuses("unreadable", "parsing", "24"):
        load_bundle(copy).network("parsing")
    edit(copy, models=info["models"] | {"parsing": {"widths": [8, 8]}})
    with refuses("unreadable", "parsing", "0 weights"):
        load_bundle(copy).network("parsing")
    edit(copy, models=info["models"] | {"parsing": {"depth": 3}})
    with refuses("unreadable", "models.parsing"):
        load_bundle(copy).network("parsing")


def test_networks_of_unknown_kind(copy):
    info = json.loads((copy / "bundle.json").read_text())
    edit(copy, models=info["models"] | {"parsing": {"kind": "magic"}})
    with refuses("unreadable", "models.parsing", "magic"):
        load_bundle(copy).network("parsing")
    edit(copy, models=info["models"] | {"parsing": {"kind": "bisenet", "width": 8}})
    with refuses("unreadable", "parsing"):
        load_bundle(copy).network("parsing")


def test_a_network_in_use_does_not_see_its_file_change(tmp_path):
    bundle = save_bundle(tmp_path, name="a", title="", config=TINY, networks={"vtoonify": VToonify(TINY)}, half=False)
    network = bundle.network("vtoonify")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert not any(value.is_meta for value in before.values())
    path = bundle.path("vtoonify")
    path.write_bytes(b"\0" * path.stat().st_size)  # in place: what is mapped into memory would change
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_what_published_noted_is_kept(tmp_path, tiny_bundle):
    bundle = save_bundle(tmp_path, name="a", title="", config=TINY, networks={}, published={"style": 26})
    assert load_bundle(tmp_path / "bundle.json").published == bundle.published == {"style": 26}
    assert tiny_bundle.published == {} and "published" not in tiny_bundle.info


def test_converted_bundles_are_found_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VTOONIFY_CACHE", str(tmp_path))
    save_bundle(tmp_path / "bundles" / "a", name="a", title="", config=TINY, networks={})
    assert load_bundle("a").name == "a" and "a" in [bundle.name for bundle in list_bundles()]


def test_tensors_that_cannot_be_written(tmp_path):
    (tmp_path / "a.safetensors").mkdir()
    with refuses("unwritable", tmp_path / "a.safetensors"):
        checkpoints.save_tensors({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_unknown_keys(tiny_bundle, tmp_path):
    with refuses("unknown", "landmarks", "vtoonify"):
        tiny_bundle.network("landmarks")
    with refuses("unknown", "tiny", "base", "vtoonify"):
        tiny_bundle.network("base")
    with refuses("unknown", "pipeline"):
        save_bundle(tmp_path, name="", title="", config=TINY, networks={"pipeline": VToonify(TINY)})


def test_interrupted_save_leaves_no_bundle(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "sha256_of", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        save_bundle(tmp_path, name="a", title="", config=TINY, networks={"vtoonify": VToonify(TINY)})
    assert not (tmp_path / "bundle.json").exists()


def test_shipped_bundles_are_complete():
    for path in sorted(checkpoints.MODELS_FOLDER.glob("*/bundle.json")):
        bundle = load_bundle(path.parent)
        assert isinstance(bundle, Bundle) and bundle.name == path.parent.name and bundle.problem() is None
        for key in bundle.info["files"]:
            bundle.network(key) if key in checkpoints.NETWORKS else bundle.path(key)
