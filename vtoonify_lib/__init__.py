"""VToonify, rebuilt as a workbook: portrait video in, animation out.

    from vtoonify_lib import Toonifier
    Toonifier.load().video("in.mp4", "out.mp4")

Rooms, from top to bottom; imports point down only (``tests/test_layering.py``; docs/layout.md says what is where)::

    apps                         command line, notebooks, panels, benchmarks
    inference · training         pictures and clips drawn · networks trained
    styles · evaluation          what may be asked for · numbers
    studio · weights.published   portraits drawn by a renderer · the authors' checkpoints
    faces                        found, measured, followed, cut out, parsed
    weights                      bundles, downloads
    media · models               pictures and clips · networks
    config                       sizes, presets, the one error class
"""

import os
from typing import TYPE_CHECKING, Any

from .config import VToonifyError

if TYPE_CHECKING:
    from .inference.toonifier import Toonifier
    from .styles.request import Look

# PyTorch's idle threads sleep instead of spinning, unless the user decided otherwise; it is read when PyTorch loads.
# Beside other work on two cores a clip of 62 frames took 83, 38 and 30 s like this, 184, 76 and 76 s else.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__all__ = ["Look", "Toonifier", "VToonifyError"]


def __getattr__(name: str) -> Any:
    """Toonifier and Look are loaded when first asked for: `vtoonify --help` answers before PyTorch is there."""
    if name == "Toonifier":
        from .inference.toonifier import Toonifier as found
    elif name == "Look":
        from .styles.request import Look as found
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return found
