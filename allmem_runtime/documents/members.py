"""The files of an archive: which are read, and how."""

from __future__ import annotations

import zipfile
from pathlib import PurePosixPath

from allmem_runtime.documents.parts import Budget, Refused

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


def unpacked(archive: zipfile.ZipFile, member: str | zipfile.ZipInfo, budget: Budget) -> bytes:
    """One file of an archive.

    Args:
        archive: that holds it.
        member: its name, which stands for the last file of that name, or its entry.
        budget: of all.

    Raises:
        Refused: it is missing, encrypted, damaged, or more than may be unpacked.
    """
    try:
        info = archive.getinfo(member) if isinstance(member, str) else member
    except KeyError:
        raise Refused(f"is damaged: {member} is missing") from None
    if info.flag_bits & 1:
        raise Refused("is encrypted", "Save it without its password first.")
    budget.take(info.file_size)
    try:
        # The library stops at the size that was declared, and was taken.
        return archive.read(info)
    except NotImplementedError:  # how zipfile says that it cannot unpack what is there
        raise Refused(
            f"holds {info.filename}, which is packed in a way that is not known here",
            "Pack it anew with an ordinary zip program.",
        ) from None
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise Refused(f"is damaged: {info.filename} ({error})") from None
