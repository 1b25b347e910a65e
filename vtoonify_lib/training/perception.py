"""Networks that read a photograph, trained on the studio's exact ground truth: face parsing and 68 landmarks.

Both see heavy photometric and geometric augmentation, because they must hold on photographs that no renderer drew.
They stand in for the paper's BiSeNet and dlib's non-commercial landmark file (SPEC §5); using them is `parsing`'s and
`faces`' work.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from ..config import PARSING_CLASSES, VToonifyError
from ..devices import autocast
from ..faces import box_from_landmarks
from ..images import to_image
from ..models.encoders import PARSING_WIDTHS, ParsingNet
from ..parsing import PALETTE
from ..studio.shards import Pairs
from . import data, loop

STYLED_SHARE = 0.25  # of the parsing batch: the net is also the yardstick of stylised pictures
SMALL_PARTS_WEIGHT = 3.0  # of data.SMALL_PARTS in the cross-entropy
LANDMARK_SCALE = 1.6  # dlib keeps landmarks as whole pixels: larger pictures lose less


# -- parsing ----------------------------------------------------------------------------------------------------------
def train_parsing(pairs: Pairs, folder: str | os.PathLike, iterations: int, batch: int = 16, hold_out: int = 256,
                  lr: float = 2e-3, seed: int = 1, seconds: float | None = None,
                  widths: tuple[int, ...] = PARSING_WIDTHS, device: str | torch.device = "cpu") -> ParsingNet:
    """Cross-entropy on exact parsing maps at half size, Adam under a half cosine; resumable in `folder`.

    hold_out  entries of `pairs` that are never trained on
    seconds   stop early after this long; the next call goes on
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
        loop.descend(loss, optimizer, loop.warm_cosine(lr, i, iterations, warmup=50))
        return {"loss": loss.item(), "accuracy": (logits.argmax(1) == label).float().mean().item()}

    def sample(i: int) -> Image.Image:
        x, label = _parsing_batch(pairs, 8, 10**6, seed, hold_out, device)
        net.eval()
        with torch.no_grad():
            guess = net(x).argmax(1)
        net.train()
        rows = [to_image(x), *(PALETTE[classes.cpu().numpy()] for classes in (label, guess))]
        return Image.fromarray(np.concatenate([np.concatenate(list(row), 1) for row in rows], 0))

    loop.run(folder, iterations, step, {"net": net, "optimizer": optimizer}, sample, sample_every=250,
             seconds=seconds, title="parsing")
    return net.eval()


def class_weights() -> Tensor:
    """Loss weight of each of the 19 classes."""
    weights = torch.ones(PARSING_CLASSES)
    weights[list(data.SMALL_PARTS)] = SMALL_PARTS_WEIGHT
    return weights


def _parsing_batch(pairs: Pairs, n: int, i: int, seed: int, hold_out: int, device: str | torch.device
                   ) -> tuple[Tensor, Tensor]:
    """Augmented pictures of both styles at half size [n,3,S/2,S/2], and their classes [n,S/2,S/2]."""
    g = loop.generator(seed, i, device)
    batch = data.move(data.draw(pairs, n, i, seed, hold_out, device=device), g, zoom=(0.55, 1.5), turn=0.5, shift=0.2)
    styled = torch.rand(n, generator=g, device=g.device) < STYLED_SHARE
    image = torch.where(styled[:, None, None, None], batch.styled, batch.photo)
    label = torch.where(styled[:, None, None], batch.styled_parsing, batch.parsing)
    x = data.degrade(data.half(data.tint([image], g, strength=1.6)[0]), g)
    return x, label[:, ::2, ::2]


