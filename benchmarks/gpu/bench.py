"""What every measurement is given, and how a list of them is worked off."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch

from allmem_ops.kernel_library import KernelLibrary
from benchmarks.gpu.report import Report
from benchmarks.gpu.timing import Stopwatch, reason


@dataclass
class Bench:
    """What measurements share.

    Attributes:
        library: the kernels; None where there are none, and ``without`` says why.
        peaks: what the machine can do at most: ``copy`` in bytes a second, others in operations
            a second, by element type.
    """

    device: torch.device
    watch: Stopwatch
    report: Report
    library: KernelLibrary | None
    without: str = ""
    rehearsal: bool = False
    quick: bool = False
    peaks: dict[str, float] = field(default_factory=dict)

    def share(self, rate: float, peak: str) -> float:
        """A rate as a share of what the machine can do; NaN where that was not measured."""
        return rate / self.peaks.get(peak, float("nan"))

    def free(self) -> None:
        """Give cached device memory back."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


@dataclass(frozen=True)
class Task:
    """One measurement; those of low ``order`` are the most important and come first.

    Attributes:
        kernels: whether it needs the library of the kernels.
    """

    section: str
    name: str
    order: int
    run: Callable[[Bench], None]
    kernels: bool = True


def work_off(bench: Bench, tasks: Iterable[Task]) -> None:
    """Run tasks until the time is up; what was not run is reported."""
    for task in sorted(tasks, key=lambda task: task.order):
        if bench.report.seconds_left() <= 0:
            bench.report.not_run(task.section, task.name, "the time was up")
        elif task.kernels and bench.library is None:
            bench.report.not_run(task.section, task.name, bench.without)
        else:
            try:
                task.run(bench)
            except Exception as error:  # the next measurement may still succeed
                bench.report.not_run(task.section, task.name, reason(error))
        bench.free()
