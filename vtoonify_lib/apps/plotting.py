"""Pictures in a notebook: `show` a row, `grid` many, `curves` of a training log, `video` that plays in place,
`compare` two with a slider.

Everything is shown as JPEG or as a small MP4 inside the notebook itself, so that a saved notebook stays below 1 MB and
needs no file beside it. No figure stays open, no matplotlib backend is chosen. Nothing here computes a picture.
"""

from __future__ import annotations

import csv
from base64 import b64encode
from collections.abc import Sequence
from contextlib import closing
from html import escape
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from ..config import VToonifyError
from ..media.images import check_source, read_image
from ..media.video import VideoWriter, probe, read_frames

WIDTH = 960             # px, of what `show`, `grid` and `curves` draw: a notebook's column
MAX_HEIGHT = 420        # px, of one row of pictures
DPI = 96
JPEG_QUALITY = 85
VIDEO_KB = 300          # of an embedded clip: three of them and pictures stay below 1 MB
VIDEO_SIDE = 480        # px, longer side of an embedded clip, at most
LEAST_SIDE = 96         # below that a clip says nothing
CONTROLS = 72           # px, that a browser's play button and time line take below a clip

Picture = str | Path | np.ndarray | Image.Image


def show(images: Picture | Sequence[Picture], titles: str | Sequence[str] = (), height: int = MAX_HEIGHT) -> None:
    """One picture, or several side by side: paths, Pillow pictures or arrays (see `images.read_image`)."""
    images = [images] if isinstance(images, Picture) else list(images)
    grid(images, len(images), [titles] if isinstance(titles, str) else titles, height)


def grid(images: Sequence[Picture], columns: int, titles: Sequence[str] = (), height: int = MAX_HEIGHT,
         rows: Sequence[str] = ()) -> None:
    """Pictures in rows of `columns`, each with its title if there are any; sizes may differ.

    height  px, of one row at most; a row is never wider than WIDTH
    rows    a name for each row, written upwards at its left; or none
    """
    _display_jpeg(_jpeg(_figure(images, columns, titles, height, rows)))


