"""The published VToonify checkpoints: which there are, how to get them, and how they become bundles.

    presets     what exists and what each can do     weights     what is in the files
    consent     the licence, asked for once          conversion  files → bundle
    obtaining   fetch and convert, once; and remove

    bundle = open_bundle("pixar-d")        # what Toonifier.load does
    network, style = bundle.network("vtoonify"), style_code(bundle)
"""

from .consent import ask_user, has_consent
from .conversion import convert, preset_of, style_code
from .obtaining import clear_downloads, is_ready, obtain, on_disk, open_bundle, remove
from .presets import LICENCE, LICENCE_NOTICE, LICENCE_URL, PRESETS, REPOSITORY, Preset, preset
from .weights import UnfitFile

__all__ = ["LICENCE", "LICENCE_NOTICE", "LICENCE_URL", "PRESETS", "REPOSITORY", "Preset", "UnfitFile", "ask_user",
           "clear_downloads", "convert", "has_consent", "is_ready", "obtain", "on_disk", "open_bundle", "preset",
           "preset_of", "remove", "style_code"]
