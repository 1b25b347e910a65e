"""Styles by name, picture and file, blends, moving degrees, recipes: what a bundle of ours makes of them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from errors import refuses
from people import photograph, scene, write_clip
from safetensors.torch import save_file

from vtoonify_lib.apps import cli
from vtoonify_lib.apps.demo import demo
from vtoonify_lib.config import TINY, VToonifyError
from vtoonify_lib.inference import toonifier as pipeline
from vtoonify_lib.inference.toonifier import Toonifier
from vtoonify_lib.media.images import read_image, write_image
from vtoonify_lib.media.video import probe, read_frames
from vtoonify_lib.models.encoders import ParsingNet, StyleEncoder
from vtoonify_lib.models.sampler import style_sampler
from vtoonify_lib.models.vtoonify_d import VToonifyD
from vtoonify_lib.styles import table
from vtoonify_lib.styles.recipe import Recipe
from vtoonify_lib.styles.request import Keyframes, Look, ResolvedLook
from vtoonify_lib.styles.table import StyleCode, StyleTable, load_style, normalised, parse_blend, save_style
from vtoonify_lib.weights.bundle import save_bundle, save_tensors

D = TINY.generator.style_dim
NAMES = ["comic-00", "comic-01", "clay-00", "clay-01"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, landmark_file):
    """`styled`: a random VToonify-D with four styles of two looks, whose ModRes and codes matter."""
    folder = tmp_path_factory.mktemp("models") / "styled"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        models = {"parsing": {"widths": [8, 8, 16]}, "vtoonify": {"inference": True},
                  "style_encoder": {"image_size": 32, "n_latent": 2, "style_dim": D, "width": 8},
                  "sampler": {"width": 2 * D}}
        network = VToonifyD(replace(TINY, backbone="dualstylegan"))
        for block in network.res:
            for conv in (block.conv, block.conv2):
                conv[0].weight.data.mul_(60)
        encoder = StyleEncoder(**models["style_encoder"])
        encoder.head[-1].weight.data.mul_(300)
        networks = {"vtoonify": network.for_inference(), "parsing": ParsingNet(**models["parsing"]),
                    "style_encoder": encoder, "sampler": style_sampler(2 * D)}
        codes, plain = torch.randn(4, 2, D), torch.randn(2, D)
    folder.mkdir()
    save_tensors({"codes": codes, "plain": plain}, folder / "styles.safetensors", half=False)
    described = {"names": NAMES, "looks": {"comic": "comic-01", "clay": "clay-00"},
                 "start": {"style": "comic-00", "structure": 1.0, "color": 0.5}}
    files = {"landmarks": landmark_file, "styles": folder / "styles.safetensors"}
    return save_bundle(folder, name="styled", title="For tests", config=network.config, networks=networks,
                       models=models, files=files, styles=described)


@pytest.fixture(scope="module")
def toonifier(bundle):
    return Toonifier.load(bundle.folder, "cpu")


@pytest.fixture
def named(bundle, monkeypatch):
    """`styled` can be named, and stands in for studio-d."""
    monkeypatch.setenv("VTOONIFY_MODELS", str(bundle.folder.parent))
    monkeypatch.setattr(cli, "STYLED", "styled")
    monkeypatch.setitem(cli.STYLED_BUNDLE["--bundle"], "default", "styled")


def drawn(toonifier, *look, **more) -> np.ndarray:
    return toonifier.image(photograph(), look=Look(*look, **more)).astype(int)


def differ(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).mean())


# -- what a look may be ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("text", "parts"), [
    ("comic", [("comic", 1.0)]), ("comic-01:0.6, clay:0.4", [("comic-01", 0.6), ("clay", 0.4)]),
    ("me.jpg", [("me.jpg", 1.0)]), ("C:\\me.jpg:2,clay", [("C:\\me.jpg", 2.0), ("clay", 1.0)]),
    ("C:\\me.jpg", [("C:\\me.jpg", 1.0)])])
def test_blends_are_written_with_colons_and_commas(text, parts):
    assert parse_blend(text) == parts


@pytest.mark.parametrize("weights", [(-1, 2), (0, 0), (float("nan"), 1), (float("inf"), 1)])
def test_weights_that_are_none(weights):
    with pytest.raises(VToonifyError, match="weights of a blend are .* 0 or more, and not all 0"):
        normalised([("a", w) for w in weights])
    assert normalised([("a", 1), ("b", 3)]) == (("a", 0.25), ("b", 0.75))


def test_keyframes():
    keys = Keyframes.parse("0:0, 2:1, 4:0.5")
    assert [keys.at(t) for t in (-1, 0, 1, 2, 3, 9)] == [0, 0, 0.5, 1, 0.75, 0.5]
    assert Keyframes.parse(str(keys)) == keys
    for text in ("2:1, 0:0", "0:0, 0:1", "-1:0", "nan:0", "0:0, nan:1"):
        with pytest.raises(VToonifyError, match="out of order; give seconds that rise"):
            Keyframes.parse(text)
    for text in ("0:0, 2", "a:b", "", "0:1:2"):
        with pytest.raises(VToonifyError, match="neither a number nor keyframes"):
            Keyframes.parse(text)


def test_a_bundle_decides_every_wish(bundle, toonifier):
    assert Look().resolve(bundle) == Look((("comic-00", 1.0),), 1.0, 0.5)
    assert Look("comic", "0.25", 1).resolve(bundle) == Look((("comic-01", 1.0),), 0.25, 1.0)
    assert Look(3).resolve(bundle).style == Look("3").resolve(bundle).style == (("clay-01", 1.0),)
    moving = Look("clay:3,comic-00:1", "0:0, 2:1").resolve(bundle)
    assert moving.style == (("clay-00", 0.75), ("comic-00", 0.25)) and moving.is_animated
    assert moving.at(1.0) == Look(moving.style, 0.5, 0.5) and moving.resolve(bundle) == moving
    assert toonifier.resolve(moving).request == moving


@pytest.mark.parametrize(("look", "message"), [
    (("pixar",), r"styled has no style 'pixar'; there are comic, clay, each with exemplars such as comic-00"),
    ((4,), "no style 4; those of styled are numbered 0 to 3"), (("none/such.jpg",), "there is no file none/such.jpg"),
    (("comic,",), "has an empty part"), (("comic:-1,clay:2",), "weights of a blend"),
    ((None, 1.5), "the structure degree is 1.5; it must lie between 0 .your features. and 1"),
    ((None, 1, -0.1), "the colour degree is -0.1; it must lie between 0 .your colours."),
    ((None, "0:0, 1:7"), "the structure degree is 7"), ((None, "nan"), "structure degree is nan")])
def test_wishes_that_cannot_be(toonifier, look, message):
    with pytest.raises(VToonifyError, match=message):
        toonifier.image(photograph(), look=Look(*look))


def test_a_picture_has_no_time(toonifier):
    with pytest.raises(VToonifyError, match="keyframes are for clips"):
        drawn(toonifier, None, "0:0, 1:1")


# -- what they do ------------------------------------------------------------------------------------------------------
def test_style_structure_and_color_each_change_the_picture(toonifier):
    usual = drawn(toonifier)
    for look in (("clay",), (None, 0.3), (None, None, 0), (None, None, 1)):
        assert differ(drawn(toonifier, *look), usual) > 1, look
    assert differ(drawn(toonifier, "comic-00", 1, 0.5), usual) == 0
    assert differ(drawn(toonifier, "comic", 0, 0), drawn(toonifier, "clay", 0, 0)) == 0  # the face's own


def test_a_blend_lies_between(toonifier):
    codes = toonifier.styles
    (style, _), = toonifier.resolve(Look("comic-00:1")).request.style
    assert style == "comic-00"
    blend = toonifier.resolve(Look("comic-00:1,clay-01:3")).exemplar
    wanted = 0.25 * codes.codes("comic-00") + 0.75 * codes.codes("clay-01")
    assert torch.allclose(blend[0, 0], wanted[0]) and torch.allclose(blend[0, -1], wanted[1])


def test_style_of_a_picture_and_its_file(toonifier, bundle, tmp_path):
    art = write_image(tmp_path / "art.png", 255 - scene(480, 400, [(0, 0, 400)]) // 2)
    style = toonifier.style_of(art)
    assert style.name == "art" and style.codes.shape == (2, D)
    assert differ(drawn(toonifier, art), drawn(toonifier)) > 1
    file = save_style(tmp_path / "art.safetensors", style, bundle)
    assert load_style(file, bundle) == style and file.stat().st_size < 4000
    assert differ(drawn(toonifier, str(file)), drawn(toonifier, art)) == 0
    assert differ(drawn(toonifier, f"{art}:1,clay:1"), drawn(toonifier, art)) > 0.5


def test_new_styles_come_from_a_seed(toonifier):
    one, two = toonifier.new_style(1), toonifier.new_style(2)
    assert one == toonifier.new_style(1) and one != two and one.name == "new-1"
    assert differ(drawn(toonifier, "new", seed=1), drawn(toonifier, "new", seed=2)) > 0.5


def test_style_pictures_and_files_that_are_none(toonifier, bundle, tiny_bundle, tmp_path):
    blank = write_image(tmp_path / "blank.png", np.zeros((240, 320, 3), np.uint8))
    with refuses("no-face", "blank.png", "320×240"):
        drawn(toonifier, blank)
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"nothing of the kind")
    with refuses("unreadable", broken):
        drawn(toonifier, broken)
    save_file({"codes": torch.zeros(3)}, tmp_path / "other.safetensors")
    with refuses("unreadable", "other.safetensors"):
        drawn(toonifier, tmp_path / "other.safetensors")
    style = StyleCode.from_codes("x", torch.zeros(2, D))
    with refuses("mismatch", "tiny", "styled"):
        load_style(save_style(tmp_path / "x.safetensors", style, tiny_bundle), bundle)
    nan = save_style(tmp_path / "nan.safetensors", StyleCode.from_codes("x", torch.full((2, D), torch.nan)), bundle)
    with refuses("unreadable", nan):
        load_style(nan, bundle)
    for name, fact in (("x.npy", ".safetensors"), ("none/x.safetensors", tmp_path / "none")):
        with refuses("unwritable", fact):
            save_style(tmp_path / name, style, bundle)
    with refuses("unable", "tiny", "looks"):
        Toonifier.load(tiny_bundle.folder, "cpu").style_of(photograph())


# -- clips -------------------------------------------------------------------------------------------------------------
def test_keyframes_move_a_clip(toonifier, tmp_path):
    src = write_clip(tmp_path / "a.mp4", [scene()] * 6, sound=False)

    def frames(name: str, *look) -> list[np.ndarray]:
        toonifier.video(src, tmp_path / name, look=Look(*look), progress=False)
        return [frame.rgb.astype(int) for frame in read_frames(tmp_path / name)]

    low, high = frames("low.mp4", "clay", 0, 0), frames("high.mp4", "clay", 1, 1)
    moving = frames("moving.mp4", "clay", "0:0, 0.2:1", "0:0, 0.2:1")
    apart = differ(low[0], high[0])
    assert len(moving) == 6 and apart > 2
    assert max(differ(moving[0], low[0]), differ(moving[5], high[5])) < 0.2 * apart, apart
    assert min(differ(moving[3], low[3]), differ(moving[3], high[3])) > 0.2 * apart


def test_the_style_is_folded_again_only_when_it_has_moved(toonifier, monkeypatch):
    folds = []
    painter = toonifier.networks.painter
    monkeypatch.setattr(toonifier.networks, "painter", lambda *style: folds.append(1) or painter(*style))
    face, crop = photograph()[:512], photograph()[None, :64, :48]
    for degrees in (("0:0, 1:1", 0.5), (0.5, "0:0, 1:1"), ("0:0, 1:1", "0:0, 1:1")):
        folds.clear()
        draw = toonifier.animator(face, Look("clay", *degrees))
        pictures = [draw(crop, t) for t in (0.0, 0.25, 0.5, 0.75, 2.0, 3.0)]  # at rest after the last keyframe
        steps = [differ(a.astype(int), b) for a, b in zip(pictures, pictures[1:], strict=False)]
        assert len(folds) == 5 and min(steps[:4]) > 0.2 and steps[4] == 0


def test_demo_draws_every_look(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "SAMPLE", write_clip(tmp_path / "a.mp4", [scene()] * 3))
    results = demo(tmp_path / "out", bundle.folder, "cpu", progress=False)
    assert [result.path.name for result in results] == ["demo_comic.mp4", "demo_clay.mp4"]
    compare = probe(tmp_path / "out" / "demo_compare.mp4")
    assert compare.has_audio and compare.width > 2 * results[0].size[0]
    (result,) = demo(tmp_path / "one", bundle.folder, "cpu", Look("clay"), progress=False)
    assert result.path.name == "demo.mp4"


# -- recipes -----------------------------------------------------------------------------------------------------------
def test_a_recipe_replays_to_the_bit(toonifier, bundle, tmp_path):
    art = write_image(tmp_path / "art.png", scene(480, 400, [(0, 0, 400)]))
    look = toonifier.resolve(Look(f"{art}:1,clay:2,new:1", 0.7, 0.2, seed=5))
    recipe = Recipe.load(Recipe.from_look(look, 20, "full", "all", False).save(tmp_path / "r.json"))
    art.unlink()
    assert recipe == Recipe("styled", recipe.weights, look.request, 20, "full", "all", False)
    assert recipe.arguments(clip=True) == recipe.arguments() | {"smooth": False}
    again = toonifier.image(photograph(), **recipe.arguments())
    assert (again == toonifier.image(photograph(), "full", 20, look)).all()
    moving = Recipe.from_look(toonifier.resolve(Look("clay", "0:0, 2:1", seed=np.int64(3))))
    assert Recipe.load(moving.save(tmp_path / "m.json")) == moving


def test_recipes_that_do_not_fit(bundle, tiny_bundle, tmp_path):
    recipe = Recipe.from_look(ResolvedLook(bundle, Look().resolve(bundle)))
    recipe.check(bundle)
    with refuses("mismatch", "styled", "tiny", "--bundle"):
        recipe.check(tiny_bundle)
    with refuses("mismatch", "styled"):
        replace(recipe, weights="0").check(bundle)
    data = json.loads(recipe.save(tmp_path / "r.json").read_text())

    def refused(fact: str, **changes) -> None:
        (tmp_path / "s.json").write_text(json.dumps({**data, **changes}))
        with refuses("unreadable", tmp_path / "s.json", fact):
            Recipe.load(tmp_path / "s.json")

    with refuses("unreadable", "none.json"):
        Recipe.load(tmp_path / "none.json")
    refused("--save-recipe", format="x")
    refused("2:0, 1:1", structure=[[2, 0], [1, 1]])
    refused("", structure=[1])
    for part in ({"weight": 1}, {"style": "x", "weight": 1, "codes": [1]}):
        refused(json.dumps(part), styles=[part])
    del data["seed"]
    refused("seed")


# -- the command line --------------------------------------------------------------------------------------------------
def run(capsys, *arguments) -> tuple[int, str, str]:
    code = cli.main([str(a) for a in arguments])
    return code, *capsys.readouterr()


def test_image_with_style_and_recipe(named, tmp_path, capsys):
    src = write_image(tmp_path / "a.png", scene())
    code, _, err = run(capsys, "image", src, tmp_path / "b.png", "--style", "clay:1,comic:1", "--structure", "0.4",
                       "--padding", "20", "--save-recipe", tmp_path / "r.json", "--device", "cpu")
    assert code == 0, err
    code, _, err = run(capsys, "image", src, tmp_path / "c.png", "--recipe", tmp_path / "r.json", "--device", "cpu")
    assert code == 0 and (read_image(tmp_path / "b.png") == read_image(tmp_path / "c.png")).all()
    code, _, err = run(capsys, "image", src, tmp_path / "d.png", "--recipe", tmp_path / "r.json", "--color", "1")
    assert code == 2 and "drop --color, or --recipe" in err and not (tmp_path / "d.png").exists()
    code, _, err = run(capsys, "image", src, tmp_path / "d.png", "--style", "clay", "--structure", "0:0,1:1")
    assert code == 2 and "keyframes are for clips" in err
    code, _, err = run(capsys, "image", src, tmp_path / "d.png", "--style", "clay", "--save-recipe", "/proc/no/r.json")
    assert code == 2 and err.count("\n") == 1 and not (tmp_path / "d.png").exists()


def test_a_recipe_keeps_whom_to_draw(named, tmp_path, capsys):
    src = write_image(tmp_path / "a.png", scene(760, 300, [(0, 40, 240), (400, 20, 260)]))
    both = ("--style", "clay", "--frame", "full", "--faces", "all", "--device", "cpu")
    code, _, err = run(capsys, "image", src, tmp_path / "b.png", *both, "--save-recipe", tmp_path / "r.json")
    assert code == 0, err
    replay = ("--recipe", tmp_path / "r.json", "--device", "cpu")
    code, _, err = run(capsys, "image", src, tmp_path / "c.png", *replay)
    assert code == 0 and "largest" not in err
    assert (read_image(tmp_path / "b.png") == read_image(tmp_path / "c.png")).all()
    code, _, err = run(capsys, "image", src, tmp_path / "d.png", *replay, "--faces", "all")
    assert code == 2 and "drop --faces, or --recipe" in err
    code, _, err = run(capsys, "video", src, tmp_path / "d.mp4", *replay, "--no-smooth")
    assert code == 2 and "drop --no-smooth, or --recipe" in err
    old = json.loads((tmp_path / "r.json").read_text())
    del old["faces"], old["smooth"], old["layers"]
    (tmp_path / "r.json").write_text(json.dumps(old))
    assert (Recipe.load(tmp_path / "r.json").faces, Recipe.load(tmp_path / "r.json").smooth) == ("largest", True)


def test_video_with_keyframes(named, tmp_path, capsys):
    src = write_clip(tmp_path / "a.mp4", [scene()] * 3)
    wishes = ("--style", "clay", "--structure", "0:0, 2:1", "--color", "0:1, 1:0", "--device", "cpu")
    assert run(capsys, "video", src, tmp_path / "b.mp4", *wishes)[0] == 0
    code, _, err = run(capsys, "video", src, tmp_path / "c.mp4", "--structure", "2:0, 0:1", "--device", "cpu")
    assert code == 2 and "out of order" in err and not (tmp_path / "c.mp4").exists()


def test_styles_are_listed_and_drawn(named, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "pictures"
    for name in NAMES:
        look, number = name.split("-")
        (folder / look).mkdir(parents=True, exist_ok=True)
        write_image(folder / look / f"{number}.jpg", photograph()[:512])
    monkeypatch.setattr(table, "PICTURES", folder)
    code, out, _ = run(capsys, "styles", tmp_path / "sheet.png")
    lines = out.splitlines()
    assert code == 0 and lines[1].split() == ["comic", "comic-01", "comic-00", "…", "comic-01"] and "sheet.png" in out
    sheet = read_image(tmp_path / "sheet.png")
    assert sheet.shape == (144, 12 * 128, 3) and sheet[:128, :512].std() > 20 and (sheet[:, 512:] == 255).all()
    assert (sheet[128:, :512] < 100).any()  # the names
    code, _, err = run(capsys, "styles", "--bundle", "studio-t")
    assert code == 2 and "studio-t has no styles to list" in err


def test_a_picture_becomes_a_style(named, tmp_path, capsys):
    art, src = (write_image(tmp_path / f"{n}.png", scene(480, 400, [(0, 0, 400)])) for n in "as")
    assert run(capsys, "style", art, tmp_path / "art.safetensors", "--device", "cpu")[0] == 0
    assert run(capsys, "image", src, tmp_path / "b.png", "--style", tmp_path / "art.safetensors")[0] == 0
    code, _, err = run(capsys, "style", art, tmp_path / "art.txt")
    assert code == 2 and "ends in .safetensors" in err
    for steps, message in ((-1, "refine is -1; it must be 0 or more"), (3, "styled has no DualStyleGAN to fit styles")):
        code, _, err = run(capsys, "style", art, tmp_path / "fit.safetensors", "--refine", steps, "--device", "cpu")
        assert code == 2 and message in err and not (tmp_path / "fit.safetensors").exists()


def test_a_bundle_says_where_its_styles_pictures_are(bundle):
    def styled(**more):
        return StyleTable(replace(bundle, info={**bundle.info, "styles": {**bundle.styles, **more}}))

    assert styled().picture("comic-01") == table.PICTURES / "comic" / "01.jpg"
    assert styled(pictures="photographs").picture("comic-01") == table.PICTURES / "photographs" / "comic" / "01.jpg"
    with refuses("unreadable", "styled"):
        styled(pictures=3)
