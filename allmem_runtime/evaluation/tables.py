"""Tables: rows by columns, each cell a mean with its standard error; as text, JSON and picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from allmem_runtime.evaluation.numbers import Mean
from allmem_runtime.plotting import picture


@dataclass(slots=True)
class Table:
    """One table; a cell that is missing was not measured.

    Args:
        title: what the numbers are.
        rows: names in order.
        columns: names in order.
        digits: after the point.
        cells: by row and column.
        note: below the table.
    """

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    digits: int = 1
    cells: dict[tuple[str, str], Mean | None] = field(default_factory=dict)
    note: str = ""

    def lines(self) -> Iterator[str]:
        """The table for people; where the cells differ in samples, each says how many."""
        known = {key: cell for key, cell in self.cells.items() if cell is not None}
        counts = {cell.count for cell in known.values()}
        texts = {
            key: cell.text(self.digits) + (f" ({cell.count})" if len(counts) > 1 else "")
            for key, cell in known.items()
        }
        left = max(len(row) for row in self.rows)
        widths = [
            max([len(column), *(len(texts.get((row, column), "–")) for row in self.rows)])
            for column in self.columns
        ]
        yield self.title
        heads = [f"{column:>{width}}" for column, width in zip(self.columns, widths, strict=True)]
        yield "  ".join([" " * left, *heads])
        for row in self.rows:
            cells = [
                f"{texts.get((row, column), '–'):>{width}}"
                for column, width in zip(self.columns, widths, strict=True)
            ]
            yield "  ".join([f"{row:<{left}}", *cells])
        if len(counts) == 1:
            yield f"samples in each cell: {counts.pop()}"
        elif counts:
            yield "in brackets: samples"
        if self.note:
            yield self.note

    def as_json(self) -> dict[str, Any]:
        """Plain values; a cell that was not measured is null."""
        rows = {}
        for row in self.rows:
            cells = {column: self.cells.get((row, column)) for column in self.columns}
            rows[row] = {c: None if cell is None else cell.as_json() for c, cell in cells.items()}
        return {"title": self.title, "columns": list(self.columns), "rows": rows}


def plot(tables: Sequence[Table], path: Path) -> None:
    """A picture with one panel a table: a line for each row, bars for the standard errors.

    Raises:
        StorageError: the file cannot be written.
    """
    across = min(3, len(tables))
    down = -(-len(tables) // across)
    # A row has one color in all panels.
    names = list(dict.fromkeys(row for table in tables for row in table.rows))
    with picture(path, down, across, (5 * across, 3.6 * down)) as figure:
        for axis, table in zip(figure.axes, tables, strict=False):
            _draw(axis, table, names)
        for axis in figure.axes[len(tables) :]:
            axis.set_axis_off()


def _draw(axis: Any, table: Table, names: Sequence[str]) -> None:
    for row in table.rows:
        cells = [(i, table.cells.get((row, c))) for i, c in enumerate(table.columns)]
        known = [(i, cell) for i, cell in cells if cell is not None]
        axis.errorbar(
            [i for i, _ in known],
            [cell.value for _, cell in known],
            yerr=[cell.error or 0.0 for _, cell in known],
            marker="o",
            capsize=3,
            label=row,
            color=f"C{names.index(row)}",
        )
    axis.set_xticks(range(len(table.columns)), list(table.columns), rotation=30)
    axis.set_title(table.title, fontsize=10)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7)
