"""QuantisedMatMul against MatMulNBits of ONNX Runtime, alternately: one row, several, a piece.

    python -m benchmarks.products [--rows 1,4,128,512] [--repeats 60] [--threads 1]

For each shape, enough matrices in one graph to leave the last cache (as the layers of a model do),
every one multiplied once in a run. Prints the least time of each, the weights' bytes over time for
one row, and how many times as fast ours is. Four bits: MatMulNBits with whole zero points, accuracy
level 4.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from allmem_ops import DOMAIN, library
from allmem_ops.reference.product import interleaved, interleaved_scales
from benchmarks.arguments import at_least_one, integers, parser_of

Arrays = dict[str, NDArray[Any]]

SHAPES = ((576, 1152, 4), (576, 3072, 4), (1536, 576, 4), (576, 49152, 8))
COLD = 64 << 20
"""Bytes of weights in a graph, at most 24 matrices."""


def session(
    nodes: list[NodeProto], tensors: Arrays, inputs: int, count: int, threads: int
) -> ort.InferenceSession:
    graph = helper.make_graph(
        nodes,
        "products",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", inputs])],
        [helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, None) for i in range(count)],
        [
            helper.make_tensor(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape,
                               a.tobytes(), raw=True)
            for name, a in tensors.items()
        ],
    )  # fmt: skip
    opsets = [("", 21), (DOMAIN, 1), ("com.microsoft", 1)]
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid(*pair) for pair in opsets], ir_version=10
    )
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    library.register(options)
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def both(
    inputs: int, outputs: int, bits: int, count: int, threads: int, rng: np.random.Generator
) -> list[ort.InferenceSession]:
    blocks = inputs // 32
    ours: list[NodeProto] = []
    theirs: list[NodeProto] = []
    our_tensors: Arrays = {}
    their_tensors: Arrays = {}
    for i in range(count):
        numbers = rng.integers(0, 1 << bits, (outputs, blocks, 32), np.uint8)
        scales = rng.uniform(0.001, 0.01, (outputs, blocks)).astype(np.float16)
        kinds = [scales, -8 * scales] if bits == 4 else [scales]
        our_tensors |= {f"n{i}": interleaved(numbers, bits), f"s{i}": interleaved_scales(*kinds)}
        ours.append(helper.make_node("QuantisedMatMul", ["x", f"n{i}", f"s{i}"], [f"y{i}"],
                                     domain=DOMAIN, width=outputs, bits=bits))  # fmt: skip
        packed = numbers if bits == 8 else numbers[..., ::2] | numbers[..., 1::2] << 4
        their_tensors |= {f"n{i}": packed, f"s{i}": scales.astype(np.float32)}
        names = ["x", f"n{i}", f"s{i}"]
        if bits == 4:
            their_tensors[f"z{i}"] = np.full((outputs, (blocks + 1) // 2), 0x88, np.uint8)
            names.append(f"z{i}")
        theirs.append(helper.make_node("MatMulNBits", names, [f"y{i}"], domain="com.microsoft",
                                       K=inputs, N=outputs, bits=bits, block_size=32,
                                       accuracy_level=4))  # fmt: skip
    return [
        session(nodes, tensors, inputs, count, threads)
        for nodes, tensors in ((ours, our_tensors), (theirs, their_tensors))
    ]


def main() -> None:
    """Print one line for each shape and number of rows."""
    parser = parser_of("products", __doc__)
    parser.add_argument("--rows", type=integers, default=[1, 4, 128, 512], help="of an input")
    parser.add_argument("--repeats", type=at_least_one, default=60, help="turns of few rows")
    parser.add_argument("--threads", type=at_least_one, default=1, help="of a product")
    arguments = parser.parse_args()
    repeats, threads = arguments.repeats, arguments.threads
    rng = np.random.default_rng(0)
    print(
        f"{library.cpu_path()}, threads {threads}; "
        f"ms of processor time a product, least of {repeats}"
    )
    print("inputs outputs bits  rows     ours   theirs    times  GB/s ours  differ")
    for inputs, outputs, bits in SHAPES:
        size = inputs * outputs // 32 * (20 if bits == 4 else 34)
        count = max(1, min(24, COLD // size))
        ours, theirs = both(inputs, outputs, bits, count, threads, rng)
        for height in arguments.rows:
            feed = {"x": rng.standard_normal((height, inputs)).astype(np.float32)}
            least, ratios, results = [1e9, 1e9], [], []
            for s in (ours, theirs):
                results.append(s.run(["y0"], feed)[0])
            turns = max(3, repeats if height < 16 else repeats // 8)
            for _ in range(turns):
                pair = []
                for which, s in enumerate((ours, theirs)):
                    start = time.process_time()
                    s.run(None, feed)
                    pair.append(time.process_time() - start)
                    least[which] = min(least[which], pair[-1])
                ratios.append(pair[1] / pair[0])
            a, b = (1e3 * x / count for x in least)
            off = np.linalg.norm(results[0] - results[1]) / np.linalg.norm(results[1])
            print(
                f"{inputs:6} {outputs:7} {bits:4} {height:5} {a:8.3f} {b:8.3f} {b / a:8.2f}"
                f" {size / a / 1e6:10.1f}  {off:.0e}  median of turns {np.median(ratios):.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
