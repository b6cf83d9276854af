"""Text as libraries find it in documents, made what a text file would hold."""

from __future__ import annotations

import re

from allmem_runtime.text.segments import without_surrogates

_LIGATURES = {
    0xFB00: "ff", 0xFB01: "fi", 0xFB02: "fl", 0xFB03: "ffi", 0xFB04: "ffl", 0xFB05: "st",
    0xFB06: "st",
}  # fmt: skip
_GONE = dict.fromkeys([*(code for code in range(32) if chr(code) not in "\t\n"), 127, 0xFEFF])
_TABLE = {**_GONE, **_LIGATURES, 0x0C: "\n", 0x0B: "\n", 0x85: "\n", 0x2028: "\n", 0x2029: "\n"}
_ENDS = re.compile(r"[ \t]+\n")
_MANY = re.compile(r"\n{4,}")


def cleaned(text: str) -> str:
    """The text without control characters, with plain line ends and ligatures as letters."""
    text = without_surrogates(text).replace("\r\n", "\n").replace("\r", "\n").translate(_TABLE)
    return _MANY.sub("\n\n\n", _ENDS.sub("\n", text))
