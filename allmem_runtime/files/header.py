"""The header of an .allmem file: what a session says of itself, and whose it is.

Layout (https://github.com/huggingface/safetensors): eight bytes with the length of the header,
the header as JSON, the tensors. The header is canonical and carries its own SHA-256, so no bit of
it can change unnoticed.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from allmem_runtime.errors import SessionFileError
from allmem_runtime.files.layout import TYPES, layout, shortened
from allmem_runtime.files.position_metadata import place_from_metadata
from allmem_runtime.files.regular import open_regular
from allmem_runtime.spec import BYTES, StateSpec, StateTensor, past_name
from allmem_runtime.state import Place
from allmem_runtime.strict_json import is_whole, parse_object

FORMAT = "allmem-session"
FORMAT_VERSION = 1
MAX_HEADER_BYTES = 1 << 25
LENGTH_BYTES = 8
_MOST_BYTES = 1 << 48  # more than any file has
BROKEN = "The file is damaged or incomplete: use another copy, or read the document again."
_NO_SESSION = "Name a file that was saved as a session; if this is one, it is damaged."
_SIZES = {TYPES[element]: size for element, size in BYTES.items()}


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
        data_bytes: bytes of all tensors.
    """

    path: Path
    metadata: dict[str, str]
    tensors: dict[str, dict[str, Any]]
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
            raise SessionFileError(f"{self.path}: {error}.", BROKEN) from None
        place.parent = self.digest
        return place

    def check(self, owner: Owner, state: StateSpec) -> None:
        """Compare with the model that is to go on with it.

        Raises:
            SessionFileError: it is another model's; the text names both sides.
        """
        operators = json.dumps(owner.operators, sort_keys=True)
        expected = tensor_table(state)
        for what, key, here in (
            ("tokenizer", "tokenizer_digest", owner.tokenizer),
            ("state layout", "state_digest", state.digest),
            ("operator versions", "operators", operators),
            ("graph", "model_digest", owner.model),
        ):
            there = self.metadata[key]
            if there != here:
                told = [shortened(there), shortened(here)]
                if key == "state_digest":
                    told[0] += f", {layout(self.tensors)}"
                    told[1] += f", {layout(expected)}"
                raise SessionFileError(
                    f"{self.path} was saved with the model {self.model_name!r} ({what} {told[0]}); "
                    f"this model is {owner.name!r} ({what} {told[1]}).",
                    "Open it with the model it was saved with, or read the document again.",
                )
        if self.tensors != expected:
            raise SessionFileError(
                f"{self.path} does not hold the tensors of its own state layout.", BROKEN
            )


@contextmanager
def open_saved(path: Path) -> Iterator[tuple[Header, BinaryIO]]:
    """Open a session file once, however often its name is given to another one meanwhile.

    Yields:
        Its header, checked, and the file where the first tensor begins.

    Raises:
        SessionFileError: the file is missing, cut, changed, or no session file.
    """
    try:
        file = open_regular(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise unreadable(path, error) from None
    with file:
        yield _read(path, file), file


def read_header(path: Path) -> Header:
    """Read and check everything but the tensors.

    Raises:
        SessionFileError: the file is missing, cut, changed, or no session file.
    """
    with open_saved(path) as (header, _):
        return header


def _read(path: Path, file: BinaryIO) -> Header:
    try:
        size = os.fstat(file.fileno()).st_size
        raw = file.read(LENGTH_BYTES)
        length = int.from_bytes(raw, "little")
        if len(raw) < LENGTH_BYTES or not 2 <= length <= min(MAX_HEADER_BYTES, size - LENGTH_BYTES):
            raise SessionFileError(f"{path} is no session file, or was cut off.", _NO_SESSION)
        header = file.read(length)
    except OSError as error:
        raise unreadable(path, error) from None
    metadata, tensors = _parse(path, header)
    data_bytes = size - LENGTH_BYTES - length
    ends = [row["data_offsets"][1] for row in tensors.values()]
    if max(ends, default=0) != data_bytes:
        raise SessionFileError(
            f"{path} holds {data_bytes} bytes of tensors, its header says {max(ends, default=0)}.",
            BROKEN,
        )
    return Header(path, metadata, tensors, data_bytes)


def tensor_table(state: StateSpec) -> dict[str, dict[str, Any]]:
    """The tensors as a safetensors header lists them, one after the other."""
    table: dict[str, dict[str, Any]] = {}
    at = 0
    for layer, tensor in state:
        table[past_name(layer, tensor.name)] = _row(tensor, at)
        at += tensor.nbytes
    return table


def _row(tensor: StateTensor, at: int) -> dict[str, Any]:
    return {
        "dtype": TYPES[tensor.element],
        "shape": list(tensor.shape),
        "data_offsets": [at, at + tensor.nbytes],
    }


def header_bytes(metadata: dict[str, str], table: dict[str, dict[str, Any]]) -> bytes:
    """The one spelling of a header: keys sorted, no spaces, padded to eight bytes."""
    data = json.dumps(
        {"__metadata__": metadata, **table}, sort_keys=True, separators=(",", ":")
    ).encode()
    return data + b" " * (-len(data) % 8)


def header_digest(metadata: dict[str, str], table: dict[str, dict[str, Any]]) -> str:
    """SHA-256 of a header without its own digest."""
    rest = {key: value for key, value in metadata.items() if key != "digest"}
    return hashlib.sha256(header_bytes(rest, table)).hexdigest()


def _parse(path: Path, header: bytes) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
    try:
        data = parse_object(header)
        metadata = data.pop("__metadata__")
        if metadata["format"] != FORMAT:
            raise SessionFileError(f"{path} is no session file.", _NO_SESSION)
        version = metadata["format_version"]
        if version != str(FORMAT_VERSION):
            raise SessionFileError(
                f"{path} has the format version {version!r}; this runtime reads {FORMAT_VERSION}.",
                "Open it with the version of this program that saved it.",
            )
        texts = all(isinstance(value, str) for value in metadata.values())
        canonical = header_bytes(metadata, data) == header
        if not texts or not canonical or header_digest(metadata, data) != metadata["digest"]:
            raise SessionFileError(f"{path}: its header was changed.", BROKEN)
        for row in data.values():
            _check_row(row)
        for key in ("tensors", "operators"):
            parse_object(metadata[key])
        needed = ("model_name", "model_digest", "tokenizer_digest", "state_digest", "operators")
        if missing := [key for key in needed if key not in metadata]:
            raise ValueError(f"{missing[0]} is missing")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise SessionFileError(f"{path} has no valid header ({error}).", BROKEN) from None
    return metadata, data


def _check_row(row: Any) -> None:
    """A tensor's entry holds a known type, sizes, and the range of bytes that these take."""
    shape, place = row["shape"], row["data_offsets"]
    if set(row) != {"dtype", "shape", "data_offsets"} or len(place) != 2 or len(shape) > 8:
        raise ValueError("a tensor's entry is none")
    if not all(is_whole(number, 0, _MOST_BYTES) for number in (*shape, *place)):
        raise ValueError("a tensor is out of bounds")
    if math.prod(shape) * _SIZES[row["dtype"]] != place[1] - place[0]:
        raise ValueError("a tensor's size is not that of its shape")


def unreadable(path: Path, error: Exception) -> SessionFileError:
    """What to tell when the operating system refuses to read."""
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return SessionFileError(f"{path} cannot be read: {reason}.", "Check the path and permissions.")
