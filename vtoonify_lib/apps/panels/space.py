"""Styles and clips in three dimensions, with ipyvolume; a matplotlib view stands in where the widget cannot show."""

from __future__ import annotations

import warnings
from base64 import b64encode
from collections.abc import Callable, Sequence
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from ...config import VToonifyError
from ...media.images import read_image
from ...media.video import read_frames
from ...styles.table import StyleTable
from ..notebook_setup import on_colab
from .parts import Gallery, jpeg

LOOK_COLOURS = ("#e8743b", "#6c8893", "#1976d2", "#8e44ad", "#2e8b57", "#b8860b")
SIDE = 480        # px, of a view
MOST_FRAMES = 96  # of a clip as a volume
MOST_SIDE = 96    # px, of its frames
GREYS = np.linspace(0, 1, 256, dtype=np.float32)


def coordinates(codes: torch.Tensor, dimensions: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Principal components of codes [N,…] → positions [N,dimensions], and the share of the variance along each axis.

    Axes are ordered by variance, and point where their largest entry is positive, so that they do not flip.
    """
    flat = codes.flatten(1).double()
    if len(flat) <= dimensions:
        raise VToonifyError(f"{len(flat)} codes do not fill {dimensions} dimensions; give at least {dimensions + 1}")
    centred = flat - flat.mean(0)
    _, spread, axes = torch.linalg.svd(centred, full_matrices=False)
    axes = axes[:dimensions]
    axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    share = spread.square() / spread.square().sum()
    return (centred @ axes.T).numpy(), share[:dimensions].numpy()


def style_space(table: StyleTable, on_pick: Callable[[str], None] | None = None) -> widgets.Widget:
    """Every style of a table as a point, a colour for each look: near means alike. Click a point to pick its style.

    The name and the picture of the point under the mouse stand beside the view. The gallery picks too; `on_pick(name)`
    is called for each click.
    """
    points, share = coordinates(table.table)
    looks = [name.rsplit("-", 1)[0] for name in table.names]
    said = widgets.HTML("point with the mouse to see a style, click to pick it")
    view: dict[str, Any] = {}

    def tell(name: str) -> None:
        small = Image.fromarray(read_image(table.picture(name))).resize((128, 128))
        address = b64encode(jpeg(np.asarray(small))).decode()
        said.value = f'<b>{name}</b><br><img src="data:image/jpeg;base64,{address}">'

    def pick(name: str) -> None:
        tell(name)
        gallery.mark([name])
        for scatter, names in view.get("scatters", ()):
            scatter.selected = [names.index(name)] if name in names else None  # [] breaks ipyvolume's view
        if on_pick:
            on_pick(name)

    gallery = Gallery(table, pick)
    try:
        figure, view["scatters"] = _scatters(points, looks, table.names, tell, pick)
        _label_axes(figure, "PC 1", "PC 2", "PC 3")
    except Exception as error:  # ipyvolume fails in many ways where it does not fit the front end
        figure = _picture(style_map(points, looks), f"shown flat, ipyvolume is not at hand ({type(error).__name__})")
    legend = " ".join(f'<span style="color: {colour}">●</span> {look} &nbsp;'
                      for look, colour in zip(dict.fromkeys(looks), LOOK_COLOURS, strict=False))
    shares = ", ".join(f"{part:.0%}" for part in share)
    beside = widgets.HBox([figure, widgets.VBox([said, gallery], layout=widgets.Layout(width="420px"))])
    return widgets.VBox([widgets.HTML(legend), beside, widgets.HTML(
        f"<small>axes: the principal components (PC) of the codes, with {shares} of their variance</small>")])


def _scatters(points: np.ndarray, looks: Sequence[str], names: Sequence[str], tell: Callable[[str], None],
              pick: Callable[[str], None]) -> tuple[widgets.Widget, list[tuple[Any, list[str]]]]:
    """ipyvolume's figure, and for each look its points with their names."""
    ipv = _ipyvolume()
    figure, made = ipv.figure(width=SIDE, height=SIDE), []
    for look, colour in zip(dict.fromkeys(looks), LOOK_COLOURS, strict=False):
        index = [i for i, each in enumerate(looks) if each == look]
        mine = [names[i] for i in index]
        scatter = ipv.scatter(*points[index].T.astype(np.float32), color=colour, size=4, marker="sphere")
        scatter.color_selected, scatter.size_selected = "#ffd600", 7
        for what, do in (("hovered_index", tell), ("clicked_index", pick)):
            scatter.observe(lambda change, mine=mine, do=do: change["new"] is None or do(mine[change["new"]]), what)
        made.append((scatter, mine))
    ipv.squarelim()
    return figure, made


def _label_axes(figure: Any, *labels: str) -> None:
    """Names at the axes of ipyvolume's current figure, without its tick marks, which are too small to read."""
    figure.xlabel, figure.ylabel, figure.zlabel = labels
    figure.style = {**figure.style, "axes": {**figure.style.get("axes", {}), "ticklabel": {"color": "white"}}}


def style_map(points: np.ndarray, looks: Sequence[str]) -> Image.Image:
    """The same as a flat picture: three views of points [N,3], one for each pair of axes."""
    figure = Figure(figsize=(9.6, 3.4), dpi=100, layout="constrained")
    for axes, (i, j) in zip(figure.subplots(1, 3), ((0, 1), (0, 2), (1, 2)), strict=True):
        for look, colour in zip(dict.fromkeys(looks), LOOK_COLOURS, strict=False):
            index = [n for n, each in enumerate(looks) if each == look]
            axes.scatter(points[index, i], points[index, j], s=18, color=colour, label=look)
        axes.set(xlabel=f"component {i + 1}", ylabel=f"component {j + 1}")
    figure.axes[0].legend(fontsize=7)
    return _drawn(figure)


# -- a clip as a volume ----------------------------------------------------------------------------------------------
def volume(clip: str | Path) -> np.ndarray:
    """A clip as grey values uint8 [T,H,W], with no more than MOST_FRAMES frames and MOST_SIDE pixels a side."""
    frames: list[np.ndarray] = []
    step = 1
    with closing(read_frames(Path(clip))) as reader:
        for i, frame in enumerate(reader):
            if i % step:
                continue
            scale = min(1.0, MOST_SIDE / max(frame.rgb.shape[:2]))
            size = [max(1, round(n * scale)) for n in frame.rgb.shape[1::-1]]
            frames.append(np.asarray(Image.fromarray(frame.rgb).convert("L").resize(size, Image.Resampling.BOX)))
            if len(frames) == MOST_FRAMES:
                frames, step = frames[::2], 2 * step
    return np.stack(frames)


def space_time(clip: str | Path) -> widgets.Widget:
    """A clip as a block, time going into the depth: what holds still is a straight grain, what flickers is noise."""
    block = volume(clip)
    try:
        ipv = _ipyvolume()
        figure = ipv.figure(width=SIDE, height=SIDE)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # where nothing changes its gradients have no direction
            block = block[:, ::-1, block.shape[2] // 2 :]  # cut open at its middle column, where the face is
            ipv.volshow(np.ascontiguousarray(block.astype(np.float32) / 255), data_min=0, data_max=1, controls=False,
                        tf=ipv.TransferFunction(rgba=np.stack([*3 * [GREYS], np.full_like(GREYS, 0.9)], 1)))
        _label_axes(figure, "column", "row", "time")
        ipv.view(azimuth=-50, elevation=20, distance=2.6)
        return widgets.VBox([figure, widgets.HTML("<small>cut open at the middle column: there the face goes through "
                                                  "time</small>")])
    except Exception as error:
        return _picture(slices(block), f"shown as slices, ipyvolume is not at hand ({type(error).__name__})")


def slices(block: np.ndarray) -> Image.Image:
    """A block [T,H,W] as three cuts through its middle: a frame, a row over time, a column over time."""
    t, h, w = (n // 2 for n in block.shape)
    figure = Figure(figsize=(9.6, 3.4), dpi=100, layout="constrained")
    cuts = {"the frame in the middle": block[t], "its middle row over time (down)": block[:, h],
            "its middle column over time (right)": block[:, :, w].T}
    for axes, (title, cut) in zip(figure.subplots(1, 3), cuts.items(), strict=True):
        axes.imshow(cut, cmap="gray", vmin=0, vmax=255, aspect="auto")
        axes.set_title(title, fontsize=9)
        axes.set_axis_off()
    return _drawn(figure)


def _ipyvolume() -> Any:
    """The library. VToonifyError on Colab, where its figures would stay empty for lack of JavaScript."""
    if on_colab():
        raise VToonifyError("ipyvolume's figures stay empty on Colab")
    import ipyvolume

    return ipyvolume


def _drawn(figure: Figure) -> Image.Image:
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer).convert("RGB")


def _picture(picture: Image.Image, why: str) -> widgets.Widget:
    return widgets.VBox([widgets.Image(value=jpeg(np.asarray(picture)), format="jpeg"),
                         widgets.HTML(f"<small>{why}</small>")])
