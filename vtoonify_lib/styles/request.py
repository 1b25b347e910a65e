"""A request for a look: style, structure degree, colour degree; and its resolution for a bundle.

It is resolved once, before any work: every field gets a value, or one sentence says what the bundle can do instead
(`Look.resolve`); `Stylizer.resolve` adds the codes of its style (`ResolvedLook`). In a clip the degrees may be animated
(`Keyframes`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..config import VToonifyError
from ..models import latents
from ..weights.bundle import Bundle
from ..weights.published import Preset, preset_of
from .table import Part, StyleTable, normalised, parse_blend

LARGEST, ALL = "largest", "all"  # which faces to draw; or a number
FRAMES = ("crop", "full")  # what comes out: the toonified region around the face, or all, with the person drawn


@dataclass(frozen=True)
class Keyframes:
    """A degree over time: straight lines between points (seconds, value), level before the first and after the last.

    Raises VToonifyError without a point, and for times that do not rise.
    """

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        times = [time for time, _ in self.points]
        if not times or not times[0] >= 0 or not all(b > a for a, b in zip(times, times[1:], strict=False)):
            raise VToonifyError(f"the keyframes {self} are out of order; give seconds that rise, such as 0:0, 2:1")

    @classmethod
    def parse(cls, text: str) -> Keyframes:
        """Of "0:0, 2:1": at 0 s the value 0, at 2 s the value 1."""
        try:
            points = tuple((float(time), float(value)) for time, value in
                           (point.split(":") for point in text.split(",")))
        except ValueError as error:
            raise VToonifyError(f"{text!r} is neither a number nor keyframes; write 0.5, or seconds:value pairs such "
                                "as 0:0, 2:1") from error
        return cls(points)

    def at(self, seconds: float) -> float:
        """The value at a time."""
        return float(np.interp(seconds, *zip(*self.points, strict=True)))

    def __str__(self) -> str:
        return ", ".join(f"{time:g}:{value:g}" for time, value in self.points)


Degree = float | Keyframes


def parse_degree(text: str) -> Degree:
    """Of what a user wrote: "0.5", or keyframes."""
    try:
        return float(text)
    except ValueError:
        return Keyframes.parse(text)


@dataclass(frozen=True)
class Look:
    """How a face is to be drawn; None leaves the choice to the bundle.

    style      number or name of an exemplar, a blend ("comic-07:0.6, clay:0.4"), the path of a picture or of a saved
               style; resolved: a tuple of parts (`styles.table.Part`), for published bundles a number
    structure  0: the photograph's features … 1: the exemplar's; keyframes or "0:0, 2:1" in clips
    color      0: the face's colours … 1: the exemplar's; likewise
    seed       of the random style "new"
    layers     weight of the style in each style layer, coarse first, 0 … 1 (`latents.layer_names`); None: 1
    Raises VToonifyError for values of another type.
    """

    style: int | str | Path | Sequence[Part] | None = None
    structure: Degree | None = None
    color: Degree | None = None
    seed: int = 0
    layers: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.style, list):
            object.__setattr__(self, "style", tuple(self.style))
        if self.style is not None and (isinstance(self.style, bool)
                                       or not isinstance(self.style, Integral | str | Path | tuple)):
            raise VToonifyError(f"style is {self.style!r}; expected a number, a name, a path or a blend of them")
        if not isinstance(self.seed, Integral) or self.seed < 0:
            raise VToonifyError(f"seed is {self.seed!r}; expected a whole number, 0 or more")
        object.__setattr__(self, "seed", int(self.seed))
        if self.layers is not None:
            object.__setattr__(self, "layers", _weights(self.layers))
        for name in ("structure", "color"):
            value = getattr(self, name)
            if isinstance(value, str):
                value = parse_degree(value)
                object.__setattr__(self, name, value)
            if value is not None and (not isinstance(value, Real | Keyframes)
                                      or isinstance(value, bool) and name != "color"):
                raise VToonifyError(f"{name} is {value!r}; expected a number from 0 to 1, or keyframes")

    @property
    def is_animated(self) -> bool:
        """Whether a degree changes over time."""
        return any(isinstance(value, Keyframes) for value in (self.structure, self.color))

    def at(self, seconds: float) -> Look:
        """The static look at one time."""
        return self._degrees(lambda _, value: value.at(seconds) if isinstance(value, Keyframes) else value)

    def require_static(self) -> Look:
        """Itself. VToonifyError when a degree is animated: a picture has no time."""
        if self.is_animated:
            raise VToonifyError("keyframes are for clips; give a picture one number for each degree")
        return self

    def resolve_for_preset(self, preset: Preset) -> Look:
        """The look with all fields resolved for a published checkpoint. VToonifyError for what it cannot do."""
        style = self.style
        if isinstance(style, str) and style.strip().lstrip("-").isdigit():
            style = int(style)
        if style is not None and not isinstance(style, Integral):
            raise VToonifyError(f"{preset.name} knows its styles by number and takes no {style!r}; `vtoonify models` "
                                "shows how many there are")
        if self.layers is not None:
            raise VToonifyError(f"{preset.name} takes no shares of layers; those are for bundles of ours")
        check = {"structure": preset.check_structure,
                 "color": lambda value: float(preset.check_color(value))}
        resolved = replace(self, style=preset.check_style(style))
        return resolved._degrees(lambda name, value: _each(value, check[name]))

    def resolve(self, bundle: Bundle) -> Look:
        """The look with all fields resolved for a bundle. VToonifyError for what it cannot do."""
        preset = preset_of(bundle)
        if preset is not None:
            return self.resolve_for_preset(preset)
        if bundle.styles:
            resolved, count = self._resolve_styles(StyleTable(bundle)), latents.n_latent(bundle.config.out_size)
            if self.layers is not None and len(self.layers) != count:
                raise VToonifyError(f"layers are {list(self.layers)}; expected {count} numbers from 0 to 1")
            return resolved
        for name in ("style", "structure", "color", "layers"):
            if getattr(self, name) is not None:
                raise VToonifyError(f"{bundle.name} has one look, in one strength and in your colours; drop --{name}, "
                                    "or load looks or a published style: `vtoonify models` lists them",
                                    code="unable")
        return self

    def _resolve_styles(self, table: StyleTable) -> Look:
        """For a bundle of ours that has styles."""
        style = table.start["style"] if self.style is None else self.style
        parts = style if isinstance(style, tuple) else parse_blend(style) if isinstance(style, str) else [(style, 1.0)]
        found = [(table.find(one) if isinstance(one, int | str | Path) else one, weight) for one, weight in parts]
        resolved = replace(self, style=normalised(found),
                           **{name: table.start[name] for name in ("structure", "color")
                              if getattr(self, name) is None})
        return resolved._degrees(lambda name, value: _each(value, lambda degree: _checked(name, degree)))

    def _degrees(self, change: Callable[[str, Degree | None], Degree | None]) -> Look:
        return replace(self, structure=change("structure", self.structure), color=change("color", self.color))


@dataclass(frozen=True, eq=False)
class ResolvedLook:
    """A look as the networks take it: all that drawing a crop needs besides face and crop. `Stylizer.resolve` makes it.

    bundle     that it is for
    request    the look with every field filled in and every picture read: what a recipe keeps
    exemplar   code of its style, w+ [1,L,D], ours [1,2,D]; None where there is no style to choose
    null_code  [1,2,D], ours: the code of every photograph, whose colours reach the network with the frame; else None
    """

    bundle: Bundle
    request: Look
    exemplar: Tensor | None = None
    null_code: Tensor | None = None

    def require_static(self) -> ResolvedLook:
        """Itself. VToonifyError at degrees that move."""
        self.request.require_static()
        return self

    def code(self, encode: Callable[[], Tensor]) -> Tensor:
        """Style code w+ [1,L,D], or [1,1,D] for all layers alike. VToonifyError at degrees that move.

        encode  gives the face's code as `Engine.encode`; called only where the look depends on it
        With an exemplar: its structure, and colours between the face's and its own.
        """
        look, exemplar, own = self.request.require_static(), self.exemplar, self.null_code
        if exemplar is None:
            return encode()
        if own is None:
            return latents.with_color_of(exemplar, exemplar if look.color == 1
                                         else torch.lerp(encode(), exemplar, float(look.color)))
        code, null = (latents.styled(own, wanted, look.structure, look.color,
                                     latents.n_latent(self.bundle.config.out_size)) for wanted in (exemplar, own))
        return code if look.layers is None else torch.lerp(null, code, torch.tensor(look.layers)[None, :, None])


def _weights(layers: Sequence[float]) -> tuple[float, ...]:
    """Layer weights as floats. VToonifyError outside of [0,1]."""
    weights = tuple(float(weight) for weight in layers)
    if not all(0 <= weight <= 1 for weight in weights):
        raise VToonifyError(f"layers are {list(weights)}; expected numbers from 0 to 1")
    return weights


def _each(value: Degree | None, check: Callable) -> Degree | None:
    """A check of one degree, of every point of keyframes."""
    if isinstance(value, Keyframes):
        return Keyframes(tuple((time, check(degree)) for time, degree in value.points))
    return check(value)


def _checked(name: str, degree: float) -> float:
    if not 0 <= degree <= 1:
        what, yours = {"structure": ("structure", "features"), "color": ("colour", "colours")}[name]
        raise VToonifyError(f"the {what} degree is {degree:g}; it must lie between 0 (your {yours}) and 1 (the "
                            "style's)")
    return float(degree)


AS_TRAINED = Look()


def check_faces(faces: str | int, frame: str) -> None:
    """Raise VToonifyError for a frame there is not, and for a number of faces that cannot be drawn."""
    if frame not in FRAMES:
        raise VToonifyError(f"frame is {frame!r}; expected {' or '.join(FRAMES)}")
    if faces not in (LARGEST, ALL) and (isinstance(faces, bool) or not isinstance(faces, int) or faces < 1):
        raise VToonifyError(f"faces is {faces!r}; expected {LARGEST}, {ALL} or a number from 1")
    if faces not in (LARGEST, 1) and frame != "full":
        raise VToonifyError("several faces do not fit into one crop; draw them into the whole picture: --frame full")
