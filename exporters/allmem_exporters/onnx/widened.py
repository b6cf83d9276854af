"""Stored matrices widened to float32 by ONNX Runtime, for the check of an export.

ONNX Runtime would widen them when it opens a graph, where every step of a function body leaves a
copy of the matrix until the graph is ready: fourteen of them. Here it computes the same steps, some
outputs at a time.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper

from allmem_exporters.onnx.quantized_matmul_function import (
    GIVEN,
    WIDENING,
    given_function,
    widening_function,
)
from allmem_exporters.onnx.stored_file import file_array
from allmem_exporters.quantization.blocks import BLOCK
from allmem_ops.products import QUANTIZED_MATMUL
from allmem_ops.reference.product import TILE
from allmem_ops.schema import DOMAIN

_INPUTS = [tensor.name for tensor in QUANTIZED_MATMUL.inputs]
_BYTES_AT_ONCE = 2 << 20
"""Of a matrix that are widened together: the steps between take fourteen times as much at most."""
_NUMBERS, _SCALES = _INPUTS.index("numbers"), _INPUTS.index("scales")


def widen_products(
    model: onnx.ModelProto, folder: Path, *, in_pieces: bool
) -> dict[str, NDArray[np.float32]]:
    """Let products take inputs as they are, and their matrices from inputs of the graph.

    Args:
        model: a part of an export, changed in place.
        folder: the export, in which the weights lie.
        in_pieces: widen some mebibytes at a time; else each matrix in one go, as a program without
            our library does, in four times its memory.

    Returns:
        The matrices by the names of these inputs.
    """
    graph, matrices = model.graph, dict[str, NDArray[np.float32]]()
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type != QUANTIZED_MATMUL.name:
            continue
        numbers, scales = (tensors[node.input[at]] for at in (_NUMBERS, _SCALES))
        name = f"{numbers.name}.matrix"
        stored = file_array(folder, numbers), file_array(folder, scales)
        matrices[name] = _widened(model, node, *stored, in_pieces=in_pieces)
        rest = node.input[_SCALES + 1 :]
        node.op_type, node.input[:] = GIVEN, [node.input[0], name, *rest]
        shape = matrices[name].shape
        graph.input.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
    if matrices:
        read = {name for node in graph.node for name in node.input}
        kept = [tensor for tensor in graph.initializer if tensor.name in read]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        model.functions.append(given_function())
    return matrices


def _widened(
    whole: onnx.ModelProto,
    product: onnx.NodeProto,
    numbers: NDArray[np.uint8],
    scales: NDArray[np.float16],
    *,
    in_pieces: bool,
) -> NDArray[np.float32]:
    """The matrix [padded inputs, width] of a product."""
    session = _session(whole, product)
    tiles, blocks = scales.shape[:2]
    (width,) = (one.i for one in product.attribute if one.name == "width")
    matrix = np.empty((blocks * BLOCK, width), np.float32)
    step = max(1, _BYTES_AT_ONCE // matrix[:, :TILE].nbytes) if in_pieces else tiles
    for first in range(0, tiles, step):
        end = min(first + step, tiles)
        (found,) = session.run(None, {"numbers": numbers[first:end], "scales": scales[first:end]})
        outputs = slice(first * TILE, min(end * TILE, width))
        matrix[:, outputs] = found[:, : outputs.stop - outputs.start]
    return matrix


def _session(whole: onnx.ModelProto, product: onnx.NodeProto) -> onnxruntime.InferenceSession:
    """What widens any tiles of a product's matrix."""
    node = helper.make_node(WIDENING, ["numbers", "scales"], ["matrix"], domain=DOMAIN)
    node.attribute.extend(one for one in product.attribute if one.name in ("width", "bits"))
    kinds = {
        "numbers": onnx.TensorProto.UINT8,
        "scales": onnx.TensorProto.FLOAT16,
        "matrix": onnx.TensorProto.FLOAT,
    }
    *inputs, output = (helper.make_tensor_value_info(*one, None) for one in kinds.items())
    model = helper.make_model(
        helper.make_graph([node], "widening", inputs, [output]),
        opset_imports=whole.opset_import,
        ir_version=whole.ir_version,
        functions=[widening_function()],
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = False
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
