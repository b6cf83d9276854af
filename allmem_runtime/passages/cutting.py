"""Cuts a text into passages: whole sentences, paragraphs or lines, about as long as each other.

Nothing is lost: the passages of a source, one after the other, are its text. A cut is decided by
the ``LOOK`` characters since the previous cut and by nothing else, so the passages do not depend
on how the text arrived, and cutting can go on from any of them. It knows nothing of tokens.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from allmem_runtime.passages.scripts import PAIRED, TRIPLED

SHORTEST = 160
TARGET = 480
LONGEST = 800
"""Characters of a passage. About a hundred tokens each, so that three of them and a question fit
the window of a small model; the last passage of a source may be shorter. A script without spaces
takes about twice the tokens for a character, so its passages have half the length."""

LOOK = LONGEST + 40
"""Characters that decide a cut: what follows a line or a sentence tells whether it ends there."""

# What a cut costs besides its distance from TARGET, which costs 1 for TARGET characters.
_PARAGRAPH, _LINE, _SENTENCE, _WRAPPED, _CLAUSE, _SPACE, _HARD = 0.0, 0.2, 0.45, 0.9, 1.0, 1.3, 2.0
_BEFORE_HEADING, _AFTER_HEADING = -0.3, 1.2

_CUTS: tuple[tuple[re.Pattern[str], float], ...] = (
    (re.compile(r"\n(?:[ \t\r]*\n)+"), _PARAGRAPH),
    (re.compile(r"\n"), _LINE),
    (re.compile(r"[.!?…؟۔।॥]+[\"'”’»)\]]*\s+(?=\S)"), _SENTENCE),
    (re.compile(r"[。！？｡]+[」』”’）]*"), _SENTENCE),
    (re.compile(r"[,;:—]\s+|[、，；：]"), _CLAUSE),
    (re.compile(r"\s+"), _SPACE),
)
_DENSE = re.compile(f"[{PAIRED}{TRIPLED}]")
# A stop that a small letter follows, or that such a word has before it, ends an abbreviation.
_TITLE = re.compile(r"\b[A-Z][a-z]{0,2}\.$")
_HEADING = re.compile(r"#{1,6} |={3,}|-{3,}\s*$")
_ENDS_LINE = frozenset(".!?…:;{}()[]|。！？」")
_SHORT_LINE = 40


@dataclass(frozen=True, slots=True)
class Cut:
    """A passage of a source.

    Args:
        text: what it says, line ends and all.
        start: characters of the source before it.
        line: line of its first character, counted from 1.
    """

    text: str
    start: int
    line: int

    @property
    def end(self) -> int:
        """Characters of the source up to its end."""
        return self.start + len(self.text)


class Cutter:
    """Cuts the text of one source as it comes.

    Args:
        start: characters of the source before the first that will be pushed.
        line: line that character is on.
    """

    def __init__(self, start: int = 0, line: int = 1) -> None:
        self._start = start
        self._line = line
        self._buffer = ""

    @property
    def start(self) -> int:
        """Characters of the source before what is not cut yet."""
        return self._start

    @property
    def end(self) -> int:
        """Characters of the source that were pushed."""
        return self._start + len(self._buffer)

    def push(self, text: str) -> list[Cut]:
        """The passages that are certain after this text."""
        self._buffer += text
        return self._cuts(LOOK)

    def rest(self) -> list[Cut]:
        """What becomes of the text that is not cut yet if no more comes; it stays uncut."""
        start, line, buffer = self._start, self._line, self._buffer
        cuts = self._cuts(LONGEST + 1)
        if self._buffer:
            cuts.append(self._take(len(self._buffer)))
        self._start, self._line, self._buffer = start, line, buffer
        return cuts

    def _cuts(self, least: int) -> list[Cut]:
        cuts = []
        while len(self._buffer) >= least:
            cuts.append(self._take(_best_cut(self._buffer[:LOOK])))
        return cuts

    def _take(self, length: int) -> Cut:
        cut = Cut(self._buffer[:length], self._start, self._line)
        self._buffer = self._buffer[length:]
        self._start += length
        self._line += cut.text.count("\n")
        return cut


def _best_cut(text: str) -> int:
    """Length of the passage that ``text`` begins with."""
    part = 2 if len(_DENSE.findall(text)) > len(text) // 2 else 1
    shortest, target, longest = SHORTEST // part, TARGET // part, LONGEST // part
    best, least = _whole_characters(text, target), _HARD
    for pattern, cost in _CUTS:
        if cost >= least:
            break  # the patterns that follow cost more wherever they match
        for match in pattern.finditer(text, shortest - 1):
            length = match.end()
            if length > longest:
                break
            if length >= shortest and (whole := _cost(text, match, cost, length, target)) < least:
                best, least = length, whole
    return best


def _cost(text: str, match: re.Match[str], cost: float, at: int, target: int) -> float:
    """What a cut costs: by what is there, and by how far it is from the target."""
    if cost == _SENTENCE:
        if text[at : at + 1].islower() or _TITLE.search(text, max(0, at - 9), match.start() + 1):
            return _HARD
    elif cost == _LINE:
        cost = _line_cost(text, at) + _heading(text, at)
    elif cost == _PARAGRAPH:
        cost += _heading(text, at)
    return cost + abs(at - target) / target


def _line_cost(text: str, at: int) -> float:
    """What a cut between two lines costs: more within wrapped prose than in code or a table."""
    before = text.rfind("\n", 0, at - 1) + 1
    line = text[before : at - 1].rstrip()
    follows = text[at : at + 1]
    wrapped = len(line) >= _SHORT_LINE and follows.isalpha() and line[-1:] not in _ENDS_LINE
    return _WRAPPED if wrapped else _LINE


def _heading(text: str, at: int) -> float:
    """A heading belongs to what follows it."""
    if _HEADING.match(text, at):
        return _BEFORE_HEADING
    line = text[:at].rstrip().rpartition("\n")[2]
    return _AFTER_HEADING if line.startswith("#") and _HEADING.match(line) else 0.0


def _whole_characters(text: str, at: int) -> int:
    """The place, moved back so that no character is parted from its marks or joiners."""
    for place in range(at, max(at - 32, 1), -1):
        joined = (
            unicodedata.category(text[place])[0] == "M" or "\u200d" in text[place - 1 : place + 1]
        )
        if not joined:
            return place
    return at
