"""The DualStyleGAN of bundle studio-d: on the base StyleGAN of studio-t, read by the style encoder of VToonify-D.

Styles at low resolution → styles at full size, see `dualstylegan`. The paper's style mixing before them is left out:
codes of styles are no codes of faces (`studio.codes`). The style encoder stays as it is, so one table of codes serves
both networks. Every stage can be stopped and goes on where it was.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ..config import VToonifyError
from ..evaluation import metrics
from ..media.images import to_tensor
from ..models.encoders import ParsingNet, StyleEncoder
from ..studio.shards import Pairs
from ..weights.bundle import Bundle
from . import augment, loop
from .dualstylegan import DualDistilled, StyleSettings, train_styles
from .exemplars import Exemplars, portrait_source
from .loop import Stage
from .stylegan import Distilled
from .vtoonify import encoder_size

STAGES = (Stage(64, 1000), Stage(None, 600, 8))  # 25 minutes on two CPU cores


def base_of(bundle: Bundle) -> Distilled:
    """The base StyleGAN of a bundle and its person encoder, as they were when they were distilled.

    A bundle of ours with VToonify-T has them under these names; one with VToonify-D has them in its DualStyleGAN.
    """
    if "dual" in bundle.info["files"]:
        generator, person = bundle.network("dual").generator, bundle.network("person_encoder")
    else:
        generator, person = bundle.network("base"), bundle.network("style_encoder")
    base = Distilled(bundle.config.generator, **encoder_size(person))
    base.generator.load_state_dict(generator.state_dict())
    base.encoder.load_state_dict(person.state_dict())
    return base


def train_dual(pairs: Pairs, start: Bundle, style: StyleEncoder, exemplars: Exemplars, folder: str | os.PathLike,
               hold_out: int = 256, stages: Sequence[Stage] = STAGES, codes: np.ndarray | None = None,
               device: str | torch.device = "cpu") -> DualDistilled:
    """All stages in `folder` → the moving average of the last one.

    start    bundle with a base StyleGAN, its person encoder as style encoder, and a parsing net
    style    two codes a picture, frozen;  exemplars: pictures of every style of the looks
    codes    table of the styles' codes, [N,2,D] or more (`studio.codes.style_codes`): half of the pictures are drawn by
             them; None: all by the style encoder's codes
    """
    parsing = start.network("parsing").to(device)
    model = DualDistilled.from_base(base_of(start), style).to(device)
    full = start.config.generator.size
    loop.check_stages(stages, full)
    for number, stage in enumerate(stages, start=1):
        until = stage.until(full)
        stage = replace(stage, size=until or full)
        where = Path(folder) / f"lessons-{stage.size}"
        examples = portrait_source(pairs, exemplars, stage.batch, stage.size, hold_out, 23 + number, codes, device)
        how = StyleSettings(stage.iterations, until, seed=13 + number, fixed_style=True)
        model = train_styles(model, examples, parsing, where, how)
    return model


@torch.no_grad()
def measure_dual(model: DualDistilled, pairs: Pairs, hold_out: int, parsing: ParsingNet, exemplars: Exemplars,
                 batch: int = 8) -> dict:
    """Numbers on held-out, aligned people, against their renders in front of calm backgrounds.

    of each look, at the degrees at which it was rendered: psnr and feature (distance) to the render; input_psnr and
    input_feature: what the photo itself would score;  base: the photo, drawn at degree 0;  people: how many
    """
    unseen = pairs.ready[(pairs.ready < hold_out) & (pairs.ready % 2 == 0)]
    if not len(unseen):
        raise VToonifyError(f"none of the first {hold_out} people of {pairs.folder} are aligned; hold out more")
    side, device = model.generator.config.size, model.encoder.latent_avg.device
    seen = augment.aligned(pairs, unseen, "photo", model.encoder.image_size, progress=False)
    photos = augment.aligned(pairs, unseen, "photo", side, calm=True, progress=False)
    parts = np.array_split(np.arange(len(unseen)), max(1, len(unseen) // batch))

    def score(look: str | None) -> dict[str, float]:
        truth = photos if look is None else augment.aligned(pairs, unseen, look, side, calm=True, progress=False)
        rng, scores = np.random.default_rng(0), {}
        for part in parts:
            condition = exemplars.condition(pairs, unseen[part], look or exemplars.looks[0], rng, device)
            if look is None:  # at degree 0 no style matters
                condition = condition._replace(structure=0 * condition.structure, color=0 * condition.color)
            target, photo = to_tensor(truth[part], device), to_tensor(photos[part], device)
            drawn = model(to_tensor(seen[part], device), condition).float().clamp(-1, 1)
            for name, picture in (("", drawn), *([] if look is None else [("input_", photo)])):
                scores.setdefault(f"{name}psnr", []).append(metrics.psnr(picture, target))
                scores.setdefault(f"{name}feature", []).append(metrics.feature_distance(parsing, picture, target))
        return {name: round(float(torch.cat(values).mean()), 4) for name, values in scores.items()}

    return {"people": len(unseen), "base": score(None), **{look: score(look) for look in exemplars.looks}}
