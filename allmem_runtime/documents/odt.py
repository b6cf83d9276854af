"""ODT: its headings, paragraphs, lists and tables, in the order they stand in."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from typing import Any

from allmem_runtime.documents.markup import local, parsed
from allmem_runtime.documents.members import unpacked
from allmem_runtime.documents.parts import Budget, Chapter, Part, Text

_BODY = "{urn:oasis:names:tc:opendocument:xmlns:office:1.0}text"
_LEFT_OUT = ("tracked-changes", "annotation", "forms", "sequence-decls")
_BREAKS = {"tab": "\t", "line-break": "\n"}


def extract(archive: zipfile.ZipFile, budget: Budget) -> Iterator[Part]:
    """The document in an opened archive."""
    content = parsed(unpacked(archive, "content.xml", budget))
    for body in content.iter():
        if body.tag == _BODY:
            yield from _blocks(body)


def _blocks(parent: Any) -> Iterator[Part]:
    for element in parent:
        kind = local(element)
        if kind in _LEFT_OUT:
            continue
        if kind == "h":
            title = _line(element)
            yield Chapter(title)
            yield Text(title + "\n\n")
        elif kind == "p":
            yield Text(_line(element) + "\n\n")
        elif kind == "table":
            yield Text(_table(element) + "\n")
        elif kind == "list-item":
            yield Text("• " + "\n  ".join(_lines(element)) + "\n")
        else:
            yield from _blocks(element)
            if kind == "list":
                yield Text("\n")


def _table(table: Any) -> str:
    """The rows of a table, each cell behind the name of its column where the table has names."""
    names: dict[int, str] = {}
    said = []
    for row, header in _rows(table, False):
        cells = [(at, "; ".join(_lines(cell))) for at, cell in _columns(row)]
        if header:
            for at, cell in cells:
                names[at] = f"{names.get(at, '')} {cell}".strip()
        elif len(names) > 1:
            cells = [(at, f"{names[at]}: {cell}" if cell and names.get(at) else cell)
                     for at, cell in cells]  # fmt: skip
        said.append("\t".join(cell for _, cell in cells).rstrip() + "\n")
    return "".join(said)


def _rows(parent: Any, header: bool) -> Iterator[tuple[Any, bool]]:
    """The rows of a table, and whether each is of its header."""
    for element in parent:
        kind = local(element)
        if kind == "table-row":
            yield element, header
        elif kind in ("table-header-rows", "table-rows", "table-row-group"):
            yield from _rows(element, header or kind == "table-header-rows")


def _columns(row: Any) -> Iterator[tuple[int, Any]]:
    """The cells of a row with the columns they begin in; others cover what they reach into."""
    at = 0
    for cell in row:
        kind = local(cell)
        if kind == "table-cell":
            yield at, cell
        if kind in ("table-cell", "covered-table-cell"):
            count = next((v for k, v in cell.attrib.items() if k.endswith("columns-repeated")), "1")
            at += _number(count)


def _number(said: str) -> int:
    """A count of some digits; else 1."""
    return int(said) if said.isdecimal() and len(said) < 6 else 1


def _lines(parent: Any) -> list[str]:
    found = [_line(element) for element in parent.iter() if local(element) in ("p", "h")]
    return [line for line in found if line.strip()]


def _line(element: Any) -> str:
    """The text of a paragraph, with the spaces and breaks that are elements of their own."""
    said = [element.text or ""]
    for child in element:
        kind = local(child)
        if kind == "s":
            count = next((v for k, v in child.attrib.items() if k.endswith("}c")), "1")
            said.append(" " * min(_number(count), 1000))
        elif kind in _BREAKS:
            said.append(_BREAKS[kind])
        elif kind not in _LEFT_OUT:
            said.append(_line(child))
        said.append(child.tail or "")
    return "".join(said)
