"""A safetensors file, read one tensor or some rows at a time.

Its header is checked against the file before anything is read. What is read is copied, so that no
part of the file stays in memory once the copy is gone, as it would with a mapping of the whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from allmem_exporters.errors import ConversionError
from allmem_runtime.strict_json import MOST_BYTES, is_whole, parse_object

_TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool, "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
_MOST_DIMENSIONS = 16
_LENGTH = 8
"""Bytes before the header: its size."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a tensor lies.

    Args:
        dtype: of its values.
        shape: likewise.
        offset: of its first byte in the file.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int

    @property
    def nbytes(self) -> int:
        """Of all values."""
        return math.prod(self.shape) * self.dtype.itemsize


class TensorFile:
    """The tensors of one file by name.

    Args:
        path: of the file.

    Raises:
        ConversionError: it is no safetensors file, or its header promises what the file does not
            hold; names the tensor and the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.entries = self._read_header()
        except OSError as error:
            raise ConversionError(
                f"{path} cannot be read ({error.strerror or error}).", "Check the path."
            ) from None

    def tensor(self, name: str) -> Tensor:
        """The whole tensor, as a copy.

        Raises:
            ConversionError: the file cannot be read, or is shorter than it was.
        """
        entry = self.entries[name]
        return self._read(name, 0, entry.nbytes).view(entry.dtype).reshape(entry.shape)

    def rows(self, name: str, first: int, end: int) -> Tensor:
        """Rows ``first`` to ``end - 1`` of a tensor, as a copy.

        Raises:
            ConversionError: the file cannot be read, or is shorter than it was.
        """
        entry = self.entries[name]
        row = math.prod(entry.shape[1:]) * entry.dtype.itemsize
        found = self._read(name, first * row, (end - first) * row)
        return found.view(entry.dtype).reshape(end - first, *entry.shape[1:])

    def _read(self, name: str, start: int, length: int) -> Tensor:
        found = np.empty(length, np.uint8)
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(self.entries[name].offset + start)
                view, at = found.data, 0
                while at < length and (got := file.readinto(view[at:])):
                    at += got
        except OSError as error:
            raise ConversionError(
                f"{self.path}: the tensor {name} cannot be read ({error.strerror or error}).",
                "Check the disk.",
            ) from None
        if at < length:
            raise self._damaged(f"the file ends within the tensor {name}")
        return torch.from_numpy(found)

    def _read_header(self) -> dict[str, Entry]:
        size = self.path.stat().st_size
        with self.path.open("rb") as file:
            length = int.from_bytes(file.read(_LENGTH), "little")
            if size < _LENGTH or length > min(size - _LENGTH, MOST_BYTES):
                raise self._damaged(
                    f"the header would be {length:,} bytes long, the file is {size:,}, and at most "
                    f"{MOST_BYTES:,} are read"
                )
            try:
                header = parse_object(file.read(length))
            except ValueError as error:
                raise self._damaged(f"its header is no JSON object ({error})") from None
        header.pop("__metadata__", None)
        return {
            name: self._entry(name, value, _LENGTH + length, size) for name, value in header.items()
        }

    def _entry(self, name: str, value: Any, base: int, size: int) -> Entry:
        try:
            kind, shape, (start, end) = value["dtype"], value["shape"], value["data_offsets"]
            whole = isinstance(kind, str) and len(shape) <= _MOST_DIMENSIONS
            whole &= all(is_whole(number, 0, 1 << 62) for number in (*shape, start, end))
        except (TypeError, KeyError, ValueError):
            whole = False
        if not whole:
            raise self._damaged(f"its header does not say where the tensor {name} lies")
        if kind not in _TYPES:
            raise self._damaged(f"the tensor {name} is of the unknown type {kind!r}")
        entry = Entry(_TYPES[kind], tuple(shape), base + start)
        if entry.nbytes != end - start:
            raise self._damaged(
                f"the tensor {name}, {kind} {list(shape)}, takes {entry.nbytes:,} bytes; its "
                f"header gives it {end - start:,}"
            )
        if base + end > size:
            raise self._damaged(
                f"the tensor {name} would end at byte {base + end:,}, the file has {size:,}"
            )
        return entry

    def _damaged(self, what: str) -> ConversionError:
        return ConversionError(f"{self.path} is damaged: {what}.", "Fetch an intact copy.")
