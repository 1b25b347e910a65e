"""Training VToonify-T (arXiv 2209.11224, §4.2) on pairs: first without, then with flicker suppression.

Two recipes differ in the source of pairs only. `paper`: pairs come from two StyleGANs and VToonify's generator is
frozen (see `paper`). `renders`: pairs are exact renders of the same person in both styles, and the generator's fine
layers are trained too, which a small generator needs for sharp pictures. Unlike the paper's, the pixel loss is L1 on
colours and edges, and the adversarial loss (`adversary`) is used in a last stage only, to gain sharpness.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from ..config import GeneratorConfig, VToonifyConfig, VToonifyError
from ..faces.parsing_maps import CLASS_NAMES
from ..media.images import to_image
from ..models import latents, losses
from ..models.conditional import ConditionalDiscriminator
from ..models.devices import autocast
from ..models.encoders import ParsingNet, StyleEncoder
from ..models.paired_crop import Crop, crop, random_crop
from ..models.stylegan2 import Discriminator
from ..models.vtoonify import VToonifyOutput
from ..models.vtoonify_d import build_vtoonify
from ..studio.shards import Pairs
from . import augment, loop
from .adversary import Adversary, DetailOnly
from .objectives import Criterion, OurLosses, squares
from .pairs import Pair

RECIPES = ("renders", "paper")
FLICKER_WEIGHT = 4.0
DETAILS = (*augment.SMALL_PARTS, CLASS_NAMES.index("nose"))
EYES = tuple(CLASS_NAMES.index(name) for name in ("l_eye", "r_eye"))
# of the pixels of DETAILS, of the EYES (a hundredth of a picture, and what is looked at), and of the background
DETAIL_WEIGHT, EYE_WEIGHT, BACKDROP_WEIGHT = 3.0, 8.0, 0.5
MASK_WEIGHT = 0.0005
FLOW_WEIGHT = 0.3  # of an error of one input pixel; the picture alone finds the flow, much later
CODE_WEIGHT = 0.1  # of the style encoder's loss; it reaches no other network
SHARPEN_WEIGHT = 0.01  # of the adversarial loss
SQUARE = 128  # px: side of the discriminator's input in the last stage
ADVERSARY = GeneratorConfig(SQUARE, channels=((4, 64), (8, 64), (16, 64), (32, 48), (64, 32), (128, 24)))
STYLE_IMAGE = 64  # px: side of the style encoder's input; larger ones do not improve a single w


class VToonifyTask(nn.Module):
    """What is trained: VToonify-T, and the (frozen) style encoder of its fine layers, one code [B,1,D] per picture.

    image_size, width  of the style encoder
    """

    CODES = 1  # codes per picture that the style encoder gives

    def __init__(self, config: VToonifyConfig, image_size: int = STYLE_IMAGE, width: int = 32):
        super().__init__()
        self.vtoonify = build_vtoonify(config)
        self.style = StyleEncoder(image_size, self.CODES, config.generator.style_dim, width)

    def forward(self, x: Tensor, pair: Pair) -> VToonifyOutput:
        """Network input (perhaps a cut of the pair's) and the pair → what is drawn."""
        return self.draw(x, self.read(pair)[0], pair)

    def read(self, pair: Pair) -> tuple[Tensor, Tensor | None]:
        """→ style codes to draw the pair with, and the loss of the style encoder if it has one."""
        with torch.no_grad():
            return self.style(pair.aligned), None

    def draw(self, x: Tensor, w: Tensor, pair: Pair) -> VToonifyOutput:
        """As `forward`, with the codes from `read`."""
        return self.vtoonify.draw(x, w)

    def freeze(self, recipe: str) -> None:
        """Set which parameters are trained; see `train`."""
        self.style.requires_grad_(False)
        self.vtoonify.generator.requires_grad_(recipe == "renders")

    def groups(self) -> list[dict]:
        """The trained parameters, as Adam's parameter groups."""
        return [{"params": [p for p in self.parameters() if p.requires_grad]}]


class DualVToonifyTask(VToonifyTask):
    """VToonify-D and the style encoder, trained together: a picture has a structure code and a colour code."""

    CODES = 2

    def read(self, pair: Pair) -> tuple[Tensor, Tensor | None]:
        """The style encoder is trained on the known codes alone: no gradient reaches it from the drawing."""
        condition, loss = pair.condition, None
        face, exemplar = self.style(pair.aligned), self.style(condition.exemplar)
        if condition.codes is not None:
            loss = F.mse_loss(exemplar.float(), condition.codes) + F.mse_loss(face.float(), condition.null_code)
            face = condition.null_code.to(face.dtype)
            exemplar = torch.where(condition.use_table_code[:, None, None], condition.codes.to(exemplar.dtype),
                                   exemplar.detach())
        layers = self.vtoonify.generator.n_latent
        return latents.styled(face, exemplar, condition.structure, condition.color, layers), loss

    def draw(self, x: Tensor, w: Tensor, pair: Pair) -> VToonifyOutput:
        return self.vtoonify.draw(x, w, pair.condition.structure)

    def freeze(self, recipe: str) -> None:
        self.vtoonify.generator.requires_grad_(recipe == "renders")

    def groups(self) -> list[dict]:
        return loop.equalised_rates(self)


def encoder_arguments(net: StyleEncoder) -> dict[str, int]:
    """Arguments of the constructor for a style encoder of this size."""
    return {"image_size": net.image_size, "n_latent": net.n_latent, "style_dim": net.style_dim,
            "width": net.body[0].out_channels}


def encoder_size(net: StyleEncoder) -> dict[str, int]:
    """Those of them that a task takes."""
    return {name: value for name, value in encoder_arguments(net).items() if name in ("image_size", "width")}


# -- training on pairs ------------------------------------------------------------------------------------------------
def render_source(pairs: Pairs, batch: int, hold_out: int = 256, seed: int = 3, style: str = "storybook",
                  window: int | None = None, device: str | torch.device = "cpu") -> Callable[[int], Pair]:
    """Pairs of exact renders, augmented: iteration → Pair.

    window  side of a random cut of x (and of y along with it), a multiple of 8. The style encoder always sees the whole
            picture; cuts cost less and make every batch more varied.
    """
    def source(i: int) -> Pair:
        whole = Pair(*augment.prepare(pairs, batch, i, seed, hold_out, style, device=device))
        return cut_out(whole, window, loop.rng_for(seed + 200, i))

    return source


def cut_out(pair: Pair, window: int | None, rng: torch.Generator) -> Pair:
    """The same random square of x, y and parsing, `window` pixels of x wide; the whole pair without a window."""
    if window is None:
        return pair
    side, scale = pair.x.shape[-1], pair.y.shape[-1] // pair.x.shape[-1]
    top, left = torch.randint(0, side - window + 1, (2,), generator=rng).tolist()
    spot = Crop(top, left, window, window)
    return pair._replace(x=crop(pair.x, spot), y=crop(pair.y, spot, scale), parsing=crop(pair.parsing, spot))


@dataclass(frozen=True)
class TrainingSettings:
    """How long and how a VToonify is trained.

    recipe          "renders": the whole of VToonify learns; "paper": encoder and fusion only, the generator is frozen
    flicker_from    share of the run after which the weight of the flicker loss ramps up from 0
    flicker_share   part of each batch that the flicker loss sees (it costs a second pass)
    sample_every    iterations between two pictures of samples
    square          side of the squares of the output that the adversary sees, in pixels
    sharpen         weight of the adversarial loss
    adversary_from  share of the run after which the adversarial loss is used
    VToonifyError for another recipe.
    """

    iterations: int
    recipe: str = "renders"
    lr: float = 1e-3
    flicker_from: float = 0.5
    flicker_share: float = 0.25
    seed: int = 3
    sample_every: int = 250
    square: int = SQUARE
    sharpen: float = SHARPEN_WEIGHT
    adversary_from: float = 0.0

    def __post_init__(self) -> None:
        if self.recipe not in RECIPES:
            raise VToonifyError(f"recipe is {self.recipe!r}; it must be one of {', '.join(RECIPES)}")


def train(task: VToonifyTask, pairs: Callable[[int], Pair], parsing: ParsingNet, folder: str | os.PathLike,
          settings: TrainingSettings, sample_pairs: Pair | None = None,
          make_adversary: Callable[[], Adversary] | None = None, criterion: Criterion | None = None,
          clock: loop.Clock | None = None) -> tuple[VToonifyTask, VToonifyTask]:
    """Train a copy of a VToonify → (the copy, its moving average), resumable in `folder`.

    task            what to begin with; the pairs must come to its device
    pairs           iteration → batch, see `render_source` and `paper.generator_source`
    sample_pairs    pairs to draw every now and then
    make_adversary  makes the adversary; None: no adversarial loss. Where the pairs have conditions, it is conditioned
                    on structure degree and style
    criterion       the losses of the pictures; None: ours. See `objectives` for the published ones
    clock           time limit of the run; shares of the run are then shares of its time instead of the iterations
    """
    start, how, iterations = task, settings, settings.iterations
    torch.manual_seed(how.seed)
    task = type(start)(start.vtoonify.config, **encoder_size(start.style)).to(next(start.parameters()).device)
    task.load_state_dict(start.state_dict())
    task.freeze(how.recipe)
    optimizer = torch.optim.Adam(task.groups(), how.lr, betas=(0.9, 0.99))
    ema = loop.EMA(task, decay=loop.SHORT_EMA_DECAY)
    parsing = parsing.eval().requires_grad_(False)
    adversary, criterion = make_adversary() if make_adversary else None, criterion or OurLosses(parsing)

    def step(i: int) -> dict[str, Tensor]:
        pair, rng = pairs(i), loop.rng_for(how.seed + 100, i)
        at, total = (i, iterations) if clock is None else (clock.share(), 1.0)
        about = () if pair.condition is None else (pair.condition.structure, pair.condition.index)
        weight = flicker_weight(at, total, how.flicker_from, criterion.flicker)
        out, parts = _losses(task, parsing, criterion, pair, weight, how.flicker_share, rng)
        playing = adversary is not None and at >= how.adversary_from * total
        if playing:
            fake, real = _square(out, pair, how.square, rng)
            parts["sharp"] = how.sharpen * adversary.generator_loss(fake, *about)
        rate = loop.warm_cosine(how.lr, at, total, warmup=100, floor=0.02, done=i)
        loop.optimizer_step(sum(parts.values()), optimizer, rate, clip=1.0)
        ema.update(task, i)
        values = {name: value.detach() for name, value in parts.items()}
        return values | ({"adversary": adversary.step(real, fake, i, *about)} if playing else {})

    def sample(i: int) -> Image.Image:
        return sheet(ema.model, parsing, sample_pairs)

    parts = {"task": task, "ema": ema, "optimizer": optimizer, **(adversary.parts() if adversary else {}),
             **({"clock": clock} if clock else {})}
    loop.run(folder, iterations, step, parts, sample if sample_pairs else None, how.sample_every, clock=clock,
             title=f"VToonify-{task.vtoonify.config.backbone[0].upper()}")
    return task, ema.model


def stylegan_adversary(size: int = SQUARE, device: str | torch.device = "cpu", r1: float = 10.0, styles: int = 0,
                       detail_only: bool = False) -> Adversary:
    """An adversary with StyleGAN2's discriminator for squares of `size` px, as small as the generators here.

    styles       as many that it is conditioned on, along with the structure degree; 0: on nothing
    detail_only  see `DetailOnly`
    """
    config = replace(ADVERSARY, size=size)
    net = ConditionalDiscriminator(config, styles) if styles else Discriminator(config)
    return Adversary(DetailOnly(net) if detail_only else net, device, r1_weight=r1, mixed=True)


def _losses(task: VToonifyTask, parsing: ParsingNet, criterion: Criterion, pair: Pair, flicker: float,
            flicker_share: float, rng: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
    """Output and weighted losses of one batch; `flicker` is the weight of the flicker loss, which is left out at 0."""
    with autocast(pair.x.device):
        with torch.no_grad():
            x = pair.input(parsing)
        w, code_loss = task.read(pair)
        out, masks, flow = task.draw(x, w, pair)
        parts = criterion(out, pair.y, detail_mask(pair.parsing, out), rng=rng)
        if flicker > 0:
            n = max(1, int(flicker_share * len(x)))
            window, few = random_crop(*x.shape[2:], rng=rng), pair.first(n)
            parts["flicker"] = flicker * losses.temporal(
                lambda x: task.draw(x, w[:n], few).picture, x[:n], out[:n], window)
        if flow is not None and pair.flow is not None:
            parts["flow"] = FLOW_WEIGHT * F.l1_loss(flow, pair.flow)
        if masks:
            parts["mask"] = MASK_WEIGHT * losses.mask_budget(masks, pair.condition.structure)
        if code_loss is not None:
            parts["code"] = CODE_WEIGHT * code_loss
    return out, parts


def _square(out: Tensor, pair: Pair, side: int, rng: torch.Generator) -> list[Tensor]:
    """The same squares of what was drawn and what should have been, float32 [B,3,side,side]."""
    if min(out.shape[2:]) < side:
        raise VToonifyError(f"the discriminator takes squares of {side} px and the pairs are only "
                            f"{out.shape[3]}×{out.shape[2]}; use a larger window, or a smaller square")
    return squares((out.float(), pair.y), detail_mask(pair.parsing, out), side, rng)


def flicker_weight(i: int, iterations: int, start: float = 0.5, full: float | None = None) -> float:
    """FLICKER_WEIGHT, or `full`, times a ramp from 0 at the share `start` of the run to 1 at its end; start 1: never.

    The ramp is `losses.temporal_weight`, which starts half-way, on a clock that is half-way at `start`.
    """
    if start >= 1:
        return 0.0
    return losses.temporal_weight(i - (2 * start - 1) * iterations, 2 * (1 - start) * iterations,
                                  FLICKER_WEIGHT if full is None else full)


def detail_mask(parsing: Tensor | None, out: Tensor) -> Tensor:
    """Weights of the pixels of `out` [B,3,H,W] by the classes [B,h,w] of the input → [B,1,H,W]; 1 without classes.

    EYE_WEIGHT around eyes, DETAIL_WEIGHT around other small facial features, BACKDROP_WEIGHT on the background, 1
    elsewhere.
    """
    if parsing is None:
        return torch.ones_like(out[:, :1])
    weight = torch.where(parsing == 0, BACKDROP_WEIGHT, 1.0)[:, None]
    for classes, value in ((DETAILS, DETAIL_WEIGHT), (EYES, EYE_WEIGHT)):
        near = torch.isin(parsing, torch.tensor(classes, device=parsing.device)).float()[:, None]
        near = F.max_pool2d(near, 5, 1, 2)  # the cartoon's features are larger than the photograph's
        weight = torch.where(near > 0, value, weight)
    return F.interpolate(weight, out.shape[2:])


# -- looking at the result --------------------------------------------------------------------------------------------
@torch.no_grad()
def stylise(task: VToonifyTask, parsing: ParsingNet, pair: Pair) -> Tensor:
    """The pair's pictures, drawn: [B,3,S,S] in [−1,1], float32."""
    return task(pair.input(parsing), pair)[0].float().clamp(-1, 1)


def sheet(task: VToonifyTask, parsing: ParsingNet, pair: Pair) -> Image.Image:
    """Rows: input, exemplar if there is one, output, target."""
    out = stylise(task, parsing, pair)
    shown = [pair.x, *([] if pair.condition is None else [pair.condition.exemplar])]
    return rows([*(F.interpolate(p, out.shape[2:], mode="bilinear", align_corners=False) for p in shown), out, pair.y])


def rows(batches: Sequence[Tensor]) -> Image.Image:
    """Contact sheet: each batch [B,3,H,W] in [−1,1] is a row; all of one size."""
    return Image.fromarray(np.concatenate([np.concatenate(list(to_image(row)), 1) for row in batches], 0))
