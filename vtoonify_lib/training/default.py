"""`make train-default`: the default bundle from nothing, one resumable stage after another.

render pairs → parsing → landmarks → base StyleGAN → storybook fine-tune → VToonify-T → bundle →
generators to full size. Run it again after any interruption; a finished stage is skipped. On two CPU cores the stages
take about two hours. This is the `renders` recipe of `encoder`; the paper's own is there too.
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from .. import metrics
from ..checkpoints import save_bundle
from ..config import STUDIO, VToonifyConfig
from ..faces import FaceFinder
from ..images import to_image
from ..models.encoders import ParsingNet
from ..parsing import network_input
from ..studio.shards import Pairs, render_pairs
from . import data, encoder, loop, perception, stylegan

TITLE = "Storybook (VToonify-T, trained on our own renders)"
STYLE_IMAGE = 128


@dataclass(frozen=True)
class Plan:
    """How much of everything; the defaults made the shipped bundle."""

    people: int = 5824
    hold_out: int = 256
    parsing: int = 2200
    landmarks: int = 2400
    base: int = 1500
    storybook: int = 700
    vtoonify: int = 1900
    finish: int = 150
    finish_batch: int = 8
    batch: int = 16
    window: int = 96  # side of the cuts that VToonify trains on
    adapt_to: int = 64  # resolution at which the generators are distilled before VToonify teaches the rest


def train_default(folder: str | Path, out: str | Path, plan: Plan | None = None, config: VToonifyConfig = STUDIO,
                  kit: str | None = None) -> None:
    """Train everything in `folder` and write the bundle to `out`."""
    plan, folder = plan or Plan(), Path(folder)
    pairs = render_pairs(folder / "pairs", plan.people, size=config.out_size, kit=kit)
    parsing = perception.train_parsing(pairs, folder / "parsing", plan.parsing, hold_out=plan.hold_out)
    marks = folder / "landmarks.dat"
    if not marks.exists():
        report = perception.train_landmarks(pairs, marks, plan.landmarks, plan.hold_out)
        marks.with_suffix(".json").write_text(json.dumps(report))
    base = stylegan.distill(pairs, parsing, config.generator, folder / "base", plan.base, until=plan.adapt_to,
                            hold_out=plan.hold_out)
    story = stylegan.distill(pairs, parsing, config.generator, folder / "storybook", plan.storybook, "storybook",
                             base.state_dict(), until=plan.adapt_to, hold_out=plan.hold_out, lr=1e-3)
    students = train_student(pairs, parsing, story, folder / "vtoonify", plan, config)
    write_bundle(out, pairs, parsing, students, marks, plan, config)
    finish_generators(pairs, parsing, base, story, students, folder, plan, config)


def first_students(story: stylegan.Distilled, config: VToonifyConfig, seed: int = 0) -> encoder.Students:
    """Students that start from the fine-tuned generator and its style encoder."""
    torch.manual_seed(seed)
    students = encoder.Students(config)
    students.style.load_state_dict(story.encoder.state_dict())
    students.vtoonify.generator.load_state_dict(story.generator.state_dict())
    return students


def held_out_pair(pairs: Pairs, index: np.ndarray) -> encoder.Pair:
    """Entries as they are, without augmentation."""
    batch = data.load(pairs, index, "storybook")
    return encoder.Pair(data.half(batch.photo), batch.styled, batch.photo, None)


def train_student(pairs: Pairs, parsing: ParsingNet, story: stylegan.Distilled, folder: Path, plan: Plan,
                  config: VToonifyConfig, seconds: float | None = None) -> encoder.Students:
    """VToonify-T on exact render pairs → its moving average."""
    start = first_students(story, config).state_dict()
    source = encoder.render_source(pairs, plan.batch, plan.hold_out, window=plan.window)
    return encoder.train(source, parsing, config, folder, plan.vtoonify, start=start, seconds=seconds,
                         sample_pairs=held_out_pair(pairs, np.arange(8)))[1]


def finish_generators(pairs: Pairs, parsing: ParsingNet, base: stylegan.Distilled, story: stylegan.Distilled,
                      students: encoder.Students, folder: Path, plan: Plan, config: VToonifyConfig
                      ) -> tuple[stylegan.Distilled, stylegan.Distilled]:
    """Base and stylised generator at full size, with mapping networks.

    Both get the fine layers that VToonify has learnt and are then trained briefly at full size.
    """
    out = []
    for name, model, target in (("base-full", base, "photo"), ("storybook-full", story, "storybook")):
        start = model.state_dict()
        for key, value in students.vtoonify.generator.state_dict().items():
            if fine_layer(key, plan.adapt_to):
                start[f"generator.{key}"] = value.clone()
        full = stylegan.distill(pairs, parsing, config.generator, folder / name, plan.finish, target, start,
                                batch=plan.finish_batch, hold_out=plan.hold_out, lr=1e-3, train_encoder=False)
        out.append(full)
    bank = stylegan.code_bank(out[0], pairs, hold_out=plan.hold_out)
    stylegan.fit_mapping(out[0].generator, bank)
    out[1].generator.style.load_state_dict(out[0].generator.style.state_dict())
    return out[0], out[1]


def fine_layer(key: str, below: int) -> bool:
    """True for a generator's convolutions and to-rgbs above resolution `below`."""
    match = re.match(r"(convs|to_rgbs)\.(\d+)\.", key)
    if match is None:
        return False
    level = int(match[2]) // 2 if match[1] == "convs" else int(match[2])
    return 8 << level > below


