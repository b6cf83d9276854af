"""How far a document was read, and what tells it from another; needs no arrays."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Protocol, Self


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
    """How far the current document was read.

    Args:
        offset: source bytes up to the end of the last segment that was encoded.
        finished: whether the source was read to its end; the next one then starts at 0.
        digest: SHA-256 of the first ``digest_bytes`` bytes of the source, to tell one document
            from another.
        digest_bytes: at most ``reading.DIGEST_BYTES``.
        read_digest: SHA-256 of all ``offset`` bytes that were read, to tell whether any of them
            changed; empty where it is not known.
        running: the digest behind ``read_digest``, to go on with; None where it was not taken.
            It is not saved.
    """

    offset: int = 0
    finished: bool = True
    digest: str = ""
    digest_bytes: int = 0
    read_digest: str = ""
    running: RunningDigest | None = field(default=None, compare=False, repr=False)

    def copy(self) -> SourceMark:
        """An independent copy."""
        running = None if self.running is None else self.running.copy()
        return dataclasses.replace(self, running=running)

    def advance(self, read: bytes) -> None:
        """These bytes were read too."""
        self.offset += len(read)
        if self.running is not None:
            self.running.update(read)
        self.read_digest = "" if self.running is None else self.running.hexdigest()
