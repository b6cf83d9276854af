"""A session's place in its text as short texts for a file's metadata, and strictly back."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from allmem_runtime.files.source_metadata import (
    metadata_digest,
    source_from_metadata,
    source_to_metadata,
    sources_from_metadata,
    sources_to_metadata,
)
from allmem_runtime.generation.sampling import MAX_SEED
from allmem_runtime.state import MAX_LEAD, RECENT_TOKENS, TURNS, Place
from allmem_runtime.strict_json import parse_json

MAX_POSITION = 1 << 53
MAX_UNREAD = 1 << 20
"""Bytes or token ids that are kept unread in a file; whoever gave more at once still has them."""

MAX_SYSTEM = 1 << 16
"""Characters of a system text that is kept in a file; of a longer one nothing is."""


def place_to_metadata(place: Place) -> dict[str, str]:
    """Texts by key; the parent is not among them, for it depends on the file."""
    unread = place.unread if len(place.unread) <= MAX_UNREAD else b""
    return {
        **({"unread": _unread_to_text(unread)} if unread else {}),
        **({"lead": place.lead} if place.lead else {}),
        **({"system": place.system} if 0 < len(place.system) <= MAX_SYSTEM else {}),
        **({"text_digest": place.text} if place.text else {}),
        "position": str(place.position),
        "turn": place.turn,
        "seed": str(place.seed),
        "pending": json.dumps(place.pending),
        "recent": json.dumps(place.recent),
        **source_to_metadata(place.source),
        **sources_to_metadata(place.earlier),
    }


def place_from_metadata(metadata: Mapping[str, str], vocab_size: int) -> Place:
    """Read the texts back.

    Args:
        metadata: texts by key.
        vocab_size: token ids are below it.

    Raises:
        ValueError: a key is missing or its value outside its range; the text names it.
    """

    def text(key: str) -> str:
        if key not in metadata:
            raise ValueError(f"{key} is missing")
        return metadata[key]

    def number(key: str, limit: int) -> int:
        value = text(key)
        if not (value.isascii() and value.isdigit() and len(value) < 20 and int(value) <= limit):
            raise ValueError(f"{key} is {value[:40]!r}; it must be an integer up to {limit}")
        return int(value)

    def parsed(key: str) -> Any:
        value = text(key)
        try:
            return parse_json(value)
        except ValueError:
            raise ValueError(f"{key} is not valid") from None

    def ids(key: str) -> list[int]:
        value = parsed(key)
        if not isinstance(value, list) or not all(type(i) is int for i in value):
            raise ValueError(f"{key} is not a list of token ids")
        if any(not 0 <= token < vocab_size for token in value):
            raise ValueError(f"{key} holds an id that is no token of this model")
        return value

    def unread() -> bytes | list[int]:
        if "unread" not in metadata:
            return b""
        if text("unread").startswith("["):
            return ids("unread")
        try:
            return base64.b64decode(text("unread"), validate=True)
        except ValueError:
            raise ValueError("unread is neither Base64 nor a list of token ids") from None

    def system() -> str:
        value = metadata.get("system", "")
        if len(value) > MAX_SYSTEM:
            raise ValueError(f"system has more than {MAX_SYSTEM} characters")
        return value

    def lead() -> str:
        value = metadata.get("lead", "")
        if value and not (value.isspace() and len(value) <= MAX_LEAD):
            raise ValueError(f"lead is {value[:40]!r}; it must be up to {MAX_LEAD} spaces")
        return value

    turn = text("turn")
    if turn not in TURNS:
        raise ValueError(f"turn is {turn[:40]!r}; allowed: {', '.join(TURNS)}")
    recent = ids("recent")
    if len(recent) > RECENT_TOKENS:
        raise ValueError(f"recent holds {len(recent)} ids; at most {RECENT_TOKENS} are kept")
    return Place(
        position=number("position", MAX_POSITION),
        turn=next(known for known in TURNS if known == turn),
        pending=ids("pending"),
        lead=lead(),
        recent=recent,
        seed=number("seed", MAX_SEED),
        system=system(),
        unread=unread(),
        text=metadata_digest("text_digest", metadata.get("text_digest", "")),
        source=source_from_metadata(metadata),
        earlier=sources_from_metadata(metadata),
    )


def _unread_to_text(unread: bytes | list[int]) -> str:
    if isinstance(unread, bytes):
        return base64.b64encode(unread).decode("ascii")
    return json.dumps(unread)
