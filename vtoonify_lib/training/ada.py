"""Adaptive discriminator augmentation, ADA (Karras et al. 2020, arXiv 2006.06676), to train on a few hundred pictures.

With few pictures a discriminator soon overfits, and its gradients become useless. So every picture that it
sees, real or drawn, is first changed at random, each change with probability p; the generator learns through the
changes and, while p stays well below 1, draws what they were made from. How much is needed is read off the
discriminator itself: r_t = E[sign D(real)] is 0 when it can only guess and 1 when it recognises every real picture, and
p is raised while r_t is above a target, lowered while it is below.

Three of the paper's groups are here: pixel blits (mirror, quarter turns, whole-pixel shifts), geometry and colours, at
the paper's ranges. Not here: its frequency filters, noise and cutout, which it did not end up using either. Geometry is
that of `models.paired_crop`, whose filters are shorter than the paper's wavelets. R1 is taken of the pictures as the
discriminator sees them (see `adversary`), so the resampling need not be differentiated twice.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..config import VToonifyError
from ..models.paired_crop import AffineJitter, apply_affine, rotation, sample_affine

SHIFT = 0.125  # blits: whole pixels, up to this share of the side
DRIFT, SCALE = 0.125, 0.2  # geometry: standard deviations of the shift (share of the side) and of log2 of the scale
TURN = 180.0  # geometry: degrees, at most
BRIGHTNESS, CONTRAST, SATURATION = 0.2, 0.5, 1.0  # standard deviations; the last two of log2
LEAK = 0.8  # from about this p on, the paper found changes that show in the drawings
TARGET = 0.6  # of r_t
GREY_AXIS = torch.full((3,), 1 / math.sqrt(3))


def augment(x: Tensor, p: float, rng: torch.Generator | None = None) -> Tensor:
    """Each change with probability p, drawn for each picture: x [B,3,H,W] in [−1,1] → same shape.

    Differentiable in x. Colours may leave [−1,1]. Pictures for which nothing was drawn keep every bit.
    """
    if not 0 <= p <= 1:
        raise VToonifyError(f"the strength of the augmentation is {p}; give a probability from 0 to 1")
    if p == 0:
        return x
    moved = apply_affine(x, _affine(x, p, rng))
    return apply_colors(moved, sample_colors(len(x), p, rng).to(x.device))


def _affine(x: Tensor, p: float, rng: torch.Generator | None) -> Tensor:
    """Matrices [B,3,3], as `models.paired_crop.apply_affine` takes them: one resampling for blits and geometry."""
    b, _, h, w = x.shape
    matrix = sample_affine(b, h, w, AffineJitter(p, SHIFT, DRIFT, SCALE, TURN), rng)
    turns = _chance(b, p, rng) * torch.randint(4, (b,), generator=rng, device=matrix.device)
    return matrix @ rotation(turns * (math.pi / 2)).round()  # exact: of zeros and ones


def sample_colors(batch: int, p: float, rng: torch.Generator | None = None) -> Tensor:
    """Random changes of (r, g, b, 1), [B,3,4]: brightness, contrast, grey mirrored, hue, saturation; in this order."""
    device = rng.device if rng is not None else None

    def chance() -> Tensor:
        return _chance(batch, p, rng)

    def normal() -> Tensor:
        return torch.randn(batch, generator=rng, device=device)

    axis = GREY_AXIS.to(device or "cpu")
    along = torch.outer(axis, axis)  # what of a colour is grey
    eye = torch.eye(3, device=device)
    lift = chance() * BRIGHTNESS * normal()
    gain = torch.exp2(chance() * CONTRAST * normal())
    mirror = chance() * torch.randint(2, (batch,), generator=rng, device=device)
    angle = chance() * math.pi * (2 * torch.rand(batch, generator=rng, device=device) - 1)
    pull = torch.exp2(chance() * SATURATION * normal())
    flipped = eye - 2 * mirror[:, None, None] * along
    turned = torch.matrix_exp(angle[:, None, None] * _cross(axis))
    vivid = along + pull[:, None, None] * (eye - along)
    m = vivid @ turned @ flipped * gain[:, None, None]
    return torch.cat([m, (m @ torch.ones(3, 1, device=device)) * lift[:, None, None]], 2)


def apply_colors(x: Tensor, matrix: Tensor) -> Tensor:
    """Every pixel of x [B,3,H,W] through its picture's matrix [B,3,4]."""
    y = torch.einsum("bij,bjhw->bihw", matrix[:, :, :3].to(x.dtype), x) + matrix[:, :, 3, None, None].to(x.dtype)
    still = (matrix == torch.eye(3, 4, device=matrix.device)).all((1, 2))
    return torch.where(still[:, None, None, None], x, y)


def _cross(axis: Tensor) -> Tensor:
    """[3,3] whose exponential turns about the axis."""
    x, y, z = axis.tolist()
    return torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], device=axis.device)


def _chance(batch: int, p: float, rng: torch.Generator | None) -> Tensor:
    """1 with probability p, else 0: [B]."""
    return (torch.rand(batch, generator=rng, device=rng.device if rng is not None else None) < p).float()


class AdaptiveStrength:
    """The p of `augment`, steered by what the discriminator says of real pictures. A part of a checkpoint (`loop.run`).

    target  of r_t = E[sign D(real)]
    ramp    pictures in which p can rise from 0 to 1. The paper: 500 000; a short fine-tune needs it sooner
    every   steps between two corrections, r_t being the mean over them
    most    p rises no further; above LEAK the drawings may show the changes
    p       to begin with
    """

    def __init__(self, target: float = TARGET, ramp: int = 500_000, every: int = 4, most: float = LEAK, p: float = 0.0):
        self.target, self.ramp, self.every, self.most = target, ramp, every, most
        self.p, self._signs, self._seen, self._steps = p, 0.0, 0, 0

    def augment(self, x: Tensor, rng: torch.Generator | None = None) -> Tensor:
        """:func:`augment` at the present p."""
        return augment(x, self.p, rng)

    def watch(self, real: Tensor) -> float:
        """Take in the logits of a step's real pictures, any shape, and correct p when it is time → their r_t."""
        signs = float(real.detach().float().sign().sum())
        self._signs, self._seen, self._steps = self._signs + signs, self._seen + real.numel(), self._steps + 1
        if self._steps == self.every:
            toward = math.copysign(1.0, self._signs / self._seen - self.target)
            self.p = min(max(self.p + toward * self._seen / self.ramp, 0.0), self.most)
            self._signs, self._seen, self._steps = 0.0, 0, 0
        return signs / real.numel()

    def state_dict(self) -> dict[str, float]:
        """Strength, and what was seen since the last correction."""
        return {"p": self.p, "signs": self._signs, "seen": self._seen, "steps": self._steps}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Reverse of :meth:`state_dict`."""
        self.p, self._signs, self._seen, self._steps = (state[name] for name in ("p", "signs", "seen", "steps"))
