"""Weights of a source by our names, where its matrices are packed, named or ordered otherwise.

It knows names and rows, and nothing of what the weights are for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from allmem_exporters.errors import ConversionError
from allmem_exporters.model.families import FAMILIES
from allmem_exporters.sources.pretrained import PretrainedWeights
from allmem_exporters.tensor_reader import Entry


@dataclass(frozen=True, slots=True)
class _Place:
    name: str
    first: int
    end: int
    whole: bool = False


class SourceWeights(PretrainedWeights, Protocol):
    """Weights of which some may be stored in blocks."""

    def factors(self, name: str, first: int, end: int) -> Tensor | None:
        """See ``Source``."""


class WeightsByName:
    """Weights that lie in memory.

    Args:
        tensors: by name.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors
        self.entries = {name: Entry(t.dtype, tuple(t.shape), 0) for name, t in tensors.items()}

    def tensor(self, name: str) -> Tensor:
        """A weight."""
        return self._tensors[name]

    def rows(self, name: str, first: int, end: int) -> Tensor:
        """Rows ``first`` to ``end - 1`` of a weight, which share its memory."""
        return self._tensors[name][first:end]

    def factors(self, name: str, first: int, end: int) -> Tensor | None:
        """None: they are stored as they are."""
        return None


class UnpackedWeights:
    """The weights of a source by our names.

    Args:
        weights: by the source's names.
        entries: their types and shapes.
        backbone: fields of ``AllMemConfig``: the family, and how many rows each part has.
        origin: name for messages.

    Raises:
        ConversionError: a matrix has other rows than its parts.
    """

    def __init__(
        self,
        weights: SourceWeights,
        entries: Mapping[str, Entry],
        backbone: Mapping[str, Any],
        origin: str,
    ) -> None:
        self._weights = weights
        family = FAMILIES.get(backbone.get("backbone", ""))
        packed = {} if family is None else family.packed
        renamed = {} if family is None else family.renamed
        self._turned: tuple[str, ...] = ()
        if family is not None and family.pairs:
            self._turned, self._head_dim = _TURNED, backbone["head_dim"]
            factor = backbone["rope_parameters"].get("partial_rotary_factor", 1.0)
            self._rotary = int(self._head_dim * factor)
        self.entries: dict[str, Entry] = {}
        self._places: dict[str, _Place] = {}
        heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}
        heads["v_proj"] = heads["k_proj"]
        for name, entry in entries.items():
            parts = [(whole, some) for whole, some in packed.items() if f".{whole}." in name]
            if not parts:
                ours = _renamed(name, renamed)
                self.entries[ours] = entry
                self._places[ours] = _Place(name, 0, (*entry.shape, 0)[0], whole=True)
                continue
            ((whole, some),) = parts
            first = 0
            for part in some:
                key = heads.get(part.rpartition(".")[2])
                count = (
                    backbone[key] * backbone["head_dim"] if key else backbone["intermediate_size"]
                )
                ours = name.replace(f".{whole}.", f".{part}.")
                self.entries[ours] = replace(entry, shape=(count, *entry.shape[1:]))
                self._places[ours] = _Place(name, first, first + count)
                first += count
            if entry.shape[0] != first:
                raise ConversionError(
                    f"{origin}: the weight {name} has {entry.shape[0]} rows; the configuration "
                    f"asks for {first}.",
                    "Fetch an intact copy.",
                )

    def tensor(self, name: str) -> Tensor:
        """A weight."""
        place = self._places[name]
        if place.whole:
            found = self._weights.tensor(place.name)
        else:
            found = self._weights.rows(place.name, place.first, place.end)
        if not name.endswith(self._turned):
            return found
        return halves_from_pairs(found, self._head_dim, self._rotary)

    def rows(self, name: str, first: int, end: int) -> Tensor:
        """Rows ``first`` to ``end - 1`` of a weight."""
        if name.endswith(self._turned):
            return self.tensor(name)[first:end]
        place = self._places[name]
        return self._weights.rows(place.name, place.first + first, place.first + end)

    def factors(self, name: str, first: int, end: int) -> Tensor | None:
        """See ``Source``."""
        place = self._places[name]
        if not name.endswith(self._turned):
            return self._weights.factors(place.name, place.first + first, place.first + end)
        found = self._weights.factors(place.name, place.first, place.end)
        if found is None:
            return None
        return halves_from_pairs(found, self._head_dim, self._rotary)[first:end]


_TURNED = ("q_proj.weight", "k_proj.weight", "q_proj.bias", "k_proj.bias")


def _renamed(name: str, renamed: Mapping[str, str]) -> str:
    """Our name of a weight of a layer."""
    before, _, rest = name.rpartition("layers.")
    number, _, inner = rest.partition(".")
    part, _, leaf = inner.rpartition(".")
    return f"{before}layers.{number}.{renamed[part]}.{leaf}" if part in renamed else name


def halves_from_pairs(rows: Tensor, head_dim: int, rotary: int) -> Tensor:
    """Rows of heads in which coordinates 2 j and 2 j + 1 turn together, in our order.

    Args:
        rows: [heads * head_dim, ...].
        head_dim: width of a head.
        rotary: coordinates of a head that turn; the others stay where they are.

    Returns:
        The same rows, j before j + rotary / 2.
    """
    heads = rows.unflatten(0, (-1, head_dim))
    turned = heads[:, :rotary].unflatten(1, (-1, 2)).transpose(1, 2).flatten(1, 2)
    return torch.cat([turned, heads[:, rotary:]], dim=1).flatten(0, 1)
