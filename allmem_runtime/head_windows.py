"""Which window each key/value head has, and what it takes: in words and drawn with characters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from allmem_runtime.quantities import format_bytes, format_tokens
from allmem_runtime.spec import StateSpec

_RINGS = ("key", "value", "scale")
_BARS = " ▁▂▃▄▅▆▇█"


def ring_bytes(spec: StateSpec) -> int:
    """Bytes of keys and values, and of their scales."""
    return sum(tensor.nbytes for _, tensor in spec if tensor.name in _RINGS)


def shares(
    windows: Sequence[Sequence[int]], sinks: Sequence[int], rings: int
) -> list[dict[str, Any]]:
    """How many heads have each window, and the bytes of their rings, as values that JSON knows.

    Args:
        windows: of each layer, of each key/value head.
        sinks: of each layer, rows of every head besides its window.
        rings: bytes of all rings together.
    """
    counts: Counter[int] = Counter()
    rows: Counter[int] = Counter()
    for layer, more in zip(windows, sinks, strict=True):
        for window in layer:
            counts[window] += 1
            rows[window] += window + more
    row = rings // rows.total()
    return [
        {"window": window, "heads": count, "bytes": rows[window] * row}
        for window, count in sorted(counts.items())
    ]


def window_lines(windows: Sequence[Sequence[int]], told: list[dict[str, Any]]) -> Iterator[str]:
    """The same for people, and a picture: heads downwards, layers across.

    Args:
        windows: of each layer, of each key/value head.
        told: their ``shares``.
    """
    counts = [
        f"{one['heads']} {'sees' if one['heads'] == 1 else 'see'} {format_tokens(one['window'])}"
        for one in told
    ]
    total = sum(one["heads"] for one in told)
    yield f"of {total} key/value heads {', '.join(counts)} tokens"
    taken = ", ".join(f"{format_bytes(one['bytes'])} for {one['heads']}" for one in told)
    yield f"their keys and values take {taken}"
    most = max(len(told) - 1, 1)
    level = {one["window"]: 1 + round(i * 7 / most) for i, one in enumerate(told)}
    for head in range(len(windows[0])):
        bars = "".join(_BARS[level[layer[head]]] for layer in windows)
        yield f"head {head:<3} {bars}  layers 0 to {len(windows) - 1}"
