"""A mailbox in one file (mbox): its letters, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from allmem_runtime.documents.mail import letter
from allmem_runtime.documents.parts import Budget, Note, Part, Refused

_MOST_LETTER = 1 << 26


def extract(file: BinaryIO, name: str, budget: Budget, depth: int) -> Iterator[Part]:
    """The letters of a mailbox, each under its subject; see ``Extract``."""
    held: list[bytes] = []
    size, blank = 0, True
    for line in iter(lambda: file.readline(1 << 20), b""):
        if blank and line.startswith(b"From "):
            yield from _letter(held, size, budget, depth)
            held, size = [], 0
        else:
            size += len(line)
            if size <= _MOST_LETTER:
                held.append(line[1:] if line.startswith(b">From ") else line)
        blank = not line.strip()
    yield from _letter(held, size, budget, depth)


def _letter(lines: list[bytes], size: int, budget: Budget, depth: int) -> Iterator[Part]:
    if size > _MOST_LETTER:
        yield Note(f"a letter of more than {_MOST_LETTER >> 20} MiB; left out")
    elif lines:
        budget.take(size)
        try:
            yield from letter(b"".join(lines), budget, depth)
        except (Refused, ModuleNotFoundError, MemoryError, RecursionError):
            raise
        except (
            Exception
        ) as error:  # the library may raise anything about a letter that is not sound
            yield Note(f"a letter is damaged ({error}); left out from there on")
