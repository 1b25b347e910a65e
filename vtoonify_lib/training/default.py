"""`make train-default`: the default bundle from nothing, one resumable stage after another.

render pairs → parsing → landmarks → base StyleGAN → storybook fine-tune → VToonify-T → sharpening → bundle. Run it
again after any interruption; a finished stage is skipped. On two CPU cores the stages take about three hours. This is
the `renders` recipe of `vtoonify`; the paper's own is there too. With `--start BUNDLE` the VToonify-T of a bundle is
sharpened further instead, on people rendered anew, and the rest of the bundle stays.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..config import STUDIO, VToonifyConfig, VToonifyError, exit_code
from ..evaluation import metrics
from ..faces.detector import FaceFinder
from ..media.images import to_image, to_tensor
from ..models.devices import pick_device
from ..models.encoders import ParsingNet
from ..studio.shards import Pairs, render_pairs
from ..weights.bundle import load_bundle, save_bundle
from . import augment, landmarks, loop, perception, stylegan, vtoonify
from .loop import Stage
from .pairs import Pair
from .starting import task_from_bundle

TITLE = "Storybook (VToonify-T, trained on our own renders)"
SHARPEN_LR = 5e-4


@dataclass(frozen=True)
class DefaultPlan:
    """Sizes of all stages; the defaults are those of the shipped bundle (its provenance tells its further history)."""

    people: int = 5824
    hold_out: int = 256
    parsing: int = 2200
    landmarks: int = landmarks.LandmarkPlan.iterations
    base: tuple[Stage, ...] = (Stage(32, 6000), Stage(64, 4000), Stage(None, 800, 16))
    storybook: tuple[Stage, ...] = (Stage(64, 600), Stage(None, 500, 16))
    vtoonify: int = 1900
    sharpen: int = 1500
    batch: int = 16
    window: int = 96  # side of the windows that VToonify trains on
    square: int = 128  # side of the squares of its output that the discriminator takes


def train_default(folder: str | Path, out: str | Path, plan: DefaultPlan | None = None, config: VToonifyConfig = STUDIO,
                  device: str | torch.device = "cpu") -> None:
    """Train everything in `folder` and write the bundle to `out`."""
    plan, folder = plan or DefaultPlan(), Path(folder)
    pairs = render_pairs(folder / "pairs", plan.people, size=config.out_size)
    parsing = perception.train_parsing(pairs, folder / "parsing", plan.parsing, hold_out=plan.hold_out, device=device)
    marks = folder / "landmarks.safetensors"
    if not marks.exists():
        task = landmarks.LandmarkPlan(iterations=plan.landmarks, device=device)
        report = landmarks.make(folder / "landmarks", marks, task)
        marks.with_suffix(".json").write_text(json.dumps(report))
    base, story = train_generators(pairs, parsing, folder, plan, config, device)
    task = train_vtoonify(pairs, parsing, story, folder, plan, config, device)
    write_bundle(out, pairs, parsing, task, (base, story), marks, plan, config)


def train_further(folder: str | Path, out: str | Path, start: str = "studio-t", plan: DefaultPlan | None = None,
                  device: str | torch.device = "cpu") -> None:
    """Sharpen the VToonify-T of the bundle `start` in `folder` and write the bundle to `out`; see `sharpen`.

    VToonifyError for a bundle of VToonify-D.
    """
    plan, folder, bundle = plan or DefaultPlan(people=4096), Path(folder), load_bundle(start)
    if bundle.config.backbone != "toonify":
        raise VToonifyError(f"{bundle.name} is a VToonify-D; train it further with python -m "
                            "vtoonify_lib.training.studio_d --start")
    pairs = render_pairs(folder / "pairs", plan.people, size=bundle.config.out_size)
    parsing, marks = bundle.network("parsing").to(device), bundle.path("landmarks")
    task = sharpen(pairs, parsing, task_from_bundle(bundle).to(device), folder, plan, device).cpu()
    others = {key: bundle.network(key) for key in ("style_encoder", "base", "stylized") if key in bundle.info["files"]}
    kept, provenance = dict(bundle.metrics), dict(bundle.info["provenance"])
    kept.pop("photographs", None)  # of the drawings that were
    more = (f"VToonify-T was sharpened for {plan.sharpen} more iterations on {plan.people} people; its metrics are of "
            f"{plan.hold_out} others")
    provenance["history"] = "; ".join(filter(None, (provenance.get("history"), more)))
    save_bundle(out, name=Path(out).name, title=bundle.title, config=bundle.config,
                networks={"vtoonify": task.vtoonify, "parsing": parsing.cpu(), **others},
                files={"landmarks": marks}, models=bundle.info["models"], licence=bundle.licence,
                metrics=kept | measure(pairs, parsing, task, marks, plan.hold_out), provenance=provenance)


def train_generators(pairs: Pairs, parsing: ParsingNet, folder: Path, plan: DefaultPlan, config: VToonifyConfig,
                     device: str | torch.device = "cpu") -> tuple[stylegan.Distilled, stylegan.Distilled]:
    """Base StyleGAN of photo renders, and its storybook fine-tune, which shares its codes and mapping network."""
    model, found = None, {}
    for target, stages, lr in (("photo", plan.base, 2e-3), ("storybook", plan.storybook, 1e-3)):
        loop.check_stages(stages, config.out_size)
        for stage in stages:
            size = stage.size or config.out_size
            if model is None:
                torch.manual_seed(7 + size)
                model = stylegan.Distilled(config.generator).to(device)
            model = stylegan.distill(model, pairs, parsing, folder / f"{target}-{size}", stage, target, plan.hold_out,
                                     lr, seed=7 + size)
        found[target] = model
    base, story = found.values()
    stylegan.fit_mapping(base.generator.style, stylegan.code_bank(base, pairs, plan.hold_out))
    story.generator.style.load_state_dict(base.generator.style.state_dict())
    return base, story


def held_out_pair(pairs: Pairs, index: np.ndarray, device: str | torch.device = "cpu", look: str = "storybook"
                  ) -> Pair:
    """Entries as they are, without augmentation."""
    batch = augment.load(pairs, index, look, device)
    return Pair(augment.half(batch.photo), batch.styled, batch.photo, None)


def train_vtoonify(pairs: Pairs, parsing: ParsingNet, story: stylegan.Distilled, folder: Path, plan: DefaultPlan,
                   config: VToonifyConfig, device: str | torch.device = "cpu") -> vtoonify.VToonifyTask:
    """VToonify-T on exact render pairs, then sharpened against a discriminator → its moving average.

    The flicker loss rises from 0 twice: in the second half of the training, and all through the sharpening.
    """
    torch.manual_seed(0)
    task = vtoonify.VToonifyTask(config)
    task.style.load_state_dict(story.encoder.state_dict())
    task.vtoonify.generator.load_state_dict(story.generator.state_dict())
    _, trained = vtoonify.train(task.to(device), _source(pairs, plan, 3, device), parsing, folder / "vtoonify",
                                vtoonify.TrainingSettings(plan.vtoonify), held_out_pair(pairs, np.arange(8), device))
    return sharpen(pairs, parsing, trained, folder, plan, device)


def sharpen(pairs: Pairs, parsing: ParsingNet, task: vtoonify.VToonifyTask, folder: Path, plan: DefaultPlan,
            device: str | torch.device = "cpu") -> vtoonify.VToonifyTask:
    """The second part of `train_vtoonify`, from any task of VToonify-T."""
    how = vtoonify.TrainingSettings(plan.sharpen, lr=SHARPEN_LR, flicker_from=0.0, seed=31, square=plan.square)
    return vtoonify.train(task, _source(pairs, plan, 31, device), parsing, folder / "sharpen", how,
                          held_out_pair(pairs, np.arange(8), device),
                          lambda: vtoonify.stylegan_adversary(plan.square, device))[1]


def _source(pairs: Pairs, plan: DefaultPlan, seed: int, device: str | torch.device) -> Callable[[int], Pair]:
    return vtoonify.render_source(pairs, plan.batch, plan.hold_out, seed, window=plan.window, device=device)


@torch.no_grad()
def measure(pairs: Pairs, parsing: ParsingNet, task: vtoonify.VToonifyTask, marks: Path, hold_out: int) -> dict:
    """The bundle's numbers on people it never saw. Baseline "input": what the photo itself would score as a cartoon."""
    finder = FaceFinder(marks)
    scores: dict[str, list] = {"psnr": [], "feature": [], "input_psnr": [], "input_feature": []}
    shifts, natural = [], []
    for part in np.array_split(np.arange(hold_out), max(1, hold_out // 8)):
        pair = held_out_pair(pairs, part)
        out = vtoonify.stylise(task, parsing, pair)
        for name, picture in (("", out), ("input_", pair.aligned)):
            scores[f"{name}psnr"] += metrics.psnr(picture, pair.y).tolist()
            scores[f"{name}feature"] += metrics.feature_distance(parsing, picture, pair.y).tolist()
        for drawn, truth, i in zip(out, pair.y, part, strict=True):
            shifts.append(metrics.landmark_shift(finder, to_image(truth), to_image(drawn)))
            natural.append(metrics.landmark_shift(finder, to_image(truth), np.array(pairs["photo"][i])))
    pair = held_out_pair(pairs, np.arange(8))
    flicker = metrics.equivariance(lambda x: task(x, pair)[0], pair.input(parsing), loop.rng_for(0, 0))
    return {"held_out_people": hold_out, **{k: round(float(np.mean(v)), 4) for k, v in scores.items()},
            "landmarks_to_true_cartoon": metrics.mean_of(shifts),
            "landmarks_photo_to_true_cartoon": metrics.mean_of(natural), "flicker_grey_levels": round(flicker, 3),
            "parsing_iou": perception.parsing_iou(parsing, pairs, hold_out)}


@torch.no_grad()
def measure_generators(pairs: Pairs, parsing: ParsingNet, base: stylegan.Distilled, story: stylegan.Distilled,
                       hold_out: int, random_faces: int = 256) -> dict:
    """The backbone's numbers, for each generator by the name it has in the bundle.

    people          held out and aligned; the features are those of the parsing net, which training used too
    psnr, feature   of these people drawn from their codes, against their renders
    kid             of random faces (z Gaussian) to their renders; renders_kid: of as many other people's renders
    found           share of the random faces in which dlib sees a face; renders_found: of the renders
    spread          mean feature distance between two random faces, as a share of that between two renders
    """
    finder, report = FaceFinder(), {}
    aligned = pairs.ready[pairs.ready % 2 == 0]
    unseen = aligned[aligned < hold_out]
    others, parts = aligned[aligned >= hold_out][:len(unseen)], max(1, len(unseen) // 8)
    rng = loop.rng_for(11, 0)
    z = torch.randn(random_faces, base.generator.config.style_dim, generator=rng)
    for name, target, model in (("base", "photo", base), ("stylized", "storybook", story)):
        people = augment.Portraits(pairs, unseen, target, base.generator.config.size, base.encoder.image_size)
        truth = [to_tensor(part) for part in np.array_split(people.target, parts)]
        drawn = [model(to_tensor(part)).clamp(-1, 1) for part in np.array_split(people.photo, parts)]
        rest = augment.aligned(pairs, others, target, base.generator.config.size, calm=True)
        rest = [to_tensor(part) for part in np.array_split(rest, parts)]
        random = [model.generator(part).clamp(-1, 1) for part in z.split(8)]
        real, other, fake = (torch.cat([metrics.face_features(parsing, x) for x in each])
                             for each in (truth, rest, random))
        seen = [np.mean([bool(finder.detect(picture, thorough=False)) for batch in each for picture in to_image(batch)])
                for each in (random, truth)]
        report[name] = {
            "people": len(unseen),
            "psnr": _mean(metrics.psnr(a, b) for a, b in zip(drawn, truth, strict=True)),
            "feature": _mean(metrics.feature_distance(parsing, a, b) for a, b in zip(drawn, truth, strict=True)),
            "kid": metrics.kernel_distance(fake, real), "renders_kid": metrics.kernel_distance(other, real),
            "found": float(seen[0]), "renders_found": float(seen[1]),
            "spread": _spread(parsing, random) / _spread(parsing, truth)}
    return report


def _mean(batches: Iterable[Tensor]) -> float:
    return float(torch.cat(list(batches)).mean())


def _spread(parsing: ParsingNet, batches: list[Tensor]) -> float:
    """Mean feature distance between each picture and its neighbour."""
    return _mean(metrics.feature_distance(parsing, batch, batch.roll(1, 0)) for batch in batches)


def write_bundle(out: str | Path, pairs: Pairs, parsing: ParsingNet, task: vtoonify.VToonifyTask,
                 generators: tuple[stylegan.Distilled, stylegan.Distilled], marks: Path, plan: DefaultPlan,
                 config: VToonifyConfig) -> None:
    """Measure and save, with what trained what. generators: base and stylised."""
    parsing, task, base, story = (model.cpu() for model in (parsing, task, *generators))
    report = measure(pairs, parsing, task, marks, plan.hold_out)
    report["generators"] = measure_generators(pairs, parsing, base, story, plan.hold_out)
    landmark_report = marks.with_suffix(".json")
    if landmark_report.exists():
        report["landmark_model"] = json.loads(landmark_report.read_text())
    networks: dict[str, nn.Module] = {"vtoonify": task.vtoonify, "parsing": parsing,
                                      "style_encoder": task.style, "base": base.generator,
                                      "stylized": story.generator}
    style = {"image_size": vtoonify.STYLE_IMAGE, "n_latent": 1, "style_dim": config.generator.style_dim}
    provenance = {
        "data": f"{plan.people} people drawn by vtoonify_lib.studio from CC0 geometry, seed 0; the first "
                f"{plan.hold_out} held out; no photograph was used",
        "vtoonify": "exact render pairs (photo, storybook), generator's fine layers trained along; flicker loss from "
                    "half-way on; then sharpened against a discriminator, while the flicker loss rises anew",
        "style_encoder": "trained with a base StyleGAN distilled from photo renders",
        "base, stylized": "distilled from the same renders through the style encoder, backgrounds made calm",
        "parsing": "exact parsing maps of both styles",
        "landmarks": "a small network on renders of its own (training.landmarks)",
        "plan": asdict(plan)}
    save_bundle(out, name=Path(out).name, title=TITLE, config=config, networks=networks, files={"landmarks": marks},
                models={"parsing": {}, "style_encoder": style}, metrics=report, provenance=provenance)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", help="where the runs live (resumed when they exist; default: runs/default, with "
                                         "--start runs/further)")
    parser.add_argument("--out", default="data/models/studio-t", help="the bundle to write")
    parser.add_argument("--start", help="a bundle whose VToonify-T is sharpened further, instead of all from nothing")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ...")
    args = parser.parse_args()

    def work() -> None:
        device = pick_device(args.device)
        if args.start:
            train_further(args.folder or "runs/further", args.out, args.start, device=device)
        else:
            train_default(args.folder or "runs/default", args.out, device=device)

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
