"""A letter as mail programs keep it: who wrote to whom, what it says, and what came with it."""

from __future__ import annotations

from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import BinaryIO, cast

from allmem_runtime.documents.anything import MOST_DEPTH, inner
from allmem_runtime.documents.parts import Budget, Chapter, Note, Part, Text, lacking

_FIELDS = ("From", "To", "Cc", "Date", "Subject")


def extract(file: BinaryIO, name: str, budget: Budget, depth: int) -> Iterator[Part]:
    """A letter, with its subject as the chapter; see ``Extract``."""
    data = file.read()
    budget.take(len(data))
    yield from letter(data, budget, depth)


def letter(data: bytes, budget: Budget, depth: int) -> Iterator[Part]:
    """The parts of one letter."""
    message = message_from_bytes(data, policy=policy.default)
    yield from _parts(message, budget, depth)


def _parts(message: EmailMessage, budget: Budget, depth: int) -> Iterator[Part]:
    """The letter under its subject; what came with it under its own name behind that."""
    fields = [(name, _field(message, name)) for name in _FIELDS]
    subject = dict(fields)["Subject"] or "letter"
    yield Chapter(subject)
    yield Text("".join(f"{name}: {value}\n" for name, value in fields if value) + "\n")
    body = message.get_body(("plain", "html"))
    if body is not None:
        yield from _body(cast(EmailMessage, body))
    for part in _leaves(message):
        if part is not body:
            for each in _with_it(part, budget, depth + 1):
                if isinstance(each, Chapter):
                    each = Chapter(f"{subject}, {each.title}")
                elif isinstance(each, Note):
                    each = Note(f"{subject}, {each.what}", each.lacks)
                yield each


def _leaves(message: EmailMessage) -> Iterator[EmailMessage]:
    """What a letter consists of; a letter in it is one thing."""
    if message.get_content_type() == "message/rfc822" or not message.is_multipart():
        yield message
        return
    for part in message.iter_parts():
        yield from _leaves(cast(EmailMessage, part))


def _with_it(part: EmailMessage, budget: Budget, depth: int) -> Iterator[Part]:
    """The parts of what came with a letter: a file, or another letter."""
    title = part.get_filename()
    if part.get_content_type() == "message/rfc822":
        held = part.get_payload()
        if not isinstance(held, list) or not held:
            yield Note(f"{title or 'a letter'} in it cannot be read; left out")
        elif depth >= MOST_DEPTH:
            yield Note(f"{title or 'a letter'} is more than {MOST_DEPTH} deep; left out")
        else:
            yield from _parts(cast(EmailMessage, held[0]), budget, depth)
        return
    if not title:
        return
    content = part.get_payload(decode=True)
    if not isinstance(content, bytes):
        yield Note(f"{title} cannot be read; left out")
        return
    budget.take(len(content))
    yield from inner(content, title, budget, depth)


def _body(body: EmailMessage) -> Iterator[Part]:
    content = body.get_payload(decode=True)
    data = content if isinstance(content, bytes) else b""
    try:
        text = data.decode(body.get_content_charset("utf-8"), "replace")
    except (LookupError, UnicodeError):  # some encodings know of no replacing
        text = data.decode("utf-8", "replace")
    if body.get_content_subtype() == "html":
        from allmem_runtime.documents.html import page_parts

        try:
            yield from (part for part in page_parts(text, whole=True) if isinstance(part, Text))
        except ModuleNotFoundError as error:
            yield lacking("what a letter says", error)
    else:
        yield Text(text)
    yield Text("\n\n")


def _field(message: EmailMessage, name: str) -> str:
    try:
        return " ".join(str(message.get(name, "")).split())
    except (ValueError, LookupError, TypeError, AttributeError, IndexError):
        return ""  # the library fails on some fields that break its grammar
