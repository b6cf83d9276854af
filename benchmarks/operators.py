"""Speed of the native operators beside what this machine can do at all, in one run.

Prefill is given in GFLOP/s and as a share of a large float32 MatMul in ONNX Runtime; decode in
GB/s of state that must be read (and written), and as a share of a copy in memory.

    python benchmarks/operators.py [--threads 1 2] [--seconds 0.5] [--only attention]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

from allmem_ops import DOMAIN, OPERATORS, library

ELEMENT = {
    np.dtype(np.float32): TensorProto.FLOAT,
    np.dtype(np.float16): TensorProto.FLOAT16,
    np.dtype(np.int64): TensorProto.INT64,
}
Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Work:
    """One measurement: a node and what a call of it costs."""

    name: str
    operator: str
    attributes: dict[str, Any]
    inputs: Arrays
    flops: float = 0.0
    traffic: float = 0.0  # bytes


def bound(model: bytes, inputs: Arrays, states: dict[str, str], threads: int) -> Callable[[], None]:
    """A call of the model with every state bound in place."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    library.register(options)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    values = {n: onnxruntime.OrtValue.ortvalue_from_numpy(a) for n, a in inputs.items()}
    binding = session.io_binding()
    for name, value in values.items():
        binding.bind_ortvalue_input(name, value)
    for output in session.get_outputs():
        if output.name in states:
            binding.bind_ortvalue_output(output.name, values[states[output.name]])
        else:
            binding.bind_output(output.name, "cpu")
    return lambda: session.run_with_iobinding(binding)


def best_time(call: Callable[[], None], seconds: float, threads: int) -> float:
    """Least time of a call in ``seconds``.

    One thread is measured in processor time, which does not count what others on the machine take.
    """
    clock = time.thread_time if threads == 1 else time.perf_counter
    call()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = clock()
        call()
        best = min(best, clock() - begin)
    return best


def node_call(work: Work, threads: int) -> Callable[[], None]:
    """The operator of ``work`` as a one-node model."""
    operator = OPERATORS[work.operator]
    cache = work.inputs.get("past_key", np.empty(0, np.float32)).dtype
    outputs = [
        helper.make_tensor_value_info(
            t.name, ELEMENT[cache] if t.element == "cache" else TensorProto.FLOAT, None
        )
        for t in operator.outputs
    ]
    inputs = [
        helper.make_tensor_value_info(t.name, ELEMENT[work.inputs[t.name].dtype], None)
        for t in operator.inputs
    ]
    node = helper.make_node(
        operator.name,
        [i.name for i in inputs],
        [o.name for o in outputs],
        domain=DOMAIN,
        **work.attributes,
    )
    model = helper.make_model(
        helper.make_graph([node], "node", inputs, outputs),
        opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid(DOMAIN, 1)],
        ir_version=10,
    )
    states = {t.name.replace("past_", "present_", 1): t.name for t in operator.state}
    return bound(model.SerializeToString(), work.inputs, states, threads)


def matmul_gflops(threads: int, seconds: float, size: int = 1536) -> float:
    """The yardstick: a square float32 MatMul."""
    shape = [size, size]
    a, b = (helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in "ab")
    out = helper.make_tensor_value_info("c", TensorProto.FLOAT, shape)
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["c"])], "g", [a, b], [out])
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10
    ).SerializeToString()
    generator = np.random.default_rng(0)
    inputs = {n: generator.standard_normal(shape, np.float32) for n in "ab"}
    best = best_time(bound(model, inputs, {}, threads), seconds, threads)
    return 2 * size**3 / best / 1e9


def copy_bandwidth(threads: int, seconds: float, megabytes: int = 256) -> float:
    """GB/s read and written together by plain copies of distinct blocks, one a thread."""
    from concurrent.futures import ThreadPoolExecutor

    blocks = [
        (np.ones(megabytes << 17, np.float32), np.empty(megabytes << 17, np.float32))
        for _ in range(threads)
    ]

    def copy(block: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]) -> None:
        np.copyto(block[1], block[0])

    with ThreadPoolExecutor(threads) as pool:

        def copy_all() -> None:
            if threads == 1:
                copy(blocks[0])
            else:
                list(pool.map(copy, blocks))

        best = best_time(copy_all, seconds, threads)
    return 2 * threads * (megabytes << 19) / best / 1e9


