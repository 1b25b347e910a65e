"""Panels without a browser: what a click, a slider or a file does, and that whatever goes wrong is said inside."""

from __future__ import annotations

import asyncio
import json
import sys
from base64 import b64encode
from datetime import UTC, datetime
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

widgets = pytest.importorskip("ipywidgets", reason="ipywidgets is not installed: pip install -e '.[panels]'")

from vtoonify_lib.apps import panels  # noqa: E402
from vtoonify_lib.apps.panels import parts, space  # noqa: E402
from vtoonify_lib.config import VToonifyError  # noqa: E402
from vtoonify_lib.inference.toonifier import SAMPLE, Toonifier  # noqa: E402
from vtoonify_lib.styles.recipe import Recipe  # noqa: E402
from vtoonify_lib.styles.request import Keyframes, Look  # noqa: E402

PORTRAIT = SAMPLE.with_name("portrait_1.jpg")


@pytest.fixture(scope="module")
def styled():
    return Toonifier.load("studio-d", device="cpu")


@pytest.fixture
def explorer(styled, tmp_path):
    return panels.Explorer(styled, PORTRAIT, out=tmp_path / "out")


def differ(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(int) - b).mean())


def uploaded(widget, path):
    """Give a FileUpload what the browser would send, in the form of the ipywidgets at hand."""
    content = path.read_bytes()
    if widgets.__version__.startswith("7"):
        widget.set_trait("value", {path.name: {"metadata": {"name": path.name}, "content": content}})
    else:
        widget.value = ({"name": path.name, "type": "", "size": len(content), "content": memoryview(content),
                         "last_modified": datetime.now(UTC)},)


def button(root, title):
    """The button, or file button, of that title inside a panel."""
    found, todo = [], [root]
    while todo:
        widget = todo.pop()
        todo += getattr(widget, "children", ())
        if isinstance(widget, widgets.Button | widgets.FileUpload) and widget.description == title:
            found.append(widget)
    assert len(found) == 1, f"{len(found)} buttons {title!r}"
    return found[0]


# -- the explorer ----------------------------------------------------------------------------------------------------
def test_it_starts_with_the_bundles_own_choice(explorer, styled):
    start = styled.styles.start
    assert explorer.look == Look(((start["style"], 1.0),), start["structure"], start["color"], 0)
    assert np.array_equal(explorer.picture, styled.image(PORTRAIT))
    assert explorer.image.value == parts.jpeg(explorer.picture)


def test_a_click_on_a_picture_takes_its_style(explorer, styled):
    explorer.gallery.buttons["comic-07"].click()
    assert explorer.parts == [("comic-07", 1.0)]
    assert np.array_equal(explorer.picture, styled.image(PORTRAIT, look=explorer.look))
    framed = [name for name, b in explorer.gallery.buttons.items() if b.layout.border == parts.ACCENT]
    assert framed == ["comic-07"]


def test_up_to_four_styles_are_blended_by_weight(explorer):
    explorer.gallery.buttons["comic-07"].click()
    alone = explorer.picture
    explorer.blend.value = True
    explorer.gallery.buttons["clay-03"].click()
    assert explorer.parts == [("comic-07", 1.0), ("clay-03", 1.0)] and differ(explorer.picture, alone) > 0.5
    explorer.weights.children[1].value = 0.0
    assert explorer.parts[1] == ("clay-03", 0.0) and np.array_equal(explorer.picture, alone)
    explorer.weights.children[0].value = 0.0
    assert "not all 0" in explorer.status.value and np.array_equal(explorer.picture, alone)
    for name in ("storybook-01", "caricature-02", "clay-05"):
        explorer.gallery.buttons[name].click()
    assert len(explorer.parts) == 4 and "a blend takes 4 styles" in explorer.status.value
    explorer.gallery.buttons["clay-03"].click()  # again: it leaves
    assert [style for style, _ in explorer.parts] == ["comic-07", "storybook-01", "caricature-02"]


def test_pad_sliders_and_colour_buttons_set_the_degrees(explorer, styled):
    explorer.gallery.buttons["comic-07"].click()
    far = explorer.picture
    explorer.pad.fields[(0.0, 0.0)].click()
    assert (explorer.look.structure, explorer.look.color) == (0.0, 0.0) and differ(explorer.picture, far) > 1
    assert explorer.pad.fields[(0.0, 0.0)].layout.border == parts.ACCENT
    explorer.pad.structure.value = 0.37
    assert explorer.look.structure == 0.37
    button(explorer.view, "the style's").click()
    assert explorer.look.color == 1.0 and explorer.look.structure == 0.37
    assert np.array_equal(explorer.picture, styled.image(PORTRAIT, look=explorer.look))


