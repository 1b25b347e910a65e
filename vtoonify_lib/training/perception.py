"""Face parsing, trained on the studio's exact ground truth; it replaces the paper's BiSeNet.

The net sees heavy photometric and geometric augmentation, because it must hold on photographs that no renderer drew.
Using it is the work of `faces.parsing_maps`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..config import PARSING_CLASSES
from ..evaluation.metrics import class_iou
from ..faces.parsing_maps import PALETTE
from ..media.images import to_image
from ..models.devices import autocast
from ..models.encoders import PARSING_WIDTHS, ParsingNet
from ..studio.shards import Pairs
from . import augment, loop

STYLED_SHARE = 0.25  # of the parsing batch: the net is also the yardstick of stylised pictures
SMALL_PARTS_WEIGHT = 3.0  # of augment.SMALL_PARTS in the cross-entropy


def train_parsing(pairs: Pairs, folder: str | os.PathLike, iterations: int, batch: int = 16, hold_out: int = 256,
                  lr: float = 2e-3, seed: int = 1, widths: tuple[int, ...] = PARSING_WIDTHS,
                  device: str | torch.device = "cpu") -> ParsingNet:
    """Cross-entropy on exact parsing maps at half size, Adam under a half cosine; resumable in `folder`.

    hold_out  entries of `pairs` that are never trained on
    widths    channels of the net
    → the trained net in eval mode
    """
    torch.manual_seed(seed)
    net = ParsingNet(widths=widths).to(device)
    optimizer = torch.optim.Adam(net.parameters(), lr)
    weights = class_weights().to(device)

    def step(i: int) -> dict[str, float]:
        x, label = _parsing_batch(pairs, batch, i, seed, hold_out, device)
        with autocast(x.device):
            logits = net(x)
        loss = F.cross_entropy(logits.float(), label, weights)
        loop.optimizer_step(loss, optimizer, loop.warm_cosine(lr, i, iterations, warmup=50))
        return {"loss": loss.item(), "accuracy": (logits.argmax(1) == label).float().mean().item()}

    def sample(i: int) -> Image.Image:
        x, label = _parsing_batch(pairs, 8, 10**6, seed, hold_out, device)
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
