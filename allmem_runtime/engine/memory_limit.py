"""A limit for device memory: reading what the user typed, and telling when it was met."""

from __future__ import annotations

import re

from allmem_runtime.errors import UsageError

_SIZE = re.compile(r"(\d{1,12}(?:\.\d{1,3})?)\s*([KMGT]?)(I?)(B?)\Z", re.IGNORECASE | re.ASCII)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_LEAST = 1 << 20
_REMEDY = "Write it like 4GiB, 512MiB or 4294967296."

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
    """Bytes from what was typed: ``4GiB``, ``4GB``, ``512m``, or a plain number of bytes.

    ``G``, ``GiB`` and ``GB`` alike are 1024^3, as cards are sold.

    Raises:
        UsageError: it is no size, or less than a mebibyte.
    """
    if isinstance(text, bool):
        raise UsageError(f"The device memory limit is {text!r}.", _REMEDY)
    if isinstance(text, int):
        count = text
    else:
        match = _SIZE.match(text.strip())
        if not match or (match[3] and not match[2]) or ("." in match[1] and not match[2]):
            raise UsageError(f"The device memory limit {text!r} is no size.", _REMEDY)
        count = int(float(match[1]) * 1024 ** _POWERS[match[2].upper()])
    if not _LEAST <= count < 1 << 62:
        raise UsageError(f"The device memory limit {text!r} cannot be meant.", _REMEDY)
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
        f"the limit of {limit / 2**20:,.0f} MiB (--device-memory) for {device} is too small",
        "Allow more, use a model of fewer bytes, or use --device cpu.",
    )
