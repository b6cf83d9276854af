"""How ONNX Runtime fails: the types it raises, and the line of its message that matters."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import onnxruntime as ort
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


_HUSHING = threading.Lock()


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Keep ONNX Runtime from printing what concerns no user, such as plug-ins it lacks."""
    with _HUSHING:
        ort.set_default_logger_severity(FATAL)
        try:
            yield
        finally:
            ort.set_default_logger_severity(WARNING)


def first_line(error: BaseException) -> str:
    """The first line of a message, at most 400 characters."""
    lines = str(error).strip().splitlines()
    return lines[0][:400].rstrip(".") if lines else type(error).__name__
