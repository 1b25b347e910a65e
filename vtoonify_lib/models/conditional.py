"""VToonify-D's discriminator (paper §4.2): StyleGAN2's, asked about one style at one degree.

The condition enters by projection (Miyato & Koyama 2018, arXiv 1802.05637): the last layer answers with a vector, and
its product with the condition's code is the verdict. VToonify-T is judged by the plain `stylegan2.Discriminator`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..config import GeneratorConfig, VToonifyError
from ..ops import SLOPE
from .stylegan2 import Discriminator

CODE = 64  # numbers that say the degree, and as many that say the style


class ConditionalDiscriminator(Discriminator):
    """Picture, style degree and style index → realness logits [B,1] = Σ h(picture)·c(degree, style) / √(2·CODE).

    image   [B,3,S,S] in [−1,1]
    degree  structure degree in [0,1]: a float, or one for each picture as [B] or [B,1]
    style   index of the style, 0 … n_styles−1: an int, or one for each picture as an integer tensor [B]
    """

    def __init__(self, config: GeneratorConfig, n_styles: int):
        if n_styles < 1:
            raise VToonifyError(f"conditional discriminator got {n_styles} styles; expected 1 or more")
        super().__init__(config, outputs=2 * CODE)
        self.label_mapper = nn.Sequential(
            nn.Linear(1, CODE), nn.LeakyReLU(SLOPE), nn.Linear(CODE, CODE), nn.LeakyReLU(SLOPE), nn.Linear(CODE, CODE))
        self.style_mapper = nn.Embedding(n_styles, CODE)

    def forward(self, image: Tensor, degree: Tensor | float, style: Tensor | int) -> Tensor:
        batch, like, n = image.shape[0], self.style_mapper.weight, self.style_mapper.num_embeddings
        if isinstance(style, int) and not 0 <= style < n:
            raise VToonifyError(f"style index is {style}; this discriminator knows 0 … {n - 1}")
        degree = _one_each(torch.as_tensor(degree, dtype=like.dtype, device=like.device), batch, "degree")
        style = _one_each(torch.as_tensor(style, device=like.device), batch, "style index")
        condition = torch.cat([self.label_mapper(degree[:, None]), self.style_mapper(style)], dim=1)
        return (super().forward(image) * condition).sum(1, keepdim=True) / math.sqrt(2 * CODE)


def _one_each(value: Tensor, batch: int, what: str) -> Tensor:
    """[B] from a scalar, [1], [B] or [B,1]."""
    if value.numel() not in (1, batch):
        raise VToonifyError(f"{what} has shape {list(value.shape)}; expected one number, or one for each of the "
                            f"{batch} pictures")
    return value.reshape(-1).expand(batch)
