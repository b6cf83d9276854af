"""Takes one barrier or wait for copies after the other out of the CUDA kernels: which are missed?

``python tests/ops/barrier_mutants.py [memory|attention]``: takes minutes, run by hand. A removal is
noticed if a case gives other bits in another order of threads, or NaN, or the shim reports an
error. custom_ops/src/cuda/README.md lists the one that is not noticed, and why.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from attention_cases import CUDA_ATTENTION_CASES
from cases import Arrays, AttentionSizes, Case, MemorySizes
from cuda_attention import SOURCES as ATTENTION_SOURCES
from cuda_attention import CudaAttention
from cuda_memory import SOURCES as MEMORY_SOURCES
from cuda_memory import run_memory
from cuda_shim import CUDA, FLAGS, ORDERS, ShimError, ShimLibrary
from memory_cases import MEMORY_CASES

BARRIER = re.compile(r"__sync(threads|warp)\(\);|^ *copies_arrived\(\);")
SOURCES = {"memory": MEMORY_SOURCES, "attention": ATTENTION_SOURCES}


def barriers(operator: str) -> list[tuple[Path, int]]:
    """Files below the CUDA folder and lines with a barrier of the operator's kernels."""
    headers = (
        f"{operator}*.h",
        f"{operator}*.cu",
        *(("common/*.h",) if operator == "memory" else ()),
    )
    return [
        (path.relative_to(CUDA), number)
        for path in sorted(p for pattern in headers for p in CUDA.glob(pattern))
        for number, line in enumerate(path.read_text().splitlines())
        if BARRIER.search(line)
    ]


class Builder:
    """Builds the library from a copy of the sources; unchanged files are compiled once."""

    def __init__(self, operator: str, folder: Path) -> None:
        self._sources = ("shim/cuda_on_cpu.cc", *SOURCES[operator])
        self._folder = folder
        self._copy = folder / "src" / "cuda"
        shutil.copytree(CUDA.parent, self._copy.parent)
        self._count = 0
        self._objects = {source: self._compile(source) for source in self._sources}

    def _compile(self, source: str) -> Path:
        self._count += 1
        made = self._folder / f"{self._count}.o"
        flags = [flag for flag in FLAGS if flag != "-shared"]
        command = ["g++", *flags, "-O1", "-w", "-c", "-x", "c++", str(self._copy / source)]
        subprocess.run([*command, "-o", str(made)], check=True)
        return made

    def library(self, changed: Path | None = None, line: int = 0) -> Path:
        """The library, without the barrier in a line of a file."""
        objects = dict(self._objects)
        if changed is not None:
            before = (self._copy / changed).read_text()
            lines = before.splitlines(keepends=True)
            lines[line] = BARRIER.sub(";", lines[line])
            (self._copy / changed).write_text("".join(lines))
            for source in self._sources:
                if str(changed) == source or changed.suffix == ".h" and self._uses(source, changed):
                    objects[source] = self._compile(source)
            (self._copy / changed).write_text(before)
        self._count += 1
        made = self._folder / f"{self._count}.so"
        subprocess.run(["g++", "-shared", *map(str, objects.values()), "-o", str(made)], check=True)
        return made

    def _uses(self, source: str, header: Path) -> bool:
        text = subprocess.run(
            ["g++", "-MM", "-x", "c++", "-std=c++17", str(self._copy / source)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        return f"/{header.name}" in text


def memory_cases() -> Iterator[tuple[int, str, Case]]:
    """Capability, element type and case."""
    names = ("tiles_time_193", "dim_64_hidden_128_time_1", "dim_64_hidden_128_time_6")
    more = ("clip_active_time_1", "post_normalized_l2_time_6", "batch_of_three_time_1")
    wide = [
        Case("wide", MemorySizes(time=time, memory_dim=40, hidden=100), {"chunk": 80}, 80 - time)
        for time in (1, 70)
    ]
    for case in [*(c for c in MEMORY_CASES if c.name in names + more), *wide]:
        for capability in (86, 90):
            yield capability, "float32", case


def attention_cases() -> Iterator[tuple[int, str, Case]]:
    """Capability, element type and case."""
    names = ("ring_at_6_time_4", "ring_at_6_time_1", "tiles_time_130", "half_full_ring_500")
    cases = [case for case in CUDA_ATTENTION_CASES if case.name in names]
    for head_dim, time in ((64, 90), (128, 40), (256, 40), (64, 1), (256, 1)):
        for element in ("float32", "float16"):
            sizes = AttentionSizes(time=time, head_dim=head_dim, cache=element)
            attributes = {"window": 150, "sinks": 5, "scale": head_dim**-0.5, "norm_epsilon": 1e-6}
            cases.append(Case("wide", sizes, attributes, 300))
    for case in cases:
        assert isinstance(case.sizes, AttentionSizes)
        yield 90, case.sizes.cache, case


def results(operator: str, library: Path) -> Iterator[list[Arrays]]:
    """Outputs of each case in every order."""
    shim = ShimLibrary(library)
    for capability, element, case in memory_cases() if operator == "memory" else attention_cases():
        shim.set_capability(capability)
        inputs = case.inputs()
        outputs = []
        for order in (0, *ORDERS):
            shim.set_order(order)
            if operator == "memory":
                run = run_memory(
                    shim, case.operator, inputs, case.attributes, in_place=True, element=element
                )
            else:
                inputs["qkv"] = inputs["qkv"].astype(element)
                run = CudaAttention(shim).run(case.operator, inputs, case.attributes, in_place=True)
            outputs.append(run)
        yield outputs


def noticed(operator: str, library: Path) -> str:
    """What shows that something is wrong; nothing where nothing does."""
    try:
        for number, outputs in enumerate(results(operator, library)):
            for order, output in zip((0, *ORDERS), outputs, strict=True):
                for name, array in output.items():
                    if not np.isfinite(array).all():
                        return f"case {number}, order {order}: {name} is not finite"
                    if not np.array_equal(array, outputs[0][name]):
                        return f"case {number}, order {order}: other bits in {name}"
    except ShimError as error:
        return str(error)
    return ""


def main() -> None:
    """Print a line for each barrier."""
    for operator in sys.argv[1:] or SOURCES:
        with tempfile.TemporaryDirectory() as folder:
            builder, lines = Builder(operator, Path(folder)), barriers(operator)
            found = noticed(operator, builder.library())
            print(f"{operator} as it is: {found or 'same bits in every order'}", flush=True)
            for path, line in lines:
                found = noticed(operator, builder.library(path, line))
                print(f"{path}:{line + 1}: {found or 'NOT NOTICED'}", flush=True)


if __name__ == "__main__":
    main()
