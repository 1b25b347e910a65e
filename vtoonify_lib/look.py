"""What to draw a face in: exemplar, structure degree, colour degree. Wishes, and what a bundle makes of them.

A bundle answers once, before any work, with every wish decided or with one sentence on what it can do instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real

from .checkpoints import Bundle
from .config import VToonifyError
from .published import Preset, preset_of


@dataclass(frozen=True)
class Look:
    """Wishes; None leaves the choice to the bundle.

    style      number of the exemplar
    structure  0: the photograph's features … 1: the exemplar's
    color      0: the face's colours, 1: the exemplar's
    Raises VToonifyError for values of another type.
    """

    style: int | None = None
    structure: float | None = None
    color: float | None = None

    def __post_init__(self) -> None:
        for name, kind, what in (("style", Integral, "a whole number, as `vtoonify models` shows them"),
                                 ("structure", Real, "a number from 0 to 1"), ("color", Real, "0 or 1")):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, kind) or isinstance(value, bool) and name != "color"):
                raise VToonifyError(f"{name} is {value!r}; expected {what}")

    def within(self, preset: Preset) -> Look:
        """The same with every wish decided, for a published checkpoint. VToonifyError for what it cannot do."""
        return Look(preset.check_style(self.style), preset.check_structure(self.structure),
                    float(preset.check_color(self.color)))

    def of(self, bundle: Bundle) -> Look:
        """The same with every wish decided, for a bundle. VToonifyError for what it cannot do."""
        preset = preset_of(bundle)
        if preset is not None:
            return self.within(preset)
        for name in ("style", "structure", "color"):
            if getattr(self, name) is not None:
                raise VToonifyError(f"{bundle.name} has one look, in one strength and in your colours; drop --{name}, "
                                    "or load a published style: `vtoonify models` lists them")
        return self


AS_TRAINED = Look()
