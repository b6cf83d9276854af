"""The header of a GGUF file, and its tensors read some rows at a time.

Everything that the header promises is held against the file before anything is read or reserved.
Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize
from numpy.typing import NDArray

from allmem_exporters.errors import ConversionError
from allmem_runtime.strict_json import is_whole

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_ALIGNMENT = 32
_MOST_ALIGNMENT = 1 << 20
_STRING, _ARRAY = 8, 9
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q",
            12: "d"}  # fmt: skip
_LEAST_ENTRY = 12
"""Bytes that the smallest entry of a header takes."""
_MOST_DIMENSIONS = 4
_BYTES_AT_ONCE = 1 << 18
"""Of dequantized weights, which fit in the second cache with what lies between."""
_MOST_VALUES = 1 << 24
"""In all lists of a header: a value of one byte becomes one of eight and more."""


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """Where a tensor lies.

    Args:
        kind: how its values are stored.
        shape: [rows, …, columns], the reverse of GGUF's order.
        offset: of its first byte in the file.
        row_bytes: that one row takes.
    """

    kind: GGMLQuantizationType
    shape: tuple[int, ...]
    offset: int
    row_bytes: int


class _Header:
    """Reads the header from the start."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at, self.values = data, 0, 0

    def number(self, code: str) -> Any:
        end = self.at + struct.calcsize(f"<{code}")
        if end > len(self.data):
            raise ValueError(f"it ends within its header, after {len(self.data):,} bytes")
        (value,) = struct.unpack_from(f"<{code}", self.data, self.at)
        self.at = end
        return value

    def count(self) -> int:
        """How many entries follow, each of some bytes."""
        found: int = self.number("Q")
        if found > len(self.data) // _LEAST_ENTRY:
            raise ValueError(f"it promises {found:,} entries")
        return found

    def text(self) -> bytes:
        length: int = self.number("Q")
        if length > len(self.data) - self.at:
            raise ValueError(f"a text of {length:,} bytes goes beyond its end")
        self.at += length
        return self.data[self.at - length : self.at]

    def value(self, kind: int, *, depth: int = 0) -> Any:
        if kind in _NUMBERS:
            return self.number(_NUMBERS[kind])
        if kind == _STRING:
            return self.text().decode()
        if kind != _ARRAY or depth > 1:
            raise ValueError(f"a value of the unknown type {kind}")
        inner, length = self.number("I"), self.number("Q")
        if length > len(self.data) - self.at:
            raise ValueError(f"an array of {length:,} values goes beyond its end")
        self.values += length
        if self.values > _MOST_VALUES:
            raise ValueError(f"its lists have more than {_MOST_VALUES:,} values")
        return [self.value(inner, depth=depth + 1) for _ in range(length)]