def attention_work(
    name: str, tokens: int, query_heads: int, kv_heads: int, dim: int, cache: str, window: int
) -> Work:
    """A piece in the middle of a long document, with a full ring."""
    generator = np.random.default_rng(0)
    sinks, position = 128, 10 * window
    ring = (1, kv_heads, sinks + window, dim)
    inputs = {
        "qkv": generator.standard_normal(
            (1, tokens, (query_heads + 2 * kv_heads) * dim), np.float32
        ),
        "position": np.array([position], np.int64),
        "inverse_frequencies": (1e6 ** -(np.arange(dim // 2) / (dim // 2))).astype(np.float32),
        "query_norm": np.ones(dim, np.float32),
        "key_norm": np.ones(dim, np.float32),
        "past_key": generator.standard_normal(ring, np.float32).astype(cache),
        "past_value": generator.standard_normal(ring, np.float32).astype(cache),
    }
    seen = window + sinks
    return Work(
        name,
        "SlidingWindowAttention",
        {"window": window, "sinks": sinks, "scale": dim**-0.5, "norm_epsilon": 1e-6},
        inputs,
        flops=4.0 * tokens * query_heads * dim * seen,
        traffic=float(inputs["past_key"].nbytes + inputs["past_value"].nbytes),
    )


def memory_work(name: str, tokens: int, heads: int, dim: int, hidden: int, loss: str) -> Work:
    """A piece inside a chunk, without commit."""
    generator = np.random.default_rng(0)
    width, fast = heads * dim, (1, heads, 3, hidden, dim)

    def normal(*shape: int) -> np.ndarray[Any, Any]:
        return generator.standard_normal(shape, np.float32)

    inputs = {
        "qkv": normal(1, tokens, 3 * width),
        "control": normal(1, tokens, 5 * heads),
        "position": np.array([4096], np.int64),
        "conv_weight": normal(3, width, 4),
        "norm_gain": normal(3, heads, dim),
        "initial_weights": normal(heads, 3, hidden, dim),
        "initial_norms": np.abs(normal(heads, 2 * hidden + dim)),
        "past_weights": normal(*fast),
        "past_momentum": normal(*fast),
        "past_gradient": normal(*fast),
        "past_momentum_sum": normal(1, heads),
        "past_conv_tail": normal(1, 3, 3, width),
    }
    per_token = (18 if loss == "neg_dot" else 20) * width * hidden
    return Work(
        name,
        "TTTMemory",
        {"chunk": 2048, "inner_loss": loss},
        inputs,
        flops=float(tokens * per_token),
        traffic=3.0 * inputs["past_weights"].nbytes,  # weights read, gradient read and written
    )


def works(only: str) -> Iterator[Work]:
    """Sizes of real models: Qwen3-0.6B has 16 and 8 heads of 128, SmolLM2-135M 9 and 3 of 64."""
    if only in ("", "attention"):
        for cache in ("float16", "float32"):
            yield attention_work(
                f"attention 256 tok, 16/8x128 {cache}", 256, 16, 8, 128, cache, 4096
            )
            yield attention_work(f"attention 256 tok, 9/3x64 {cache}", 256, 9, 3, 64, cache, 2048)
        yield attention_work("attention 8 tok, 16/8x128 float16", 8, 16, 8, 128, "float16", 4096)
    if only in ("", "memory"):
        for loss in ("neg_dot", "l2"):
            yield memory_work(f"memory 256 tok, 8x64 h128 {loss}", 256, 8, 64, 128, loss)
        yield memory_work("memory 256 tok, 3x64 h128 neg_dot", 256, 3, 64, 128, "neg_dot")
        yield memory_work("memory 64 tok, 8x64 h128 neg_dot", 64, 8, 64, 128, "neg_dot")
    if only in ("", "attention"):
        for cache in ("float16", "float32"):
            yield attention_work(f"attention 1 tok, 16/8x128 {cache}", 1, 16, 8, 128, cache, 8192)
            yield attention_work(f"attention 1 tok, 9/3x64 {cache}", 1, 9, 3, 64, cache, 4096)
    if only in ("", "memory"):
        yield memory_work("memory 1 tok, 8x64 h128 neg_dot", 1, 8, 64, 128, "neg_dot")
        yield memory_work("memory 1 tok, 32x64 h256 neg_dot", 1, 32, 64, 256, "neg_dot")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=0.5, help="for each measurement")
    parser.add_argument("--only", choices=["", "attention", "memory"], default="")
    arguments = parser.parse_args()
    print(f"onnxruntime {onnxruntime.__version__}, kernels {library.cpu_path()}")
    for threads in arguments.threads:
        matmul = matmul_gflops(threads, arguments.seconds)
        copy = copy_bandwidth(threads, arguments.seconds)
        print(f"\n{threads} thread(s): MatMul {matmul:.0f} GFLOP/s, copy {copy:.1f} GB/s")
        for work in works(arguments.only):
            seconds = best_time(node_call(work, threads), arguments.seconds, threads)
            if work.inputs["qkv"].shape[1] > 1:
                rate, unit, peak = work.flops / seconds / 1e9, "GFLOP/s", matmul
            else:
                rate, unit, peak = work.traffic / seconds / 1e9, "GB/s", copy
            print(
                f"{work.name:45s} {seconds * 1e3:9.3f} ms {rate:8.1f} {unit:8s}"
                f"{100 * rate / peak:4.0f} %"
            )


if __name__ == "__main__":
    main()
