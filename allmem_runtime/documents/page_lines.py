"""What printing puts into a text: lines at the edge of each page, words broken at line ends."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator

_FIRST = re.compile(r"(\d{1,5}|[ivxlc]{1,7})(?=\W|$)", re.IGNORECASE)
_LAST = re.compile(
    r"(?<![\w.,])(\d{1,5}|[ivxlc]{1,7})(?=(?:\s*(?:/|of|von|de|sur|di|van)\s*\d+)?\W*$)",
    re.IGNORECASE,
)
_ROMAN = {"i": 1, "v": 5, "x": 10, "l": 50, "c": 100}
_NUMBER = "\0"
"""Stands for the number of a page, before what it differs from the count of pages by."""
MOST_OFF = 100
"""By how much the number that is printed on a page may differ from the count of pages."""
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

    Lines are the same that differ in the number of their page alone, which stands at their
    beginning or end; those of page numbers alone go wholly. Other numbers tell lines apart: those
    of days, invoices and sums are what somebody may look for.
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
            edges.append(
                {form for line, side in _edge(lines) for form in _forms(line, side, number)}
            )
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
        near: set[str] = set()
        for other in range(max(0, at - AROUND), min(len(edges), at + AROUND + 1)):
            if other != at:
                near |= edges[other]
        edge = _depth(lines)
        top = self._running(lines[:edge], "<", number, near)
        bottom = self._running(lines[::-1][:edge], ">", number, near)
        gone = {at for at, goes in enumerate(top) if goes}
        gone |= {len(lines) - 1 - at for at, goes in enumerate(bottom) if goes}
        return number, [line for index, line in enumerate(lines) if index not in gone]

    def _running(self, lines: list[str], side: str, number: int, near: set[str]) -> list[bool]:
        """Which lines go, from the edge of the page to the first that is no running line."""
        going = []
        for line in lines:
            forms = _forms(line, side, number) & near
            if not forms:
                break
            alone = any(not re.sub(r"\W|\d", "", form) for form in forms if _NUMBER in form)
            going.append(alone or not forms.isdisjoint(self._seen))
            self._seen |= forms
        return going


def _edge(lines: list[str]) -> Iterator[tuple[str, str]]:
    """The lines at the edges of a page, with the side each stands at."""
    edge = _depth(lines)
    yield from ((line, "<") for line in lines[:edge])
    yield from ((line, ">") for line in lines[len(lines) - edge :])


def _depth(lines: list[str]) -> int:
    """How many lines are an edge; of a page of a few lines, the most are its text."""
    return min(EDGE, len(lines) // 3)


def _forms(line: str, side: str, number: int) -> set[str]:
    """What a line is known by on other pages: as it is, and with the number of its page apart."""
    line = " ".join(line.split())
    forms = {side + line}
    for match in (_FIRST.match(line), _LAST.search(line)):
        if match and abs(off := _value(match[1]) - number) <= MOST_OFF:
            forms.add(f"{side}{line[: match.start(1)]}{_NUMBER}{off}{line[match.end(1) :]}")
    return forms


def _value(said: str) -> int:
    """A number in digits or Roman letters."""
    if said.isdecimal():
        return int(said)
    values = [_ROMAN[letter] for letter in said.lower()]
    return sum(
        -value if value < after else value
        for value, after in zip(values, [*values[1:], 0], strict=True)
    )


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