@torch.no_grad()
def parsing_iou(net: Callable[[Tensor], Tensor], pairs: Pairs, hold_out: int = 256) -> dict[str, float]:
    """Intersection over union on the held-out photographs (renders never trained on): "mean" and each class present."""
    inter, union = np.zeros(PARSING_CLASSES), np.zeros(PARSING_CLASSES)
    index = pairs.ready[pairs.ready < hold_out]
    for part in np.array_split(index, max(1, len(index) // 16)):
        batch = data.load(pairs, part, "storybook")
        guess, label = net(data.half(batch.photo)).argmax(1).numpy(), batch.parsing[:, ::2, ::2].numpy()
        for c in range(PARSING_CLASSES):
            inter[c] += ((guess == c) & (label == c)).sum()
            union[c] += ((guess == c) | (label == c)).sum()
    present = np.flatnonzero(union)
    return {"mean": float((inter[present] / union[present]).mean()),
            **{str(c): float(inter[c] / union[c]) for c in present}}


# -- landmarks --------------------------------------------------------------------------------------------------------
def train_landmarks(pairs: Pairs, path: str | os.PathLike, count: int = 2400, hold_out: int = 256, seed: int = 2,
                    threads: int = 1, trees: int = 130, cascades: int = 10) -> dict[str, float]:
    """dlib's ensemble of regression trees (Kazemi & Sullivan 2014) on renders.

    Boxes come from dlib's own detector, and for every third face from its landmarks, as tracking makes them.

    count            entries to train on, the first `hold_out` excluded; those without one whole found face are left
    threads          dlib 20 counts NumPy references without a lock, so more than one can crash the interpreter later
    trees, cascades  size of the ensemble: `cascades` corrections in turn, each by `trees` trees
    Writes the predictor to `path` → errors on held-out renders, as shares of the distance between the eyes.
    """
    import dlib

    pool = np.random.default_rng(seed).permutation(pairs.ready[pairs.ready >= hold_out])[:count]
    images, detections = _landmark_examples(pairs, pool, seed, augment=True)
    if not images:
        raise VToonifyError(f"dlib found no face in {len(pool)} entries of {pairs.folder}; render more people")
    options = dlib.shape_predictor_training_options()
    options.tree_depth, options.cascade_depth, options.num_trees_per_cascade_level = 4, cascades, trees
    options.nu, options.oversampling_amount, options.oversampling_translation_jitter = 0.1, 10, 0.1
    options.feature_pool_size, options.num_test_splits = 500, 40
    options.num_threads, options.be_verbose = threads, False
    predictor = dlib.train_shape_predictor(images, detections, options)
    predictor.save(str(path))
    test_images, test_detections = _landmark_examples(pairs, pairs.ready[pairs.ready < hold_out], seed, augment=False)
    return {"trained_on": len(images), "tested_on": len(test_images),
            **landmark_errors(predictor, test_images, test_detections)}


def _landmark_examples(pairs: Pairs, index: np.ndarray, seed: int, augment: bool) -> tuple[list, list]:
    """Pictures and dlib detections of the entries in which dlib finds exactly one whole face.

    augment: some cartoons among the photos, all of them turned and worn, and some boxes made of the landmarks.
    """
    import dlib

    detector = dlib.get_frontal_face_detector()
    images, detections = [], []
    for i in tqdm(index, desc="finding faces", mininterval=5):
        style = "storybook" if augment and i % 5 == 0 else "photo"
        image, points = np.array(pairs[style][i]), np.array(pairs[f"{style}_landmarks"][i])
        if augment:
            image, points = _jitter(image, points, np.random.default_rng([seed, int(i)]))
        boxes = detector(image, 0)
        if len(boxes) != 1 or (points < 2).any() or (points > image.shape[0] - 2).any():
            continue
        edges = [boxes[0].left(), boxes[0].top(), boxes[0].right(), boxes[0].bottom()]
        edges = np.array(box_from_landmarks(points) if augment and i % 3 == 0 else edges) * LANDMARK_SCALE
        side = int(image.shape[0] * LANDMARK_SCALE)
        images.append(np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR)))
        parts = [dlib.point(int(round(float(x))), int(round(float(y)))) for x, y in points * LANDMARK_SCALE]
        detections.append([dlib.full_object_detection(dlib.rectangle(*(int(round(float(v))) for v in edges)), parts)])
    return images, detections


def landmark_errors(predictor, images: list[np.ndarray], detections: list) -> dict[str, float]:
    """Mean error of all points, and of eyes and mouth, relative to the distance between the eyes.

    predictor   dlib.shape_predictor
    images      uint8 RGB [H,W,3]; with none there are no errors, {}
    detections  for each of them a list with one dlib.full_object_detection, the truth
    """
    if not images:
        return {}
    errors = []
    for image, (truth,) in zip(images, detections, strict=True):
        guess = predictor(image, truth.rect)
        a, b = (np.array([(p.x, p.y) for p in d.parts()], float) for d in (guess, truth))
        errors.append(np.linalg.norm(a - b, axis=1) / np.linalg.norm(b[42:48].mean(0) - b[36:42].mean(0)))
    e = np.mean(errors, 0)
    return {"all": float(e.mean()), "eyes": float(e[36:48].mean()), "mouth": float(e[48:].mean())}


def _jitter(image: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Colour, noise and resolution of a photograph; turn by up to 15° about the middle, landmarks along.

    image uint8 [S,S,3], points [68,2] in pixels → same
    """
    size = image.shape[0]
    angle = rng.uniform(-15, 15)
    fill = tuple(int(v) for v in image[2, 2])
    picture = Image.fromarray(image).rotate(angle, Image.Resampling.BILINEAR, fillcolor=fill)
    t = np.radians(angle)
    points = (points - size / 2) @ np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]]) + size / 2
    if rng.random() < 0.4:
        small = int(size * rng.uniform(0.3, 0.9))
        for side in (small, size):
            picture = picture.resize((side, side), Image.Resampling.BILINEAR)
    x = np.asarray(picture, np.float32) / 255
    x = np.clip(x, 0, 1) ** np.exp(rng.normal(0, 0.35)) * np.exp(rng.normal(0, 0.15, 3))
    if rng.random() < 0.15:
        x = x.mean(-1, keepdims=True).repeat(3, -1)
    x = x + rng.normal(0, rng.uniform(0, 0.05), x.shape)
    return (np.clip(x, 0, 1) * 255).astype(np.uint8), points
