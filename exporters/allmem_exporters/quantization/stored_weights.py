"""The PyTorch model with the very weights that an export stores: what its check compares with.

They are read back from what was stored, so all that is left between the graph and PyTorch is
arithmetic: a damaged file shows, and so does a matrix whose parts the graph takes in another order.
Each is held against the model's own first: what was rounded wrong, turned, or packed in another
order is far from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from allmem_exporters.errors import ExportError
from allmem_exporters.model.modeling import AllMemForCausalLM
from allmem_exporters.model.packing import PackedMatrix, fold_alpha, packed_matrices
from allmem_exporters.quantization.blocks import in_blocks, row_pieces
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


def stored_matrices(model: AllMemForCausalLM, stored_as: StoredFormat) -> dict[str, StoredMatrix]:
    """The matrices of ``model`` stored by themselves, without a graph."""
    return {
        name: (stored_as.table_format if matrix.is_table else stored_as).quantize(
            matrix.whole(), name
        )
        for name, matrix in packed_matrices(model).items()
    }


def take_stored_weights(model: AllMemForCausalLM, stored: Mapping[str, StoredMatrix]) -> Rounding:
    """Put the weights that are stored into ``model``, in place; alpha is 1 afterwards.

    Raises:
        ExportError: a matrix is missing or too many, of another shape, or further from the model's
            than its format rounds.
    """
    fold_alpha(model)
    packed = packed_matrices(model)
    if odd := sorted(packed.keys() ^ stored.keys()):
        raise _defect(f"The graph and the model do not have the same matrices: {odd[0]!r}")
    worst, worst_name = 0.0, ""
    for name, matrix in packed.items():
        found = _take(matrix, stored[name])
        # Not the same as <= for what is no number.
        if not found <= 1.0:
            raise _defect(
                f"The weight {name!r} as it is stored is off by {found:.1e} times what rounding to "
                f"{stored[name].format.weights} may leave"
            )
        if found > worst:
            worst, worst_name = found, name
    return Rounding(len(packed), sum(one.nbytes for one in stored.values()), worst, worst_name)


def _take(matrix: PackedMatrix, stored: StoredMatrix) -> float:
    """Replace ``matrix`` in the model; the largest error over the largest that is allowed."""
    if (stored.rows, stored.columns) != matrix.shape:
        raise _defect(
            f"The weight {stored.name!r} is stored with {stored.rows} x {stored.columns} values "
            f"instead of {matrix.shape[0]} x {matrix.shape[1]}"
        )
    worst = torch.zeros(())
    for first, end in row_pieces(*matrix.shape, stored.format.row_multiple):
        rows, blocks = stored.dequantize(first, end), in_blocks(matrix.rows(first, end))
        error = (in_blocks(rows) - blocks).square_().mean(-1).sqrt_()
        allowed = stored.format.largest_error(blocks, stored)
        # maximum, unlike max, keeps what is no number.
        worst = torch.maximum(worst, torch.where(error == 0, 0.0, error / allowed).max())
        matrix.write(first, rows)
    return float(worst)


def _defect(what: str) -> ExportError:
    return ExportError(
        f"{what}.",
        "This is a defect of the exporter: please report it with the model's config.json.",
    )
