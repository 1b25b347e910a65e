"""The published checkpoints: registry, consent, and the whole way from a folder or an address to a bundle."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from errors import refuses
from published_files import (
    quiet,
    replace,
)

from vtoonify_lib.config import VToonifyError
from vtoonify_lib.weights.bundle import list_bundles, load_bundle
from vtoonify_lib.weights.published import (
    LICENCE_NOTICE,
    PRESETS,
    has_consent,
    obtain,
    on_disk,
    preset,
)
from vtoonify_lib.weights.published.presets import Preset

D, T = PRESETS["pixar-d"], PRESETS["pixar-t"]
pytestmark = pytest.mark.usefixtures("cache")


def test_the_presets_of_the_public_demo():
    """File suffixes and styles of the 22, and VToonify-T for each family."""
    demo = {"cartoon": [("s026_d0.5", 26), ("s299_d0.5", 299), *(("s_d", i) for i in (26, 64, 153, 299, 8))],
            "comic": [("s_d", 28), ("s_d", 18)],
            "arcane": [("s000_d0.5", 0), ("s077_d0.5", 77), ("s_d", 0), ("s_d", 77)],
            "caricature": [("s039_d0.5", 39), ("s068_d0.5", 68)], "pixar": [("s052_d0.5", 52), ("s_d", 52)],
            "illustration": [(f"s{i:03}_d_c", i) for i in (54, 4, 9, 43, 86)]}
    found = {(p.family, p.file, p.style) for p in PRESETS.values() if p.is_d}
    assert found == {(f, f"vtoonify_{suffix}.pt", style) for f, rows in demo.items() for suffix, style in rows}
    assert len(found) == 22 and len(PRESETS) == 28
    assert {p.sources["vtoonify"] for p in PRESETS.values() if not p.is_d} == {
        f"models/vtoonify_t_{family}/vtoonify.pt" for family in demo}
    counts = {"cartoon": 317, "caricature": 199, "arcane": 100, "comic": 101, "pixar": 122, "illustration": 156}
    for name, p in PRESETS.items():
        assert p.name == name and Preset.from_dict(json.loads(json.dumps(asdict(p)))) == p
        assert p.styles == (counts[p.family] if p.is_d else 0) and (p.style is None or p.style < p.styles)
        assert p.any_style == ("_s_" in p.file) and p.color == ("_c." in p.file)
        assert p.degree == (0.5 if "d0.5" in p.file else None)
        assert name.endswith("-d") == (p.is_d and p.degree is None)


def test_paths_in_the_repository():
    assert D.sources == {
        "vtoonify": "models/vtoonify_d_pixar/vtoonify_s_d.pt", "styles": "models/vtoonify_d_pixar/exstyle_code.npy",
        "parsing": "models/faceparsing.pth", "style_encoder": "models/encoder.pt"}
    assert T.sources == {"vtoonify": "models/vtoonify_t_pixar/vtoonify.pt", "parsing": "models/faceparsing.pth",
                         "style_encoder": "models/encoder.pt"}


def test_abilities_for_a_table():
    assert preset("cartoon1").abilities == "style 26 only, degree 0.5, your colours"
    assert preset("cartoon5-d").abilities == "style 8 of 0–316, any degree, your colours"
    assert preset("illustration2-d").abilities == "style 4 only, any degree, its colours"
    assert T.abilities == "one look"


@pytest.mark.parametrize(("name", "wish", "value", "message"), [
    ("cartoon1", "style", 3, "this checkpoint has one style, 26; drop --style or load cartoon1-d$"),
    ("cartoon1", "style", 299, "one style, 26; drop --style or load cartoon4$"),
    ("illustration2-d", "style", 54, "one style, 4; drop --style or load illustration1-d$"),
    ("caricature1", "style", 5, "one style, 39; drop --style$"),
    ("cartoon-t", "style", 3, "cartoon-t has one look and no styles to choose from; drop --style or load cartoon1-d$"),
    ("pixar-d", "style", 122, "there is no pixar style 122; they are numbered 0 to 121"),
    ("pixar-d", "style", -1, "no pixar style -1"),
    ("pixar", "structure", 0.3, "one structure degree, 0.5; drop --structure or load pixar-d$"),
    ("caricature2", "structure", 0.3, "one structure degree, 0.5; drop --structure$"),
    ("pixar-d", "structure", 1.5, "the structure degree is 1.5; it must lie between 0 .* and 1"),
    ("pixar-d", "structure", float("nan"), "structure degree is nan"),
    ("arcane-t", "structure", 0.5, "arcane-t has no structure degree; drop --structure or load arcane1-d"),
    ("pixar-d", "color", 1, "this checkpoint keeps your colours and cannot do otherwise; drop --color$"),
    ("illustration1-d", "color", False, "takes the style's colours and cannot do otherwise; drop --color$"),
    ("pixar-d", "color", 0.5, "the colour degree is 0.5; it is 0 .your colours. or 1"),
])
def test_wishes_that_cannot_be_fulfilled(name, wish, value, message):
    with pytest.raises(VToonifyError, match=message):
        getattr(preset(name), f"check_{wish}")(value)


def test_wishes_that_can():
    assert [D.check_style(s) for s in (None, 0, 121)] == [52, 0, 121] and preset("pixar").check_style(52) == 52
    assert [D.check_structure(d) for d in (None, 0, 1)] == [0.5, 0.0, 1.0]
    assert preset("pixar").check_structure(None) == preset("pixar").check_structure(0.5) == 0.5
    assert T.check_style(None) is None and T.check_structure(None) is None and T.check_color(0) is False
    assert preset("illustration1-d").check_color(None) is True and D.check_color(None) is False


def test_unknown_presets():
    with refuses("unknown", "'pixard'", "pixar-d"):
        preset("pixard")
    with refuses("unknown", "illustration-t"):
        preset("studio")


def test_consent_is_asked_once_and_never_assumed(pristine, cache):
    asked = []
    with pytest.raises(VToonifyError, match="S-Lab License 1.0 .non-commercial use only: https://.* --accept-licence"):
        quiet("pixar-t", pristine)
    with pytest.raises(VToonifyError, match="not accepted"):
        quiet("pixar-t", pristine, ask=lambda notice: asked.append(notice))  # answers None
    assert asked == [LICENCE_NOTICE] and "non-commercial use only" in LICENCE_NOTICE and "https://" in LICENCE_NOTICE
    assert not has_consent() and not cache.exists()
    quiet("pixar-t", pristine, ask=lambda notice: asked.append(notice) or True)
    assert has_consent() and len(asked) == 2
    quiet("pixar-d", pristine, ask=lambda notice: pytest.fail("asked again"))
    (cache / "consent.json").write_text("[")
    assert not has_consent()


def test_accepting_beforehand_shows_the_licence_all_the_same(pristine):
    lines = []
    obtain("pixar-t", pristine, accept_licence=True, tell=lines.append, progress=False)
    assert lines[0] == LICENCE_NOTICE
    assert len(lines) == 5 and all("sha256" in line and "pinned now" in line and " MB" in line for line in lines[1:4])
    assert lines[4] == "converting pixar-t, once"
    lines.clear()
    obtain("pixar-d", pristine, tell=lines.append, progress=False)
    assert LICENCE_NOTICE not in lines and sum("as pinned" in line for line in lines) == 2


def test_from_folder_to_bundle_by_name(pristine, cache):
    assert on_disk(D) == "-"
    folder = quiet("pixar-d", str(pristine), accept_licence=True)
    assert folder == cache / "bundles" / "pixar-d"
    assert load_bundle("pixar-d").folder == folder and "pixar-d" in [b.name for b in list_bundles()]
    assert on_disk(D).startswith("ready, ") and on_disk(T) == "-"
    before = (folder / "bundle.json").stat().st_mtime_ns
    assert quiet("pixar-d") == folder  # without source, without network
    assert (folder / "bundle.json").stat().st_mtime_ns == before
    (folder / "parsing.safetensors").unlink()
    quiet("pixar-d", pristine)
    assert load_bundle("pixar-d").problem() is None


def test_from_an_address(pristine, cache, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(pristine)))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        folder = quiet("pixar-t", f"http://127.0.0.1:{server.server_port}/", accept_licence=True)
    finally:
        server.shutdown()
        server.server_close()
    assert load_bundle(folder).network("vtoonify")
    (folder / "bundle.json").unlink()
    assert on_disk(T) == "3 of 3 files"
    assert quiet("pixar-t") == folder  # what was downloaded is enough
    assert on_disk(D) == "2 of 4 files"


def test_offline_says_what_to_do(monkeypatch):
    with refuses("unfetched", "HF_HUB_OFFLINE", "--from FOLDER"):
        quiet("cartoon1", accept_licence=True)


def test_an_unknown_preset_asks_nothing():
    with refuses("unknown", "pixarr"):
        quiet("pixarr", ask=lambda notice: pytest.fail("asked"))


def test_a_changed_file_is_refused(repository, cache):
    quiet("pixar-t", repository, accept_licence=True)
    contents = torch.load(repository / T.sources["vtoonify"], weights_only=True)
    contents["g_ema"]["encoder.2.bias"] += 1
    replace(repository / T.sources["vtoonify"], contents)
    assert quiet("pixar-t", repository) == cache / "bundles" / "pixar-t"  # converted: the source is not looked at
    (cache / "bundles" / "pixar-t" / "parsing.safetensors").unlink()  # to be made anew
    with refuses("changed", repository / T.sources["vtoonify"]):
        quiet("pixar-t", repository)
    assert load_bundle("pixar-t").network("vtoonify")  # what was there stays
