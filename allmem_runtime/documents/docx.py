"""DOCX by Mammoth, which makes a page of it: headings, paragraphs, lists, tables and notes."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import BinaryIO

from allmem_runtime.documents.html import page_parts
from allmem_runtime.documents.parts import Part, Refused

_CELL = re.compile(r"(<t[dh][^>]*>)<p>((?:(?!</?p>).)*)</p>(?=</t[dh]>)", re.DOTALL)
"""A cell of one paragraph, which is to stay in the line of its row."""


def extract(file: BinaryIO) -> Iterator[Part]:
    """The document; pictures and macros are not looked at."""
    import defusedxml
    import mammoth
    from defusedxml import DefusedXmlException

    defusedxml.defuse_stdlib()  # Mammoth reads XML with the standard library
    file.seek(0)
    try:
        page = mammoth.convert_to_html(
            io.BytesIO(file.read()),  # without the name of a file, beside which it could look
            convert_image=mammoth.images.img_element(lambda image: {"src": ""}),
            external_file_access=False,
        )
    except DefusedXmlException:
        raise Refused("declares entities, which are not read") from None
    text = _CELL.sub(r"\1\2", page.value)
    yield from page_parts(f"<html><body>{text}</body></html>", whole=True)
