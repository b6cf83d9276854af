"""Builds the stand-in CUDA device into libraries of CUDA's names, and reads its counters.

``python tests/cuda_device/library.py FOLDER COMMAND...`` builds it and runs a command on it.
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
FLAGS = ("-std=c++17", "-O1", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror")
# What of the sources each library exports.
LIBRARIES = {
    "libcudart.so.13": "cuda*; __cuda*; allmem_device*; _ZN6device*",
    "libcublas.so.13": "cublas[!L]*",
    "libcublasLt.so.13": "cublasLt*",
    "libcurand.so.10": "curand*",
    "libcuda.so.1": "cu[TM]*",
}
RUNTIME = "libcudart.so.13"
OPERATORS = "liballmem_ops.so"


def provider_library() -> Path | None:
    """ONNX Runtime's CUDA provider, if the installed one has it."""
    import onnxruntime

    folder = Path(onnxruntime.__file__).parent / "capi"
    return next(iter(folder.glob("libonnxruntime_providers_cuda.so")), None)


def missing() -> str | None:
    """Why the device cannot be used here; None if it can."""
    if not sys.platform.startswith("linux"):
        return "the stand-in CUDA device is made for Linux"
    if shutil.which("g++") is None:
        return "g++ is not on the PATH; the stand-in CUDA device is built with it"
    if provider_library() is None:
        return "the installed onnxruntime has no CUDA provider"
    return None


def compile_files(
    output: Path, files: list[Path], *options: str, flags: tuple[str, ...] = FLAGS
) -> None:
    """Run g++ on some files; what it said is in the error."""
    command = ["g++", *flags, *options, *map(str, files), "-o", str(output)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}\n{done.stderr[-6000:]}")


def build(folder: Path) -> Path:
    """Build the libraries of ``LIBRARIES`` into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, exported in LIBRARIES.items():
        script = folder / f"{name}.map"
        script.write_text(f"{name} {{ global: {exported}; local: *; }};\n")
        own = name == RUNTIME
        sources = [HERE / "device.cc", HERE / "cudart.cc"] if own else [HERE / "cublas.cc"]
        options = [f"-Wl,-soname,{name}", f"-Wl,--version-script={script}", "-Wl,-z,defs"]
        if not own:
            sources.append(folder / RUNTIME)
            options.append("-Wl,-rpath,$ORIGIN")
        compile_files(folder / name, sources, *options)
    return folder


def headers() -> Path | None:
    """The headers of ONNX Runtime that a build of the operator library left in its cache."""
    named = os.environ.get("ORT_INCLUDE_DIR")
    cache = os.environ.get("ALLMEM_CACHE_DIR")
    xdg = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    kept = Path(cache) if cache else Path(xdg) / "allmem"
    folders = [Path(named)] if named else list(kept.glob("ort-headers-*"))
    return next((f for f in folders if (f / "onnxruntime_c_api.h").is_file()), None)


def build_operators(folder: Path) -> Path:
    """Build our operators for the device; its libraries are in the same folder already.

    Objects are kept in ``build/cuda_device``, named after the sources.
    """
    include = headers()
    if include is None:
        raise FileNotFoundError("no headers of ONNX Runtime; set ORT_INCLUDE_DIR")
    source = ROOT / "custom_ops" / "src"
    cuda = source / "cuda"
    files = [
        HERE / "operators.cc",
        cuda / "shim" / "cuda_on_cpu.cc",
        *sorted((source / "common").glob("*.cc")),
        *sorted((cuda / "register").glob("*.cc")),
        *sorted(cuda.glob("*.cu")),
    ]
    known = [HERE / "launch.h", *source.rglob("*.h")]
    kept = ROOT / "build" / "cuda_device"
    kept.mkdir(parents=True, exist_ok=True)
    objects = []
    for file in files:
        name = f"{file.parent.name}-{file.stem}"
        made = kept / f"{name}-{fingerprint([file, Path(__file__), *known])}.o"
        objects.append(made)
        if made.exists():
            continue
        for stale in kept.glob(f"{name}-{'?' * 16}.o"):
            stale.unlink(missing_ok=True)
        part = made.with_suffix(f".{os.getpid()}")
        options = ["-c", "-x", "c++", "-ffp-contract=fast", "-Wno-unknown-pragmas"]
        options += ["-isystem", str(include)]
        if file.suffix == ".cu":
            options += ["-include", str(HERE / "launch.h")]
        compile_files(part, [file], *options, flags=(*FLAGS[:3], "-fvisibility=hidden"))
        part.replace(made)  # several test processes may build at once
    library = folder / OPERATORS
    options = ["-Wl,-rpath,$ORIGIN", "-Wl,-z,defs"]
    compile_files(library, [*objects, folder / RUNTIME], *options)
    return library


def environment(folder: Path, **settings: object) -> dict[str, str]:
    """Variables of a process that is to find the device.

    Args:
        folder: where it was built.
        settings: see README.md, for example ``ALLMEM_DEVICE_MEMORY=1 << 30``.
    """
    known = os.environ.get("LD_LIBRARY_PATH")
    return {
        **os.environ,
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, [str(folder), known])),
        # Before anything else, so that nothing loads real libraries of the same names.
        "LD_PRELOAD": " ".join(str(folder / name) for name in LIBRARIES),
        **{name: str(value) for name, value in settings.items()},
    }


class Counters:
    """The counters of the device in this process; values since ``mark`` by subscript."""

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


def fingerprint(paths: list[Path]) -> str:
    """Some letters that change when any of the files does."""
    known = hashlib.sha256()
    for path in sorted(paths):
        known.update(path.read_bytes())
    return known.hexdigest()[:16]


if __name__ == "__main__":
    folder = build(Path(sys.argv[1]).resolve())
    variables = {**environment(folder), "ALLMEM_OPS_LIBRARY": str(build_operators(folder))}
    if len(sys.argv) > 2:
        os.execvpe(sys.argv[2], sys.argv[2:], variables)
