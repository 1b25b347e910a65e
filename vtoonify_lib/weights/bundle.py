"""Bundles: a folder with `bundle.json` and safetensors files is all the rest of the code knows about weights.

`bundle.json` holds the architecture sizes, the sha256 and size of every file, licence, provenance and measured numbers.
A bundle is found by name in the models folders or by path, its files are checked before they are opened, and networks
are filled strictly: a missing or foreign weight is an error, never a warning. Whether the weights are ours or the
published ones, a network plays the same role. Nothing here downloads or converts anything; see `weights.published`.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from ..config import DATA, VToonifyConfig, VToonifyError
from ..models.bisenet import PublishedParser
from ..models.dualstylegan import DualStyleGAN
from ..models.encoders import ParsingNet, StyleEncoder
from ..models.psp import PSP
from ..models.sampler import style_sampler
from ..models.stylegan2 import Generator
from ..models.vtoonify_d import build_vtoonify
from .downloads import cache_folder, sha256_of, write_json

BUNDLE_FORMAT = 1
BUNDLE_FILE = "bundle.json"
REQUIRED = {"name": str, "backbone": str, "config": dict, "files": dict}
TABLES = ("models", "provenance", "metrics", "published", "styles")
OPTIONAL = {"title": str, "licence": str, **dict.fromkeys(TABLES, dict)}
DEFAULT_BUNDLE = "film"
SHARED = "shared"                    # folder beside bundles: an entry with "shared": true has its file there
MODELS_FOLDER = DATA / "models"
MODELS_VARIABLE = "VTOONIFY_MODELS"  # environment variable: another folder of bundles, searched first
HALF_LIMIT = 60000.0                 # float16 ends at 65504

KINDS = {
    "parsing": {"studio": ParsingNet, "bisenet": PublishedParser},   # RGB → logits of the same size
    "style_encoder": {"studio": StyleEncoder, "psp": PSP},           # aligned face → w+; pSp: z+, for VToonify.map
}
"""Networks that differ between bundles, by role. `models.ROLE.kind` in `bundle.json` chooses; ours is the default."""

NETWORKS: dict[str, Callable[[VToonifyConfig, dict[str, Any]], nn.Module]] = {
    "vtoonify": lambda config, arguments: build_vtoonify(config, **arguments),
    "parsing": lambda config, arguments: KINDS["parsing"][arguments.pop("kind", "studio")](**arguments),
    "photo_parsing": lambda config, arguments: ParsingNet(**arguments),  # of photographs, for the studio's drawings
    "style_encoder": lambda config, arguments: KINDS["style_encoder"][arguments.pop("kind", "studio")](**arguments),
    "base": lambda config, arguments: Generator(config.generator),
    "stylized": lambda config, arguments: Generator(config.generator),
    "dual": lambda config, arguments: DualStyleGAN(config.generator),
    "person_encoder": lambda config, arguments: StyleEncoder(**arguments),  # aligned face → w of the base, one code
    "identity": lambda config, arguments: StyleEncoder(**arguments),        # aligned face → who it is, if unit length
    "sampler": lambda config, arguments: style_sampler(2 * config.generator.style_dim),
}
"""What each weight file holds: built from the bundle's config, and from the arguments under `models`."""


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
    def published(self) -> Mapping[str, Any]:
        """What `published` noted about converted checkpoints (styles, degrees, sources); empty for bundles of ours."""
        return self.info.get("published", {})

    @property
    def styles(self) -> Mapping[str, Any]:
        """Names, looks and start of the styles of our VToonify-D (`styles.table`); empty where there are none."""
        return self.info.get("styles", {})

    @property
    def bytes(self) -> int:
        """Size of all files of the bundle, as recorded."""
        return sum(entry["bytes"] for entry in self.info["files"].values())

    def version(self, key: str) -> str:
        """Identifies the version of a file: the start of its sha256; of the network that draws, with how its pictures
        are sharpened, for what it drew before that was changed cannot be drawn again."""
        found = str(self.info["files"][key]["sha256"])
        if key == "vtoonify" and self.config.sharpen:
            found = hashlib.sha256(f"{found} {self.config.sharpen}".encode()).hexdigest()
        return found[:16]

    @cached_property
    def config(self) -> VToonifyConfig:
        """Sizes of the VToonify network."""
        return VToonifyConfig.from_dict(self.info["config"])

    def _place(self, key: str) -> Path:
        """Where a file lies: in this folder, or in the one beside it for what several bundles have in common."""
        entry = self.info["files"][key]
        return (_shared_folder(self.folder) if entry.get("shared") else self.folder) / entry["path"]

    def problem(self) -> str | None:
        """What is wrong with the files on disk, in a few words, by name and size only; None when all are there."""
        for key, entry in self.info["files"].items():
            path = self._place(key)
            if not path.is_file():
                return f"{entry['path']} is missing"
            if path.stat().st_size != entry["bytes"]:
                return f"{entry['path']} has the wrong size"
        return None

    def path(self, key: str) -> Path:
        """Path of one file ("vtoonify", "landmarks", …) after its sha256 was checked."""
        entry = self.info["files"].get(key)
        if entry is None:
            raise VToonifyError(f"bundle {self.name} has no {key}; it has {', '.join(self.info['files'])}",
                                code="unknown")
        path = self._place(key)
        if not path.is_file():
            raise VToonifyError(f"bundle {self.name} is incomplete: {path} is missing; restore it or use another one",
                                code="missing")
        found = sha256_of(path)
        if found != entry["sha256"]:
            raise VToonifyError(f"{path} is not the file that bundle {self.name} names: its sha256 is {found[:12]}…, "
                                f"expected {entry['sha256'][:12]}…; the file is damaged or was changed, fetch it again",
                                code="changed")
        return path

    def network(self, key: str) -> nn.Module:
        """One network ("vtoonify", "parsing", …) in float32 and eval mode, on the CPU, without gradients."""
        if key not in NETWORKS:
            raise VToonifyError(f"{key} is not a network; bundles hold {', '.join(NETWORKS)}", code="unknown")
        arguments = self.info.get("models", {}).get(key, {})
        try:
            with torch.device("meta"):  # no memory and no random numbers for weights that come from the file
                module = NETWORKS[key](self.config, dict(arguments))
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise VToonifyError(f"bundle {self.name}: models.{key} does not describe the network "
                                f"({str(error).partition(chr(10))[0]})", code="unreadable") from error
        # A copy: safetensors maps the file into memory, and the file may be written anew while the network is in use.
        return fill(module, self.tensors(key), f"{key} of bundle {self.name}", copy=True)

    def tensors(self, key: str) -> dict[str, torch.Tensor]:
        """Contents of one safetensors file as they are stored: the weights of a network, or "styles"."""
        return read_tensors(self.path(key))


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
        raise VToonifyError(f"{path} cannot be read ({error})", code="unreadable") from error
    if not isinstance(info, dict) or "format" not in info:
        raise VToonifyError(f"{path} does not describe a bundle: it has no format number", code="unreadable")
    if info["format"] != BUNDLE_FORMAT:
        raise VToonifyError(f"{path} has format {info['format']}; this version reads format {BUNDLE_FORMAT}: "
                            "update vtoonify, or convert the bundle again", code="unreadable")
    _check_description(info, path)
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
    """Folders searched for bundles, first one first: the user's own, the shipped one, converted published ones."""
    extra = os.environ.get(MODELS_VARIABLE)
    return [*([Path(extra)] if extra else []), MODELS_FOLDER, cache_folder() / "bundles"]


