"""Spoils bytes of which nothing is known but where a header may be."""

from __future__ import annotations

from random import Random

_EDGES = (0, 1, 2, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF,
          1 << 40, (1 << 62) + 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)  # fmt: skip


def mutated_bytes(data: bytes, draw: Random, header: int = 0) -> bytes:
    """The bytes with one to four changes.

    Args:
        data: to be spoiled.
        draw: the random numbers.
        header: half of the changes fall into as many bytes from the beginning.
    """
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4))):
        _CHANGES[draw.randrange(len(_CHANGES))](changed, draw, header)
    return bytes(changed)


def _place(data: bytearray, draw: Random, header: int) -> int:
    end = min(header, len(data)) if header and draw.random() < 0.5 else len(data)
    return draw.randrange(end) if end else 0


def _flip(data: bytearray, draw: Random, header: int) -> None:
    if data:
        data[_place(data, draw, header)] ^= 1 << draw.randrange(8)


def _number(data: bytearray, draw: Random, header: int) -> None:
    """An integer of the extreme kind, or one that is off by little, over what is there."""
    at, size = _place(data, draw, header), draw.choice((1, 2, 4, 8))
    known = int.from_bytes(data[at : at + size], "little")
    value = draw.choice((*_EDGES, known + 1, known - 1, known * 2, -known)) % (1 << 8 * size)
    data[at : at + size] = value.to_bytes(size, draw.choice(("little", "little", "big")))


def _cut(data: bytearray, draw: Random, header: int) -> None:
    del data[_place(data, draw, header) :]


def _append(data: bytearray, draw: Random, header: int) -> None:
    data.extend(draw.randbytes(draw.choice((1, 8, 100))))


def _drop(data: bytearray, draw: Random, header: int) -> None:
    at = _place(data, draw, header)
    del data[at : at + draw.choice((1, 4, 8, 100))]


def _repeat(data: bytearray, draw: Random, header: int) -> None:
    at = _place(data, draw, header)
    data[at:at] = data[at : at + draw.choice((1, 4, 8, 100, 1000))]


def _splice(data: bytearray, draw: Random, header: int) -> None:
    """A part of the file over another one."""
    source, target = _place(data, draw, 0), _place(data, draw, header)
    size = draw.choice((4, 8, 64, 500))
    part = data[source : source + size]
    data[target : target + len(part)] = part


def _noise(data: bytearray, draw: Random, header: int) -> None:
    at = _place(data, draw, header)
    size = min(draw.choice((1, 4, 32)), len(data) - at)
    data[at : at + size] = draw.randbytes(size)


_CHANGES = (_flip, _flip, _number, _number, _number, _cut, _append, _drop, _repeat, _splice, _noise)
