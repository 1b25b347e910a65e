"""Face parsing, trained on the studio's exact ground truth and on photographs; it replaces the paper's BiSeNet.

The net sees heavy photometric and geometric augmentation, because it must hold on photographs that no renderer drew.
Using it is the work of `faces.parsing_maps`. The classes of photographs are those of `photo_labels`:

    python -m vtoonify_lib.training.perception --folder runs/parsing --photographs runs/labels --start studio-t

trains a bundle's net further on both, half and half, and writes runs/parsing/parsing.safetensors.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..config import PARSING_CLASSES, VToonifyError, exit_code
from ..evaluation.metrics import UNMARKED, class_iou
from ..faces.parsing_maps import PALETTE
from ..media.images import read_image, to_image
from ..models.devices import autocast, pick_device
from ..models.encoders import PARSING_WIDTHS, ParsingNet
from ..studio.fitted_person import MARGIN
from ..studio.shards import Pairs, render_pairs
from ..weights.bundle import load_bundle, save_tensors
from . import augment, loop

STYLED_SHARE = 0.25  # of the parsing batch: the net is also the yardstick of stylised pictures
SMALL_PARTS_WEIGHT = 3.0  # of augment.SMALL_PARTS in the cross-entropy
CANVAS = 384        # px of a marked photograph in memory
PHOTO = "_photo.png"
# px between the eyes of photographs as the net sees them: 32 in use, more in large crops, less where a face is small
EYES = (16.0, 72.0)
BEHIND_SHARE = 0.3  # of photographs with another one for their backdrop, or walls of one colour are learnt by heart


def read_marked(folder: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Photographs uint8 [H,W,3] and their classes uint8 [h,w]. VToonifyError where something is amiss."""
    photos = sorted(folder.glob(f"*{PHOTO}"))
    if not photos:
        raise VToonifyError(f"there is no NAME{PHOTO} in {folder}; give a folder of marked photographs")
    for path in photos:
        beside = path.with_name(path.name.removesuffix(PHOTO) + ".png")
        try:
            labels = np.asarray(Image.open(beside).convert("L"))
        except OSError as error:
            raise VToonifyError(f"{path} has no classes beside it ({error}); expected {beside.name}") from error
        if np.any((labels >= PARSING_CLASSES) & (labels != UNMARKED)):
            raise VToonifyError(f"the classes of {path} go up to {labels[labels != UNMARKED].max()}; "
                                f"expected 0 to {PARSING_CLASSES - 1}, or {UNMARKED} for unmarked pixels")
        yield read_image(path), labels


class MarkedPhotographs:
    """Photographs and their classes, as `photo_labels` writes them: NAME_photo.png and NAME.png in a folder.

    VToonifyError where something is amiss.
    """

    def __init__(self, folder: Path):
        pairs = [(_shrunk(photo, Image.Resampling.BOX), _shrunk(classes, Image.Resampling.NEAREST))
                 for photo, classes in read_marked(folder)]
        self.photos, self.classes = (np.stack(part) for part in zip(*pairs, strict=True))

    def batch(self, n: int, side: int, i: int, seed: int, device: str | torch.device = "cpu") -> tuple[Tensor, Tensor]:
        """Augmented windows [n,3,side,side] in [−1,1], and their classes [n,side,side], UNMARKED where unknown."""
        index = np.random.default_rng([seed, i, 1]).integers(0, len(self.photos), n)
        g = loop.rng_for(seed + 1, i, device)
        photo = torch.from_numpy(self.photos[index]).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
        classes = torch.from_numpy(self.classes[index]).to(device)
        theta = _windows(n, side, g)
        grid = F.affine_grid(theta, [n, 3, side, side], align_corners=False)
        # Two samples a pixel and axis: a window of a large picture is not to be read from every other pixel.
        fine = F.affine_grid(theta, [n, 3, 2 * side, 2 * side], align_corners=False)
        x = F.avg_pool2d(F.grid_sample(photo, fine, padding_mode="border", align_corners=False), 2)
        beyond = (grid.abs() > 1).any(-1)
        label = F.grid_sample(classes[:, None].float(), grid, mode="nearest", align_corners=False)[:, 0].long()
        unknown = beyond | (label == UNMARKED)
        known = torch.where(unknown, 0, label)
        known = torch.where(augment.mirrored(theta)[:, None, None], augment.MIRROR.to(known.device)[known], known)
        label = torch.where(unknown, UNMARKED, known)
        behind = (torch.rand(n, 1, 1, generator=g, device=g.device) < BEHIND_SHARE) & (label == 0)
        x, label = torch.where(behind[:, None], x.roll(1, 0), x), torch.where(behind, label.roll(1, 0), label)
        return augment.degrade(augment.tint([x], g, strength=1.6)[0], g), label


def _shrunk(picture: np.ndarray, how: Image.Resampling) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).resize((CANVAS, CANVAS), how))


def _windows(n: int, side: int, g: torch.Generator) -> Tensor:
    """Affines [n,2,3] from windows of `side` px to canvases: turned, mirrored, anywhere, eyes as EYES says."""
    theta = augment.placements(n, g, (1.0, 1.0), 0.5, 0.0)
    eyes = torch.empty(n, device=g.device).uniform_(*np.log(EYES).tolist(), generator=g).exp()
    share = side / (4 * MARGIN * eyes)  # of the canvas that a window takes; canvases are 4 · MARGIN eye distances wide
    theta[:, :, :2] *= share[:, None, None]
    free = (1 - share).clamp(min=0.1)
    theta[:, :, 2] = (2 * torch.rand(n, 2, generator=g, device=g.device) - 1) * free[:, None]
    return theta


