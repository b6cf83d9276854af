"""Copies a saved session into a new file that names the old one as its parent.

It needs no model: nothing is interpreted, everything is verified.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from allmem_runtime.errors import SessionFileError
from allmem_runtime.files.atomic import replace_file
from allmem_runtime.files.header import (
    BROKEN,
    LENGTH_BYTES,
    Header,
    header_bytes,
    header_digest,
    open_saved,
    unreadable,
)

_COPY_BYTES = 1 << 20


def fork_file(
    source: Path, target: Path, beside: Callable[[Header], None] = lambda header: None
) -> str:
    """Copy a session file; ``target`` is written whole or not at all.

    Args:
        source: a session file; it is left as it is.
        target: the copy; its parent is the digest of ``source``.
        beside: called with what is copied before ``target`` is written, to copy what belongs to it.

    Returns:
        The digest of the copy.

    Raises:
        SessionFileError: ``source`` is missing, damaged or no session file.
        StorageError: writing failed.
    """
    with open_saved(source) as (header, old):
        beside(header)
        metadata = {
            **header.metadata,
            "parent": header.digest,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        metadata["digest"] = header_digest(metadata, header.tensors)
        new_header = header_bytes(metadata, header.tensors)

        def write(file: BinaryIO) -> None:
            file.write(len(new_header).to_bytes(LENGTH_BYTES, "little"))
            file.write(new_header)
            _copy_tensors(header, old, file)

        replace_file(target, write)
    return metadata["digest"]


def _copy_tensors(header: Header, old: BinaryIO, new: BinaryIO) -> None:
    """Copy the tensors in the order of the file, comparing each with its SHA-256."""
    digests = json.loads(header.metadata["tensors"])
    at = 0
    for name, row in sorted(header.tensors.items(), key=lambda item: item[1]["data_offsets"][0]):
        start, end = row["data_offsets"]
        if start != at:
            raise SessionFileError(f"{header.path}: {name} does not follow the others.", BROKEN)
        digest = hashlib.sha256()
        while at < end:
            try:
                block = old.read(min(_COPY_BYTES, end - at))
            except OSError as error:
                raise unreadable(header.path, error) from None
            if not block:
                raise SessionFileError(f"{header.path} ends within {name}.", BROKEN)
            digest.update(block)
            new.write(block)
            at += len(block)
        if digest.hexdigest() != digests.get(name):
            raise SessionFileError(f"{header.path}: {name} was changed.", BROKEN)
