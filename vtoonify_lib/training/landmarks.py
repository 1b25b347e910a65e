"""Train the landmark network: `python -m vtoonify_lib.training.landmarks --photos FOLDER --labels FILE.npz`.

The studio's renders are exact and always take part; photographs with labels (`landmark_data.read_labels`) make the
network hold on real people, and without any the renders alone serve. Stop it and start it again and it goes on.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import exit_code
from ..faces.landmarks import EYES, NetworkLandmarks, box_from_landmarks, eye_distance_of
from ..faces.searching import apart, overlap, windows
from ..media.images import read_image, to_tensor
from ..models.devices import autocast, pick_device
from ..models.landmarks import LandmarkNet
from ..weights.bundle import save_tensors
from . import landmark_data, loop
from .landmark_crops import Sample, beside_sample, empty_sample, eye_sample, face_sample, hard_negative, hard_sample
from .landmark_data import Example

LR, WARMUP = 2e-3, 100
NO_FACE = 0.3            # share of crops that show no face, or miss it
EYE_WEIGHT, JAW_WEIGHT = 1.5, 0.5  # of points in the loss; a jaw under a beard or hair is a guess
HELD_OUT_SEED = 99       # of the renders that are kept for judging
MINE_EVERY, MINED, HARD = 250, 24, 3000  # iterations between two searches for hard negatives; pictures; kept at most
EDGE = 0.01              # error in eye distances at which the loss turns from a parabola to a line


@dataclass(frozen=True)
class LandmarkExamples:
    """The training set. Entries of `photos` are sampled by `weights`."""

    renders: list[Example]
    photos: list[Example] = field(default_factory=list)
    weights: np.ndarray | None = None
    empty: list[np.ndarray] = field(default_factory=list)
    hard: list[np.ndarray] = field(default_factory=list)  # false detections, see `mine_hard_negatives`

    def draw(self, rng: np.random.Generator) -> Example:
        """A photograph or a render, half and half; renders where there are no photographs."""
        if self.photos and rng.random() < 0.55:
            return self.photos[int(rng.choice(len(self.photos), p=self.weights))]
        return self.renders[int(rng.integers(len(self.renders)))]


def face_batch(faces: LandmarkExamples, n: int, rng: np.random.Generator) -> list[Sample]:
    """n crops of faces, and among them some of anything else."""
    out = []
    for _ in range(n):
        if rng.random() > NO_FACE:
            out.append(face_sample(faces.draw(rng), rng, faces.empty))
        elif faces.hard and rng.random() < 0.4:
            out.append(hard_sample(faces.hard[int(rng.integers(min(len(faces.hard), HARD)))], rng))
        elif faces.empty and rng.random() < 0.4:
            out.append(empty_sample(faces.empty[int(rng.integers(len(faces.empty)))], rng))
        else:
            out.append(beside_sample(faces.draw(rng), rng))
    return out


def mine_hard_negatives(net: nn.Module, faces: LandmarkExamples, rng: np.random.Generator) -> None:
    """Search some pictures as `faces.searching` does, and keep the false detections."""
    model = NetworkLandmarks(net)
    for _ in range(MINED):
        truth = None
        if faces.empty and rng.random() < 0.5:
            picture = faces.empty[int(rng.integers(len(faces.empty)))]
        else:
            example = faces.draw(rng)
            picture, truth = example.image, box_from_landmarks(example.points[:68])
        for box, _ in apart(windows(model, picture)):
            if truth is None or overlap(box, truth) < 0.15:
                faces.hard.append(hard_negative(picture, box))
    del faces.hard[:-HARD]


def _tensors(samples: Sequence[Sample], device: torch.device) -> tuple[Tensor, ...]:
    image = to_tensor(np.stack([s.image for s in samples]), device)
    rest = [torch.as_tensor(np.stack([getattr(s, name) for s in samples]), dtype=torch.float32, device=device)
            for name in ("points", "openness", "size", "face")]
    return image, *rest


def point_weights() -> Tensor:
    """Weight of each of the 70 points in the loss, 1 on average."""
    weights = torch.ones(70)
    weights[:17] = JAW_WEIGHT
    weights[36:48] = weights[68:] = EYE_WEIGHT
    return weights / weights.mean()


def face_loss(net: nn.Module, samples: Sequence[Sample], device: torch.device) -> tuple[Tensor, dict[str, float]]:
    """Points and spread where there is a face, and whether there is one."""
    image, points, _, size, face = _tensors(samples, device)
    with autocast(device):
        marks = net(image)
    away = (marks.points - points) / size[:, None, None]
    error = (away.norm(dim=2) * point_weights().to(device)).mean(1)
    place = F.smooth_l1_loss(away, torch.zeros_like(away), beta=EDGE, reduction="none").sum(2)
    place = (place * point_weights().to(device)).mean(1)
    spread = error.detach() / marks.spread + marks.spread.log()
    sure, faces = F.binary_cross_entropy_with_logits(marks.face, face), face.sum().clamp_min(1)
    loss = (face * (place + 0.05 * spread)).sum() / faces + 0.3 * sure
    right = ((marks.face > 0) == (face > 0.5)).float().mean()
    return loss, {"face": ((face * error).sum() / faces).item(), "sure": sure.item(), "right": right.item()}


def eye_loss(net: nn.Module, samples: Sequence[Sample], device: torch.device) -> tuple[Tensor, dict[str, float]]:
    """Points, the gap between the lids, and openness."""
    image, points, openness, size, _ = _tensors(samples, device)
    with autocast(device):
        marks = net(image)
    away = (marks.points - points) / size[:, None, None]
    gap = away[:, [1, 2]] - away[:, [5, 4]]
    opened = (marks.openness - openness[:, 0]).abs().mean()
    loss = F.smooth_l1_loss(away, torch.zeros_like(away), beta=EDGE / 2, reduction="none").sum(2).mean()
    loss = loss + 0.5 * gap.abs().sum(2).mean() + 0.5 * opened
    return loss, {"eye": away.norm(dim=2).mean().item(), "openness": opened.item()}


def train(faces: LandmarkExamples, folder: str | Path, iterations: int = 3400, batch: int = 64, seed: int = 3,
          device: str | torch.device = "cpu") -> LandmarkNet:
    """AdamW under a half cosine, resumable in `folder` → the moving average of the weights, in eval mode."""
    device = torch.device(device)
    torch.manual_seed(seed)
    net = LandmarkNet()
    _start(net, faces, seed)
    net = net.to(device)
    ema, optimizer = loop.EMA(net, loop.SHORT_EMA_DECAY), torch.optim.AdamW(net.parameters(), LR, weight_decay=1e-3)

    def prepared(i: int) -> tuple[list[Sample], list[Sample]]:
        rng = np.random.default_rng([seed, i])
        return face_batch(faces, batch, rng), [eye_sample(faces.draw(rng), rng) for _ in range(batch)]

    with ThreadPoolExecutor(1) as worker:
        waiting = {}

        def step(i: int) -> dict[str, float]:
            whole, eyes = (waiting.pop(i, None) or worker.submit(prepared, i)).result()
            waiting[i + 1] = worker.submit(prepared, i + 1)
            loss, first = face_loss(net.face, whole, device)
            more, second = eye_loss(net.eyes, eyes, device)
            loop.optimizer_step(loss + more, optimizer, loop.warm_cosine(LR, i, iterations, WARMUP), clip=5.0)
            ema.update(net, i)
            if i % MINE_EVERY == MINE_EVERY - 1 or (not faces.hard and i > MINE_EVERY):
                mine_hard_negatives(copy.deepcopy(ema.model).cpu(), faces, np.random.default_rng([seed, i, 1]))
            return first | second

        loop.run(folder, iterations, step, {"net": net, "ema": ema, "optimizer": optimizer}, title="landmarks")
    return ema.model


def _start(net: LandmarkNet, faces: LandmarkExamples, seed: int) -> None:
    """Set the mean points, to which the networks predict offsets."""
    rng = np.random.default_rng(seed)
    known = [s.points for s in (face_sample(faces.draw(rng), rng) for _ in range(200)) if s.face > 0.5]
    net.face.mean.copy_(torch.as_tensor(np.mean(known, 0)))
    net.eyes.mean.copy_(torch.as_tensor(np.mean([eye_sample(faces.draw(rng), rng).points for _ in range(200)], 0)))


def errors(model: NetworkLandmarks, examples: Sequence[Example]) -> dict[str, float]:
    """How far a model is from the truth, in eye distances of a face seen from the front; boxes are a little off."""
    rng, rows, opened = np.random.default_rng(0), [], []
    for example in examples:
        box = np.array(box_from_landmarks(example.points[:68]))
        box = box + np.tile(rng.normal(0, 0.04, 2) * (box[2] - box[0]), 2)
        marks, = model.fit(np.ascontiguousarray(example.image), [tuple(box)])
        found = np.concatenate([marks.landmarks, marks.irises])
        rows.append(np.linalg.norm(found - example.points, axis=1) / eye_distance_of(example.points[:68]))
        opened.append(np.stack([marks.openness, example.openness]))
    e, o = np.mean(rows, 0), np.stack(opened, 1).reshape(2, -1)
    parts = {"all": e[:68], "jaw": e[:17], "brows": e[17:27], "nose": e[27:36], "mouth": e[48:68], "irises": e[68:],
             "eyes": np.concatenate([e[eye] for eye in EYES])}
    return {**{name: round(float(v.mean()), 4) for name, v in parts.items()},
            "openness": round(float(np.abs(o[0] - o[1]).mean()), 4),
            "openness_r": round(float(np.corrcoef(o)[0, 1]), 4) if o.std(1).min() > 0 else float("nan")}


@dataclass(frozen=True)
class LandmarkPlan:
    """Sizes of the training. The defaults are those of the shipped file (data/README.md says what it learnt from)."""

    renders: int = 9200
    hold_out: int = 300
    iterations: int = 3400
    batch: int = 64
    device: str | torch.device = "cpu"


def make(folder: str | Path, out: str | Path, plan: LandmarkPlan, photos: Sequence[tuple[str, Example, float]] = (),
         empty: Sequence[np.ndarray] = ()) -> dict[str, float]:
    """Render, train in `folder`, write the safetensors file `out` → errors on renders that were held out.

    photos  as `landmark_data.read_labels` gives them;  empty  pictures without people, uint8 RGB
    """
    folder = Path(folder)
    drawn = landmark_data.renders(landmark_data.render(folder / "renders", plan.renders))
    held = landmark_data.renders(landmark_data.render(folder / "held_out", plan.hold_out, HELD_OUT_SEED))
    weights = np.array([weight for *_, weight in photos])
    weights = weights / weights.sum() if len(photos) else None
    faces = LandmarkExamples(drawn, [example for _, example, _ in photos], weights, list(empty))
    net = train(faces, folder, plan.iterations, plan.batch, device=plan.device).cpu()
    save_tensors(net.state_dict(), Path(out), network="landmarks")
    return errors(NetworkLandmarks(net), held[: plan.hold_out])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", default="runs/landmarks", help="where the run lives; resumed when it exists")
    parser.add_argument("--out", help="safetensors file to write (default: landmarks.safetensors in the folder)")
    parser.add_argument("--renders", type=int, default=LandmarkPlan.renders, help="people to draw")
    parser.add_argument("--labels", action="append", default=[], help="labels of photographs, an .npz file; repeatable")
    parser.add_argument("--photos", help="folder that the labels' paths are in")
    parser.add_argument("--without", help="text file of paths that are not trained on")
    parser.add_argument("--empty", help="folder of pictures without people")
    parser.add_argument("--iterations", type=int, default=LandmarkPlan.iterations)
    parser.add_argument("--batch", type=int, default=LandmarkPlan.batch)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ...")
    args = parser.parse_args()

    def work() -> dict[str, float]:
        without = set(Path(args.without).read_text().split()) if args.without else set()
        photos = [row for path in args.labels for row in landmark_data.read_labels(path, args.photos, without)]
        empty = [path for path in sorted(Path(args.empty).rglob("*")) if path.is_file()] if args.empty else []
        plan = LandmarkPlan(args.renders, iterations=args.iterations, batch=args.batch,
                            device=pick_device(args.device))
        out = args.out or Path(args.folder) / "landmarks.safetensors"
        return make(args.folder, out, plan, photos, [read_image(path) for path in empty])

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
