"""Which encoding a text is in that is not UTF-8, and its bytes as UTF-8.

A byte order mark decides, then zero bytes, which UTF-16 and UTF-32 have between letters; whatever
else is not UTF-8 is left to charset-normalizer. The names are those of Python's codecs.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator

from allmem_runtime.errors import UsageError

UTF_8 = "utf-8"
SAMPLE_BYTES = 1 << 14
"""Text around characters beyond ASCII that is enough to tell encodings apart."""

# The longer marks first: UTF-32 begins as UTF-16 does.
_MARKS = (
    (codecs.BOM_UTF8, UTF_8),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_WHOLE = 1 << 12  # a shorter beginning is taken for all there is, which ends with a character
_WIDE = ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be")
_USUAL = [
    "cp1252", "cp1250", "cp1251", "koi8_r", "iso8859_2", "iso8859_5", "cp1253", "cp1254", "cp1255",
    "cp1256", "gb18030", "big5", "cp932", "euc_jp", "cp949", "cp874",
]  # fmt: skip
"""What texts are found in; of rare ones, too many look alike."""
_WESTERN, _CENTRAL = "cp1252", ("cp1250", "iso8859_2")
_CLOSE = 0.1
"""Some letters alone tell Western from Central Europe; a detector of all encodings tosses up."""
_SIGN_IN_WORD = re.compile("[^\\W\\d_][³¹¿¾ºª£¥¼](?=[^\\W\\d_])|(?<![\\d])º(?=[a-z])")
_AS_IN_HUNGARIAN, _ACUTE = frozenset("õû"), frozenset("áéíóú")
_ONLY_WESTERN = frozenset("àãåæçèêïñø")


_OF_NAMES = ("idna", "punycode")
"""Encodings of names of hosts, not of texts."""


def checked_encoding(name: str) -> str:
    """The codec's own name of an encoding that was typed.

    Raises:
        UsageError: Python has no such text encoding.
    """
    try:
        "".encode(name)
        found = codecs.lookup(name).name
        if found in _OF_NAMES:
            raise LookupError
        return found
    except (LookupError, ValueError):
        raise UsageError(
            f"There is no encoding {name!r}.", "Name one such as utf-8, cp1252 or gb18030."
        ) from None


class Survey:
    """Looks through the bytes of a text, piece by piece, to tell its encoding.

    Attributes:
        beyond_ascii: bytes that are no ASCII.
        invalid: bytes that belong to no character of UTF-8.
    """

    def __init__(self) -> None:
        self.beyond_ascii = self.invalid = 0
        self._decoder = codecs.getincrementaldecoder(UTF_8)("ignore")
        self._sample = bytearray()
        self._first = True
        self._head = b""

    def push(self, piece: bytes) -> None:
        """Take the next piece in."""
        if self._first:
            self._head = piece
        if not piece.isascii():
            self.beyond_ascii += len(piece) - len(piece.decode("ascii", "ignore"))
            self._collect(piece)
        held = len(self._decoder.getstate()[0])  # an unfinished character is not invalid yet
        valid = len(self._decoder.decode(piece).encode())
        self.invalid += held + len(piece) - valid - len(self._decoder.getstate()[0])
        self._first = False

    def _collect(self, piece: bytes) -> None:
        """Lines with characters beyond ASCII, whole ones where there are such."""
        lines = piece.split(b"\n")
        whole = lines[0 if self._first else 1 : -1] or lines
        for line in whole:
            if len(self._sample) >= SAMPLE_BYTES:
                return
            if not line.isascii():
                self._sample += line[:SAMPLE_BYTES] + b"\n"

    def wide(self) -> str:
        """UTF-16 or UTF-32, which the first piece tells; empty for all else."""
        for mark, name in _MARKS:
            if self._head.startswith(mark):
                return "" if name == UTF_8 else name
        return _wide(self._head) if b"\0" in self._head else ""

    def encoding(self) -> str:
        """The encoding of all that is not wide; empty where none fits."""
        # Of damaged UTF-8 most characters are sound; in another encoding hardly any is.
        if 2 * self.invalid <= self.beyond_ascii:
            return UTF_8
        return _guess(bytes(self._sample))


def _wide(head: bytes) -> str:
    """UTF-16 or UTF-32 without a mark: the reading with the most letters of ASCII in it."""
    best, most = "", 0.5
    for name in _WIDE:
        width = 4 if "32" in name else 2
        if len(head) % width and len(head) < _WHOLE:
            continue
        text = head[: len(head) - len(head) % width].decode(name, "replace")
        bad = sum(c == "\ufffd" or (c < " " and c not in "\t\n\r\f") for c in text)
        plain = sum(c in "\n " or (c.isascii() and c.isprintable()) for c in text)
        usual = sum(c.isalpha() or c.isprintable() for c in text) / max(1, len(text))
        score = usual + plain / max(1, len(text)) - 20 * bad / max(1, len(text))
        if plain and score > most:
            best, most = name, score
    return best


def _guess(sample: bytes) -> str:
    from charset_normalizer import from_bytes  # a moment to load, for few texts

    matches = from_bytes(sample, cp_isolation=_USUAL)
    best = matches.best()
    if best is None:
        return ""
    likely = {m.encoding for m in matches if m.chaos <= best.chaos + _CLOSE}
    likely.update(best.could_be_from_charset)
    if best.encoding in (_WESTERN, *_CENTRAL) and _WESTERN in likely:
        return next((name for name in _CENTRAL if name in likely and _is_central(sample)), _WESTERN)
    return codecs.lookup(best.encoding).name


def _is_central(sample: bytes) -> bool:
    """Whether a text, read as Western, has what only words of Central Europe leave there.

    These are signs within words, where Polish, Romanian and Slovak have letters, and the letters of
    Hungarian without any that the other languages have that share them.
    """
    text = sample.decode(_WESTERN, "replace")
    if _SIGN_IN_WORD.search(text):
        return True
    letters = set(text.lower())
    return bool(letters & _AS_IN_HUNGARIAN and letters & _ACUTE) and not letters & _ONLY_WESTERN


def transcoded(pieces: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """The same text in UTF-8; what is no character in the encoding becomes U+FFFD."""
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    for piece in pieces:
        if text := decoder.decode(piece):
            yield text.encode("utf-8", "replace")
    if text := decoder.decode(b"", True):
        yield text.encode("utf-8", "replace")
