"""What a file is that is no text, and how to make text of it."""

from __future__ import annotations

import re
from pathlib import Path

from allmem_runtime.errors import SourceError

# (first bytes, what it is)
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"%PDF-", "a PDF document"),
    (b"PK\x03\x04", "an archive, an EPUB book or an office document"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xd0\xcf\x11\xe0", "an office document"),
    (b"{\\rtf", "an RTF document"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"GIF8", "a picture"),
    (b"RIFF", "a picture, sound or film"),
    (b"\x7fELF", "a program"),
    (b"SQLite format 3\0", "a database"),
)
_EXTENSIONS = {
    ".pdf": "a PDF document",
    ".epub": "an EPUB book",
    ".mobi": "an e-book",
    ".azw3": "an e-book",
    ".htm": "an HTML page",
    ".html": "an HTML page",
    ".xhtml": "an HTML page",
    ".doc": "an office document",
    ".docx": "an office document",
    ".odt": "an office document",
    ".rtf": "an RTF document",
    ".gz": "a gzip archive",
    ".zip": "an archive",
}
_HTML = re.compile(
    rb"(?:\s|<\?xml[^>]*>|<!--.*?-->)*<(?:!doctype\s+html|html)\b", re.IGNORECASE | re.DOTALL
)
"""How a page begins; one that is XHTML, behind a declaration of XML."""
_PICTURE = "Give the text it was made of, or what a program for recognizing text reads in it."
_CONVERT = {
    "a picture": _PICTURE,
    "a picture, sound or film": "Give a transcript, or the text it was made of.",
    "a program": "Give its source text.",
    "a database": "Write the rows to read into a text file first.",
    "a PDF document": "Convert it to text first, for example with `pdftotext FILE -`.",
    "a gzip archive": "Unpack it and pipe it in, for example `zcat FILE | allmem-run MODEL -`.",
    "an xz archive": "Unpack it and pipe it in, for example `xzcat FILE | allmem-run MODEL -`.",
    "a bzip2 archive": "Unpack it and pipe it in, for example `bzcat FILE | allmem-run MODEL -`.",
    "an archive": "Unpack it and give the text files in it.",
}
_CONVERT_OTHER = "Convert it to text first, for example with `pandoc -t plain FILE`."
_CONTROLS = bytes(code for code in range(32) if code not in b"\b\t\n\v\f\r\x1b") + b"\x7f"
_FEW = 3
MAX_CONTROL_SHARE = 0.02
"""A text has hardly any control character besides those of lines, pages and terminals."""


def check_kind(head: bytes, name: str) -> None:
    """Refuse what is known to be no text.

    Args:
        head: the first bytes; in UTF-8, if they are text.
        name: file name; what is called a page is one, as a part of a page has nothing that tells.

    Raises:
        SourceError: says what it is and how to make text of it.
    """
    kind = next((kind for magic, kind in _MAGIC if head.startswith(magic)), None)
    if _HTML.match(head.removeprefix(b"\xef\xbb\xbf")) or (not kind and _is_called_page(name)):
        kind = "an HTML page"
    if kind:
        raise _no_text(name, kind)


def check_controls(head: bytes, name: str) -> None:
    """Refuse binary data, which has control characters all over.

    Args:
        head: the first bytes; in UTF-8, if they are text.
        name: file name; of binary data, its extension tells what it may be.

    Raises:
        SourceError: it is no text.
    """
    controls = len(head) - len(head.translate(None, _CONTROLS))
    if b"\0" in head or controls > max(_FEW, MAX_CONTROL_SHARE * len(head)):
        if kind := _EXTENSIONS.get(Path(name).suffix.lower()):
            raise _no_text(name, kind)
        raise SourceError(
            f"{name} holds zero bytes or other control characters; it is no text.",
            "Give a text or Markdown file; if it is one, name its encoding with --encoding.",
        )


def _is_called_page(name: str) -> bool:
    return _EXTENSIONS.get(Path(name).suffix.lower()) == "an HTML page"


def _no_text(name: str, kind: str) -> SourceError:
    return SourceError(f"{name} is {kind}, not text.", _CONVERT.get(kind, _CONVERT_OTHER))
