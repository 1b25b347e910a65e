"""DualStyleGAN from zero (Yang et al. 2022, arXiv 2203.13248), on top of a trained base StyleGAN.

The base is frozen, so that degree 0 reproduces every face. First the extrinsic path learns StyleGAN's own style mixing:
colours, then more and more structure (`pretrain`). Then it learns styles. The authors had only the artworks and trained
against a discriminator; here the renderer provides every person in every style at every degree, so the path is trained
by regression (`train_styles`), together with the style encoder. `fit_sampler` learns to sample new codes; fitting codes
to artworks without a photograph is in `style_fitting`.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from ..config import GeneratorConfig, VToonifyError
from ..models import latents
from ..models.devices import autocast
from ..models.dualstylegan import DualStyleGAN
from ..models.encoders import ParsingNet, StyleEncoder
from ..models.sampler import style_sampler
from ..weights.bundle import Bundle
from . import loop
from .objectives import OurLosses, picture_loss
from .pairs import StyleCondition
from .stylegan import Distilled, fit_mapping
from .vtoonify import STYLE_IMAGE, detail_mask, encoder_size, rows

WALK = (0.1, 0.2, 1.0)  # shares of the pre-training after which one more resolution of structure joins in: l = 7, 6, 5
NORM_WEIGHT = 0.01  # of the norm of ModRes' convolutions: keeps residuals small that a style does not need
COLUMNS = 12  # of a picture of samples, at most


class DualDistilled(nn.Module):
    """Person encoder (frozen), style encoder and DualStyleGAN: photograph, condition → picture.

    image_size, width  of both encoders; the style encoder gives a structure code and a colour code
    """

    def __init__(self, config: GeneratorConfig, image_size: int = STYLE_IMAGE, width: int = 32):
        super().__init__()
        self.generator = DualStyleGAN(config)
        self.encoder = StyleEncoder(image_size, 1, config.style_dim, width)
        self.style = StyleEncoder(image_size, 2, config.style_dim, width)

    @classmethod
    def from_base(cls, base: Distilled, style: StyleEncoder | None = None, seed: int = 0) -> DualDistilled:
        """With the weights of a trained base.

        style  the style encoder to begin with, of two codes, as VToonify-D has it; None: the base's encoder, which then
               gives its code twice
        """
        torch.manual_seed(seed)
        model = cls(base.generator.config, **encoder_size(base.encoder))
        model.generator.generator.load_state_dict(base.generator.state_dict())
        model.encoder.load_state_dict(base.encoder.state_dict())
        if style is None:
            model.style.load_state_dict(doubled(base.encoder.state_dict(), model.style.state_dict()))
            return model
        if (style.n_latent, style.style_dim) != (2, base.generator.config.style_dim):
            raise VToonifyError(
                f"the style encoder gives {style.n_latent} codes of {style.style_dim} numbers; expected 2 of "
                f"{base.generator.config.style_dim}: take the one of a VToonify-D that was trained from this base")
        model.style = copy.deepcopy(style)
        return model

    @classmethod
    def from_bundle(cls, bundle: Bundle) -> DualDistilled:
        """That of a bundle, to draw with. VToonifyError when it has none."""
        if "dual" not in bundle.info["files"]:
            raise VToonifyError(f"{bundle.name} has no DualStyleGAN to fit styles with; load studio-d")
        networks = (bundle.network(name) for name in ("dual", "person_encoder", "style_encoder"))
        generator, person, style = networks
        model = cls(generator.config, **encoder_size(style))
        model.generator, model.encoder, model.style = generator, person, style
        return model.eval()

    def extrinsic(self, codes: Tensor, structure: Tensor | float = 1.0) -> Tensor:
        """Structure code and colour code [B,2,D] → extrinsic code [B,L,D].

        structure  degree, [B] or float: the colour layers read so much of the structure code along with the colour
                   code, because ink and brush are structure and fine layers draw them (see `latents.styled`)
        """
        share = torch.as_tensor(structure, dtype=codes.dtype, device=codes.device).reshape(-1, 1)
        fine = codes[:, 1] + share * codes[:, 0]
        return latents.spread(torch.stack([codes[:, 0], fine], 1), self.generator.n_latent)

    def forward(self, photo: Tensor, condition: StyleCondition, until: int | None = None) -> Tensor:
        """→ picture at resolution `until`, or full size; by the condition's codes where `use_table_code` is set."""
        with torch.no_grad():
            w = self.encoder(photo)[:, 0]
        codes = self.style(condition.exemplar)
        if condition.codes is not None:
            codes = torch.where(condition.use_table_code[:, None, None], condition.codes.to(codes.dtype), codes)
        out = self.generator(w, self.extrinsic(codes, condition.structure),
                             self.generator.degrees(condition.structure, condition.color), space="w", until=until)
        return out if until is None else out[1]


