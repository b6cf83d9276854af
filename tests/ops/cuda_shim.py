"""CUDA sources compiled for the CPU: built with g++ and the shim, loaded with ctypes.

Libraries lie in ``build/cuda_shim``, named after all that went into them, and are made again when
any of it changes.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CUDA = ROOT / "custom_ops" / "src" / "cuda"
COMMON = CUDA.parent / "common"
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g")
FLAGS = ("-std=c++17", "-fPIC", "-shared", "-ffp-contract=fast", "-fno-math-errno")
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas")


def sanitizer_environment() -> dict[str, str]:
    """Variables under which a Python process builds and loads these libraries with sanitizers."""
    runtime = subprocess.run(
        [compiler(), "-print-file-name=libasan.so"], capture_output=True, text=True
    ).stdout.strip()
    return {
        **os.environ,
        "LD_PRELOAD": runtime,
        "ASAN_OPTIONS": "detect_leaks=0",  # Python itself keeps memory to the end
        "ALLMEM_SHIM_SANITIZE": "1",
    }


def compiler() -> str:
    """g++, or a skip that says why these tests need it."""
    found = shutil.which("g++")
    if found is None:
        pytest.skip("g++ is not on the PATH; the CUDA-on-CPU shim is built with it")
    return found


def build(name: str, sources: tuple[str, ...], *options: str) -> Path:
    """The library of some files of ``custom_ops/src/cuda`` and the shim, built if it is not there.

    Args:
        name: of the library.
        sources: paths below the folder of the CUDA sources.
        options: for g++, ``-O1`` for example; with ``ALLMEM_SHIM_SANITIZE=1`` in the environment
            also ``SANITIZERS``, whose runtime must then be loaded first.
    """
    gcc = compiler()
    if os.environ.get("ALLMEM_SHIM_SANITIZE") == "1":
        name, options = f"{name}-sanitized", (*options, *SANITIZERS)
    flags = [*FLAGS, *WARNINGS, *options]
    known = hashlib.sha256(repr((sources, flags)).encode())
    known.update(subprocess.run([gcc, "--version"], capture_output=True).stdout)
    for path in sorted([*CUDA.rglob("*"), *COMMON.glob("*.h")]):
        if path.suffix in (".cu", ".cc", ".h"):
            known.update(path.read_bytes())
    folder = ROOT / "build" / "cuda_shim"
    library = folder / f"{name}-{known.hexdigest()[:16]}.so"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test processes may need it at once
        if not library.exists():
            _compile(gcc, name, sources, flags, library)
    return library


def _compile(
    gcc: str, name: str, sources: tuple[str, ...], flags: list[str], library: Path
) -> None:
    folder = library.parent
    for stale in folder.glob(f"{name}-{'?' * 16}.so"):
        stale.unlink(missing_ok=True)
    handle, made = tempfile.mkstemp(suffix=".part", dir=folder)
    os.close(handle)
    files = [str(CUDA / path) for path in ("shim/cuda_on_cpu.cc", *sources)]
    command = [gcc, *flags, "-x", "c++", *files, "-o", made]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        os.unlink(made)
        raise AssertionError(f"{' '.join(command)}\n{done.stderr[-6000:]}")
    os.replace(made, library)


ORDERS = (1, 5, -1, -2, -9)
"""For ``ShimLibrary.set_order``: of every two warps, each is once far ahead of the other."""


class ShimError(RuntimeError):
    """A launch failed in the shim; the text says which thread did what."""


class ShimLibrary:
    """A built library; calls of its functions raise what the shim reports."""

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))
        self._library.allmem_shim_take_error.restype = ctypes.c_char_p

    def set_order(self, order: int) -> None:
        """Order of threads and blocks: 0 ascending, 1 descending, greater ones seed a shuffle.

        Below 0 warps run one after the other, each as far ahead of the next as barriers allow:
        -1 ascending, -2 descending, lesser ones seed a shuffle. A result that depends on the order
        comes from a missing barrier.
        """
        self._library.allmem_shim_set_order(order)

    def set_capability(self, capability: int) -> None:
        """The device's compute capability, 86 for 8.6; kernels are chosen by it."""
        self._library.allmem_shim_set_capability(capability)

    def call(self, function: str, *arguments: object, returns: type | None = None) -> object:
        """Call a function; raise ``ShimError`` if a launch in it failed."""
        entry = self._library[function]
        entry.restype = returns
        result = entry(*arguments)
        error = self._library.allmem_shim_take_error()
        if error is not None:
            raise ShimError(error.decode())
        return result