@torch.no_grad()
def measure(pairs: Pairs, parsing: ParsingNet, students: encoder.Students, marks: Path, hold_out: int) -> dict:
    """The bundle's numbers on people it never saw. Baseline "input": what the photo itself would score as a cartoon."""
    finder = FaceFinder(marks)
    scores: dict[str, list] = {"psnr": [], "feature": [], "input_psnr": [], "input_feature": []}
    shifts, natural = [], []
    for part in np.array_split(np.arange(hold_out), hold_out // 8):
        pair = held_out_pair(pairs, part)
        out = encoder.stylise(students, parsing, pair.x, pair.aligned)
        for name, picture in (("", out), ("input_", pair.aligned)):
            scores[f"{name}psnr"] += metrics.psnr(picture, pair.y).tolist()
            scores[f"{name}feature"] += metrics.feature_distance(parsing, picture, pair.y).tolist()
        for drawn, truth, i in zip(out, pair.y, part, strict=True):
            shifts.append(metrics.landmark_shift(finder, to_image(truth), to_image(drawn)))
            natural.append(metrics.landmark_shift(finder, to_image(truth), np.array(pairs["photo"][i])))
    x = held_out_pair(pairs, np.arange(8))
    flicker = metrics.equivariance(students.vtoonify, network_input(x.x, parsing(x.x)), students.style(x.aligned),
                                   loop.generator(0, 0))
    return {"held_out_people": hold_out, **{k: round(float(np.mean(v)), 4) for k, v in scores.items()},
            "landmarks_to_true_cartoon": metrics.mean_of(shifts),
            "landmarks_photo_to_true_cartoon": metrics.mean_of(natural), "flicker_grey_levels": round(flicker, 3),
            "parsing_iou": perception.parsing_iou(parsing, pairs, hold_out)}


def write_bundle(out: str | Path, pairs: Pairs, parsing: ParsingNet, students: encoder.Students, marks: Path,
                 plan: Plan, config: VToonifyConfig) -> None:
    """Measure and save, with what trained what.

    The generators stay in the run's folder: their random faces are not yet worth shipping, and toonifying needs none.
    """
    report = measure(pairs, parsing, students, marks, plan.hold_out)
    landmark_report = marks.with_suffix(".json")
    if landmark_report.exists():
        report["landmark_model"] = json.loads(landmark_report.read_text())
    networks: dict[str, nn.Module] = {"vtoonify": students.vtoonify, "parsing": parsing,
                                      "style_encoder": students.style}
    style = {"image_size": STYLE_IMAGE, "n_latent": students.vtoonify.generator.n_latent,
             "style_dim": config.generator.style_dim}
    provenance = {
        "data": f"{plan.people} people drawn by vtoonify_lib.studio from CC0 geometry, seed 0; the first "
                f"{plan.hold_out} held out; no photograph was used",
        "vtoonify": "exact render pairs (photo, storybook), generator's fine layers trained along; flicker loss from "
                    "half-way",
        "style_encoder": "trained with a base StyleGAN distilled from photo renders",
        "parsing": "exact parsing maps of both styles",
        "landmarks": "dlib's trainer on exact landmarks",
        "plan": dict(vars(plan))}
    save_bundle(out, name=Path(out).name, title=TITLE, config=config, networks=networks, files={"landmarks": marks},
                models={"parsing": {}, "style_encoder": style}, metrics=report, provenance=provenance)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", default="runs/default", help="where the runs live (resumed when they exist)")
    parser.add_argument("--out", default="data/models/studio-t", help="the bundle to write")
    parser.add_argument("--kit", help="folder of the portrait kit (default: $VTOONIFY_PORTRAIT_KIT)")
    args = parser.parse_args()
    train_default(args.folder, args.out, kit=args.kit)


if __name__ == "__main__":
    main()
