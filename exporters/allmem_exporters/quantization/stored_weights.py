"""The weights that an export stores, put in the place of the model's: what its check compares with.

They are read back from what was stored, so all that is left between the graph and PyTorch is
arithmetic: a damaged file shows, and so does a matrix whose parts the graph takes in another order.
Each is held against the model's own first: what was rounded wrong, turned, or packed in another
order is far from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from allmem_exporters.errors import ExportError
from allmem_exporters.model.decoder import DecoderLayer
from allmem_exporters.model.packing import PackedMatrix, fold_factors, packed_layer
from allmem_exporters.quantization.blocks import Matrix, in_blocks, row_pieces
from allmem_exporters.quantization.stored_format import StoredFormat, StoredMatrix


@dataclass(frozen=True, slots=True)
class Rounding:
    """How far stored matrices are from the model's.

    Args:
        matrices: how many there are.
        nbytes: that they take.
        worst: largest root mean square error of a block, over what its format may leave there.
        worst_name: of the matrix with that block.
    """

    matrices: int
    nbytes: int
    worst: float
    worst_name: str


def stored_matrices(
    matrices: Mapping[str, Matrix], stored_as: StoredFormat, tables: Mapping[str, str]
) -> dict[str, StoredMatrix]:
    """Matrices stored by themselves, without a graph.

    Args:
        matrices: by name.
        stored_as: the format of products.
        tables: has the names of those that are tables.
    """
    return {
        name: (stored_as.table_format if name in tables else stored_as).quantize(matrix, name)
        for name, matrix in matrices.items()
    }


class StoredWeights:
    """Takes stored matrices, one after the other, and keeps how far they are from the model's.

    Args:
        stored: all matrices by name.
    """

    def __init__(self, stored: Mapping[str, StoredMatrix]) -> None:
        self.stored = stored
        self._found: dict[str, float] = {}
        self._nbytes = 0

    def take(self, layer: DecoderLayer, index: int) -> None:
        """Put the stored weights of a layer in the place of its own; its factors are 1 then.

        Raises:
            ExportError: a matrix is missing, of another shape, or further from the model's than its
                format rounds.
        """
        fold_factors(layer)
        for product, matrix in packed_layer(layer).items():
            one = self._stored(f"layers.{index}.{product}.weight", matrix.shape)
            for first, end in row_pieces(*matrix.shape, one.format.row_multiple):
                rows = self._compare(one, matrix, first, end)
                matrix.write(first, rows)

    def table_rows(self, name: str, table: Matrix, first: int, end: int) -> Tensor:
        """Rows of a table as they are stored.

        Args:
            name: of the stored table.
            table: the model's.
            first: a multiple of the format's ``row_multiple``.
            end: last row + 1.

        Raises:
            ExportError: see ``take``.
        """
        one = self._stored(name, table.shape)
        pieces = [
            self._compare(one, table, first + start, first + stop)
            for start, stop in row_pieces(end - first, table.shape[1], one.format.row_multiple)
        ]
        return torch.cat(pieces)

    def rounding(self) -> Rounding:
        """Of all that was taken.

        Raises:
            ExportError: a matrix is stored that nobody took.
        """
        if odd := sorted(self.stored.keys() - self._found.keys()):
            raise _defect(f"The graph and the model do not have the same matrices: {odd[0]!r}")
        worst = max(self._found, key=self._found.__getitem__)
        return Rounding(len(self._found), self._nbytes, self._found[worst], worst)

    def _stored(self, name: str, shape: tuple[int, int]) -> StoredMatrix:
        if name not in self.stored:
            raise _defect(f"The graph and the model do not have the same matrices: {name!r}")
        one = self.stored[name]
        if (one.rows, one.columns) != shape:
            raise _defect(
                f"The weight {name!r} is stored with {one.rows} x {one.columns} values instead of "
                f"{shape[0]} x {shape[1]}"
            )
        if name not in self._found:
            self._found[name] = 0.0
            self._nbytes += one.nbytes
        return one

    def _compare(
        self, one: StoredMatrix, matrix: Matrix | PackedMatrix, first: int, end: int
    ) -> Tensor:
        """Stored rows that are near enough to the model's."""
        rows, blocks = one.dequantize(first, end), in_blocks(matrix.rows(first, end))
        error = (in_blocks(rows) - blocks).square_().mean(-1).sqrt_()
        allowed = one.format.largest_error(blocks, one)
        worst = float(torch.where(error == 0, 0.0, error / allowed).max())
        # Not the same as > for what is no number, of which max makes no number either.
        if not worst <= 1.0:
            raise _defect(
                f"The weight {one.name!r} as it is stored is off by {worst:.1e} times what "
                f"rounding to {one.format.weights} may leave"
            )
        self._found[one.name] = max(self._found[one.name], worst)
        return rows


def _defect(what: str) -> ExportError:
    return ExportError(
        f"{what}.",
        "This is a defect of the exporter: please report it with the model's config.json.",
    )
