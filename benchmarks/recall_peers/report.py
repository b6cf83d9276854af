"""Tables in which llama.cpp's rows stand beside ours, those of equal bytes next to each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from allmem_runtime.errors import UsageError
from allmem_runtime.evaluation.asking import apart, even, tables_of
from allmem_runtime.evaluation.results import Record
from allmem_runtime.evaluation.tables import Table
from allmem_runtime.quantities import format_bytes

BYTES = "bytes of state or cache, most of all prompts"

Bytes = dict[str, dict[str, int | None]]
"""By row and column; None where it is not known."""


@dataclass(frozen=True, slots=True)
class Report:
    """What is printed and kept.

    Args:
        tables: one a task, their average, and the differences from the rows in question.
        bytes: of each row.
        answered: prompts that all rows have answered.
    """

    tables: Sequence[Table]
    bytes: Bytes
    answered: int


def bytes_by_row(records: Sequence[Record], ours: dict[str, int | None]) -> Bytes:
    """The most bytes that each row took, by column.

    Args:
        records: of all rows; those of llama.cpp say their own.
        ours: bytes of our rows' states, as far as known, which no prompt changes.
    """
    found: Bytes = {}
    for record in records:
        row, column = record["row"], record["column"]
        cells = found.setdefault(row, {})
        if row in ours:
            cells[column] = ours[row]
        else:
            cells[column] = max(cells.get(column) or 0, record["cache_bytes"])
    return found


def ordered(rows: Sequence[str], found: Bytes) -> list[str]:
    """The rows by bytes, the largest first; unknown ones last."""

    def size(row: str) -> int:
        return max((count or 0 for count in found.get(row, {}).values()), default=0)

    return sorted(rows, key=size, reverse=True)


def report(
    rows: Sequence[str],
    columns: Sequence[str],
    records: Sequence[Record],
    ours: dict[str, int | None],
    against: Sequence[str] = (),
) -> Report:
    """All tables, of the prompts that every row has answered.

    Args:
        rows: names, ours first.
        columns: names, the shortest first.
        records: of all rows.
        ours: our rows, and the bytes of their states as far as known.
        against: rows to hold the others against; our first one if none is named.

    Raises:
        UsageError: there is no such row.
    """
    for name in against:
        if name not in rows:
            raise UsageError(f"--against {name!r} is no row.", f"Rows: {', '.join(rows)}.")
    complete = even(rows, records)
    found = bytes_by_row(complete, ours)
    names = ordered(rows, found)
    tasks = list(dict.fromkeys(record["task"] for record in complete))
    tables = tables_of(tasks, names, columns, complete)
    if complete:
        tables += [apart(base, names, columns, complete) for base in against or rows[:1]]
    return Report(tables, found, len(complete) // len(rows))


def bytes_lines(rows: Sequence[str], columns: Sequence[str], found: Bytes) -> list[str]:
    """The table of bytes, for people."""
    left = max(len(row) for row in rows)
    lines = [BYTES, "  ".join([" " * left, *(f"{column:>9}" for column in columns)])]
    for row in rows:
        counts = [found.get(row, {}).get(column) for column in columns]
        cells = [f"{'–' if count is None else format_bytes(count):>9}" for count in counts]
        lines.append("  ".join([f"{row:<{left}}", *cells]))
    return lines
