"""Jupyter notebooks: the source of each cell, and of its outputs what is text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from allmem_runtime.documents.parts import Budget, Chapter, Part, Refused, Text


def extract(file: BinaryIO, name: str, budget: Budget, depth: int) -> Iterator[Part]:
    """The cells of a notebook, a chapter at each heading; see ``Extract``."""
    data = file.read()
    budget.take(len(data))
    notebook = json.loads(data)
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list):
        raise Refused("is no notebook of format 4", "Open and save it with Jupyter once.")
    for cell in cells:
        if not isinstance(cell, dict):
            continue
        source = _joined(cell.get("source"))
        if cell.get("cell_type") == "markdown":
            first = source.lstrip().partition("\n")[0]
            if first.startswith("#"):
                yield Chapter(first.lstrip("#"))
        yield Text(source.rstrip("\n") + "\n\n")
        outputs = cell.get("outputs")
        for output in outputs if isinstance(outputs, list) else ():
            if text := _output(output):
                yield Text(text.rstrip("\n") + "\n\n")


def _output(output: Any) -> str:
    if not isinstance(output, dict):
        return ""
    data = output.get("data")
    plain = data.get("text/plain") if isinstance(data, dict) else None
    return _joined(output.get("text")) or _joined(plain)


def _joined(lines: Any) -> str:
    if isinstance(lines, list):
        return "".join(line for line in lines if isinstance(line, str))
    return lines if isinstance(lines, str) else ""
