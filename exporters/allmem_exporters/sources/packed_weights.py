"""Weights of a source whose matrices hold the rows of several of ours.

It knows names, rows and nothing of what the weights are for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from allmem_exporters.errors import ConversionError
from allmem_exporters.sources.pretrained import PretrainedWeights
from allmem_exporters.tensor_reader import Entry


@dataclass(frozen=True, slots=True)
class _Place:
    name: str
    first: int
    end: int


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


class UnpackedWeights:
    """The weights of a source by our names.

    Args:
        weights: by the source's names.
        entries: their types and shapes.
        packed: matrices of a layer and what they hold, see ``Family``.
        backbone: fields of ``AllMemConfig``, which say how many rows each part has.
        origin: name for messages.

    Raises:
        ConversionError: a matrix has other rows than its parts.
    """

    def __init__(
        self,
        weights: PretrainedWeights,
        entries: Mapping[str, Entry],
        packed: Mapping[str, tuple[str, ...]],
        backbone: Mapping[str, Any],
        origin: str,
    ) -> None:
        self._weights = weights
        self.entries: dict[str, Entry] = {}
        self._places: dict[str, _Place] = {}
        heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}
        heads["v_proj"] = heads["k_proj"]
        for name, entry in entries.items():
            parts = [(whole, some) for whole, some in packed.items() if f".{whole}." in name]
            if not parts:
                self.entries[name] = entry
                self._places[name] = _Place(name, 0, entry.shape[0] if entry.shape else 0)
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
        if place.name == name:
            return self._weights.tensor(name)
        return self._weights.rows(place.name, place.first, place.end)

    def rows(self, name: str, first: int, end: int) -> Tensor:
        """Rows ``first`` to ``end - 1`` of a weight."""
        place = self._places[name]
        return self._weights.rows(place.name, place.first + first, place.first + end)