def train_parsing(pairs: Pairs, folder: str | os.PathLike, iterations: int, batch: int = 16, hold_out: int = 256,
                  lr: float = 2e-3, seed: int = 1, widths: tuple[int, ...] = PARSING_WIDTHS,
                  device: str | torch.device = "cpu", photographs: MarkedPhotographs | None = None,
                  start: ParsingNet | None = None) -> ParsingNet:
    """Cross-entropy on parsing maps at half size, Adam under a half cosine; resumable in `folder`.

    hold_out     entries of `pairs` that are never trained on
    widths       channels of the net
    photographs  half of each batch, where they are given
    start        the net to begin with, instead of a new one
    → the trained net in eval mode
    """
    torch.manual_seed(seed)
    net = ParsingNet(widths=widths)
    if start is not None:
        net.load_state_dict(start.state_dict())
    net.to(device).train()
    optimizer = torch.optim.Adam(net.parameters(), lr)
    weights = class_weights().to(device)
    rendered = batch if photographs is None else batch - batch // 2

    def step(i: int) -> dict[str, float]:
        x, label = _parsing_batch(pairs, rendered, i, seed, hold_out, device)
        if photographs is not None:
            seen = photographs.batch(batch // 2, x.shape[-1], i, seed, device)
            x, label = torch.cat([x, seen[0]]), torch.cat([label, seen[1]])
        with autocast(x.device):
            logits = net(x)
        loss = F.cross_entropy(logits.float(), label, weights, ignore_index=UNMARKED)
        loop.optimizer_step(loss, optimizer, loop.warm_cosine(lr, i, iterations, warmup=50))
        return {"loss": loss.item(), "accuracy": (logits.argmax(1) == label).float().mean().item()}

    def sample(i: int) -> Image.Image:
        x, label = _parsing_batch(pairs, 8, 10**6, seed, hold_out, device)
        if photographs is not None:
            x, label = photographs.batch(8, x.shape[-1], 10**6, seed, device)
            label = torch.where(label == UNMARKED, 0, label)
        net.eval()
        with torch.no_grad():
            guess = net(x).argmax(1)
        net.train()
        rows = [to_image(x), *(PALETTE[classes.cpu().numpy()] for classes in (label, guess))]
        return Image.fromarray(np.concatenate([np.concatenate(list(row), 1) for row in rows], 0))

    loop.run(folder, iterations, step, {"net": net, "optimizer": optimizer}, sample, title="parsing")
    return net.eval()


def class_weights() -> Tensor:
    """Loss weight of each of the 19 classes."""
    weights = torch.ones(PARSING_CLASSES)
    weights[list(augment.SMALL_PARTS)] = SMALL_PARTS_WEIGHT
    return weights


def _parsing_batch(pairs: Pairs, n: int, i: int, seed: int, hold_out: int, device: str | torch.device
                   ) -> tuple[Tensor, Tensor]:
    """Augmented pictures of both styles at half size [n,3,S/2,S/2], and their classes [n,S/2,S/2]."""
    g = loop.rng_for(seed, i, device)
    batch = augment.draw(pairs, n, i, seed, hold_out, device=device)
    batch = augment.move(batch, g, zoom=(0.55, 1.5), turn=0.5, shift=0.2)
    styled = torch.rand(n, generator=g, device=g.device) < STYLED_SHARE
    image = torch.where(styled[:, None, None, None], batch.styled, batch.photo)
    label = torch.where(styled[:, None, None], batch.styled_parsing, batch.parsing)
    x = augment.degrade(augment.half(augment.tint([image], g, strength=1.6)[0]), g)
    return x, label[:, ::2, ::2]


@torch.no_grad()
def parsing_iou(net: Callable[[Tensor], Tensor], pairs: Pairs, hold_out: int = 256) -> dict[str, float]:
    """`evaluation.metrics.class_iou` on the held-out photographs (renders never trained on)."""
    index = pairs.ready[pairs.ready < hold_out]

    def maps() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for part in np.array_split(index, max(1, len(index) // 16)):
            batch = augment.load(pairs, part, "storybook")
            yield net(augment.half(batch.photo)).argmax(1).numpy(), batch.parsing[:, ::2, ::2].numpy()

    return class_iou(maps())


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; → exit code."""
    parser = argparse.ArgumentParser(prog="python -m vtoonify_lib.training.perception",
                                     description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="where the run lives; resumed when it exists")
    parser.add_argument("--photographs", type=Path, required=True, help="what photo_labels has written")
    parser.add_argument("--renders", type=int, default=1536, help="people to draw (default: %(default)s)")
    parser.add_argument("--start", help="the bundle whose net is trained further (default: a new net)")
    parser.add_argument("--iterations", type=int, default=2000, help="(default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ...")
    args = parser.parse_args(arguments)

    def work() -> str:
        photographs = MarkedPhotographs(args.photographs)
        start = load_bundle(args.start).network("parsing") if args.start else None
        pairs = render_pairs(args.folder / "pairs", args.renders, size=256)
        net = train_parsing(pairs, args.folder / "run", args.iterations, hold_out=min(256, args.renders // 8),
                            device=pick_device(args.device), photographs=photographs, start=start)
        save_tensors(net.cpu().state_dict(), args.folder / "parsing.safetensors", network="parsing")
        return f"{args.folder / 'parsing.safetensors'} is written"

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
