"""What VToonify is trained on: a batch of pairs, and the style that VToonify-D is to draw it in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..faces.parsing_maps import network_input
from ..models.detail import with_detail


class StyleCondition(NamedTuple):
    """The style that VToonify-D is conditioned on, a batch.

    exemplar          pictures in the wanted style, [B,3,·,·] in [−1,1];  index  of the style, [B] int
    structure, color  degrees in [0,1], [B]
    codes, null_code  targets of the style encoder for the exemplars and for the faces, [B,2,D] each, where they are
                      known (see `studio.codes`)
    use_table_code    which pictures are drawn by `codes`, [B] bool; the others by the style encoder's codes
    """

    exemplar: Tensor
    index: Tensor
    structure: Tensor
    color: Tensor
    codes: Tensor | None = None
    null_code: Tensor | None = None
    use_table_code: Tensor | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> StyleCondition:
        """Apply a function to all tensors."""
        return StyleCondition(*(None if t is None else change(t) for t in self))

    def coded(self, table: Tensor, use: Tensor | None = None) -> StyleCondition:
        """With codes from a table [styles + 1,2,D], the null code last.

        use  which pictures are drawn by them, [B] bool on any device; None: all
        """
        use = torch.ones(len(self.index), dtype=torch.bool) if use is None else use
        return self._replace(codes=table[self.index], null_code=table[-1:].expand(len(self.index), -1, -1),
                             use_table_code=use.to(table.device))


class Pair(NamedTuple):
    """A batch of pairs, pictures in [−1,1].

    x [B,3,s,s] input, y [B,3,S,S] target; aligned [B,3,·,·] input of the style encoder; parsing of x [B,s,s] or None;
    condition: for VToonify-D; flow [B,2,·,·]: from the drawing's pixels to the photograph's, see `models.detail`

    detail: for a network that carries detail over, its config.detail; x is the photograph at the picture's size then,
    and parsing [B,s/detail,s/detail]; else 1
    """

    x: Tensor
    y: Tensor
    aligned: Tensor
    parsing: Tensor | None
    condition: StyleCondition | None = None
    flow: Tensor | None = None
    detail: int = 1

    def map(self, change: Callable[[Tensor], Tensor]) -> Pair:
        """Apply a function to all tensors."""
        return Pair(*(change(t) if isinstance(t, Tensor) else t.map(change) if isinstance(t, StyleCondition) else t
                      for t in self))

    def input(self, parsing: nn.Module) -> Tensor:
        """The network's input."""
        if self.detail == 1:
            return network_input(self.x, parsing(self.x))
        small = F.avg_pool2d(self.x, self.detail)
        return with_detail(network_input(small, parsing(small)), self.x, self.detail)

    def to(self, device: str | torch.device) -> Pair:
        """The pair on another device."""
        return self.map(lambda t: t.to(device))

    def first(self, n: int) -> Pair:
        """The first n of the batch."""
        return self.map(lambda t: t[:n])


def joined(pairs: Sequence[Pair]) -> Pair:
    """Several batches as one; either all of them have parsing and conditions, or none has."""
    def cat(values: Sequence[Tensor | None]) -> Tensor | None:
        return None if values[0] is None else torch.cat(list(values))

    *pictures, conditions, flows, details = zip(*pairs, strict=True)
    condition = None if conditions[0] is None else StyleCondition(*map(cat, zip(*conditions, strict=True)))
    return Pair(*map(cat, pictures), condition, cat(flows), details[0])
