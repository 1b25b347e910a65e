"""Which published checkpoints there are, and what each of them can do.

A file name says it all: `vtoonify_s026_d0.5.pt` knows one exemplar (`_s` alone: any of the family's), was trained for
one structure degree (`_d` alone: any from 0 to 1), and keeps the face's colours (`_c`: takes the exemplar's).
Requests that a checkpoint cannot meet raise errors here that say what to do instead. No file is opened here.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...config import VToonifyError

REPOSITORY = "PKUWilliamYang/VToonify"  # on Hugging Face
MODELS = "models"                       # its folder of checkpoints
LICENCE = "S-Lab License 1.0"
LICENCE_URL = "https://github.com/williamyang1991/VToonify/blob/main/LICENSE.md"
LICENCE_NOTICE = f"""\
The published VToonify checkpoints are the work of S. Yang, L. Jiang, Z. Liu and C. C. Loy, under the {LICENCE}:
non-commercial use only; copies and changed versions must carry its notice; for commercial use, ask the authors.
That binds you, not only this program. The text that counts: {LICENCE_URL}"""

STYLES = {"cartoon": 317, "caricature": 199, "arcane": 100, "comic": 101, "pixar": 122, "illustration": 156}
"""Families, and how many exemplars each has."""

DEFAULT_DEGREE = 0.5  # half-way between the photograph's structure and the exemplar's
FILE_NAME = re.compile(r"vtoonify_s(?P<style>\d+)?_d(?P<degree>[\d.]+?)?(?P<color>_c)?\.pt")

# Shared by all presets.
ENCODER = f"{MODELS}/encoder.pt"
PARSING = f"{MODELS}/faceparsing.pth"
LANDMARKS = f"{MODELS}/shape_predictor_68_face_landmarks.dat"  # optional: ours does the same and may be used freely


@dataclass(frozen=True)
class Preset:
    """A checkpoint, and the exemplar to start with.

    name       as the user says it
    family     of styles;  backbone: "toonify" (VToonify-T) or "dualstylegan" (VToonify-D)
    file       name of the checkpoint in the family's folder
    styles     exemplars of the family; 0 for VToonify-T, which has one look and no exemplars
    style      exemplar used when none is asked for
    any_style  whether others may be asked for
    degree     structure degree it was trained for; None: any from 0 to 1 (for VToonify-T: there is none)
    color      True: takes the exemplar's colours. False: keeps the face's
    """

    name: str
    family: str
    backbone: str
    file: str
    styles: int = 0
    style: int | None = None
    any_style: bool = False
    degree: float | None = None
    color: bool = False

    @property
    def is_d(self) -> bool:
        return self.backbone == "dualstylegan"

    @property
    def folder(self) -> str:
        """Of the family, in the repository."""
        return f"{MODELS}/vtoonify_{'d' if self.is_d else 't'}_{self.family}"

    @property
    def sources(self) -> dict[str, str]:
        """Role → path in the repository, of everything that is needed."""
        paths = {"vtoonify": f"{self.folder}/{self.file}", "parsing": PARSING, "style_encoder": ENCODER}
        return paths | ({"styles": f"{self.folder}/exstyle_code.npy"} if self.is_d else {})

    @property
    def abilities(self) -> str:
        """In a few words, for a table."""
        if not self.is_d:
            return "one look"
        style = f"style {self.style}" + (f" of 0–{self.styles - 1}" if self.any_style else " only")
        degree = "any degree" if self.degree is None else f"degree {self.degree}"
        return f"{style}, {degree}, {'its' if self.color else 'your'} colours"

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Preset:
        """Reverse of `dataclasses.asdict`."""
        try:
            return cls(**data)
        except TypeError as error:
            raise VToonifyError(f"the description of a published checkpoint is incomplete ({error}); "
                                "convert it again") from error

    # ------------------------------------------------------------------ wishes
    def check_style(self, style: int | None) -> int | None:
        """The exemplar to use, given the one asked for (None: the default). None for VToonify-T."""
        if style is None:
            return self.style
        if not self.is_d:
            raise VToonifyError(f"{self.name} has one look and no styles to choose from; drop --style"
                                + self._instead(lambda other: other.any_style), code="unable")
        if not self.any_style and style != self.style:
            raise VToonifyError(f"this checkpoint has one style, {self.style}; drop --style"
                                + self._instead(lambda other: other.any_style or other.style == style, style),
                                code="unable")
        if not 0 <= style < self.styles:
            raise VToonifyError(f"there is no {self.family} style {style}; they are numbered 0 to {self.styles - 1}",
                                code="unknown")
        return style

    def check_structure(self, degree: float | None) -> float | None:
        """The structure degree to use, given the one asked for (None: the default). None for VToonify-T."""
        if degree is None:
            return DEFAULT_DEGREE if self.is_d and self.degree is None else self.degree
        if not self.is_d:
            raise VToonifyError(f"{self.name} has no structure degree; drop --structure"
                                + self._instead(lambda other: other.is_d and other.degree is None), code="unable")
        if not 0 <= degree <= 1:
            raise VToonifyError(f"the structure degree is {degree:g}; it must lie between 0 (your features) and 1 (the "
                                "style's)")
        if self.degree is not None and degree != self.degree:
            raise VToonifyError(f"this checkpoint has one structure degree, {self.degree}; drop --structure"
                                + self._instead(lambda other: other.is_d and other.degree is None), code="unable")
        return float(degree)

    def check_color(self, color: bool | float | None) -> bool:
        """Whether to take the exemplar's colours (1, True) or keep the face's (0, False), given what was asked for."""
        if color is None or color == self.color:
            return self.color
        if color not in (0, 1):
            raise VToonifyError(f"the colour degree is {color:g}; it is 0 (your colours) or 1 (the style's)")
        does = "takes the style's colours" if self.color else "keeps your colours"
        raise VToonifyError(f"this checkpoint {does} and cannot do otherwise; drop --color"
                            + self._instead(lambda other: other.is_d and other.color == bool(color)), code="unable")

    def _instead(self, able: Callable[[Preset], bool], style: int | None = None) -> str:
        """The end of a sentence: which preset of the family, if any, is able to; one that starts with `style` first."""
        others = [other for other in PRESETS.values() if other.family == self.family and able(other)]
        others.sort(key=lambda other: (other.style != style, other.style != self.style, other.name))
        return f" or load {others[0].name}" if others else ""


def preset(name: str) -> Preset:
    """The preset of that name; VToonifyError that lists the closest ones when there is none."""
    if name in PRESETS:
        return PRESETS[name]
    close = difflib.get_close_matches(name, PRESETS, n=4, cutoff=0.5) or list(PRESETS)
    raise VToonifyError(f"there is no published preset {name!r}; there are {', '.join(close)}"
                        + ("" if len(close) == len(PRESETS) else ", and others"), code="unknown")


def _of_d(name: str, family: str, suffix: str, style: int) -> Preset:
    file = f"vtoonify_{suffix}.pt"
    parts = FILE_NAME.fullmatch(file)
    degree = parts["degree"]
    return Preset(name, family, "dualstylegan", file, STYLES[family], style, any_style=parts["style"] is None,
                  degree=float(degree) if degree else None, color=parts["color"] is not None)


_DEMO = (  # the 22 presets of the public demo; a name ends in -d where the degree can be chosen
    ("cartoon1", "cartoon", "s026_d0.5", 26), ("cartoon1-d", "cartoon", "s_d", 26),
    ("cartoon2-d", "cartoon", "s_d", 64), ("cartoon3-d", "cartoon", "s_d", 153),
    ("cartoon4", "cartoon", "s299_d0.5", 299), ("cartoon4-d", "cartoon", "s_d", 299),
    ("cartoon5-d", "cartoon", "s_d", 8),
    ("comic1-d", "comic", "s_d", 28), ("comic2-d", "comic", "s_d", 18),
    ("arcane1", "arcane", "s000_d0.5", 0), ("arcane1-d", "arcane", "s_d", 0),
    ("arcane2", "arcane", "s077_d0.5", 77), ("arcane2-d", "arcane", "s_d", 77),
    ("caricature1", "caricature", "s039_d0.5", 39), ("caricature2", "caricature", "s068_d0.5", 68),
    ("pixar", "pixar", "s052_d0.5", 52), ("pixar-d", "pixar", "s_d", 52),
    ("illustration1-d", "illustration", "s054_d_c", 54), ("illustration2-d", "illustration", "s004_d_c", 4),
    ("illustration3-d", "illustration", "s009_d_c", 9), ("illustration4-d", "illustration", "s043_d_c", 43),
    ("illustration5-d", "illustration", "s086_d_c", 86),
)

PRESETS: dict[str, Preset] = {
    **{name: _of_d(name, family, suffix, style) for name, family, suffix, style in _DEMO},
    **{f"{family}-t": Preset(f"{family}-t", family, "toonify", "vtoonify.pt") for family in STYLES},
}
"""Every preset by name: those of the public demo, and VToonify-T for each family."""
