"""Conversations as JSON lines: prompts that are read, and answers that are kept one by one.

A line is ``{"messages": [{"role": …, "content": …}, …], …}``, as `allmem data` takes it in sources
of kind ``chat``. Lines with answers also say of which prompt and by whom they are, so that a run
that was cut off goes on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from allmem_runtime.errors import SourceError, UsageError
from allmem_runtime.evaluation.json_lines import append_line, take_lines
from allmem_runtime.strict_json import parse_json

Messages = tuple[tuple[str, str], ...]
"""(role, content) of each."""

PROMPT = "prompt"
BY = "answered_by"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation up to a user's turn that wants an answer.

    Args:
        line: of the file, from 1.
        messages: the last one is the user's.
        key: equal for equal conversations of equal rank: the second of two equal lines differs.
    """

    line: int
    messages: Messages
    key: str


def read_prompts(path: Path) -> Iterator[Prompt]:
    """Each line up to its last user's turn; what followed is left out.

    Raises:
        SourceError: the file cannot be read, or a line is no conversation; names file and line.
    """
    seen: dict[str, int] = {}
    try:
        file = path.open(encoding="utf-8")
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({error.strerror}).", "Check it.") from None
    with file:
        try:
            for number, line in enumerate(file, 1):
                if line.strip():
                    messages = _asked(line, f"{path}, line {number}")
                    digest = hashlib.sha256(json.dumps(messages).encode()).hexdigest()
                    seen[digest] = seen.get(digest, 0) + 1
                    yield Prompt(number, messages, f"{digest}-{seen[digest]}")
        except UnicodeDecodeError as error:
            raise SourceError(f"{path} is not UTF-8 ({error}).", "Convert it.") from None


def _asked(line: str, where: str) -> Messages:
    hint = 'A line is {"messages": [{"role": "user", "content": "…"}, …]}.'
    try:
        value: Any = parse_json(line)
    except ValueError as error:
        raise SourceError(f"{where}: not JSON ({error}).", hint) from None
    listed = value.get("messages") if isinstance(value, dict) else None
    if not isinstance(listed, list) or not listed:
        raise SourceError(f'{where}: no list "messages".', hint)
    messages = []
    for place, message in enumerate(listed):
        role = message.get("role") if isinstance(message, dict) else None
        content = message.get("content") if isinstance(message, dict) else None
        if role not in ("system", "user", "assistant") or not isinstance(content, str):
            raise SourceError(
                f"{where}: message {place} has no role of system, user and assistant with a text "
                "in 'content'.",
                hint,
            )
        messages.append((role, content))
    while messages and messages[-1][0] != "user":
        messages.pop()
    if not messages:
        raise SourceError(f"{where}: no message of the user to answer.", hint)
    roles = [role for role, _ in messages]
    turns = roles[1:] if roles[0] == "system" else roles
    if turns != ["user", "assistant"] * (len(turns) // 2) + ["user"]:
        raise SourceError(
            f"{where}: the roles are {', '.join(roles)}.",
            "After a system text, user and assistant take turns.",
        )
    return tuple(messages)


class AnswerFile:
    """Answers on the disk, each whole or not there; every prompt at most once.

    Args:
        path: the file; made with the first answer.
        by: what answers; a file of others is refused.

    Attributes:
        keys: of the prompts that are answered.

    Raises:
        UsageError: the file holds something else, or answers by others.
        StorageError: it cannot be read.
    """

    def __init__(self, path: Path, by: dict[str, Any]) -> None:
        self._path = path
        self._by = by
        self.keys: set[str] = set()
        take_lines(path, _BEGIN, self._take, self._foreign)

    def add(self, prompt: Prompt, answer: str, **values: Any) -> None:
        """Keep an answer; it is on the disk when this returns.

        Raises:
            StorageError: writing failed; what was there before is intact.
        """
        messages = [*prompt.messages, ("assistant", answer)]
        record = {
            "messages": [{"role": role, "content": content} for role, content in messages],
            PROMPT: prompt.key,
            **values,
            BY: self._by,
        }
        append_line(self._path, record)
        self.keys.add(prompt.key)

    def _take(self, number: int, line: bytes) -> None:
        try:
            record = parse_json(line)
            key, by = record[PROMPT], record[BY]
            if not isinstance(key, str) or not isinstance(by, dict):
                raise TypeError
        except (ValueError, KeyError, TypeError):
            raise self._foreign(number) from None
        for name, value in self._by.items():
            if by.get(name) != value:
                raise UsageError(
                    f"{self._path}: line {number} was answered with {name} {by.get(name)!r}, and "
                    f"now it is {value!r}.",
                    "Give the same model and options to go on, or name another file.",
                )
        self.keys.add(key)

    def _foreign(self, number: int) -> UsageError:
        return UsageError(
            f"{self._path}: line {number} is no answer of `allmem answer`.",
            "Name another file; this one is left as it is.",
        )


_BEGIN = b'{"messages": [{"role": "'
"""How all lines of ours begin."""
