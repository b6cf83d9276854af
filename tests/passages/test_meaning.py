"""What says the same in other words is found by the vectors that are kept beside the passages."""

from __future__ import annotations

import sqlite3
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from allmem_runtime.passages import meaning, ranking, schema
from allmem_runtime.passages.keeping import Text
from allmem_runtime.passages.likeness import LEAST_VOCABULARY, Likeness
from allmem_runtime.passages.meaning import SPAN, unit
from allmem_runtime.session.kept_text import Passage, Segment

FILLER = "Where the road was wet, the carts went by one after the other, as was the custom. " * 9
TOLD = (
    "The duchess had put her jewels, the pearls and the golden rings, under a loose floorboard of "
    "the mill, in a silver box."
)
QUESTION = "Where was the jewellery hidden by the noblewoman?"
STORY = f"{FILLER}\n\nA letter was hidden in town.\n\n{FILLER * 2}\n\n{TOLD}\n\n{FILLER}\n\n"


@pytest.fixture
def like() -> Likeness:
    """Knows words by chance alone: none is like another."""
    table = np.random.default_rng(3).standard_normal((LEAST_VOCABULARY, 64)).astype(np.float32)

    def encode(text: str) -> list[int]:
        return [sum(word.encode()) % LEAST_VOCABULARY for word in text.split()]

    def rows(tokens: NDArray[np.int64], width: int) -> NDArray[np.float32]:
        return table[tokens, :width]

    return Likeness(encode, rows, LEAST_VOCABULARY)


