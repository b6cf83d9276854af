"""The CUDA kernels under nvcc: no warning, no spill, registers in bounds, on every card named.

One target in the default run, all of them with ``-m long``. What ptxas reports of each kernel is
left in ``build/cuda_ptxas``, named after the sources, and not made again until they change.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cuda_shim import COMMON, CUDA, ROOT

FILES = sorted(path.name for path in CUDA.glob("*.cu"))
TARGETS = ("75", "80", "86", "89", "90", "120")
DEFAULT = "86"
FLAGS = ("-std=c++17", "-O3", "-Werror", "all-warnings", "-Xptxas", "-v,-warn-spills")

REGISTER_LIMITS = {
    "attend": 255,  # prefill on ordinary cores: a block an SM holds its sums in registers
    "attend_tensor": 255,
    "attend_slice": 168,  # 128 threads: three blocks an SM
    "prepare": 128,
    "activate": 128,  # 256 threads: two blocks an SM
    "read": 128,
    "back": 128,
    "gradient": 128,
    "output": 80,
    "token_rows": 80,  # 256 threads: three blocks an SM
    "token_columns": 80,
    "join": 64,  # these only move memory: all warps of an SM at once need 32, half of them 64
    "write_ring": 64,
    "finish": 64,
    "find_scales": 64,
    "find_factors": 64,
}
"""Most registers of a thread: past them fewer blocks run at a time than launches are made for."""


@dataclass(frozen=True)
class Kernel:
    """What ptxas says of one kernel."""

    name: str
    registers: int
    stack: int
    spilled: int
    shared: int


def nvcc() -> str:
    found = shutil.which("nvcc")
    if found is None:
        pytest.skip("nvcc is not on the PATH: the CUDA kernels are not compiled for any card")
    return found


def compile_report(source: str, target: str) -> str:
    """ptxas's report of a file, from the last time if nothing has changed."""
    compiler = nvcc()
    known = hashlib.sha256(repr((source, target, FLAGS)).encode())
    known.update(subprocess.run([compiler, "--version"], capture_output=True).stdout)
    for path in sorted([*CUDA.rglob("*"), *COMMON.glob("*.h")]):
        if path.suffix == ".h" or path.name == source:
            known.update(path.read_bytes())
    folder = ROOT / "build" / "cuda_ptxas"
    kept = folder / f"{Path(source).stem}-sm_{target}-{known.hexdigest()[:16]}.txt"
    if kept.exists():
        return kept.read_text()
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob(f"{Path(source).stem}-sm_{target}-{'?' * 16}.txt"):
        stale.unlink(missing_ok=True)
    command = [compiler, *FLAGS, f"-arch=sm_{target}", "-cubin", "-o", os.devnull]
    done = subprocess.run([*command, str(CUDA / source)], capture_output=True, text=True)
    assert done.returncode == 0, f"{source} for sm_{target}\n{done.stdout}{done.stderr}"[-6000:]
    report = done.stdout + done.stderr
    kept.write_text(report)
    return report


def kernels_of(report: str) -> list[Kernel]:
    """The kernels in a report."""
    found = []
    for part in report.split("Compiling entry function '")[1:]:
        numbers = {
            key: int(match[1]) if (match := re.search(pattern, part)) else 0
            for key, pattern in {
                "registers": r"Used (\d+) registers",
                "stack": r"(\d+) bytes stack frame",
                "stores": r"(\d+) bytes spill stores",
                "loads": r"(\d+) bytes spill loads",
                "shared": r"(\d+) bytes smem",
            }.items()
        }
        assert numbers["registers"] > 0, part
        found.append(
            Kernel(
                name=part.split("'")[0],
                registers=numbers["registers"],
                stack=numbers["stack"],
                spilled=numbers["stores"] + numbers["loads"],
                shared=numbers["shared"],
            )
        )
    return found


def plain(name: str) -> str:
    """A kernel's name without its arguments, as far as c++filt is there to say it."""
    filt = shutil.which("c++filt")
    if filt is None:
        return name
    text = subprocess.run([filt, name], capture_output=True, text=True).stdout.strip()
    text = text.replace("(anonymous namespace)::", "").replace("allmem::cuda::", "")
    return text.removeprefix("void ").split("(")[0]


@pytest.mark.parametrize(
    "target",
    [
        pytest.param(t, marks=() if t == DEFAULT else pytest.mark.long, id=f"sm_{t}")
        for t in TARGETS
    ],
)
def test_kernels_compile_without_warnings_and_spill_nothing(target: str) -> None:
    nvcc()
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        reports = list(pool.map(lambda source: compile_report(source, target), FILES))
    kernels = [kernel for report in reports for kernel in kernels_of(report)]
    assert kernels
    for kernel in kernels:
        print(
            f"sm_{target} {plain(kernel.name)}: {kernel.registers} registers, "
            f"{kernel.shared} bytes of static shared memory, {kernel.stack} of stack, "
            f"{kernel.spilled} spilled"
        )
    assert [plain(k.name) for k in kernels if k.spilled] == []
    assert over_the_limit(kernels) == []


def over_the_limit(kernels: list[Kernel]) -> list[str]:
    """Kernels that use more registers than they may, and those without a limit."""
    found = []
    for kernel in kernels:
        # Of a mangled name the kernel's own is enough: length and letters, as in 4readI.
        limits = [
            limit
            for name, limit in REGISTER_LIMITS.items()
            if re.search(rf"{len(name)}{name}(?![a-z_])", kernel.name)
        ]
        if not limits or kernel.registers > limits[0]:
            found.append(f"{plain(kernel.name)}: {kernel.registers} registers, limit {limits}")
    return found


def test_a_kernel_over_its_limit_or_without_one_is_seen() -> None:
    name = "_ZN6allmem4cuda12_GLOBAL__N_110token_rowsIfEEvNS0_10MemoryArgsE"
    kernel = Kernel(name, registers=80, stack=0, spilled=0, shared=0)
    assert over_the_limit([kernel]) == []
    assert len(over_the_limit([replace(kernel, registers=81)])) == 1
    assert (
        len(over_the_limit([replace(kernel, name=name.replace("token_rows", "token_bows"))])) == 1
    )


def test_a_spill_in_a_report_is_seen() -> None:
    report = (
        "ptxas info    : Compiling entry function 'one' for 'sm_86'\n"
        "    48 bytes stack frame, 28 bytes spill stores, 40 bytes spill loads\n"
        "ptxas info    : Used 64 registers, used 1 barriers, 16 bytes smem, 640 bytes cmem[0]\n"
    )
    assert kernels_of(report) == [Kernel("one", registers=64, stack=48, spilled=68, shared=16)]
