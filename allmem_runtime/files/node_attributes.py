"""The attributes of a node in an ONNX file, as values."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from allmem_runtime.files.protobuf import WireError, varint

FLOAT, INT, STRING, TENSOR, GRAPH, INTS = 1, 2, 3, 4, 5, 7
"""Types of attributes; what is left out, no export writes. Source: onnx.proto."""

_NAME, _TYPE, _REFERENCE = 1, 20, 21
_SAID = frozenset({_NAME, 13, _TYPE, _REFERENCE})  # 13 is a text for readers
_VALUE = {FLOAT: 2, INT: 3, STRING: 4, TENSOR: 5, GRAPH: 6, INTS: 8}

Value = float | int | bytes | tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute of a node.

    Args:
        name: its name.
        type: one of the types above.
        value: a number, text or numbers; None of a tensor, a graph, or a reference.
        refers: whether the value is that of an attribute of the function around it.
    """

    name: str
    type: int
    value: Value
    refers: bool

    def __str__(self) -> str:
        if isinstance(self.value, bytes):
            return repr(self.value.decode(errors="replace")[:40])
        return "of this kind" if self.value is None else str(self.value)[:40]


def attribute(fields: Iterable[tuple[int, int, int | memoryview]]) -> Attribute:
    """The attribute of these fields, which are known ones, of the right types on the wire.

    Raises:
        WireError: name or type is missing, or the value is not of the type.
    """
    name, type_, refers = "", 0, False
    given: dict[int, list[int | memoryview]] = {}
    for number, _, value in fields:
        if number == _NAME:
            name = bytes(value).decode(errors="replace") if not isinstance(value, int) else ""
        elif number == _TYPE:
            type_ = value if isinstance(value, int) else 0
        elif number == _REFERENCE:
            refers = True
        elif number not in _SAID:
            given.setdefault(number, []).append(value)
    if not name or type_ not in _VALUE:
        raise WireError(f"the attribute {name[:80]!r} has no type that exports write")
    own = _VALUE[type_]
    if given.keys() - {own} or (refers and given) or not (refers or given or type_ == INTS):
        raise WireError(f"the attribute {name[:80]!r} has not one value of its type")
    return Attribute(name, type_, None if refers else _value(type_, given.get(own, [])), refers)


def _value(type_: int, given: list[int | memoryview]) -> Value:
    if type_ == INTS:
        return tuple(number for one in given for number in _integers(one))
    one = given[0]
    if isinstance(one, int):
        return _signed(one)
    if type_ == FLOAT:
        number: float = struct.unpack("<f", one)[0]
        return number
    return bytes(one) if type_ == STRING else None


def _integers(one: int | memoryview) -> Iterable[int]:
    """One integer, or those packed in one field."""
    if isinstance(one, int):
        yield _signed(one)
        return
    at = 0
    while at < len(one):
        number, at = varint(one, at)
        yield _signed(number)


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number
