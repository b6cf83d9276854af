"""Which files of an archive are read."""

from __future__ import annotations

from pathlib import PurePosixPath

MOST_MEMBER = 1 << 28
"""Bytes of one file in an archive; it is held in memory."""


def is_hidden(name: str) -> bool:
    """Whether a file is one that programs keep for themselves; such are left out without a word."""
    return any(
        (part.startswith(".") and part not in (".", "..")) or part == "__MACOSX"
        for part in PurePosixPath(name).parts
    )


def reason_against(name: str, size: int, link: bool) -> str:
    """Why a file of an archive is not read, as the rest of a sentence; empty where it is.

    Args:
        name: in the archive. Nothing is written under it; one that leads elsewhere tells that the
            archive means no good.
        size: bytes.
        link: whether it stands for another file.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or name[1:2] == ":":
        return "has a name that leads out of the archive"
    if link:
        return "is a link"
    if size > MOST_MEMBER:
        return f"is larger than {MOST_MEMBER >> 20} MiB"
    return ""
