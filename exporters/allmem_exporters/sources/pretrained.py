"""A source as transformers' own code takes it, to compare a conversion with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor
from transformers import PretrainedConfig


class PretrainedWeights(Protocol):
    """Weights by the names that transformers' own model gives them."""

    def tensor(self, name: str) -> Tensor:
        """A weight."""

    def rows(self, name: str, first: int, end: int) -> Tensor:
        """Rows ``first`` to ``end - 1`` of a weight."""


@dataclass(frozen=True, slots=True)
class Pretrained:
    """A pretrained model.

    Attributes:
        config: of transformers.
        weights: its weights.
        divisors: of its rope's frequencies, which transformers has no setting for.
    """

    config: PretrainedConfig
    weights: PretrainedWeights
    divisors: tuple[float, ...] | None = None
