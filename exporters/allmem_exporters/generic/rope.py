"""What a rope turns, found from queries that it turned: which coordinates, by which frequencies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from allmem_exporters.generic.interface import Unsupported

CLOSE = 1e-5
"""Relative difference of two numbers that are equal but for rounding."""
_CHANGED = "queries and keys that are changed behind the rope"

Answer = Callable[[str, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(path of the rotary embedding, its cosines, its sines) to those that it gives out instead."""


@dataclass(frozen=True, slots=True)
class Rope:
    """A rotation of queries and keys by their position.

    Attributes:
        frequencies: radians per position of each pair; a negative one turns the other way.
        order: coordinates of a head as the operator takes them, the first of each pair, the
            second of each, those that nothing turns; None if they come so.
        amplitude: what cosines and sines are multiplied by.
    """

    frequencies: tuple[float, ...] = (0.0,)
    order: tuple[int, ...] | None = None
    amplitude: float = 1.0

    def turn(self, x: Tensor, positions: Sequence[int]) -> Tensor:
        """Turn x [..., time, dim] as transformers does: angles are rounded to float32."""
        order = list(range(x.shape[-1])) if self.order is None else list(self.order)
        frequencies = torch.tensor(self.frequencies)
        angles = torch.tensor(positions, dtype=torch.float32)[:, None] * frequencies
        cos, sin = self.amplitude * angles.cos(), self.amplitude * angles.sin()
        half = len(self.frequencies)
        first, second, rest = x[..., order].tensor_split([half, 2 * half], dim=-1)
        turned = torch.cat([first * cos - second * sin, second * cos + first * sin, rest], dim=-1)
        back = torch.empty_like(turned)
        back[..., order] = turned
        return back


class Angles(nn.Module):
    """Stands in the place of a rotary embedding, and gives out what it is told to.

    Args:
        rotary: that stood there.
        path: of its module.
    """

    def __init__(self, rotary: nn.Module, path: str) -> None:
        super().__init__()
        self.rotary, self.path = rotary, path
        self.config = getattr(rotary, "config", None)  # models ask it for its base
        self.answer: Answer | None = None

    def forward(self, *arguments: Any, **named: Any) -> tuple[Tensor, Tensor]:
        """Cosines and sines, [batch, time, columns]."""
        found = self.rotary(*arguments, **named)
        if not isinstance(found, tuple) or len(found) != 2 or found[0].shape != found[1].shape:
            raise Unsupported("a rope that is not made of cosines and sines")
        return found if self.answer is None else self.answer(self.path, *found)


def rotary_modules(model: nn.Module) -> dict[str, nn.Module]:
    """The rotary embeddings of a model by their paths.

    Raises:
        Unsupported: one keeps no frequencies, or changes them with the length that is read.
    """
    found = {}
    for path, module in model.named_modules():
        if not type(module).__name__.endswith("RotaryEmbedding"):
            continue
        if not frequencies_of(module):
            raise Unsupported("a rope without frequencies, whose angles are kept in a table")
        kinds = getattr(module, "rope_type", "default")
        for kind in kinds.values() if isinstance(kinds, dict) else [kinds]:
            if kind in ("dynamic", "longrope"):
                raise Unsupported(f"a rope of the kind {kind!r}, which depends on the length read")
        found[path] = module
    return found


def frequencies_of(rotary: nn.Module) -> list[float]:
    """All frequencies that a rotary embedding knows."""
    names = [n for n, _ in rotary.named_buffers() if n.endswith("inv_freq") and "original" not in n]
    return [value for name in names for value in rotary.get_buffer(name).tolist()]


def pairs(still: Tensor, turned: Tensor) -> list[tuple[int, int, int]]:
    """Which coordinates turn together.

    Args:
        still: a query [dim] that nothing turned, of numbers that all differ.
        turned: the same, turned by a right angle.

    Returns:
        (first, second, sign) of each pair: with sign 1, ``first`` turns towards ``second``.

    Raises:
        Unsupported: it is no rotation of pairs.
    """
    partner = (turned.abs()[:, None] - still.abs()[None]).abs().argmin(1)
    signs = turned.sign() * still[partner].sign()
    error = (turned - signs * still[partner]).abs().max()
    if not error <= CLOSE * still.abs().max():
        raise Unsupported(_CHANGED)
    places, found = partner.tolist(), []
    for one, other in enumerate(places):
        if one < other and places[other] == one and signs[one] * signs[other] == -1:
            found.append((one, other, -int(signs[one])))
        elif places[other] != one or (one == other and signs[one] != 1):
            raise Unsupported(_CHANGED)
    return found
