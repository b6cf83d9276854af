"""How far a source was read, and what it is recognized by; needs no arrays."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass, field
from typing import Protocol, Self

HEAD_BYTES = 1 << 16
"""Bytes at the start of a source that tell it from others before the rest is there."""


class RunningDigest(Protocol):
    """A digest that goes on with what comes, as ``hashlib`` has them."""

    def update(self, data: bytes, /) -> None:
        """Take more bytes in."""

    def hexdigest(self) -> str:
        """The digest of all bytes so far."""

    def copy(self) -> Self:
        """An independent one that has taken the same bytes."""


@dataclass(slots=True)
class SourceMark:
    """How far a source was read.

    Args:
        name: what it is called, without its folder; empty where it has no name, and in sessions
            of earlier versions.
        location: names the path of a file without telling it; empty for all that is no file.
        offset: source bytes up to the end of the last segment that was encoded.
        finished: whether the source was read to its end.
        digest: SHA-256 of all ``offset`` bytes that were read; empty where it is not known.
        head: SHA-256 of the first ``head_bytes`` bytes.
        head_bytes: at most ``HEAD_BYTES``.
        running: the digest behind ``digest``, to go on with; None where it was not taken. It is
            not saved.
    """

    name: str = ""
    location: str = ""
    offset: int = 0
    finished: bool = True
    digest: str = ""
    head: str = ""
    head_bytes: int = 0
    running: RunningDigest | None = field(default=None, compare=False, repr=False)

    def copy(self) -> SourceMark:
        """An independent copy."""
        running = None if self.running is None else self.running.copy()
        return dataclasses.replace(self, running=running)

    def begin(self) -> None:
        """The source is read from its first byte on."""
        self.digest, self.head, self.head_bytes = "", "", 0
        self.running = hashlib.sha256()

    def advance(self, read: bytes) -> None:
        """These bytes were read too."""
        before = self.offset
        self.offset += len(read)
        if self.running is None:
            self.digest = ""
            return
        room = max(0, HEAD_BYTES - before)
        self.running.update(read[:room])
        if room:
            self.head, self.head_bytes = self.running.hexdigest(), before + len(read[:room])
        self.running.update(read[room:])
        self.digest = self.running.hexdigest()