def test_a_click_on_the_pad_draws_once(explorer, monkeypatch):
    drawn = []
    monkeypatch.setattr(explorer.preview, "draw", lambda *a: (drawn.append(a), explorer.picture)[1])
    explorer.pad.fields[(0.0, 0.0)].click()
    assert len(drawn) == 1
    explorer._quiet = True
    for slider in explorer.layers:
        slider.value = 0.5
    explorer._quiet = False
    button(explorer.view, "all to 1").click()
    assert len(drawn) == 2 and all(slider.value == 1 for slider in explorer.layers)


def test_layers_change_the_picture_and_a_recipe_keeps_them_with_all_that_is_chosen(explorer, styled):
    before = explorer.picture
    explorer.layers[-1].value = 0.0
    assert differ(explorer.picture, before) > 0.2
    seen = explorer.picture
    explorer.seed.value, explorer.frame.value, explorer.padding = 7, "full", 80.0
    explorer.keyframes["color"].value = "0:1, 2:0.5"
    path = explorer.save()
    kept = Recipe.load(path)
    assert (kept.frame, kept.padding, str(kept.look.color)) == ("full", 80.0, "0:1, 2:0.5")
    other = panels.Explorer(styled, PORTRAIT)
    other.load(path)
    assert (other.frame.value, other.padding, other.seed.value) == ("full", 80.0, 7)
    assert other.layers[-1].value == 0.0 and other.keyframes["color"].value == "0:1, 2:0.5"
    assert other.picture.shape != seen.shape  # another padding
    assert Recipe.load(other.save()) == kept


def test_the_wipe_uncovers_the_photograph(explorer):
    whole = explorer.image.value
    explorer.uncover.value = 0.5
    assert explorer.image.value != whole
    explorer.uncover.value = 0.0
    assert explorer.image.value == whole


def test_a_recipe_is_saved_and_comes_back(explorer, styled, tmp_path):
    explorer.gallery.buttons["clay-03"].click()
    explorer.pad.set(0.25, 0.75)
    seen = explorer.picture
    explorer.recipe.value = "mine"
    button(explorer.view, "save").click()
    path = tmp_path / "out" / "mine.json"
    assert "mine.json is written" in explorer.status.value
    assert np.array_equal(styled.image(PORTRAIT, **Recipe.load(path).arguments()), seen)
    other = panels.Explorer(styled, PORTRAIT)
    uploaded(button(other.view, "load a recipe"), path)
    assert other.parts == [("clay-03", 1.0)] and np.array_equal(other.picture, seen)


def test_a_recipe_that_moves_is_shown_where_it_ends(explorer, styled, tmp_path):
    look = styled.resolve(Look("comic-01", structure=Keyframes(((0.0, 0.0), (2.0, 0.6))), color=0.5))
    explorer.load(Recipe.from_look(look).save(tmp_path / "moves.json"))
    assert explorer.keyframes["structure"].value == "0:0, 2:0.6" and explorer.keyframes["color"].value == ""
    assert explorer.look.structure == 0.6


def test_a_style_can_be_new_or_come_from_a_picture_or_a_file(explorer, styled, tmp_path):
    explorer.seed.value = 5
    button(explorer.view, "draw with it").click()
    assert explorer.parts[0][0] == styled.new_style(5)
    uploaded(button(explorer.view, "style of a picture"), SAMPLE.with_name("portrait_2.jpg"))
    style = explorer.parts[0][0]
    assert style.values == styled.style_of(SAMPLE.with_name("portrait_2.jpg")).values
    from vtoonify_lib.styles.table import save_style

    explorer.gallery.buttons["comic-07"].click()
    explorer.take_style(save_style(tmp_path / "mine.safetensors", style, styled.bundle))
    assert explorer.parts[0][0].values == style.values


def test_another_picture_is_opened_and_a_bad_one_leaves_the_old(explorer, tmp_path):
    before = explorer.picture
    uploaded(button(explorer.view, "another picture"), SAMPLE.with_name("portrait_3.jpg"))
    assert not np.array_equal(explorer.picture, before) and "#b00020" not in explorer.status.value
    seen = explorer.picture
    Image.new("RGB", (300, 300), "grey").save(tmp_path / "empty.png")
    uploaded(button(explorer.view, "another picture"), tmp_path / "empty.png")
    assert "no face was found" in explorer.status.value and np.array_equal(explorer.picture, seen)
    explorer.pad.set(0.0, 0.0)  # and the panel goes on
    assert "no face" not in explorer.status.value


@pytest.mark.parametrize("content, message", [
    ("{}", "is not a recipe"), (json.dumps({"format": "vtoonify-recipe-1"}), "is incomplete")])
