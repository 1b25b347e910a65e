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

from ..config import exit_code
from ..evaluation.metrics import class_iou
from ..faces.parsing_maps import CLASS_NAMES, parsing_logits
from ..media.images import to_tensor
from ..models.encoders import ParsingNet
from ..studio.portraits import PARSED
from ..training.perception import read_marked
from ..weights.bundle import DEFAULT_BUNDLE, load_bundle
from .listing import table


def evaluate(net: ParsingNet, folder: Path) -> dict[str, float]:
    """`class_iou` of a net on a folder of marked photographs, classes by name."""

    def maps() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for photo, labels in read_marked(folder):
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
    parser.add_argument("--network", choices=("photo_parsing", "parsing"), default="parsing",
                        help="the net that the studio reads photographs with, or the one that VToonify's input comes "
                             "from (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    args = parser.parse_args(arguments)

    def work() -> str:
        results = {name: evaluate(load_bundle(name).network(args.network).eval(), args.folder) for name in args.bundle}
        if args.json:
            args.json.write_text(json.dumps(results, indent=1))
        keys = [key for key in ("mean", *CLASS_NAMES) if any(key in found for found in results.values())]
        return table([("class", *results),
                      *((key, *(f"{found.get(key, float('nan')):.3f}" for found in results.values())) for key in keys)])

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
