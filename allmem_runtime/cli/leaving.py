"""Leaving the process at once, with what must be as it was before put back."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from allmem_runtime.cli.exit_codes import exit_code_of

_PUT_BACK: list[Callable[[], None]] = []


@contextmanager
def put_back(call: Callable[[], None]) -> Iterator[None]:
    """Call this after the body, and before the process is left at once; any thread may."""
    _PUT_BACK.append(call)
    try:
        yield
    finally:
        _PUT_BACK.remove(call)
        call()


def leave(number: int) -> NoReturn:
    """End the process because of a signal, from any thread.

    Files are replaced atomically, so there is nothing else to clean up that matters.
    """
    for call in reversed(_PUT_BACK):
        with contextlib.suppress(Exception):
            call()
    os._exit(exit_code_of(number))
