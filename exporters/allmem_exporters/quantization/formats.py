"""The table of the ways to store matrices, and which of them an export uses.

Nothing heavy is imported here, since commands take their choices from the table: a format is
imported where it is used.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from allmem_exporters.errors import ExportError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import onnx
    from numpy.typing import NDArray

    from allmem_exporters.quantization.stored_format import StoredFormat

TABLE: tuple[tuple[str, str | None, str], ...] = (
    ("float32", None, "float32"),
    ("float16", None, "float16"),
    ("int8", "allmem", "quantized_matmul_int8"),
    ("int8", "onnxruntime", "matmul_nbits_int8"),
    ("int4", "allmem", "quantized_matmul_int4"),
    ("int4", "onnxruntime", "matmul_nbits_int4"),
)
"""(weights, kernel, module of this package whose FORMAT stores them so).

Of several kernels for the same weights the first is the default."""

WEIGHTS = tuple(dict.fromkeys(weights for weights, _, _ in TABLE))
"""How matrices may be stored."""

KERNELS = tuple(dict.fromkeys(kernel for _, kernel, _ in TABLE if kernel is not None))
"""Who may multiply them in integers: our QuantisedMatMul on CPUs, or ONNX Runtime's MatMulNBits."""


@cache
def all_formats() -> tuple[StoredFormat, ...]:
    """Every format, in the order of the table."""
    return tuple(_imported(module) for _, _, module in TABLE)


def _imported(module: str) -> StoredFormat:
    found: StoredFormat = import_module(f"allmem_exporters.quantization.{module}").FORMAT
    return found


def stored_format(weights: str, kernel: str | None = None) -> StoredFormat:
    """The format with these names.

    Args:
        weights: one of ``WEIGHTS``.
        kernel: one of ``KERNELS``; None for the default of these weights.

    Raises:
        ExportError: there is no such format.
    """
    if weights not in WEIGHTS:
        raise ExportError(f"weights is {weights!r}; allowed: {', '.join(WEIGHTS)}.")
    if kernel is not None and kernel not in KERNELS:
        raise ExportError(f"matmul_kernel is {kernel!r}; allowed: {', '.join(KERNELS)}.")
    kernels = {one: module for stored, one, module in TABLE if stored == weights}
    if kernel is None:
        return _imported(next(iter(kernels.values())))
    if kernel in kernels:
        return _imported(kernels[kernel])
    integers = [stored for stored, one, _ in TABLE if one == kernel]
    raise ExportError(
        f"matmul_kernel is {kernel!r}, and weights stored as {weights} are not multiplied in "
        "integers.",
        f"Leave --matmul-kernel out, or export with --weights {' or '.join(integers)}.",
    )


def finish_file(graph: onnx.GraphProto) -> None:
    """Make the last changes to a graph whose weights lie in a file beside it, of all kernels."""
    for finish in dict.fromkeys(stored.finish_file for stored in all_formats()):
        finish(graph)


def widen_inputs(
    model: onnx.ModelProto, folder: Path, *, in_pieces: bool
) -> dict[str, NDArray[np.float32]]:
    """Let products of integers take their inputs as they are, not rounded to eight bits.

    Args:
        model: a part of an export, changed in place.
        folder: the export, in which the weights lie.
        in_pieces: take little memory for it, or the way that opening the whole graph takes.

    Returns:
        What the graph takes in addition, by the names of its inputs.
    """
    found: dict[str, NDArray[np.float32]] = {}
    for widen in dict.fromkeys(stored.widen_inputs for stored in all_formats()):
        found |= widen(model, folder, in_pieces=in_pieces)
    return found
