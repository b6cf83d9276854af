"""Files packed by gzip, bzip2 or xz: what is in them, of any kind."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from typing import IO, BinaryIO, cast

from allmem_runtime.documents.anything import BLOCK, MOST_DEPTH, parts_of
from allmem_runtime.documents.parts import Budget, Part, Refused

_MOST = 1 << 28
_SUFFIXES = (".gz", ".bz2", ".xz", ".tgz", ".tbz2", ".txz")


def extract(file: BinaryIO, name: str, budget: Budget, depth: int) -> Iterator[Part]:
    """What was packed; see ``Extract``."""
    if depth >= MOST_DEPTH:
        raise Refused(f"is packed more than {MOST_DEPTH} times")
    unpacking = _unpacking(file)
    unpacked = io.BytesIO()
    try:
        while block := unpacking.read(BLOCK):
            budget.take(len(block))
            if unpacked.tell() > _MOST:
                raise Refused(f"unpacks to more than {_MOST >> 20} MiB", "Unpack it yourself.")
            unpacked.write(block)
    except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        raise Refused(f"is damaged, or no whole packed file ({error})") from None
    unpacked.seek(0)
    yield from parts_of(unpacked, _without_suffix(name), budget, depth + 1)


def _unpacking(file: BinaryIO) -> IO[bytes]:
    head = file.read(6)
    file.seek(0)
    if head.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.GzipFile(fileobj=file))
    return bz2.BZ2File(file) if head.startswith(b"BZh") else lzma.LZMAFile(file)


def _without_suffix(name: str) -> str:
    return next((name[: -len(end)] for end in _SUFFIXES if name.lower().endswith(end)), name)
