"""The .allmem file: a saved session. A safetensors container, written atomically, read strictly.

Layout (https://github.com/huggingface/safetensors): eight bytes with the length of the header,
the header as JSON, the tensors. Reading and writing are done here, not by a library, because
each tensor goes straight between the file and the state: memory stays at one tensor.
The header is canonical and carries its own SHA-256, so no bit of it can change unnoticed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from allmem_runtime.errors import SessionFileError, SessionStateError, StorageError
from allmem_runtime.place_text import place_from_metadata, place_to_metadata
from allmem_runtime.spec import StateSpec, StateTensor, past_name
from allmem_runtime.state import Place, Tensors, not_finite

FORMAT = "allmem-session"
FORMAT_VERSION = 1
MAX_HEADER_BYTES = 1 << 25
_LENGTH_BYTES = 8
_TYPES = {"float32": "F32", "float16": "F16"}
_BROKEN = "The file is damaged or incomplete: use another copy, or read the document again."


@dataclass(frozen=True, slots=True)
class Owner:
    """The model a session belongs to.

    Args:
        name: the model's name, for messages.
        model: SHA-256 of model.onnx.
        tokenizer: SHA-256 of tokenizer.json.
        operators: operator versions.
        vocab_size: token ids are below it.
    """

    name: str
    model: str
    tokenizer: str
    operators: dict[str, int]
    vocab_size: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a session file says of itself; read without its model.

    Args:
        path: the file.
        metadata: its texts.
        tensors: name to type, shape and byte range within the data.
        data_at: offset of the first tensor in the file.
        data_bytes: bytes of all tensors.
    """

    path: Path
    metadata: dict[str, str]
    tensors: dict[str, dict[str, Any]]
    data_at: int
    data_bytes: int

    @property
    def digest(self) -> str:
        """SHA-256 of the header, which holds those of the tensors: it names this very state."""
        return self.metadata["digest"]

    @property
    def model_name(self) -> str:
        """Name of the model that the session belongs to."""
        return self.metadata["model_name"]

    def place(self, vocab_size: int) -> Place:
        """Where the session stands in its text.

        Raises:
            SessionFileError: a value is outside its range.
        """
        try:
            place = place_from_metadata(self.metadata, vocab_size)
        except ValueError as error:
            raise SessionFileError(f"{self.path}: {error}.", _BROKEN) from None
        place.parent = self.digest
        return place

    def check(self, owner: Owner, state: StateSpec) -> None:
        """Compare with the model that is to go on with it.

        Raises:
            SessionFileError: it is another model's; the text names both sides.
        """
        operators = json.dumps(owner.operators, sort_keys=True)
        for what, key, here in (
            ("tokenizer", "tokenizer_digest", owner.tokenizer),
            ("state layout", "state_digest", state.digest),
            ("operator versions", "operators", operators),
            ("graph", "model_digest", owner.model),
        ):
            there = self.metadata[key]
            if there != here:
                raise SessionFileError(
                    f"{self.path} was saved with the model {self.model_name!r} ({what} "
                    f"{_short(there)}); this model is {owner.name!r} ({what} {_short(here)}).",
                    "Open it with the model it was saved with, or read the document again.",
                )
        expected = _table(state)
        if self.tensors != expected:
            raise SessionFileError(
                f"{self.path} does not hold the tensors of its own state layout.", _BROKEN
            )


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
    table = _table(state)
    metadata["digest"] = _header_digest(metadata, table)
    header = _header_bytes(metadata, table)
    if len(header) > MAX_HEADER_BYTES:
        raise SessionStateError(
            f"{len(place.pending)} tokens wait to be fed, too many for a session file.",
            "Finish the interrupted call first.",
        )

    def write(file: BinaryIO) -> None:
        file.write(len(header).to_bytes(_LENGTH_BYTES, "little"))
        file.write(header)
        for name in names:
            file.write(_bytes(tensors.read(name)))

    _replace(path, write)
    return metadata["digest"]


