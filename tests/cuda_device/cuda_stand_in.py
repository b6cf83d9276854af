"""Builds the stand-in CUDA device into libraries of CUDA's names, and reads its counters.

``python tests/cuda_device/cuda_stand_in.py FOLDER COMMAND...`` builds it and runs a command on it.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SOURCE = ROOT / "custom_ops" / "src"
OBJECTS = ROOT / "build" / "cuda_device"
FLAGS = ("-std=c++17", "-O1", "-fPIC")
WARNINGS = ("-Wall", "-Wextra", "-Werror")
RUNTIME = "libcudart.so.13"
OPERATORS = "liballmem_ops.so"
# The sources of each library, and what of them it exports.
LIBRARIES = {
    RUNTIME: (("device.cc", "cudart.cc"), "cuda*; __cuda*; allmem_device*; _ZN6device*"),
    "libcublas.so.13": (("cublas.cc",), "cublas[!L]*"),
    "libcublasLt.so.13": (("cublas.cc",), "cublasLt*"),
    "libcurand.so.10": ((), "curand*"),  # needed, and not called
    "libcuda.so.1": (("driver.cc",), "cu*"),
}


def provider_library() -> Path | None:
    """ONNX Runtime's CUDA provider, if the installed one has it."""
    import onnxruntime

    folder = Path(onnxruntime.__file__).parent / "capi"
    return next(iter(folder.glob("libonnxruntime_providers_cuda.so")), None)


def headers() -> Path | None:
    """The headers of ONNX Runtime that a build of the operator library left in its cache."""
    named = os.environ.get("ORT_INCLUDE_DIR")
    cache = os.environ.get("ALLMEM_CACHE_DIR")
    xdg = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    kept = Path(cache) if cache else Path(xdg) / "allmem"
    folders = [Path(named)] if named else list(kept.glob("ort-headers-*"))
    return next((f for f in folders if (f / "onnxruntime_c_api.h").is_file()), None)


def missing() -> str | None:
    """Why the device cannot be used here; None if it can."""
    if not sys.platform.startswith("linux") or os.uname().machine != "x86_64":
        return "the stand-in CUDA device is made for Linux on x86-64"
    if shutil.which("g++") is None:
        return "g++ is not on the PATH; the stand-in CUDA device is built with it"
    if provider_library() is None:
        return "the installed onnxruntime has no CUDA provider"
    if headers() is None:
        return "no headers of ONNX Runtime are cached; set ORT_INCLUDE_DIR"
    return None


def run_compiler(*arguments: object) -> None:
    """Run g++; what it said is in the error."""
    command = ["g++", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}\n{done.stderr[-6000:]}")


def compiled(file: Path, known: list[Path], *options: object) -> Path:
    """The object file of a source, kept from an earlier time if nothing it is made of changed.

    Args:
        file: the source.
        known: what else it is made of.
        options: for g++.
    """
    digest = hashlib.sha256(repr(list(map(str, options))).encode())
    for path in sorted([file, *known]):
        digest.update(path.read_bytes())
    name = f"{file.parent.name}-{file.stem}"
    made = OBJECTS / f"{name}-{digest.hexdigest()[:16]}.o"
    if not made.exists():
        OBJECTS.mkdir(parents=True, exist_ok=True)
        for stale in OBJECTS.glob(f"{name}-{'?' * 16}.o"):
            stale.unlink(missing_ok=True)
        part = made.with_suffix(f".{os.getpid()}")
        run_compiler(*FLAGS, *options, "-c", "-x", "c++", file, "-o", part)
        part.replace(made)  # several test processes may build at once
    return made


def build(folder: Path) -> Path:
    """Build the libraries of ``LIBRARIES`` into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (files, exported) in LIBRARIES.items():
        script = folder / f"{name}.map"
        script.write_text(f"{name} {{ global: {exported}; local: *; }};\n")
        objects = [compiled(HERE / file, [HERE / "device.h"], *WARNINGS) for file in files]
        others = [] if name == RUNTIME else [folder / RUNTIME, "-Wl,-rpath,$ORIGIN"]
        named = [f"-Wl,-soname,{name}", f"-Wl,--version-script={script}", "-Wl,-z,defs"]
        run_compiler("-shared", *objects, *others, *named, "-o", folder / name)
    return folder


def build_operators(folder: Path) -> Path:
    """Build our operators for the device, whose libraries are in the same folder already."""
    cuda = SOURCE / "cuda"
    files = [
        HERE / "operators.cc",
        cuda / "shim" / "cuda_on_cpu.cc",
        *sorted((SOURCE / "common").glob("*.cc")),
        *sorted((cuda / "register").glob("*.cc")),
        *sorted(cuda.glob("*.cu")),
    ]
    launch = HERE / "launch.h"
    options = ("-ffp-contract=fast", "-fvisibility=hidden", "-isystem", headers())
    objects = []
    for file in files:
        kernels = ("-include", launch) if file.suffix == ".cu" else ()
        objects.append(compiled(file, [launch, *SOURCE.rglob("*.h")], *options, *kernels))
    links = ("-shared", "-Wl,-z,defs", "-Wl,-rpath,$ORIGIN")
    run_compiler(*links, *objects, folder / RUNTIME, "-o", folder / OPERATORS)
    return folder / OPERATORS


def environment(folder: Path, **settings: object) -> dict[str, str]:
    """Variables of a process that is to find the device and our operators.

    Args:
        folder: where they were built.
        settings: see README.md, for example ``ALLMEM_DEVICE_MEMORY=1 << 30``.
    """
    known = os.environ.get("LD_LIBRARY_PATH")
    return {
        **os.environ,
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, [str(folder), known])),
        # Before anything else, so that nothing loads real libraries of the same names.
        "LD_PRELOAD": " ".join(str(folder / name) for name in LIBRARIES),
        "ALLMEM_OPS_LIBRARY": str(folder / OPERATORS),
        **{name: str(value) for name, value in settings.items()},
    }


class Counters:
    """The counters of the device in this process."""

    def __init__(self) -> None:
        self._device = ctypes.CDLL(RUNTIME)
        self._device.allmem_device_count.restype = ctypes.c_longlong
        self._device.allmem_device_counters.restype = ctypes.c_char_p
        self._device.allmem_device_problems.restype = ctypes.c_char_p
        self._names: list[str] = self._device.allmem_device_counters().decode().split()

    def all(self) -> dict[str, int]:
        """Every counter by name; what they mean stands in device.h."""
        return {n: self._device.allmem_device_count(n.encode()) for n in self._names}

    def since(self, before: Mapping[str, int]) -> dict[str, int]:
        """What changed since ``all`` was called."""
        return {name: value - before[name] for name, value in self.all().items()}

    def problems(self) -> list[str]:
        """What was forbidden or invalid, a sentence each."""
        text: str = self._device.allmem_device_problems().decode()
        return text.splitlines()


if __name__ == "__main__":
    if (reason := missing()) is not None or len(sys.argv) < 3:
        sys.exit(reason or __doc__)
    place = build(Path(sys.argv[1]).resolve())
    build_operators(place)
    os.execvpe(sys.argv[2], sys.argv[2:], environment(place))
