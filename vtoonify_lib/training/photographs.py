"""Train VToonify on photographs and their drawings, for sharp pictures: one command, a time limit, few files.

    python -m vtoonify_lib.training.photographs --data PHOTOS [RENDERS] --config medium --seconds 540 --out OUT

`--data` are folders in the layout of `studio.shards`, or files of `studio.packing`; several take turns, entry by entry.
The held-out entries of the first (`hold_out.txt` in its folder) are used for evaluation. One look makes a VToonify-T,
several a VToonify-D with exemplar, structure degree and colour degree. Training starts from a bundle's weights, grown
where the network is larger, and stops by itself: `--seconds` includes reading, evaluation and writing. The state is
kept in `--work`; the same command resumes from there.

Pictures are scaled so that faces are as large as in use (eyes a quarter of the input size apart). A drawing that has to
be enlarged for that teaches softness: with eyes 128 px apart it suits 256 → 512 (`--config medium`), for 256 → 1024 it
takes 256 px, or `--eyes`, which also says how faces then have to be framed in use.

On a machine with a GPU, from which only a few small files come back and on which nothing can be installed:

    python -m vtoonify_lib.studio.packing runs/film job/film.zip --looks film --quality 80      # here: 40 MB
    python -m vtoonify_lib.training.vgg job/vgg.safetensors                         # here: 15 MB
    # there, with torch, numpy, OpenCV, Pillow, safetensors and tqdm: this repository's vtoonify_lib and
    # data/models/film and shared (bundle.json, vtoonify, parsing, style_encoder are read), and the folder job
    python -m vtoonify_lib.training.photographs --data job/film.zip --look film --vgg job/vgg.safetensors \
        --vgg-square 96 --vgg-weight 0.2 --config fast --detail 4 --start film --batch 24 --window 96 --workers 14 \
        --square 64 --seconds 540 --out OUT
    python -m vtoonify_lib.training.photographs --bundle data/models/film --out OUT --start studio-t   # here

OUT has vtoonify.safetensors and style_encoder.safetensors (the moving average, half precision; 10 and 3 MB,
VToonify-D 16 and 3), metrics.json, log.csv, sheet.jpg and crops.jpg: photograph, ours, drawing; for a VToonify-D whose
looks have codes in `studio.codes`, also styles.safetensors.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..config import HANDOFF, SIZES, VToonifyConfig, VToonifyError
from ..faces.crop import EYE_FRACTION
from ..models.devices import pick_device
from ..models.encoders import ParsingNet
from ..models.perceptual import VGGFeatures
from ..studio.codes import style_codes
from ..studio.exemplars import EXEMPLARS, LOOKS
from ..studio.packing import held_out, unpack
from ..studio.photo_looks import LOOKS as PHOTO_LOOKS
from ..studio.shards import Pairs
from ..weights.bundle import Bundle, load_bundle, save_bundle, save_tensors
from . import loop, report, vtoonify
from .dualstylegan import fit_sampler
from .exemplars import Exemplars
from .likeness import HeldOutExample, contact_sheets, score
from .objectives import VGG_WEIGHT, OurLosses, SharpLosses
from .pairs import StyleCondition
from .starting import initial_task, is_dual
from .vgg import load_vgg
from .windows import NATURAL, Framing, PairLoader, PatchDataset, Source, natural_side

WRITING = 8.0  # seconds kept for the files
SLACK = 1.5    # of the time that the numbers took before the training: what is kept for those after it
STYLES = "styles.safetensors"  # of what comes out: codes of a VToonify-D's styles, and of the photograph
PICTURES = "photographs"  # folder in data/styles of what the exemplars of these looks look like
START_DEGREE = 0.6  # of structure and colour where nothing is asked for: it flatters (`photo_looks.flattering`)
# Of networks that carry detail over. On 59 people film has .76 of the photographs' sharpness (at 512 px of face .66) as
# it is, .90 (.83) with .2 and .94 (.87) with .25; its drawings 1.09 (.89). .25 instead of .2 costs .04 dB.
UNSHARP = 0.2
SHOWN = 8      # held-out entries on the sheets


@dataclass(frozen=True)
class Job:
    """What is trained, on what, how long; see the command's help.

    config   sizes; its backbone says whether it is VToonify-T (one look) or -D
    seconds  in all; iterations: an upper limit beside it
    eyes     distance of the eyes in pixels of the input to which the pictures are scaled; 0: as a crop plan makes it
    judged   held-out entries for the numbers
    """

    data: tuple[Path, ...]
    looks: tuple[str, ...]
    config: VToonifyConfig
    out: Path
    work: Path
    start: str = "studio-t"
    seconds: float = 540.0
    iterations: int = 10**7
    window: int = 128
    batch: int = 4
    workers: int = 0
    lr: float = 1e-3
    eyes: float = 0.0
    shares: tuple[float, ...] = ()  # of the looks, beside each other
    zoom: tuple[float, float] = (0.8, 1.25)
    vgg: str | None = None  # a file; "none": without; None: the installed package
    vgg_square: int = 256
    vgg_weight: float = VGG_WEIGHT
    adversary_from: float = 0.05
    square: int = vtoonify.SQUARE
    sharpen: float = 0.05
    r1: float = 0.002  # of pictures whose detail the discriminator sees amplified
    flicker_from: float = 0.5
    judged: int = 24
    seed: int = 3


def train_photographs(job: Job, device: str | torch.device = "cpu") -> dict:
    """Train, evaluate, write → the contents of `metrics.json`."""
    began = time.monotonic()
    bundle, vgg = load_bundle(job.start), None if job.vgg == "none" else load_vgg(job.vgg, device)
    datasets = [_opened(path, job.work) for path in job.data]
    sources = [_source(pairs, job) for pairs in datasets]
    task = initial_task(bundle, job.config).to(device)
    parsing = bundle.network("parsing").to(device)
    exemplars = _exemplars(sources, job.looks, task.style.image_size) if is_dual(job.config) else None
    codes = _codes(job, datasets)
    examples = _held_out_examples(datasets[0], job, exemplars, codes, task.style.image_size)

    def evaluated(model: vtoonify.VToonifyTask, until: float) -> dict:
        return score(model.eval(), parsing, vgg, examples, until, device)

    clocked = time.monotonic()
    before = evaluated(task, began + job.seconds / 4)
    reserved = WRITING + SLACK * (time.monotonic() - clocked)
    spent = time.monotonic() - began
    clock = loop.Clock(max(0.0, job.seconds - spent - reserved))
    trained = _train(job, sources, task, parsing, vgg, exemplars, codes, clock, device)
    after = evaluated(trained, began + job.seconds - WRITING)
    sheets = contact_sheets(trained, parsing, examples[:SHOWN], device)
    return _write(job, codes, trained.cpu(), sheets, {
        "before": before, "after": after, "iterations": loop.iterations_done(job.work / "run"),
        "seconds": round(time.monotonic() - began, 1), "trained_seconds": round(clock.spent(), 1),
        "device": str(device), "sides": [source.side for source in sources],
        "entries": [len(source.pool) for source in sources], "start": bundle.name,
        "config": job.config.to_dict(), "looks": list(job.looks), "photographs": all(p.photographs for p in datasets),
        "job": {name: value for name, value in asdict(job).items() if isinstance(value, int | float)}})


def _train(job: Job, sources: Sequence[Source], task: vtoonify.VToonifyTask, parsing: ParsingNet,
           vgg: VGGFeatures | None, exemplars: Exemplars | None, codes: np.ndarray | None, clock: loop.Clock,
           device: str | torch.device) -> vtoonify.VToonifyTask:
    flow = job.config.in_size * job.config.detail // (2 * HANDOFF) if job.config.detail else 0
    framing = Framing(job.window, job.config.scale, job.zoom, face=task.style.image_size, flow_step=flow)
    patches = PatchDataset(sources, job.looks, framing, job.batch, job.seed, exemplars, job.shares)
    pairs = PairLoader(patches, device, job.workers, codes)
    criterion = OurLosses(parsing) if vgg is None else SharpLosses(parsing, vgg, job.vgg_square, job.vgg_weight)

    styles = EXEMPLARS * len(job.looks) if exemplars else 0
    how = vtoonify.TrainingSettings(job.iterations, lr=job.lr, flicker_from=job.flicker_from, seed=job.seed,
                                    square=job.square, sharpen=job.sharpen, adversary_from=job.adversary_from)
    return vtoonify.train(task, pairs, parsing, job.work / "run", how, criterion=criterion, clock=clock,
                          make_adversary=None if job.adversary_from >= 1 else lambda: vtoonify.stylegan_adversary(
                              job.square, device, job.r1, styles, detail_only=True))[1]


def _opened(path: Path, work: Path) -> Pairs:
    return unpack(path, work / "data" / path.stem) if path.is_file() else Pairs.open(path)


def _source(pairs: Pairs, job: Job) -> Source:
    """A data set without its held-out entries. VToonifyError where it lacks a look."""
    missing = [look for look in job.looks if look not in pairs.arrays]
    if missing:
        raise VToonifyError(f"{pairs.folder} has no drawings in the look {missing[0]}")
    if len(job.looks) > 1 and any((np.array(pairs[f"{look}_style"])[pairs.ready] < 0).any() for look in job.looks
                                  if f"{look}_style" in pairs.arrays):
        raise VToonifyError(f"{pairs.folder} was drawn without exemplars, which several looks need; draw it with "
                            "python -m vtoonify_lib.training.photo_pairs --spread")
    pool = np.setdiff1d(pairs.ready, held_out(pairs.folder, _few(pairs)))
    side, size = _side(pairs, job), pairs["photo"].shape[1]
    if side > (1 + NATURAL) * size:
        eyes = (job.eyes or EYE_FRACTION * job.config.in_size) * size / side
        print(f"{pairs.folder}: its pictures of {size} px are enlarged to {side} px, to have faces as large as in use; "
              f"a smaller --config, or --eyes {eyes:.0f}, would keep them as sharp as they are", file=sys.stderr)
    return Source(pairs, pool, side)


def _side(pairs: Pairs, job: Job) -> int:
    """Side of a data set's pictures at which faces are as large as in a planned crop."""
    eyes = (job.eyes or EYE_FRACTION * job.config.in_size) * job.config.scale
    return natural_side(pairs, pairs.ready[:: max(1, len(pairs.ready) // 64)], eyes, job.config.scale)


def _few(pairs: Pairs) -> int:
    """Entries held out where no list says which: a tenth, 64 at most."""
    return min(64, len(pairs.ready) // 10)


def _codes(job: Job, datasets: Sequence[Pairs]) -> np.ndarray | None:
    """Codes of the looks' styles, then the null code; None where the studio's table does not contain the looks.

    There is a table for renders and one for photographs; they share names, so data sets of both kinds have none.
    """
    if not is_dual(job.config):
        return None
    kinds = {pairs.photographs for pairs in datasets}
    known = tuple(PHOTO_LOOKS if True in kinds else LOOKS)
    if len(kinds) > 1 or not set(job.looks) <= set(known):
        return None
    table = style_codes(job.config.generator.style_dim, kinds.pop())
    return np.concatenate([*(table[EXEMPLARS * known.index(look):][:EXEMPLARS] for look in job.looks), table[-1:]])


def _exemplars(sources: Sequence[Source], looks: Sequence[str], size: int) -> Exemplars:
    """Pictures of each style: its own, where a data set has one, and entries that are drawn in it."""
    found = []
    for look in looks:
        owned = next((source.pairs for source in sources
                      if (source.pairs.folder / "exemplars" / f"{look}.npy").is_file()), None)
        for number in range(EXEMPLARS):
            mine = [] if owned is None else [report.shrunk(owned.exemplars(look)[number], size)]
            drawn = [picture for source in sources for picture in _drawn_in(source, look, number, size)]
            blank = [np.full((size, size, 3), 128, np.uint8)]  # of a style in which nothing is drawn
            found.append(np.stack((mine + drawn) or blank))
    return Exemplars(found, looks)


def _drawn_in(source: Source, look: str, number: int, size: int, most: int = 4) -> list[np.ndarray]:
    """The entries drawn in one style most fully, as small pictures."""
    pairs, pool = source.pairs, source.pool
    own = pool[np.array(pairs[f"{look}_style"])[pool] == number]
    degree = np.array(pairs[f"{look}_structure"])[own]
    best = own[np.argsort(-degree, kind="stable")][:most]
    return [report.shrunk(np.array(pairs[look][entry]), size) for entry in best]


def _held_out_examples(pairs: Pairs, job: Job, exemplars: Exemplars | None, codes: np.ndarray | None, face: int
                       ) -> list[HeldOutExample]:
    """The first data set's held-out entries, in turn in each look."""
    there = np.intersect1d(pairs.ready, held_out(pairs.folder, _few(pairs)))[: job.judged]
    if not len(there):
        raise VToonifyError(f"{pairs.folder} has no held-out entries to judge by; list some in its hold_out.txt")
    multiple = max(8, job.config.in_size // 32)
    side = _side(pairs, job)

    def condition(entry: int, look: str) -> StyleCondition:
        found = exemplars.condition(pairs, np.array([entry]), look, np.random.default_rng(0))
        return found if codes is None else found.coded(torch.from_numpy(codes))

    return [HeldOutExample(pairs, int(entry), job.looks[n % len(job.looks)], job.config.scale, multiple,
                           condition if exemplars else None, face, side, job.config.detail or 1)
            for n, entry in enumerate(there)]


def _write(job: Job, codes: np.ndarray | None, task: vtoonify.VToonifyTask, sheets: Sequence[Image.Image],
           metrics: dict) -> dict:
    """Write the files of `--out`."""
    job.out.mkdir(parents=True, exist_ok=True)
    task.vtoonify.for_inference()
    save_tensors(task.vtoonify.state_dict(), job.out / "vtoonify.safetensors", network="vtoonify")
    save_tensors(task.style.state_dict(), job.out / "style_encoder.safetensors", network="style_encoder")
    if codes is not None:
        save_tensors({"codes": torch.from_numpy(codes[:-1]), "plain": torch.from_numpy(codes[-1])}, job.out / STYLES,
                     half=False)
    for name, picture in zip(("sheet", "crops"), sheets, strict=True):
        picture.save(job.out / f"{name}.jpg", quality=90)
    log = job.work / "run" / "log.csv"
    if log.is_file():
        shutil.copyfile(log, job.out / "log.csv")
    (job.out / "metrics.json").write_text(json.dumps(metrics, indent=1))
    return metrics


def _styles(looks: Sequence[str], codes: torch.Tensor) -> dict:
    """How a bundle describes its styles; the exemplar nearest to the mean stands for a look. codes [looks,24,N]."""
    centres = torch.linalg.vector_norm(codes - codes.mean(1, keepdim=True), dim=2).argmin(1)
    stands = {look: f"{look}-{int(number):02d}" for look, number in zip(looks, centres, strict=True)}
    return {"names": [f"{look}-{number:02d}" for look in looks for number in range(EXEMPLARS)], "looks": stands,
            "start": {"style": stands[looks[0]], "structure": START_DEGREE, "color": START_DEGREE}}


def make_bundle(out: str | Path, folder: str | Path, start: str = "studio-t", title: str | None = None,
                unsharp: float = UNSHARP) -> Bundle:
    """A bundle from the files that a job wrote to `out`; parsing net, landmarks and styles are those of `start`.

    unsharp: how much finest detail is amplified in use, where a network carries detail over (`config.sharpen`)
    VToonifyError where that one has no styles and the job was VToonify-D.
    """
    from safetensors.torch import load_file

    out, base = Path(out), load_bundle(start)
    metrics = json.loads((out / "metrics.json").read_text())
    config = VToonifyConfig.from_dict(metrics["config"])
    task = initial_task(base, config)
    task.vtoonify.for_inference().load_state_dict(load_file(out / "vtoonify.safetensors"))
    task.style.load_state_dict(load_file(out / "style_encoder.safetensors"))
    kept = [name for name in ("landmarks", "parsing", "photo_parsing") if name in base.info["files"]]
    files, styles = {name: base.path(name) for name in kept}, None
    networks = {"vtoonify": task.vtoonify, "style_encoder": task.style}
    if is_dual(config) and (out / STYLES).is_file():
        files["styles"] = out / STYLES
        codes = load_file(out / STYLES)["codes"]
        networks["sampler"] = fit_sampler(codes, iterations=300)
        styles = _styles(metrics["looks"], codes.reshape(len(metrics["looks"]), EXEMPLARS, -1))
        styles |= {"pictures": PICTURES} if metrics["photographs"] else {}
    elif is_dual(config):
        if "styles" not in base.info["files"]:
            raise VToonifyError(f"{base.name} has no styles for the VToonify-D in {out}; start from one that has")
        files["styles"], styles = base.path("styles"), base.styles
    title = title or f"VToonify-{config.backbone[0].upper()}: {', '.join(metrics['looks'])}"
    return save_bundle(
        folder, name=Path(folder).name, title=title,
        config=replace(config, face_size=round(metrics["job"].get("eyes", 0) / EYE_FRACTION) or None,
                       sharpen=unsharp if config.detail else None),
        networks=networks,
        files=files, styles=styles,
        models={"vtoonify": {"inference": True}, "parsing": base.info["models"]["parsing"],
                "style_encoder": vtoonify.encoder_arguments(task.style)},
        metrics={**metrics["after"], "before": metrics["before"]}, provenance={
            "data": f"{' + '.join(map(str, metrics['entries']))} pairs of photographs and drawings, "
                    "held-out ones aside",
            "vtoonify": f"from {metrics['start']}; {metrics['iterations']} iterations "
                        f"in {metrics['trained_seconds']:.0f} s",
            "parsing, landmarks": f"those of {base.name}", "job": metrics["job"]})


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m vtoonify_lib.training.photographs",
                                     description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", type=Path, help="folders of pairs, or packed ones")
    parser.add_argument("--look", nargs="+", default=["film"], help="one: VToonify-T, several: VToonify-D")
    parser.add_argument("--out", type=Path, required=True, help="folder for the files that come out")
    parser.add_argument("--work", type=Path, help="folder for what is only needed to go on (default: OUT-work)")
    parser.add_argument("--config", choices=SIZES, default="large", help="256 → 1024, 256 → 512, 128 → 256")
    parser.add_argument("--detail", type=int, help="photograph's pixels per input pixel that reach the picture; the "
                        "picture then has as many (default: none)")
    parser.add_argument("--bundle", type=Path, help="train nothing: make this bundle of what --out has")
    parser.add_argument("--unsharp", type=float, default=UNSHARP, help="how much the finest detail of a bundle's "
                        "pictures is amplified (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ...")
    defaults = {name: field.default for name, field in Job.__dataclass_fields__.items()}
    for name, kind, text in (
            ("start", str, "bundle to begin with"), ("seconds", float, "all the time there is"),
            ("iterations", int, "an upper limit beside it"), ("window", int, "side of the input's windows, px"),
            ("batch", int, "windows a step"), ("workers", int, "processes that prepare them"),
            ("eyes", float, "their distance in pixels of the input; 0: as large as in use"), ("lr", float, "rate"),
            ("vgg", str, "file of the perceptual network, or none (default: the installed package)"),
            ("vgg-square", int, "side of the squares that it compares, output px"),
            ("vgg-weight", float, "weight of its feature distance"),
            ("adversary-from", float, "share of the time from which the adversary plays; 1: never"),
            ("square", int, "side of the squares that it sees, output px"),
            ("sharpen", float, "weight of the adversarial loss"), ("r1", float, "weight of R1"),
            ("flicker-from", float, "share of the time from which flicker costs"),
            ("judged", int, "held-out entries for the numbers"), ("seed", int, "of all that is random")):
        parser.add_argument(f"--{name}", type=kind, default=defaults[name.replace("-", "_")],
                            help=text if "default" in text else f"{text} (default: %(default)s)")
    parser.add_argument("--shares", nargs="+", type=float, default=(), help="how often each look is drawn, beside the "
                        "others (default: all alike)")
    parser.add_argument("--zoom", nargs=2, type=float, default=defaults["zoom"], help="least and largest")
    args = vars(parser.parse_args(arguments))
    bundle, device, looks, size, detail, unsharp = (
        args.pop(name) for name in ("bundle", "device", "look", "config", "detail", "unsharp"))
    try:
        if bundle:
            made = make_bundle(args["out"], bundle, args["start"], unsharp=unsharp)
            print(f"{made.folder}: {made.bytes / 1e6:.1f} MB")
            return
        if not args["data"]:
            raise VToonifyError("there is nothing to train on; name folders of pairs with --data")
        torch.backends.cudnn.benchmark = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cuda.matmul.allow_tf32 = True
        backbone = "toonify" if len(looks) == 1 else "dualstylegan"
        work = args.pop("work") or args["out"].with_name(args["out"].name + "-work")
        args |= {name: tuple(args[name]) for name in ("data", "zoom", "shares")}
        config = replace(SIZES[size], backbone=backbone, detail=detail)
        metrics = train_photographs(Job(**args, looks=tuple(looks), work=work, config=config), pick_device(device))
    except VToonifyError as error:
        parser.exit(2, f"error: {error}\n")
    for when in ("before", "after"):
        print(when, json.dumps(metrics[when]))
    print(f"{metrics['iterations']} iterations, {metrics['seconds']} s, in {args['out']}")


if __name__ == "__main__":
    main()
