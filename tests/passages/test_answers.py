"""Answers with passages: what is read again, what the session knows then, what is told."""

from __future__ import annotations

import stat
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from session_tools import assert_same, fed_tokens, read

from allmem_runtime import Answer, Model, Sampling, Session
from allmem_runtime.errors import SessionStateError, UsageError
from allmem_runtime.passages.schema import beside
from allmem_runtime.session import session as session_module
from allmem_runtime.session import writing
from allmem_runtime.session.answered_from import answered_from
from allmem_runtime.session.feeding import Feeding
from allmem_runtime.session.kept_text import Passage
from allmem_runtime.session.prompts import Exchange
from allmem_runtime.session.wanted import BRIEFLY, FROM_THE_TEXT
from allmem_runtime.text.places import TextPlace

SHORT = Sampling(max_tokens=5)
FILLER = "".join(
    f"The wind turned on day {day} and {day} gulls sat on the wall. Nothing else was seen.\n\n"
    for day in range(1, 60)
)
BOOK = FILLER + "Mrs. Quell hid the spare key inside the blue teapot.\n\n" + FILLER
TWO = BOOK + "Mrs. Quell never told anybody about the key.\n\n" + FILLER
QUESTION = "Where did Mrs. Quell hide the key?"


@pytest.fixture(autouse=True)
def room(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy model takes a token for each letter, so its window holds no passage."""
    monkeypatch.setattr(session_module, "PASSAGES_SHARE", 20)


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch, toy: Model) -> Callable[[str], None]:
    """Make the model write a given text and then its end token."""

    def script(answer: str) -> None:
        tokens = iter([*toy.tokenizer.encode_text(answer), *[2] * 1000])
        monkeypatch.setattr(writing, "pick", lambda *_: next(tokens))

    return script


def text_of(model: Model, tokens: list[int]) -> str:
    return str(model.tokenizer._template.decode(tokens, skip_special_tokens=False))


def reader(toy: Model, **options: object) -> Session:
    return read(toy.session(text=True, **options), BOOK, name="book.txt")  # type: ignore[arg-type]


def likes(monkeypatch: pytest.MonkeyPatch, model: Model, words: str, much: float = 1000) -> None:
    """Make each token of a question likelier where some words stand before it."""

    def likelihood(self: Session, ids: Sequence[int], told: range) -> float:
        assert model.tokenizer.decode(ids[told.start : told.stop]) == QUESTION
        self.feed(ids[:-1])
        self._cursor.queue(ids[-1:])
        return much * len(told) * (words in text_of(model, list(ids)))

    monkeypatch.setattr(Feeding, "likelihood", likelihood)


def test_the_passage_is_all_that_was_read_before_the_question(
    toy: Model, says: Callable[[str], None]
) -> None:
    session = reader(toy)
    before = session.fork()
    says("In the teapot.")
    with fed_tokens() as tokens:
        answer = session.answer(QUESTION, passages=1)
        text = answer.text

    assert text == "In the teapot."
    assert answer.finish_reason == "end"
    (passage,) = answer.passages
    assert passage.sentence == "Mrs. Quell hid the spare key inside the blue teapot."
    assert str(passage.sentence_place) == "book.txt:119"
    assert BOOK[passage.place.character :].startswith(passage.text)
    assert passage.tokens == len(toy.tokenizer.encode_text(passage.text))
    asked = f"{passage.text.strip()}\n\n{QUESTION}{BRIEFLY}"
    said = toy.tokenizer.encode_text("In the teapot.")
    assert tokens[: -len(said)] == session._turns.question("start", asked, None)
    assert text_of(toy, tokens).endswith("<|im_start|>assistant\nIn the teapot.")
    assert answer.position == session.position + len(tokens)
    assert_same(session, before)


def test_each_passage_is_read_by_itself_and_the_likeliest_is_answered_from(
    toy: Model, says: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = read(toy.session(text=True), TWO)
    for told in ("never told", "blue teapot"):
        likes(monkeypatch, toy, told)
        says("Yes.")
        with fed_tokens() as tokens:
            written = session.answer(QUESTION)
            before = written.passages
            assert written.text == "Yes."
        assert len(before) > 1
        assert text_of(toy, tokens).count(QUESTION) == len(before)
        assert text_of(toy, tokens).count("<|im_start|>user") == 1  # what all share is read once
        assert told in written.passages[0].text
        assert sorted(map(id, written.passages)) == sorted(map(id, before))
        says("Yes.")
        asked = session.fork()
        assert asked.ask(QUESTION, passages=3) == "Yes."
        assert told in asked.passages[0].text


def test_a_question_for_several_things_is_answered_from_all_passages_together(
    toy: Model,
) -> None:
    several = "Where did Mrs. Quell hide all the keys?"
    session = read(toy.session(text=True), TWO)
    found = session.find_passages(several, 1)
    assert len(found) == 2
    with fed_tokens() as tokens:
        assert session.answer(several, passages=1, sampling=SHORT).text is not None
    said = text_of(toy, tokens)
    assert said.count(several + FROM_THE_TEXT) == 1
    assert all(passage.text.strip() in said for passage in found)
    assert len(session.find_passages(QUESTION, 1)) == 1


def test_passages_may_be_chosen_by_the_caller(toy: Model) -> None:
    session = read(toy.session(text=True), TWO)
    found = session.find_passages(QUESTION)
    assert len(found) > 1
    with fed_tokens() as tokens:
        answer = session.answer(QUESTION, passages=found[1:2], sampling=SHORT)
        assert answer.text is not None
    assert list(answer.passages) == found[1:2]
    assert found[1].text.strip() in text_of(toy, tokens)
    assert found[0].text.strip() not in text_of(toy, tokens)
    assert session.answer(QUESTION, passages=[], sampling=SHORT).passages == ()


def test_what_the_search_says_counts_where_the_question_is_about_as_likely(
    toy: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = read(toy.session(text=True), TWO)
    for told in ("never told", "blue teapot"):
        likes(monkeypatch, toy, told, much=0.01)
        answer = session.answer(QUESTION, sampling=SHORT)
        found = answer.passages
        assert found[0].score > 1.1 * found[1].score
        assert answer.text is not None
        assert answer.passages == found


def test_blank_ends_of_a_passage_are_left_out(toy: Model) -> None:
    session = read(toy.session(text=True), f"{FILLER}\n        Mrs. Quell hid the key.\n\n   \n")
    with fed_tokens() as tokens:
        assert session.answer(QUESTION, passages=1, sampling=SHORT).text is not None
    assert f"Mrs. Quell hid the key.\n\n{QUESTION}" in text_of(toy, tokens)


def test_likelihood_is_that_of_the_question_and_its_last_token_waits(toy: Model) -> None:
    ids = toy.tokenizer.encode_text("Mrs. Quell hid it. Where did Mrs. Quell hide it?" * 9)
    told = range(len(ids) - 30, len(ids) - 10)
    session = toy.session()
    found = session.likelihood(ids, told)
    assert session._cursor.place.pending == ids[-1:]
    rows = toy.session().feed(ids, "all").astype(np.float64)
    chances = np.exp(rows) / np.exp(rows).sum(axis=1, keepdims=True)
    expected = sum(np.log(chances[at - 1, ids[at]]) for at in told)
    assert found == pytest.approx(expected, rel=1e-5)
    assert toy.session().likelihood(ids[:1], range(1)) == 0


def test_passages_that_hold_different_names_are_read_together(toy: Model) -> None:
    session = read(
        toy.session(text=True),
        f"{FILLER}The code of calm-otter is 4711.\n\n{FILLER}The code of red-heron is 88.\n\n",
    )
    with fed_tokens() as tokens:
        answer = session.answer("What are the codes of calm-otter and red-heron?", sampling=SHORT)
        assert answer.text is not None
    fed = text_of(toy, tokens)
    names = [set(passage.names) & {"calm-otter", "red-heron"} for passage in answer.passages]
    assert sorted(names, key=min) == [{"calm-otter"}, {"red-heron"}]
    assert fed.count("What are the codes") == 1
    assert "4711" in fed
    assert "is 88" in fed


def test_a_long_question_is_read_with_the_best_passage_alone(toy: Model) -> None:
    session = read(toy.session(text=True), TWO)
    long = QUESTION + " Tell it in verse." * 20
    with fed_tokens() as tokens:
        answer = session.answer(long, sampling=SHORT)
        found = answer.passages
        assert len(found) > 1
        assert answer.text is not None
    assert text_of(toy, tokens).count(QUESTION) == 1
    assert answer.passages == found[:1]


def test_the_instruction_that_opened_the_conversation_counts_for_passages_too(
    toy: Model, tmp_path: Path
) -> None:
    path = tmp_path / "s.allmem"
    session = read(toy.session(text=path), BOOK, system="Speak like a pirate.")
    session.save(path)
    asked = toy.session(text=True)
    asked.ask("Who are you?", system="Speak like a pirate.", sampling=SHORT)
    read(asked, BOOK)
    for one in (session, session.fork(), toy.open(path), asked):
        with fed_tokens() as tokens:
            assert one.answer(QUESTION, passages=1, sampling=SHORT).text is not None
        assert "Speak like a pirate." in text_of(toy, tokens)
    with pytest.raises(UsageError, match="only open a conversation"):
        _ = session.answer(QUESTION, system="Speak like a parrot.").text


def test_exchanges_before_the_question_are_read_with_its_passages(
    toy: Model, says: Callable[[str], None]
) -> None:
    session = reader(toy)
    says("Old.")
    session.ask("Who is she?", passages=1)
    says("In the teapot.")
    with fed_tokens() as tokens:
        assert session.answer(QUESTION, passages=1).text is not None
    first = session._turns.question("start", "Who is she?", None)
    assert tokens[: len(first)] == first
    assert "Old.<|im_end|>" in text_of(toy, tokens)
    says("Very " * 30)
    session.ask("How old is she?", passages=1)
    with fed_tokens() as tokens:
        assert session.answer(QUESTION, passages=1).text is not None
    assert "old is she" not in text_of(toy, tokens)  # there is no room for it


def test_a_question_that_was_left_open_is_not_read_before_the_next(
    toy: Model, says: Callable[[str], None]
) -> None:
    session = reader(toy)
    says("")
    session.ask("Who is she?", passages=1)
    with fed_tokens() as tokens:
        assert session.answer(QUESTION, passages=1).text is not None
    assert "Who is she?" not in text_of(toy, tokens)


def place(text: str) -> Passage:
    where = TextPlace("book.txt", 1, 0, 0)
    return Passage(where, text, 1.0, 1, text, where)


@pytest.mark.parametrize(
    ("answer", "first"),
    [
        ("Extension 4711.", 2),
        ("Call Wren at 4711!", 2),  # all three hold Wren
        ("WREN IS AT 4712", 1),
        ("Wren", 0),  # nothing tells them apart
        ("I do not know.", 0),
        ("", 0),
        ("内線は四七一一です", 3),
    ],
)
def test_words_of_an_answer_point_at_where_it_came_from(answer: str, first: int) -> None:
    passages = [place(text) for text in (
        "Wren keeps bees.", "Wren's old extension was 4712.", "Wren has extension 4711.",
        "レンの内線は四七一一。Wren",
    )]  # fmt: skip
    found = answered_from(passages, "What is Wren's extension?", answer)
    assert found[0] is passages[first]
    assert sorted(map(id, found)) == sorted(map(id, passages))


def test_answer_is_streamed_and_then_whole(toy: Model, says: Callable[[str], None]) -> None:
    session = reader(toy)
    says("abcdef")
    answer = session.answer(QUESTION)
    first = next(iter(answer))
    assert (first, answer.finish_reason) == ("a", "")
    assert answer.text == "abcdef"
    assert list(answer) == list("abcdef")
    assert answer.finish_reason == "end"


def test_each_reader_of_an_answer_gets_all_of_it(toy: Model, says: Callable[[str], None]) -> None:
    session = reader(toy)
    says("In the blue teapot.")
    answer = session.answer(QUESTION)
    first, second = iter(answer), iter(answer)
    turns = [(next(first), next(second)) for _ in range(3)]
    assert all(one == other for one, other in turns)
    begun = "".join(one for one, _ in turns)
    assert begun + "".join(second) == begun + "".join(first) == "In the blue teapot."
    assert answer.finish_reason == "end"


def test_two_threads_may_take_one_answer(toy: Model, says: Callable[[str], None]) -> None:
    session = reader(toy)
    says("In the blue teapot.")
    answer = session.answer(QUESTION)
    with ThreadPoolExecutor(2) as threads:
        texts = list(threads.map(lambda _: answer.text, range(2)))
    assert texts == ["In the blue teapot."] * 2


def test_no_passages_ask_the_state_alone(toy: Model) -> None:
    session = reader(toy)
    for question, passages in ((QUESTION, 0), ("What is this about?", 3)):
        with fed_tokens() as tokens:
            answer = session.answer(question, passages=passages, sampling=SHORT)
            text = answer.text
        assert answer.passages == ()
        expected = session.fork()
        with fed_tokens() as alone:
            assert expected.ask(question, sampling=SHORT) == text
        assert tokens == alone


def test_spaces_that_wait_are_read_once_before_a_question_to_the_state_alone(toy: Model) -> None:
    session = reader(toy)
    session._cursor.place.lead = "   "
    with fed_tokens() as tokens:
        assert session.answer(QUESTION, passages=0, sampling=SHORT).text is not None
    expected = session.fork()
    with fed_tokens() as alone:
        assert expected.ask(QUESTION, sampling=SHORT) is not None
    assert tokens == alone


def test_a_failed_session_answers_neither_alone_nor_from_passages(toy: Model) -> None:
    session = reader(toy)
    session._cursor.failure = "it was dropped."
    for passages in (0, 1):
        with pytest.raises(SessionStateError, match="it was dropped"):
            session.answer(QUESTION, passages=passages)


def test_session_without_kept_text_answers_alone(toy: Model) -> None:
    session = read(toy.session(), BOOK)
    assert session.answer(QUESTION, sampling=SHORT).passages == ()
    assert session.text_failure == ""


def test_answer_can_be_cancelled_while_it_reads_and_while_it_writes(
    toy: Model, says: Callable[[str], None]
) -> None:
    session = reader(toy)
    answer = session.answer(QUESTION)
    answer.cancel()
    with fed_tokens() as tokens:
        assert answer.text == ""
    assert answer.finish_reason == "cancelled"
    assert len(tokens) <= session.piece

    says("abcdef")
    answer = session.answer(QUESTION)
    for text in answer:
        if text == "c":
            answer.cancel()
    assert (answer.text, answer.finish_reason) == ("abc", "cancelled")


def test_conversation_knows_the_exchange_and_not_the_passages(
    toy: Model, says: Callable[[str], None]
) -> None:
    session = reader(toy)
    before = session.fork()
    says("In the teapot.")
    with fed_tokens() as tokens:
        assert session.ask(QUESTION, passages=1) == "In the teapot."
    assert session.finish_reason == "end"

    plain = read(toy.session(), BOOK)
    says("In the teapot.")
    plain.ask(QUESTION)
    for _ in range(2):
        with session._operation("catching up"):
            list(session._cursor.feed())
        with plain._operation("catching up"):
            list(plain._cursor.feed())
    assert session.position == plain.position
    assert session._cursor.place.turn == plain._cursor.place.turn == "reply"
    assert session._cursor.place.recent == plain._cursor.place.recent
    assert "blue teapot" in text_of(toy, tokens)

    session.undo()
    assert_same(session, before)


def test_cancelled_conversation_keeps_what_was_shown(
    toy: Model, says: Callable[[str], None]
) -> None:
    session = reader(toy)
    says("abcdef")
    shown = []
    for text in session.stream(QUESTION, passages=1):
        shown.append(text)
        if text == "c":
            session.cancel()
    assert "".join(shown) == "abc"
    assert session.finish_reason == "cancelled"
    assert text_of(toy, session._cursor.place.recent + session._cursor.place.pending).endswith(
        "assistant\nabc"
    )


@pytest.mark.parametrize("passages", [0, 1])
def test_conversation_can_be_cancelled_while_passages_are_looked_for(
    toy: Model, passages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = reader(toy)
    find = session.find_passages

    def found(question: str, most: int) -> list[Passage]:
        passages = find(question, most)
        session.cancel()
        return passages

    monkeypatch.setattr(session, "find_passages", found)
    assert session.ask(QUESTION, passages=passages, sampling=SHORT) == ""
    assert session.finish_reason == "cancelled"


def test_what_is_taken_back_leaves_the_exchange_before(
    toy: Model, says: Callable[[str], None]
) -> None:
    session = reader(toy)
    for question in ("Who is Mrs. Quell?", "Who is Mr. Lind?"):
        says("I know.")
        session.checkpoint()
        session.ask(question)
    assert [exchange.question for exchange in session._earlier][-1] == "Who is Mr. Lind?"
    before = [Exchange("Who is Mrs. Quell?", "I know.")]
    session.undo()
    assert list(session._earlier) == before
    says("I know.")
    session.ask("And why?")
    session.rollback()
    assert list(session._earlier) == before
    session.reset()
    assert not session._earlier


def test_question_leans_on_the_turn_before(toy: Model, says: Callable[[str], None]) -> None:
    session = read(
        toy.session(text=True),
        FILLER
        + "Mrs. Quell keeps her boat at Ardmouth.\n\n"
        + FILLER
        + "Mr. Lind keeps his boat at Penhallow.\n\n"
        + FILLER,
    )
    says("She is old.")
    session.ask("Who is Mrs. Quell?", passages=1)
    assert "Ardmouth" in session.answer("And where is the boat?", passages=1).passages[0].text
    fork = session.fork()
    assert "Ardmouth" in fork.answer("And where is the boat?", passages=1).passages[0].text


def test_saved_session_has_its_text_beside_it(toy: Model, tmp_path: Path) -> None:
    path = tmp_path / "s.allmem"
    session = read(toy.session(text=path), BOOK, name="book.txt")
    session.save(path)
    assert stat.S_IMODE(beside(path).stat().st_mode) == 0o600

    opened = toy.open(path)

    assert opened.text_failure == ""
    assert opened.answer(QUESTION).passages == session.answer(QUESTION).passages != ()
    read(opened, "Mr. Lind sold the boat.", name="more.txt")
    opened.save(path)
    (passage, *_) = toy.open(path).answer("What did Mr. Lind sell?", passages=1).passages
    assert str(passage.place) == "more.txt:1"


def test_interrupted_reading_goes_on_in_session_and_text_alike(toy: Model, tmp_path: Path) -> None:
    path, whole = tmp_path / "s.allmem", tmp_path / "whole.allmem"
    uninterrupted = read(toy.session(text=whole), BOOK, name="book.txt")
    session = toy.session(text=path)
    for step in session.ingest(BOOK, name="book.txt"):
        if step.position > 3000:
            session.cancel()
    session.save(path)
    # It reads on and is killed after the text, before the session, was saved.
    ahead = toy.open(path)
    read(ahead, BOOK.encode()[ahead.source_offset :], name="book.txt")
    assert ahead.text is not None
    ahead.text.save(ahead.text_digest, path)

    again = toy.open(path)
    assert again.text_failure == ""
    assert again.position < ahead.position
    read(again, BOOK.encode()[again.source_offset :], name="book.txt")

    question = "On which day did 57 gulls sit on the wall?"
    assert again.answer(question).passages == uninterrupted.answer(question).passages != ()


def test_text_behind_what_was_read_has_its_place_though_another_was_read_between(
    toy: Model, tmp_path: Path
) -> None:
    path = tmp_path / "s.allmem"
    session = read(toy.session(text=path), BOOK, name="book.txt")
    known = session.source
    read(session, "Old Mr. Lind sold the boat.", name="other.txt")
    session.save(path)
    again = toy.open(path)
    read(again, "\nThe zeppelin landed in Bergen.\n", mark=known)
    again.save(path)

    opened = toy.open(path)
    assert opened.text_failure == ""
    (passage, *_) = opened.find_passages("Where did the zeppelin land?", 1)
    assert str(passage.sentence_place) == f"book.txt:{BOOK.count(chr(10)) + 2}"
    assert passage.sentence_place.character == len(BOOK) + 1
    (passage, *_) = opened.find_passages("What did Mr. Lind sell?", 1)
    assert str(passage.place) == "other.txt:1"


def test_missing_and_changed_text_is_told_and_the_state_answers(toy: Model, tmp_path: Path) -> None:
    path = tmp_path / "s.allmem"
    session = read(toy.session(text=path), BOOK)
    session.save(path)
    file = beside(path)
    content = file.read_bytes()
    for broken in (None, content.replace(b"blue teapot", b"red teapots"), content[:4096], b"x"):
        file.unlink()
        if broken is not None:
            file.write_bytes(broken)
        opened = toy.open(path)
        assert file.name in opened.text_failure
        assert opened.answer(QUESTION, sampling=SHORT).passages == ()
        file.write_bytes(content)
    # What it knew of its text is saved with it: the right file still fits.
    opened.save(path)
    assert toy.open(path).answer(QUESTION, passages=1).passages != ()


def test_reading_on_without_the_text_ends_it(toy: Model, tmp_path: Path) -> None:
    path = tmp_path / "s.allmem"
    read(toy.session(text=path), BOOK).save(path)
    opened = toy.open(path, text=False)
    read(opened, "More.")
    opened.save(path)
    opened = toy.open(path)
    assert (opened.text_digest, opened.text) == ("", None)


def test_text_that_cannot_be_written_ends_no_reading(
    toy: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.allmem"
    beside(path).write_text("some notes of mine, no text of a session; " * 4)
    session = read(toy.session(text=path), BOOK, name="book.txt")
    assert "in the way" in session.text_failure
    session.save(path)
    assert_same(toy.open(path), read(toy.session(), BOOK, name="book.txt"))
    assert session.answer(QUESTION, sampling=SHORT).passages == ()


def test_state_is_the_same_with_and_without_the_text(toy: Model) -> None:
    kept = reader(toy)
    assert kept.text_digest
    kept._cursor.place.text = ""
    assert_same(kept, read(toy.session(), BOOK, name="book.txt"))


def test_answer_and_passage_are_public(toy: Model) -> None:
    answer = reader(toy).answer(QUESTION)
    assert isinstance(answer, Answer)


@pytest.mark.parametrize("question", ["", " ", "\n", "\0", "?", "\u202e", "\x1b[2J"])
def test_a_question_without_a_word_is_answered_by_the_state_alone(
    toy: Model, question: str
) -> None:
    session = reader(toy)
    answer = session.answer(question, sampling=SHORT)
    assert answer.passages == ()
    assert isinstance(answer.text, str)
    assert session.text_failure == ""
