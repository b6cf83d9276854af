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
        elif kind == "table-row":
            cells = ["; ".join(_lines(cell)) for cell in element if local(cell) == "table-cell"]
            yield Text("\t".join(cells).rstrip() + "\n")
        elif kind == "list-item":
            yield Text("• " + "\n  ".join(_lines(element)) + "\n")
        else:
            yield from _blocks(element)
            if kind in ("table", "list"):
                yield Text("\n")


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
            said.append(" " * min(int(count) if count.isdecimal() else 1, 1000))
        elif kind in _BREAKS:
            said.append(_BREAKS[kind])
        elif kind not in _LEFT_OUT:
            said.append(_line(child))
        said.append(child.tail or "")
    return "".join(said)
