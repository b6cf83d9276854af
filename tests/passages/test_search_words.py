"""A question in another language than the text's is looked up by what the model makes of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from session_tools import SHORT, fed_tokens, read
from teapot_book import BOOK, QUESTION, SENTENCE, room, text_of

from allmem_runtime import Answer, Model
from allmem_runtime.session import writing
from allmem_runtime.session.search_words import language_of

__all__ = ["room"]

ASKED = "Wo liegt dieser Schlüssel?"

Translates = Callable[[str], None]


@pytest.fixture
def translates(toy: Model, monkeypatch: pytest.MonkeyPatch) -> Translates:
    """Make the model write one thing first, and then that it does not know."""

    def script(translation: str) -> None:
        encode = toy.tokenizer.encode_text
        tokens = iter([*encode(translation)[:24], *[2] * (len(translation) < 24),
                       *encode("Aha."), *[2] * 1000])  # fmt: skip
        monkeypatch.setattr(writing, "pick", lambda *_: next(tokens))

    return script


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (BOOK, "English"),
        ("Der Wind kam von der See, und die Möwen saßen auf der Mauer.", "German"),
        ("Le vent venait de la mer et les mouettes étaient sur le mur.", "French"),
        ("El viento venía del mar y las gaviotas se posaban en el muro.", "Spanish"),
        ("Ветер дул с моря, и чайки сидели на стене.", "Russian"),
        ("风从海上吹来，海鸥停在墙上。", "Chinese"),
        ("風が海から吹き、カモメは壁の上にいた。", "Japanese"),
        ("바람이 바다에서 불어오고 갈매기들이 벽에 앉았다.", "Korean"),
        ("Quartz lynx vex bjorg fjord", ""),
        ("", ""),
    ],
)
def test_the_language_of_a_text_is_told_by_its_commonest_words_or_script(
    text: str, language: str
) -> None:
    assert language_of(text) == language


def test_a_question_in_another_language_finds_passages_by_its_translation(
    toy: Model, translates: Translates
) -> None:
    session = read(toy.session(text=True), BOOK)
    translates("Quell hid the key")
    with fed_tokens() as tokens:
        answer = session.answer(ASKED)
        assert answer.passages == ()
        assert answer.text == "Aha."
    assert answer.passages[0].sentence == SENTENCE
    read_again = text_of(toy, tokens)
    assert f"Translate this question into English: {ASKED}" in read_again
    assert f"\n\n{ASKED} Answer from the text above" in read_again

    translates("Quell hid the key")
    assert session.ask(ASKED, passages=3) == "Aha."
    assert session.passages[0].sentence == SENTENCE


def test_where_the_translation_finds_nothing_the_state_alone_answers(
    toy: Model, translates: Translates
) -> None:
    session = read(toy.session(text=True), BOOK)
    translates("Zebras?")
    answer = session.answer(ASKED)
    assert (answer.text, answer.passages) == ("Aha.", ())
    translates("Zebras?")
    assert session.ask(ASKED, passages=3) == "Aha."


@pytest.mark.parametrize(
    ("question", "passages"),
    [(QUESTION, 3), ("What is this about?", 3), ("Which enzymes of it?", 3), (ASKED, 0)],
)
def test_nothing_is_translated_where_it_would_not_help(
    toy: Model, question: str, passages: int
) -> None:
    session = read(toy.session(text=True), BOOK)
    with fed_tokens() as tokens:
        assert session.answer(question, passages=passages, sampling=SHORT).text is not None
        assert session.ask(question, passages=passages, sampling=SHORT) is not None
    assert "Translate" not in text_of(toy, tokens)


def test_nothing_is_translated_where_no_text_is_kept_or_its_language_is_unknown(
    toy: Model,
) -> None:
    for session in (
        read(toy.session(), BOOK),
        read(toy.session(text=True), "Quartz lynx vex bjorg fjord. " * 50),
    ):
        with fed_tokens() as tokens:
            assert session.answer(ASKED, sampling=SHORT).text is not None
        assert "Translate" not in text_of(toy, tokens)


def test_cancelling_ends_a_translation(toy: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    session = read(toy.session(text=True), BOOK)
    answers: list[Answer] = []

    def pick(*_: object) -> int:
        answers[0].cancel()
        return 65

    monkeypatch.setattr(writing, "pick", pick)
    answers.append(session.answer(ASKED))
    with fed_tokens() as tokens:
        assert (answers[0].text, answers[0].finish_reason) == ("", "cancelled")
    assert text_of(toy, tokens).count(ASKED) == 1
