"""TTTMemory beside the PyTorch operator, compiled: prefill and decode."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from allmem_ops.kernel_library import Unavailable
from allmem_ops.schema import TTT_MEMORY
from benchmarks.gpu.bench import Bench, Task
from benchmarks.gpu.bound import BoundOperator, launch_all
from benchmarks.gpu.peaks import matmul_precision
from benchmarks.gpu.timing import Call, Contender

SECTION = "memory"
OURS = "ours"
FLUSH_BYTES = 256 << 20


@dataclass(frozen=True)
class Sizes:
    """Heads of the memory; the first are those of a converted model with eight key/value heads."""

    heads: int = 8
    dim: int = 64
    hidden: int = 128
    chunk: int = 512

    def __str__(self) -> str:
        return f"{self.heads}x{self.dim} hidden {self.hidden} chunk {self.chunk}"

    @property
    def matrices(self) -> int:
        """Bytes of all fast weights."""
        return 12 * self.heads * self.hidden * self.dim


def inputs(
    sizes: Sizes, tokens: int, position: int, dtype: torch.dtype, device: torch.device
) -> dict[str, Tensor]:
    """Random inputs of a call."""
    width, fast = sizes.heads * sizes.dim, (1, sizes.heads, 3, sizes.hidden, sizes.dim)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, device=device)

    initial = normal(*fast[1:]) / sizes.dim**0.5
    gate, up, down = initial.unbind(1)
    norms = torch.cat([gate.norm(dim=2), up.norm(dim=2), down.norm(dim=1)], dim=1)
    return {
        "qkv": normal(1, tokens, 3 * width).to(dtype),
        "control": (normal(1, tokens, 5 * sizes.heads) - 3).to(dtype),
        "position": torch.tensor([position], device=device),
        "conv_weight": normal(3, width, 4) / 2,
        "norm_gain": torch.ones(3, sizes.heads, sizes.dim, device=device),
        "initial_weights": initial,
        "initial_norms": norms,
        "past_weights": initial[None].clone(),
        "past_momentum": 0.01 * normal(*fast),
        "past_gradient": 0.01 * normal(*fast),
        "past_momentum_sum": normal(1, sizes.heads).abs(),
        "past_conv_tail": normal(1, 3, 3, width),
    }


def ours(bench: Bench, sizes: Sizes, given: list[dict[str, Tensor]]) -> Callable[[], Call]:
    """Our operator, states in place."""

    def make() -> Call:
        if bench.library is None:
            raise Unavailable(bench.without)
        attributes = {"chunk": sizes.chunk}
        # Copies, since the others shall see the states as they were.
        made = [
            BoundOperator(
                bench.library, TTT_MEMORY, {n: t.clone() for n, t in one.items()}, attributes
            )
            for one in given
        ]
        return partial(launch_all, made)

    return make


def compiled(
    bench: Bench, sizes: Sizes, given: list[dict[str, Tensor]], precision: str
) -> Callable[[], Call]:
    """The PyTorch operator through torch.compile."""

    def make() -> Call:
        step = importlib.import_module("allmem_exporters.model.operators.memory").memory_step
        torch._dynamo.reset()
        run = torch.compile(step, backend="eager" if bench.rehearsal else "inductor", dynamic=False)
        rows = [[one[t.name] for t in TTT_MEMORY.inputs] for one in given]

        def call() -> object:
            with torch.no_grad(), matmul_precision(precision):
                return [run(*row, chunk=sizes.chunk) for row in rows]

        return call

    return make


def step(bench: Bench, sizes: Sizes, tokens: int, commits: bool, dtype: torch.dtype) -> None:
    """A piece, or one token, that fills its chunk or does not."""
    position = 16 * sizes.chunk + (sizes.chunk - tokens if commits else 0)
    copies = 1
    if tokens == 1:
        copies = 2 if bench.rehearsal else max(2, min(64, FLUSH_BYTES // (4 * sizes.matrices)))
    given = [inputs(sizes, tokens, position, dtype, bench.device) for _ in range(copies)]
    race = bench.watch.race(
        [
            Contender(OURS, ours(bench, sizes, given), copies),
            Contender("compiled PyTorch", compiled(bench, sizes, given, "highest"), copies),
            Contender("compiled PyTorch, TF32", compiled(bench, sizes, given, "high"), copies),
        ]
    )
    figures: dict[str, object] = {}
    if OURS in race.seconds and tokens == 1 and not commits:
        # Weights are read, the gradient is read and written.
        rate = 3 * sizes.matrices / race.median(OURS)
        figures = {"GBps": rate / 1e9, "of copy bandwidth": bench.share(rate, "copy")}
    elif OURS in race.seconds:
        work = 18.0 * tokens * sizes.heads * sizes.dim * sizes.hidden
        rate = work / race.median(OURS)
        figures = {"TFLOPS": rate / 1e12, "of tf32 peak": bench.share(rate, "tf32")}
    what = f"{tokens} tokens" if tokens > 1 else "decode"
    end = ", commits" if commits else ""
    element = str(dtype).removeprefix("torch.")
    bench.report.race(SECTION, f"{what}{end} {element} {sizes}", race, OURS, **figures)


def tasks(bench: Bench) -> list[Task]:
    """The most telling first."""
    half, single = torch.float16, torch.float32
    usual, wide = Sizes(), Sizes(32, 64, 256)
    rows: list[tuple[int, Sizes, int, bool, torch.dtype]] = [
        (2, usual, 512, True, half),
        (2, usual, 1, False, half),
        (3, usual, 128, False, half),
        (4, wide, 512, True, half),
        (4, wide, 1, False, half),
        (5, usual, 1, True, half),
        (6, Sizes(chunk=2048), 2048, True, half),
        (7, usual, 512, True, single),
        (7, usual, 1, False, single),
    ]
    if bench.quick:
        rows = rows[:2]
    if bench.rehearsal:
        small = Sizes(2, 8, 16, 16)
        rows = [(1, small, 8, True, half), (1, small, 1, False, half)]
    return [
        Task(
            SECTION,
            f"{tokens} tokens {sizes} {commits=}",
            order,
            partial(step, sizes=sizes, tokens=tokens, commits=commits, dtype=dtype),
        )
        for order, sizes, tokens, commits, dtype in rows
    ]
