"""Texts are like a question where their tokens are, though no word is the same."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from allmem_runtime.passages.keeping import Text
from allmem_runtime.passages.likeness import WIDTH, Likeness
from allmem_runtime.session.kept_text import Segment

WORDS = ["", "bought", "acquired", "canary", "bird", "clerk", "ledger", "rain", "fell", "henrike"]
NEAR = {"acquired": "bought", "bird": "canary"}
"""Words whose embeddings are close to another's."""


def encode(text: str) -> list[int]:
    words = (word.strip(".,?!") for word in text.lower().split())
    return [WORDS.index(word) for word in words if word in WORDS[1:]]


@pytest.fixture
def like() -> Likeness:
    random = np.random.default_rng(3)
    table = random.standard_normal((len(WORDS), WIDTH)).astype(np.float32)
    for word, other in NEAR.items():
        at, beside = WORDS.index(word), WORDS.index(other)
        table[at] = table[beside] + 0.3 * table[at]

    def rows(tokens: NDArray[np.int64], width: int) -> NDArray[np.float32]:
        return table[tokens, :width]

    return Likeness(encode, rows, len(WORDS))


TEXTS = ["Rain fell.", "Henrike bought a canary.", "The clerk bought a ledger.", ""]


def test_other_words_for_the_same_count(like: Likeness) -> None:
    scores = like("Which bird was acquired?", TEXTS)(TEXTS)
    assert np.argmax(scores) == 1
    assert scores[3] == 0
    assert all(0 <= score <= 1 + 1e-6 for score in scores)


def test_what_few_texts_have_counts_more(like: Likeness) -> None:
    texts = ["Rain fell.", "Rain.", "Rain, rain.", "Henrike fell."]
    rare, common = like("Henrike rain", texts)(["henrike", "rain"])
    assert rare > common


def test_nothing_to_compare_scores_nothing(like: Likeness) -> None:
    assert like("?", TEXTS)(TEXTS) == [0.0] * 4
    assert like("rain", [])(["rain"]) == [0.0]
    assert like("rain", TEXTS)([]) == []


def test_kept_text_is_searched_by_likeness(like: Likeness) -> None:
    """The question's only word of the text points at the wrong passage."""
    filler = "They said this and that of one thing and another, as people do on such days. " * 12
    text = (
        f"{filler}\n\nHenrike bought a canary in town.\n\n{filler}\n\n"
        f"The clerk had no ledger for Henrike.\n\n{filler}"
    )

    def first(judge: Likeness | None) -> str:
        kept = Text(None, judge)
        at = kept.take("", Segment("a.txt", text, 0, len(text), 0, len(text) // 4))
        found = kept.find(at, "Which bird was acquired by Henrike?", (), 3, 400, len)
        assert all(one.likeness == (one.score if judge else None) for one in found)
        return found[0].text if found else ""

    assert "canary" in first(like)


def test_a_part_is_chosen_by_what_is_rare_in_the_text_and_not_among_the_few_that_fit(
    like: Likeness,
) -> None:
    """All that fit have the name; rain, which is everywhere, only one of them."""
    filler = "They said this and that of one thing and another, as people do on such days. "
    weather = f"{filler}Rain fell then. {filler * 6}\n\n"
    told = [f"{filler * 4}Henrike bought a {thing}. {filler * 2}" for thing in ("ledger", "bird")]
    both = f"Rain fell then. {filler * 4}Henrike bought a canary. {filler}"
    text = "".join(f"{weather * 4}{part}\n\n" for part in (*told, both, ""))
    kept = Text(None, like)
    at = kept.take("", Segment("a.txt", text, 0, len(text), 0, len(text) // 4))

    (found,) = kept.find(at, "What did Henrike do when rain fell?", (), 1, 110, len)

    assert found.sentence == "Henrike bought a canary."
    assert found.sentence in found.text


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("whole", [False, True], ids=["one element", "a row"])
def test_embedding_that_is_not_finite_spoils_no_other_score(
    like: Likeness, odd: float, whole: bool
) -> None:
    sound = like._rows
    bad = WORDS.index("rain")

    def rows(tokens: NDArray[np.int64], width: int) -> NDArray[np.float32]:
        found = sound(tokens, width).copy()
        found[tokens == bad, : None if whole else 1] = odd
        return found

    spoiled = Likeness(encode, rows, len(WORDS))
    scores = spoiled("Which bird was acquired?", TEXTS)(TEXTS)
    assert np.isfinite(scores).all() and np.argmax(scores) == 1
