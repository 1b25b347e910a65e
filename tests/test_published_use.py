"""Published styles in use: files in the published format → convert → load → picture, clip, demo.

The files are small and their weights random, so pictures are compared with the networks called by hand, not looked at.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from errors import refuses
from golden_data import Case
from golden_modules import filled
from people import photograph, scene, write_clip

from vtoonify_lib.apps.demo import demo
from vtoonify_lib.config import TINY, VToonifyError
from vtoonify_lib.faces.crop import align_face, paste_back
from vtoonify_lib.faces.parsing_maps import network_input
from vtoonify_lib.faces.preprocessing import OURS, PUBLISHED, truncated_image
from vtoonify_lib.inference import networks
from vtoonify_lib.inference import toonifier as pipeline
from vtoonify_lib.inference.networks import TorchEngine
from vtoonify_lib.inference.toonifier import Toonifier
from vtoonify_lib.media.images import to_tensor
from vtoonify_lib.media.video import probe, read_frames
from vtoonify_lib.models import latents
from vtoonify_lib.models.psp import PSP
from vtoonify_lib.styles.request import Look, ResolvedLook
from vtoonify_lib.weights import published
from vtoonify_lib.weights.bundle import load_bundle
from vtoonify_lib.weights.published import PRESETS, style_code

SCALE = TINY.scale
pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def exact(monkeypatch):
    monkeypatch.setattr(networks, "pick_dtype", lambda device: torch.float32)


def by_hand(toonifier: Toonifier, rgb: np.ndarray, structure: float | None, style: int | None = None,
            color: bool = False) -> np.ndarray:
    """The published pipeline, written out."""
    bundle, face = toonifier.bundle, toonifier.finder.faces(rgb)[0]
    plan = PUBLISHED.plan(rgb.shape, face.landmarks, bundle.config.in_size, None)
    crop = to_tensor(PUBLISHED.cut(rgb, plan))
    network = bundle.network("vtoonify")
    z_plus = bundle.network("style_encoder")(to_tensor(align_face(rgb, face.landmarks, 256)))
    w_plus = network.map(z_plus)
    x = network_input(crop, bundle.network("parsing")(crop))
    if structure is None:
        return truncated_image(network(x, w_plus))[0]
    exemplar = style_code(bundle, style)
    code = exemplar if color else latents.with_color_of(exemplar, w_plus)
    return truncated_image(network(x, code, structure))[0]


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and np.abs(a.astype(int) - b).max() <= 1


# ---------------------------------------------------------------------------------------------- pictures
def test_vtoonify_d_draws_what_its_parts_draw(ready, exact):
    toonifier, rgb = Toonifier.load("pixar-d", "cpu"), photograph()
    assert toonifier.preprocessing is PUBLISHED
    usual = toonifier.image(rgb)
    assert same(usual, by_hand(toonifier, rgb, 0.5, 52)) and usual.shape[0] % (8 * SCALE) == 0
    for look, arguments in ((Look(3, 0), (0.0, 3)), (Look(structure=1, color=0), (1.0, 52))):
        picture = toonifier.image(rgb, look=look)
        assert same(picture, by_hand(toonifier, rgb, *arguments)) and not same(picture, usual)


def test_vtoonify_t_draws_what_its_parts_draw(ready, exact):
    toonifier, rgb = Toonifier.load("pixar-t", "cpu"), photograph()
    assert same(toonifier.image(rgb), by_hand(toonifier, rgb, None))


def test_colour_transfer_takes_the_exemplar_alone(ready, exact, monkeypatch):
    toonifier, rgb = Toonifier.load("illustration2-d", "cpu"), photograph()
    expected = by_hand(toonifier, rgb, 0.5, 4, color=True)
    monkeypatch.setattr(PSP, "forward", lambda *_: pytest.fail("the face's own code is not needed"))
    assert same(toonifier.image(rgb), expected)


def test_a_fixed_checkpoint_at_its_style_and_degree(ready, exact):
    toonifier, rgb = Toonifier.load("cartoon1", "cpu"), photograph()
    expected = by_hand(toonifier, rgb, 0.5, 26)
    assert same(toonifier.image(rgb), expected)
    assert same(toonifier.image(rgb, look=Look(26, 0.5, 0)), expected)


def test_padding_and_the_full_frame(ready):
    toonifier, rgb = Toonifier.load("pixar-d", "cpu"), scene(800, 400, [(250, 100, 240)])
    crop, narrow = toonifier.image(rgb), toonifier.image(rgb, padding=16)
    assert narrow.size < crop.size and max(narrow.shape) <= 2 * 16 * SCALE
    full = toonifier.image(rgb, frame="full")
    plan = PUBLISHED.plan(rgb.shape, toonifier.finder.faces(rgb)[0].landmarks, 32, None)
    mask = toonifier.networks.person_mask(crop, toonifier.networks.parse(PUBLISHED.cut(rgb, plan)[None]))
    assert (full == paste_back(rgb, crop, plan, mask)).all() and (full[:, :20] == rgb[:, :20]).all()


def test_style_assembly_has_the_published_numbers():
    """Structure layers of the exemplar, colour layers of the face, both through the checkpoint's mapping network."""
    case, network = Case("pipeline_d_in64_out256_cm1"), filled("vtoonify_d_in64_out256_cm1")
    encoder = PSP(n_styles=14, width=8)
    encoder.forward = lambda image: case.inputs["psp_codes"]
    parts = {"vtoonify": network, "parsing": torch.nn.Identity(), "style_encoder": encoder}
    preset = asdict(PRESETS["pixar"])
    bundle = SimpleNamespace(network=parts.get, published={"preset": preset}, name="pixar", styles={},
                             tensors=lambda key: {"w_plus": network.map(case.inputs["exstyle_zplus"])})
    face = np.zeros((256, 256, 3), np.uint8)
    engine = TorchEngine(bundle, torch.device("cpu"), PUBLISHED)
    look = ResolvedLook(bundle, Look(52, 0.5, 0.0), style_code(bundle, 52))
    case.check("style", look.code(lambda: engine.encode(face)))


