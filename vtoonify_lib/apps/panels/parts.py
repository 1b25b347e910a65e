"""What panels are made of: pictures, pictures to click, a pad for two degrees, a line that says what went wrong."""

from __future__ import annotations

import asyncio
import traceback
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from html import escape
from io import BytesIO

import ipywidgets as widgets
import numpy as np
from PIL import Image

from ...config import VToonifyError
from ...media.images import read_image
from ...styles.table import StyleTable

PAD_CELLS = 6  # of the degree pad along each axis: degrees 0, 0.2, … 1
THUMB = 56     # px, of a picture to click
ACCENT, QUIET = "3px solid #1976d2", "3px solid transparent"


def jpeg(picture: np.ndarray, quality: int = 88) -> bytes:
    """uint8 RGB [H,W,3] as a JPEG file."""
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


class Status(widgets.HTML):
    """A line for the user. `with status.guard("reading"):` turns an error into a sentence there, not a traceback.

    The last traceback of an unexpected error is kept in `details`.
    """

    details = ""
    _inside = _wrong = False

    def say(self, text: str, error: bool = False) -> None:
        """Show one sentence, of any text."""
        colour = "#b00020" if error else "#555"
        self.value = f'<span style="color: {colour}">{escape(text)}</span>'

    @contextmanager
    def guard(self, doing: str = "") -> Iterator[None]:
        """While it runs the line says `doing`; afterwards nothing, or what went wrong, also in a guard within this."""
        outermost = not self._inside
        if outermost:
            self._inside, self._wrong = True, False
            self.say(f"{doing} …" if doing else "")
        try:
            yield
        except VToonifyError as error:
            self._wrong = True
            self.say(str(error), error=True)
        except Exception as error:  # a lost traceback helps nobody: the user sees the kind, `details` has the rest
            self._wrong, self.details = True, traceback.format_exc()
            self.say(f"something unexpected went wrong ({type(error).__name__}: {error}); `panel.status.details` has "
                     "the traceback", error=True)
        finally:
            if outermost:
                self._inside = False
                if not self._wrong:
                    self.say("")


class NewestOnly:
    """Calls `do()` a moment after the last of several requests: who clicks fast does not wait for what is outdated.

    Without a running event loop, outside of Jupyter, each request calls at once.
    """

    WAIT = 0.05  # seconds: events that wait in the kernel's queue come in a few milliseconds each

    def __init__(self, do: Callable[[], None]) -> None:
        self._do, self._waiting = do, None

    def request(self) -> None:
        """Ask for a call; an earlier one that has not been made yet is dropped."""
        self.cancel()
        try:
            self._waiting = asyncio.get_running_loop().call_later(self.WAIT, self.now)
        except RuntimeError:
            self._do()

    def cancel(self) -> bool:
        """Drop the call that is waiting → whether there was one."""
        waiting, self._waiting = self._waiting, None
        if waiting:
            waiting.cancel()
        return waiting is not None

    def now(self) -> None:
        """Make the call that is waiting, if there is one."""
        if self.cancel():
            self._do()


class Gallery(widgets.VBox):
    """Named styles as pictures to click, a tab for each look; `on_pick(name)` is called.

    The pictures are the backgrounds of buttons, set by a style sheet inside the panel: so they can be clicked in every
    version of ipywidgets, without JavaScript of ours.
    """

    def __init__(self, table: StyleTable, on_pick: Callable[[str], None]) -> None:
        self.buttons: dict[str, widgets.Button] = {}
        rules, looks = [], {}
        for name in table.names:
            small = Image.fromarray(read_image(table.picture(name))).resize((THUMB, THUMB), Image.Resampling.BOX)
            address = b64encode(jpeg(np.asarray(small), 80)).decode()
            address = f'url("data:image/jpeg;base64,{address}")'
            rules.append(f".vt-{name} {{background: {address} center / cover !important}}")
            button = widgets.Button(tooltip=name, layout=widgets.Layout(
                width=f"{THUMB}px", height=f"{THUMB}px", margin="1px", padding="0", border=QUIET))
            button.add_class(f"vt-{name}")
            button.on_click(lambda _, name=name: on_pick(name))
            self.buttons[name] = button
            looks.setdefault(name.rsplit("-", 1)[0], []).append(button)
        grid = widgets.Layout(grid_template_columns=f"repeat(auto-fill, {THUMB + 4}px)")
        self.tabs = widgets.Tab([widgets.GridBox(buttons, layout=grid) for buttons in looks.values()])
        for i, look in enumerate(looks):
            self.tabs.set_title(i, look)
        super().__init__([widgets.HTML(f"<style>{' '.join(rules)}</style>"), self.tabs])

    def mark(self, names: Sequence[str]) -> None:
        """Frame these, and only these."""
        for name, button in self.buttons.items():
            border = ACCENT if name in names else QUIET
            if button.layout.border != border:
                button.layout.border = border


class DegreePad(widgets.VBox):
    """Structure to the right, colour upwards: click a field, or move a slider. Calls `on_change(structure, color)`."""

    def __init__(self, structure: float, color: float, on_change: Callable[[float, float], None]) -> None:
        self._told, self._quiet = on_change, False
        slide = {"min": 0.0, "max": 1.0, "step": 0.01, "continuous_update": False}
        self.structure = widgets.FloatSlider(structure, description="structure", **slide)
        self.color = widgets.FloatSlider(color, description="colour", **slide)
        steps = np.linspace(0, 1, PAD_CELLS)
        self.fields = {(s, c): widgets.Button(tooltip=f"structure {s:.1f}, colour {c:.1f}", layout=widgets.Layout(
            width="34px", height="34px", margin="1px", border=QUIET), style={"button_color": _field(s, c)})
            for c in steps[::-1] for s in steps}
        for (s, c), button in self.fields.items():
            button.on_click(lambda _, s=s, c=c: self.set(float(s), float(c)))
        for slider in (self.structure, self.color):
            slider.observe(self._moved, "value")
        grid = widgets.Layout(grid_template_columns=f"repeat({PAD_CELLS}, 38px)")
        super().__init__([widgets.HTML("<small>↑ colour, → structure</small>"),
                          widgets.GridBox(list(self.fields.values()), layout=grid), self.structure, self.color])
        self._mark()

    def set(self, structure: float, color: float) -> None:
        """Move to a point, and tell once."""
        self._quiet = True
        self.structure.value, self.color.value = structure, color
        self._quiet = False
        self._moved()

    def _moved(self, _: object = None) -> None:
        if not self._quiet:
            self._mark()
            self._told(self.structure.value, self.color.value)

    def _mark(self) -> None:
        here = min(self.fields, key=lambda at: abs(at[0] - self.structure.value) + abs(at[1] - self.color.value))
        for at, button in self.fields.items():
            button.layout.border = ACCENT if at == here else QUIET


def _field(structure: float, color: float) -> str:
    """Colour of a field of the pad: more violet the more structure, stronger the more colour."""
    grey, ends = np.array([225, 225, 225]), np.array([[255, 179, 71], [156, 89, 209]])
    rgb = grey + (0.25 + 0.75 * color) * ((1 - structure) * ends[0] + structure * ends[1] - grey)
    return "#" + "".join(f"{int(v):02x}" for v in rgb)