def curves(log: str | Path, columns: Sequence[str] = ()) -> None:
    """The numbers of a training log (CSV: first column the step, `seconds` left out), one panel each, logarithmic.

    columns: which ones, default all. Faint: as logged; strong: the mean of each tenth of the log, as it runs.
    """
    with open(log, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise VToonifyError(f"{log} has no lines yet; let the training run a little longer")
    step, *names = rows[0]
    unknown = [name for name in columns if name not in names]
    if unknown:
        raise VToonifyError(f"{log} has no column {unknown[0]!r}; it has {', '.join(names)}")
    names = list(columns) or [name for name in names if name != "seconds"]
    figure = Figure(figsize=(WIDTH / DPI, 2.6), dpi=DPI, layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        points = [(float(row[step]), float(row[name])) for row in rows if row[name]]  # a column may start late
        x, y = np.array(points).reshape(-1, 2).T
        axes.plot(x, y, color="tab:blue", alpha=0.3, label="as logged")
        axes.plot(x, _running_mean(y), color="tab:blue", label="running mean")
        axes.set(title=name, xlabel=step, yscale="log" if len(y) and (y > 0).all() else "linear")
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=7)
    _display_jpeg(_jpeg(figure))


def video(path: str | Path, limit_kb: int = VIDEO_KB) -> None:
    """Play a clip, with its sound, inside the notebook; a copy is made smaller until it takes `limit_kb` at most.

    A clip that is too long for that even at LEAST_SIDE px is not embedded; a line says where it lies.
    """
    tag = _player(Path(path), limit_kb, "controls loop playsinline")
    if tag:
        _display_html(tag)


def compare(before: str | Path, after: str | Path, limit_kb: int = VIDEO_KB) -> None:
    """Two clips of the same frames in one place, with a slider that wipes from one to the other; sound of `after`.

    Each is embedded as by `video`, and stretched to the sides of `after`. The controls stand below the picture.
    """
    onto = "position: absolute; left: 0; top: 0; width: 100%"
    together = ('onplay="this.nextElementSibling.play()" onpause="this.nextElementSibling.pause()" '
                'onseeking="this.nextElementSibling.currentTime = this.currentTime"')
    below = _player(Path(after), limit_kb, f"controls loop playsinline {together}",
                    f"{onto}; height: calc(100% + {CONTROLS}px); object-fit: contain; object-position: top")
    above = below and _player(Path(before), limit_kb, "loop playsinline muted", f"{onto}; height: 100%; "
                              "object-fit: fill; pointer-events: none; clip-path: inset(0 50% 0 0)")
    if not below or not above:
        return
    info = probe(Path(after))
    wipe = ("this.parentElement.previousElementSibling.lastElementChild.style.clipPath = "
            "`inset(0 ${100 - this.value}% 0 0)`")
    _display_html(
        f'<div style="width: min(100%, {round(VIDEO_SIDE * info.width / max(info.width, info.height))}px)">'
        f'<div style="position: relative; aspect-ratio: {info.width} / {info.height}; margin-bottom: {CONTROLS}px">'
        f'{below}{above}</div><div style="display: flex; gap: 8px"><span>before</span><input type="range" min="0" '
        f'max="100" value="50" style="flex: 1" oninput="{wipe}"><span>after</span></div></div>')


def _player(path: Path, limit_kb: int, how: str, style: str = "max-width: 100%") -> str | None:
    """The HTML that plays a clip from inside the notebook; None, and a line, when it is too long. `how`: attributes."""
    check_source(path)
    data = _embeddable(path, limit_kb * 1000, sound="muted" not in how)
    if data is None:
        print(f"{path}: too long to be played inside the notebook; open the file in a video player")
        return None
    kind = "webm" if path.suffix.lower() == ".webm" else "mp4"
    return (f'<video {how} title="{escape(path.name, quote=True)}" style="{style}" '
            f'src="data:video/{kind};base64,{b64encode(data).decode()}"></video>')


def _display_html(text: str) -> None:
    from IPython.display import HTML, display

    display(HTML(text))


# ---------------------------------------------------------------------------------------------- figures
def _figure(images: Sequence[Picture], columns: int, titles: Sequence[str], height: int, names: Sequence[str]
            ) -> Figure:
    """Columns as wide as their widest picture asks for when all have one height."""
    pictures = [read_image(image) for image in images]
    if not pictures or columns < 1:
        raise VToonifyError(f"{len(pictures)} pictures in {columns} columns; expected at least one of each")
    if titles and len(titles) != len(pictures):
        raise VToonifyError(f"{len(titles)} titles for {len(pictures)} pictures; give one each, or none")
    rows = -(-len(pictures) // columns)
    if names and len(names) != rows:
        raise VToonifyError(f"{len(names)} names for {rows} rows; give one each, or none")
    aspects = [max(p.shape[1] / p.shape[0] for p in pictures[c::columns] or pictures[:1]) for c in range(columns)]
    heads = [_room(titles[i : i + columns]) for i in range(0, len(pictures), columns)]
    gap, beside = 8, _room(names)  # px
    tall = min(height, (WIDTH - beside - gap * (columns - 1)) / sum(aspects))
    size = np.array([beside + sum(aspects) * tall + gap * (columns - 1), rows * tall + sum(heads) + gap * (rows - 1)])
    figure = Figure(figsize=size / DPI, dpi=DPI)
    for i, picture in enumerate(pictures):
        row, column = divmod(i, columns)
        left = (beside + sum(aspects[:column]) * tall + gap * column) / size[0]
        bottom = 1 - ((row + 1) * tall + sum(heads[: row + 1]) + gap * row) / size[1]
        axes = figure.add_axes((left, bottom, aspects[column] * tall / size[0], tall / size[1]))
        axes.imshow(picture, interpolation="antialiased")
        axes.set_axis_off()
        if titles:
            axes.set_title(titles[i], fontsize=10, pad=4)
        if names and not column:
            figure.text(beside / 2 / size[0], bottom + tall / 2 / size[1], names[row], fontsize=10, rotation=90,
                        ha="center", va="center")
    return figure


def _room(texts: Sequence[str]) -> int:
    """px that the longest of these texts needs across its lines; 0 where all are empty."""
    return 24 * max((text.count("\n") + 1 for text in texts if text), default=0)


def _jpeg(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="jpeg", facecolor="white", pil_kwargs={"quality": JPEG_QUALITY, "optimize": True})
    return buffer.getvalue()


def _display_jpeg(data: bytes) -> None:
    from IPython.display import display

    display({"image/jpeg": b64encode(data).decode(), "text/plain": "<picture>"}, raw=True)


def _running_mean(values: np.ndarray) -> np.ndarray:
    """Mean of the values around each, as many as a tenth of all; fewer at the ends, the same on both sides."""
    reach, sums = len(values) // 20, np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    reach = np.minimum(reach, np.minimum(at, at[::-1]))
    return (sums[at + reach + 1] - sums[at - reach]) / (2 * reach + 1)


# ---------------------------------------------------------------------------------------------- clips
def _embeddable(path: Path, limit: int, sound: bool) -> bytes | None:
    """The clip as it is, or the largest copy that was found to fit into `limit` bytes; None when none does."""
    size, info = path.stat().st_size, probe(path)
    full = max(info.width, info.height)
    if size <= limit and full <= VIDEO_SIDE and path.suffix.lower() in (".mp4", ".webm"):
        return path.read_bytes()
    side = min(full, VIDEO_SIDE, round(full * (4 * limit / size) ** 0.5))  # bytes go with the area, roughly
    with TemporaryDirectory() as folder:
        while side >= min(full, LEAST_SIDE):
            copy = _shrunk(path, Path(folder) / "small.mp4", side / full, sound)
            if copy.stat().st_size <= limit:
                return copy.read_bytes()
            side = int(side * min(0.8, (limit / copy.stat().st_size) ** 0.5))
    return None


def _shrunk(src: Path, dst: Path, scale: float, sound: bool) -> Path:
    """A coarse copy of a clip, `scale` times the size."""
    with VideoWriter(dst, source=src, sound=sound, coarse=True) as writer, closing(read_frames(src)) as frames:
        for frame in frames:
            height, width = (max(2, round(side * scale / 2) * 2) for side in frame.rgb.shape[:2])
            small = Image.fromarray(frame.rgb).resize((width, height), Image.Resampling.BICUBIC)
            writer.write(np.asarray(small), frame.pts)
    return dst
