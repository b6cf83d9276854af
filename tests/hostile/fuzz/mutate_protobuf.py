"""Spoils protobuf files by their schema: fields twice, merged, of other types, oddly written."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from google.protobuf.descriptor import Descriptor, FieldDescriptor

_WIRE = {FieldDescriptor.TYPE_FLOAT: 5, FieldDescriptor.TYPE_DOUBLE: 1,
         FieldDescriptor.TYPE_STRING: 2, FieldDescriptor.TYPE_BYTES: 2,
         FieldDescriptor.TYPE_MESSAGE: 2}  # fmt: skip
_NUMBERS = (0, 1, 2, 3, 7, 127, 128, 1 << 31, (1 << 32) + 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)


@dataclass
class Node:
    """A field as it is written: its own bytes, or the fields of the message in it.

    Args:
        number: of the field.
        wire: type on the wire.
        value: an integer, bytes, or a list of fields.
        kind: schema of the message inside, if it is one.
        longer: bytes by which tag and number are written longer than they must be.
        high: bits of the tag beyond those that a reader keeps.
    """

    number: int
    wire: int
    value: int | bytes | list[Node]
    kind: Descriptor | None = None
    longer: tuple[int, int] = field(default=(0, 0))
    high: int = 0


def parsed(data: bytes, kind: Descriptor) -> list[Node]:
    """The fields of a well-formed message."""
    nodes, at = [], 0
    while at < len(data):
        key, at = _read_varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _read_varint(data, at)
            nodes.append(Node(number, wire, value))
            continue
        length = {1: 8, 5: 4}.get(wire, 0)
        if wire == 2:
            length, at = _read_varint(data, at)
        part, at = data[at : at + length], at + length
        known = kind.fields_by_number.get(number)
        inner = known.message_type if known is not None and wire == 2 else None
        nodes.append(Node(number, wire, parsed(part, inner) if inner else part, inner))
    return nodes


def written(nodes: list[Node]) -> bytes:
    """The bytes of a message."""
    made = bytearray()
    for node in nodes:
        made += _varint((node.number << 3 | node.wire) + (node.high << 32), node.longer[0])
        if isinstance(node.value, int):
            made += _varint(node.value, node.longer[1])
            continue
        body = written(node.value) if isinstance(node.value, list) else node.value
        if node.wire == 2:
            made += _varint(len(body), node.longer[1])
        made += body
        if node.wire == 3:
            made += _varint(node.number << 3 | 4, 0)
    return bytes(made)


def mutated_message(data: bytes, kind: Descriptor, draw: Random) -> bytes:
    """A message with one to three changes."""
    root = Node(0, 2, parsed(data, kind), kind)
    for _ in range(draw.choice((1, 1, 2, 3))):
        holders = [node for node in _all(root) if isinstance(node.value, list)]
        # Messages near the root are few, and what they say counts most.
        shallow = [root, *(n for n in _children(root) if isinstance(n.value, list))]
        _change(draw.choice(shallow if draw.random() < 0.3 else holders), holders, draw)
    return written(_children(root))


def _children(node: Node) -> list[Node]:
    assert isinstance(node.value, list)
    return node.value


def _all(node: Node) -> list[Node]:
    found = [node]
    if isinstance(node.value, list):
        for child in node.value:
            found += _all(child)
    return found


def _change(holder: Node, holders: list[Node], draw: Random) -> None:
    fields = _children(holder)
    if not fields:
        fields.append(_invented(holder, draw))
        return
    at = draw.randrange(len(fields))
    one = fields[at]
    kind = draw.random()
    if kind < 0.14:  # again, with the same or another value
        other = draw.choice([n for n in fields if n.number == one.number])
        fields.insert(draw.randrange(len(fields) + 1), _like(other, draw))
    elif kind < 0.24 and isinstance(one.value, list) and one.value:  # in two parts
        cut = draw.randrange(len(one.value) + 1)
        rest = Node(one.number, one.wire, one.value[cut:], one.kind)
        one.value = one.value[:cut]
        fields.insert(draw.randrange(at, len(fields)) + 1, rest)
    elif kind < 0.34:
        one.longer = draw.choice(((1, 0), (0, 1), (3, 0), (0, 4), (4, 0), (0, 8), (9, 0)))
    elif kind < 0.40:
        one.high = draw.choice((1, 3, 7, 1 << 20))
    elif kind < 0.48:
        _other_wire(one, draw)
    elif kind < 0.58:
        fields.insert(draw.randrange(len(fields) + 1), _invented(holder, draw))
    elif kind < 0.66:
        del fields[at]
    elif kind < 0.71:
        draw.shuffle(fields)
    elif kind < 0.76:
        one.number = draw.choice((one.number + 1, 0, 15, 1 << 20, (1 << 29) - 1))
    elif kind < 0.84:
        same = [n for n in holders if n.kind is one.kind and n is not one] if one.kind else []
        if same:
            one.value = _children(draw.choice(same))
        else:
            fields[at] = _like(one, draw)
    else:
        fields[at] = _like(one, draw)


def _like(one: Node, draw: Random) -> Node:
    """The same field with another value."""
    value = one.value
    if isinstance(value, int):
        value = draw.choice((*_NUMBERS, value, value + 1))
    elif isinstance(value, bytes):
        texts = (b"", value, value + b"x", value[:-1], value[::-1], b"\xff\xfe", b"../x",
                 b"/etc/passwd",
                 b"location", b"offset", b"-1", b"99999999999999999999", b"ai.evil", b"x" * 5000,
                 b"\0", b"ai.allmem", b"If", b"past.0.key", value * 3)  # fmt: skip
        value = draw.choice(texts) if one.wire == 2 else draw.randbytes(len(value))
    elif draw.random() < 0.5:
        value = value[: draw.randrange(len(value) + 1)]
    return Node(one.number, one.wire, value, one.kind)


def _invented(holder: Node, draw: Random) -> Node:
    """A field of the schema that may be missing, or of no schema."""
    known = list(holder.kind.fields) if holder.kind else []
    if not known or draw.random() < 0.3:
        number = draw.choice((27, 30, 99, 1000, 19_000))
        wire, value = draw.choice(((0, 1), (2, b"x"), (5, b"1234"), (1, b"12345678"), (3, b"")))
        return Node(number, wire, value)
    chosen = draw.choice(known)
    wire = _WIRE.get(chosen.type, 0)
    if chosen.message_type:
        return Node(chosen.number, 2, [], chosen.message_type)
    value = {0: draw.choice(_NUMBERS), 1: draw.randbytes(8), 5: draw.randbytes(4)}.get(wire, b"x")
    return Node(chosen.number, wire, value)


def _other_wire(one: Node, draw: Random) -> None:
    body = written(one.value) if isinstance(one.value, list) else one.value
    wire = draw.choice((0, 1, 2, 3, 4, 5, 6, 7))
    one.wire, one.kind = wire, None
    if wire == 0:
        one.value = body if isinstance(body, int) else len(body)
    else:
        data = _varint(body, 0) if isinstance(body, int) else body
        one.value = {1: data[:8].ljust(8), 5: data[:4].ljust(4)}.get(wire, data)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def _varint(value: int, longer: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    for _ in range(longer):
        parts[-1] |= 0x80
        parts.append(0)
    return bytes(parts)
