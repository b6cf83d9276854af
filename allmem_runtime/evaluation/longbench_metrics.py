"""The metrics LongBench publishes for its English tasks (arXiv 2308.14508, table 1), 0 to 100.

F1, accuracy by class, retrieval, counting and code similarity follow the published definitions;
ROUGE-L is that of the package ``rouge``, which the published numbers were made with.
"""

from __future__ import annotations

import difflib
import importlib
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from allmem_runtime.evaluation.ruler_package import BenchmarkError

Metric = Callable[[str, str, Sequence[str]], float]
"""Answer, reference, all classes -> 0 to 1."""

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_NUMBER = re.compile(r"\d+")


def words(text: str) -> list[str]:
    """Lower case, without punctuation and articles, as SQuAD compares answers."""
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def f1(answer: str, reference: str, classes: Sequence[str]) -> float:
    """Harmonic mean of precision and recall over words."""
    found, right = words(answer), words(reference)
    common = sum((Counter(found) & Counter(right)).values())
    return 2 * common / (len(found) + len(right)) if common else 0.0


def rouge_l(answer: str, reference: str, classes: Sequence[str]) -> float:
    """ROUGE-L, F measure.

    Raises:
        BenchmarkError: the package ``rouge`` is missing.
    """
    try:
        scorer: Any = importlib.import_module("rouge").Rouge()
    except ImportError:
        raise BenchmarkError(
            "ROUGE-L needs the package 'rouge', which is not installed.",
            "Install it with `pip install rouge`, or leave the summaries out.",
        ) from None
    try:
        return float(scorer.get_scores([answer], [reference], avg=True)["rouge-l"]["f"])
    except (ValueError, RecursionError):
        return 0.0  # the package refuses an answer without words


def classification(answer: str, reference: str, classes: Sequence[str]) -> float:
    """One over the number of classes named, if the right one is among them."""
    named = [c for c in classes if c in answer]
    # A class that is only a part of the right one was not meant.
    named = [c for c in named if not (c in reference and c != reference)]
    return 1 / len(named) if reference in named else 0.0


def retrieval(answer: str, reference: str, classes: Sequence[str]) -> float:
    """Share of the numbers given that are the right paragraph's."""
    right = re.search(r"Paragraph (\d+)", reference)
    return _share(answer, right[1] if right else reference)


def counting(answer: str, reference: str, classes: Sequence[str]) -> float:
    """Share of the numbers given that are the right one."""
    return _share(answer, reference.strip())


def code_similarity(answer: str, reference: str, classes: Sequence[str]) -> float:
    """Similarity of the first line of code, in whole percents (difflib's ratio)."""
    lines = (line for line in answer.lstrip("\n").split("\n"))
    first = next((x for x in lines if not any(mark in x for mark in ("`", "#", "//"))), "")
    return round(100 * difflib.SequenceMatcher(None, first, reference).ratio()) / 100


METRICS: dict[str, Metric] = {
    "narrativeqa": f1, "qasper": f1, "multifieldqa_en": f1, "hotpotqa": f1, "2wikimqa": f1,
    "musique": f1, "triviaqa": f1, "gov_report": rouge_l, "qmsum": rouge_l,
    "multi_news": rouge_l, "samsum": rouge_l, "trec": classification,
    "passage_retrieval_en": retrieval, "passage_count": counting, "lcc": code_similarity,
    "repobench-p": code_similarity,
}  # fmt: skip
"""The published metric of each English task; a suffix ``_e`` stands for the same one."""

FIRST_LINE = frozenset({"trec", "triviaqa", "samsum"})
"""Tasks with examples in the prompt: what follows the first line of an answer is another one."""

NEEDS_CLASSES = frozenset({"trec"})


def _share(answer: str, right: str) -> float:
    numbers = _NUMBER.findall(answer)
    return numbers.count(right) / len(numbers) if numbers else 0.0
