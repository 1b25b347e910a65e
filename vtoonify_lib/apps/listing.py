"""What is on this machine and what can be had, as tables for people: `vtoonify models`."""

from __future__ import annotations

from collections.abc import Sequence

from ..styles.table import StyleTable
from ..weights.bundle import list_bundles, models_folders
from ..weights.downloads import cache_folder
from ..weights.published import LICENCE, LICENCE_URL, PRESETS, on_disk

METRICS_SHOWN = 4


def models() -> str:
    """Bundles with their numbers, and the published presets with what each can do."""
    rows = [("BUNDLE", "SIZE", "LICENCE", "ON DISK", "PIXELS", "NUMBERS")]
    for bundle in list_bundles():
        if bundle.name in PRESETS and bundle.folder == cache_folder() / "bundles" / bundle.name:
            continue
        numbers = [f"{key} {value:.3g}" for key, value in bundle.metrics.items() if isinstance(value, int | float)]
        side = bundle.config.framing_size
        rows.append((bundle.name, f"{bundle.bytes / 1e6:.1f} MB", bundle.licence, bundle.problem() or "complete",
                     f"{side} → {side * bundle.config.scale}", ", ".join(numbers[:METRICS_SHOWN]) or "-"))
    ours = table(rows) if len(rows) > 1 else (
        f"no bundle in {', '.join(map(str, models_folders()))}; `make train-default` makes one")
    published = table([("PUBLISHED", "FAMILY", "CAN DO", "LICENCE", "ON DISK"),
                       *((preset.name, preset.family, preset.abilities, "non-commercial", on_disk(preset))
                         for preset in PRESETS.values())])
    return f"""{ours}

{published}

Published by the authors of VToonify under the {LICENCE}: {LICENCE_URL}
To get one, name it: `vtoonify image IN OUT --bundle pixar-d`. Its files come from Hugging Face, or with `--from` from
a folder or an address of yours. They and what is made of them are in {cache_folder()}"""


def looks(styles: StyleTable) -> str:
    """The looks of a bundle: which exemplar stands for each, and what the exemplars are called."""
    rows = [("LOOK", "STANDS FOR", "EXEMPLARS")]
    for look, stands in styles.looks.items():
        names = [name for name in styles.names if name.rsplit("-", 1)[0] == look]
        rows.append((look, stands, f"{names[0]} … {names[-1]}"))
    return table(rows)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells, the first one the heading, as lines with columns as wide as they need to be."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
                     for row in rows)
