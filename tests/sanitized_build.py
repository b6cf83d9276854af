"""Builds of the C++ sources below ``build/kernel_tests``; a later run compiles what changed."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "custom_ops"
BUILDS = SOURCE.parent / "build" / "kernel_tests"

SANITIZED = ("-DCMAKE_BUILD_TYPE=Debug", "-DALLMEM_SANITIZE=ON")
"""Not optimized: it compiles in a quarter of the time, and no read or write is left out."""


def build(name: str, target: str, *options: str) -> Path:
    """The folder ``name`` with ``target`` built; skips the test where there is no compiler.

    The library wants the headers of ONNX Runtime: those that ``make install`` has fetched are
    taken, and where there are none a test of the library is skipped.
    """
    cmake = shutil.which("cmake")
    if cmake is None:
        pytest.skip("cmake is not on the PATH")
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("no C++ compiler on the PATH")
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    folder = BUILDS / name
    folder.mkdir(parents=True, exist_ok=True)
    configure = [cmake, "-S", SOURCE, "-B", folder, *generator, "-DALLMEM_TESTS=ON", *options]
    with open(BUILDS / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test processes may build at once
        done = _run(*configure, "-DALLMEM_LIBRARY=ON")
        if done.returncode != 0:
            if target == "allmem_ops":
                pytest.skip("no headers of ONNX Runtime: `make install` fetches them")
            done = _run(*configure, "-DALLMEM_LIBRARY=OFF")
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        done = _run(cmake, "--build", folder, "--parallel", "--target", target)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return folder


def _run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    # No test reaches for a package index.
    alone = {**os.environ, "PIP_NO_INDEX": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=alone)
