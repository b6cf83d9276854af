"""Weights of a GGUF file by the names and in the layouts that transformers gives them."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from allmem_exporters.errors import ConversionError
from allmem_exporters.sources.gguf_architectures import Architecture
from allmem_exporters.sources.gguf_blocks import block_factors
from allmem_exporters.sources.gguf_described import ROPE_FACTORS, Described
from allmem_exporters.sources.gguf_file import GgufFile
from allmem_exporters.tensor_reader import Entry

_LAYER_TENSOR = re.compile(r"blk\.([0-9]{1,4})\.(\w+)\.(weight|bias)\Z")
_WHOLE_TENSOR = re.compile(r"(\w+)\.(weight|bias)\Z")
_TURNED = ("attn_q.weight", "attn_k.weight", "attn_q.bias", "attn_k.bias")
_BY_HEAD = ("attn_qkv.weight", "attn_qkv.bias")


class GgufWeights:
    """The weights of one file, dequantized to float32.

    Args:
        opened: the file.
        described: the same.
        architecture: of it.

    Raises:
        ConversionError: a tensor has no counterpart; a tensor left aside would be a silently
            different model.
    """

    def __init__(self, opened: GgufFile, described: Described, architecture: Architecture) -> None:
        self._opened, self._architecture = opened, architecture
        self._head_dim, self._heads = described.head_dim, described.heads
        self._places = {
            self._counterpart(place, described): place
            for place in described.shapes
            if place != ROPE_FACTORS
        }
        self.entries: Mapping[str, Entry] = {
            name: Entry(torch.float32, described.shapes[place], 0)
            for name, place in self._places.items()
        }

    def tensor(self, name: str) -> Tensor:
        """A weight."""
        return self.rows(name, 0, self.entries[name].shape[0])

    def rows(self, name: str, first: int, end: int) -> Tensor:
        """Rows ``first`` to ``end - 1`` of a weight."""
        place = self._places[name]
        if (order := self._order(name)) is not None:
            return torch.from_numpy(self._opened.values(place, 0, len(order))[order[first:end]])
        values = self._opened.values(place, first, end)
        less = self._architecture.less_one and place.endswith("norm.weight")
        return torch.from_numpy(values - np.float32(1) if less else values)

    def factors(self, name: str, first: int, end: int) -> Tensor | None:
        """See ``Source``."""
        place = self._places[name]
        if (order := self._order(name)) is None:
            return block_factors(self._opened, place, first, end)
        found = block_factors(self._opened, place, 0, len(order))
        return None if found is None else found[torch.from_numpy(order[first:end])]

    def _order(self, name: str) -> NDArray[np.int64] | None:
        """For each row its place in the file; None where they come in their order."""
        place, rows = self._places[name], self.entries[name].shape[0]
        if self._architecture.turned and place.endswith(_TURNED):
            return _halves_from_pairs(rows, self._head_dim)
        if self._architecture.by_head and place.endswith(_BY_HEAD):
            return _heads_from_kinds(rows, self._heads)
        return None

    def _counterpart(self, place: str, described: Described) -> str:
        known = self._architecture
        if (found := _LAYER_TENSOR.match(place)) and found[2] in known.names:
            return f"{known.layers}.{found[1]}.{known.names[found[2]]}.{found[3]}"
        if (found := _WHOLE_TENSOR.match(place)) and found[1] in known.whole:
            return f"{known.whole[found[1]]}.{found[2]}"
        raise ConversionError(
            f"{described.metadata.name}: the tensor {place} has no counterpart in "
            f"{known.model_type} decoders.",
            "Convert the original safetensors checkpoint instead.",
        )


def _halves_from_pairs(rows: int, head_dim: int) -> NDArray[np.int64]:
    """Undo the row order of llama.cpp's Llama conversion.

    There coordinate 2 j of a head turns with 2 j + 1; here j turns with j + head_dim / 2.
    """
    pairs = np.arange(rows).reshape(-1, head_dim // 2, 2)
    return pairs.swapaxes(1, 2).reshape(-1)


def _heads_from_kinds(rows: int, heads: int) -> NDArray[np.int64]:
    """Rows of query, key and value of one head after those of another.

    In the file the queries of all heads come first, then their keys, then their values.
    """
    return np.arange(rows).reshape(3, heads, -1).swapaxes(0, 1).reshape(-1)