def test_half_precision_draws_almost_the_same(ready, monkeypatch):
    rgb, pictures = photograph(), []
    for dtype in (torch.float32, torch.bfloat16):
        monkeypatch.setattr(networks, "pick_dtype", lambda device, dtype=dtype: dtype)
        pictures.append(Toonifier.load("pixar-d", "cpu").image(rgb).astype(int))
    assert 0 < np.abs(pictures[0] - pictures[1]).mean() < 4


# ---------------------------------------------------------------------------------------------- what is not possible
@pytest.mark.parametrize(("name", "look", "message"), [
    ("cartoon1", Look(style=3), "^this checkpoint has one style, 26; drop --style or load cartoon1-d$"),
    ("cartoon1", Look(structure=0.2), "one structure degree, 0.5; drop --structure or load cartoon1-d"),
    ("pixar-d", Look(style=54), "no pixar style 54; they are numbered 0 to 53"),  # as many as the file has
    ("pixar-d", Look(structure=1.1), "structure degree is 1.1; it must lie between 0"),
    ("pixar-d", Look(color=1), "keeps your colours and cannot do otherwise"),
    ("illustration2-d", Look(color=0), "takes the style's colours and cannot do otherwise"),
    ("pixar-t", Look(style=1), "pixar-t has one look and no styles to choose from; drop --style or load pixar-d"),
    ("pixar-t", Look(structure=0.5), "pixar-t has no structure degree"),
])
def test_looks_that_a_checkpoint_has_not(ready, tmp_path, name, look, message):
    toonifier = Toonifier.load(name, "cpu")
    with pytest.raises(VToonifyError, match=message):
        toonifier.image(photograph(), look=look)
    clip = write_clip(tmp_path / "a.mp4", [scene()] * 2)
    with pytest.raises(VToonifyError, match=message):
        toonifier.video(clip, tmp_path / "b.mp4", look=look, progress=False)
    assert not (tmp_path / "b.mp4").exists()


