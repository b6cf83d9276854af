"""A limit for device memory: reading what the user typed, and telling when it was met."""

from __future__ import annotations

from allmem_runtime.errors import UsageError
from allmem_runtime.quantities import BYTES_EXAMPLE, format_bytes, parse_bytes

_LEAST = 1 << 20
_NAME = "The device memory limit"

# What ONNX Runtime and CUDA say when there is none left.
_EXHAUSTED = (
    "out of memory",
    "smaller than requested bytes",
    "failed to allocate memory",
    "cuda failure 2:",
    "cublas_status_alloc_failed",
    "bad_alloc",
)


def device_bytes(text: str | int) -> int:
    """A limit in bytes, from what was typed or from a plain number of bytes.

    Raises:
        UsageError: it is no size, or less than a mebibyte.
    """
    if isinstance(text, bool):
        raise UsageError(f"{_NAME} is {text!r}.", BYTES_EXAMPLE)
    count = text if isinstance(text, int) else parse_bytes(text, _NAME)
    if not _LEAST <= count < 1 << 62:
        raise UsageError(f"{_NAME} {text!r} cannot be meant.", BYTES_EXAMPLE)
    return count


def is_exhausted(error: BaseException) -> bool:
    """Whether an error of ONNX Runtime says that memory ran out."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in _EXHAUSTED)


def exhausted(limit: int | None, device: str) -> tuple[str, str]:
    """What happened and what to do, when there was not enough memory.

    Args:
        limit: bytes allowed; None if there was no limit.
        device: its name.
    """
    if limit is None:
        return (
            f"the memory of {device} is exhausted",
            "Close what else uses it, use a model of fewer bytes, or use --device cpu.",
        )
    return (
        f"the limit of {format_bytes(limit)} (--device-memory) for {device} is too small",
        "Allow more, use a model of fewer bytes, or use --device cpu.",
    )