def save_bundle(folder: str | Path, *, name: str, title: str, config: VToonifyConfig,
                networks: Mapping[str, nn.Module], files: Mapping[str, Path] | None = None, half: bool = True,
                **about: Any) -> Bundle:
    """Write a bundle folder; `bundle.json` comes last, so that an interrupted save is never taken for a bundle.

    networks  key of NETWORKS → module;  files: other files to copy in (landmarks → the landmark model); one that lies
              in the folder `shared` beside this bundle is referred to instead
    half      matrices and kernels as float16, vectors stay float32; read back as float32 either way
    about     the rest of the description: licence, provenance, metrics; models, constructor arguments of networks that
              `config` does not describe (parsing, style_encoder); published, what converted checkpoints are; styles,
              names, looks and start of the styles in files["styles"]
    """
    folder = Path(folder)
    rest = {"models": {}, "licence": "CC0-1.0", "provenance": {}, "metrics": {}, "published": {}, "styles": {}}
    unknown = [*(networks.keys() - NETWORKS.keys()), *(about.keys() - rest.keys())]
    if unknown:
        raise VToonifyError(f"{unknown[0]} is no part of a bundle; networks are {', '.join(NETWORKS)}, and the rest "
                            f"of its description is {', '.join(rest)}", code="unknown")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / BUNDLE_FILE).unlink(missing_ok=True)
    entries = {}
    for key, module in networks.items():
        path = folder / f"{key}.safetensors"
        save_tensors(module.state_dict(), path, half, network=key)
        entries[key] = _entry(path)
    for key, source in (files or {}).items():
        if Path(source).resolve().parent == _shared_folder(folder):
            entries[key] = _entry(Path(source)) | {"shared": True}
            continue
        path = folder / f"{key}{Path(source).suffix}"
        if path.resolve() != Path(source).resolve():
            shutil.copyfile(source, path)
        entries[key] = _entry(path)
    described = {key: value for key, value in (rest | about).items() if value or key not in ("published", "styles")}
    write_json(folder / BUNDLE_FILE, {
        "format": BUNDLE_FORMAT, "name": name, "title": title, "backbone": config.backbone, "config": config.to_dict(),
        "files": entries, **described})
    return load_bundle(folder)


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Contents of a safetensors file as they are stored; VToonifyError if it is none."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise VToonifyError(f"{path} is not a readable safetensors file ({error})", code="unreadable") from error


