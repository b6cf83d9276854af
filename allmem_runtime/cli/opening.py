"""Opens the sources of a command by name; of a folder, what cannot be read is told and left out."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

from allmem_runtime.cli.resume import left_out
from allmem_runtime.config import BOUNDS
from allmem_runtime.documents.ahead import Ahead, Tell
from allmem_runtime.documents.folders import named
from allmem_runtime.documents.named import Named
from allmem_runtime.documents.notes import InstallOnce
from allmem_runtime.documents.opening import kind_at, open_any
from allmem_runtime.errors import SourceError
from allmem_runtime.files.header import read_header
from allmem_runtime.text.sources import EmptySourceError, MissingSourceError, Source, location


def open_sources(
    names: Sequence[str],
    stdin: BinaryIO,
    session: Path | None,
    tell: Tell,
    encoding: str = "",
    *,
    live: bool = False,
    ahead: bool = False,
) -> list[Source]:
    """Open sources by name; one that a session knows may have become empty, or be gone.

    A file of a folder, or one that fits a pattern, that cannot be read is told and left out.

    Args:
        names: paths of files and folders, patterns such as ``notes/*.md``, or ``-``.
        stdin: standard input.
        session: the saved session, or None.
        tell: told what is left out and why, and what is not in UTF-8.
        encoding: of the sources; by default what each seems to be in.
        live: streams may never end.
        ahead: behind the first, documents may be still to come, where no session has to be
            compared with them; see ``arrived``.

    Raises:
        SourceError: one cannot be read, or all are empty.
        SessionFileError: the session cannot be read.
    """
    marks = read_header(session).place(BOUNDS["vocab_size"][1]).sources if session else ()
    known = {mark.location for mark in marks if mark.location}
    sources: list[Source] = []
    empty: list[EmptySourceError] = []
    install, coming = InstallOnce(tell), Ahead()
    for item in named(names, tell):
        path = Path(item.path)
        if ahead and sources and not marks and item.path != "-" and kind_at(item.path):
            waiting = coming.add(partial(_document, item, encoding))
            sources.append(
                Source(item.name, None, path, location=location(path), in_folder=item.in_folder,
                       coming=waiting)
            )  # fmt: skip
            continue
        try:
            sources.append(_opened(item, stdin, encoding, install, live))
        except _SkippedError:
            continue
        except (EmptySourceError, MissingSourceError) as error:
            if location(path) in known:
                gone = isinstance(error, MissingSourceError)
                sources.append(
                    Source(item.name, 0, path=path, location=location(path), missing=gone)
                )
            elif isinstance(error, EmptySourceError):
                empty.append(error)
            else:
                raise
    coming.start()
    install.end()
    if empty and not sources:
        raise empty[0]
    if not sources and names:
        raise SourceError(
            f"There is nothing to read in {', '.join(names)}.", "Name files, or a folder with some."
        )
    for nothing in empty:
        tell(left_out(nothing))
    return sources


def open_found(items: Sequence[Named], encoding: str, tell: Tell) -> list[Source]:
    """Open files that were found to be new or changed; what cannot be read is told and left out.

    Args:
        items: the files; all count as found in a folder.
        encoding: of the sources; empty to find out.
        tell: told what is left out and why.
    """
    sources, install = [], InstallOnce(tell)
    for item in items:
        item = dataclasses.replace(item, in_folder=True)
        with contextlib.suppress(_SkippedError, EmptySourceError, MissingSourceError):
            sources.append(_opened(item, io.BytesIO(), encoding, install, live=False))
    install.end()
    return sources


def arrived(source: Source, install: InstallOnce, stop: Callable[[], bool]) -> Source | None:
    """A source that may still be to come; None where it cannot be read, and was told, or on a stop.

    Args:
        source: of ``open_sources``.
        install: told what was left out.
        stop: whether to stop waiting.

    Raises:
        SourceError: it was named, and cannot be read.
    """
    if source.coming is None:
        return source
    try:
        return source.coming.wait(install.tell, stop)
    except SourceError as error:
        if not source.in_folder:
            raise
        install.left_out(error)
        return None


class _SkippedError(Exception):
    """A file among others that cannot be read; it was told."""


def _opened(
    item: Named, stdin: BinaryIO, encoding: str, install: InstallOnce, live: bool
) -> Source:
    """A source; of a folder, one that cannot be read is told and skipped."""
    try:
        source = open_any(item.path, stdin, encoding, install.tell, item.called, live=live)
    except (EmptySourceError, MissingSourceError):
        raise
    except SourceError as error:
        if not item.in_folder:
            raise
        install.left_out(error)
        raise _SkippedError from None
    return dataclasses.replace(source, in_folder=item.in_folder)


def _document(item: Named, encoding: str, tell: Tell) -> Source:
    source = open_any(item.path, io.BytesIO(), encoding, tell, item.called)
    return dataclasses.replace(source, in_folder=item.in_folder)
