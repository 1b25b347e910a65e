"""From the name of a preset to its bundle: consent, fetch, convert. Once; from then on it is simply there.

And the way back: what was converted or downloaded is deleted, and nothing else.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from pathlib import Path

from ...config import VToonifyError
from ..bundle import BUNDLE_FILE, Bundle, load_bundle, models_folders
from ..downloads import cache_folder, discard, disk_errors, fetch, is_address
from .consent import ask_user, require_consent
from .conversion import PARTS, convert, own_landmarks
from .presets import LANDMARKS, PRESETS, REPOSITORY, Preset
from .presets import preset as preset_named
from .weights import UnfitFile


def open_bundle(name: str | Path, source: str | Path | None = None, *, accept_licence: bool = False,
                ask: Callable[[str], bool] | None = ask_user, tell: Callable[[str], object] = print,
                progress: bool = True) -> Bundle:
    """The bundle of that name or path; a published preset is obtained first when it is not on this machine yet.

    Arguments as :func:`obtain`; by default the user is asked, in a terminal or a notebook.
    Raises VToonifyError as `load_bundle` and `obtain`, and for a source of something that is not fetched.
    """
    own = [root / name for root in models_folders() if root != cache_folder() / "bundles"]
    if str(name) in PRESETS and not any((folder / BUNDLE_FILE).is_file() for folder in own):
        return load_bundle(obtain(str(name), source, accept_licence=accept_licence, ask=ask, tell=tell,
                                  progress=progress))
    if source is not None:
        raise VToonifyError(f"{name} is not a published preset, so there is nothing to fetch; drop --from",
                            code="unknown")
    try:
        return load_bundle(name)
    except VToonifyError as error:
        close = difflib.get_close_matches(str(name), PRESETS, n=3)
        if not close or any((folder / BUNDLE_FILE).is_file() for folder in own):
            raise
        raise VToonifyError(f"{error}; or did you mean the published {' or '.join(close)}?", code="unknown") from error


def obtain(preset: str | Preset, source: str | Path | None = None, *, accept_licence: bool = False,
           ask: Callable[[str], bool] | None = None, tell: Callable[[str], object] = print, progress: bool = True
           ) -> Path:
    """Folder of the bundle of a published preset, which is fetched and converted when it is not there yet.

    source          None: its Hugging Face repository; a folder laid out like it; or an address the paths are added to
    accept_licence  the user has said so (`--accept-licence`); the licence is shown all the same
    ask             gets the licence's notice, and says whether the user accepts it; called at most once
    tell            gets a line of text now and then: the licence, and every file with its size and hash
    Raises VToonifyError: unknown preset, licence not accepted, a file that cannot be had or used.
    """
    preset = preset_named(preset) if isinstance(preset, str) else preset
    out = _folder(preset)
    if is_ready(out):
        if source is not None:
            tell(f"{preset.name} is here already, {source} was not looked at; to make it anew, first "
                 f"`vtoonify models --remove {preset.name}`")
        return out
    require_consent(accept_licence, ask, tell)
    fetched = {}
    for role, name in preset.sources.items():
        fetched[role] = fetch(name, REPOSITORY, source, progress)
        tell(str(fetched[role]))
    if source is not None and not is_address(source) and own_landmarks(Path(source).expanduser()):
        fetched["landmarks"] = fetch(LANDMARKS, REPOSITORY, source, progress)
        tell(str(fetched["landmarks"]))
    files = {role: file.path for role, file in fetched.items()}
    tell(f"converting {preset.name}, once")
    try:
        return convert(preset, files, out, siblings=_bundles()).folder
    except UnfitFile as error:
        for file in fetched.values():
            if file.path == error.path:
                discard(file)
        raise


def is_ready(folder: Path) -> bool:
    """True when a complete converted bundle lies there."""
    try:
        return load_bundle(folder / BUNDLE_FILE).problem() is None
    except VToonifyError:
        return False


def on_disk(preset: Preset) -> str:
    """What of a preset is on this machine, in a few words for a table."""
    folder = _folder(preset)
    if is_ready(folder):
        return f"ready, {load_bundle(folder / BUNDLE_FILE).bytes / 1e6:.0f} MB"
    have = sum((cache_folder() / "files" / name).is_file() for name in preset.sources.values())
    return f"{have} of {len(preset.sources)} files" if have else "-"


def _folder(preset: Preset) -> Path:
    """Where the bundle of a preset is made."""
    return cache_folder() / "bundles" / preset.name


def _bundles() -> list[Bundle]:
    """Converted bundles that are complete."""
    folders = sorted(path.parent for path in (cache_folder() / "bundles").glob(f"*/{BUNDLE_FILE}"))
    return [load_bundle(folder / BUNDLE_FILE) for folder in folders if is_ready(folder)]


# ---------------------------------------------------------------------------------------------- the way back
def remove(preset: str | Preset) -> int:
    """Delete a converted preset, and the downloads that no other converted one was made of. → bytes that are free now.

    Hashes and consent are kept. Raises VToonifyError when there is nothing of it on this machine.
    """
    preset = preset_named(preset) if isinstance(preset, str) else preset
    folder = _folder(preset)
    kept = {name for other in PRESETS.values() if other != preset and is_ready(_folder(other))
            for name in other.sources.values()}
    # The description first: what is left of an interrupted removal is no bundle.
    ours = [folder / BUNDLE_FILE, *(folder / f"{part}.safetensors" for part in PARTS),
            *folder.glob("landmarks.*"), *folder.glob(".*.safetensors.*")]
    freed = _delete([*ours, *_downloads(set(preset.sources.values()) - kept)])
    if freed is None:
        raise VToonifyError(f"there is nothing of {preset.name} in {cache_folder()}; `vtoonify models` shows what is "
                            "there")
    return freed


def clear_downloads() -> int:
    """Delete all downloaded originals; what was converted needs them no more. → bytes that are free now."""
    return _delete(_downloads({name for preset in PRESETS.values() for name in preset.sources.values()})) or 0


def _downloads(names: Iterable[str]) -> list[Path]:
    """Where files of the repository lie when they were downloaded, whole or in part."""
    return [path for name in names for path in (cache_folder() / "files").glob(f"{name}*")]


def _delete(paths: Iterable[Path]) -> int | None:
    """Delete the files that exist, and folders that are empty then. → bytes freed; None when there were no files."""
    freed = None
    for path in paths:
        if not path.is_file():
            continue
        with disk_errors(path):
            facts = path.lstat()
            path.unlink()
            # A file that other presets share by a link is still there under their names.
            freed = (freed or 0) + (facts.st_size if facts.st_nlink == 1 else 0)
        if not any(path.parent.iterdir()):
            path.parent.rmdir()
    return freed
