"""A letter as mail programs keep it: who wrote to whom, what it says, and what came with it."""

from __future__ import annotations

from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import BinaryIO, cast

from allmem_runtime.documents.anything import inner
from allmem_runtime.documents.parts import Budget, Chapter, Note, Part, Text

_FIELDS = ("From", "To", "Cc", "Date", "Subject")


def extract(file: BinaryIO, name: str, budget: Budget, depth: int) -> Iterator[Part]:
    """A letter, with its subject as the chapter; see ``Extract``."""
    data = file.read()
    budget.take(len(data))
    yield from letter(data, budget, depth)


def letter(data: bytes, budget: Budget, depth: int) -> Iterator[Part]:
    """The parts of one letter."""
    message = message_from_bytes(data, policy=policy.default)
    fields = [(name, _field(message, name)) for name in _FIELDS]
    yield Chapter(dict(fields)["Subject"] or "letter")
    yield Text("".join(f"{name}: {value}\n" for name, value in fields if value) + "\n")
    body = message.get_body(("plain", "html"))
    if body is not None:
        yield from _body(cast(EmailMessage, body))
    for part in message.walk():
        title = part.get_filename()
        if part is body or not title or part.is_multipart():
            continue
        content = part.get_payload(decode=True)
        if not isinstance(content, bytes):
            yield Note(f"{title} cannot be read; left out")
            continue
        budget.take(len(content))
        yield from inner(content, title, budget, depth + 1)


def _body(body: EmailMessage) -> Iterator[Part]:
    content = body.get_payload(decode=True)
    data = content if isinstance(content, bytes) else b""
    try:
        text = data.decode(body.get_content_charset("utf-8"), "replace")
    except (LookupError, UnicodeError):  # some encodings know of no replacing
        text = data.decode("utf-8", "replace")
    if body.get_content_subtype() == "html":
        from allmem_runtime.documents.html import page_parts

        yield from (part for part in page_parts(text, whole=True) if isinstance(part, Text))
    else:
        yield Text(text)
    yield Text("\n\n")


def _field(message: EmailMessage, name: str) -> str:
    try:
        return " ".join(str(message.get(name, "")).split())
    except (ValueError, LookupError, TypeError, AttributeError, IndexError):
        return ""  # the library fails on some fields that break its grammar
