"""The networks whose state dicts `tests/golden/` lists, empty or filled with the values of the recipe."""

from __future__ import annotations

import torch
from golden_data import state_dict
from torch import nn

from vtoonify_lib.config import PUBLISHED, PUBLISHED_D, GeneratorConfig, VToonifyConfig
from vtoonify_lib.models.bisenet import BiSeNet
from vtoonify_lib.models.conditional import ConditionalDiscriminator
from vtoonify_lib.models.dualstylegan import DualStyleGAN
from vtoonify_lib.models.perceptual import LPIPS
from vtoonify_lib.models.psp import GradualStyleEncoder
from vtoonify_lib.models.stylegan2 import Discriminator, Generator
from vtoonify_lib.models.vtoonify_d import build_vtoonify

WIDTHS = {"s64_cm1": GeneratorConfig.published(64, 1), "s256_cm1": GeneratorConfig.published(256, 1),
          "s256_cm2": GeneratorConfig.published(256, 2), "s1024_cm2": GeneratorConfig.published(1024, 2)}
VTOONIFY = {
    "vtoonify_t_in32_out64_cm1": VToonifyConfig(WIDTHS["s64_cm1"], 32),
    "vtoonify_t_in64_out256_cm1": VToonifyConfig(WIDTHS["s256_cm1"], 64),
    "vtoonify_t_in256_out1024_cm2": PUBLISHED,
    "vtoonify_d_in32_out64_cm1": VToonifyConfig(WIDTHS["s64_cm1"], 32, "dualstylegan"),
    "vtoonify_d_in64_out256_cm1": VToonifyConfig(WIDTHS["s256_cm1"], 64, "dualstylegan"),
    "vtoonify_d_in256_out1024_cm2": PUBLISHED_D,
}
MODULES = {
    **{f"generator_{size}": lambda size=size: Generator(WIDTHS[size]) for size in ("s64_cm1", "s256_cm1", "s1024_cm2")},
    **{f"discriminator_{size}": lambda size=size: Discriminator(WIDTHS[size])
       for size in ("s64_cm1", "s256_cm2", "s1024_cm2")},
    "cond_discriminator_s64_cm1_cond": lambda: ConditionalDiscriminator(WIDTHS["s64_cm1"], 5),
    "cond_discriminator_s256_cm2_cond317": lambda: ConditionalDiscriminator(WIDTHS["s256_cm2"], 317),
    **{f"dualstylegan_{size}": lambda size=size: DualStyleGAN(WIDTHS[size])
       for size in ("s64_cm1", "s256_cm1", "s1024_cm2")},
    **{case: lambda config=config: build_vtoonify(config) for case, config in VTOONIFY.items()},
    "bisenet_19": BiSeNet,
    "psp_50_irse_18": GradualStyleEncoder,
    "lpips_vgg_lin": LPIPS,
}
IN_OTHER_ORDER = {case for case in MODULES if case.startswith("cond_")}
"""Same names, registered in another order than in the published module; files are read by name."""


def empty(case: str) -> nn.Module:
    """The module of a case, without memory for its weights."""
    with torch.device("meta"):
        return MODULES[case]()


def filled(case: str) -> nn.Module:
    """The module of a case with the recipe's values, built without drawing an initialisation first."""
    module = empty(case)
    module.load_state_dict(state_dict(case), strict=True, assign=True)
    return module.eval().requires_grad_(False)


def unread_weights(config: VToonifyConfig) -> frozenset[str]:
    """Names of the state-dict entries that `build_vtoonify(config, inference=True)` leaves out."""
    with torch.device("meta"):
        whole, used = (build_vtoonify(config, inference).state_dict().keys() for inference in (False, True))
    return frozenset(whole - used)
