"""A GGUF file taken apart and put together again, right or wrong.

Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from random import Random

_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY = 8, 9
_EDGES = (0, 1, 2, 3, 31, 32, 255, 65535, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 40,
          (1 << 62) + 1, 1 << 63, (1 << 64) - 1)  # fmt: skip


@dataclass
class Field:
    """A metadata entry: key, number of its type, and the bytes of its value."""

    key: bytes
    kind: int
    value: bytes


@dataclass
class Entry:
    """A tensor's entry, with the sizes in the order of the file."""

    name: bytes
    sizes: list[int]
    kind: int
    offset: int


@dataclass
class Parts:
    """The whole file; counts of None are those of the lists."""

    version: int
    fields: list[Field]
    tensors: list[Entry]
    data: bytes
    field_count: int | None = None
    tensor_count: int | None = None
    padding: int = field(default=32)


def taken_apart(data: bytes) -> Parts:
    """The parts of a good file; any exception of ``struct`` or ``IndexError`` for another one."""
    if data[:4] != b"GGUF":
        raise ValueError("no GGUF file")
    version, tensors, fields = struct.unpack_from("<IQQ", data, 4)
    at = 24

    def text() -> bytes:
        nonlocal at
        (length,) = struct.unpack_from("<Q", data, at)
        at += 8 + length
        return data[at - length : at]

    def skip(kind: int) -> None:
        nonlocal at
        if kind == _STRING:
            text()
        elif kind == _ARRAY:
            inner, count = struct.unpack_from("<IQ", data, at)
            at += 12
            if count > len(data):
                raise ValueError("an endless array")
            for _ in range(count):
                skip(inner)
        else:
            at += _SIZES[kind]

    if fields > 1000 or tensors > 1000:
        raise ValueError("endless entries")
    known = []
    for _ in range(fields):
        key = text()
        (kind,) = struct.unpack_from("<I", data, at)
        at += 4
        start = at
        skip(kind)
        known.append(Field(key, kind, data[start:at]))
    entries = []
    for _ in range(tensors):
        name = text()
        (dimensions,) = struct.unpack_from("<I", data, at)
        sizes = list(struct.unpack_from(f"<{min(dimensions, 99)}Q", data, at + 4))
        at += 4 + 8 * dimensions
        kind, offset = struct.unpack_from("<IQ", data, at)
        at += 12
        entries.append(Entry(name, sizes, kind, offset))
    return Parts(version, known, entries, data[-(-at // 32) * 32 :])


def put_together(parts: Parts) -> bytes:
    """The bytes of a file with these parts."""

    def text(value: bytes) -> bytes:
        return struct.pack("<Q", len(value)) + value

    counts = (
        len(parts.tensors) if parts.tensor_count is None else parts.tensor_count,
        len(parts.fields) if parts.field_count is None else parts.field_count,
    )
    made = b"GGUF" + struct.pack("<IQQ", parts.version, *counts)
    for one in parts.fields:
        made += text(one.key) + struct.pack("<I", one.kind) + one.value
    for entry in parts.tensors:
        made += text(entry.name) + struct.pack("<I", len(entry.sizes))
        made += struct.pack(f"<{len(entry.sizes)}Q", *entry.sizes)
        made += struct.pack("<IQ", entry.kind, entry.offset)
    return made + b"\0" * (-len(made) % parts.padding) + parts.data


def spoil(parts: Parts, draw: Random) -> None:
    """One change."""
    kind = draw.random()
    if kind < 0.55:
        _spoil_field(parts, draw)
    elif kind < 0.9 and parts.tensors:
        _spoil_tensor(parts, draw)
    elif kind < 0.93:
        parts.version = draw.choice((0, 1, 2, 3, 4, 1 << 31))
    elif kind < 0.96:
        parts.field_count = draw.choice((*_EDGES, len(parts.fields) - 1, len(parts.fields) + 1))
        parts.field_count %= 1 << 64
    else:
        parts.tensor_count = draw.choice((*_EDGES, len(parts.tensors) + 1))


def _spoil_field(parts: Parts, draw: Random) -> None:
    at = draw.randrange(len(parts.fields) + 1)
    if at == len(parts.fields):
        key = draw.choice((b"general.alignment", b"x", b"\xff", b"llama.rope.scaling.type",
                           b"llama.attention.sliding_window", b"tokenizer.ggml.scores",
                           b"llama.rope.dimension_count", b"tokenizer.ggml.added_tokens",
                           b"tokenizer.ggml.add_bos_token"))  # fmt: skip
        parts.fields.append(Field(key, *_random_value(draw)))
        return
    one, kind = parts.fields[at], draw.random()
    if kind < 0.6:
        one.kind, one.value = _random_value(draw)
    elif kind < 0.75 and len(one.value) in (1, 2, 4, 8):
        value = int.from_bytes(one.value, "little") + draw.choice((1, -1, 7, 1 << 20))
        one.value = (value % (1 << 8 * len(one.value))).to_bytes(len(one.value), "little")
    elif kind < 0.85:
        del parts.fields[at]
    elif kind < 0.92:
        parts.fields.insert(at, Field(one.key, *_random_value(draw)))
    elif one.kind == _ARRAY and len(one.value) > 13:
        count = draw.choice((*_EDGES, 5))
        one.value = one.value[:4] + struct.pack("<Q", count) + one.value[12:]
    else:
        one.key = draw.choice((b"", one.key + b"x", one.key.upper(), b"\xff" + one.key))


def _random_value(draw: Random) -> tuple[int, bytes]:
    kind = draw.choice((*_SIZES, _STRING, _STRING, _ARRAY, _ARRAY, 13, 99))
    return kind, _value(kind, draw, 0)


def _value(kind: int, draw: Random, depth: int) -> bytes:
    if kind == 6:
        return struct.pack("<f", draw.choice((0.0, -1.0, 1e30, float("nan"), float("inf"))))
    if kind == 12:
        return struct.pack("<d", draw.choice((0.0, -1.0, 1e300, float("nan"), float("inf"))))
    if kind in _SIZES:
        size = _SIZES[kind]
        return (draw.choice(_EDGES) % (1 << 8 * size)).to_bytes(size, "little")
    if kind == _ARRAY:
        inner = draw.choice((0, 4, 5, 6, _STRING, _ARRAY if depth < 3 else 7))
        count = draw.choice((0, 1, 3, 100))
        return struct.pack("<IQ", inner, count) + b"".join(
            _value(inner, draw, depth + 1) for _ in range(count)
        )
    texts = (b"", b"x", b"llama", b"gpt2", b"\xff\xfe", b"{{ x }}", b"a b", b"\0", b"z" * 3000)
    chosen = draw.choice(texts)
    length = len(chosen) if draw.random() < 0.95 else draw.choice(_EDGES)
    return struct.pack("<Q", length) + chosen


def _spoil_tensor(parts: Parts, draw: Random) -> None:
    at = draw.randrange(len(parts.tensors))
    one, kind = parts.tensors[at], draw.random()
    if kind < 0.3:
        place = draw.randrange(len(one.sizes)) if one.sizes else 0
        one.sizes[place : place + 1] = [draw.choice((*_EDGES, 48, 97))]
    elif kind < 0.45:
        one.sizes = draw.choice(([], [1], one.sizes[::-1], [*one.sizes, 1], [1] * 9, [0, 0]))
    elif kind < 0.65:
        one.kind = draw.choice((*range(40), 1 << 31))
    elif kind < 0.8:
        one.offset = draw.choice((*_EDGES, one.offset + 4, one.offset - 32)) % (1 << 64)
    elif kind < 0.9:
        one.name = draw.choice((b"", b"x", b"\xff", one.name + b"x", b"blk.-1.attn_q.weight",
                                b"blk.99999999999999999999.attn_q.weight",
                                "blk.١.attn_q.weight".encode(),
                                b"rope_freqs.weight", b"output.weight"))  # fmt: skip
    elif kind < 0.95:
        del parts.tensors[at]
    else:
        parts.tensors.insert(at, Entry(one.name, one.sizes, one.kind, one.offset))
