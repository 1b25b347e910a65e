"""`python -m vtoonify_lib.training.studio_d`: the exemplar-based bundle, one resumable stage after another.

render people in every look → VToonify-D and the style encoder → DualStyleGAN → identity encoder → numbers → bundle. It
begins with the networks of studio-t: VToonify-T, from which VToonify-D starts, base StyleGAN, parsing net, landmarks;
or with those of a studio-d, which it trains further.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from ..config import exit_code
from ..models.devices import pick_device
from ..models.encoders import StyleEncoder
from ..studio.codes import style_codes
from ..studio.exemplars import EXEMPLARS, LOOKS
from ..studio.shards import Pairs, render_styles
from ..weights.bundle import Bundle, load_bundle, save_bundle, save_tensors
from . import default, identity, report, vtoonify
from .dual_stage import STAGES, measure_dual, train_dual
from .dualstylegan import DualDistilled, fit_sampler
from .exemplars import Exemplars, style_source
from .loop import Stage
from .pairs import Pair, joined
from .starting import initial_task
from .vtoonify import TrainingSettings

TITLE = "Four looks of 24 exemplars (VToonify-D, trained on our own renders)"
STAND_FOR = {"storybook": "storybook-05", "clay": "clay-08", "comic": "comic-17", "caricature": "caricature-08"}
START = {"style": STAND_FOR["storybook"], "structure": 1.0, "color": 0.5}  # when nothing is asked for


@dataclass(frozen=True)
class StudioDPlan:
    """Sizes of all stages; those of the shipped bundle are in its provenance."""

    people: int = 2048
    hold_out: int = 256
    vtoonify: int = 3000
    batch: int = 16
    window: int = 96  # side of the cuts that VToonify trains on
    told_until: float = 0.4  # share of the training in which all pictures are drawn by the table's codes
    flicker_from: float = 0.7
    sharpen: int = 2000
    sharpen_lr: float = 1e-3
    sharpen_weight: float = 0.05  # of the adversarial loss: its gradient is a fifth of the picture loss's
    sharpen_r1: float = 0.5  # 10, as at 1024 px, keeps a discriminator of 128 px from learning in so short a time
    square: int = 128  # side of the squares of its output that the discriminator sees
    dual: tuple[Stage, ...] = STAGES
    identities: int = 640  # people from whom the identity encoder learns
    identity: int = 700
    trials: int = 24  # held-out people who are drawn in every look for the numbers


def exemplar_pictures(pairs: Pairs, hold_out: int, size: int = vtoonify.STYLE_IMAGE) -> Exemplars:
    """Exemplars for VToonify-D: every style's own picture, and all entries at full degree."""
    def own(look: str, number: int) -> np.ndarray:
        return report.shrunk(pairs.exemplars(look)[number], size)

    return Exemplars.from_pairs(pairs, LOOKS, EXEMPLARS, hold_out, size, own)


def held_out_pair(pairs: Pairs, exemplars: Exemplars, entries: np.ndarray, look: str, codes: np.ndarray,
                  device: str | torch.device = "cpu") -> Pair:
    """Entries in one look as they are, without augmentation, at the degrees at which they were rendered."""
    condition = exemplars.condition(pairs, entries, look, np.random.default_rng(0), device)
    return default.held_out_pair(pairs, entries, device, look)._replace(
        condition=condition.coded(torch.from_numpy(codes).to(device)))


