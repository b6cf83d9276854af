"""Has a document read in a process of its own, and keeps its text in a file nobody else opens."""

from __future__ import annotations

import bisect
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from allmem_runtime.child_process import command, environment, has_interpreter
from allmem_runtime.documents.kinds import Kind
from allmem_runtime.documents.spool import Spool, shared_spool, storing, temporary_file
from allmem_runtime.errors import SourceError
from allmem_runtime.quantities import counted, format_bytes
from allmem_runtime.text.blocks import BLOCK_BYTES
from allmem_runtime.text.limits import Limits
from allmem_runtime.text.places import Landmark
from allmem_runtime.text.sources import MissingSourceError

_CHILD = "allmem_runtime.documents.child"
_MEBIBYTE = 1 << 20
MOST_LINE = 1 << 20
"""Longest line the process may say."""
MOST_PLACES = 1 << 20
"""Pages and chapters of one document."""
INSTALL = "Install what reads documents with `pip install 'allmem-runtime[documents]'`."


class MissingLibraryError(SourceError):
    """A document that only a library can read which is not installed."""


def limits_of(size: int) -> Limits:
    """What the reading of a document of so many bytes may take."""
    cpu = 60 + 10 * (size // _MEBIBYTE)
    # Where a system limits no processor time, or the process waits for it, the clock ends it.
    return Limits(cpu, 0, 10 * cpu, min((1 << 30) + 8 * size, 1 << 33))


def most_of(size: int) -> int:
    """Bytes that a document of so many may unpack to, all text of it included."""
    return min((64 << 20) + 100 * size, 1 << 30)


class DocumentText:
    """The text of a document, with its pages and chapters.

    Attributes:
        size: bytes of the text.
        notes: what was left out, as ``Note`` has it.
        lacks: something was left out because a library is not installed.
    """

    def __init__(self) -> None:
        self._file = temporary_file()
        self._spool: Spool | None = None
        self._start = 0
        self._at: list[int] = []
        self._places: list[tuple[int, str]] = []
        self._page, self._chapter = 0, ""
        self.size = 0
        self.notes: list[str] = []
        self.lacks = False

    def pieces(self, start: int = 0) -> Iterator[bytes]:
        """The bytes of the text from ``start`` on."""
        assert self._spool is not None
        while start < self.size:
            piece = self._spool.read(self._start + start, min(BLOCK_BYTES, self.size - start))
            start += len(piece)
            yield piece

    def settle(self) -> None:
        """Nothing more is taken; from now on the text can be had, and holds no file open.

        Raises:
            StorageError: there is no room for it.
        """
        with self._file:
            self._spool = shared_spool()
            self._start = self._spool.add(self._file)

    def within(self, first: int, end: int) -> list[Landmark]:
        """Pages and chapters between two bytes of the text; see ``Landmarks``."""
        index = bisect.bisect_right(self._at, first) - 1
        found = [Landmark(first, *self._places[index])] if index >= 0 else []
        for at, place in zip(self._at[index + 1 :], self._places[index + 1 :], strict=True):
            if at >= end:
                break
            found.append(Landmark(at, *place))
        return found

    def take(self, said: dict[str, Any]) -> bool:
        """Take a value down that the process said; whether it is one of those it may say."""
        match said:
            case {"text": str(text)}:
                self._place()
                data = text.encode("utf-8", "replace")
                with storing():
                    self._file.write(data)
                self.size += len(data)
            case {"page": int(page)} if 0 <= page < 1 << 31:
                self._page = page
            case {"chapter": str(chapter)}:
                self._chapter, self._page = chapter[:200], 0
            case {"note": str(note)}:
                self.notes.append(note[:200])
            case {"lacks": True}:
                self.lacks = True
            case _:
                return False
        return len(self._at) < MOST_PLACES and len(self.notes) < MOST_PLACES

    def _place(self) -> None:
        place = (self._page, self._chapter)
        if place != (self._places[-1] if self._places else (0, "")):
            self._at.append(self.size)
            self._places.append(place)


def extract(path: Path, kind: Kind, name: str) -> DocumentText:
    """The text of a document in a file; see ``extract_open``.

    Raises:
        MissingSourceError: there is no such file.
    """
    try:
        with path.open("rb") as file:
            return extract_open(file, kind, name)
    except OSError as error:
        kinds = MissingSourceError if not path.exists() else SourceError
        raise kinds(
            f"{name} cannot be read: {error.strerror or error}.",
            "Check the path and its permissions.",
        ) from None


def extract_open(file: IO[bytes], kind: Kind, name: str) -> DocumentText:
    """The text of a document.

    Args:
        file: the document, of the system, as another process reads it.
        kind: what it is.
        name: what to call it.

    Raises:
        SourceError: it cannot be read, takes too much, or has no text.
        MissingLibraryError: what reads it is not installed.
        StorageError: there is no room for its text.
    """
    if not has_interpreter():
        raise SourceError(
            f"{name} is {kind.name}; a program in one piece reads plain text only.",
            "Convert it to text first.",
        )
    process, limits, most = _started(file, kind, name)
    timer = threading.Timer(limits.wall_seconds, process.kill)
    timer.daemon = True
    timer.start()
    with process:
        try:
            assert process.stdout is not None
            text, last = _listen(process.stdout, most)
            if last != {}:  # else it ends, or has ended, by itself, and how is told
                process.kill()
            process.wait()
        except BaseException:
            process.kill()
            raise
        finally:
            timer.cancel()
    if last is None or last.get("end") is not True:
        raise _failure(last, name, kind, limits, process.returncode)
    text.settle()
    if not _has_text(text):
        if text.lacks:
            raise MissingLibraryError(f"{name}: {text.notes[0]}.", INSTALL)
        notes = f" ({'; '.join(text.notes[:3])})" if text.notes else ""
        raise SourceError(
            f"{name} is {kind.name} without text{notes}.",
            "If it was scanned, run it through a program that recognizes text first.",
        )
    return text


def _started(file: IO[bytes], kind: Kind, name: str) -> tuple[subprocess.Popen[bytes], Limits, int]:
    """The process, what it may take, and the bytes it may unpack."""
    size = os.fstat(file.fileno()).st_size
    limits, most = limits_of(size), most_of(size)
    task = {"module": kind.module, "name": name, "limits": asdict(limits), "most": most}
    process = subprocess.Popen(
        command(_CHILD, json.dumps(task)),
        stdin=file,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
    return process, limits, most


def _listen(stream: IO[bytes], most: int) -> tuple[DocumentText, dict[str, Any] | None]:
    """The text that is told, and what is said at last: nothing by one that ended before, or None.

    None is for what the process may not say; it is not listened to any longer.
    """
    text = DocumentText()
    while line := stream.readline(MOST_LINE):
        try:
            said = json.loads(line)
        except ValueError:
            return text, None
        if not isinstance(said, dict):
            return text, None
        if not text.take(said):
            return text, said if said.keys() & {"end", "refused", "missing"} else None
        if text.size > 4 * most:  # it counts characters, of four bytes at most
            return text, None
    return text, {}


def _failure(
    last: dict[str, Any] | None, name: str, kind: Kind, limits: Limits, code: int | None
) -> SourceError:
    match last:
        case {"missing": str(package)}:
            return MissingLibraryError(
                f"{name} is {kind.name}, and {package} is not installed.", INSTALL
            )
        case {"refused": [str(why), str(hint)]}:
            return SourceError(f"{name} {why}.", hint or "Give another copy of it, or its text.")
    took = f"more than {counted(limits.cpu_seconds, 'second')} or {format_bytes(limits.memory)}"
    ended = code in (-signal.SIGKILL, -getattr(signal, "SIGXCPU", 0))
    what = f"takes {took}" if ended and last is not None else "fails"
    return SourceError(
        f"{name} cannot be read: reading it {what}.", "Give another copy of it, or its text."
    )


def _has_text(text: DocumentText) -> bool:
    return any(not piece.isspace() for piece in text.pieces())
