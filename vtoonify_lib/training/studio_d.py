"""`python -m vtoonify_lib.training.studio_d`: the exemplar-based bundle, one resumable stage after another.

render people in every look → VToonify-D → … → bundle. It begins with the networks of studio-t: VToonify-T, from which
VToonify-D starts, the parsing net, the base StyleGAN.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..checkpoints import Bundle, load_bundle
from ..config import VToonifyError
from ..devices import pick_device
from ..studio.exemplars import EXEMPLARS, LOOKS
from ..studio.shards import Pairs, render_styles
from . import data, encoder
from .exemplars import Exemplars, dual_students, style_source


@dataclass(frozen=True)
class Plan:
    """How much of everything; the defaults are those of the shipped bundle."""

    people: int = 2048
    hold_out: int = 256
    vtoonify: int = 3000
    batch: int = 16
    window: int = 96  # side of the cuts that VToonify trains on
    flicker_from: float = 0.7


def exemplar_pictures(pairs: Pairs, hold_out: int, size: int = encoder.STYLE_IMAGE) -> Exemplars:
    """What VToonify-D is asked with: every style's own picture, and everybody it draws at full degree."""
    def own(look: str, number: int) -> np.ndarray:
        picture = Image.fromarray(np.array(pairs.exemplars(look)[number]))
        return np.asarray(picture.resize((size, size), Image.Resampling.BOX))

    return Exemplars.of(pairs, LOOKS, EXEMPLARS, hold_out, size, own)


def held_out_pair(pairs: Pairs, shown: Exemplars, entries: np.ndarray, look: str, device: str | torch.device = "cpu"
                  ) -> encoder.Pair:
    """Entries in one look as they are, without augmentation, at the degrees at which they were rendered."""
    batch = data.load(pairs, entries, look, device)
    index = LOOKS.index(look) * EXEMPLARS + np.array(pairs[f"{look}_style"])[entries].astype(int)
    exemplar = shown.draw(index, np.random.default_rng(0), device)
    structure, color = (torch.from_numpy(np.array(pairs[f"{look}_{axis}"])[entries]).float().to(device)
                        for axis in ("structure", "color"))
    order = encoder.Order(exemplar, torch.from_numpy(index).to(device), structure, color)
    return encoder.Pair(data.half(batch.photo), batch.styled, batch.photo, None, order)


def first_students(bundle: Bundle) -> encoder.DualStudents:
    """VToonify-D as it begins: the VToonify-T of a bundle."""
    simple = encoder.Students(bundle.config)
    simple.vtoonify.load_state_dict(bundle.network("vtoonify").state_dict())
    simple.style.load_state_dict(bundle.network("style_encoder").state_dict())
    return dual_students(simple, replace(bundle.config, backbone="dualstylegan"))


def train_student(pairs: Pairs, start: Bundle, folder: Path, plan: Plan, device: str | torch.device = "cpu"
                  ) -> encoder.DualStudents:
    """VToonify-D on exact renders → its moving average."""
    shown = exemplar_pictures(pairs, plan.hold_out)
    source: Callable[[int], encoder.Pair] = style_source(
        pairs, shown, LOOKS, EXEMPLARS, plan.batch, plan.hold_out, window=plan.window, device=device)
    samples = [held_out_pair(pairs, shown, np.arange(3 * k, 3 * k + 3), look, device) for k, look in enumerate(LOOKS)]
    students = first_students(start)
    return encoder.train(
        source, start.network("parsing").to(device), students.vtoonify.config, folder / "vtoonify", plan.vtoonify,
        start=students.state_dict(), flicker_from=plan.flicker_from, sample_pairs=encoder.joined(samples),
        device=device)[1]


def train_studio_d(folder: str | Path, out: str | Path, plan: Plan | None = None, start: str = "studio-t",
                   kit: str | None = None, device: str | torch.device = "cpu") -> None:
    """Train everything in `folder` and write the bundle to `out`."""
    plan, folder, bundle = plan or Plan(), Path(folder), load_bundle(start)
    pairs = render_styles(folder / "looks", plan.people, size=bundle.config.out_size, kit=kit)
    train_student(pairs, bundle, folder, plan, device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", default="runs/studio-d", help="where the runs live (resumed when they exist)")
    parser.add_argument("--out", default="data/models/studio-d", help="the bundle to write")
    parser.add_argument("--kit", help="folder of the portrait kit (default: $VTOONIFY_PORTRAIT_KIT)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ...")
    args = parser.parse_args()
    try:
        train_studio_d(args.folder, args.out, kit=args.kit, device=pick_device(args.device))
    except VToonifyError as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    main()
