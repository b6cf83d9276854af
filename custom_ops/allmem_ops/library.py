"""Finding the native library of the operators, checking it and handing it to ONNX Runtime.

It does not import onnxruntime: whoever makes a session passes the options object in.
"""

from __future__ import annotations

import ctypes
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import allmem_ops
from allmem_ops.schema import VERSION

LIBRARY_VARIABLE = "ALLMEM_OPS_LIBRARY"
"""Environment variable with the path of a library to use instead of the packaged one."""


class LibraryError(OSError):
    """The native operator library cannot be used."""


class LibraryNotFound(LibraryError):
    """There is no library where it should be."""


class LibraryVersionError(LibraryError):
    """The library is of another version than this package, or no library of ours."""


class SessionOptions(Protocol):
    """The part of onnxruntime.SessionOptions that is needed here."""

    def register_custom_ops_library(self, path: str) -> None:
        """Load the library at ``path`` and register its operators."""


@dataclass(frozen=True, slots=True)
class LibraryInfo:
    """What a library says of itself.

    Attributes:
        path: the file.
        version: version of the package it was built from.
        operator_version: version of the operator contract.
        cpu_path: kernels that run on this CPU: ``generic``, ``avx2``, ``avx512`` or ``avx512vnni``.
        cuda_architectures: what its CUDA kernels were compiled for; empty if it has none.
            ``sm_86`` is machine code for compute capability 8.6 (and 8.7 to 8.9), ``compute_120``
            is PTX, which the driver compiles for 12.0 and everything later.
    """

    path: Path
    version: str
    operator_version: int
    cpu_path: str
    cuda_architectures: tuple[str, ...] = ()


def library_name() -> str:
    """File name of the library on this system."""
    if sys.platform == "win32":
        return "allmem_ops.dll"
    return "liballmem_ops.dylib" if sys.platform == "darwin" else "liballmem_ops.so"


def library_path() -> Path:
    """Where the library is: named by ``ALLMEM_OPS_LIBRARY``, or beside this package.

    Raises:
        LibraryNotFound: it is not there; the text says how to build it.
    """
    named = os.environ.get(LIBRARY_VARIABLE)
    if named:
        path = Path(named)
        if not path.is_file():
            raise LibraryNotFound(f"{LIBRARY_VARIABLE} names {path}, which is not a file.")
        return path.resolve()
    # An editable install has two folders: the sources, and the one the build was installed to.
    for folder in allmem_ops.__path__:
        path = Path(folder) / library_name()
        if path.is_file():
            return path.resolve()
    raise LibraryNotFound(
        f"The native operator library {library_name()} is not in {', '.join(allmem_ops.__path__)}."
        f" Install the package with pip, or build custom_ops with CMake and set {LIBRARY_VARIABLE}."
    )


def check_library(path: Path | None = None) -> LibraryInfo:
    """Load the library and check that it is the one this package was made with.

    Args:
        path: a library; by default the one that ``library_path`` finds.

    Raises:
        LibraryNotFound: there is no such file.
        LibraryVersionError: it speaks another version of the operator contract.
        LibraryError: it does not load, or ``ALLMEM_CPU`` asks for kernels that cannot run here.
    """
    path = library_path() if path is None else path
    if not path.is_file():
        raise LibraryNotFound(f"{path} is not a file.")
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise LibraryError(f"{path} does not load: {error}") from error
    try:
        version_of = library.allmem_ops_version
        operator_version_of = library.allmem_ops_operator_version
        cpu_path_of = library.allmem_ops_cpu_path
        _ = library.RegisterCustomOps
    except AttributeError as error:
        raise LibraryVersionError(f"{path} is no allmem operator library: {error}") from error
    version_of.restype = cpu_path_of.restype = ctypes.c_char_p
    operator_version_of.restype = ctypes.c_int
    version = version_of().decode()
    operator_version = int(operator_version_of())
    if operator_version != VERSION:
        raise LibraryVersionError(
            f"{path} (version {version}) has operators of version {operator_version}; this package "
            f"needs version {VERSION}. Reinstall the package so that both come from one build."
        )
    cpu = cpu_path_of()
    if cpu is None:
        wanted = os.environ.get("ALLMEM_CPU")
        raise LibraryError(
            f"ALLMEM_CPU is {wanted!r}, and {path} has no such kernels for this CPU. "
            "Unset it, or use generic, avx2, avx512 or avx512vnni."
        )
    return LibraryInfo(path, version, operator_version, cpu.decode(), _cuda_architectures(library))


def _cuda_architectures(library: ctypes.CDLL) -> tuple[str, ...]:
    try:
        architectures_of = library.allmem_ops_cuda_architectures
    except AttributeError:  # a library from before there were CUDA kernels
        return ()
    architectures_of.restype = ctypes.c_char_p
    return tuple(architectures_of().decode().split())


def cpu_path(path: Path | None = None) -> str:
    """Kernels that run on this CPU: ``generic``, ``avx2``, ``avx512`` or ``avx512vnni``."""
    return check_library(path).cpu_path


def register(options: SessionOptions, path: Path | None = None) -> LibraryInfo:
    """Check the library and register its operators with an ``onnxruntime.SessionOptions``.

    Raises:
        LibraryError: see ``check_library``; nothing was registered.
    """
    info = check_library(path)
    options.register_custom_ops_library(str(info.path))
    return info
