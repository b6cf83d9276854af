"""Tables: rows by columns, each cell a mean with its standard error; as text, JSON and picture."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from allmem_runtime.errors import StorageError, UsageError
from allmem_runtime.evaluation.numbers import Mean

PICTURES = (".png", ".pdf", ".svg", ".eps", ".jpg", ".jpeg")
"""Endings that matplotlib draws everywhere."""


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


def check_plot(path: Path) -> None:
    """Find out before hours of reading, not after.

    Raises:
        UsageError: the name ends in no kind of picture, matplotlib is missing, or the folder is.
    """
    if path.suffix.lower() not in PICTURES:
        raise UsageError(
            f"--plot {path}: {path.suffix or 'a name without an ending'} is no kind of picture.",
            f"Let the name end in one of {', '.join(PICTURES)}.",
        )
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError(
            "--plot needs matplotlib, which is not installed.",
            "Install it with `pip install matplotlib`, or leave --plot out.",
        )
    if not path.parent.is_dir():
        raise UsageError(f"There is no folder {path.parent}.", "Make it, or name another.")


def plot(tables: Sequence[Table], path: Path) -> None:
    """A picture with one panel a table: a line for each row, bars for the standard errors.

    Raises:
        StorageError: the file cannot be written.
    """
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    across = min(3, len(tables))
    down = -(-len(tables) // across)
    figure, axes = pyplot.subplots(
        down, across, figsize=(5 * across, 3.6 * down), squeeze=False, layout="constrained"
    )
    # A row has one color in all panels.
    names = list(dict.fromkeys(row for table in tables for row in table.rows))
    for axis, table in zip(axes.flat, tables, strict=False):
        places = range(len(table.columns))
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
        axis.set_xticks(list(places), list(table.columns), rotation=30)
        axis.set_title(table.title, fontsize=10)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    for axis in list(axes.flat)[len(tables) :]:
        axis.set_axis_off()
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise StorageError(f"{path}: the plot could not be written ({error}).", "") from None
    finally:
        pyplot.close(figure)