@pytest.mark.parametrize("wish", [{"style": 0}, {"structure": 0.5}, {"color": 0}])
def test_our_bundle_has_one_look(toonifier, wish):
    assert toonifier.preprocessing is OURS
    with pytest.raises(VToonifyError, match=f"tiny has one look, .* drop --{next(iter(wish))}, or load looks or a"):
        toonifier.image(photograph(), look=Look(**wish))


@pytest.mark.parametrize(("wish", "message"), [
    ({"style": 2.5}, "style is 2.5; expected a number, a name, a path"), ({"style": True}, "style is True"),
    ({"structure": "much"}, "'much' is neither a number nor keyframes"), ({"structure": True}, "structure is True"),
    ({"color": [1]}, r"color is \[1\]; expected a number from 0 to 1, or keyframes"),
    ({"seed": -1}, "seed is -1")])
def test_wishes_of_another_type(wish, message):
    with pytest.raises(VToonifyError, match=message):
        Look(**wish)


def test_numbers_from_numpy_are_numbers():
    assert Look(np.int64(3), np.float32(0.5), np.int8(0)).resolve_for_preset(PRESETS["pixar-d"]) == Look(3, 0.5, 0.0)
    assert Look(color=True).resolve_for_preset(PRESETS["illustration1-d"]) == Look(54, 0.5, 1.0)


# ---------------------------------------------------------------------------------------------- getting them
def test_load_from_a_folder_asks_once(files, cache):
    asked = []
    toonifier = Toonifier.load("pixar-t", "cpu", source=files, ask=lambda notice: asked.append(notice) or True,
                               tell=lambda line: None, progress=False)
    assert len(asked) == 1 and "non-commercial" in asked[0]
    assert toonifier.bundle.folder == cache / "bundles" / "pixar-t" and toonifier.image(photograph()).size > 0
    assert "dlib's 68 points" in toonifier.bundle.info["provenance"]["landmarks"]
    Toonifier.load("pixar-t", "cpu", ask=lambda notice: pytest.fail("asked again"))