class GgufFile:
    """Metadata and tensors of one file.

    Args:
        path: of the file.

    Raises:
        ConversionError: it is no intact GGUF file, or a tensor goes beyond its end or is of an
            unknown type; names the tensor and the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fields: dict[str, Any] = {}
        self.tensors: dict[str, GgufTensor] = {}
        try:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as m:
                self._read(_Header(m))
        except OSError as error:
            raise ConversionError(
                f"{path} cannot be read ({error.strerror or error}).", "Check the path."
            ) from None
        except ValueError as error:  # UnicodeDecodeError is one
            raise ConversionError(
                f"{path.name} is not an intact GGUF file ({error}).", "Fetch it again."
            ) from None

    def rows(self, name: str, first: int, end: int) -> NDArray[np.uint8]:
        """Rows ``first`` to ``end - 1`` as they are stored, [rows, row_bytes].

        Raises:
            ConversionError: the file cannot be read, or is shorter than it was.
        """
        tensor = self.tensors[name]
        try:
            found = np.fromfile(
                self.path,
                np.uint8,
                (end - first) * tensor.row_bytes,
                offset=tensor.offset + first * tensor.row_bytes,
            )
        except OSError as error:
            raise ConversionError(
                f"{self.path.name}: the tensor {name} cannot be read ({error}).", "Check the disk."
            ) from None
        if len(found) != (end - first) * tensor.row_bytes:
            raise self._damaged(f"the file ends within the tensor {name}")
        return found.reshape(end - first, tensor.row_bytes)

    def values(self, name: str, first: int, end: int) -> NDArray[np.float32]:
        """The same rows, dequantized."""
        tensor, stored = self.tensors[name], self.rows(name, first, end)
        wide = np.empty((end - first, *tensor.shape[1:]), np.float32)
        rows = wide.reshape(end - first, math.prod(tensor.shape[1:]))
        step = max(1, _BYTES_AT_ONCE // (4 * rows.shape[1]))
        for at in range(0, end - first, step):
            # As one row: the package works on sixteen at a time, most of it in Python.
            some = stored[at : at + step].reshape(1, -1)
            rows[at : at + step] = dequantize(some, tensor.kind).reshape(-1, rows.shape[1])
        return wide

    def _read(self, header: _Header) -> None:
        if header.data[:4] != _MAGIC:
            raise ValueError("it does not begin as one")
        header.at = len(_MAGIC)
        if (version := header.number("I")) not in _VERSIONS:
            raise ValueError(f"its version is {version}")
        tensors, fields = header.count(), header.count()
        for _ in range(fields):
            key = header.text().decode()
            if key in self.fields:
                raise ValueError(f"its metadata has {key[:80]!r} twice")
            self.fields[key] = header.value(header.number("I"))
        entries = [self._entry(header) for _ in range(tensors)]
        alignment = self.fields.get("general.alignment", _ALIGNMENT)
        if not is_whole(alignment, 1, _MOST_ALIGNMENT):
            raise ValueError(f"its alignment is {alignment!r}")
        start = -(-header.at // alignment) * alignment
        known: set[GGMLQuantizationType] = set()
        for name, kind, shape, offset in entries:
            tensor = self._tensor(name, kind, shape, start + offset, len(header.data))
            if tensor.kind not in known:
                self._check_kind(name, tensor)
                known.add(tensor.kind)
            if name in self.tensors:
                raise self._damaged(f"it has the tensor {name} twice")
            self.tensors[name] = tensor

    @staticmethod
    def _entry(header: _Header) -> tuple[str, int, tuple[int, ...], int]:
        name, dimensions = header.text().decode(), header.number("I")
        if not 1 <= dimensions <= _MOST_DIMENSIONS:
            raise ValueError(f"the tensor {name} has {dimensions} dimensions")
        shape = tuple(header.number("Q") for _ in range(dimensions))[::-1]
        if 0 in shape:
            raise ValueError(f"the tensor {name} is empty")
        kind, offset = header.number("I"), header.number("Q")
        return name, kind, shape, offset

    def _tensor(
        self, name: str, kind: int, shape: tuple[int, ...], offset: int, size: int
    ) -> GgufTensor:
        try:
            named = GGMLQuantizationType(kind)
        except ValueError:
            raise ConversionError(
                f"{self.path.name}: the tensor {name} is quantized as number {kind}, which is "
                "unknown.",
                "Use a file of another quantization, such as Q8_0.",
            ) from None
        block, nbytes = GGML_QUANT_SIZES[named]
        if len(shape) == 1 and block != 1:
            raise self._damaged(f"the tensor {name} is a vector of {named.name}")
        if shape[-1] % block:
            raise self._damaged(
                f"the tensor {name} has rows of {shape[-1]} values; {named.name} takes "
                f"multiples of {block}"
            )
        row = shape[-1] // block * nbytes
        if offset + math.prod(shape[:-1]) * row > size:
            raise self._damaged(
                f"the tensor {name} would end at byte {offset + math.prod(shape[:-1]) * row:,}, "
                f"the file has {size:,}"
            )
        # Of a vector every value is a row.
        if len(shape) == 1:
            row = nbytes
        return GgufTensor(named, shape, offset, row)

    def _check_kind(self, name: str, tensor: GgufTensor) -> None:
        """Refuse a type that cannot be read, before anything is."""
        try:
            dequantize(np.zeros((1, GGML_QUANT_SIZES[tensor.kind][1]), np.uint8), tensor.kind)
        except NotImplementedError as error:
            raise ConversionError(
                f"{self.path.name}: {name} is quantized as {tensor.kind.name}, which cannot be "
                "read.", "Use a file of another quantization, such as Q8_0.",
            ) from error  # fmt: skip

    def _damaged(self, what: str) -> ConversionError:
        return ConversionError(f"{self.path.name} is damaged: {what}.", "Fetch it again.")
