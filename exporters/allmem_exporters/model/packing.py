"""Which matrices of the model are multiplied as one, and in which order they lie in it.

The step graph is built from this, and the check of an export takes stored matrices apart by it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from allmem_exporters.model.decoder import DecoderLayer
from allmem_exporters.model.layers import Back


@dataclass(frozen=True, slots=True)
class PackedMatrix:
    """One matrix [outputs, inputs] made of the weights of several layers, each likewise.

    Args:
        modules: in their order.
        axis: 0, their outputs follow each other; or 1, their inputs do.
        factors: [outputs] of each module, folded into its weight; None for ones.
    """

    modules: tuple[nn.Linear, ...]
    axis: int = 0
    factors: tuple[Tensor | None, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """(outputs, inputs)."""
        sizes = [module.weight.shape for module in self.modules]
        total = sum(size[self.axis] for size in sizes)
        return (total, sizes[0][1]) if self.axis == 0 else (sizes[0][0], total)

    def weights(self) -> list[Tensor]:
        """Of each module, with its factor."""
        return [self._folded(index, slice(None)) for index in range(len(self.modules))]

    def biases(self) -> list[Tensor | None]:
        """Of each module."""
        return [module.bias for module in self.modules]

    def whole(self) -> Tensor:
        """The matrix, as a copy."""
        return self.rows(0, self.shape[0])

    def rows(self, first: int, end: int) -> Tensor:
        """Rows ``first`` to ``end - 1`` of the matrix, as a copy."""
        pieces = [self._folded(index, rows) for index, rows in self._places(first, end)]
        return torch.cat(pieces, dim=self.axis)

    @torch.no_grad()
    def write(self, first: int, rows: Tensor) -> None:
        """Put ``rows`` of the matrix, from row ``first`` on, into the modules they belong to.

        Factors must be ones by then: they are part of the matrix.
        """
        places = self._places(first, first + len(rows))
        pieces = [self.modules[index].weight[rows] for index, rows in places]
        parts = rows.split([piece.shape[self.axis] for piece in pieces], dim=self.axis)
        for piece, part in zip(pieces, parts, strict=True):
            piece.copy_(part)

    def _places(self, first: int, end: int) -> Iterator[tuple[int, slice]]:
        """(module, its rows) that rows ``first`` to ``end - 1`` consist of."""
        at = 0
        for index, module in enumerate(self.modules):
            if self.axis == 1:
                yield index, slice(first, end)
            else:
                yield index, slice(max(first - at, 0), max(end - at, 0))
                at += len(module.weight)

    def _folded(self, index: int, rows: slice) -> Tensor:
        weight = self.modules[index].weight.detach()[rows]
        factor = self.factors[index] if self.factors else None
        if factor is None:
            return weight
        return factor.detach().to(weight.device, torch.float32)[rows, None] * weight


def packed_layer(layer: DecoderLayer) -> dict[str, PackedMatrix]:
    """The products of one decoder layer by name, without the control's.

    ``project`` makes the queries, keys and values of attention and memory, in the order in which
    their operators take them; ``back`` brings both branches back, with alpha folded in. So is what
    attention and feed-forward network are multiplied with.
    """
    attention, memory, mixer = layer.self_attn, layer.allmem, layer.mlp
    return {
        "project": PackedMatrix(
            (attention.q_proj, attention.k_proj, attention.v_proj,
             memory.q_proj, memory.k_proj, memory.v_proj)
        ),
        "back": PackedMatrix(
            (attention.o_proj, memory.o_proj),
            axis=1,
            factors=(_factor(attention.o_proj), memory.alpha),
        ),
        "gate_up": PackedMatrix((mixer.gate_proj, mixer.up_proj)),
        "down": PackedMatrix((mixer.down_proj,), factors=(_factor(mixer.down_proj),)),
    }  # fmt: skip


def _factor(back: Back) -> Tensor | None:
    return None if back.scale == 1.0 else torch.full((back.out_features,), back.scale)


@torch.no_grad()
def fold_factors(layer: DecoderLayer) -> None:
    """Multiply alpha of the memory and scales of branches into the weights; they are 1 then."""
    for back in (layer.self_attn.o_proj, layer.mlp.down_proj):
        for parameter in back.parameters():
            parameter.mul_(back.scale)
        back.scale = 1.0
    memory = layer.allmem
    memory.o_proj.weight.copy_(memory.alpha[:, None] * memory.o_proj.weight)
    memory.alpha.fill_(1.0)
