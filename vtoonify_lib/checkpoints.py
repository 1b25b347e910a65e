"""Bundles: a folder with `bundle.json` and safetensors files is all the rest of the code knows about weights.

`bundle.json` holds the architecture sizes, the sha256 and size of every file, licence, provenance and measured numbers.
A bundle is found by name in the models folder or by path, its files are checked before they are opened, and networks
are filled strictly: a missing or foreign weight is an error, never a warning. Nothing here downloads anything.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from .config import VToonifyConfig, VToonifyError
from .downloads import cache_folder, sha256_of
from .models.encoders import ParsingNet, StyleEncoder
from .models.stylegan2 import Generator
from .models.vtoonify import VToonify

BUNDLE_FORMAT = 1
BUNDLE_FILE = "bundle.json"
MODELS_FOLDER = Path(__file__).resolve().parent.parent / "data" / "models"
MODELS_VARIABLE = "VTOONIFY_MODELS"  # environment variable: another folder of bundles, searched first
HALF_LIMIT = 60000.0                 # float16 ends at 65504

# What each weight file holds: the module is built from the bundle's config, or from the arguments under "models".
NETWORKS = {
    "vtoonify": lambda config, arguments: VToonify(config),
    "parsing": lambda config, arguments: ParsingNet(**arguments),
    "style_encoder": lambda config, arguments: StyleEncoder(**arguments),
    "base": lambda config, arguments: Generator(config.generator),
    "stylized": lambda config, arguments: Generator(config.generator),
}


@dataclass(frozen=True)
class Bundle:
    """A checked `bundle.json` and the folder it lies in. `load_bundle` makes it; weights are read on demand."""

    folder: Path
    info: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.info["name"]

    @property
    def title(self) -> str:
        return self.info.get("title", self.name)

    @property
    def licence(self) -> str:
        return self.info.get("licence", "unknown")

    @property
    def metrics(self) -> Mapping[str, Any]:
        return self.info.get("metrics", {})

    @property
    def bytes(self) -> int:
        """Size of all files of the bundle, as recorded."""
        return sum(entry["bytes"] for entry in self.info["files"].values())

    @cached_property
    def config(self) -> VToonifyConfig:
        """Sizes of the VToonify network."""
        return VToonifyConfig.from_dict(self.info["config"])

    def problem(self) -> str | None:
        """What is wrong with the files on disk, in a few words, by name and size only; None when all are there."""
        for entry in self.info["files"].values():
            path = self.folder / entry["path"]
            if not path.is_file():
                return f"{entry['path']} is missing"
            if path.stat().st_size != entry["bytes"]:
                return f"{entry['path']} has the wrong size"
        return None

    def path(self, key: str) -> Path:
        """Path of one file ("vtoonify", "landmarks", …) after its sha256 was checked."""
        entry = self.info["files"].get(key)
        if entry is None:
            raise VToonifyError(f"bundle {self.name} has no {key}; it has {', '.join(self.info['files'])}")
        path = self.folder / entry["path"]
        if not path.is_file():
            raise VToonifyError(f"bundle {self.name} is incomplete: {path} is missing; restore it or use another one")
        found = sha256_of(path)
        if found != entry["sha256"]:
            raise VToonifyError(f"{path} is not the file that bundle {self.name} names: its sha256 is {found[:12]}…, "
                                f"expected {entry['sha256'][:12]}…; the file is damaged or was changed, fetch it again")
        return path

    def network(self, key: str) -> nn.Module:
        """One network ("vtoonify", "parsing", …) in float32 and eval mode, on the CPU, without gradients."""
        if key not in NETWORKS:
            raise VToonifyError(f"{key} is not a network; bundles hold {', '.join(NETWORKS)}")
        path = self.path(key)
        try:
            state = load_file(path)
        except (SafetensorError, OSError) as error:
            raise VToonifyError(f"{path} is not a readable safetensors file ({error})") from error
        try:
            module = NETWORKS[key](self.config, self.info.get("models", {}).get(key, {}))
        except TypeError as error:
            raise VToonifyError(f"bundle {self.name}: models.{key} does not describe the network ({error})") from error
        _load_strictly(module, state, f"{key} of bundle {self.name}")
        return module.eval().requires_grad_(False)


def load_bundle(name_or_path: str | Path) -> Bundle:
    """The bundle of that name in the models folder, or at that path (the folder, or its bundle.json).

    Raises VToonifyError for an unknown name (and lists the known ones), an unreadable description, or a format that
    this version does not know. Hashes are checked when a file is used.
    """
    folder = _find(name_or_path)
    path = folder / BUNDLE_FILE
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise VToonifyError(f"{path} cannot be read ({error})") from error
    if not isinstance(info, dict) or "format" not in info:
        raise VToonifyError(f"{path} does not describe a bundle: it has no format number")
    if info["format"] != BUNDLE_FORMAT:
        raise VToonifyError(f"{path} has format {info['format']}; this version reads format {BUNDLE_FORMAT}: "
                            "update vtoonify, or convert the bundle again")
    missing = [key for key in ("name", "backbone", "config", "files") if key not in info]
    if missing:
        raise VToonifyError(f"{path} is incomplete: it has no {' and no '.join(missing)}")
    for key, entry in info["files"].items():
        if not {"path", "sha256", "bytes"} <= set(entry) or Path(entry["path"]).name != entry["path"]:
            raise VToonifyError(f"{path}: files.{key} needs a plain file name as path, a sha256 and bytes")
    return Bundle(folder, info)


def list_bundles() -> list[Bundle]:
    """All readable bundles of the models folders, by name."""
    bundles = {}
    for root in reversed(models_folders()):
        for path in sorted(root.glob(f"*/{BUNDLE_FILE}")):
            try:
                bundles[path.parent.name] = load_bundle(path.parent)
            except VToonifyError:
                continue  # `load_bundle` by name tells what is wrong with it
    return [bundles[name] for name in sorted(bundles)]


def models_folders() -> list[Path]:
    """Folders searched for bundles, first one first."""
    extra = os.environ.get(MODELS_VARIABLE)
    return [*([Path(extra)] if extra else []), MODELS_FOLDER]


def save_bundle(folder: str | Path, *, name: str, title: str, config: VToonifyConfig, networks: Mapping[str, nn.Module],
                files: Mapping[str, Path] | None = None, models: Mapping[str, Mapping[str, Any]] | None = None,
                licence: str = "CC0-1.0", provenance: Mapping[str, Any] | None = None,
                metrics: Mapping[str, Any] | None = None, half: bool = True) -> Bundle:
    """Write a bundle folder; `bundle.json` comes last, so that an interrupted save is never taken for a bundle.

    networks  key of NETWORKS → module;  files: other files to copy in (landmarks → shape predictor)
    models    constructor arguments of networks that `config` does not describe (parsing, style_encoder)
    half      matrices and kernels as float16, vectors stay float32; read back as float32 either way
    """
    folder = Path(folder)
    unknown = [key for key in networks if key not in NETWORKS]
    if unknown:
        raise VToonifyError(f"{unknown[0]} is not a network of a bundle; known are {', '.join(NETWORKS)}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / BUNDLE_FILE).unlink(missing_ok=True)
    entries = {}
    for key, module in networks.items():
        path = folder / f"{key}.safetensors"
        save_file({k: _stored(v, half) for k, v in module.state_dict().items()}, path, metadata={"network": key})
        entries[key] = _entry(path)
    for key, source in (files or {}).items():
        path = folder / f"{key}{Path(source).suffix}"
        if path.resolve() != Path(source).resolve():
            shutil.copyfile(source, path)
        entries[key] = _entry(path)
    info = {"format": BUNDLE_FORMAT, "name": name, "title": title, "backbone": config.backbone,
            "config": config.to_dict(), "files": entries, "models": {k: dict(v) for k, v in (models or {}).items()},
            "licence": licence, "provenance": dict(provenance or {}), "metrics": dict(metrics or {})}
    part = folder / f".{BUNDLE_FILE}.{secrets.token_hex(4)}"
    part.write_text(json.dumps(info, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(part, folder / BUNDLE_FILE)
    return load_bundle(folder)


def _entry(path: Path) -> dict[str, Any]:
    return {"path": path.name, "sha256": sha256_of(path), "bytes": path.stat().st_size}


def _stored(tensor: torch.Tensor, half: bool) -> torch.Tensor:
    """A contiguous copy that shares nothing (safetensors refuses views), in half precision where it is harmless."""
    tensor = tensor.detach().cpu()
    large = tensor.dtype == torch.float32 and tensor.ndim >= 2 and tensor.numel()
    if half and large and tensor.abs().max() < HALF_LIMIT:
        tensor = tensor.half()
    return tensor.contiguous().clone(memory_format=torch.contiguous_format)


def _find(name_or_path: str | Path) -> Path:
    """Folder of a bundle. A name with a slash, or one that exists as a bundle here, is a path."""
    path = Path(name_or_path)
    path = path.parent if path.name == BUNDLE_FILE else path
    if len(path.parts) == 1:
        for root in models_folders():
            if (root / path / BUNDLE_FILE).is_file():
                return root / path
    if (path / BUNDLE_FILE).is_file():
        return path
    known = ", ".join(bundle.name for bundle in list_bundles()) or f"none in {MODELS_FOLDER}"
    if path.is_dir() and len(path.parts) > 1:
        raise VToonifyError(f"{path} is not a bundle: it has no {BUNDLE_FILE}")
    raise VToonifyError(f"there is no bundle {str(name_or_path)!r}; known bundles: {known}; "
                        "or give the path of a bundle folder")


def _load_strictly(module: nn.Module, state: Mapping[str, torch.Tensor], what: str) -> None:
    """Fill the module with exactly these weights, as float32; one sentence when they do not fit."""
    wanted = module.state_dict()
    missing, foreign = wanted.keys() - state.keys(), state.keys() - wanted.keys()
    if missing or foreign:
        example = min(missing or foreign)
        raise VToonifyError(f"{what} does not fit its description: {len(missing)} weights are missing and "
                            f"{len(foreign)} are unknown, for example {example}")
    for key, value in state.items():
        if value.shape != wanted[key].shape:
            raise VToonifyError(f"{what} does not fit its description: {key} has shape {list(value.shape)}, "
                                f"expected {list(wanted[key].shape)}")
    module.load_state_dict({key: value.to(wanted[key].dtype) for key, value in state.items()}, strict=True)
