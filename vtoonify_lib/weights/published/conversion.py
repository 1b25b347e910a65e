"""Published files → a bundle, once: pickles become safetensors, without the weights that no frame ever reads.

Style codes go through the checkpoint's own mapping network here, so that the rest of the code sees w+ only. Presets
made from the same files share them on disk. What is in the files is read in `weights`; nothing is downloaded here.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from ...config import VToonifyConfig, VToonifyError
from ...faces.detector import FaceFinder
from ...models import latents
from ..bundle import BUNDLE_FILE, Bundle, load_bundle, save_bundle, save_tensors
from ..downloads import disk_errors, in_folder, sha256_of
from .presets import LANDMARKS, LICENCE, LICENCE_URL, Preset
from .presets import preset as preset_named
from .weights import UnfitFile, read_parser, read_style_encoder, read_styles, read_vtoonify

OUR_LANDMARKS = "studio-t"  # the bundle whose landmark model stands in for dlib's 68-point file
PARTS = ("vtoonify", "styles", "parsing", "style_encoder")  # safetensors files of a converted bundle
READERS = {"parsing": ("bisenet", read_parser), "style_encoder": ("psp", read_style_encoder)}  # kind in `bundle.KINDS`


def convert(preset: str | Preset, files: str | Path | Mapping[str, Path], out: str | Path, half: bool = True,
            siblings: Iterable[Bundle] = ()) -> Bundle:
    """Make a bundle of a preset's published files.

    files     folder laid out like the repository, or role → path ("vtoonify", "parsing", "style_encoder", "styles" for
              VToonify-D; "landmarks" if there is dlib's 68-point file, else ours is taken)
    out       folder of the bundle, made if necessary
    half      store matrices and kernels as float16
    siblings  bundles converted before: what they have from the same files is linked, not made again
    Raises UnfitFile (a VToonifyError) for a file that is damaged, hostile, or not of the network it should be.
    """
    preset = preset_named(preset) if isinstance(preset, str) else preset
    files = _in_folder(preset, Path(files)) if isinstance(files, str | Path) else files
    missing = [path for path in files.values() if not path.is_file()]
    if missing:
        raise VToonifyError(f"{missing[0]} does not exist", code="missing")
    out = Path(out)
    hashes = {role: sha256_of(path) for role, path in files.items()}
    origins = {role: {"sha256": hashes[role], "half": half} for role in READERS}
    # The styles of a bundle are w+ of this checkpoint's mapping network: the two belong together.
    origins["vtoonify"] = {"sha256": [hashes["vtoonify"], hashes.get("styles")], "half": half,
                           "only": None if preset.any_style else preset.style}
    made: dict[str, dict[str, Any]] = {}
    with disk_errors(out):
        _empty(out)
        for role in ("vtoonify", *READERS):
            made[role] = _shared(role, origins[role], out, siblings) or (
                _helper(role, files[role], out, half) if role in READERS else _vtoonify(preset, files, out, half))
        _check_pair(made["vtoonify"], made["style_encoder"], files["style_encoder"])
        return _finish(preset, _landmarks(files, out, siblings), "landmarks" in files, out, made, origins)


def preset_of(bundle: Bundle) -> Preset | None:
    """What a bundle can do, if it was converted from a published checkpoint."""
    return Preset.from_dict(bundle.published["preset"]) if bundle.published else None


def style_code(bundle: Bundle, style: int | None = None) -> torch.Tensor | None:
    """w+ [1,L,D] of an exemplar (None: the default one) of a converted VToonify-D; None for VToonify-T and ours."""
    preset = preset_of(bundle)
    if preset is None and style is not None:
        raise VToonifyError(f"{bundle.name} has one look and no styles to choose from; drop --style", code="unable")
    index = preset.check_style(style) if preset else None
    if index is None:
        return None
    codes = bundle.tensors("styles")["w_plus"].float()
    return codes[index : index + 1] if preset.any_style else codes


# ---------------------------------------------------------------------------------------------- parts
def _vtoonify(preset: Preset, files: Mapping[str, Path], out: Path, half: bool) -> dict[str, Any]:
    """The network, and for VToonify-D its exemplars: all of them, or the only one it was trained for."""
    network = read_vtoonify(files["vtoonify"], preset.backbone)
    names: list[str] = []
    if preset.is_d:
        path, config = files["styles"], network.config
        styles = read_styles(path, latents.n_latent(config.out_size), config.generator.style_dim)
        if preset.style >= len(styles):
            raise UnfitFile(path, f"{path} has {len(styles)} styles, 0 to {len(styles) - 1}; {preset.name} needs "
                                  f"number {preset.style}")
        names = list(styles) if preset.any_style else [list(styles)[preset.style]]
        codes = network.map(torch.stack([styles[name] for name in names]))
        save_tensors({"w_plus": codes}, out / "styles.safetensors", half=False, space="w+")
    save_tensors(network.state_dict(), out / "vtoonify.safetensors", half, network="vtoonify")
    return {"config": network.config.to_dict(), "model": {"inference": True}, "names": names}


def _helper(role: str, path: Path, out: Path, half: bool) -> dict[str, Any]:
    """A network of READERS."""
    kind, read = READERS[role]
    network, arguments = read(path)
    save_tensors(network.state_dict(), out / f"{role}.safetensors", half, network=role)
    return {"model": {"kind": kind, **arguments}}


def _check_pair(vtoonify: Mapping[str, Any], encoder: Mapping[str, Any], path: Path) -> None:
    """Raise VToonifyError unless the style encoder gives the codes that the network reads."""
    config, made = VToonifyConfig.from_dict(vtoonify["config"]), encoder["model"]
    wanted = [latents.n_latent(config.out_size), config.generator.style_dim]
    found = [made["n_styles"], 8 * made["width"]]
    if wanted != found:
        raise UnfitFile(path, f"{path} makes style codes {found}; the checkpoint reads {wanted}: the files do not "
                              "belong together")


# ---------------------------------------------------------------------------------------------- the folder
def _in_folder(preset: Preset, folder: Path) -> dict[str, Path]:
    files = {role: in_folder(folder, name) for role, name in preset.sources.items()}
    return files | own_landmarks(folder)


def own_landmarks(folder: Path) -> dict[str, Path]:
    """dlib's 68-point file, if it lies beside the others."""
    try:
        return {"landmarks": in_folder(folder, LANDMARKS)}
    except VToonifyError:
        return {}


def _empty(out: Path) -> None:
    """Room for a new bundle. The description goes first: what is left of an interrupted conversion is no bundle."""
    out.mkdir(parents=True, exist_ok=True)
    for path in (out / BUNDLE_FILE, *(out / f"{part}.safetensors" for part in PARTS), *out.glob("landmarks.*")):
        path.unlink(missing_ok=True)  # never written over: other bundles may have the same file by a link


def _shared(role: str, origin: Mapping[str, Any], out: Path, siblings: Iterable[Bundle]) -> dict[str, Any] | None:
    """Take a part from a bundle that was made from the same file: a second name for the same bytes on disk."""
    for sibling in siblings:
        keys = {role, "styles"} & sibling.info["files"].keys() if role == "vtoonify" else {role}
        same = sibling.published.get("origins", {}).get(role) == origin
        if same and _linked(sibling, {key: out / f"{key}.safetensors" for key in keys}):
            return {"config": sibling.info["config"], "model": sibling.info["models"][role],
                    "names": sibling.published["style_names"]}
    return None


def _landmarks(files: Mapping[str, Path], out: Path, siblings: Iterable[Bundle]) -> Path:
    """The landmark model to put into the bundle: dlib's if it is given, else ours; linked where a sibling has it."""
    source = files.get("landmarks")
    if source is None:
        source = load_bundle(OUR_LANDMARKS).path("landmarks")
    else:
        try:
            FaceFinder(source)
        except VToonifyError as error:
            raise UnfitFile(source, str(error)) from error
    target, digest = out / f"landmarks{source.suffix}", sha256_of(source)
    for sibling in siblings:
        if sibling.info["files"]["landmarks"]["sha256"] == digest and _linked(sibling, {"landmarks": target}):
            return target
    return source


def _linked(sibling: Bundle, targets: Mapping[str, Path]) -> bool:
    """Give files of a sibling a second name. False where one is damaged, or was deleted meanwhile: make it anew."""
    try:
        for key, target in targets.items():
            source = sibling.path(key)
            target.unlink(missing_ok=True)
            try:
                os.link(source, target)
            except OSError:  # another disk, or a file system without links
                shutil.copyfile(source, target)
    except (VToonifyError, OSError):
        return False
    return True


def _finish(preset: Preset, landmarks: Path, dlibs: bool, out: Path, made: Mapping[str, Mapping[str, Any]],
            origins: Mapping[str, Any]) -> Bundle:
    """Landmark model and `bundle.json`."""
    what = "dlib's 68 points (iBUG 300-W: not for commercial use)" if dlibs else f"that of {OUR_LANDMARKS}"
    names = made["vtoonify"]["names"]
    able = replace(preset, styles=len(names) if preset.any_style else preset.styles)
    weights = {part: out / f"{part}.safetensors" for part in PARTS if preset.is_d or part != "styles"}
    return save_bundle(
        out, name=preset.name, title=f"{preset.family}: {able.abilities} (published)", networks={},
        config=VToonifyConfig.from_dict(made["vtoonify"]["config"]),
        files={**weights, "landmarks": landmarks},
        models={role: part["model"] for role, part in made.items()}, licence=f"{LICENCE} (non-commercial)",
        provenance={"weights": "published by Yang, Jiang, Liu and Loy (VToonify, 2022)", "licence": LICENCE_URL,
                    "landmarks": what, "files": preset.sources},
        published={"preset": asdict(able), "style_names": names, "origins": dict(origins)})
