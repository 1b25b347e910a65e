"""A recipe: everything that decides how a picture or clip looks, in one JSON file that can be replayed to the bit.

    toonifier.image("me.jpg", **Recipe.load("mine.json").arguments())    # `vtoonify image IN OUT --recipe mine.json`

Styles that came from pictures are kept by their codes, so a recipe needs no other file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

from ..config import VToonifyError
from ..media.images import check_output
from ..weights.bundle import Bundle
from ..weights.downloads import write_json
from .request import LARGEST, Degree, Keyframes, Look, ResolvedLook, check_faces
from .table import part_from_json, part_to_json

RECIPE_FORMAT, RECIPE_ENDINGS = "vtoonify-recipe-1", (".json",)


@dataclass(frozen=True)
class Recipe:
    """bundle: its name; weights: start of the sha256 of its VToonify; look: resolved; the others: as for `video`."""

    bundle: str
    weights: str
    look: Look
    padding: float | None = None
    frame: str = "crop"
    faces: str | int = LARGEST
    smooth: bool = True

    @classmethod
    def from_look(cls, look: ResolvedLook, padding: float | None = None, frame: str = "crop",
                  faces: str | int = LARGEST, smooth: bool = True) -> Recipe:
        """For a look that a bundle's Toonifier has resolved (`Toonifier.resolve`)."""
        return cls(look.bundle.name, look.bundle.version("vtoonify"), look.request, padding, frame, faces, smooth)

    def save(self, path: str | Path) -> Path:
        """Write as JSON. VToonifyError when that is not possible, or the name does not end in .json."""
        path = check_output(path, endings=RECIPE_ENDINGS)
        write_json(path, self.data())
        return path

    def data(self) -> dict[str, Any]:
        """For JSON."""
        look = self.look
        styles = [part_to_json(part) for part in look.style] if isinstance(look.style, tuple) else look.style
        return {"format": RECIPE_FORMAT, "bundle": self.bundle, "weights": self.weights, "styles": styles,
                "structure": _to_json(look.structure), "color": _to_json(look.color), "seed": look.seed,
                "layers": look.layers, "padding": self.padding, "frame": self.frame,
                "faces": self.faces, "smooth": self.smooth}

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Read. VToonifyError for a file that is no recipe, or an incomplete one."""
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise VToonifyError(f"the recipe {path} cannot be read ({error})", code="unreadable") from error
        if not isinstance(data, dict) or data.get("format") != RECIPE_FORMAT:
            raise VToonifyError(f"{path} is not a recipe; --save-recipe writes one", code="unreadable")
        try:
            styles = data["styles"]
            if isinstance(styles, list):
                styles = tuple(part_from_json(part) for part in styles)
            look = Look(styles, _from_json(data["structure"]), _from_json(data["color"]), data["seed"],
                        data.get("layers"))
            recent = {name: data[name] for name in ("faces", "smooth") if name in data}  # older recipes lack them
            recipe = cls(data["bundle"], data["weights"], look, data["padding"], data["frame"], **recent)
            check_faces(recipe.faces, recipe.frame)
            kinds = ((recipe.bundle, str), (recipe.weights, str), (recipe.padding, Real | None), (recipe.smooth, bool))
            if not all(isinstance(value, kind) for value, kind in kinds):
                raise TypeError(", ".join(repr(value)[:40] for value, _ in kinds))
            return recipe
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, VToonifyError):
                raise VToonifyError(f"{path}: {error}", code="unreadable") from error
            raise VToonifyError(f"the recipe {path} is incomplete ({error!r}); save it again",
                                code="unreadable") from error

    def check(self, bundle: Bundle) -> None:
        """VToonifyError unless the recipe was made with this bundle, and these weights of it."""
        if bundle.name != self.bundle:
            raise VToonifyError(f"the recipe was made with {self.bundle}, not with {bundle.name}; drop --bundle, or "
                                f"load {self.bundle}", code="mismatch")
        if bundle.version("vtoonify") != self.weights:
            raise VToonifyError(f"the recipe was made with other weights of {self.bundle} than these, so it cannot be "
                                "replayed; make it again", code="mismatch")

    def arguments(self, clip: bool = False) -> dict[str, Any]:
        """What `Toonifier.image` takes, or for a clip `.video`."""
        how = {"look": self.look, "padding": self.padding, "frame": self.frame, "faces": self.faces}
        return how | {"smooth": self.smooth} if clip else how


def _to_json(degree: Degree | None) -> Any:
    return [list(point) for point in degree.points] if isinstance(degree, Keyframes) else degree


def _from_json(degree: Any) -> Degree | None:
    return Keyframes(tuple((float(t), float(v)) for t, v in degree)) if isinstance(degree, list) else degree
