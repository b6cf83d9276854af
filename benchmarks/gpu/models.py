"""Whole models of published shapes with random weights: reading, writing and memory, near and far.

The floor of decoding is the time in which the bytes that a token must read pass at the measured
copy bandwidth: all weights once (of the embedding only where it is the output matrix too), the
ring, the memory's weights, and its gradient twice.
"""

from __future__ import annotations

import importlib
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

from allmem_ops.kernel_library import Unavailable
from benchmarks.gpu.bench import Bench, Task
from benchmarks.gpu.machine import runtime_problem
from benchmarks.gpu.timing import spread

SECTION = "models"
MARKS = (1_000, 8_000, 128_000, 1_000_000)
WRITTEN = 128  # tokens of one measurement of decoding
TURNS = 9
AHEAD = 4_096  # tokens over which reading is measured at a mark


def device_bytes(bench: Bench) -> int:
    """Device memory in use by everything; 0 on the CPU."""
    if bench.device.type != "cuda":
        return 0
    free, total = torch.cuda.mem_get_info(bench.device)
    return total - free


def random_ids(count: int, vocabulary: int) -> list[int]:
    """Token ids that mean nothing."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(vocabulary, (count,), generator=generator).tolist()


def read(session: Any, count: int) -> float:
    """Tokens a second of reading so many."""
    ids = random_ids(count, session.model.manifest.backbone.vocab_size)
    begin = time.perf_counter()
    session.feed(ids[:-1])
    session.feed(ids[-1:], logits="last")  # logits come to the host, so the work is done
    return count / (time.perf_counter() - begin)


def write(session: Any, count: int) -> float:
    """Seconds a token of writing so many on a copy: the median, each with its choice."""
    fork, times = session.fork(), []
    row = fork.feed([1], logits="last")
    for _ in range(count):
        begin = time.perf_counter()
        row = fork.feed([int(row.argmax())], logits="last")
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def floor_bytes(model: Any, folder: Path) -> int:
    """Bytes that decoding one token must move."""
    from allmem_runtime.info import state_parts

    manifest = model.manifest
    weights = sum(record.bytes for name, record in manifest.files.items() if name.endswith(".data"))
    if not weights:
        weights = sum(path.stat().st_size for path in folder.glob("model.onnx*"))
    state = state_parts(manifest)
    moved = state["key"] + state["value"] + state["weights"] + 2 * state["gradient"]
    return int(weights + moved)


def make(bench: Bench, shape: str, folder: Path) -> None:
    """The model on disk."""
    try:
        shapes = importlib.import_module("benchmarks.random_models")
    except ImportError as error:
        raise Unavailable(
            f"models cannot be made here ({error}): pip install '.[export]'"
        ) from None
    changes: dict[str, object] = {}
    if bench.rehearsal:
        changes = {"num_hidden_layers": 1, "hidden_size": 64, "intermediate_size": 64}
        changes |= {"vocab_size": 512, "window": 32, "chunk": 16, "sinks": 4}
        changes |= {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}
    shapes.random_model(shape, folder, "float32" if bench.rehearsal else "float16", **changes)


def model(bench: Bench, shape: str, marks: tuple[int, ...]) -> None:
    """One model from its beginning to the last mark, and near against far alternately."""
    runtime = importlib.import_module("allmem_runtime")
    if not bench.rehearsal:
        problem = runtime_problem()
        if problem:
            raise Unavailable(problem)
    with tempfile.TemporaryDirectory(prefix="allmem-") as temporary:
        folder = Path(temporary) / "model"
        make(bench, shape, folder)
        before = device_bytes(bench)
        loaded = runtime.load(folder, device="cpu" if bench.rehearsal else "cuda")
        _measure(bench, shape, marks, loaded, folder, before)


def _measure(
    bench: Bench, shape: str, marks: tuple[int, ...], loaded: Any, folder: Path, before: int
) -> None:
    report = bench.report
    captured = getattr(loaded.engine, "cuda_graph", False)
    session = loaded.session(undo=False)
    ahead, written = (40, 4) if bench.rehearsal else (AHEAD, WRITTEN)
    least = floor_bytes(loaded, folder) / bench.peaks.get("copy", float("nan"))
    read(session, min(marks[0] // 2, ahead))  # the first piece of a length takes longer
    near, resident = None, {}
    for mark in marks:
        start = session.position
        begun = time.perf_counter()
        while session.position < mark - ahead:
            if report.seconds_left() <= 0:
                report.not_run(SECTION, f"{shape} from {mark} tokens on", "the time was up")
                return
            count = min(8 * ahead, mark - ahead - session.position)
            session.feed(random_ids(count, loaded.manifest.backbone.vocab_size))
        way = time.perf_counter() - begun
        way_tokens = session.position - start
        rate = read(session, max(mark - session.position, 2))
        seconds = write(session, written)
        if mark == marks[min(1, len(marks) - 1)]:
            near = session.fork()
        resident[mark] = device_bytes(bench)
        report.add(
            SECTION,
            f"{shape} after {mark} tokens",
            **{
                "reading, tokens a second": rate,
                "on the way there": way_tokens / way if way_tokens else rate,
                "writing, tokens a second": 1 / seconds,
                "over the bandwidth floor": seconds / least,
                "captured": captured,
                "device MiB": (resident[mark] - before) / 2**20,
                "state MiB": loaded.state_bytes / 2**20,
            },
        )
    if near is None or len(marks) < 3:
        return
    pairs = [(write(session, written), write(near, written)) for _ in range(TURNS)]
    middle, low, high = spread([far / close for far, close in pairs])
    reading = [read(near.fork(), ahead) / read(session.fork(), ahead) for _ in range(TURNS)]
    report.add(
        SECTION,
        f"{shape}: {marks[-1]} tokens over {marks[1]}, alternately",
        **{
            "time of a written token": middle,
            "from": low,
            "to": high,
            "time of reading": statistics.median(reading),
            "device memory": resident[marks[-1]] / max(resident[marks[1]], 1),
        },
    )


def tasks(bench: Bench) -> list[Task]:
    """The smaller model first, and at first not far."""
    if bench.rehearsal:
        run = partial(model, shape="smollm2-135m", marks=(60, 120, 240))
        return [Task(SECTION, "smollm2-135m", 1, run, kernels=False)]
    marks = MARKS[:2] if bench.quick else MARKS
    made = []
    for shape, order in (("qwen3-0.6b", 3), ("qwen3-1.7b", 6)):
        if bench.quick and order > 3:
            continue
        run = partial(model, shape=shape, marks=marks)
        made.append(Task(SECTION, shape, order, run, kernels=False))
    return made
