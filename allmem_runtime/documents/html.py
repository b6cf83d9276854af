"""HTML pages by Resiliparse: the text of the main part, under the headings it stands under."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from allmem_runtime.documents.headed_tables import name_cells
from allmem_runtime.documents.html_tree import elements
from allmem_runtime.documents.parts import Budget, Chapter, Part, Text
from allmem_runtime.text.encodings import UTF_8, Survey

HEADING = "\ue000"
"""Stands before each heading until the text is made of the page; of no language."""
_CHARSET = re.compile(rb"(?:charset|encoding)\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE)
_AROUND = ("nav", "header", "footer", "aside", "[role=navigation]", "[role=banner]",
           "[role=contentinfo]", "[role=search]", "[aria-hidden=true]", "template", "dialog",
           ".navheader", ".navfooter")  # fmt: skip
_PAGE_ALONE = ("nav", "template")
_LEAST_SHARE = 0.25
"""Share of a page's text that its <main> or only <article> must have to stand for the page."""


def extract(file: BinaryIO, name: str, budget: Budget, depth: int) -> Iterator[Part]:
    """The main part of a page; see ``Extract``."""
    data = file.read()
    budget.take(len(data))
    yield from page_parts(decoded(data), whole=False)


def page_parts(html: str, *, whole: bool) -> Iterator[Part]:
    """The parts of a page.

    Args:
        html: the page.
        whole: all of it, as of a book; else what surrounds the main part is left out.
    """
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    tree: Any = HTMLTree.parse(html.replace(HEADING, ""))
    if tree.body is None:
        return
    name_cells(tree)
    main = None if whole else _main(tree.body)
    # Footnotes and headings of an article may stand in a header or footer of its own.
    skipped = list(_AROUND if not whole and main is None else _PAGE_ALONE)
    for heading in elements(tree.body, ("h1", "h2", "h3")):
        mark = tree.create_text_node(HEADING)
        if heading.first_child is None:
            heading.append_child(mark)
        else:
            heading.insert_before(mark, heading.first_child)
    wanted = tree if main is None else HTMLTree.parse(main.html)
    text = extract_plain_text(wanted, skip_elements=skipped, links=False, noscript=False)
    yield from under_headings(text)


def under_headings(text: str) -> Iterator[Part]:
    """The text, a chapter at each line that begins with ``HEADING``."""
    first, *rest = text.split(HEADING)
    if first.strip():
        yield Text(first.lstrip("\n"))
    for piece in rest:
        title = piece.partition("\n")[0].strip()
        if title:
            yield Chapter(title)
        yield Text(piece)
    yield Text("\n")


def _main(body: Any) -> Any:
    """The one element that says it is the main part; None where there is none such."""
    every = elements(body, ("main", "article"))
    said = [element for element in every if element.tag == "main"]
    role = body.query_selector("[role=main]")
    if role is not None and not said:
        said = [role]
    for found in (said, [element for element in every if element.tag == "article"]):
        if len(found) == 1 and len(found[0].text) >= _LEAST_SHARE * len(body.text):
            return found[0]
    return None


def decoded(data: bytes) -> str:
    """A page as text, by its byte order mark, what it declares, or what its bytes seem to be."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace")
    declared = _CHARSET.search(data[:2048])
    if declared and not data.startswith(codecs.BOM_UTF8):
        try:
            return data.decode(codecs.lookup(declared[1].decode("ascii", "replace")).name, "strict")
        except (LookupError, UnicodeError, ValueError):
            pass
    survey = Survey()
    survey.push(data)
    return data.decode(survey.encoding() or UTF_8, "replace")
