"""What a way to store matrices has to know: how to store and read one, and its nodes in a graph.

A format is one class in one file, and one line in the table of ``formats``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from torch import Tensor

from allmem_exporters.quantization.blocks import Matrix

Layout = dict[str, tuple[tuple[int, ...], np.dtype[Any]]]
"""Shapes and types of the tensors that store a matrix, by the end of their names."""

ROWS_VIEW = ".rows"
"""Ends the name of a table's view that look-ups read."""


@dataclass(frozen=True, slots=True)
class Carried:
    """How many weights are not rounded anew.

    Args:
        exact: those that are exactly the source's.
        rounded: those with the source's numbers, whose block's scale and minimum are the source's
            rounded to float16.
    """

    exact: int = 0
    rounded: int = 0

    def __add__(self, other: Carried) -> Carried:
        return Carried(self.exact + other.exact, self.rounded + other.rounded)


@dataclass(frozen=True, slots=True)
class StoredMatrix:
    """A matrix [rows, columns] as it lies in the file of weights.

    Args:
        name: of the matrix in the graph.
        format: that made it.
        rows: outputs of the product, or tokens of the table.
        columns: inputs.
        tensors: what is stored by the end of its name: ``numbers`` is stored as NAME.numbers.
            Arrays, or the ``Part``s of ``deferred`` that will be ones.
        carried: weights that the source's own blocks gave.
    """

    name: str
    format: StoredFormat
    rows: int
    columns: int
    tensors: dict[str, Any]
    carried: Carried = Carried()

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def dequantize(self, first: int = 0, end: int | None = None) -> Tensor:
        """Rows ``first`` to ``end - 1`` as float32, read from what is stored."""
        return self.format.dequantize(self, first, self.rows if end is None else end)


class StoredFormat(ABC):
    """One way to store matrices; see the table of ``formats``."""

    weights: ClassVar[str]
    """What `--weights` and the manifest call it."""

    kernel: ClassVar[str | None] = None
    """Who multiplies it, where it is not multiplied as float32: its inputs are rounded then."""

    description: ClassVar[str]
    """A few words on what is stored."""

    turned_products: ClassVar[bool] = False
    """Whether matrices of products lie transposed, [inputs, outputs], in the file."""

    row_multiple: ClassVar[int] = 1
    """Rows can be read from multiples of this on."""

    @property
    def table_format(self) -> StoredFormat:
        """How embedding and head are stored beside products of this format."""
        return self

    @abstractmethod
    def layout(self, matrix: Matrix | Tensor) -> Layout:
        """What ``quantize`` will make of a matrix, in its order."""

    @abstractmethod
    def quantize(self, matrix: Matrix | Tensor, name: str) -> StoredMatrix:
        """Store ``matrix``; needs little more memory than the result.

        Args:
            matrix: [outputs, inputs]; a tensor may be a transposed view.
            name: of the matrix, for its tensors and for errors.

        Raises:
            ExportError: the format cannot hold a value.
        """

    @abstractmethod
    def dequantize(self, stored: StoredMatrix, first: int, end: int) -> Tensor:
        """Rows ``first`` to ``end - 1`` of a matrix as float32, read from its tensors.

        Args:
            stored: made by this format.
            first: a multiple of ``row_multiple``.
            end: last row + 1.
        """

    @abstractmethod
    def largest_error(self, blocks: Tensor, stored: StoredMatrix) -> Tensor:
        """The root mean square error that rounding a block cannot exceed.

        Args:
            blocks: [rows, blocks, BLOCK] of the matrix before it was stored.
            stored: the whole matrix.

        Returns:
            [rows, blocks].
        """

    @abstractmethod
    def put_product(self, model: ir.Model, value: ir.Value, stored: StoredMatrix) -> None:
        """Let the products that read ``value`` [inputs, outputs] read ``stored``."""

    @abstractmethod
    def put_table(self, model: ir.Model, value: ir.Value, stored: StoredMatrix) -> None:
        """Let the look-ups and products that read ``value`` [outputs, inputs] read ``stored``."""

    def finish_graph(self, model: ir.Model) -> None:
        """Change ``model`` once, when all its matrices are stored."""
        return

    @staticmethod
    def finish_file(graph: onnx.GraphProto) -> None:
        """Change the nodes of the kernel in a graph whose weights lie in a file beside it."""
        return

    @staticmethod
    def widen_inputs(
        model: onnx.ModelProto, folder: Path, *, in_pieces: bool
    ) -> dict[str, NDArray[np.float32]]:
        """Let the kernel's nodes take their inputs as they are, for the check of the weights.

        Args:
            model: a part of an export, changed in place.
            folder: the export, in which the weights lie.
            in_pieces: take little memory for it, or the way that opening the whole graph takes.

        Returns:
            What the graph takes in addition, by the names of its inputs.
        """
        return {}
