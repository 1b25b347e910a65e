"""The demonstration: the sample clip in every look of a bundle, and all of them beside the original."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config import VToonifyError
from ..inference import toonifier as pipeline
from ..inference.toonifier import DEFAULT_BUNDLE, Toonifier
from ..inference.video import VideoResult
from ..media.video import side_by_side
from ..styles.request import AS_TRAINED, Look


def demo(out: str | Path = "out", bundle: str | Path = DEFAULT_BUNDLE, device: str = "auto",
         look: Look = AS_TRAINED, progress: bool = True, **how: Any) -> list[VideoResult]:
    """Toonify the sample clip, with its sound → what was done, clip by clip.

    OUT/demo.mp4, or OUT/demo_LOOK.mp4 for each look of a bundle that has several and is not asked for a style; then
    OUT/demo_compare.mp4 with the original beside them. Arguments as `Toonifier.load` and `Toonifier.image`.
    """
    if not pipeline.SAMPLE.is_file():
        raise VToonifyError(f"the sample clip {pipeline.SAMPLE} is missing; run from a checkout of the repository")
    out = Path(out)
    toonifier = Toonifier.load(bundle, device, progress=progress, **how)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VToonifyError(f"the folder {out} cannot be made ({error.strerror})") from error
    styles = toonifier.styles
    looks = {"": look} if styles is None or look.style is not None else {
        f"_{name}": replace(look, style=style) for name, style in styles.looks.items()}
    results = [toonifier.video(pipeline.SAMPLE, out / f"demo{name}.mp4", look=asked, progress=progress)
               for name, asked in looks.items()]
    side_by_side([pipeline.SAMPLE, *(result.path for result in results)], out / "demo_compare.mp4")
    return results
