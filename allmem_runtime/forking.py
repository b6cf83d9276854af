"""Copies a saved session into a new file that names the old one as its parent.

It needs no model: nothing is interpreted, everything is verified.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from allmem_runtime import snapshot
from allmem_runtime.errors import SessionFileError

_COPY_BYTES = 1 << 20
_DAMAGED = "The file is damaged or incomplete: use another copy, or read the document again."


def fork_file(source: Path, target: Path) -> str:
    """Copy a session file; ``target`` is written whole or not at all.

    Args:
        source: a session file; it is left as it is.
        target: the copy; its parent is the digest of ``source``.

    Returns:
        The digest of the copy.

    Raises:
        SessionFileError: ``source`` is missing, damaged or no session file.
        StorageError: writing failed.
    """
    header = snapshot.read_header(source)
    metadata = {
        **header.metadata,
        "parent": header.digest,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    metadata["digest"] = snapshot._header_digest(metadata, header.tensors)
    new_header = snapshot._header_bytes(metadata, header.tensors)

    def write(file: BinaryIO) -> None:
        file.write(len(new_header).to_bytes(snapshot._LENGTH_BYTES, "little"))
        file.write(new_header)
        with source.open("rb") as old:
            old.seek(header.data_at)
            _copy_tensors(header, old, file)

    snapshot._replace(target, write)
    return metadata["digest"]


def _copy_tensors(header: snapshot.Header, old: BinaryIO, new: BinaryIO) -> None:
    """Copy the tensors in the order of the file, comparing each with its SHA-256."""
    digests = json.loads(header.metadata["tensors"])
    at = 0
    for name, row in sorted(header.tensors.items(), key=lambda item: item[1]["data_offsets"][0]):
        start, end = row["data_offsets"]
        if start != at:
            raise SessionFileError(f"{header.path}: {name} does not follow the others.", _DAMAGED)
        digest = hashlib.sha256()
        while at < end:
            block = old.read(min(_COPY_BYTES, end - at))
            if not block:
                raise SessionFileError(f"{header.path} ends within {name}.", _DAMAGED)
            digest.update(block)
            new.write(block)
            at += len(block)
        if digest.hexdigest() != digests.get(name):
            raise SessionFileError(f"{header.path}: {name} was changed.", _DAMAGED)