def test_a_file_that_is_no_recipe_is_refused_inside(explorer, tmp_path, content, message):
    (tmp_path / "bad.json").write_text(content)
    explorer.load(tmp_path / "bad.json")
    assert message in explorer.status.value


def test_a_clip_is_toonified_with_what_is_seen(explorer, tmp_path, styled, monkeypatch):
    from vtoonify_lib.apps.notebook_setup import excerpt

    clip = excerpt(SAMPLE, tmp_path / "short.mp4", 0.12)
    explorer.gallery.buttons["comic-07"].click()
    explorer.keyframes["structure"].value = "0:0, 2:1"
    asked, real = [], styled.video
    monkeypatch.setattr(styled, "video", lambda *a: (asked.append(a[4]), real(*a, progress=False))[1])
    offered = []
    monkeypatch.setattr(panels.explorer, "offer", offered.append)
    path = explorer.clip(clip)
    assert offered == [path]
    assert path == tmp_path / "out" / "short_toon.mp4" and path.is_file() and not explorer.status.details
    assert asked[0].style == (("comic-07", 1.0),) and str(asked[0].structure) == "0:0, 2:1"
    assert explorer.clip(PORTRAIT) is None and "is no clip" in explorer.status.value
    explorer.keyframes["structure"].value = "2:0, 1:1"
    assert explorer.clip(clip) is None and "out of order" in explorer.status.value


def test_the_picture_is_saved_at_full_size(explorer, tmp_path, monkeypatch):
    offered = []
    monkeypatch.setattr(panels.explorer, "offer", offered.append)
    explorer.gallery.buttons["comic-07"].click()
    explorer.uncover.value = 0.5  # is for looking only
    button(explorer.view, "save the picture").click()
    path = tmp_path / "out" / "comic-07.png"
    assert offered == [path] and "comic-07.png is written" in explorer.status.value
    assert np.array_equal(np.asarray(Image.open(path)), explorer.picture)


def test_of_many_clicks_the_newest_is_drawn(explorer, monkeypatch):
    drawn, real = [], explorer.preview.draw
    monkeypatch.setattr(explorer.preview, "draw", lambda look: (drawn.append(look.style), real(look))[1])

    async def clicks():  # as in a kernel, where events come while its loop runs
        for name in ("comic-07", "clay-03", "storybook-01"):
            explorer.gallery.buttons[name].click()
        assert not drawn
        await asyncio.sleep(3 * parts.NewestOnly.WAIT)
        assert drawn == [(("storybook-01", 1.0),)]
        explorer.gallery.buttons["comic-07"].click()
        assert np.array_equal(explorer.picture, real(explorer.look))  # who reads it gets the newest
        await asyncio.sleep(3 * parts.NewestOnly.WAIT)

    asyncio.run(clicks())
    assert len(drawn) == 2


def test_unexpected_errors_stay_inside_too(explorer, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("<b>hm</b>")

    monkeypatch.setattr(explorer.preview, "draw", broken)
    explorer.redraw()
    assert "ZeroDivisionError: &lt;b&gt;hm" in explorer.status.value and "broken" in explorer.status.details


def test_what_goes_wrong_within_another_step_stays_to_be_read(explorer, styled, tmp_path, monkeypatch):
    look = styled.resolve(Look("comic-01", structure=0.5, color=0.5))
    path = Recipe.from_look(look).save(tmp_path / "r.json")

    def broken(*_):
        raise VToonifyError("not enough memory")

    monkeypatch.setattr(panels.explorer.Preview, "draw", broken)
    explorer.load(path)
    assert "not enough memory" in explorer.status.value
    monkeypatch.undo()
    explorer.redraw()
    assert "not enough memory" not in explorer.status.value


def test_a_bundle_without_styles_is_refused(toonifier):
    with pytest.raises(VToonifyError, match="tiny has no styles to explore; load looks"):
        panels.Explorer(toonifier, PORTRAIT)


# -- three dimensions ------------------------------------------------------------------------------------------------
def test_coordinates_are_principal_components():
    g = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(8, 8, generator=g))[0][:3]
    spread = torch.tensor([3.0, 2.0, 1.0])
    codes = (torch.randn(200, 3, generator=g) * spread) @ axes + 5
    points, share = panels.coordinates(codes.reshape(200, 2, 4))
    assert points.shape == (200, 3) and share.sum() == pytest.approx(1) and (np.diff(share) < 0).all()
    assert points.mean(0) == pytest.approx(0, abs=1e-5) and points.std(0) == pytest.approx([3, 2, 1], rel=0.15)
    apart = torch.cdist(codes[:5], codes[5:10]).numpy()
    assert np.linalg.norm(points[:5, None] - points[None, 5:10], axis=-1) == pytest.approx(apart, rel=1e-3)
    assert np.allclose(panels.coordinates(codes)[0], panels.coordinates(codes.flip(1).flip(1))[0])
    with pytest.raises(VToonifyError, match="3 codes do not fill 3 dimensions"):
        panels.coordinates(codes[:3])


