"""Styles of VToonify-D by name, number, picture or file, alone or blended; and the files that hold them.

To the networks a style is two codes, one for structure and one for colour (`StyleCode`). A bundle has a table of named
ones (`StyleTable`); the Toonifier reads more from pictures with the style encoder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..config import DATA, VToonifyError
from ..media.images import check_output, read_image
from ..weights.bundle import Bundle, save_tensors

PICTURES = DATA / "styles"
NEW = "new"  # name of a random style: the sampler makes it from a seed
STYLE_SUFFIX = ".safetensors"
STYLE_FORMAT = "vtoonify-style-1"
START = {"style", "structure", "color"}


@dataclass(frozen=True)
class StyleCode:
    """A style that is in no table. name: for people; values: structure code and colour code, as numbers."""

    name: str
    values: tuple[tuple[float, ...], tuple[float, ...]]

    @classmethod
    def from_codes(cls, name: str, codes: Tensor) -> StyleCode:
        """Of codes [2,D] or [1,2,D]."""
        structure, color = codes.detach().float().cpu().reshape(2, -1).tolist()
        return cls(name, (tuple(structure), tuple(color)))

    @property
    def codes(self) -> Tensor:
        """[2,D]."""
        return torch.tensor(self.values)


Part = tuple[str | Path | StyleCode, float]
"""A style and its weight in a blend. A string is a name of the bundle's table (or NEW); a path is yet to be read."""


class StyleTable:
    """The named styles of a bundle: `table.codes("comic-07")`, `table.find("comic")`."""

    def __init__(self, bundle: Bundle):
        self.bundle, described = bundle, bundle.styles
        names, looks, start = (described.get(part) for part in ("names", "looks", "start"))
        folder = described.get("pictures", "")
        whole = isinstance(names, list) and isinstance(looks, dict)
        texts = [*names, *looks, *looks.values(), folder] if whole else [None]
        if not all(isinstance(text, str) for text in texts) or not isinstance(start, dict) or not START <= start.keys():
            raise VToonifyError(f"bundle {bundle.name} does not describe its styles: they need names, looks, and a "
                                f"start with {', '.join(sorted(START))}", code="unreadable")
        self.pictures = PICTURES / folder
        self.names: list[str] = names
        self.looks: Mapping[str, str] = looks  # look → the exemplar that stands for it
        self.start: Mapping[str, object] = start  # what is drawn when nothing is asked for

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        return self.bundle.tensors("styles")

    @property
    def table(self) -> Tensor:
        """Codes of all styles, [N,2,D]."""
        return self._tensors["codes"]

    @property
    def null_code(self) -> Tensor:
        """Codes of the photograph, which is drawn in no style, [2,D]."""
        return self._tensors["plain"]

    @property
    def active_dims(self) -> Tensor:
        """Dimensions of a code in which the styles differ, bool [2,D]."""
        return (self.table != 0).any(0)

    def codes(self, name: str) -> Tensor:
        """Structure code and colour code of a named style, [2,D]."""
        return self.table[self.names.index(name)]

    def picture(self, name: str) -> Path:
        """The picture that shows a named style."""
        return picture_of(name, self.pictures)

    def blend(self, parts: Sequence[Part]) -> Tensor:
        """Code of named styles and codes, weighed, [1,2,D]."""
        codes = [style.codes if isinstance(style, StyleCode) else self.codes(style) for style, _ in parts]
        for code in codes:
            if code.shape != self.null_code.shape:
                raise VToonifyError(f"a style has codes of {code.shape[-1]} numbers, those of {self.bundle.name} have "
                                    f"{self.null_code.shape[-1]}; make it again from its picture", code="mismatch")
        return sum(weight * code for code, (_, weight) in zip(codes, parts, strict=True))[None]

    def find(self, request: int | str | Path) -> str | Path:
        """The name in the table, or the path of a file, that is meant. VToonifyError when it is neither."""
        text = str(request).strip()
        if text in self.names or text == NEW:
            return text
        if text in self.looks:
            return self.looks[text]
        if text.lstrip("-").isdigit():
            if 0 <= int(text) < len(self.names):
                return self.names[int(text)]
            raise VToonifyError(f"there is no style {text}; those of {self.bundle.name} are numbered 0 to "
                                f"{len(self.names) - 1}", code="unknown")
        path = Path(text).expanduser()
        if path.is_file():
            return path
        if path.suffix or len(path.parts) > 1:
            raise VToonifyError(f"there is no file {path}; give a picture with a face, a {STYLE_SUFFIX} style, or one "
                                f"of {', '.join(self.looks)} (`vtoonify styles` shows them all)", code="missing")
        raise VToonifyError(f"{self.bundle.name} has no style {text!r}; there are {', '.join(self.looks)}, each with "
                            f"exemplars such as {self.names[0]} (`vtoonify styles` shows them), or give a picture",
                            code="unknown")


