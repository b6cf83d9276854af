"""Finding or building the CUDA kernels' library without ONNX Runtime, in a checkout.

    python -m allmem_ops.kernel_build [--architecture 90] [--out FILE]     builds it

Where no compiler is, build it elsewhere and name the file by ``ALLMEM_CUDA_KERNELS``.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from allmem_ops.kernel_library import Unavailable

ROOT = Path(__file__).resolve().parents[2]
CUDA = ROOT / "custom_ops" / "src" / "cuda"
VARIABLE = "ALLMEM_CUDA_KERNELS"
FLAGS = ("-std=c++17", "-O3", "-shared", "-Xcompiler", "-fPIC", "-lineinfo")


def sources() -> list[Path]:
    """The kernels and their C interface."""
    return sorted([*CUDA.glob("*.cu"), *(CUDA / "entry").glob("*.cu")])


def digest() -> str:
    """A name for the state of the sources."""
    known = hashlib.sha256()
    for path in sorted((CUDA.parent).rglob("*")):
        if path.suffix in (".cu", ".h"):
            known.update(path.read_bytes())
    return known.hexdigest()[:16]


def find_nvcc() -> Path | None:
    """CUDA's compiler: on the PATH, under ``CUDA_HOME``, or where it is usually installed."""
    folders = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if name in os.environ]
    folders += [str(path) for path in sorted(Path("/usr/local").glob("cuda*"), reverse=True)]
    folders += [str(path) for entry in sys.path for path in Path(entry).glob("nvidia/cu1[0-9]")]
    candidates = [shutil.which("nvcc"), *(os.path.join(f, "bin", "nvcc") for f in folders)]
    return next((Path(c) for c in candidates if c and os.access(c, os.X_OK)), None)


def build(architectures: tuple[str, ...], out: Path | None = None) -> Path:
    """Compile the library; a built one is used again until a source changes.

    Args:
        architectures: compute capabilities such as ``90``; the last one's PTX goes along.
        out: the file; by default one in ``build/cuda_kernels`` named after the sources.

    Raises:
        Unavailable: there is no compiler, or it refuses the sources.
    """
    name = f"liballmem_cuda_kernels-{'-'.join(architectures)}-{digest()}.so"
    made = out or ROOT / "build" / "cuda_kernels" / name
    if out is None and made.exists():
        return made
    compiler = find_nvcc()
    if compiler is None:
        raise Unavailable(
            f"nvcc was not found and {VARIABLE} names no library: put CUDA 13's nvcc on the PATH, "
            "or build the library elsewhere (python -m allmem_ops.kernel_build) and name it"
        )
    made.parent.mkdir(parents=True, exist_ok=True)
    targets = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in architectures]
    targets.append(f"-gencode=arch=compute_{architectures[-1]},code=compute_{architectures[-1]}")
    with tempfile.TemporaryDirectory(dir=made.parent) as temporary:
        part = Path(temporary) / "library.so"
        command = [str(compiler), *FLAGS, "-t", "0", *targets, "-o", str(part)]
        command += [str(path) for path in sources()]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise Unavailable(f"{compiler} refuses the kernels: {done.stderr[-2000:].strip()}")
        os.replace(part, made)
    return made


def find(architecture: str) -> Path:
    """The library for a card of this compute capability: the one named, or one built now.

    Raises:
        Unavailable: there is none, and none can be built.
    """
    named = os.environ.get(VARIABLE)
    if not named:
        return build((architecture,))
    if not Path(named).is_file():
        raise Unavailable(f"{VARIABLE} names {named}, which is not a file")
    return Path(named)


def main() -> None:
    """Build the library for some cards."""
    parser = argparse.ArgumentParser(
        prog="python -m allmem_ops.kernel_build",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--architecture",
        default="80,86,89,90",
        help="of the cards, with commas (default: %(default)s)",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="what to build")
    arguments = parser.parse_args()
    try:
        print(build(tuple(arguments.architecture.split(",")), arguments.out))
    except Unavailable as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
