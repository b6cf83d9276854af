"""Whether a graph's step may be captured as a CUDA graph: no node reads sizes from the host.

What a kernel copies from the host while it is captured lies in memory that is given back after the
capture: replays would read what then lies there. Each operator here was captured on the stand-in
device of ``tests/cuda_device``, which counts such copies; others are taken to copy.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from allmem_ops.schema import DOMAIN
from allmem_runtime.engine.captured_families import LOOKED_AT

_SEEN = {
    "": frozenset(
        {
            "Abs", "Add", "Cast", "Concat", "Cos", "Div", "Exp", "Gather", "Gelu", "Gemm",
            "Greater", "LayerNormalization", "Log", "MatMul", "Max", "Min", "Mul", "Neg", "Pad",
            "Pow", "ReduceMean", "Relu", "Reshape", "Sigmoid", "Sin", "Slice", "Softmax",
            "Split", "SimplifiedLayerNormalization", "Sqrt", "Squeeze", "Sub", "Tanh", "Transpose",
            "Unsqueeze", "Where",
        }
    ),
    "com.microsoft": frozenset(
        {"QuickGelu", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization"}
    ),
}  # fmt: skip
_MOST_PARTS = {"Split": 4, "Concat": 5}
"""Parts of unequal sizes that were seen to be passed as arguments of a kernel; a Split of five
copies their sizes."""


def captured(nodes: Iterable[ir.Node], family: str) -> bool | None:
    """What a manifest says of a graph.

    Args:
        nodes: of the graph.
        family: ``model_type`` of its decoder.

    Returns:
        None where the family says the same, as in manifests that were written before there was a
        choice: these exports stay as they were.
    """
    if family in LOOKED_AT:
        return None
    return all(_was_seen(node) for node in nodes)


def _was_seen(node: ir.Node) -> bool:
    if node.domain == DOMAIN:
        return True
    if node.op_type not in _SEEN.get(node.domain, ()):
        return False
    parts = node.outputs if node.op_type == "Split" else node.inputs
    return len(parts) <= _MOST_PARTS.get(node.op_type, len(parts))
