"""What counts as a right answer, and counts with their standard errors."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from allmem_runtime.evaluation.numbers import Mean
from allmem_runtime.passages.scripts import grams

_STEM = 5
"""Letters of an accepted answer that may go on, as words do in other forms."""


def is_right(answer: str, accepted: Sequence[str]) -> bool:
    """Whether any accepted answer stands in an answer, at word boundaries, in any case.

    A number is not right within a longer one: 12 is neither in 120 nor in 12.5 or 3,12. An accepted
    answer of five letters or more may be the beginning of a word, so that "divorce" is in
    "divorced".
    """
    said = _plain(answer)
    return any(_stands(_plain(text), said) for text in accepted)


def _stands(text: str, said: str) -> bool:
    if not text:
        return False
    if grams(text):  # a script without spaces has no boundaries to look for
        return text in said
    begin = r"(?<!\w)" + (r"(?<!\d[.,])" if text[0].isdigit() else "") if _wordy(text[0]) else ""
    if len(text) >= _STEM and text[-1].isalpha():
        return re.search(begin + re.escape(text), said) is not None
    end = r"(?!\w)" + (r"(?![.,]\d)" if text[-1].isdigit() else "") if _wordy(text[-1]) else ""
    return re.search(begin + re.escape(text) + end, said) is not None


def _wordy(character: str) -> bool:
    return re.match(r"\w", character) is not None


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def share(flags: Sequence[bool]) -> Mean:
    """The share of flags that are set, with its binomial standard error."""
    count = len(flags)
    value = sum(flags) / count if count else math.nan
    return Mean(value, math.sqrt(value * (1 - value) / count) if count else None, count)


def ratio(over: Sequence[bool], under: Sequence[bool]) -> Mean | None:
    """How many are right in one row for each that is right in another; None where none is.

    The error is that of a ratio of means of the same questions, by the delta method.
    """
    count, base = len(under), sum(under)
    if not base:
        return None
    value = sum(over) / base
    if count == 1:
        return Mean(value, None, 1)
    spread = sum((o - value * u) ** 2 for o, u in zip(over, under, strict=True))
    return Mean(value, math.sqrt(spread * count / (count - 1)) / base, count)


def quantile(values: Sequence[float], part: float) -> float:
    """The least value that this part of the values does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]
