"""PDF by PDFium: the text of each page in the order it is drawn, which is the order of reading."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any, BinaryIO

from allmem_runtime.documents.page_lines import RunningLines, Words
from allmem_runtime.documents.parts import Budget, Note, Page, Part, Refused, Text
from allmem_runtime.documents.pdf_fields import Fields

AT_ONCE = 200
"""Pages after which the document is opened anew: PDFium keeps all that it has met of one."""
_RANGES = 8
"""Most ranges of pages without text that are told."""


def extract(file: BinaryIO, name: str, budget: Budget, depth: int) -> Iterator[Part]:
    """The pages of a PDF document; see ``Extract``."""
    blank: list[int] = []
    words, fields = Words(), Fields()
    count = 0
    for number, lines in RunningLines().without(_pages(file, fields)):
        count += 1
        if text := "\n".join(filter(None, (words.joined(lines), *fields.of(number)))):
            yield Page(number)
            yield Text(text + ("\n\n" if text[-1] in ".!?:" else "\n"))
        else:
            blank.append(number)
    if blank and len(blank) < count:
        yield Note(f"no text on {_listed(blank)}")


def _pages(file: BinaryIO, fields: Fields) -> Iterator[tuple[int, list[str]]]:
    """The lines of each page with its number."""
    first, count = 0, 1
    while first < count:
        with closing(_opened(file)) as document:
            environment = fields.environment(document)
            count = len(document)
            for index in range(first, min(first + AT_ONCE, count)):
                yield index + 1, _text(document, index, fields, environment).splitlines()
        first += AT_ONCE


def _opened(file: BinaryIO) -> Any:
    import pypdfium2

    file.seek(0)
    try:
        return pypdfium2.PdfDocument(file)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            raise Refused("is encrypted", "Save it without its password first.") from None
        raise Refused("is damaged, or no whole PDF document") from None


def _text(document: Any, index: int, fields: Fields, environment: Any) -> str:
    import pypdfium2

    try:
        page = document[index]
    except pypdfium2.PdfiumError:
        return ""
    try:
        fields.look(index + 1, page, environment)
        text = page.get_textpage()
        try:
            return str(text.get_text_range())
        finally:
            text.close()
    except pypdfium2.PdfiumError:
        return ""
    finally:
        page.close()


def _listed(pages: list[int]) -> str:
    """Numbers of pages, those that follow each other as a range."""
    ranges: list[list[int]] = []
    for page in pages:
        if ranges and ranges[-1][-1] == page - 1:
            ranges[-1][1:] = [page]
        else:
            ranges.append([page])
    told = ["–".join(map(str, pair)) for pair in ranges[:_RANGES]]
    more = f" and {len(ranges) - _RANGES} more places" if len(ranges) > _RANGES else ""
    return f"page{'s' if len(pages) > 1 else ''} {', '.join(told)}{more}"