def test_our_landmarks_stand_in_for_dlibs(files, tmp_path):
    for name in PRESETS["pixar-t"].sources.values():  # VToonify-T alone: nothing of VToonify-D, no landmark file
        (tmp_path / "t" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(files / name, tmp_path / "t" / name)
    toonifier = Toonifier.load("pixar-t", "cpu", source=tmp_path / "t", accept_licence=True, tell=lambda line: None,
                               progress=False)
    ours = load_bundle("studio-t").info["files"]["landmarks"]["sha256"]
    assert toonifier.bundle.info["files"]["landmarks"]["sha256"] == ours
    assert toonifier.image(photograph()).size > 0


def test_without_consent_nothing_is_made(files, cache):
    with pytest.raises(VToonifyError, match="non-commercial use only.*--accept-licence, or accept_licence=True"):
        Toonifier.load("pixar-d", "cpu", source=files)
    assert not cache.exists()


def test_the_device_is_checked_before_anything_is_fetched(files, cache):
    with pytest.raises(VToonifyError, match="unknown device 'tpu'"):
        Toonifier.load("pixar-d", "tpu", source=files, accept_licence=True)
    assert not cache.exists()


def test_names_and_sources_that_do_not_fit(files, tiny_bundle):
    with refuses("unknown", "'pixard'", "pixar-d"):
        Toonifier.load("pixard")
    with pytest.raises(VToonifyError, match="no bundle 'zebra'; .* bundle folder$"):
        Toonifier.load("zebra")
    with refuses("unknown", "studio-t", "--from"):
        Toonifier.load("studio-t", source=files)
    with pytest.raises(TypeError, match="devise"):
        Toonifier.load("studio-t", devise="cpu")
    with refuses("unfetched", "HF_HUB_OFFLINE", "--from FOLDER"):
        Toonifier.load("pixar-d", accept_licence=True, tell=lambda line: None, progress=False)


def test_a_bundle_of_the_users_own_goes_first(tiny_bundle, tmp_path, monkeypatch):
    shutil.copytree(tiny_bundle.folder, tmp_path / "mine" / "pixar-d")
    monkeypatch.setenv("VTOONIFY_MODELS", str(tmp_path / "mine"))
    assert Toonifier.load("pixar-d", "cpu").bundle.folder == tmp_path / "mine" / "pixar-d"


def test_either_precision_is_used_as_it_is(files, cache):
    folder = published.convert("pixar-t", files, cache / "bundles" / "pixar-t", half=False).folder
    before = (folder / "bundle.json").stat().st_mtime_ns
    assert Toonifier.load("pixar-t", "cpu").bundle.folder == folder
    assert (folder / "bundle.json").stat().st_mtime_ns == before


# ---------------------------------------------------------------------------------------------- clips
@pytest.mark.parametrize(("name", "look"), [("pixar-d", Look(2, 0.9)), ("pixar-t", Look())])
def test_a_clip_is_cut_and_drawn_as_published(ready, tmp_path, monkeypatch, name, look):
    src = write_clip(tmp_path / "a.mp4", [scene()] * 4)
    toonifier, drawn, degrees = Toonifier.load(name, "cpu"), [], []
    painter = toonifier.networks.painter

    def watched(code, structure):
        draw = painter(code, structure)
        degrees.append(structure)
        return lambda crops, logits: drawn.append((crops[0], draw(crops, logits))) or drawn[-1][1]

    monkeypatch.setattr(toonifier.networks, "painter", watched)
    result = toonifier.video(src, tmp_path / "b.mp4", look=look, progress=False)
    after = list(read_frames(result.path))
    assert result.frames == len(after) == len(drawn) == 4 and result.steady and probe(result.path).has_audio
    assert result.size == (result.crop[0] * SCALE, result.crop[1] * SCALE)
    frame, wanted = next(iter(read_frames(src))).rgb, look.resolve(toonifier.bundle)
    plan = PUBLISHED.plan(frame.shape, toonifier.finder.faces(frame)[0].landmarks, 32, None)
    face = align_face(frame, toonifier.finder.faces(frame)[0].landmarks, 256)
    crop, picture = drawn[0]
    assert degrees == [wanted.structure] and np.abs(np.subtract(crop.shape, (plan.height, plan.width, 3))).max() <= 8
    # Tracked landmarks differ a little from those of a single picture, and the crop with them.
    again = painter(toonifier.style_code(face, look), wanted.structure)(crop[None])
    assert np.corrcoef(again.ravel(), picture.ravel())[0, 1] > 0.95
    assert np.corrcoef(after[0].rgb.ravel(), picture.ravel())[0, 1] > 0.8


def test_a_clip_in_which_the_face_comes_late_and_walks(ready, tmp_path, monkeypatch):
    toonifier, published_way = Toonifier.load("pixar-t", "cpu"), []
    monkeypatch.setattr(toonifier, "preprocessing", replace(
        PUBLISHED, cut=lambda frame, plan: published_way.append(plan) or PUBLISHED.cut(frame, plan)))
    late = write_clip(tmp_path / "a.mp4", [scene(people=[])] * 14 + [scene()] * 2)
    result = toonifier.video(late, tmp_path / "b.mp4", frame="full", progress=False)
    assert result.frames == 16 and any("14 of them are left as they are" in n for n in result.warnings)
    assert 2 <= len(published_way) < 16 and result.size == (320, 240)
    published_way.clear()
    walk = write_clip(tmp_path / "c.mp4", [scene(800, 240, [(x, 0, 240)]) for x in np.linspace(-20, 620, 12)])
    result = toonifier.video(walk, tmp_path / "d.mp4", padding=16, progress=False)
    assert result.frames == 12 and not result.steady and not published_way  # between the pixels: cut our way


def test_demo(ready, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "SAMPLE", write_clip(tmp_path / "a.mp4", [scene()] * 3))
    (result,) = demo(tmp_path / "out", "pixar-d", "cpu", Look(1, 0.3), progress=False)
    assert result.frames == 3 and (tmp_path / "out" / "demo_compare.mp4").is_file()