def taken(text: Text, said: str, at: str = "", first: int = 0) -> str:
    size = len(said.encode())
    return text.take(at, Segment("a.txt", said, first, first + size, first // 4, size // 4))


def found(text: Text, at: str) -> list[Passage]:
    return text.find(at, QUESTION, (), 3, 400, len)


def of_version_1(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("DROP TABLE vectors")
    connection.execute("DROP TABLE region")
    connection.execute("PRAGMA user_version = 1")
    connection.commit()
    connection.close()


def vectors(path: Path) -> list[tuple[int, str, bytes]]:
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT passage, made_by, parts FROM vectors ORDER BY 1").fetchall()
    connection.close()
    return rows


def kept(folder: Path, like: Likeness | None) -> tuple[Path, str]:
    """A session's text on disk: the session's path and where it stands."""
    session = folder / "s.allmem"
    text = Text.beside(session, "", like)
    at = taken(text, STORY)
    text.save(at, session)
    text.close()
    return session, at


def test_a_question_without_a_word_of_the_passage_finds_it(like: Likeness) -> None:
    text = Text(None, like)
    (passage,) = (p for p in found(text, taken(text, STORY)) if TOLD in p.text)
    assert passage.sentence == TOLD


@pytest.mark.parametrize(
    "question",
    ["What is this about?", "What is the main topic of the document?", "Summarize the text.",
     "Summarize it in two sentences. What is it about?", "What is the author's main point?",
     "What are the main points? Answer in one paragraph."],
)  # fmt: skip
def test_questions_about_the_whole_get_no_passage(
    like: Likeness, monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    monkeypatch.setattr(ranking, "LEAST_COSINE", -1.0)
    text = Text(None, like)
    at = taken(text, STORY + "A main road led there. " + FILLER)
    assert text.find(at, question, (), 3, 400, len) == []


def test_without_the_package_words_alone_find(
    like: Likeness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meaning, "shared", lambda: None)
    text = Text(None, like)
    passages = found(text, taken(text, STORY))
    assert passages
    assert all(TOLD not in passage.text for passage in passages)


def test_each_passage_has_its_vectors_after_more_text_cut_it_anew(tmp_path: Path) -> None:
    session = tmp_path / "s.allmem"
    text = Text.beside(session, "")
    at, size = "", 0
    for part in (STORY[:700], STORY[700:1500], STORY[1500:]):
        at = taken(text, part, at, size)
        size += len(part.encode())
        text.save(at, session)
    path = schema.beside(session)
    connection = sqlite3.connect(path)
    passages = dict(connection.execute("SELECT id, text FROM passage"))
    connection.close()
    made = meaning.shared()
    assert made is not None
    expected = [(n, meaning.TABLE, made.spans(passages[n]).tobytes()) for n in sorted(passages)]
    assert vectors(path) == expected


def test_a_text_of_the_version_before_is_read_and_added_to(tmp_path: Path, like: Likeness) -> None:
    session, at = kept(tmp_path, like)
    of_version_1(schema.beside(session))

    text = Text.beside(session, at, like)
    assert all(TOLD not in passage.text for passage in found(text, at))
    more = taken(text, f"{FILLER}\n\nThe letter was hidden in a clock.", at, len(STORY.encode()))
    text.save(more, session)
    passages = Text.beside(session, more).find(more, "Which clock?", (), 3, 400, len)
    assert any("clock" in passage.text for passage in passages)


@pytest.mark.parametrize("value", [b"", b"abc", "text", 5, 0.5, b"\x80" * 1024], ids=repr)
def test_damaged_vectors_count_for_nothing(tmp_path: Path, like: Likeness, value: object) -> None:
    session, at = kept(tmp_path, like)
    connection = sqlite3.connect(schema.beside(session))
    connection.execute("UPDATE vectors SET parts = ?", (value,))
    connection.commit()
    connection.close()
    passages = found(Text.beside(session, at, like), at)
    assert any("letter" in passage.text for passage in passages)


def test_vectors_that_are_no_texts_of_any_encoding_leave_the_text_usable(
    tmp_path: Path, like: Likeness
) -> None:
    session, at = kept(tmp_path, like)
    connection = sqlite3.connect(schema.beside(session))
    connection.execute("UPDATE vectors SET parts = CAST(x'ff' AS TEXT)")
    connection.commit()
    connection.close()
    passages = found(Text.beside(session, at, like), at)
    assert any("letter" in passage.text for passage in passages)


def test_more_vectors_than_a_passage_can_have_are_not_read(tmp_path: Path, like: Likeness) -> None:
    session, at = kept(tmp_path, like)
    path = schema.beside(session)
    connection = sqlite3.connect(path)
    connection.execute(
        "UPDATE vectors SET parts = zeroblob(64 << 20) || parts WHERE passage = "
        "(SELECT id FROM passage WHERE instr(text, 'duchess'))"
    )
    connection.commit()
    connection.close()
    text = Text.beside(session, at, like)
    tracemalloc.start()
    passages = found(text, at)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert all(TOLD not in passage.text for passage in passages)
    assert peak < 16 << 20


def test_vectors_of_passages_that_are_not_there_change_no_score(
    tmp_path: Path, like: Likeness
) -> None:
    session, at = kept(tmp_path, like)
    expected = [(p.sentence, p.score) for p in found(Text.beside(session, at, like), at)]
    made = meaning.shared()
    assert made is not None
    connection = sqlite3.connect(schema.beside(session))
    for number in (-1, 0, 10_000):
        row = (number, meaning.TABLE, made.spans(QUESTION).tobytes())
        connection.execute("INSERT INTO vectors VALUES (?, ?, ?)", row)
    connection.commit()
    connection.close()
    after = found(Text.beside(session, at, like), at)
    assert [(p.sentence, p.score) for p in after] == expected


def test_vectors_by_another_table_are_not_compared(tmp_path: Path, like: Likeness) -> None:
    session, at = kept(tmp_path, like)
    connection = sqlite3.connect(schema.beside(session))
    connection.execute("UPDATE vectors SET made_by = 'another'")
    connection.commit()
    connection.close()
    assert all(TOLD not in passage.text for passage in found(Text.beside(session, at, like), at))


def test_spans_are_whole_sentences_and_their_vectors_those_of_their_text() -> None:
    made = meaning.shared()
    assert made is not None
    first, second = "The old mill stood by the river. " * 4, "Nobody bought the pearls then. " * 4
    assert SPAN <= min(len(first), len(second)) < SPAN + 32
    spans = unit(made.spans(first + second))
    assert spans.shape == (2, made.width)
    # The tokenizer may join the space between two spans to either of them.
    assert np.all(np.sum(spans * made.of([first, second]), axis=1) > 0.99)


@pytest.mark.parametrize("text", ["", "\0", "\ud800".encode("utf-16", "surrogatepass").decode(
    "utf-16", "replace"), "👩‍🚀", "a" * 5000, " \n\t"], ids=ascii)  # fmt: skip
def test_any_text_has_a_vector_that_is_finite(text: str) -> None:
    made = meaning.shared()
    assert made is not None
    assert np.isfinite(made.of([text])).all()
    assert made.spans(text).shape[1] == made.width


def test_half_of_a_surrogate_pair_is_an_unknown_character() -> None:
    made = meaning.shared()
    assert made is not None
    assert np.array_equal(made.of(["pearls \ud83d"]), made.of(["pearls \ufffd"]))


def test_a_package_of_another_form_is_as_good_as_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Spec:
        submodule_search_locations = (str(tmp_path),)

    monkeypatch.setattr(meaning.importlib.util, "find_spec", lambda name: Spec)
    with caplog.at_level("INFO"):
        assert meaning._read_once.__wrapped__() is None
    assert str(tmp_path) in caplog.text


def test_threads_that_come_at_once_read_the_table_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read, calls = meaning.read, list[Path]()

    def slow(folder: Path) -> meaning.Meaning:
        calls.append(folder)
        time.sleep(0.05)
        return read(folder)

    monkeypatch.setattr(meaning, "read", slow)
    meaning._read_once.cache_clear()
    with ThreadPoolExecutor(4) as pool:
        made = [pool.submit(meaning.shared) for _ in range(4)]
    assert len({id(one.result()) for one in made}) == len(calls) == 1
