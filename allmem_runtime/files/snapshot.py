"""Saving a session to an .allmem file and reading it back; see ``header`` for the layout.

Tensors are read and written here, not by a library: each goes straight between the file and the
state, so memory stays at one tensor.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from allmem_runtime.errors import SessionFileError, SessionStateError
from allmem_runtime.files.atomic import replace_file
from allmem_runtime.files.header import (
    BROKEN,
    FORMAT,
    FORMAT_VERSION,
    LENGTH_BYTES,
    MAX_HEADER_BYTES,
    Header,
    Owner,
    header_bytes,
    header_digest,
    open_saved,
    read_header,
    tensor_table,
    unreadable,
)
from allmem_runtime.files.links import followed
from allmem_runtime.files.position_metadata import place_to_metadata
from allmem_runtime.spec import StateSpec, past_name
from allmem_runtime.state import Place, Tensors, not_finite

__all__ = ["Header", "Owner", "open_saved", "read_header", "read_tensors", "save"]


def save(path: Path, owner: Owner, state: StateSpec, tensors: Tensors, place: Place) -> str:
    """Write a session; ``path`` holds the old file or the new one, never anything between.

    Returns:
        The new file's digest.

    Raises:
        SessionStateError: the state is not finite; nothing was written.
        StorageError: writing failed; an older file at ``path`` is unharmed.
    """
    problem = not_finite(state, tensors)
    if problem:
        raise SessionStateError(
            f"{problem} holds a value that is not finite; the session was not saved.",
            "Take the session back with rollback(), or start again with reset().",
        )
    names = [past_name(layer, tensor.name) for layer, tensor in state]
    digests = {name: hashlib.sha256(_bytes(tensors.read(name))).hexdigest() for name in names}
    metadata = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "model_name": owner.name,
        "model_digest": owner.model,
        "tokenizer_digest": owner.tokenizer,
        "state_digest": state.digest,
        "operators": json.dumps(owner.operators, sort_keys=True),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "parent": place.parent,
        "tensors": json.dumps(digests, sort_keys=True),
        **place_to_metadata(place),
    }
    table = tensor_table(state)
    metadata["digest"] = header_digest(metadata, table)
    header = header_bytes(metadata, table)
    if len(header) > MAX_HEADER_BYTES:
        raise SessionStateError(
            f"{len(place.pending)} tokens wait to be fed, too many for a session file.",
            "Finish the interrupted call first.",
        )

    def write(file: BinaryIO) -> None:
        file.write(len(header).to_bytes(LENGTH_BYTES, "little"))
        file.write(header)
        for name in names:
            file.write(_bytes(tensors.read(name)))

    replace_file(followed(path), write)
    return metadata["digest"]


def read_tensors(header: Header, file: BinaryIO, state: StateSpec, tensors: Tensors) -> None:
    """Read all tensors into a state that nobody uses yet.

    Args:
        header: of the file, checked against the state.
        file: the open file, at its first tensor.
        state: what it holds.
        tensors: filled.

    Raises:
        SessionFileError: a tensor is not the one that was saved, or not finite.
    """
    digests = json.loads(header.metadata["tensors"])
    path = header.path
    try:
        for layer, tensor in state:
            name = past_name(layer, tensor.name)
            values = np.empty(tensor.shape, tensor.element)
            if file.readinto(_bytes(values)) != values.nbytes:  # type: ignore[attr-defined]
                raise SessionFileError(f"{path} ends within {name}.", BROKEN)
            if hashlib.sha256(_bytes(values)).hexdigest() != digests.get(name):
                raise SessionFileError(f"{path}: {name} was changed.", BROKEN)
            tensors.write(name, values)
    except OSError as error:
        raise unreadable(path, error) from None
    problem = not_finite(state, tensors)
    if problem:
        raise SessionFileError(f"{path}: {problem} holds a value that is not finite.", BROKEN)


def _bytes(values: NDArray[Any]) -> memoryview:
    """The memory of a contiguous array."""
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
