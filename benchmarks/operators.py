"""Speed of the native operators beside what this machine can do at all, in one run.

    python -m benchmarks.operators [--threads 1,2] [--seconds 0.3] [--rounds 3] [--only memory]

Prefill is given as a share of a large float32 MatMul in ONNX Runtime. Decode is given as a share of
a plain copy, bytes read and written together, over a working set of the same size: each call of a
decode row works on another copy of the state, so that a small set stays in a cache and a large one
comes from memory, like the layers of a model. Everything is measured again in every round,
yardstick beside operator, and the fastest call counts.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

from allmem_ops import DOMAIN, library
from allmem_runtime.health.one_node import one_node_model
from allmem_runtime.quantities import format_bytes
from benchmarks.arguments import at_least_one, integers, parser_of
from benchmarks.operator_work import Arrays, Work, works

LAST_CACHE = Path("/sys/devices/system/cpu/cpu0/cache/index3/size")
MATRIX = 1536
AIM_OF_TWO_THREADS = 1.8

Call = Callable[[], None]


def session_of(model: bytes, threads: int) -> onnxruntime.InferenceSession:
    """A session with our library."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    library.register(options)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def bound(session: onnxruntime.InferenceSession, inputs: Arrays, states: dict[str, str]) -> Call:
    """A call with copies of ``inputs``, every state bound in place."""
    values = {n: onnxruntime.OrtValue.ortvalue_from_numpy(a.copy()) for n, a in inputs.items()}
    binding = session.io_binding()
    for name, value in values.items():
        binding.bind_ortvalue_input(name, value)
    for output in session.get_outputs():
        if output.name in states:
            binding.bind_ortvalue_output(output.name, values[states[output.name]])
        else:
            binding.bind_output(output.name, "cpu")
    return lambda: session.run_with_iobinding(binding)


def node_model(work: Work) -> bytes:
    """The operator of ``work`` as a one-node model."""
    operator = work.operator
    cache = work.inputs["past_key"].dtype.name if "past_key" in work.inputs else "float32"
    inputs = {t.name: work.inputs[t.name] for t in operator.inputs}
    outputs = [(t.name, cache if t.element == "cache" else "float32") for t in operator.outputs]
    return one_node_model(operator.name, DOMAIN, operator.version, inputs, outputs, work.attributes)


def calls_of(work: Work, threads: int, working_set: int) -> list[Call]:
    """Calls on as many copies of the state as fill ``working_set``, all on one session."""
    session = session_of(node_model(work), threads)
    states = {t.name.replace("past_", "present_", 1): t.name for t in work.operator.state}
    copies = max(1, working_set // work.state_bytes) if work.kind == "decode" else 1
    return [bound(session, work.inputs, states) for _ in range(copies)]


def matmul(threads: int) -> list[Call]:
    """The yardstick of prefill: a square float32 MatMul."""
    shape = [MATRIX, MATRIX]
    a, b = (helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in "ab")
    out = helper.make_tensor_value_info("c", TensorProto.FLOAT, shape)
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["c"])], "g", [a, b], [out])
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10
    ).SerializeToString()
    generator = np.random.default_rng(0)
    inputs = {n: generator.standard_normal(shape, np.float32) for n in "ab"}
    return [bound(session_of(model, threads), inputs, {})]


def copying(pool: ThreadPoolExecutor, threads: int, working_set: int) -> list[Call]:
    """The yardstick of decode: a plain copy, each thread of its own half of the working set."""
    count = working_set // (2 * 4 * threads)
    blocks = [(np.ones(count, np.float32), np.empty(count, np.float32)) for _ in range(threads)]

    def copy(block: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]) -> None:
        np.copyto(block[1], block[0])

    if threads == 1:
        return [lambda: copy(blocks[0])]

    def copy_all() -> None:
        for _ in pool.map(copy, blocks):
            pass

    return [copy_all]


def best_time(calls: list[Call], seconds: float, threads: int) -> float:
    """Least time of a call, the mean of a round through all of them.

    One thread is measured in processor time, which does not count what others on the machine take.
    """
    clock = time.thread_time if threads == 1 else time.perf_counter
    for call in calls:
        call()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = clock()
        for call in calls:
            call()
        best = min(best, (clock() - begin) / len(calls))
    return best


