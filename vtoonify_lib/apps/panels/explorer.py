"""The style explorer: one picture, every style, both degrees, layer by layer; then a whole clip with what was found."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import ipywidgets as widgets
import numpy as np
from PIL import Image

from ...config import VToonifyError
from ...inference.preview import Preview, wipe
from ...inference.toonifier import SAMPLE, Toonifier
from ...media.images import VIDEO_SUFFIXES, write_image
from ...models.latents import layer_names
from ...styles.recipe import Recipe
from ...styles.request import ALL, FRAMES, LARGEST, Degree, Keyframes, Look
from ...styles.table import STYLE_SUFFIX, Part, StyleCode
from ...training.style_fitting import fitter
from ..notebook_setup import Picker, offer
from ..plotting import video
from .parts import DegreePad, Gallery, NewestOnly, Status, jpeg

MOST_STYLES = 4  # in a blend
WIDE, NARROW, SNUG = {"width": "340px"}, {"width": "170px"}, {"width": "auto"}  # layouts
FLOWING = {"display": "flex", "flex_flow": "row wrap", "align_items": "flex-start"}  # side by side
PORTRAIT = SAMPLE.with_name("portrait_1.jpg")
COLOURS = {"keep mine": 0.0, "half-way": 0.5, "the style's": 1.0}


class Explorer:
    """`Explorer(Toonifier.load("looks"), "me.jpg").view` is the panel, `.look` the choice, `.picture` the result.

    source  a portrait: path, array or Pillow picture; another one can be opened in the panel
    out     folder for clips and recipes
    VToonifyError when the bundle has no styles to explore, or there is no face in the picture.
    """

    def __init__(self, toonifier: Toonifier, source: str | Path | np.ndarray | Image.Image = PORTRAIT,
                 out: str | Path = "out") -> None:
        if toonifier.styles is None:
            raise VToonifyError(f"{toonifier.bundle.name} has no styles to explore; load looks")
        self.toonifier, self.out, self._quiet = toonifier, Path(out), False
        table = toonifier.styles
        self.parts: list[Part] = [(str(table.start["style"]), 1.0)]
        self.status = Status()
        self.gallery = Gallery(table, self.pick)
        self.pad = DegreePad(float(table.start["structure"]), float(table.start["color"]), lambda *_: self.redraw())
        self.layers = [widgets.FloatSlider(1.0, min=0.0, max=1.0, step=0.05, description=name, continuous_update=False)
                       for name in layer_names(toonifier.config.out_size)]
        for slider in self.layers:
            slider.observe(lambda _: self.redraw(), "value")
        self.image = widgets.Image(format="jpeg", layout=widgets.Layout(width="100%", margin="0"))
        self.uncover = widgets.FloatSlider(0.0, min=0.0, max=1.0, step=0.01, description="before", layout=WIDE)
        self.uncover.observe(lambda _: self._shown(), "value")
        self.padding: float | None = None  # of a recipe; None: the usual one
        self.preview, self._source = Preview(toonifier, source), source
        self._picture, self._drawing = self.preview.crop, NewestOnly(self._redrawn)
        self.view = self._arrange()
        self._listed()
        self._redrawn()

    # -- what is chosen ------------------------------------------------------------------------------------------
    @property
    def look(self) -> Look:
        """Styles with their weights, both degrees, and what the layers read of it."""
        shares = [slider.value for slider in self.layers]
        return Look(tuple(self.parts), self.pad.structure.value, self.pad.color.value, self.seed.value,
                    shares if min(shares) < 1 else None)

    @property
    def picture(self) -> np.ndarray:
        """The newest result: uint8 [H,W,3]."""
        self._drawing.now()
        return self._picture

    def _moving(self) -> Look:
        """The look for a clip: keyframes of the tab Clip, where given, replace the degrees."""
        return replace(self.look, **{name: field.value for name, field in self.keyframes.items()
                                     if field.value.strip()})

    def _faces(self) -> str:
        return ALL if self.frame.value == "full" else LARGEST

    def pick(self, style: str | StyleCode) -> None:
        """Take a style: alone, or when blending is on into the blend, from which a second click removes it."""
        with self.status.guard():
            chosen = [part for part in self.parts if part[0] != style]
            if not self.blend.value:
                self.parts = [(style, 1.0)]
            elif len(chosen) < len(self.parts):
                self.parts = chosen or self.parts
            elif len(chosen) == MOST_STYLES:
                raise VToonifyError(f"a blend takes {MOST_STYLES} styles here; click one of them again to remove it")
            else:
                self.parts = [*chosen, (style, 1.0)]
            self._listed()
            self.redraw()

    def redraw(self) -> None:
        """Ask for the preview to be drawn anew; errors are shown in the panel."""
        if not self._quiet:
            self._drawing.request()

    def _redrawn(self) -> None:
        with self.status.guard():
            self._draw()

    def _draw(self) -> None:
        self._drawing.cancel()
        self._picture = self.preview.draw(self.look)
        self._show()

    def _show(self) -> None:
        self.image.value = jpeg(wipe(self.preview.crop, self._picture, self.uncover.value))

    def _shown(self) -> None:
        with self.status.guard():
            self._show()

    def _listed(self) -> None:
        """The styles of the blend, with a slider each; sliders say their weight."""
        rows = []
        for number, (style, weight) in enumerate(self.parts):
            name = style.name if isinstance(style, StyleCode) else str(style)
            slider = widgets.FloatSlider(weight, min=0.0, max=1.0, step=0.05, description=name, layout=WIDE,
                                         continuous_update=False, disabled=len(self.parts) == 1)
            slider.observe(lambda change, number=number: self._weigh(number, change["new"]), "value")
            rows.append(slider)
        self.weights.children = tuple(rows)
        self.gallery.mark([str(style) for style, _ in self.parts if not isinstance(style, StyleCode)])

    def _weigh(self, number: int, weight: float) -> None:
        self.parts[number] = (self.parts[number][0], weight)
        self.redraw()

    # -- files ---------------------------------------------------------------------------------------------------
    def open(self, source: str | Path | np.ndarray | Image.Image) -> None:
        """Another picture. The old one stays when there is no face in it."""
        with self.status.guard("finding the face"):
            self.preview, self._source = Preview(self.toonifier, source, self.padding), source
            self._draw()

    def take_style(self, source: str | Path, refine: int = 0) -> None:
        """The style of a portrait, or of a saved style file."""
        with self.status.guard("reading the style"):
            path = Path(source)
            look = self.toonifier.resolve(Look(path)) if path.suffix.lower() == STYLE_SUFFIX else None
            fit = fitter(refine, progress=False)
            style = look.request.style[0][0] if look else self.toonifier.style_of(path, fit=fit)
            self.pick(style)

    def invent(self) -> None:
        """The random style of the seed."""
        with self.status.guard():
            self.pick(self.toonifier.new_style(self.seed.value))

    def save_picture(self) -> Path | None:
        """Write what is seen, without the wipe, as a picture of full size."""
        path = None
        with self.screen, self.status.guard():
            self.out.mkdir(parents=True, exist_ok=True)
            styles = (str(style if not isinstance(style, StyleCode) else style.name) for style, _ in self.parts)
            name = re.sub(r"[^\w-]+", "_", "_".join(styles))
            path = write_image(self.out / f"{name}.png", self.picture)
            self.screen.clear_output()
            offer(path)
        if path:
            self.status.say(f"{path} is written")
        return path

    def save(self) -> Path | None:
        """Write the recipe that replays this look."""
        path = None
        with self.status.guard():
            self.out.mkdir(parents=True, exist_ok=True)
            name = self.recipe.value.strip().removesuffix(".json") or "recipe"
            look = self.toonifier.resolve(self._moving())
            recipe = Recipe.from_look(look, self.padding, self.frame.value, self._faces())
            path = recipe.save(self.out / f"{name}.json")
        if path:
            self.status.say(f"{path} is written; `vtoonify video IN OUT --recipe {path}` replays it")
        return path

    def load(self, source: str | Path) -> None:
        """Take over a recipe's look. Degrees that move go to the tab Clip; the picture shows where they end."""
        with self.status.guard():
            recipe = Recipe.load(source)
            recipe.check(self.toonifier.bundle)
            look, self.padding, self.frame.value = recipe.look, recipe.padding, recipe.frame
            self.preview = Preview(self.toonifier, self._source, self.padding)
            degrees = {name: self._end(name, getattr(look, name)) for name in self.keyframes}
            self.parts, self.seed.value = list(look.style), look.seed
            self._set_layers(look.layers or [1.0] * len(self.layers))
            self._listed()
            self.pad.set(degrees["structure"], degrees["color"])

    def _end(self, name: str, degree: Degree) -> float:
        moves = isinstance(degree, Keyframes)
        self.keyframes[name].value = str(degree) if moves else ""
        return degree.points[-1][1] if moves else degree

    def clip(self, source: str | Path) -> Path | None:
        """Toonify a clip with this look; keyframes of the tab, where given, replace the degrees. → the file written"""
        with self.screen, self.status.guard("toonifying the clip"):
            self.screen.clear_output()
            source = Path(source)
            if source.suffix.lower() not in VIDEO_SUFFIXES:
                raise VToonifyError(f"{source.name or 'nothing'} is no clip; pick a file that ends in one of "
                                    f"{', '.join(sorted(VIDEO_SUFFIXES))}")
            self.out.mkdir(parents=True, exist_ok=True)
            result = self.toonifier.video(source, self.out / f"{source.stem}_toon.mp4", self.frame.value, self.padding,
                                          self._moving(), self._faces())
            print(result)
            video(result.path)
            offer(result.path)
            return result.path
        return None

    # -- layout --------------------------------------------------------------------------------------------------
    def _arrange(self) -> widgets.Widget:
        self.screen = widgets.Output()
        tabs = {"Style": self._style_tab(), "More styles": self._invention_tab(),
                "Layers": widgets.VBox([widgets.HTML("How much of the style each layer reads, coarse ones first"),
                                        *self.layers, _button("all to 1", self.all_layers)]),
                "Recipe": self._recipe_tab(), "Clip": self._clip_tab()}
        tab = widgets.Tab(list(tabs.values()), layout=widgets.Layout(flex="1 1 340px", min_width="340px"))
        for i, title in enumerate(tabs):
            tab.set_title(i, title)
        mine = self._file_button("another picture", "image/*", self.open)
        keep = _button("save the picture", self.save_picture)
        left = widgets.VBox([self.image, self.uncover, widgets.HBox([mine, keep])], layout=widgets.Layout(
            flex="1 1 400px", min_width="400px", max_width="640px", overflow="hidden"))
        return widgets.VBox([self.status, widgets.Box([left, tab], layout=widgets.Layout(**FLOWING)), self.screen])

    def _style_tab(self) -> widgets.Widget:
        self.blend = widgets.ToggleButton(False, description="blend several", icon="plus")
        self.weights = widgets.VBox()
        colours = [_button(title, lambda value=value: self.pad.set(self.pad.structure.value, value))
                   for title, value in COLOURS.items()]
        beside = widgets.VBox([widgets.Label("colours:"), widgets.HBox(colours), self.blend, self.weights])
        return widgets.VBox([self.gallery, widgets.Box([self.pad, beside], layout=widgets.Layout(**FLOWING))])

    def _invention_tab(self) -> widgets.Widget:
        self.seed = widgets.BoundedIntText(0, min=0, max=10**6, description="number", layout=NARROW)
        steps = widgets.BoundedIntText(0, min=0, max=1000, layout={"width": "70px"})
        from_picture = self._file_button("style of a picture", f"image/*,{STYLE_SUFFIX}",
                                         lambda path: self.take_style(path, steps.value))
        return widgets.VBox([
            widgets.HTML("A random style; each number is another one"),
            widgets.HBox([self.seed, _button("draw with it", self.invent)]),
            widgets.HTML("The style of a portrait, or of a saved style file"),
            widgets.HBox([from_picture, widgets.Label("fitting steps (0: read at once):"), steps])])

    def _recipe_tab(self) -> widgets.Widget:
        self.recipe = widgets.Text("recipe.json", description="file")
        return widgets.VBox([widgets.HBox([self.recipe, _button("save", self.save)]),
                             self._file_button("load a recipe", ".json", self.load)])

    def _clip_tab(self) -> widgets.Widget:
        self.keyframes = {name: widgets.Text("", placeholder="0:0, 2:1", description=title)
                          for name, title in (("structure", "structure"), ("color", "colour"))}
        self.frame = widgets.ToggleButtons(options=FRAMES, value=FRAMES[0], description="frame")
        self.frame.tooltips = ("the region around the face", "everybody's head, in the whole picture")
        path = widgets.Text(str(SAMPLE), description="clip", layout=WIDE)
        return widgets.VBox([self.frame,
            widgets.HTML("Degrees that move, as seconds:value; empty: as set"), *self.keyframes.values(),
            widgets.HBox([path, _button("toonify it", lambda: self.clip(path.value))]),
            self._file_button("toonify my clip", "video/*", self.clip)])

    def _file_button(self, title: str, accept: str, use: Callable[[Path], object]) -> widgets.Widget:
        """A button that takes one file and hands its path to `use`."""
        button = widgets.FileUpload(accept=accept, multiple=False, description=title, layout=SNUG)
        picker = Picker(button)

        def picked(_: object) -> None:
            with self.status.guard():
                path = picker.path
                if path:
                    use(path)

        button.observe(picked, "value")
        return button

    def all_layers(self) -> None:
        """Every layer reads all of the style again."""
        self._set_layers([1.0] * len(self.layers))
        self.redraw()

    def _set_layers(self, shares: Sequence[float]) -> None:
        self._quiet = True
        for slider, share in zip(self.layers, shares, strict=True):
            slider.value = share
        self._quiet = False


def _button(title: str, do: Callable[[], object]) -> widgets.Button:
    button = widgets.Button(description=title, layout=SNUG)
    button.on_click(lambda _: do())
    return button

