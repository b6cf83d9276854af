"""Products of integers in the sizes of real models beside what this machine can do, in one run.

    python -m benchmarks.product_shares [--shapes 896x4864,4096x14336] [--threads 1,2] [--rows 512]

Writing one token is given as a share of a plain copy, bytes read and written together, and of plain
reading: a product only reads its weights. Each call works on other weights, so that all of them
together, ``--set`` MiB, come from memory like the layers of a model. Reading many tokens is given
as a share of the faster of two products of ONNX Runtime in the same shape, with all weights laid
out beforehand: MatMul in float32, and MatMulInteger, which has no scales and no blocks. Heads are
not read with: a model multiplies them with the tokens alone whose logits are asked for.
Everything is measured again in every round, and the fastest call counts. By default the shapes are
those of 0.5B, 1.5B and 8B: square, feed-forward and head.
"""

from __future__ import annotations

import argparse
import itertools
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from allmem_ops import DOMAIN, library
from allmem_ops.reference.product import interleaved, interleaved_scales
from benchmarks.arguments import at_least_one, integers, names, parser_of
from benchmarks.operators import Call, Row, best_time, bound, copying, session_of

SHAPES = "896x896,896x4864,896x151936,1536x8960,1536x151936,4096x4096,4096x14336,4096x128256"
AIM_WRITING, AIM_READING = 0.8, 0.6
_HEAD = 1 << 16
"""Outputs from which on a matrix is a head."""
_BLOCK = 32

Shape = tuple[int, int]
Arrays = dict[str, NDArray[Any]]


def shapes(text: str) -> list[Shape]:
    """Pairs of inputs and outputs, such as ``896x4864``, with commas between."""
    found = []
    for pair in names(text):
        inputs, cross, outputs = pair.partition("x")
        if not cross:
            raise argparse.ArgumentTypeError(f"{pair!r} is not INPUTSxOUTPUTS")
        found.append((at_least_one(inputs), at_least_one(outputs)))
    return found


