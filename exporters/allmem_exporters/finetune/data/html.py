"""Extracts the readable text of an HTML page, block by block; it knows no layout."""

from __future__ import annotations

import re
from html.parser import HTMLParser

_SKIPPED = {"script", "style", "head", "nav", "footer", "noscript", "svg"}
_BLOCKS = {"p", "div", "h1", "h2", "h3", "h4", "h5", "h6", "li", "ul", "ol", "dl", "dt", "dd",
           "table", "tr", "pre", "blockquote", "section", "article", "br", "hr"}  # fmt: skip
_SPACE = re.compile(r"\s+")


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[str] = []
        self._current: list[str] = []
        self._skipped = 0
        self._literal = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _SKIPPED:
            self._skipped += 1
        if tag in _BLOCKS:
            self.flush()
        if tag == "pre":
            self._literal += 1

    def handle_endtag(self, tag: str) -> None:
        if tag in _BLOCKS:
            self.flush()
        if tag in _SKIPPED:
            self._skipped = max(0, self._skipped - 1)
        if tag == "pre":
            self._literal = max(0, self._literal - 1)

    def handle_data(self, data: str) -> None:
        if not self._skipped:
            self._current.append(data if self._literal else _SPACE.sub(" ", data))

    def flush(self) -> None:
        text = "".join(self._current)
        text = text.strip("\n").rstrip() if self._literal else _SPACE.sub(" ", text).strip()
        if text.strip():
            self.blocks.append(text)
        self._current = []


def html_to_text(page: str) -> str:
    """Its blocks with an empty line between them; preformatted text keeps its lines."""
    parser = _Text()
    parser.feed(page)
    parser.close()
    parser.flush()
    return "\n\n".join(parser.blocks)
