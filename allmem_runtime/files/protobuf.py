"""Reads the fields of a protobuf message, and only what every reader takes for the same.

Libraries differ in what they do with numbers written longer than needed, with groups and with tags
beyond 32 bits, so none of these is accepted. It knows no schema.
"""

from __future__ import annotations

from collections.abc import Iterator


class WireError(ValueError):
    """Bytes that are no protobuf message, or one that readers may take for different ones."""


class Fields:
    """Reads messages, and counts their fields.

    Args:
        most: fields of all messages together, which bounds the time.
    """

    def __init__(self, most: int) -> None:
        self._left = self._most = most

    def of(self, view: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
        """The fields of a message in order: number, type on the wire, and an integer or bytes.

        Raises:
            WireError: it is cut off, not well-formed, or ambiguous.
        """
        at, end = 0, len(view)
        while at < end:
            self._left -= 1
            if self._left < 0:
                raise WireError(f"it has more than {self._most} fields")
            # Nearly all keys and lengths are of one byte, and the walk is a part of every start.
            key = view[at]
            at += 1
            if key > 0x7F:
                key, at = varint(view, at - 1)
                if key > 0xFFFFFFFF:
                    raise WireError("a field's number is out of range")
            number, wire = key >> 3, key & 7
            if number == 0:
                raise WireError("a field has the number 0, so this is no ONNX file")
            if wire == 0:
                value, at = varint(view, at)
                yield number, wire, value
                continue
            if wire == 2:
                if at < end and view[at] < 0x80:
                    length = view[at]
                    at += 1
                else:
                    length, at = varint(view, at)
            elif wire in (1, 5):
                length = 8 if wire == 1 else 4
            else:
                raise WireError(f"wire type {wire} is unknown, so this is no ONNX file")
            if length > end - at:
                raise WireError(f"it is cut off: a field wants {length} bytes, {end - at} are left")
            yield number, wire, view[at : at + length]
            at += length


def varint(view: memoryview, at: int) -> tuple[int, int]:
    """An integer of up to 64 bits, low bits first, and where the next byte is.

    Raises:
        WireError: it is cut off, longer than it must be, or of more than 64 bits.
    """
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(view):
            raise WireError("it is cut off in the middle of a number")
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64 or (byte == 0 and shift):
                raise WireError("a number is written longer than it must be")
            return value, at
    raise WireError("a number is longer than ten bytes, so this is no ONNX file")