def weights_of(shape: Shape, bits: int) -> Arrays:
    """Random numbers and scales as the operator takes them."""
    generator = np.random.default_rng(0)
    inputs, outputs = shape
    blocks = (outputs, -(-inputs // _BLOCK))
    numbers = generator.integers(0, 1 << bits, (*blocks, _BLOCK), np.uint8)
    scales = generator.uniform(0.001, 0.01, blocks).astype(np.float16)
    kinds = [scales, -8 * scales] if bits == 4 else [scales]
    return {"numbers": interleaved(numbers, bits), "scales": interleaved_scales(*kinds)}


def product_calls(
    shape: Shape, bits: int, rows: int, threads: int, working_set: int = 0
) -> list[Call]:
    """Calls of our product, each with weights of its own, which fill ``working_set`` together."""
    weights = weights_of(shape, bits)
    x = np.random.default_rng(1).standard_normal((rows, shape[0])).astype(np.float32)
    inputs: Arrays = {"x": x, **weights}
    node = helper.make_node(
        "QuantisedMatMul", list(inputs), ["y"], domain=DOMAIN, width=shape[1], bits=bits
    )
    session = session_of(_model(node, inputs, {}), threads)
    size = sum(array.nbytes for array in weights.values())
    return [bound(session, inputs, {}) for _ in range(max(1, working_set // size))]


def matmul_calls(shape: Shape, kind: str, rows: int, threads: int) -> list[Call]:
    """A product of ONNX Runtime with weights that it has laid out for itself."""
    generator = np.random.default_rng(0)
    if kind == "MatMul":
        x = generator.standard_normal((rows, shape[0])).astype(np.float32)
        weights: NDArray[Any] = generator.standard_normal(shape, np.float32)
    else:
        x = generator.integers(0, 256, (rows, shape[0]), np.uint8)
        weights = generator.integers(-127, 128, shape, np.int8)
    node = helper.make_node(kind, ["x", "w"], ["y"])
    session = session_of(_model(node, {"x": x}, {"w": weights}), threads)
    return [bound(session, {"x": x}, {})]


def _model(node: Any, inputs: Arrays, constants: Arrays) -> bytes:
    def kind(array: NDArray[Any]) -> int:
        return int(helper.np_dtype_to_tensor_dtype(array.dtype))

    out = TensorProto.INT32 if node.op_type == "MatMulInteger" else TensorProto.FLOAT
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info(n, kind(a), a.shape) for n, a in inputs.items()],
        [helper.make_tensor_value_info("y", out, None)],
        [helper.make_tensor(n, kind(a), a.shape, a.tobytes(), raw=True)
         for n, a in constants.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(DOMAIN, 1)]
    model: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    return model


def reading(pool: ThreadPoolExecutor, threads: int, working_set: int) -> list[Call]:
    """The other yardstick of writing: every number looked at once, a part by each thread."""
    parts = [np.ones(working_set // 8 // threads, np.int64) for _ in range(threads)]
    if threads == 1:
        return [lambda: (parts[0].max(), None)[1]]
    return [lambda: (list(pool.map(np.max, parts)), None)[1]]


def writing_rows(found: list[Shape], size: int, pool: ThreadPoolExecutor) -> list[Row]:
    """Copy and reading, then one row of each product."""
    copy = Row("copy", float(size), "GB/s", partial(copying, pool, working_set=size))
    read = Row("reading", float(size), "GB/s", partial(reading, pool, working_set=size))
    rows = [copy, read]
    for shape, bits in itertools.product(found, (4, 8)):
        nbytes = float(sum(array.nbytes for array in weights_of(shape, bits).values()))
        make = partial(product_calls, shape, bits, 1, working_set=size)
        rows.append(Row(_name(shape, bits), nbytes, "GB/s", make, copy, AIM_WRITING))
    return rows


def reading_rows(shape: Shape, tokens: int) -> list[Row]:
    """ONNX Runtime's products of a shape, then ours."""
    work = 2.0 * tokens * shape[0] * shape[1]
    kinds = ("MatMul", "MatMulInteger")
    rows = [Row(k, work, "GOP/s", partial(matmul_calls, shape, k, tokens)) for k in kinds]
    for bits in (4, 8):
        make = partial(product_calls, shape, bits, tokens)
        rows.append(Row(_name(shape, bits), work, "GOP/s", make, rows[1], AIM_READING))
    return rows


def _name(shape: Shape, bits: int) -> str:
    return f"{shape[0]} x {shape[1]}, int{bits}"


def measure(rows: list[Row], threads: list[int], rounds: int, seconds: float) -> None:
    """Fill the rows' times; what a row needs is there only while it is measured."""
    for _, count, row in itertools.product(range(rounds), threads, rows):
        found = best_time(row.make(count), seconds, count)
        row.seconds[count] = min(found, row.seconds.get(count, found))


def main() -> None:
    """Print the tables."""
    parser = parser_of("product_shares", __doc__)
    parser.add_argument("--shapes", type=shapes, default=shapes(SHAPES), help="of the matrices")
    parser.add_argument("--threads", type=integers, default=[1, 2], help="one column for each")
    parser.add_argument("--rows", type=at_least_one, default=512, help="tokens that are read")
    parser.add_argument("--set", type=at_least_one, default=512, help="MiB of weights of writing")
    parser.add_argument("--seconds", type=float, default=0.2, help="for each measurement")
    parser.add_argument("--rounds", type=at_least_one, default=3, help="of everything")
    arguments = parser.parse_args()
    threads = arguments.threads
    print(f"onnxruntime {onnxruntime.__version__}, kernels {library.cpu_path()}")
    print(
        "Columns for", ", ".join(map(str, threads)), "threads: time, rate, share of the yardstick"
    )
    with ThreadPoolExecutor(max(threads)) as pool:
        rows = writing_rows(arguments.shapes, arguments.set << 20, pool)
        measure(rows, threads, arguments.rounds, arguments.seconds)
    print(f"\nWriting one token, {arguments.set} MiB of weights; shares of the copy, of reading")
    for row in rows:
        shares = [f"{row.rate(n) / rows[1].rate(n):.0%}" for n in threads]
        print(row.text(threads), " of reading", ", ".join(shares), flush=True)
    for shape in arguments.shapes:
        if shape[1] >= _HEAD:
            continue
        rows = reading_rows(shape, arguments.rows)
        measure(rows, threads, arguments.rounds, arguments.seconds)
        fastest = max(rows[:2], key=lambda row: row.rate(threads[0]))
        print(f"\nReading {arguments.rows} tokens; shares of {fastest.name}")
        for row in rows:
            row.yardstick = fastest if row.yardstick else None
            print(row.text(threads), flush=True)


if __name__ == "__main__":
    main()
