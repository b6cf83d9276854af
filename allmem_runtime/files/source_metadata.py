"""What a session knows of its sources as short texts for a file's metadata, and strictly back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from allmem_runtime.source_mark import HEAD_BYTES, SourceMark

MAX_SOURCES_CHARACTERS = 1 << 24
"""Text about earlier sources, some 60,000 of them; the oldest are forgotten beyond."""
MAX_NAME = 255
_MAX_OFFSET = 1 << 53
_LOCATION = 16
_DIGEST = 64
_HEXADECIMAL = frozenset("0123456789abcdef")


def source_to_metadata(mark: SourceMark) -> dict[str, str]:
    """The current source; its keys are those of the first version, and two that may be absent."""
    return {
        **({"source_name": mark.name[:MAX_NAME]} if mark.name else {}),
        **({"source_location": mark.location} if mark.location else {}),
        "source_offset": str(mark.offset),
        "source_finished": json.dumps(mark.finished),
        "source_digest": mark.head,
        "source_digest_bytes": str(mark.head_bytes),
        "source_read_digest": mark.digest,
    }


def source_from_metadata(metadata: Mapping[str, str]) -> SourceMark:
    """The current source.

    Raises:
        ValueError: a key is missing or its value outside its range; the text names it.
    """

    def parsed(key: str) -> Any:
        if key not in metadata:
            raise ValueError(f"{key} is missing")
        return _json(key, metadata[key])

    if "source_digest" not in metadata:
        raise ValueError("source_digest is missing")
    return _mark(
        "source_",
        {
            "name": metadata.get("source_name", ""),
            "location": metadata.get("source_location", ""),
            "offset": parsed("source_offset"),
            "finished": parsed("source_finished"),
            "digest": metadata["source_digest"],
            "digest_bytes": parsed("source_digest_bytes"),
            # Files of earlier versions have none.
            "read_digest": metadata.get("source_read_digest", ""),
        },
    )


def sources_to_metadata(earlier: Sequence[SourceMark]) -> dict[str, str]:
    """The sources before the current one, as JSON; no key where there are none."""
    rows: list[str] = []
    room = MAX_SOURCES_CHARACTERS
    for mark in reversed(earlier):
        row = json.dumps(
            {
                "name": mark.name[:MAX_NAME],
                "location": mark.location,
                "offset": mark.offset,
                "finished": mark.finished,
                "digest": mark.head,
                "digest_bytes": mark.head_bytes,
                "read_digest": mark.digest,
            }
        )
        room -= len(row) + 2
        if room < 0:
            break
        rows.append(row)
    return {"sources": f"[{', '.join(reversed(rows))}]"} if rows else {}


def sources_from_metadata(metadata: Mapping[str, str]) -> tuple[SourceMark, ...]:
    """The sources before the current one.

    Raises:
        ValueError: one of them is not as it would have been written.
    """
    rows = _json("sources", metadata.get("sources", "[]"))
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("sources is no list of objects")
    return tuple(_mark("sources: ", row) for row in rows)


def metadata_digest(key: str, value: Any, digits: int = _DIGEST) -> str:
    """A digest in hexadecimal digits, or an empty text.

    Raises:
        ValueError: it is neither.
    """
    good = isinstance(value, str) and len(value) in (0, digits) and _HEXADECIMAL.issuperset(value)
    if not good:
        raise ValueError(f"{key} is no SHA-256")
    return str(value)


def _mark(where: str, row: Mapping[str, Any]) -> SourceMark:
    """A mark from its values; ``where`` goes before the name of a bad one."""
    if not isinstance(row.get("name"), str) or len(row["name"]) > MAX_NAME:
        raise ValueError(f"{where}name is no text of at most {MAX_NAME} characters")
    if not isinstance(row.get("finished"), bool):
        raise ValueError(f"{where}finished is neither true nor false")
    for key, limit in (("offset", _MAX_OFFSET), ("digest_bytes", HEAD_BYTES)):
        if type(row.get(key)) is not int or not 0 <= row[key] <= limit:
            raise ValueError(f"{where}{key} is {row.get(key)!r:.40}, no integer up to {limit}")
    return SourceMark(
        name=row["name"],
        location=metadata_digest(f"{where}location", row.get("location"), _LOCATION),
        offset=row["offset"],
        finished=row["finished"],
        digest=metadata_digest(f"{where}read_digest", row.get("read_digest")),
        head=metadata_digest(f"{where}digest", row.get("digest")),
        head_bytes=row["digest_bytes"],
    )


def _json(key: str, value: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError(f"{key} is not valid") from None
