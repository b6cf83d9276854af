"""Which operator library to load: our own wheel's, one the user names, or none."""

from __future__ import annotations

from pathlib import Path

from allmem_runtime.errors import OperatorLibraryError


def find_library(operators: str) -> Path | str | None:
    """Where the native operators are.

    Args:
        operators: ``auto``, ``native``, ``portable``, or the path of a library. A model cannot
            name one: libraries are code.

    Returns:
        A path, None for ``portable``, or the reason why there is no library.

    Raises:
        OperatorLibraryError: the path is no file.
    """
    if operators == "portable":
        return None
    if operators not in ("auto", "native"):
        path = Path(operators).expanduser().resolve()
        if not path.is_file():
            raise OperatorLibraryError(
                f"{operators!r} is neither auto, native, portable nor a file.",
                "Give the path of a library that this package built.",
            )
        return path
    return _packaged()


def _packaged() -> Path | str:
    return "this installation has no native library"
