"""Finds out what of the sources is still to be read, says so, and asks what to do where it must."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from allmem_runtime.cli.options import OnChange
from allmem_runtime.errors import SourceError
from allmem_runtime.quantities import counted
from allmem_runtime.source_mark import SourceMark
from allmem_runtime.text.blocks import Block
from allmem_runtime.text.recognition import Found, What, recognize
from allmem_runtime.text.sources import (
    STANDARD_INPUT,
    EmptySourceError,
    Source,
)

_CHOICE = (
    "Read it anew, behind what was read of it, with `--changed read`, go on without it with "
    "`--changed skip`, or name another --session file."
)
_NAMES = 3


@dataclass(frozen=True, slots=True)
class Part:
    """A source that is still to be read, whole or from somewhere on.

    Attributes:
        source: what to read.
        pieces: its bytes that were not read.
        mark: what was read of it before; None if nothing was.
    """

    source: Source
    pieces: Iterator[bytes]
    mark: SourceMark | None = None

    @property
    def start(self) -> int:
        """Bytes that were read before."""
        return self.mark.offset if self.mark else 0


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be read, and what a person should know of it.

    Attributes:
        parts: in the order of reading.
        found: all sources that were looked for.
        notices: one sentence each.
    """

    parts: list[Part]
    found: list[Found] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


def plan(
    sources: Sequence[Source],
    marks: Sequence[SourceMark],
    unread: Block = b"",
    *,
    on_change: OnChange = "stop",
    live: bool = False,
    some: bool = False,
) -> Plan:
    """What of the sources a session has not read.

    Args:
        sources: in the order of reading.
        marks: what the session knows, the current source last.
        unread: what an earlier reading had pulled from the current source and left.
        on_change: what to do about a source that was changed, or is gone before its end.
        live: streams give new text, whatever was read before.
        some: these are some of the sources that were named, which seem to have changed: of the
            others, and of those that did not, nothing is told, and one that cannot be read, or
            was not read to its end, keeps none of the others from being read.

    Raises:
        SourceError: a source was changed, or the one that the session stopped in is not among
            these, and nobody said what to do; or a source cannot be read.
    """
    notices: list[str] = []
    found = []
    for source in _each_once(sources, notices):
        if live and source.stream is not None:
            found.append(Found(source, "new", source.pieces()))
            continue
        try:
            found.append(recognize(source, marks))
        except EmptySourceError as error:
            if len(sources) == 1:
                raise
            notices.append(left_out(error))
        except SourceError as error:
            if not some:
                raise
            notices.append(f"Left out: {error.message}")
    parts = []
    current = marks[-1] if marks and not marks[-1].finished else None
    if current is not None and not _among(current, found):
        stream = not current.location and bool(current.name or unread or live)
        if current.offset and not stream and on_change != "skip" and not some:
            raise _stopped_elsewhere(current)
        if unread and stream:
            parts.append(_unread_part(unread, current))
    for item in found:
        wanted = _wanted(item.source, on_change)
        if item.what == "changed" and wanted == "stop":
            raise SourceError(
                f"{item.source.name} was changed since it was read: {item.why}.", _CHOICE
            )
        if item.what == "gone" and item.mark and not item.mark.finished and on_change != "skip":
            raise SourceError(
                f"{item.source.name} is gone, and was not read to its end.",
                "Put it back, or go on without its rest with `--changed skip`.",
            )
        if item.what == "changed" and wanted == "read":
            parts.append(Part(item.source, item.pieces))
        elif item.what in ("new", "grown", "unfinished"):
            parts.append(Part(item.source, item.pieces, item.mark))
    return Plan(parts, found, [*notices, *_notices(found, marks, on_change, some)])


def _wanted(source: Source, on_change: OnChange) -> OnChange:
    """What to do about a source that was changed; what is new in a folder is read unless told."""
    return "read" if source.in_folder and on_change == "stop" else on_change


def left_out(error: EmptySourceError) -> str:
    """What to tell of an empty source among others."""
    return f"{error.message.rstrip('.')}; left out."


def _each_once(sources: Sequence[Source], notices: list[str]) -> Iterator[Source]:
    """The sources without files that are named again."""
    seen = set()
    for source in sources:
        if source.location in seen:
            notices.append(f"{source.name} is named twice; it is read once.")
        else:
            yield source
        if source.location:
            seen.add(source.location)


def _unread_part(unread: Block, mark: SourceMark) -> Part:
    """What an earlier reading had pulled from a stream and left unread: the stream's end."""
    data = bytes(unread)  # token ids come from no command
    source = Source(mark.name or STANDARD_INPUT, mark.offset + len(data))
    return Part(source, iter([data]), mark)


def _stopped_elsewhere(mark: SourceMark) -> SourceError:
    if mark.name:
        return SourceError(
            f"{mark.name} was read up to byte {mark.offset:,}, not to its end, and is not among "
            "these sources.",
            "Name it too, or go on without its rest with `--changed skip`.",
        )
    return SourceError(
        f"The session stopped after {counted(mark.offset, 'byte')} of a source that is not among "
        "these, or that was changed.",
        "Name it as it was, go on without its rest with `--changed skip`, or name another "
        "--session file.",
    )


_SENTENCES: dict[What, tuple[str, str]] = {
    "unchanged": ("was read before.", "were read before."),
    "gone": ("is gone; what was read of it stays.", "are gone; what was read of them stays."),
}


def _notices(
    found: Sequence[Found], marks: Sequence[SourceMark], on_change: OnChange, some: bool
) -> Iterator[str]:
    """What is not simply read from its start, one sentence for each kind or source."""
    if not marks:
        return
    for what, sentences in () if some else _SENTENCES.items():
        names = [item.source.name for item in found if item.what == what]
        if names:
            yield f"{_listed(names)} {sentences[len(names) > 1]}"
    for item in found:
        at = f"going on at byte {item.mark.offset:,}." if item.mark else ""
        if item.what == "grown":
            yield f"{item.source.name} has grown: {at}"
        elif item.what == "unfinished":
            yield f"{item.source.name}: {at}"
        elif item.what == "changed":
            done = "read anew" if _wanted(item.source, on_change) == "read" else "left out"
            yield f"{item.source.name} was changed since it was read ({item.why}): {done}."
    kinds = Counter(item.what for item in found)
    if kinds["new"]:
        yield f"{counted(kinds['new'], 'new source')} added to what was read before."
    if not some and any(item.mark for item in found):
        absent = [mark.name for mark in marks if mark.name and not _among(mark, found)]
        if absent:
            listed = _listed(list(dict.fromkeys(absent)))
            yield f"Not among these: {listed}; what was read stays."


def _among(mark: SourceMark, found: Sequence[Found]) -> bool:
    """Whether a source that was read is one of those that were given."""
    return any(
        item.mark is not None and (item.mark == mark or item.mark.location == mark.location != "")
        for item in found
    )


def _listed(names: Sequence[str]) -> str:
    """The first names, and how many more."""
    if len(names) <= _NAMES + 1:
        return ", ".join(names)
    return f"{', '.join(names[:_NAMES])} and {len(names) - _NAMES:,} more"
