"""What the recall meter has found: lines of a table, one sentence, values and a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from allmem_runtime.evaluation.recall import Recall
from allmem_runtime.plotting import picture

_BAR = 20
HEAD = f"{'tokens back':>22}   state alone {'':{_BAR}}   with passages"
"""Above the lines of the table."""


def line(row: Recall) -> str:
    """A row of the table."""
    full = round(_BAR * row.state / row.probes) if row.probes else 0
    return (
        f"{_reach(row):>22}   {row.state:>4} of {row.probes:<4} "
        f"{'█' * full}{'░' * (_BAR - full)}   {row.passages:>4} of {row.probes}"
    )


def sentence(rows: Sequence[Recall]) -> str:
    """All of it in one sentence: counts, and shares with their standard errors."""
    near, far = rows[0], rows[1:]
    asked, state, passages = (
        sum(getattr(row, name) for row in far) for name in ("probes", "state", "passages")
    )
    return (
        f"From its state alone, it told {_told(near.state, near.probes)} of what it read up to "
        f"{near.most or near.least:,} tokens back, and {_told(state, asked)} of what lies farther; "
        f"with passages {_told(passages + near.passages, asked + near.probes)} of all."
    )


def as_values(rows: Sequence[Recall]) -> list[dict[str, Any]]:
    """The rows as values that JSON knows, shares with their standard errors."""
    return [
        {
            **asdict(row),
            "state_share": _share(row.state, row.probes),
            "state_error": _error(row.state, row.probes),
            "passages_share": _share(row.passages, row.probes),
            "passages_error": _error(row.passages, row.probes),
        }
        for row in rows
    ]


def plot(rows: Sequence[Recall], path: Path) -> None:
    """Draw the shares by distance, with their standard errors; ranges without a probe are left out.

    Raises:
        StorageError: the file cannot be written.
    """
    asked = [row for row in rows if row.probes]
    with picture(path, 1, 1, (7, 3.8)) as figure:
        axis = figure.axes[0]
        for name, label in (("state", "the state alone"), ("passages", "with passages")):
            right = [getattr(row, name) for row in asked]
            shares = [100 * n / row.probes for n, row in zip(right, asked, strict=True)]
            errors = [
                100 * (_error(n, row.probes) or 0) for n, row in zip(right, asked, strict=True)
            ]
            axis.errorbar(
                range(len(asked)), shares, yerr=errors, marker="o", capsize=3, label=label
            )
        axis.set_xticks(range(len(asked)), [f"{_reach(row)}\n{row.probes} probes" for row in asked])
        axis.set_xlabel("tokens back")
        axis.set_ylabel("right, %")
        axis.set_ylim(-3, 103)
        axis.grid(alpha=0.3)
        axis.legend()


def _reach(row: Recall) -> str:
    return f"{row.least:,} to {row.most:,}" if row.most else f"{row.least:,} and more"


def _told(right: int, asked: int) -> str:
    """A count, and its share with the standard error, in percent."""
    if not asked:
        return "0 of 0"
    error = _error(right, asked) or 0.0
    return f"{right} of {asked} ({100 * right / asked:.0f} ± {100 * error:.0f} %)"


def _share(right: int, asked: int) -> float | None:
    return right / asked if asked else None


def _error(right: int, asked: int) -> float | None:
    """Standard error of a share."""
    return math.sqrt(right * (asked - right) / asked**3) if asked else None
