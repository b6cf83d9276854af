"""The table of kinds: how each is recognized by its content, who reads it, and what that takes."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from dataclasses import dataclass

from allmem_runtime.documents.columns import columns_of

HEAD_BYTES = 1 << 16
"""What a kind is recognized by."""

_SPACE = b" \t\r\n\xef\xbb\xbf"
_PAGE = re.compile(
    rb"(?:\s|<\?xml[^>]*>|<!--.*?-->)*<(?:!doctype\s+html|html)\b", re.IGNORECASE | re.DOTALL
)
_NOTEBOOK = re.compile(rb'\{\s*"(?:cells"\s*:\s*\[|nbformat"\s*:|metadata"\s*:\s*\{)')
_SUBTITLES = re.compile(rb"WEBVTT\b|\d+[ \t]*\r?\n\d\d:\d\d:\d\d,\d{3} --> \d\d:\d\d:\d\d,\d{3}")
_FIELD = re.compile(rb"[!-9;-~]+:[ \t]?.*\r?\n(?:[ \t].*\r?\n)*")
_TELLING = (b"received", b"message-id", b"mime-version", b"return-path", b"delivered-to")
_MAILBOX = re.compile(rb"From \S+ .*\d\d:\d\d.*\d{4}.*\r?\n")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of document.

    Args:
        name: what it is, such as ``a PDF document``.
        module: in this package, reads it.
        begins: whether a document of the kind begins with these bytes and has this name.
    """

    name: str
    module: str
    begins: Callable[[bytes, str], bool]

    @property
    def is_text(self) -> bool:
        """Whether it could also be read as the text it is."""
        return self.module in ("html", "notebook", "subtitles", "mailbox", "mail", "rows")


def _magic(*beginnings: bytes) -> Callable[[bytes, str], bool]:
    return lambda head, name: head.startswith(beginnings)


def _is_page(head: bytes, name: str) -> bool:
    return bool(_PAGE.match(head.lstrip(_SPACE)))


def _is_called_page(head: bytes, name: str) -> bool:
    """Text whose name decides: a part of a page has nothing that tells, and may begin in words."""
    wide = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    is_text = bool(head.strip(_SPACE)) and (wide or b"\0" not in head)
    return is_text and name.lower().endswith((".html", ".htm", ".xhtml"))


def _is_notebook(head: bytes, name: str) -> bool:
    head = head.lstrip(_SPACE)
    return bool(_NOTEBOOK.match(head)) and b'"cell_type"' in head


def _is_mail(head: bytes, name: str) -> bool:
    """Fields of a letter up to a blank line, among them one that only programs write."""
    at, names = 0, set()
    while field := _FIELD.match(head, at):
        names.add(field[0].partition(b":")[0].lower())
        at = field.end()
    ends = head[at : at + 2].startswith((b"\n", b"\r\n")) or at == len(head)
    return ends and b"from" in names and any(name in names for name in _TELLING)


def _is_mailbox(head: bytes, name: str) -> bool:
    first = _MAILBOX.match(head)
    return bool(first) and bool(_FIELD.match(head, first.end()))  # type: ignore[union-attr]


def _is_table(head: bytes, name: str) -> bool:
    return columns_of(head, name) is not None


def _is_tar(head: bytes, name: str) -> bool:
    return head[257:262] == b"ustar"


KINDS = (
    Kind("a PDF document", "pdf", lambda head, _: head.lstrip(_SPACE).startswith(b"%PDF-")),
    Kind("an archive, a book or an office document", "zipped", _magic(b"PK\x03\x04", b"PK\5\6")),
    Kind("an RTF document", "rtf", _magic(b"{\\rtf")),
    Kind("a packed file", "packed", _magic(b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")),
    Kind("an archive", "tarred", _is_tar),
    Kind("an HTML page", "html", _is_page),
    Kind("a notebook", "notebook", _is_notebook),
    Kind("subtitles", "subtitles", lambda head, _: bool(_SUBTITLES.match(head.lstrip(_SPACE)))),
    Kind("a mailbox", "mailbox", _is_mailbox),
    Kind("a letter", "mail", _is_mail),
    Kind("an HTML page", "html", _is_called_page),
    Kind("a table", "rows", _is_table),
)


def kind_of(head: bytes, name: str) -> Kind | None:
    """The kind of a document by its first ``HEAD_BYTES``; None of plain text and all else."""
    return next((kind for kind in KINDS if kind.begins(head, name)), None)
