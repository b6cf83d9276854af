"""The table of the ways to store matrices, and which of them an export uses."""

from __future__ import annotations

import onnx

from allmem_exporters.errors import ExportError
from allmem_exporters.quantization.float16 import Float16
from allmem_exporters.quantization.float32 import Float32
from allmem_exporters.quantization.matmul_nbits_int4 import MatMulNBitsInt4
from allmem_exporters.quantization.matmul_nbits_int8 import MatMulNBitsInt8
from allmem_exporters.quantization.quantized_matmul_int4 import QuantizedMatMulInt4
from allmem_exporters.quantization.quantized_matmul_int8 import QuantizedMatMulInt8
from allmem_exporters.quantization.stored_format import StoredFormat

FORMATS: tuple[StoredFormat, ...] = (
    Float32(),
    Float16(),
    QuantizedMatMulInt8(),
    MatMulNBitsInt8(),
    QuantizedMatMulInt4(),
    MatMulNBitsInt4(),
)
"""Of several kernels for the same weights the first is the default."""

WEIGHTS = tuple(dict.fromkeys(stored.weights for stored in FORMATS))
"""How matrices may be stored."""

KERNELS = tuple(dict.fromkeys(stored.kernel for stored in FORMATS if stored.kernel is not None))
"""Who may multiply them in integers: our QuantisedMatMul on CPUs, or ONNX Runtime's MatMulNBits."""


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
    found = [stored for stored in FORMATS if stored.weights == weights]
    if kernel is None:
        return found[0]
    for stored in found:
        if stored.kernel == kernel:
            return stored
    integers = dict.fromkeys(stored.weights for stored in FORMATS if stored.kernel == kernel)
    raise ExportError(
        f"matmul_kernel is {kernel!r}, and weights stored as {weights} are not multiplied in "
        "integers.",
        f"Leave --matmul-kernel out, or export with --weights {' or '.join(integers)}.",
    )


def finish_file(graph: onnx.GraphProto) -> None:
    """Make the last changes to a graph whose weights lie in a file beside it, of all kernels."""
    for finish in dict.fromkeys(stored.finish_file for stored in FORMATS):
        finish(graph)


def widen_inputs(model: onnx.ModelProto) -> None:
    """Let products of integers take their inputs as they are, not rounded to eight bits."""
    for widen in dict.fromkeys(stored.widen_inputs for stored in FORMATS):
        widen(model)