@dataclass
class Row:
    """A line of the report: least seconds for each number of threads."""

    name: str
    amount: float  # operations or bytes of a call
    unit: str
    make: Callable[[int], list[Call]]
    yardstick: Row | None = None
    aim: float = 0.0
    seconds: dict[int, float] = field(default_factory=dict)

    def rate(self, threads: int) -> float:
        """Giga-units a second."""
        return self.amount / self.seconds[threads] / 1e9

    def text(self, threads: list[int]) -> str:
        """What there is to print."""
        parts = [f"{self.name:44s}"]
        for n in threads:
            parts.append(f"{self.seconds[n] * 1e3:9.3f} ms {self.rate(n):7.1f} {self.unit}")
            if self.yardstick is not None:
                share = self.rate(n) / self.yardstick.rate(n)
                short = "" if share >= self.aim else f" (aim {self.aim:.0%})"
                parts.append(f"{share:5.0%}{short:10s}")
        if len(threads) == 2:
            parts.append(f"x {self.seconds[threads[0]] / self.seconds[threads[1]]:.2f}")
        return "  ".join(parts)


def plan(only: str, sets: list[int], pool: ThreadPoolExecutor) -> list[tuple[str, list[Row]]]:
    """Sections of rows; each section begins with its yardstick."""
    product = Row("MatMul of ONNX Runtime", 2.0 * MATRIX**3, "GFLOP/s", matmul)
    all_works = list(works(only))
    sections = [(f"Prefill beside a float32 MatMul of {MATRIX} x {MATRIX}", [product])]
    sections[0][1].extend(
        Row(w.name, w.flops, "GFLOP/s", partial(calls_of, w, working_set=0), product, w.aim)
        for w in all_works
        if w.kind == "prefill"
    )
    for size in sets:
        copy = Row("copy", float(size), "GB/s", partial(copying, pool, working_set=size))
        rows = [copy]
        rows += [
            Row(w.name, w.traffic, "GB/s", partial(calls_of, w, working_set=size), copy, w.aim)
            for w in all_works
            if w.kind == "decode"
        ]
        sections.append((f"Decode over a working set of {format_bytes(size)}, {where(size)}", rows))
    return sections


def where(size: int) -> str:
    """Whether a working set fits this machine's last cache."""
    if not LAST_CACHE.is_file():
        return "and whether that fits the last cache is not known here"
    text = LAST_CACHE.read_text().strip()
    cache = int(text.removesuffix("K")) << 10
    fits = "which fits" if size <= cache else "more than fits"
    return f"{fits} the last cache of {format_bytes(cache)}"


def main() -> None:
    """Print the table."""
    parser = parser_of("operators", __doc__)
    parser.add_argument("--threads", type=integers, default=[1, 2], help="one column for each")
    parser.add_argument("--seconds", type=float, default=0.2, help="for each measurement")
    parser.add_argument("--rounds", type=at_least_one, default=3, help="of everything")
    parser.add_argument(
        "--only", choices=["", "attention", "memory"], default="", help="one of the operators"
    )
    parser.add_argument(
        "--sets", type=integers, default=[8, 128], help="working sets of decode in MiB"
    )
    arguments = parser.parse_args()
    print(f"onnxruntime {onnxruntime.__version__}, kernels {library.cpu_path()}")
    with ThreadPoolExecutor(max(arguments.threads)) as pool:
        sections = plan(arguments.only, [size << 20 for size in arguments.sets], pool)
        steps = itertools.product(range(arguments.rounds), arguments.threads, sections)
        for _, threads, (_, rows) in steps:
            for row in rows:
                found = best_time(row.make(threads), arguments.seconds, threads)
                row.seconds[threads] = min(found, row.seconds.get(threads, found))
    counts = ", ".join(str(n) for n in arguments.threads)
    print(f"Columns for {counts} threads; last, how much faster with the second number of them.")
    for title, rows in sections:
        print(f"\n{title}")
        for row in rows:
            print(row.text(arguments.threads))
    scaled = [row for _, rows in sections for row in rows if row.yardstick is not None]
    if arguments.threads == [1, 2]:
        slow = [r for r in scaled if r.seconds[1] / r.seconds[2] < AIM_OF_TWO_THREADS]
        print(
            f"\n{len(scaled) - len(slow)} of {len(scaled)} rows gain {AIM_OF_TWO_THREADS} or more"
        )


if __name__ == "__main__":
    main()
