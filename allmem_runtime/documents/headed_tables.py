"""Tables of pages: the name of its column before each cell, so that a row tells what is what."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from allmem_runtime.documents.html_tree import elements

_MOST_SPAN = 100
_MOST_HEADERS = 3
"""Rows of names over one another."""
_LONGEST_NAME = 100
_BLOCKS = (
    "p",
    "br",
    "div",
    "ul",
    "ol",
    "dl",
    "pre",
    "blockquote",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
)


def name_cells(tree: Any) -> None:
    """Write the names of columns into the cells of all tables that have a header.

    A header is what ``<thead>`` holds, or a first row of ``<th>`` alone. Tables that hold others
    are for the layout of a page, and stay as they are.

    Args:
        tree: of Resiliparse; it is changed.
    """
    for table in elements(tree.body, ("table",)):
        if table.query_selector("table") is not None:  # first, as tables may be nested deep
            continue
        rows = elements(table, ("tr",))
        if len(rows) < 2:
            continue
        count = _header_rows(table, rows)
        names: dict[int, str] = {}
        for index, row in enumerate(_placed(rows)):
            for column, cell in row:
                if index < count:
                    said = _said(cell)
                    for at in range(column, column + _span(cell, "colspan")):
                        names[at] = f"{names.get(at, '')} {said}".strip()
                elif count and len(names) > 1 and len(name := names.get(column, "")) > 0:
                    _name(tree, cell, name)


def _header_rows(table: Any, rows: list[Any]) -> int:
    """How many of the rows are names of columns; 0 where the table has no header."""
    head = table.query_selector("thead")
    if head is not None:
        count = len(elements(head, ("tr",)))
        return count if count <= _MOST_HEADERS else 0
    first = _cells(rows[0])
    return int(len(first) > 1 and all(cell.tag == "th" for cell in first))


def _placed(rows: list[Any]) -> Iterator[list[tuple[int, Any]]]:
    """The cells of each row with the first column that each stands in."""
    taken: dict[int, int] = {}  # columns that a cell of a row above reaches into, for so many rows
    for row in rows:
        placed, column, reaching = [], 0, {}
        for cell in _cells(row):
            while taken.get(column):
                column += 1
            placed.append((column, cell))
            for at in range(column, column + _span(cell, "colspan")):
                reaching[at] = _span(cell, "rowspan")
            column += _span(cell, "colspan")
        left = {at: count - 1 for at, count in taken.items() if count > 1}
        taken = left | {at: count - 1 for at, count in reaching.items() if count > 1}
        yield placed


def _cells(row: Any) -> list[Any]:
    cells, cell = [], row.first_element_child
    while cell is not None:
        if cell.tag in ("td", "th"):
            cells.append(cell)
        cell = cell.next_element_sibling
    return cells


def _span(cell: Any, name: str) -> int:
    said = (cell.getattr(name) or "1").strip()
    return min(max(int(said), 1), _MOST_SPAN) if said.isdecimal() and len(said) < 6 else 1


def _said(cell: Any) -> str:
    return " ".join(cell.text.split())[:_LONGEST_NAME]


def _name(tree: Any, cell: Any, name: str) -> None:
    """Put a name before what a cell says; of one paragraph, into its line."""
    said = " ".join(cell.text.split())
    if not said or said.lower().startswith(name.lower()):
        return
    blocks = [block.tag for block in elements(cell, _BLOCKS)]
    if blocks == ["p"]:
        cell.text = f"{name}: {said}"
    else:
        cell.insert_before(tree.create_text_node(f"{name}: "), cell.first_child)
