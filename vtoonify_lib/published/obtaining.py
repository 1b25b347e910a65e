"""From the name of a preset to its bundle: consent, fetch, convert. Once; from then on it is simply there.

The licence is shown and asked for once, and the answer is kept in the cache. Without it nothing is fetched or made.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path

from ..checkpoints import BUNDLE_FILE, Bundle, load_bundle
from ..config import VToonifyError
from ..downloads import cache_folder, discard, fetch, is_address, write_json
from .conversion import convert, own_landmarks
from .presets import LICENCE, LICENCE_NOTICE, LICENCE_URL, REPOSITORY, Preset
from .presets import preset as preset_named
from .weights import UnfitFile

CONSENT = "consent.json"


def obtain(preset: str | Preset, source: str | Path | None = None, *, accept_licence: bool = False,
           ask: Callable[[str], bool] | None = None, half: bool = True, cache: str | Path | None = None,
           tell: Callable[[str], object] = print, progress: bool = True) -> Path:
    """Folder of the bundle of a published preset, which is fetched and converted when it is not there yet.

    source          None: its Hugging Face repository; a folder laid out like it; or an address the paths are added to
    accept_licence  the user has said so (`--accept-licence`); the licence is shown all the same
    ask             gets the licence's notice, and says whether the user accepts it; called at most once
    half            keep matrices and kernels as float16; a bundle in the other precision is made anew
    cache           default `downloads.cache_folder()`
    tell            gets a line of text now and then: the licence, and every file with its size and hash
    Raises VToonifyError: unknown preset, licence not accepted, a file that cannot be had or used.
    """
    preset = preset_named(preset) if isinstance(preset, str) else preset
    cache = Path(cache) if cache else cache_folder()
    out = cache / "bundles" / preset.name
    if is_ready(out, half):
        return out
    _consent(cache, accept_licence, ask, tell)
    fetched = {}
    for role, name in preset.sources.items():
        fetched[role] = fetch(name, REPOSITORY, source, cache, progress)
        tell(str(fetched[role]))
    files = {role: file.path for role, file in fetched.items()}
    if source is not None and not is_address(source):
        files |= own_landmarks(Path(source).expanduser())
    try:
        return convert(preset, files, out, half, siblings=_bundles(cache)).folder
    except UnfitFile as error:
        for file in fetched.values():
            if file.path == error.path:
                discard(file, cache)
        raise


def is_ready(folder: Path, half: bool | None = None) -> bool:
    """True when a complete converted bundle lies there (in that precision, unless None)."""
    try:
        bundle = load_bundle(folder / BUNDLE_FILE)
    except VToonifyError:
        return False
    precisions = {origin["half"] for origin in bundle.published.get("origins", {}).values()}
    return bundle.problem() is None and (half is None or precisions == {half})


def on_disk(preset: Preset, cache: str | Path | None = None) -> str:
    """What of a preset is on this machine, in a few words for a table."""
    cache = Path(cache) if cache else cache_folder()
    folder = cache / "bundles" / preset.name
    if is_ready(folder):
        return f"ready, {load_bundle(folder / BUNDLE_FILE).bytes / 1e6:.0f} MB"
    have = sum((cache / "files" / name).is_file() for name in preset.sources.values())
    return f"{have} of {len(preset.sources)} files" if have else "-"


def _bundles(cache: Path) -> list[Bundle]:
    """Converted bundles that are complete."""
    folders = sorted(path.parent for path in (cache / "bundles").glob(f"*/{BUNDLE_FILE}"))
    return [load_bundle(folder / BUNDLE_FILE) for folder in folders if is_ready(folder)]


# ---------------------------------------------------------------------------------------------- consent
def has_consent(cache: str | Path | None = None) -> bool:
    """True when the licence was accepted on this machine before."""
    try:
        path = (Path(cache) if cache else cache_folder()) / CONSENT
        return LICENCE in json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def _consent(cache: Path, accepted: bool, ask: Callable[[str], bool] | None, tell: Callable[[str], object]) -> None:
    """Return if the licence was accepted, now or before; VToonifyError otherwise."""
    if has_consent(cache):
        return
    if accepted:
        tell(LICENCE_NOTICE)
    elif ask is None or not ask(LICENCE_NOTICE):
        raise VToonifyError(f"the published checkpoints are under the {LICENCE} (non-commercial use only: "
                            f"{LICENCE_URL}), which was not accepted; if you accept it, add --accept-licence, or "
                            "accept_licence=True in Python")
    write_json(cache / CONSENT, {LICENCE: {"accepted": date.today().isoformat(), "url": LICENCE_URL}})