def save_tensors(tensors: Mapping[str, torch.Tensor], path: Path, half: bool = True, **notes: str) -> None:
    """Write a safetensors file under its name in one step: a bundle that shares the old file by a link keeps it."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        save_file({name: _stored(tensor, half) for name, tensor in tensors.items()}, part, metadata=notes)
        os.replace(part, path)
    except (OSError, SafetensorError) as error:
        raise VToonifyError(f"{path} cannot be written ({error})", code="unwritable") from error
    finally:
        part.unlink(missing_ok=True)


def fill(module: nn.Module, state: Mapping[str, torch.Tensor], what: str, copy: bool = False) -> nn.Module:
    """Give a module, built on the meta device, exactly these weights: one sentence when they do not fit.

    → the module in eval mode, without gradients, in the precision it was built in. It takes over tensors that have
    this precision already, unless `copy`.
    """
    wanted = module.state_dict()
    check_state(wanted, state, what)
    module.load_state_dict({name: value.to(wanted[name].dtype, copy=copy) for name, value in state.items()},
                           strict=True, assign=True)
    return module.eval().requires_grad_(False)


def check_state(wanted: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor], what: str) -> None:
    """Raise VToonifyError unless the state dict has the names and shapes of the wanted one, no more and no less."""
    missing, foreign = wanted.keys() - state.keys(), state.keys() - wanted.keys()
    if missing or foreign:
        example = min(missing or foreign)
        raise VToonifyError(f"{what} does not fit its description: {len(missing)} weights are missing and "
                            f"{len(foreign)} are unknown, for example {example}", code="unreadable")
    for name, value in state.items():
        if value.shape != wanted[name].shape:
            raise VToonifyError(f"{what} does not fit its description: {name} has shape {list(value.shape)}, "
                                f"expected {list(wanted[name].shape)}", code="unreadable")


def _check_description(info: Mapping[str, Any], path: Path) -> None:
    """Raise VToonifyError unless a description has all parts, of the right types."""
    missing = [key for key in REQUIRED if key not in info]
    if missing:
        raise VToonifyError(f"{path} is incomplete: it has no {' and no '.join(missing)}", code="unreadable")
    for key, kind in (REQUIRED | OPTIONAL).items():
        if not isinstance(info.get(key, kind()), kind):
            raise VToonifyError(f"{path}: {key} is {str(info[key])[:40]!r}; expected a "
                                f"{'text' if kind is str else 'table'}", code="unreadable")
    for key, entry in info["files"].items():
        kinds = [type(entry.get(name)) for name in ("path", "sha256", "bytes")] if isinstance(entry, dict) else []
        if kinds != [str, str, int] or Path(entry["path"]).name != entry["path"]:
            raise VToonifyError(f"{path}: files.{key} needs a plain file name as path, a sha256 and bytes",
                                code="unreadable")


def _shared_folder(folder: Path) -> Path:
    """Where files lie that several bundles of the same models folder have in common."""
    return folder.resolve().parent / SHARED


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
        raise VToonifyError(f"{path} is not a bundle: it has no {BUNDLE_FILE}", code="unknown")
    raise VToonifyError(f"there is no bundle {str(name_or_path)!r}; known bundles: {known}; "
                        "or give the path of a bundle folder", code="unknown")
