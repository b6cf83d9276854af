"""`make gpu-test`: says what is here, builds what can be built, runs what a GPU is needed for.

    python tests/gpu/run.py [--without-sanitizer] [further arguments for pytest]

Exit code 0: nothing failed, and the kernels ran on a device. 1: something failed. 2: the kernels
did not run, so nothing is proved. What did not run is said with what it needs.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / part) for part in (".", "custom_ops", "exporters", "tests/ops")]

TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
ERROR = 99  # compute-sanitizer's exit code for what it found
SECONDS = 1800
TESTS = ("tests/gpu/test_kernels.py", "tests/gpu/test_models.py")  # they import little at first
NEEDED = ("torch", "numpy", "pytest")
FAILED, NOTHING_PROVED = 1, 2


def environment() -> dict[str, str]:
    """For child processes: our packages are found though they may not be installed."""
    parts = [str(ROOT / part) for part in (".", "custom_ops", "exporters", "tests")]
    parts += [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(parts), "HF_HUB_OFFLINE": "1"}


def kernel_library() -> tuple[str, str]:
    """The kernels' library for this device and why there is none, one of them empty."""
    from allmem_ops.kernel_library import Unavailable

    try:
        import cuda_device

        return str(cuda_device.cuda_device().library.path), ""
    except (ImportError, Unavailable) as error:
        return "", str(error)


def build_operators() -> str:
    """Build the operator library with CUDA where the runtime lacks only that; why not, or ""."""
    from allmem_ops.kernel_build import find_nvcc

    compiler, cmake = find_nvcc(), shutil.which("cmake")
    if compiler is None or cmake is None:
        return "nvcc and cmake are needed to build it here"
    folder = ROOT / "build" / "gpu_operators"
    options = ["-DALLMEM_CUDA=ON", "-DCMAKE_CUDA_ARCHITECTURES=native"]
    options.append(f"-DCMAKE_CUDA_COMPILER={compiler}")
    for command in (
        [cmake, "-S", str(ROOT / "custom_ops"), "-B", str(folder), *options],
        [cmake, "--build", str(folder), "--target", "allmem_ops"],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            return f"{' '.join(command[:3])} failed: {(done.stderr or done.stdout)[-600:].strip()}"
    os.environ["ALLMEM_OPS_LIBRARY"] = str(next(folder.glob("liballmem_ops.*")))
    return ""


def find_sanitizer() -> str | None:
    """compute-sanitizer, on the PATH or beside a toolkit."""
    folders = [os.environ.get("CUDA_HOME", ""), *map(str, Path("/usr/local").glob("cuda*"))]
    candidates = [shutil.which("compute-sanitizer")]
    candidates += [str(Path(f) / "bin" / "compute-sanitizer") for f in folders if f]
    return next((c for c in candidates if c and os.access(c, os.X_OK)), None)


def sanitize(tool: str) -> list[str]:
    """Run the sanitizer's tools; what failed, in words."""
    failed = []
    script = [sys.executable, str(ROOT / "tests" / "gpu" / "sanitized_cases.py")]
    for name in TOOLS:
        command = [tool, "--tool", name, "--error-exitcode", str(ERROR), *script]
        try:
            done = subprocess.run(
                command, env=environment(), capture_output=True, text=True, timeout=SECONDS
            )
        except subprocess.TimeoutExpired:
            print(f"compute-sanitizer {name}: not done after {SECONDS} seconds", flush=True)
            failed.append(f"compute-sanitizer {name}")
            continue
        text = done.stdout + done.stderr
        lines = [line for line in text.splitlines() if "SUMMARY" in line or "cases ran" in line]
        print(f"compute-sanitizer {name}: {'; '.join(lines) or 'said nothing'}", flush=True)
        if done.returncode != 0:
            print(text[-4000:], flush=True)
            failed.append(f"compute-sanitizer {name}")
    return failed


def main(arguments: Sequence[str]) -> int:
    """Run everything; the exit code."""
    from benchmarks.gpu.machine import describe, runtime_problem

    absent = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if absent:
        print(f"NOTHING PROVED: {sys.executable} has no {', '.join(absent)}")
        return NOTHING_PROVED
    missing: list[str] = []
    for name, value in describe().items():
        print(f"{name:20s} {value}")
    library, problem = kernel_library()
    print(f"{'kernel library':20s} {library or problem}", flush=True)
    if problem:
        missing.append(f"kernels on the device ({problem})")
    whole = runtime_problem()
    if whole and "ALLMEM_OPS_LIBRARY" in whole:
        refused = build_operators()
        whole = f"{whole}; {refused}" if refused else runtime_problem()
    if whole:
        missing.append(f"whole models ({whole})")

    child = environment()
    if library:
        child["ALLMEM_CUDA_KERNELS"] = library
    options = [a for a in arguments if a != "--without-sanitizer"]
    command = [sys.executable, "-m", "pytest", "-m", "gpu", *TESTS, *options]
    done = subprocess.run(command, cwd=ROOT, env=child, stdout=subprocess.PIPE, text=True)
    print(done.stdout, flush=True)
    failed = [] if done.returncode in (0, 5) else ["tests"]
    counted = re.search(r"(\d+) passed", done.stdout)

    sanitizer = find_sanitizer()
    if "--without-sanitizer" in arguments:
        missing.append("compute-sanitizer (left out)")
    elif sanitizer is None:
        missing.append("compute-sanitizer (not found: it comes with the CUDA toolkit)")
    elif library:
        failed += sanitize(sanitizer)

    for line in missing:
        print(f"not run: {line}")
    if failed:
        print(f"FAILED: {', '.join(failed)}")
        return FAILED
    if not library:
        print("NOTHING PROVED: the kernels did not run on a device")
        return NOTHING_PROVED
    print(f"{counted[1] if counted else 'no'} tests passed on the device")
    return 0 if counted else NOTHING_PROVED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
