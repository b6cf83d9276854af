"""Lists of word stems in several languages, and which words of a text they stand for."""

from __future__ import annotations

import re
from collections.abc import Iterable

_SHORTEST_STEM = 5
_WORD = re.compile(r"\w+")


def stemmed(text: str, stems: Iterable[str]) -> frozenset[str]:
    """The words of a text that begin with a stem, in lower case.

    A stem of five letters or more stands for all its forms, a shorter one for itself. One of a
    script without capitals, most of which put no spaces between words, may stand anywhere; the stem
    is returned then.

    Args:
        text: in any case.
        stems: in lower case.
    """
    stems, text = tuple(stems), text.casefold()
    anywhere = {stem for stem in stems if stem.upper() == stem.lower() and stem in text}
    long = tuple(stem for stem in stems if len(stem) >= _SHORTEST_STEM)
    words = {w for w in _WORD.findall(text) if w in stems or w.startswith(long)}
    return frozenset(words | anywhere)