def parse_blend(text: str) -> list[tuple[str, float]]:
    """"comic-07:0.6, me.jpg:0.4" → styles and weights; without a weight all weigh the same.

    The weight is what follows the last colon, where that is a number.
    """
    parts = []
    for item in text.split(","):
        name, colon, weight = item.strip().rpartition(":")
        try:
            parts.append((name.strip(), float(weight)) if colon and name else (item.strip(), 1.0))
        except ValueError:  # a colon of something else, such as C:\\me.jpg
            parts.append((item.strip(), 1.0))
    if not all(name for name, _ in parts):
        raise VToonifyError(f"the style {text!r} has an empty part; write it as comic-07, or comic-07:0.6,clay:0.4")
    return parts


def normalised(parts: Sequence[Part]) -> tuple[Part, ...]:
    """Weights that sum to 1. VToonifyError for negative ones, or when all are 0."""
    total = sum(weight for _, weight in parts)
    if not parts or total <= 0 or any(not 0 <= weight < float("inf") for _, weight in parts):
        raise VToonifyError(f"the weights of a blend are {', '.join(f'{w:g}' for _, w in parts)}; they must be 0 or "
                            "more, and not all 0")
    return tuple((style, weight / total) for style, weight in parts)


def picture_of(name: str, folder: Path = PICTURES) -> Path:
    """The picture that shows an exemplar: data/styles/comic/07.jpg for comic-07."""
    look, number = name.rsplit("-", 1)
    return folder / look / f"{number}.jpg"


def contact_sheet(table: StyleTable, side: int = 128, columns: int = 12) -> Image.Image:
    """Pictures of a table's styles with their names, in rows of `columns`. VToonifyError when a picture is missing."""
    names = table.names
    band, font = side // 8, ImageFont.load_default(side // 9)
    rows = -(-len(names) // columns)
    sheet = Image.new("RGB", (columns * side, rows * (side + band)), "white")
    write = ImageDraw.Draw(sheet)
    for i, name in enumerate(names):
        left, top = i % columns * side, i // columns * (side + band)
        tile = Image.fromarray(read_image(table.picture(name))).resize((side, side), Image.Resampling.BOX)
        sheet.paste(tile, (left, top))
        write.text((left + side / 2, top + side), name, "black", font, anchor="mt")
    return sheet


# -- files -----------------------------------------------------------------------------------------------------------
def save_style(path: str | Path, style: StyleCode, bundle: Bundle) -> Path:
    """Write a style as a file of about 1.5 kB that `load_style` reads."""
    path = check_output(path, endings=(STYLE_SUFFIX,))
    save_tensors({"codes": style.codes}, path, half=False, format=STYLE_FORMAT, name=style.name,
                 encoder=bundle.version("style_encoder"), bundle=bundle.name)
    return path


def load_style(path: str | Path, bundle: Bundle) -> StyleCode:
    """Read a style. VToonifyError when it is no style, damaged, or made by another bundle's style encoder."""
    try:
        with safe_open(str(path), "pt") as file:
            notes = file.metadata() or {}
            codes = file.get_tensor("codes") if "codes" in file.keys() else None
    except (SafetensorError, OSError) as error:
        raise VToonifyError(f"{path} is not a readable style ({error}); save it again from its picture",
                            code="unreadable") from error
    if notes.get("format") != STYLE_FORMAT or codes is None or codes.ndim != 2 or len(codes) != 2:
        raise VToonifyError(f"{path} ends in {STYLE_SUFFIX} but is no style; `vtoonify style PICTURE {path}` makes one",
                            code="unreadable")
    if notes.get("encoder") != bundle.version("style_encoder"):
        raise VToonifyError(f"{path} was made for another style encoder ({notes.get('bundle')}) than {bundle.name}'s; "
                            "make it again from its picture", code="mismatch")
    if not bool(torch.isfinite(codes).all()):
        raise VToonifyError(f"{path} holds numbers that are not finite; save it again from its picture",
                            code="unreadable")
    return StyleCode.from_codes(notes.get("name") or Path(path).stem, codes)


# -- JSON --------------------------------------------------------------------------------------------------------------
def part_to_json(part: Part) -> dict[str, object]:
    """{"style", "weight"}, and the code of a style that is in no table."""
    style, weight = part
    if isinstance(style, StyleCode):
        return {"style": style.name, "weight": weight, "codes": [list(code) for code in style.values]}
    return {"style": str(style), "weight": weight}


def part_from_json(data: Mapping[str, object]) -> Part:
    """Reverse of :func:`part_to_json`. VToonifyError for anything else."""
    try:
        style, weight = str(data["style"]), float(data["weight"])
        if "codes" not in data:
            return style, weight
        return StyleCode.from_codes(style, torch.tensor(data["codes"], dtype=torch.float32)), weight
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise VToonifyError(f"{json.dumps(data)[:80]} does not describe a style; expected style and weight, perhaps "
                            "codes", code="unreadable") from error
