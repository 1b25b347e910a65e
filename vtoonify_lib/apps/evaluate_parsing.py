"""How well bundles' parsing nets do on marked photographs: intersection over union by class.

`python -m vtoonify_lib.apps.evaluate_parsing FOLDER --bundle film studio-t`. The folder has, for each picture NAME,
NAME_photo.png (framed as the studio frames it, square) and NAME.png (classes 0 to 18; 255 where nobody marked any).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..config import PARSING_CLASSES, VToonifyError, exit_code
from ..evaluation.metrics import UNMARKED, class_iou
from ..faces.parsing_maps import CLASS_NAMES, parsing_logits
from ..inference.toonifier import DEFAULT_BUNDLE
from ..media.images import read_image, to_tensor
from ..models.encoders import ParsingNet
from ..studio.portraits import PARSED
from ..weights.bundle import load_bundle
from .listing import table

PHOTO = "_photo.png"


def marked(folder: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Photographs uint8 [H,W,3] and their classes uint8 [h,w]. VToonifyError where something is amiss."""
    photos = sorted(folder.glob(f"*{PHOTO}"))
    if not photos:
        raise VToonifyError(f"there is no NAME{PHOTO} in {folder}; give a folder of marked photographs")
    for path in photos:
        beside = path.with_name(path.name.removesuffix(PHOTO) + ".png")
        try:
            labels = np.asarray(Image.open(beside).convert("L"))
        except OSError as error:
            raise VToonifyError(f"{path} has no classes beside it ({error}); expected {beside.name}") from error
        if np.any((labels >= PARSING_CLASSES) & (labels != UNMARKED)):
            raise VToonifyError(f"the classes of {path} go up to {labels[labels != UNMARKED].max()}; "
                                f"expected 0 to {PARSING_CLASSES - 1}, or {UNMARKED} for unmarked pixels")
        yield read_image(path), labels


def evaluate(net: ParsingNet, folder: Path) -> dict[str, float]:
    """`class_iou` of a net on a folder of marked photographs, classes by name."""

    def maps() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for photo, labels in marked(folder):
            small = Image.fromarray(photo).resize((PARSED, PARSED), Image.Resampling.BOX)
            with torch.inference_mode():
                found = parsing_logits(net, to_tensor(np.asarray(small))).argmax(1)[0].byte().numpy()
            yield np.asarray(Image.fromarray(found).resize(labels.shape[::-1], Image.Resampling.NEAREST)), labels

    return {key if key == "mean" else CLASS_NAMES[int(key)]: value for key, value in class_iou(maps()).items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; → exit code."""
    parser = argparse.ArgumentParser(prog="python -m vtoonify_lib.apps.evaluate_parsing",
                                     description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="marked photographs: NAME_photo.png and NAME.png")
    parser.add_argument("--bundle", nargs="+", default=[DEFAULT_BUNDLE], help="one or several")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    args = parser.parse_args(arguments)

    def work() -> str:
        results = {name: evaluate(load_bundle(name).network("parsing").eval(), args.folder) for name in args.bundle}
        if args.json:
            args.json.write_text(json.dumps(results, indent=1))
        keys = [key for key in ("mean", *CLASS_NAMES) if any(key in found for found in results.values())]
        return table([("class", *results),
                      *((key, *(f"{found.get(key, float('nan')):.3f}" for found in results.values())) for key in keys)])

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
