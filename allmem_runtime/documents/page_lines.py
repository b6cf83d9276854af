"""What printing puts into a text: lines at the edge of each page, words broken at line ends."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator

_NUMBERS = re.compile(r"\d+|\b[ivxlcdm]+\b", re.IGNORECASE)
_BROKEN = re.compile(r"(\w+)(?:[\ufffe\x02\u00ad]\s*|[-\u2010]\n)(?=([^\W\d_]\w*))")
_HYPHENATED = re.compile(r"\w+-\w+")

AROUND = 2
"""Pages on either side that are looked at: headings of left and right pages may differ."""
EDGE = 2
"""Lines at the top and at the bottom of a page that may be of that kind."""
_MOST_WORDS = 50_000

Numbered = tuple[int, list[str]]


class RunningLines:
    """Takes the lines away that stand at the edge of several pages; the first of each stays.

    Lines that differ in their numbers alone count as the same; those of numbers alone go wholly.
    """

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def without(self, pages: Iterable[Numbered]) -> Iterator[Numbered]:
        """The pages without such lines; a few pages are held back."""
        window: deque[Numbered] = deque()
        edges: deque[set[str]] = deque()
        ahead = 0  # pages of the window that were not given out
        for number, lines in pages:
            lines = [line for line in lines if line.strip()]
            window.append((number, lines))
            edges.append(_edges(lines))
            ahead += 1
            if ahead > AROUND:
                yield self._page(window, edges, len(window) - ahead)
                ahead -= 1
            if len(window) - ahead > AROUND:
                window.popleft()
                edges.popleft()
        while ahead:
            yield self._page(window, edges, len(window) - ahead)
            ahead -= 1

    def _page(self, window: deque[Numbered], edges: deque[set[str]], at: int) -> Numbered:
        number, lines = window[at]
        near = [edges[i] for i in range(max(0, at - AROUND), min(len(edges), at + AROUND + 1))
                if i != at]  # fmt: skip
        kept = []
        for index, line in enumerate(lines):
            form = _form(line, _side(index, len(lines)))
            if form and any(form in other for other in near):
                if form in self._seen or not form[1:].strip("# -–|/."):
                    continue
                self._seen.add(form)
            kept.append(line)
        return number, kept


def _edges(lines: list[str]) -> set[str]:
    forms = (_form(line, _side(index, len(lines))) for index, line in enumerate(lines))
    return {form for form in forms if form}


def _side(index: int, count: int) -> str:
    if index < EDGE:
        return "<"
    return ">" if index >= count - EDGE else ""


def _form(line: str, side: str) -> str:
    """A line without its numbers, behind the edge it stands at; empty within a page."""
    return side + " ".join(_NUMBERS.sub("#", line).split()) if side else ""


class Words:
    """Joins words that were broken at line ends; a hyphen stays where the document writes it so."""

    def __init__(self) -> None:
        self._hyphenated: set[str] = set()

    def joined(self, lines: list[str]) -> str:
        """The lines of a page as one text."""
        text = "\n".join(line.rstrip() for line in lines).strip("\n")
        if len(self._hyphenated) < _MOST_WORDS:
            self._hyphenated.update(word.lower() for word in _HYPHENATED.findall(text))
        return _BROKEN.sub(self._whole, text)

    def _whole(self, match: re.Match[str]) -> str:
        before, after = match[1], match[2]
        if f"{before}-{after}".lower() in self._hyphenated:
            return f"{before}-"
        soft = match[0][len(before)] == "\u00ad"
        prose = before[-1:].islower() and after[:1].islower()
        return before if soft or prose else f"{before}-"
