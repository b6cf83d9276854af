"""Tokenizers of others: read and converted by libraries that fail in ways of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tokenizers import Tokenizer

from allmem_exporters.errors import ConversionError


def read_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in a ``tokenizer.json``.

    Raises:
        ConversionError: it cannot be read, or is none.
    """
    with named_failure(f"{path} is no tokenizer", "Fetch an intact copy."):
        return Tokenizer.from_str(path.read_text(encoding="utf-8"))


@contextmanager
def named_failure(what: str, hint: str) -> Iterator[None]:
    """Turn what a library for tokenizers raises into an error of ours.

    Args:
        what: the beginning of the message; the reason follows in brackets.
        hint: the remedy.

    Raises:
        ConversionError: the library failed.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError, ConversionError):
        raise
    # The native library raises plain Exception, and its panics are no Exception at all.
    except BaseException as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConversionError(f"{what} ({reason[:300]}).", hint) from error
