"""Checks an installation: runtime, devices, operator library, and one model if it is given.

Each check is a line: ``ok``, ``warn`` where something works but could be better, ``fail`` where
something that is there does not work.
"""

from __future__ import annotations

import math
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from allmem_ops import library
from allmem_ops.schema import KNOWN, OPERATORS
from allmem_runtime.engine.cuda_driver import find_cuda_device
from allmem_runtime.engine.devices import Device
from allmem_runtime.engine.operators import KERNELS_REMEDY, cuda_kernels
from allmem_runtime.engine.probe import probe_cuda, run_once, runtime_version
from allmem_runtime.errors import AllMemError
from allmem_runtime.files.package import open_package
from allmem_runtime.health.selfcheck import TOLERANCE, operator_error, relative_error
from allmem_runtime.model import load
from allmem_runtime.passages import meaning
from allmem_runtime.quantities import counted, format_bytes

Status = Literal["ok", "warn", "fail"]
_CPU = Device("cpu", 0, "")
_NVIDIA_SMI_SECONDS = 10
_CUDA_HINT = (
    "Only a machine with an NVIDIA card needs it: install the driver, and the CUDA libraries with "
    "`pip install 'onnxruntime-gpu[cuda,cudnn]'`."
)
_NO_KERNELS = "the library has no CUDA kernels, so models run on portable operators there"
MODEL_TOLERANCE = 1e-2
"""Largest relative RMS difference of logits between native and portable operators.

Each agrees with the reference to ``selfcheck.TOLERANCE``; the layers of a model add their errors
up. Wrong operators give unrelated logits, which differ by about 1.
"""
ROUNDED_MODEL_TOLERANCE = 0.1
"""The same where weights are integers, and the inputs of products are rounded to 8 bits.

An input that a sum in another order takes across the middle of two of its 255 levels moves by a
whole level, and layers add that up: SmolLM2-135M reads the same 43 tokens with logits 2.1e-2 to
2.7e-2 apart, whoever multiplies, and as far apart token by token with one and the same operators.
"""


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check."""

    name: str
    status: Status
    detail: str


def examine(model: Path | None = None) -> Iterator[Check]:
    """All checks, one after the other; none of them raises.

    Args:
        model: a model folder to check too.
    """
    yield Check("runtime", "ok", f"onnxruntime {runtime_version()}, Python {_python()}")
    yield Check("cpu", "ok", _processor())
    yield _passages()
    cuda = probe_cuda(0)
    if cuda is None:
        card = find_cuda_device(0)
        yield Check("cuda", "ok", _graphics() or (str(card) if card else "a CUDA device works"))
    else:
        yield Check("cuda", "warn", f"not usable: {cuda}. {_CUDA_HINT}")
    yield from _operators(has_cuda=cuda is None)
    if model is not None:
        yield from _model(model)


def _operators(*, has_cuda: bool) -> Iterator[Check]:
    try:
        info = library.check_library()
    except library.LibraryNotFound as error:
        yield Check("operators", "warn", f"{error} Models run on portable operators, more slowly.")
        return
    except library.LibraryError as error:
        yield Check("operators", "fail", str(error))
        return
    yield Check(
        "operators",
        "ok",
        f"{info.path.name} {info.version}, operators {info.operator_version}, {info.cpu_path}",
    )
    for name in KNOWN:
        yield _operator(name, _CPU, info.path)
    if not has_cuda:
        return
    kernels = cuda_kernels(info)
    if not kernels:
        yield Check("operators on cuda", "warn", f"{_NO_KERNELS}: {KERNELS_REMEDY}.")
        return
    yield Check("operators on cuda", "ok", f"kernels for {', '.join(kernels)}")
    for name in OPERATORS:
        yield _operator(name, Device("cuda", 0, ""), info.path)


def _operator(name: str, device: Device, path: Path) -> Check:
    title = f"{name} on {device}"
    try:
        error = operator_error(name, partial(run_once, device=device, library=path))
    except AllMemError as failure:
        return Check(title, "fail", str(failure))
    if math.isfinite(error) and error <= TOLERANCE:
        return Check(title, "ok", f"agrees with the reference (relative error {error:.0e})")
    return Check(
        title,
        "fail",
        f"differs from the reference by {error:.1e}, more than {TOLERANCE:.0e}. "
        "Use --operators portable and report this machine.",
    )


def _model(path: Path) -> Iterator[Check]:
    try:
        package = open_package(path)
        package.verify()
        yield Check("model", "ok", f"{package.manifest.name}: all files are as exported")
        logits = {}
        text = "The quick brown fox jumps over the lazy dog. 0123456789 " * 2
        for operators in ("portable", "native"):
            try:
                # Weights are prepared for the operators that are used otherwise, the native ones.
                native = operators == "native"
                loaded = load(path, device="cpu", operators=operators, prepared=native)
            except AllMemError as error:
                yield Check(f"model, {operators}", "warn", str(error))
                continue
            ids = loaded.tokenizer.encode_text(text)[: 2 * loaded.manifest.chunk + 3]
            found = loaded.session(undo=False).feed(ids, logits="all")
            assert found is not None
            logits[operators] = found
            finite = bool(np.isfinite(found).all())
            yield Check(
                f"model, {operators}",
                "ok" if finite else "fail",
                f"{counted(len(ids), 'token')} read"
                if finite
                else "gives logits that are not finite",
            )
    except AllMemError as error:
        yield Check("model", "fail", str(error))
        return
    if len(logits) == 2:
        error_size = relative_error(logits["native"], logits["portable"])
        rounded = package.manifest.weights not in ("float32", "float16")
        agrees = error_size <= (ROUNDED_MODEL_TOLERANCE if rounded else MODEL_TOLERANCE)
        yield Check(
            "model, both",
            "ok" if agrees else "fail",
            f"native and portable operators {'agree' if agrees else 'DIFFER'} "
            f"(relative difference {error_size:.0e})",
        )


def _python() -> str:
    return f"{platform.python_version()} on {platform.system()} {platform.machine()}"


def _passages() -> Check:
    if meaning.shared() is None:
        return Check(
            "passages", "warn",
            "found by words and tokens alone, not by what they mean: `pip install wordllama`.",
        )  # fmt: skip
    return Check("passages", "ok", f"found by words, tokens and what they mean ({meaning.TABLE})")


def _processor() -> str:
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    text = counted(cores, "core")
    features = _features()
    if features:
        text += f" with {features}"
    memory = _memory()
    return f"{text}, {memory}" if memory else text


def _features() -> str:
    """Vector instructions that the kernels can use, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return ""
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    names = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_vnni": "VNNI"}
    *most, last = [name for flag, name in names.items() if flag in flags] or [""]
    return f"{', '.join(most)} and {last}" if most else last


def _memory() -> str:
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        total, free = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_AVPHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return ""
    return f"{format_bytes(total * page)} memory ({format_bytes(free * page)} free)"


def _graphics() -> str:
    """Name and memory of the graphics cards, where the driver's tool is there."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ""
    query = "--query-gpu=name,memory.total,memory.free"
    try:
        result = subprocess.run(
            [tool, query, "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=_NVIDIA_SMI_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    rows = [row.split(", ") for row in result.stdout.strip().splitlines()]
    return "; ".join(f"{r[0]}: {r[1]} ({r[2]} free)" for r in rows if len(r) == 3)
