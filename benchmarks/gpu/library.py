"""The CUDA kernels without ONNX Runtime: a shared library found or built, and its calls.

    python -m benchmarks.gpu.library [--architecture 90] [--out FILE]     builds it

Where no compiler is, build it elsewhere and name the file by ``ALLMEM_CUDA_KERNELS``.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.arguments import names, parser_of
from benchmarks.gpu.calls import Call

ROOT = Path(__file__).resolve().parents[2]
CUDA = ROOT / "custom_ops" / "src" / "cuda"
VARIABLE = "ALLMEM_CUDA_KERNELS"
FLAGS = ("-std=c++17", "-O3", "-shared", "-Xcompiler", "-fPIC", "-lineinfo")


class Unavailable(RuntimeError):
    """Something that a measurement needs is not here; the text says what, and the remedy."""


class LaunchError(RuntimeError):
    """CUDA refused a launch."""


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
            "or build the library elsewhere (python -m benchmarks.gpu.library) and name it"
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


class KernelLibrary:
    """A loaded library; one with the kernels for a device, or one that runs them on the CPU."""

    def __init__(self, path: Path) -> None:
        try:
            self._library = ctypes.CDLL(str(path))
        except OSError as error:
            raise Unavailable(f"{path} does not load: {error}") from error
        self.path = path
        self._library.allmem_entry_failure.restype = ctypes.c_char_p
        for entry in ("attention", "memory"):
            self._library[f"allmem_entry_{entry}_scratch"].restype = ctypes.c_size_t
            self._library[f"allmem_entry_{entry}"].restype = None

    def scratch_bytes(self, call: Call, addresses: Mapping[str, int]) -> int:
        """Bytes of scratch that the call needs."""
        size = self._library[f"allmem_entry_{call.entry}_scratch"](*call.arrays(addresses))
        assert isinstance(size, int)
        return size

    def launch(self, call: Call, addresses: Mapping[str, int], scratch: int, stream: int) -> None:
        """Put the call on a stream; nothing is waited for.

        Raises:
            LaunchError: a launch was refused.
        """
        Prepared(self, call, addresses, scratch)(stream)

    def failure(self) -> str | None:
        """CUDA's words for the last launch that failed."""
        words = self._library.allmem_entry_failure()
        return None if words is None else words.decode()

    def entry(self, call: Call) -> ctypes._NamedFuncPointer:
        """The C function of a call."""
        function: ctypes._NamedFuncPointer = self._library[f"allmem_entry_{call.entry}"]
        return function


class Prepared:
    """A call whose arrays exist already, so that a launch costs as little Python as it can."""

    def __init__(
        self, library: KernelLibrary, call: Call, addresses: Mapping[str, int], scratch: int
    ) -> None:
        self._library = library
        self._function = library.entry(call)
        self._arrays = call.arrays(addresses)
        self._scratch = ctypes.c_void_p(scratch)

    def __call__(self, stream: int) -> None:
        """Launch; see ``KernelLibrary.launch``."""
        self._function(*self._arrays, self._scratch, ctypes.c_void_p(stream))
        failure = self._library.failure()
        if failure is not None:
            raise LaunchError(failure)


def main() -> None:
    """Build the library for some cards."""
    parser = parser_of("gpu.library", __doc__)
    parser.add_argument("--architecture", type=names, default=["80", "86", "89", "90"],
                        help="of the cards, with commas")  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="FILE", help="what to build")
    arguments = parser.parse_args()
    try:
        print(build(tuple(arguments.architecture), arguments.out))
    except Unavailable as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
