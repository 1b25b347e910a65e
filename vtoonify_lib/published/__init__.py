"""The published VToonify checkpoints: which there are, how to get them, and how they become bundles (SPEC §8).

    presets     what exists and what each can do     weights     what is in the files
    obtaining   consent, fetch, convert, once        conversion  files → bundle

    folder = obtain("pixar-d", ask=lambda notice: input(notice + "\\nAccept? [y/N] ") == "y")
    bundle = load_bundle(folder)
    network, style = bundle.network("vtoonify"), style_code(bundle)
"""

from .conversion import convert, preset_of, style_code
from .obtaining import has_consent, is_ready, obtain, on_disk
from .presets import LICENCE, LICENCE_NOTICE, LICENCE_URL, PRESETS, REPOSITORY, Preset, preset
from .weights import UnfitFile

__all__ = ["LICENCE", "LICENCE_NOTICE", "LICENCE_URL", "PRESETS", "REPOSITORY", "Preset", "UnfitFile", "convert",
           "has_consent", "is_ready", "obtain", "on_disk", "preset", "preset_of", "style_code"]
