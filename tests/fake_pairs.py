"""Portrait pairs without a renderer: flat faces of ellipses, in the studio's folder format."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from vtoonify_lib.faces.parsing_maps import CLASS_NAMES, PALETTE
from vtoonify_lib.studio import shards

PARTS = (  # class, centre x and y, half width and half height, in shares of the side; later ones lie on top
    ("hair", 0.50, 0.40, 0.34, 0.36), ("neck", 0.50, 0.90, 0.16, 0.20), ("l_ear", 0.24, 0.52, 0.05, 0.09),
    ("r_ear", 0.76, 0.52, 0.05, 0.09), ("skin", 0.50, 0.52, 0.26, 0.34), ("l_brow", 0.38, 0.38, 0.08, 0.02),
    ("r_brow", 0.62, 0.38, 0.08, 0.02), ("l_eye", 0.38, 0.46, 0.06, 0.03), ("r_eye", 0.62, 0.46, 0.06, 0.03),
    ("nose", 0.50, 0.58, 0.04, 0.08), ("u_lip", 0.50, 0.71, 0.09, 0.03), ("l_lip", 0.50, 0.74, 0.09, 0.03))


def face(size: int, rng: np.random.Generator, eyes: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Classes uint8 [size,size] of a face that stands a little elsewhere each time; `eyes`: how large they are.

    → and landmarks [68,2], of which only the eyes and the mouth's corners mean anything.
    """
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    dx, dy = rng.uniform(-0.06, 0.06, 2)
    classes = np.zeros((size, size), np.uint8)
    for name, cx, cy, rx, ry in PARTS:
        grow = eyes if "eye" in name else 1.0
        inside = ((x - cx - dx) / (rx * grow)) ** 2 + ((y - cy - dy) / (ry * grow)) ** 2 < 1
        classes[inside] = CLASS_NAMES.index(name)
    marks = np.full((68, 2), 0.5)
    marks[36:42], marks[42:48], marks[48], marks[54] = (0.38, 0.46), (0.62, 0.46), (0.41, 0.72), (0.59, 0.72)
    return classes, (marks + (dx, dy)) * size


def write_pairs(folder: Path, count: int = 12, size: int = 64) -> shards.Pairs:
    """A finished data set of `count` people: photos are muted and noisy, cartoons bright and big-eyed."""
    (folder / "done").mkdir(parents=True)
    styles = ("photo", "storybook")
    arrays = {name: np.zeros((count, *shape), dtype) for name, (shape, dtype) in shards.fields(size, styles).items()}
    for i in range(count):
        colours = np.clip(PALETTE + np.random.default_rng([i, 1]).normal(0, 25, PALETTE.shape), 0, 255)
        for style, eyes in zip(styles, (1.0, 1.6), strict=True):
            classes, marks = face(size, np.random.default_rng(i), eyes)
            picture = colours[classes]
            if style == "photo":
                picture = 0.7 * picture + 30 + np.random.default_rng([i, 2]).normal(0, 6, picture.shape)
            arrays[style][i] = np.clip(picture, 0, 255)
            arrays[f"{style}_parsing"][i] = classes
            arrays[f"{style}_landmarks"][i] = marks
        arrays["wide"][i] = i % 2
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    for start in range(0, count, shards.CHUNK):
        (folder / "done" / f"{start:08d}").touch()
    (folder / "meta.json").write_text(json.dumps({"count": count, "size": size, "styles": styles, "seed": 0}))
    return shards.Pairs.open(folder)


def styled(pairs: shards.Pairs, looks: tuple[str, ...]) -> shards.Pairs:
    """The same people in several looks of two styles each: odd styles are red, every further look is darker.

    The last two people are drawn at partial degrees.
    """
    arrays, people = dict(pairs.arrays), np.arange(len(pairs.arrays["wide"]))
    whole = people < len(people) - 2
    for number, look in enumerate(looks):
        style = people // 2 % 2
        picture = np.array(pairs["storybook"]) // (1 + number)
        picture[style == 1, ..., 1:] //= 4
        arrays |= {look: picture, f"{look}_style": style.astype("i2"), f"{look}_parsing": pairs["storybook_parsing"],
                   f"{look}_landmarks": pairs["storybook_landmarks"],
                   f"{look}_structure": np.where(whole, 1, 0.5).astype("f4"),
                   f"{look}_color": np.where(whole, 1, 0.25).astype("f4")}
    return shards.Pairs(pairs.folder, arrays, pairs.ready)


def write_looks(folder: Path, looks: tuple[str, ...], count: int = 12, size: int = 64, photographs: bool = False
                ) -> shards.Pairs:
    """The same people in looks of two styles each (`styled`), on disk, the first three of them held out.

    photographs: as a data set of drawn photographs, in which nothing has moved
    """
    made = styled(write_pairs(folder, count, size), looks)
    arrays = {name: np.array(made.arrays[name]) if name in made.arrays else np.zeros((count, *shape), dtype)
              for name, (shape, dtype) in shards.fields(size, ("photo",), looks, photographs).items()}
    for name, array in arrays.items():
        (folder / f"{name}.npy").unlink(missing_ok=True)  # memory maps of the old file stay whole
        np.save(folder / f"{name}.npy", array)
    (folder / "meta.json").write_text(json.dumps({"count": count, "size": size, "styles": ["photo"],
                                                  "looks": list(looks), "seed": 0, "photographs": photographs}))
    (folder / "hold_out.txt").write_text("0\n1  # somebody\n\n2\n")
    return shards.Pairs.open(folder)