def read_header(path: Path) -> Header:
    """Read and check everything but the tensors.

    Raises:
        SessionFileError: the file is missing, cut, changed, or no session file.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            raw = file.read(_LENGTH_BYTES)
            length = int.from_bytes(raw, "little")
            if len(raw) < _LENGTH_BYTES or not 2 <= length <= min(
                MAX_HEADER_BYTES, size - _LENGTH_BYTES
            ):
                raise SessionFileError(f"{path} is no session file, or it was cut off.", _BROKEN)
            header = file.read(length)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise _unreadable(path, error) from None
    metadata, tensors = _parse(path, header)
    data_bytes = size - _LENGTH_BYTES - length
    ends = [row["data_offsets"][1] for row in tensors.values()]
    if max(ends, default=0) != data_bytes:
        raise SessionFileError(
            f"{path} holds {data_bytes} bytes of tensors, its header says {max(ends, default=0)}.",
            _BROKEN,
        )
    return Header(path, metadata, tensors, _LENGTH_BYTES + length, data_bytes)


def read_tensors(header: Header, state: StateSpec, tensors: Tensors) -> None:
    """Read all tensors into a state that nobody uses yet; ``header`` was checked against it.

    Raises:
        SessionFileError: a tensor is not the one that was saved, or not finite.
    """
    digests = json.loads(header.metadata["tensors"])
    path = header.path
    try:
        with path.open("rb") as file:
            file.seek(header.data_at)
            for layer, tensor in state:
                name = past_name(layer, tensor.name)
                values = np.empty(tensor.shape, tensor.element)
                if file.readinto(_bytes(values)) != values.nbytes:
                    raise SessionFileError(f"{path} ends within {name}.", _BROKEN)
                if hashlib.sha256(_bytes(values)).hexdigest() != digests.get(name):
                    raise SessionFileError(f"{path}: {name} was changed.", _BROKEN)
                tensors.write(name, values)
    except OSError as error:
        raise _unreadable(path, error) from None
    problem = not_finite(state, tensors)
    if problem:
        raise SessionFileError(f"{path}: {problem} holds a value that is not finite.", _BROKEN)


def _table(state: StateSpec) -> dict[str, dict[str, Any]]:
    """The tensors as a safetensors header lists them, one after the other."""
    table: dict[str, dict[str, Any]] = {}
    at = 0
    for layer, tensor in state:
        table[past_name(layer, tensor.name)] = _row(tensor, at)
        at += tensor.nbytes
    return table


def _row(tensor: StateTensor, at: int) -> dict[str, Any]:
    return {
        "dtype": _TYPES[tensor.element],
        "shape": list(tensor.shape),
        "data_offsets": [at, at + tensor.nbytes],
    }


def _header_bytes(metadata: dict[str, str], table: dict[str, dict[str, Any]]) -> bytes:
    data = json.dumps(
        {"__metadata__": metadata, **table}, sort_keys=True, separators=(",", ":")
    ).encode()
    return data + b" " * (-len(data) % 8)


def _header_digest(metadata: dict[str, str], table: dict[str, dict[str, Any]]) -> str:
    rest = {key: value for key, value in metadata.items() if key != "digest"}
    return hashlib.sha256(_header_bytes(rest, table)).hexdigest()


def _parse(path: Path, header: bytes) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
    try:
        data = json.loads(header)
        metadata = data.pop("__metadata__")
        if metadata["format"] != FORMAT:
            raise SessionFileError(f"{path} is no session file.", _BROKEN)
        version = metadata["format_version"]
        if version != str(FORMAT_VERSION):
            raise SessionFileError(
                f"{path} has the format version {version!r}; this runtime reads {FORMAT_VERSION}.",
                "Open it with the version of this program that saved it.",
            )
        texts = all(isinstance(value, str) for value in metadata.values())
        canonical = _header_bytes(metadata, data) == header
        if not texts or not canonical or _header_digest(metadata, data) != metadata["digest"]:
            raise SessionFileError(f"{path}: its header was changed.", _BROKEN)
        for row in data.values():
            start, end = row["data_offsets"]
            if row["dtype"] not in _TYPES.values() or not 0 <= start <= end:
                raise ValueError("a tensor is out of bounds")
            if math.prod(row["shape"]) * (4 if row["dtype"] == "F32" else 2) != end - start:
                raise ValueError("a tensor's size is not that of its shape")
        if not isinstance(json.loads(metadata["tensors"]), dict):
            raise ValueError("the digests are no table")
        needed = ("model_name", "model_digest", "tokenizer_digest", "state_digest", "operators")
        if missing := [key for key in needed if key not in metadata]:
            raise ValueError(f"{missing[0]} is missing")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise SessionFileError(f"{path} has no valid header ({error}).", _BROKEN) from None
    return metadata, data


def _replace(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Write to a temporary file beside ``path``, make sure it is on the disk, rename it."""
    temporary: Path | None = None
    try:
        # mkstemp gives mode 0600: a session tells what was read.
        handle, name = tempfile.mkstemp(".tmp", f".{path.name[:64]}.", path.parent)
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        temporary = None
        _sync_folder(path.parent)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        hint = "Make room on the disk, or save elsewhere." if full else "Check the folder."
        raise StorageError(f"{path} could not be written: {reason}.", hint) from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Put the rename itself on the disk; where folders cannot be opened there is nothing to do."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _bytes(values: NDArray[Any]) -> memoryview:
    """The memory of a contiguous array."""
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data


def _short(digest: str) -> str:
    return digest[:12] if len(digest) == 64 else digest[:200]


def _unreadable(path: Path, error: Exception) -> SessionFileError:
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return SessionFileError(f"{path} cannot be read: {reason}.", "Check the path and permissions.")
