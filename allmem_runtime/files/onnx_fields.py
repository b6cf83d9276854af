"""The messages of an ONNX file field by field, as far as a walk enters them.

Only these fields may be there: what this table lacks, a newer library may read as something that
nobody looked at. Numbers and types: onnx.proto of the ONNX standard.
"""

from __future__ import annotations

from typing import NamedTuple

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class Field(NamedTuple):
    """A field of a message.

    Args:
        wire: type on the wire.
        once: whether it may be there once only: of two values readers take the first, the last, or
            both merged.
        enters: kind of message inside that is walked, else empty.
        says: what the text in it is called, if it is looked at, else empty.
    """

    wire: int
    once: bool
    enters: str = ""
    says: str = ""

    @property
    def packed(self) -> bool:
        """Whether several numbers may stand in one field of bytes."""
        return not self.once and self.wire != BYTES


def _numbers(*fields: int) -> dict[int, Field]:
    return {number: Field(VARINT, once=True) for number in fields}


def _texts(*fields: int) -> dict[int, Field]:
    """Texts, bytes and messages that are there once and not looked at."""
    return {number: Field(BYTES, once=True) for number in fields}


def _many(*fields: int) -> dict[int, Field]:
    """Texts and messages of any count that are not looked at."""
    return {number: Field(BYTES, once=False) for number in fields}


def _messages(once: bool = False, **fields: int) -> dict[int, Field]:
    return {number: Field(BYTES, once, enters=kind) for kind, number in fields.items()}


def _says(once: bool = True, **fields: int) -> dict[int, Field]:
    return {number: Field(BYTES, once, says=name) for name, number in fields.items()}


FIELDS: dict[str, dict[int, Field]] = {
    "model": {
        **_numbers(1, 5), **_texts(2, 3, 4, 6), **_messages(once=True, graph=7),
        **_messages(opset=8, metadata=14, training=20, function=25), **_many(26),
    },
    "opset": {**_says(domain=1), 2: Field(VARINT, once=True, says="version")},
    "metadata": _says(key=1, value=2),
    "training": {},
    "graph": {
        **_messages(node=1, tensor=5, input=11, output=12, sparse=15), **_texts(2, 10),
        **_many(13, 14, 16),
    },
    "node": {
        **_says(once=False, input=1, output=2), **_says(op_type=4, domain=7), **_texts(3, 6, 8),
        **_messages(attribute=5), **_many(9, 10),
    },
    "attribute": {
        **_texts(1, 4, 13, 14, 21), **_numbers(3, 20), 2: Field(FIXED32, once=True),
        7: Field(FIXED32, once=False), 8: Field(VARINT, once=False), **_many(9, 15),
        **_messages(once=True, tensor=5, graph=6, sparse=22),
        **_messages(tensor=10, graph=11, sparse=23),
    },
    "tensor": {
        1: Field(VARINT, once=False), **_numbers(2, 14), **_texts(3, 9, 12), **_says(name=8),
        4: Field(FIXED32, once=False), 5: Field(VARINT, once=False), **_many(6, 16),
        7: Field(VARINT, once=False), 10: Field(FIXED64, once=False),
        11: Field(VARINT, once=False), **_messages(external=13),
    },
    "external": _says(key=1, value=2),
    "sparse": {1: Field(BYTES, True, "tensor"), 2: Field(BYTES, True, "tensor"),
               3: Field(VARINT, once=False)},
    "input": {**_says(name=1), **_texts(2, 3), **_many(4)},
    "output": {**_says(name=1), **_texts(2, 3), **_many(4)},
    "function": {
        **_says(name=1, domain=10, overload=13), **_says(once=False, input=4), **_texts(8),
        **_many(5, 6, 12, 14), **_messages(node=7, opset=9), **_messages(attribute=11),
    },
}  # fmt: skip
