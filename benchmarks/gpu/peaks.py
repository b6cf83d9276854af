"""What the machine can do at most, measured: matrix products and copies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from benchmarks.gpu.bench import Bench, Task
from benchmarks.gpu.timing import Call, Contender

SECTION = "machine"


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """``highest`` is float32 throughout, ``high`` lets matrix instructions round to TF32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _products(size: int, dtype: torch.dtype, device: torch.device) -> Callable[[], Call]:
    def make() -> Call:
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        out = torch.empty_like(a)
        return lambda: torch.matmul(a, b, out=out)

    return make


def _peaks(bench: Bench) -> None:
    size = 64 if bench.rehearsal else 8192
    kinds = {
        "float16": (torch.float16, "highest"),
        "bfloat16": (torch.bfloat16, "highest"),
        "tf32": (torch.float32, "high"),
        "float32": (torch.float32, "highest"),
    }
    for name, (dtype, precision) in kinds.items():
        with matmul_precision(precision):
            race = bench.watch.race([Contender(name, _products(size, dtype, bench.device))])
        if name in race.seconds:
            bench.peaks[name] = 2 * size**3 / race.median(name)
            bench.report.add(SECTION, f"product {size}^3 {name}", TFLOPS=bench.peaks[name] / 1e12)
        for why in race.failures.values():
            bench.report.not_run(SECTION, f"product {size}^3 {name}", why)

    def copying() -> Call:
        source = torch.ones((1 << 12) if bench.rehearsal else (1 << 30), dtype=torch.uint8)
        source = source.to(bench.device)
        target = torch.empty_like(source)
        bytes_.append(2 * source.numel())
        return lambda: target.copy_(source)

    bytes_: list[int] = []
    race = bench.watch.race([Contender("copy", copying)])
    if "copy" in race.seconds:
        bench.peaks["copy"] = bytes_[0] / race.median("copy")
        bench.report.add(SECTION, "copy, read and written", GBps=bench.peaks["copy"] / 1e9)
    for why in race.failures.values():
        bench.report.not_run(SECTION, "copy", why)


def tasks(_bench: Bench) -> list[Task]:
    """The yardsticks; everything else is given as a share of them."""
    return [Task(SECTION, "peaks", 0, _peaks, kernels=False)]
