"""The fastest that any system could read here: what the machine itself multiplies.

A figure above it was not computed: a cache answered. Measured are float32 and 8-bit integer
products of ONNX Runtime, the latter with AMX or VNNI where there are any; the faster one counts.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from allmem_runtime.config import Manifest
from allmem_runtime.flops import Shape

SIZE = 1536
ROUNDS = 5
SLACK = 2.0
"""A figure may be this many times the product measured here, which is not the best possible one."""


def most_tokens_per_second(manifest: Manifest, threads: int) -> float:
    """Tokens a second of the decoder's matrix products alone, without attention, memory and head.

    Args:
        manifest: of the model whose decoder is compared.
        threads: CPU threads of every system.
    """
    shape = Shape.of(manifest)
    query, pair = shape.query_heads * shape.head, 2 * shape.kv_heads * shape.head
    weights = shape.hidden * (2 * query + pair + 3 * shape.feed_forward) * shape.layers
    return SLACK * max(_products(threads)) / (2.0 * weights)


def _products(threads: int) -> Iterator[float]:
    """Operations a second of a float32 and an 8-bit integer product."""
    rng = np.random.default_rng(0)
    wide = rng.normal(size=(SIZE, SIZE)).astype(np.float32)
    yield _rate("MatMul", TensorProto.FLOAT, TensorProto.FLOAT, (wide, wide), threads)
    narrow = rng.integers(0, 127, (SIZE, SIZE))
    inputs = narrow.astype(np.uint8), narrow.astype(np.int8)
    yield _rate("MatMulInteger", TensorProto.UINT8, TensorProto.INT8, inputs, threads)


def _rate(
    kind: str, first: int, second: int, values: tuple[NDArray[np.generic], ...], threads: int
) -> float:
    result = TensorProto.FLOAT if kind == "MatMul" else TensorProto.INT32
    square = [SIZE, SIZE]
    graph = helper.make_graph(
        [helper.make_node(kind, ["a", "b"], ["c"])],
        "product",
        [helper.make_tensor_value_info("a", first, square)],
        [helper.make_tensor_value_info("c", result, square)],
        [onnx.numpy_helper.from_array(values[1], "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    best = float("inf")
    for _ in range(ROUNDS + 1):
        began = time.perf_counter()
        session.run(None, {"a": values[0]})
        best = min(best, time.perf_counter() - began)
    return 2.0 * SIZE**3 / best
