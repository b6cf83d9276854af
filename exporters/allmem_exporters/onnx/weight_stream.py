"""The large matrices of a step graph, made from a model's weights layer by layer.

A graph is traced without them. Each is made when the file is written, in the file's order, and only
one layer of the model lies in memory meanwhile.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from allmem_exporters.errors import ExportError
from allmem_exporters.model.decoder import DecoderLayer
from allmem_exporters.model.packing import PackedMatrix, packed_layer
from allmem_exporters.model.weights import (
    EMBEDDING,
    HEAD,
    ModelWeights,
    Table,
    empty_layer,
    load_layer,
)
from allmem_exporters.onnx.step_module import DTYPES, GraphLayer
from allmem_exporters.quantization.blocks import BLOCK, Matrix, block_count
from allmem_exporters.quantization.part import Part

TABLES = {"embedding": EMBEDDING, "head": HEAD}
"""Names in the graph and in the model."""

_IN_LAYER = re.compile(r"layers\.(\d+)\.((\w+)\.weight)\Z")


class LayerInMemory:
    """Loads layers and keeps the latest one.

    Args:
        weights: of the model.
    """

    def __init__(self, weights: ModelWeights) -> None:
        self.weights = weights
        self._index = -1
        self._layer: DecoderLayer | None = None

    def __call__(self, index: int) -> DecoderLayer:
        """A layer in float32."""
        if self._index != index or self._layer is None:
            self._layer = None  # before the next is loaded
            self._layer, self._index = load_layer(self.weights, index), index
        return self._layer


class PackedRows:
    """One product's matrix of one layer, whose weights are loaded when rows of it are read."""

    def __init__(self, layers: LayerInMemory, index: int, product: str) -> None:
        self._layers, self._index, self._product = layers, index, product
        empty = empty_layer(layers.weights.config)
        matrix, names = packed_layer(empty)[product], dict(empty.named_modules())
        self.shape, self._axis = matrix.shape, matrix.axis
        by_module = {id(module): name for name, module in names.items()}
        self._parts = [
            (f"model.layers.{index}.{by_module[id(module)]}.weight", tuple(module.weight.shape))
            for module in matrix.modules
        ]

    def rows(self, first: int, end: int) -> Tensor:
        """See ``Matrix``."""
        matrix: PackedMatrix = packed_layer(self._layers(self._index))[self._product]
        return matrix.rows(first, end)

    def block_factors(self, first: int, end: int) -> Tensor | None:
        """See ``Matrix``."""
        if self._axis == 1 and any(shape[1] % BLOCK for _, shape in self._parts[:-1]):
            return None  # blocks of the whole do not begin where the parts' do
        found, known, at = [], False, 0
        for name, (rows, columns) in self._parts:
            start, stop = (first, end) if self._axis == 1 else (first - at, end - at)
            start, stop, at = max(start, 0), min(max(stop, 0), rows), at + rows
            if start >= stop:
                continue
            part = self._layers.weights.factors(name, start, stop)
            known |= part is not None
            blank = torch.full((stop - start, block_count(columns), 2), torch.nan)
            found.append(blank if part is None else part)
        return torch.cat(found, dim=self._axis) if known else None


class MatrixStream(Mapping[str, Matrix]):
    """Every matrix that may be stored in another type than float32, by its name in the graph.

    Args:
        weights: of the model.
    """

    def __init__(self, weights: ModelWeights) -> None:
        config = weights.config
        layers = LayerInMemory(weights)
        tables = [name for name in TABLES if name != "head" or not config.tie_word_embeddings]
        self._found: dict[str, Matrix] = {name: Table(weights, TABLES[name]) for name in tables}
        products = packed_layer(empty_layer(config))
        for index in range(config.num_hidden_layers):
            for product in products:
                name = f"layers.{index}.{product}.weight"
                self._found[name] = PackedRows(layers, index, product)

    def __getitem__(self, name: str) -> Matrix:
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


class TracedMatrices:
    """The matrices as the graph was traced with them, where nothing is stored otherwise.

    Args:
        weights: of the model.
        activations: type of the token stream and of the matrices.
    """

    def __init__(self, weights: ModelWeights, activations: str) -> None:
        self._weights, self._dtype = weights, DTYPES[activations]
        self._index = -1
        self._layer: dict[str, Tensor] = {}

    def part(self, name: str, shape: tuple[int, ...]) -> Part:
        """A matrix by its name in the graph.

        Raises:
            ExportError: when it is loaded, if float16 cannot hold one of its values.
        """
        kind = np.dtype(str(self._dtype).removeprefix("torch."))
        return Part(shape, kind, lambda: self._finite(name).numpy())

    def _finite(self, name: str) -> Tensor:
        found = self._load(name)
        if not bool(found.isfinite().all()) and found.dtype == torch.float16:
            raise ExportError(
                f"The weight {name!r} has values that float16 cannot hold.",
                "Export with --activations float32.",
            )
        return found

    def _load(self, name: str) -> Tensor:
        if name in TABLES:
            table = Table(self._weights, TABLES[name])
            pieces = [table.rows(*piece).to(self._dtype) for piece in table.pieces()]
            return torch.cat(pieces)
        place = _IN_LAYER.match(name)
        assert place is not None, name
        index = int(place[1])
        if index != self._index:
            self._layer = {}
            layer = load_layer(self._weights, index)
            parts = GraphLayer(self._weights.config, layer, self._dtype).named_parameters()
            self._layer, self._index = {one: value.detach() for one, value in parts}, index
        return self._layer[place[2]]
