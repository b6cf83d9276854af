"""How ONNX Runtime fails: the types it raises, and the line of its message that matters."""

from __future__ import annotations

from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

FATAL = 4  # ORT's own messages also come as exceptions; printed they would end up in answers
WARNING = 2

ORT_ERRORS: tuple[type[Exception], ...] = (
    *(
        kind
        for kind in vars(ort_errors).values()
        if isinstance(kind, type) and issubclass(kind, Exception)
    ),
    RuntimeError,
    ValueError,
)
STEP_ERRORS: tuple[type[Exception], ...] = (*ORT_ERRORS, MemoryError)


def first_line(error: BaseException) -> str:
    """The first line of a message, at most 400 characters."""
    lines = str(error).strip().splitlines()
    return lines[0][:400].rstrip(".") if lines else type(error).__name__
