"""llama.cpp's rows: the type of its cache, whole or shifted, and how many bytes that takes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from allmem_runtime.errors import UsageError
from allmem_runtime.quantities import format_bytes
from benchmarks.peers.shifting import LEAST

TYPES = ("f16", "q8_0", "q4_0")
SHIFTED = "shifted"
ROWS = (*TYPES, SHIFTED, *(f"{SHIFTED}-{name}" for name in TYPES[1:]))
PROBES = (2048, 4096)
"""Cells of the two caches whose sizes tell the size of any other."""
ROUNDING = 0.02 * 1024**2
"""llama.cpp tells MiB with two digits after the point: less than this is nothing."""


class Peer(Protocol):
    """Whoever answers: ``benchmarks.peers.child.Child`` with ``llama_recall``."""

    version: str

    def tell(self, **request: Any) -> dict[str, Any]:
        """All that it answers to a request."""
        ...


@dataclass(frozen=True, slots=True)
class Cache:
    """How large a cache is.

    Args:
        kind: type of keys and values.
        fixed: bytes whatever the length, such as those of layers with a sliding window.
        token: bytes of one token more.
    """

    kind: str
    fixed: float
    token: float

    def bytes(self, tokens: int) -> int:
        """Bytes of so many tokens."""
        return round(self.fixed + self.token * tokens)

    def tokens(self, budget: int) -> int:
        """The most tokens that so many bytes hold."""
        return max(0, int((budget - self.fixed) // self.token))


@dataclass(frozen=True, slots=True)
class Row:
    """One row of llama.cpp.

    Args:
        name: as the table shows it.
        cache: its type and size.
        size: tokens of a context that is shifted; 0 for one that holds everything.
        keep: first tokens that are never discarded; 0 where nothing is.
    """

    name: str
    cache: Cache
    size: int = 0
    keep: int = 0

    def bytes(self, tokens: int) -> int:
        """Bytes of its cache after so many tokens; a shifted one is there from the beginning."""
        return self.cache.bytes(self.size or tokens)

    def digest(self, gguf: str, version: str) -> str:
        """SHA-256 over all that answers: equal digests give equal answers."""
        values = [gguf, version, self.cache.kind, self.size, self.keep]
        return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def measured(peer: Peer, kind: str) -> Cache:
    """The size of a type of cache, by what llama.cpp says of two."""
    less, more = (peer.tell(do="bytes", cache=kind, cells=cells)["bytes"] for cells in PROBES)
    token = (more - less) / (PROBES[1] - PROBES[0])
    fixed = less - token * PROBES[0]
    if abs(fixed) < ROUNDING:
        return Cache(kind, 0.0, more / PROBES[1])
    return Cache(kind, fixed, token)


def rows_of(peer: Peer, names: Sequence[str], budgets: Sequence[int], keep: int) -> list[Row]:
    """The rows that are wanted; a shifted one for each number of bytes.

    Args:
        peer: asked for the sizes of its caches.
        names: of ``ROWS``.
        budgets: bytes of shifted caches.
        keep: first tokens that these never discard.

    Raises:
        UsageError: there is no such row, or so few bytes cannot be shifted.
    """
    for name in names:
        if name not in ROWS or names.count(name) > 1:
            raise UsageError(f"--rows has {name!r}.", f"Each at most once of {', '.join(ROWS)}.")
    caches: dict[str, Cache] = {}
    rows = []
    for name in names:
        kind = name.removeprefix(SHIFTED).removeprefix("-") or TYPES[0]
        if kind not in caches:
            caches[kind] = measured(peer, kind)
        cache = caches[kind]
        if not name.startswith(SHIFTED):
            rows.append(Row(f"llama.cpp {kind}", cache))
            continue
        for budget in dict.fromkeys(budgets):
            size = cache.tokens(budget)
            if size < keep + LEAST:
                raise UsageError(
                    f"{format_bytes(budget)} of {kind} hold {size} tokens, too few to keep {keep} "
                    "of them and shift the others.",
                    "Give more --cache-bytes, or keep fewer with --keep.",
                )
            rows.append(Row(f"llama.cpp {kind} shifted at {size:,}", cache, size, keep))
    return rows