@pytest.mark.filterwarnings("ignore")
def test_points_and_pictures_pick_a_style(styled):
    pytest.importorskip("ipyvolume", reason="ipyvolume is not installed: pip install -e '.[panels]'")
    picked, table = [], styled.styles
    view = panels.style_space(table, picked.append)
    legend, beside, _ = view.children
    figure, (said, gallery) = beside.children[0], beside.children[1].children
    assert all(look in legend.value for look in table.looks) and figure.xlabel == "PC 1"
    figure.scatters[1].hovered_index = 3
    assert table.names[24 + 3] in said.value and "<img" in said.value and not picked
    assert len(figure.scatters) == 4 and sum(len(s.x) for s in figure.scatters) == len(table.names)
    figure.scatters[2].clicked_index = 7
    assert picked == [table.names[2 * 24 + 7]] and list(figure.scatters[2].selected) == [7]
    gallery.buttons["clay-00"].click()
    assert picked[-1] == "clay-00" and figure.scatters[2].selected is None


def test_without_ipyvolume_pictures_stand_in(styled, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipyvolume", None)
    flat, told = panels.style_space(styled.styles).children[1].children[0].children
    assert isinstance(flat, widgets.Image) and len(flat.value) > 5000 and "shown flat" in told.value
    cut, told = panels.space_time(SAMPLE).children
    assert isinstance(cut, widgets.Image) and "shown as slices" in told.value


def test_on_colab_pictures_stand_in(styled, monkeypatch):
    monkeypatch.setattr(space, "on_colab", lambda: True)
    flat, told = panels.style_space(styled.styles).children[1].children[0].children
    assert isinstance(flat, widgets.Image) and "shown flat" in told.value


def test_a_clip_as_a_volume():
    block = space.volume(SAMPLE)
    assert block.dtype == np.uint8 and 48 <= len(block) <= space.MOST_FRAMES and max(block.shape[1:]) <= space.MOST_SIDE
    assert block.std() > 10


@pytest.mark.filterwarnings("ignore")
def test_a_volume_is_shown():
    pytest.importorskip("ipyvolume", reason="ipyvolume is not installed: pip install -e '.[panels]'")
    figure, words = panels.space_time(SAMPLE).children
    assert len(figure.volumes) == 1 and figure.zlabel == "time" and "cut open" in words.value


# -- the camera ------------------------------------------------------------------------------------------------------
def test_the_camera_tells_what_it_saw(tmp_path):
    pytest.importorskip("ipywebrtc", reason="ipywebrtc is not installed: pip install -e '.[panels]'")
    clips = []
    camera = panels.Camera(clips.append, tmp_path)
    with pytest.raises(VToonifyError, match="nothing was recorded yet"):
        camera.clip()
    camera.moving.video.value = b"webm"
    assert clips == [tmp_path / "recording.webm"] and clips[0].read_bytes() == b"webm"
    camera.moving.video.value = b""
    assert len(clips) == 1 and "#b00020" in camera.status.value


@pytest.fixture
def colab(monkeypatch):
    """Google's module, which answers as told and keeps what it was asked."""
    output = ModuleType("google.colab.output")
    output.asked, output.answer = [], "data:video/webm;codecs=vp8;base64," + b64encode(b"clip").decode()

    def eval_js(code):
        output.asked.append(code)
        if isinstance(output.answer, Exception):
            raise output.answer
        return output.answer

    output.eval_js = eval_js
    for name, module in (("google", SimpleNamespace()), ("google.colab", SimpleNamespace(output=output)),
                         ("google.colab.output", output)):
        monkeypatch.setitem(sys.modules, name, module)
    return output


def test_on_colab_a_snippet_records(colab, tmp_path):
    clip = panels.colab_snapshot(tmp_path, seconds=2.5)
    assert clip.name == "recording.webm" and clip.read_bytes() == b"clip"
    assert "2500" in colab.asked[0] and "audio: true" in colab.asked[0]


@pytest.mark.parametrize("answer, message", [
    (RuntimeError("NotAllowedError"), "gave no camera .NotAllowedError.; allow it"), ("null", "sent no recording")])
def test_on_colab_a_camera_that_is_refused_is_one_sentence(colab, tmp_path, answer, message):
    colab.answer = answer
    with pytest.raises(VToonifyError, match=message):
        panels.colab_snapshot(tmp_path)


def test_elsewhere_the_snippet_says_what_to_use(tmp_path):
    with pytest.raises(VToonifyError, match="works on Colab only"):
        panels.colab_snapshot(tmp_path)
