"""Speed on a GPU, as shares of what the card can do and as ratios to others in the same run.

    python -m benchmarks.gpu [--quick] [--only attention,memory,models] [--json FILE] [--minutes N]
    python -m benchmarks.gpu --rehearse LIBRARY     the same code on the CPU: no speeds

Needs PyTorch with CUDA. The kernels are built with nvcc, or named by ALLMEM_CUDA_KERNELS; whole
models need onnxruntime-gpu and the operator library with CUDA. What is missing is said, and the
rest runs. The most telling measurements come first, and each is written to FILE at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from allmem_ops.kernel_build import find
from allmem_ops.kernel_library import KernelLibrary, Unavailable
from benchmarks.arguments import existing_file, names, parser_of
from benchmarks.gpu import kernels_attention, kernels_memory, models, peaks
from benchmarks.gpu.bench import Bench, work_off
from benchmarks.gpu.machine import describe
from benchmarks.gpu.report import Report
from benchmarks.gpu.timing import Stopwatch

SECTIONS = {"attention": kernels_attention, "memory": kernels_memory, "models": models}


def arguments_of(given: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = parser_of("gpu", __doc__)
    parser.add_argument("--quick", action="store_true", help="only the most telling")
    parser.add_argument("--only", type=names, default=list(SECTIONS), help="sections, with commas")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="file that always holds all results so far"
    )
    parser.add_argument("--minutes", type=float, help="start nothing after that time")
    parser.add_argument(
        "--rehearse", type=existing_file, help="library that runs the kernels on the CPU"
    )
    parsed = parser.parse_args(given)
    unknown = set(parsed.only) - set(SECTIONS)
    if unknown:
        parser.error(f"--only knows {', '.join(SECTIONS)}, not {', '.join(sorted(unknown))}")
    return parsed


def bench_of(arguments: argparse.Namespace) -> Bench:
    """Device, library and report.

    Raises:
        Unavailable: there is no device.
    """
    rehearsal = arguments.rehearse is not None
    if not rehearsal and not torch.cuda.is_available():
        raise Unavailable(
            f"PyTorch {torch.__version__} sees no CUDA device, and nothing else is measured here; "
            "--rehearse tries the code on the CPU"
        )
    device = torch.device("cpu" if rehearsal else "cuda")
    watch = Stopwatch(device, 0.0 if rehearsal else 1.0, (2, 2) if rehearsal else (7, 50))
    kernels, without = None, ""
    try:
        path = arguments.rehearse
        if path is None:
            major, minor = torch.cuda.get_device_capability()
            path = find(f"{major}{minor}")
        kernels = KernelLibrary(path)
    except Unavailable as error:
        without = str(error)
    report = Report(
        {**describe(), "kernel library": str(kernels.path.name if kernels else without)},
        rehearsal=rehearsal,
        path=arguments.json,
        minutes=arguments.minutes,
    )
    return Bench(
        device, watch, report, kernels, without, rehearsal=rehearsal, quick=arguments.quick
    )


def main(given: Sequence[str] | None = None) -> int:
    """Measure; 0 if anything was measured."""
    arguments = arguments_of(given)
    try:
        bench = bench_of(arguments)
    except Unavailable as error:
        print(error, file=sys.stderr)
        return 1
    torch.manual_seed(0)
    tasks = peaks.tasks(bench)
    for name in arguments.only:
        tasks += SECTIONS[name].tasks(bench)
    work_off(bench, tasks)
    missing = sum("not run" in row for row in bench.report.rows)
    print(f"{len(bench.report.rows) - missing} results, {missing} not run")
    return 0 if len(bench.report.rows) > missing else 1


if __name__ == "__main__":
    sys.exit(main())
