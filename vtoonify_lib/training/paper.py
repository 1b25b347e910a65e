"""The paper's own recipe for VToonify-T (arXiv 2209.11224, §4.2): all is learned from pairs that two StyleGANs draw.

encoder pre-training against the hand-off feature → pairs, generator frozen → the same against a discriminator. As a
script it starts from the two generators of a bundle and writes another bundle; nothing is rendered and no picture is
read. The student cannot be better than what it is taught by.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import HANDOFF, VToonifyConfig, VToonifyError, exit_code
from ..faces.parsing_maps import network_input
from ..models import latents, losses
from ..models.devices import autocast, pick_device
from ..models.encoders import ParsingNet
from ..models.paired_crop import random_affine
from ..models.stylegan2 import Generator
from ..models.vtoonify import VToonify
from ..studio.shards import Pairs
from ..weights.bundle import Bundle, load_bundle, save_bundle
from ..weights.downloads import write_json
from . import loop, vtoonify
from .default import DefaultPlan, measure
from .objectives import Criterion, PublishedLosses, load_lpips
from .pairs import Pair

EDIT = 0.3  # how far the random edit of synthetic codes goes on its way to another person


def generator_source(base: Generator, stylised: Generator, style_encoder: Callable[[Tensor], Tensor],
                     config: VToonifyConfig, batch: int, truncation: float = 0.5, seed: int = 4,
                     transform: bool | None = True) -> Callable[[int], Pair]:
    """Synthetic pairs from two generators: x = G0(w'), y = G1([½·w'[:7], E_s(x)[7:]]), moved alike.

    style_encoder  picture [B,3,S,S] → w or w+
    truncation     of w' towards the mean code
    transform      whether to do the paper's geometric augmentation: one mild random affine for both pictures
    → iteration → Pair, which depends on (seed, iteration) alone
    """
    device = base.input.input.device
    centre = base.mean_w(rng=loop.rng_for(seed, 0, device))

    @torch.no_grad()
    def source(i: int) -> Pair:
        g = loop.rng_for(seed, i + 1, device)
        w = _edited_codes(base, batch, truncation, centre, g)
        photo = base.synthesize(w)
        images = [photo, stylised.synthesize(latents.with_color_of(w, base.to_w(style_encoder(photo), "w")))]
        if transform:
            images = random_affine(*images, rng=g)
        return Pair(_shrink(images[0], config.in_size).clamp(-1, 1), images[1].clamp(-1, 1), photo, None)

    return source


def pretrain(base: Generator, stylised: Generator, parsing: ParsingNet, vtoonify: VToonify, folder: str | os.PathLike,
             iterations: int, batch: int = 16, lr: float = 1e-4, seed: int = 5) -> VToonify:
    """Encoder pre-training: E(x) meets the stylised generator's feature and picture at hand-off. Paper Eq. (2).

    Trains `vtoonify.encoder` in place (fusion and generator stay as they are), resumable in `folder`.
    """
    optimizer = torch.optim.Adam(vtoonify.encoder.parameters(), lr, betas=(0.9, 0.99))
    device = base.input.input.device
    centre = base.mean_w(rng=loop.rng_for(seed, 0, device))
    parsing = parsing.eval().requires_grad_(False)

    def step(i: int) -> dict[str, float]:
        with torch.no_grad():
            w = _edited_codes(base, batch, 0.5, centre, loop.rng_for(seed, i + 1, device))
            photo = _shrink(base.synthesize(w), vtoonify.config.in_size)
            feature, skip = stylised.synthesize(w, until=HANDOFF)
        with autocast(photo.device):
            with torch.no_grad():
                x = network_input(photo, parsing(photo))
            found = [part.float() for part in vtoonify.encode(x)]
        loss = losses.handoff_match(*found, feature, skip)
        loop.optimizer_step(loss, optimizer)
        return {"hand-off": float(loss.detach())}

    loop.run(folder, iterations, step, {"vtoonify": vtoonify, "optimizer": optimizer},
             title="encoder pre-training")
    return vtoonify


def _edited_codes(base: Generator, batch: int, truncation: float, centre: Tensor, g: torch.Generator) -> Tensor:
    """Edited codes w' [B,L,D]: mapping(z), layers 3–6 on their way to another random face, then truncated."""
    z, other = (torch.randn(batch, base.config.style_dim, generator=g, device=g.device) for _ in range(2))
    w = base.to_w(z).clone()
    layers = latents.edit_layers()
    w[:, layers] += EDIT * (base.to_w(other) - w)[:, layers]
    return latents.truncate(w, truncation, centre)


def _shrink(pictures: Tensor, size: int) -> Tensor:
    """[B,3,S,S] → [B,3,size,size], antialiased."""
    return F.interpolate(pictures, (size, size), mode="bilinear", antialias=True, align_corners=False)


