"""Run cases by their seeds in a child process that may crash or hang, and say at which it did."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from onnxruntime.capi import onnxruntime_pybind11_state as state

ROOT = Path(__file__).resolve().parents[2]
ORDINARY: tuple[type[BaseException], ...] = (
    *(e for e in vars(state).values() if isinstance(e, type) and issubclass(e, Exception)),
    RuntimeError,
    ValueError,
)
"""What ONNX Runtime raises in Python for a refusal."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A case that did not end as it should."""

    seed: int
    report: str


@dataclass(slots=True)
class Found:
    """What a run over many seeds came to: cases that ended, those not refused, and failures."""

    done: int = 0
    ran: int = 0
    failures: list[Failure] = field(default_factory=list)


def environment(library: Path | None, sanitized: bool) -> dict[str, str]:
    """Variables for a child that is to load ``library``, built with the sanitizers or not."""
    wanted = dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT))
    wanted["PYTHONPATH"] = os.pathsep.join([str(ROOT), *sys.path])
    if library is not None:
        wanted["ALLMEM_OPS_LIBRARY"] = str(library)
    if sanitized:
        wanted["LD_PRELOAD"] = " ".join(map(_runtime, ("libasan.so", "libubsan.so")))
        wanted["ASAN_OPTIONS"] = (
            "detect_leaks=0:allocator_may_return_null=1:max_allocation_size_mb=1024"
            ":quarantine_size_mb=16"
        )
        wanted["UBSAN_OPTIONS"] = "print_stacktrace=1"
        wanted["PYTHONMALLOC"] = "malloc"
    return wanted


def _runtime(name: str) -> str:
    asked = subprocess.run(
        ["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True
    )
    return asked.stdout.strip()


def run_all(seeds: Iterable[int], run: Callable[[int], str]) -> None:
    """In the child: run every seed, saying before and after each which it is."""
    for seed in seeds:
        print("begin", seed, flush=True)
        print("end", seed, "ran" if run(seed) == "ran" else "refused", flush=True)


def watch(
    module: str,
    seed: int,
    count: int,
    variables: Mapping[str, str],
    *,
    patience: float = 30.0,
) -> Found:
    """Run ``count`` seeds of ``module`` in children, each going on after what ended the last.

    Args:
        module: run as ``python -m MODULE --child --seed SEED --nodes COUNT``.
        seed: the first.
        count: how many.
        variables: the children's environment.
        patience: seconds after which a case counts as one that does not end.
    """
    found, end = Found(), seed + count
    while seed < end:
        seed = _one_child(module, seed, end, variables, patience, found)
    return found


def _one_child(
    module: str, seed: int, end: int, variables: Mapping[str, str], patience: float, found: Found
) -> int:
    """Run seeds up to ``end`` or the first failure; the seed to go on with."""
    command = [sys.executable, "-m", module, "--child"]
    command += ["--seed", str(seed), "--nodes", str(end - seed)]
    at, slow = seed - 1, False
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, env=dict(variables), cwd=ROOT
        )
        assert child.stdout is not None
        rest = b""
        while True:
            if not select.select([child.stdout], [], [], patience)[0]:
                slow = True
                child.send_signal(signal.SIGKILL)
                break
            data = os.read(child.stdout.fileno(), 1 << 16)
            if not data:
                break
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                words = line.decode().split()
                at = int(words[1])
                found.done += words[0] == "end"
                found.ran += words[2:] == ["ran"]
        child.stdout.close()
        code = child.wait()
        if code == 0:
            return end
        errors.seek(0)
        said = errors.read().decode(errors="replace")
    reason = f"no end within {patience:g} s" if slow else f"ended with {code}"
    found.failures.append(Failure(max(at, seed), f"{reason}\n{_told(said)}"))
    return max(at, seed) + 1


def _told(said: str) -> str:
    """What matters of a child's last words: without the frames of the interpreter."""
    lines = [line for line in said.splitlines() if " in Py" not in line and " in _Py" not in line]
    first = next((i for i, s in enumerate(lines) if "rror:" in s or s.startswith("Trace")), 0)
    return "\n".join(line[:300] for line in lines[first : first + 40])
