"""Which operator library to load: our own wheel's, one the user names, or none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from allmem_ops.library import LibraryError, LibraryInfo, check_library
from allmem_ops.schema import VERSIONS
from allmem_runtime.engine.cuda_driver import find_cuda_device, has_kernels
from allmem_runtime.engine.devices import Device
from allmem_runtime.errors import OperatorLibraryError

KERNELS_REMEDY = (
    "install the package with `pip install . -C cmake.define.ALLMEM_CUDA=ON`, where nvcc is"
)


def find_library(
    operators: str, wanted: Mapping[str, int], device: Device | None = None
) -> LibraryInfo | str | None:
    """The native operators, checked to be those this package and this model speak of.

    Args:
        operators: ``auto``, ``native``, ``portable``, or the path of a library. A model cannot
            name one: libraries are code.
        wanted: operator versions of the model.
        device: where the operators are to run; the CPU by default.

    Returns:
        The library, None for ``portable``, or the reason why it cannot be used.

    Raises:
        OperatorLibraryError: a path was given, and there is no library of ours.
    """
    if operators == "portable":
        return None
    named = None if operators in ("auto", "native") else Path(operators).expanduser().resolve()
    if named is not None and not named.is_file():
        raise OperatorLibraryError(
            f"{operators!r} is neither auto, native, portable nor a file.",
            "Give the path of a library that this package built.",
        )
    for name, version in wanted.items():
        if version not in VERSIONS.get(name, ()):
            return f"the model wants version {version} of {name}, which this package does not know"
    try:
        library = check_library(named)
    except LibraryError as error:
        return str(error).rstrip(".")
    if device is not None and device.name == "cuda":
        card, kernels = find_cuda_device(device.index), cuda_kernels(library)
        if not kernels:
            return f"{library.path} was built without CUDA kernels ({KERNELS_REMEDY})"
        if not has_kernels(kernels, card):
            return f"{library.path} has kernels for {', '.join(kernels)}, not for {card}"
    return library


def cuda_kernels(library: LibraryInfo) -> tuple[str, ...]:
    """The architectures that a library has CUDA kernels for; none if it was built without."""
    return library.cuda_architectures
