"""What was measured, by kind of sequence and by way, as lines and as a table in Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from torch import Tensor

from allmem_runtime.quantities import format_bytes
from benchmarks.windows.ways import Way

Pair = tuple[float, float]
"""KL divergence in nats, and the share of tokens whose most probable token is the same."""


class Results:
    """Gathers what every way gives.

    Args:
        ways: by name.
        sinks: of every head.
        head_dim: of every head.
    """

    def __init__(self, ways: dict[str, Way], sinks: int, head_dim: int) -> None:
        self._ways = ways
        self._bytes = {name: way.bytes(sinks, head_dim) for name, way in ways.items()}
        self._found: dict[str, dict[str, list[Pair]]] = {}

    def windows(self) -> str:
        """What each way gives to how many heads, a line for each."""
        lines = []
        for name, way in self._ways.items():
            heads = Counter(
                f"{ring.rows} {ring.element.name}" for layer in way.rings for ring in layer
            )
            parts = sorted(heads.items(), key=lambda part: int(part[0].split()[0]))
            told = ", ".join(f"{count} of {what}" for what, count in parts)
            lines.append(f"{name} ({format_bytes(self._bytes[name])}): {told}")
        return "\n".join(lines)

    def add(self, kind: str, name: str, truth: Tensor, found: Tensor) -> None:
        """Logarithms of probabilities [positions, vocab_size] of full attention and of a way."""
        divergence = (truth.exp() * (truth - found)).sum(-1).mean().item()
        same = (truth.argmax(-1) == found.argmax(-1)).float().mean().item()
        self._found.setdefault(kind, {}).setdefault(name, []).append((divergence, same))

    def last(self, kind: str) -> str:
        """The kind's latest sequence, in one line."""
        parts = (f"{name}: {_told(rows[-1])}" for name, rows in self._found[kind].items())
        return f"{kind} {'; '.join(parts)}"

    def table(self) -> str:
        """A line for each way; a column for each kind, and the mean over kinds."""
        kinds = list(self._found)
        lines = [
            f"| rows | bytes | {' | '.join(kinds)} | over kinds |",
            "|---" * (len(kinds) + 3) + "|",
        ]
        for name, size in self._bytes.items():
            means = [_mean(self._found[kind][name]) for kind in kinds]
            told = [_told(pair) for pair in (*means, *([_mean(means)] if means else []))]
            lines.append(f"| {name} | {format_bytes(size)} | {' | '.join(told)} |")
        return "\n".join(lines)


def _mean(rows: Iterable[Pair]) -> Pair:
    divergences, same = zip(*rows, strict=True)
    return sum(divergences) / len(divergences), sum(same) / len(same)


def _told(pair: Pair) -> str:
    return f"{pair[0]:.3f} / {pair[1]:.2f}"
