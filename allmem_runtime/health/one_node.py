"""Writes an ONNX model of a single node, in the few lines of protobuf that takes.

It spares the runtime the onnx package. Field numbers: onnx.proto3 of the ONNX standard.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_IR_VERSION = 8
_OPSET = 17
_ELEMENTS = {"float32": 1, "uint8": 2, "int8": 3, "int64": 7, "float16": 10}
_FLOAT, _INT, _STRING = 1, 2, 3  # AttributeProto.AttributeType
_VARINT, _BYTES, _FIXED32 = 0, 2, 5  # wire types


def one_node_model(
    operator: str,
    domain: str,
    version: int,
    inputs: Mapping[str, NDArray[Any]],
    outputs: Sequence[tuple[str, str]],
    attributes: Mapping[str, int | float | str],
    places: Sequence[str] | None = None,
) -> bytes:
    """A model that is one node.

    Args:
        operator: its type.
        domain: of the operator.
        version: of the domain.
        inputs: arrays of the shapes and types that it will be given, in order.
        outputs: names and element types, in order.
        attributes: integers, numbers or texts.
        places: names of what the node takes, in order, empty where an optional input is left out;
            None where there is no such gap.
    """
    node = b"".join(
        [
            *(_text(1, name) for name in (inputs if places is None else places)),
            *(_text(2, name) for name, _ in outputs),
            _text(4, operator),
            *(_message(5, _attribute(name, value)) for name, value in attributes.items()),
            _text(7, domain),
        ]
    )
    graph = b"".join(
        [
            _message(1, node),
            _text(2, operator),
            *(_message(11, _value(name, a.dtype.name, a.shape)) for name, a in inputs.items()),
            *(_message(12, _value(name, element, None)) for name, element in outputs),
        ]
    )
    opsets = (("", _OPSET), (domain, version))
    return b"".join(
        [
            _number(1, _IR_VERSION),
            _message(7, graph),
            *(_message(8, _text(1, name) + _number(2, number)) for name, number in opsets),
        ]
    )


def _attribute(name: str, value: int | float | str) -> bytes:
    if isinstance(value, str):
        return _text(1, name) + _text(4, value) + _number(20, _STRING)
    if isinstance(value, float):
        packed = _tag(2, _FIXED32) + struct.pack("<f", np.float32(value))
        return _text(1, name) + packed + _number(20, _FLOAT)
    return _text(1, name) + _number(3, value) + _number(20, _INT)


def _value(name: str, element: str, shape: tuple[int, ...] | None) -> bytes:
    """A ValueInfoProto; without a shape the output has the one it will have."""
    tensor = _number(1, _ELEMENTS[element])
    if shape is not None:
        tensor += _message(2, b"".join(_message(1, _number(1, size)) for size in shape))
    return _text(1, name) + _message(2, _message(1, tensor))


def _message(field: int, content: bytes) -> bytes:
    return _tag(field, _BYTES) + _varint(len(content)) + content


def _text(field: int, text: str) -> bytes:
    return _message(field, text.encode())


def _number(field: int, value: int) -> bytes:
    return _tag(field, _VARINT) + _varint(value)


def _tag(field: int, wire: int) -> bytes:
    return _varint(field << 3 | wire)


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # negative numbers take ten bytes
    result = bytearray()
    while value > 0x7F:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*result, value])