def doubled(old: dict[str, Tensor], new: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a style encoder of one code, repeated for an encoder of several codes."""
    return {name: torch.cat([value] * (len(new[name]) // len(value))) for name, value in old.items()}


# -- stage 2: the base domain ----------------------------------------------------------------------------------------
def mixing_layer(i: int, iterations: int) -> int:
    """From which layer on style mixing takes the second code: 7, later 6 and 5 (DualStyleGAN, §3.3)."""
    return latents.n_structure() - sum(i >= share * iterations for share in WALK[:-1])


def pretrain(model: DualDistilled, bank: Tensor, folder: str | os.PathLike, iterations: int, batch: int = 32,
             until: int | None = None, lr: float = 2e-3, seed: int = 12) -> DualDistilled:
    """Train the extrinsic path to do StyleGAN's style mixing: a face in another's colours, later in its shape.

    bank   codes of faces [N,D] (see `stylegan.code_bank`), of which every picture takes two
    until  resolution to train at; None: full size
    → the moving average, resumable in `folder`; only ModRes, T_c and T_s learn
    """
    dual = model.generator
    optimizer, ema = _learner([dual.style, dual.res], model, lr)

    def mixture(net: DualStyleGAN, i: int, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        """The path's drawing, that of style mixing, and the w+ of both faces [2,B,L,D]."""
        g = loop.rng_for(seed, i, bank.device)
        index = torch.randint(len(bank), (2, batch), generator=g, device=bank.device)
        own, other = (net.generator.to_w(bank[chosen], "w") for chosen in index)
        with torch.no_grad():
            target = net.generator.synthesize(latents.mix(own, other, layer), until=until)
        out, target = (p if until is None else p[1] for p in (net(own, other, 1.0, space="w", until=until), target))
        return out.float(), target.float(), torch.stack([own, other])

    def step(i: int) -> dict[str, float]:
        with autocast(bank.device):
            out, target, _ = mixture(dual, i, mixing_layer(i, iterations))
            loss = picture_loss(out, target, detail_mask(None, target))
        loop.optimizer_step(loss, optimizer, loop.warm_cosine(lr, i, iterations, warmup=50, floor=0.05), clip=1.0)
        ema.update(model, i)
        return {"mixing": float(loss.detach())}

    @torch.no_grad()
    def sample(i: int) -> Image.Image:
        net = ema.model.generator
        out, target, people = mixture(net, 10**6, mixing_layer(i, iterations))
        shown = (net.generator.synthesize(w, until=until) for w in people)
        return rows([p[:COLUMNS] for p in (*(p if until is None else p[1] for p in shown), out, target)])

    loop.run(folder, iterations, step, {"model": model, "ema": ema, "optimizer": optimizer}, sample,
             title="DualStyleGAN, style mixing")
    return ema.model


# -- stage 3: the styles ---------------------------------------------------------------------------------------------
StyleExample = tuple[Tensor, Tensor, StyleCondition]  # photograph, its render in the style, condition


@dataclass(frozen=True)
class StyleSettings:
    """How long and how `train_styles` trains.

    until        resolution to train at; None: full size
    fixed_style  freeze the style encoder, whose codes another network reads too
    """

    iterations: int
    until: int | None = None
    lr: float = 2e-3
    seed: int = 13
    fixed_style: bool = False


def train_styles(model: DualDistilled, examples: Callable[[int], StyleExample], parsing: ParsingNet,
                 folder: str | os.PathLike, how: StyleSettings) -> DualDistilled:
    """Train the extrinsic path and the style encoder on styles → the moving average, resumable in `folder`.

    examples  iteration → photograph [B,3,·,·], its render in the condition's style and degrees [B,3,S,S], condition;
              see `exemplars.portrait_source`
    """
    dual, until = model.generator, how.until
    optimizer, ema = _learner([dual.style, dual.res, *([] if how.fixed_style else [model.style])], model, how.lr)
    kernels = [p for p in dual.res.parameters() if p.ndim == 4]
    criterion = OurLosses(parsing.eval().requires_grad_(False), whole=128)

    def step(i: int) -> dict[str, float]:
        photo, target, condition = examples(i)
        with autocast(photo.device):
            out = model(photo, condition, until)
            parts = criterion(out, target, detail_mask(None, target))
            parts["norm"] = NORM_WEIGHT * torch.stack([p.float().square().mean() for p in kernels]).mean()
        rate = loop.warm_cosine(how.lr, i, how.iterations, warmup=100, floor=0.03)
        loop.optimizer_step(sum(parts.values()), optimizer, rate, clip=1.0)
        ema.update(model, i)
        return {name: float(value.detach()) for name, value in parts.items()}

    @torch.no_grad()
    def sample(_: int) -> Image.Image:
        photo, target, condition = examples(10**6)
        out = ema.model(photo, condition, until).float().clamp(-1, 1)
        shown = (F.interpolate(p, out.shape[2:], mode="bilinear") for p in (photo, condition.exemplar))
        return rows([p[:COLUMNS] for p in (*shown, out, target)])

    loop.run(folder, how.iterations, step, {"model": model, "ema": ema, "optimizer": optimizer}, sample,
             title=f"DualStyleGAN {until or dual.config.size} px")
    return ema.model


def _learner(learning: list[nn.Module], model: nn.Module, lr: float) -> tuple[torch.optim.Optimizer, loop.EMA]:
    """Freeze all but `learning`."""
    model.requires_grad_(False)
    for module in learning:
        module.requires_grad_(True)
    optimizer = torch.optim.Adam(loop.equalised_rates(model), lr, betas=(0.9, 0.99))
    return optimizer, loop.EMA(model, decay=loop.SHORT_EMA_DECAY)


# -- new styles ------------------------------------------------------------------------------------------------------
def fit_sampler(codes: Tensor, seed: int = 14, **more: int | float) -> nn.Sequential:
    """A network from Gaussian noise [B,2D] to codes of new styles, distributed like `codes` [N,2,D].

    Fitted to whitened codes: they vary in few directions, and random projections of the codes themselves hardly show
    these. The last layer, which is linear, takes the whitening back. Directions in which they do not vary stay still.
    more  as for `stylegan.fit_mapping`; → flat codes [B,2D], to be reshaped to [B,2,D]
    """
    flat = codes.flatten(1)
    if len(flat) < 2:
        raise VToonifyError(f"a sampler needs two codes at least to see how styles differ; got {len(flat)}")
    mean, (_, spread, axes) = flat.mean(0), torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
    spread = spread[spread > 1e-4 * spread[0]] / (len(flat) - 1) ** 0.5
    axes = axes[:len(spread)]
    g, k = loop.rng_for(seed, 0, codes.device), len(spread)
    idle = torch.randn(len(flat), len(mean) - k, generator=g, device=g.device)  # as the others, and dropped below
    torch.manual_seed(seed)
    sampler = style_sampler(len(mean)).to(codes.device)
    fit_mapping(sampler, torch.cat([(flat - mean) @ axes.T / spread, idle], 1), **more)
    last = sampler.requires_grad_(False)[-1]
    drawn = sampler(torch.randn(4096, len(mean), generator=g, device=g.device))[:, :k]  # what the fit left to correct
    back = axes.T * (spread / drawn.std(0))
    last.weight.copy_(back @ last.weight[:k])
    last.bias.copy_(back @ (last.bias[:k] - drawn.mean(0) / last.lr_mul) + mean / last.lr_mul)
    return sampler