# -- the script -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class PaperPlan:
    """Iterations of the stages, and the batch. The paper takes 30,000, then 2,000 of 32."""

    pretrain: int = 300
    pairs: int = 600
    sharpen: int = 200
    batch: int = 8


def train_paper(bundle: Bundle, folder: str | Path, out: str | Path, plan: PaperPlan | None = None,
                renders: Pairs | None = None, criterion: Criterion | None = None,
                device: str | torch.device = "cpu") -> Bundle:
    """Train a new VToonify-T on pairs from the two generators of `bundle` → a bundle in `out`; resumable in `folder`.

    renders    people to evaluate on; without them the bundle has no metrics
    criterion  the losses of the pictures; None: ours, which need no other weights
    """
    plan, folder, config = plan or PaperPlan(), Path(folder), bundle.config
    networks = {name: bundle.network(name) for name in ("base", "stylized", "parsing", "style_encoder")}
    base, stylised, parsing, style = (network.to(device) for network in networks.values())
    people = _measurable(renders) if renders else 0
    _same_teacher(bundle, folder)
    torch.manual_seed(0)
    task = vtoonify.VToonifyTask(config, **vtoonify.encoder_size(style))
    task.style.load_state_dict(style.state_dict())
    task.vtoonify.generator.load_state_dict(stylised.state_dict())
    task.to(device)
    pretrain(base, stylised, parsing, task.vtoonify, folder / "pretrain", plan.pretrain, plan.batch,
             lr=5e-4)

    def pairs(seed: int) -> Callable[[int], Pair]:
        return generator_source(base, stylised, style, config, plan.batch, seed=seed)

    shown, square = pairs(9)(0), min(vtoonify.SQUARE, config.out_size)
    how = vtoonify.TrainingSettings(plan.pairs, "paper")
    _, task = vtoonify.train(task, pairs(4), parsing, folder / "pairs", how, shown, criterion=criterion)
    how = replace(how, iterations=plan.sharpen, lr=5e-4, flicker_from=0.0, square=square)
    _, task = vtoonify.train(task, pairs(41), parsing, folder / "sharpen", how, shown,
                             lambda: vtoonify.stylegan_adversary(square, device), criterion)
    parsing.cpu()
    report = measure(renders, parsing, task.cpu(), bundle.path("landmarks"), people) if renders else {}
    trained: dict[str, nn.Module] = {**networks, "vtoonify": task.vtoonify}
    return save_bundle(
        out, name=Path(out).name, title=f"VToonify-T, the paper's recipe on the generators of {bundle.name}",
        config=config, networks={name: network.cpu() for name, network in trained.items()},
        files={"landmarks": bundle.path("landmarks")}, models=bundle.info["models"], licence=bundle.licence,
        metrics=report, provenance={
            **bundle.info.get("provenance", {}), "plan": asdict(plan),
            "vtoonify": "synthetic pairs of base and stylized alone, generator frozen"})


def _measurable(renders: Pairs) -> int:
    """How many people at the beginning of a data set can be measured on: those that nobody trains on."""
    people = int((renders.ready == np.arange(len(renders.ready))).sum())
    if people < 8:
        raise VToonifyError(f"{renders.folder} has only {people} of its first people; render 8 or more")
    return min(people, DefaultPlan.hold_out)


def _same_teacher(bundle: Bundle, folder: Path) -> None:
    """Raise VToonifyError when the run in `folder` was begun with other generators."""
    note = folder / "teacher.json"
    teacher = {name: bundle.info["files"][name]["sha256"] for name in ("base", "stylized", "parsing", "style_encoder")}
    if note.exists() and json.loads(note.read_text()) != teacher:
        raise VToonifyError(f"the run in {folder} was begun with other generators than those of {bundle.name}; "
                            "choose another folder")
    write_json(note, teacher)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", default="studio-t", help="whose generators teach (default: %(default)s)")
    parser.add_argument("--folder", default="runs/paper", help="where the run lives (resumed when it exists)")
    parser.add_argument("--out", help="the bundle to write (default: FOLDER/paper-t)")
    parser.add_argument("--renders", help="folder of rendered pairs to measure the result on (studio.shards makes it)")
    parser.add_argument("--lpips", nargs=2, metavar=("VGG", "HEADS"), help="learn by the published losses; files of "
                        "torchvision's vgg16 weights and of the linear heads of LPIPS v0.1")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ...")
    args = parser.parse_args()

    def work() -> None:
        device = pick_device(args.device)
        criterion = PublishedLosses(load_lpips(*args.lpips, device)) if args.lpips else None
        train_paper(load_bundle(args.bundle), args.folder, args.out or Path(args.folder) / "paper-t",
                    renders=Pairs.open(args.renders) if args.renders else None, criterion=criterion, device=device)

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
