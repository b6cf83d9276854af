"""Which of the passages that were read again an answer came from, by its own words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from allmem_runtime.session.kept_text import Passage

_WORD = re.compile(r"\w+")


def answered_from(passages: Sequence[Passage], question: str, answer: str) -> tuple[Passage, ...]:
    """The passages with the one that an answer came from first.

    A word of the answer that the question does not have points at the passages that hold it: to one
    alone in full, to each of two by half, and to all alike not at all. Where the words do not tell,
    the order stays as it is.

    Args:
        passages: what was read again, the best first.
        question: of the user.
        answer: as far as it was written.
    """
    texts = [_words(passage.text) for passage in passages]
    holders = Counter(word for words in texts for word in words)
    told = _words(answer) - _words(question)
    scores = [
        sum(1 / holders[word] for word in told & words if holders[word] < len(texts))
        for words in texts
    ]
    order = sorted(range(len(texts)), key=lambda number: -scores[number])
    return tuple(passages[number] for number in order)


def _words(text: str) -> set[str]:
    """Words without capitals; pairs of letters in scripts without, since some have no spaces."""
    found: set[str] = set()
    for word in _WORD.findall(text.casefold()):
        if word.upper() == word and not word.isascii():
            found.update(word[at : at + 2] for at in range(max(1, len(word) - 1)))
        else:
            found.add(word)
    return found