def train_vtoonify(pairs: Pairs, start: Bundle, folder: Path, plan: StudioDPlan, device: str | torch.device = "cpu"
                   ) -> vtoonify.DualVToonifyTask:
    """VToonify-D on exact renders, then sharpened against the conditional discriminator → its moving average.

    The flicker loss rises from 0 twice: towards the end of the training, and all through the sharpening.
    """
    task, codes = initial_task(start).to(device), style_codes(start.config.generator.style_dim)
    exemplars = exemplar_pictures(pairs, plan.hold_out, task.style.image_size)

    def source(seed: int, table_code_until: int) -> Callable[[int], Pair]:
        return style_source(pairs, exemplars, plan.batch, plan.hold_out, seed, plan.window, codes,
                            table_code_until, device)

    few = min(3, plan.hold_out // len(LOOKS))
    samples = joined([held_out_pair(pairs, exemplars, np.arange(few * k, few * (k + 1)), look, codes, device)
                      for k, look in enumerate(LOOKS)])
    parsing = start.network("parsing").to(device)
    _, trained = vtoonify.train(task, source(3, int(plan.told_until * plan.vtoonify)), parsing, folder / "vtoonify",
                                TrainingSettings(plan.vtoonify, flicker_from=plan.flicker_from), samples)
    how = TrainingSettings(plan.sharpen, lr=plan.sharpen_lr, flicker_from=0.0, seed=31, square=plan.square,
                           sharpen=plan.sharpen_weight)
    return vtoonify.train(trained, source(31, 0), parsing, folder / "sharpen", how, samples, lambda: (
        vtoonify.stylegan_adversary(plan.square, device, plan.sharpen_r1, len(LOOKS) * EXEMPLARS)))[1]


def train_studio_d(folder: str | Path, out: str | Path, plan: StudioDPlan | None = None, start: str = "studio-t",
                   device: str | torch.device = "cpu") -> None:
    """Train everything in `folder` and write the bundle to `out`."""
    plan, folder, bundle = plan or StudioDPlan(), Path(folder), load_bundle(start)
    pairs = render_styles(folder / "looks", plan.people, size=bundle.config.out_size)
    task = train_vtoonify(pairs, bundle, folder, plan, device)
    exemplars = exemplar_pictures(pairs, plan.hold_out, task.style.image_size)
    dual = train_dual(pairs, bundle, task.style, exemplars, folder / "dual", plan.hold_out, plan.dual, device=device,
                      codes=style_codes(bundle.config.generator.style_dim))
    identity_net, identities = identity.train_identity(folder / "identity", plan.identities, iterations=plan.identity,
                                                       device=device)
    held_out = report.HeldOutPeople.render(pairs, plan.trials, plan.hold_out)
    numbers = measure(bundle, task, identity_net, held_out) | {
        "identities": identities,
        "dualstylegan": measure_dual(dual, pairs, plan.hold_out, bundle.network("parsing").to(device), exemplars)}
    write_bundle(out, bundle, task, dual, identity_net, numbers, plan)


def measure(start: Bundle, task: vtoonify.DualVToonifyTask, identity_net: StyleEncoder,
            held_out: report.HeldOutPeople) -> dict:
    """The bundle's numbers on held-out people, see `report.measure`.

    read         means when styles are given by the exemplars' pictures instead of by the table's codes
    masks_open   means with all fusion masks at 1, which shows what they contribute
    """
    codes = torch.from_numpy(style_codes(start.config.generator.style_dim))
    parsing, task, identity_net = start.network("parsing"), task.cpu().eval(), identity_net.cpu().eval()
    by_table, read = (report.measure(report.TableCodedTask(task, codes, known), parsing, identity_net, held_out)
                      for known in (True, False))
    with report.masks_open(task.vtoonify):
        opened = report.measure(report.TableCodedTask(task, codes), parsing, identity_net, held_out)
    full = by_table["mean"]["1"]
    return {"psnr": full["psnr"], "feature": full["feature"], "input_psnr": full["input_psnr"],
            "input_feature": full["input_feature"], **by_table, "read": read["mean"], "masks_open": opened["mean"]}


def write_bundle(out: str | Path, start: Bundle, task: vtoonify.DualVToonifyTask, dual: DualDistilled,
                 identity_net: StyleEncoder, numbers: dict, plan: StudioDPlan) -> None:
    """Save the bundle with its provenance."""
    out, codes = Path(out), torch.from_numpy(style_codes(start.config.generator.style_dim))
    out.mkdir(parents=True, exist_ok=True)
    save_tensors({"codes": codes[:-1], "plain": codes[-1]}, out / "styles.safetensors", half=False)
    networks = {"vtoonify": copy.deepcopy(task.vtoonify).for_inference(), "parsing": start.network("parsing"),
                "style_encoder": task.style, "sampler": fit_sampler(codes[:-1], iterations=300),
                "identity": identity_net, "dual": dual.generator, "person_encoder": dual.encoder}
    provenance = {
        "data": f"{plan.people} people drawn by vtoonify_lib.studio from CC0 geometry, as photos and by 96 exemplars "
                f"of four looks, seed 0; the first {plan.hold_out} held out; no photograph was used",
        "vtoonify": f"from the VToonify-T of {start.name}, on exact render pairs; all of it trained; styles told by "
                    "the numbers that the renderer draws them by; flicker loss towards the end; then sharpened "
                    "against the conditional discriminator, while the flicker loss rises anew",
        "dual": f"on the base StyleGAN of {start.name}, which stays as it is; exact renders of aligned people",
        "person_encoder": f"the style encoder of {start.name}",
        "style_encoder": "reads these numbers from pictures", "sampler": "fitted to the codes of the 96 exemplars",
        "identity": "InfoNCE on renders of the same people in other poses, light and looks",
        "parsing, landmarks": f"those of {start.name}", "plan": asdict(plan)}
    models = {"vtoonify": {"inference": True}, "parsing": start.info["models"]["parsing"],
              **{name: vtoonify.encoder_arguments(net) for name, net in (
                  ("style_encoder", task.style), ("identity", identity_net), ("person_encoder", dual.encoder))}}
    names = [f"{look}-{number:02d}" for look in LOOKS for number in range(EXEMPLARS)]
    styles = {"names": names, "looks": STAND_FOR, "start": START}
    save_bundle(out, name=out.name, title=TITLE, config=task.vtoonify.config, networks=networks, models=models,
                files={"landmarks": start.path("landmarks"), "styles": out / "styles.safetensors"}, styles=styles,
                metrics=numbers, provenance=provenance)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", default="runs/studio-d", help="where the runs live (resumed when they exist)")
    parser.add_argument("--out", default="data/models/studio-d", help="the bundle to write")
    parser.add_argument("--start", default="studio-t", help="the bundle to begin with (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ...")
    args = parser.parse_args()
    return exit_code(lambda: train_studio_d(args.folder, args.out, start=args.start, device=pick_device(args.device)))


if __name__ == "__main__":
    sys.exit(main())
