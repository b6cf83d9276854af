"""From what was named to files: folders with all that lies in them, and patterns."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from allmem_runtime.documents.named import Named, apart
from allmem_runtime.errors import SourceError
from allmem_runtime.quantities import counted

MOST_FILES = 100_000
"""In one folder; more was hardly meant."""
_MOST_TOLD = 20
_PATTERN = frozenset("*?[")


def named(names: Sequence[str], tell: Callable[[str], None]) -> Iterator[Named]:
    """The files that names stand for, each name in its place.

    Hidden files, sessions and their text are left out without a word, links to folders and what is
    no file with one. A file that is named itself is none of these. Several files of one name are
    called by their paths from the folder that holds them all.

    Args:
        names: paths of files and folders, patterns with ``*``, ``?``, ``[]`` and ``**``, or ``-``.
        tell: told what is left out and why.

    Raises:
        SourceError: a folder has too many files, or a pattern fits nothing.
    """
    yield from apart(list(_found(names, tell)))


def _found(names: Sequence[str], tell: Callable[[str], None]) -> Iterator[Named]:
    for name in names:
        if name != "-" and os.path.isdir(name):
            yield from _within(Path(name), tell)
        elif _PATTERN.intersection(name) and not os.path.lexists(name):
            found = sorted(
                path
                for path in glob.iglob(name, recursive=True)
                if os.path.isfile(path) and not _is_ours(path)
            )
            if not found:
                raise SourceError(f"No file fits {name}.", "Name files, or a folder.")
            yield from (Named(path, in_folder=True) for path in found)
        else:
            yield Named(name)


def _within(folder: Path, tell: Callable[[str], None]) -> Iterator[Named]:
    """The files of a folder and those in it, in the order of their paths."""
    files: list[str] = []
    skipped: list[str] = []
    for where, folders, found in os.walk(folder, onerror=lambda error: skipped.append(_why(error))):
        folders[:] = sorted(inner for inner in folders if not inner.startswith("."))
        for inner in folders:
            if os.path.islink(os.path.join(where, inner)):  # os.walk does not follow it
                skipped.append(f"{os.path.join(where, inner)} is a link to a folder.")
        for name in sorted(found):
            path = os.path.join(where, name)
            if name.startswith(".") or _is_ours(path):
                continue
            if os.path.isfile(path):
                files.append(path)
            else:
                skipped.append(f"{path} is no regular file.")
        if len(files) > MOST_FILES:
            raise SourceError(
                f"{folder} has more than {MOST_FILES:,} files.", "Name the folders that matter."
            )
    for why in skipped[:_MOST_TOLD]:
        tell(f"Left out: {why}")
    if len(skipped) > _MOST_TOLD:
        tell(f"Left out: {counted(len(skipped) - _MOST_TOLD, 'other thing')}.")
    for path in files:
        yield Named(path, Path(path).relative_to(folder).as_posix(), in_folder=True)


def _is_ours(path: str) -> bool:
    """Whether a file is a session or its text, which are often kept beside what was read."""
    return path.endswith((".allmem", ".allmem.passages", ".allmem.lock"))


def _why(error: OSError) -> str:
    return f"{error.filename} cannot be read: {error.strerror}."
