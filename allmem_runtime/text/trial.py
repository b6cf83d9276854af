"""Tries a tokenizer and a chat template from a stranger in a process of its own, once.

Both are programs: expressions that never end, texts that grow without end, code of a library that
crashes. The process has little time and memory. What it found is remembered in the user's cache by
the digests of the two, so that the next start needs no other process. The template is never run in
this one: what it writes around the turns is remembered, too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers

from allmem_runtime.errors import StorageError
from allmem_runtime.files.atomic import replace_text
from allmem_runtime.files.record_signature import is_signed, sign
from allmem_runtime.files.user_cache import cache_folder
from allmem_runtime.text.chat import ChatTemplate
from allmem_runtime.text.dates import written_now

_FORMAT = 1
_FOLDER = "trials"
_MOST_RECORDS = 256
_MAX_RECORD_BYTES = 1 << 23


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is to be tried.

    Attributes:
        tokenizer: contents of a ``tokenizer.json``.
        template: a chat template; None if there is none.
        begin: tokens every text of the model begins with; None for what the tokenizer says.
        end: tokens that end an answer.
        origin: folder that they lie in, for messages.
    """

    tokenizer: str
    template: str | None
    begin: Sequence[int] | None
    end: Sequence[int]
    origin: Path

    @property
    def key(self) -> str:
        """A digest of all that what is found depends on."""
        data = self.as_data()
        content = data.pop("tokenizer").encode("utf-8", "surrogatepass")
        versions = _FORMAT, tokenizers.__version__
        about = json.dumps([*versions, hashlib.sha256(content).hexdigest(), data], sort_keys=True)
        return hashlib.sha256(about.encode()).hexdigest()

    def as_data(self) -> dict[str, Any]:
        """All but the origin, as JSON knows it."""
        return {
            "tokenizer": self.tokenizer,
            "template": self.template,
            "begin": None if self.begin is None else list(self.begin),
            "end": list(self.end),
        }


def tried(candidate: Candidate) -> ChatTemplate:
    """What the chat template does, once it and the tokenizer were tried, now or earlier.

    Raises:
        ModelFileError: one of them fails, or takes too much time or memory; the text names it.
    """
    path = cache_folder() / _FOLDER / f"{candidate.key}.json"
    found = _remembered(path, candidate.key)
    if found is None:
        from allmem_runtime.text.trial_process import run  # not needed by the next start

        found = run(candidate)
        _remember(path, candidate.key, found)
    return ChatTemplate.from_data(found["chat"])


def _remembered(path: Path, key: str) -> dict[str, Any] | None:
    try:
        with path.open("rb") as file:
            record = json.loads(file.read(_MAX_RECORD_BYTES))
        given = record.pop("seal")
        if record["key"] != key or not is_signed(record, given):
            return None
        # A template that asks for the time is tried again when its answer would be another.
        if any(written_now(form) != value for form, value in record["dates"].items()):
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return dict(record)


def _remember(path: Path, key: str, found: dict[str, Any]) -> None:
    """Keep what was found; where that cannot be, the next start tries again."""
    record = {"key": key, "chat": found["chat"], "dates": found["dates"]}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        record["seal"] = sign(record, make_key=True)
        replace_text(path, json.dumps(record))
        kept = sorted(path.parent.glob("*.json"), key=lambda other: other.stat().st_mtime)
        for old in kept[:-_MOST_RECORDS]:
            old.unlink(missing_ok=True)
    except (OSError, StorageError):
        return
