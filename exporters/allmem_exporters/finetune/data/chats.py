"""Conversations from JSON lines, {"messages": [{"role": …, "content": …}, …]}; answers count."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

from allmem_exporters.errors import DataError
from allmem_exporters.finetune.data.sequence import Sequence
from allmem_exporters.finetune.data.splits import split_of
from allmem_exporters.finetune.data.tokens import Tokens
from allmem_runtime.strict_json import parse_json

ROLES = ("system", "user", "assistant")


def read_chats(path: Path, heldout: float) -> Iterator[tuple[str, str, list[dict[str, str]]]]:
    """(split, name, messages) of each line.

    What stands before the first answer decides the side: another answer to the same question, such
    as a student's own, stays on the side of the first.

    Raises:
        DataError: the file cannot be read, or a line is no conversation; names file and line.
    """
    try:
        file = path.open(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    with file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                messages = _messages(line, f"{path}, line {number}")
                asked = list(takewhile(lambda m: m["role"] != "assistant", messages)) or messages
                text = "\n".join(message["content"] for message in asked)
                yield split_of(text, heldout), f"{path.name}:{number}", messages


def chat_sequence(
    messages: list[dict[str, str]], tokens: Tokens, length: int, split: str, name: str
) -> Sequence | None:
    """The conversation as a sequence; its last turns are left out if it is too long.

    Returns:
        None if not even the first answer fits.
    """
    while any(message["role"] == "assistant" for message in messages):
        ids, counts = tokens.conversation(messages)
        if len(ids) <= length:
            return Sequence(ids, counts, "chat", split, name)
        messages = messages[:-1]
    return None


def _messages(line: str, where: str) -> list[dict[str, str]]:
    try:
        value: Any = parse_json(line)
    except ValueError as error:
        raise DataError(f"{where}: not JSON ({error}).") from error
    messages = value.get("messages") if isinstance(value, dict) else None
    if not isinstance(messages, list) or not messages:
        raise DataError(f'{where}: no list "messages".')
    for place, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            role = message.get("role") if isinstance(message, dict) else message
            raise DataError(f"{where}: message {place} has role {role!r}; allowed: {ROLES}.")
        if not isinstance(message.get("content"), str):
            raise DataError(f"{where}: message {place} has no text in 'content'.")
    if not any(message["role"] == "assistant" for message in messages):
        raise DataError(f"{where}: there is no answer (role 'assistant') to learn from.")
    return [{"role": m["role"], "content": m["content"]} for m in messages]
