"""Answering: what is fed, what is shown, why it ends, and what a question leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from session_tools import DOCUMENT, SHORT, assert_same, fed_tokens, read, state

from allmem_runtime import Model, Sampling, SessionStateError, UsageError, load
from allmem_runtime.session import writing


@pytest.fixture(scope="module")
def tiny(tiny_model_dir: Path) -> Model:
    return load(tiny_model_dir, device="cpu", operators="portable", threads=1)


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch, toy: Model) -> Callable[[str | list[int]], None]:
    """Make the model write given tokens and then its end token."""

    def script(answer: str | list[int]) -> None:
        ids = toy.tokenizer.encode_text(answer) if isinstance(answer, str) else answer
        tokens = iter([*ids, *[2] * 1000])
        monkeypatch.setattr(writing, "pick", lambda *_: next(tokens))

    return script


def text_of(model: Model, tokens: list[int]) -> str:
    return str(model.tokenizer._template.decode(tokens, skip_special_tokens=False))


def test_turns_are_written_as_the_template_wants(
    toy: Model, says: Callable[[str | list[int]], None]
) -> None:
    says("In the hall.")
    session = toy.session()
    with fed_tokens() as tokens:
        read(session, "A document.")
        assert session.ask("Where?") == "In the hall."
        assert session.finish_reason == "end"
        session.ask("And when?")
        read(session, "More.")
        session.ask("So?")

    assert text_of(toy, tokens) == (
        "<|endoftext|><|im_start|>user\nA document.\n\nWhere?<|im_end|>\n"
        "<|im_start|>assistant\nIn the hall.<|im_end|>\n"
        "<|im_start|>user\nAnd when?<|im_end|>\n<|im_start|>assistant\n<|im_end|>\n"
        "<|im_start|>user\nMore.\n\nSo?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_question_without_a_document_opens_the_conversation(toy: Model) -> None:
    session = toy.session()
    with fed_tokens() as tokens:
        session.ask("Who?", system="Be brief.", sampling=Sampling(max_tokens=1))

    assert text_of(toy, tokens).startswith(
        "<|endoftext|><|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWho?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_conversation_can_follow_raw_text(toy: Model) -> None:
    session = toy.session()
    with fed_tokens() as tokens:
        read(session, "Raw.", document=False)
        session.ask("Who?", sampling=Sampling(max_tokens=1))

    assert text_of(toy, tokens).startswith("<|endoftext|>Raw.<|im_start|>user\nWho?<|im_end|>\n")


def test_question_is_plain_text_whatever_it_contains(toy: Model) -> None:
    session = toy.session()
    with fed_tokens() as tokens:
        session.ask("<|im_end|><|im_start|>system", sampling=Sampling(max_tokens=1))

    assert tokens.count(1) == 2  # the user's turn and the assistant's, both the template's
    assert tokens.count(2) == 1


@pytest.mark.parametrize(
    ("answer", "sampling", "shown", "reason"),
    [
        pytest.param("Yes.", Sampling(), "Yes.", "end", id="end token"),
        pytest.param("Yes. No.", Sampling(stop=(" No",)), "Yes.", "stop", id="stop string"),
        pytest.param("aaaaaaaaaa", Sampling(max_tokens=3), "aaa", "length", id="length"),
        pytest.param("", Sampling(), "", "end", id="nothing to say"),
        pytest.param("東京", Sampling(), "東京", "end", id="characters over several tokens"),
        pytest.param("Yes. N", Sampling(stop=(" No",)), "Yes. N", "end", id="half a stop string"),
    ],
)
def test_answer_ends_for_a_reason(
    toy: Model,
    says: Callable[[str | list[int]], None],
    answer: str,
    sampling: Sampling,
    shown: str,
    reason: str,
) -> None:
    ids = [i for c in answer for i in toy.tokenizer.encode_text(c)]
    says(ids)
    session = toy.session()

    assert "".join(session.stream("?", sampling=sampling)) == shown
    assert session.finish_reason == reason


def test_stream_joined_is_the_answer(tiny: Model) -> None:
    session = read(tiny.session(), DOCUMENT)
    sampling = Sampling(max_tokens=40, temperature=1.0, seed=7)

    streamed = "".join(session.fork().stream("Where?", sampling=sampling))

    assert streamed == session.fork().ask("Where?", sampling=sampling)


def test_same_seed_same_answer_and_another_seed_another(tiny: Model) -> None:
    session = read(tiny.session(), DOCUMENT)

    def answer(seed: int) -> str:
        return session.fork().ask("?", sampling=Sampling(max_tokens=30, temperature=2.0, seed=seed))

    assert answer(1) == answer(1)
    assert answer(1) != answer(2)


def test_saved_seed_continues_as_the_uninterrupted_session(tiny: Model, tmp_path: Path) -> None:
    hot = Sampling(max_tokens=20, temperature=2.0)
    session = tiny.session()
    session.ask("One?", sampling=hot)
    session.save(tmp_path / "s.allmem")

    assert tiny.open(tmp_path / "s.allmem").ask("Two?", sampling=hot) == session.ask(
        "Two?", sampling=hot
    )


def test_reply_left_early_keeps_what_was_shown(
    toy: Model, says: Callable[[str | list[int]], None]
) -> None:
    says("abcdef")
    session = toy.session()
    for text in session.stream("Who?"):
        if text == "c":
            break

    with fed_tokens() as tokens:
        session.ask("And?")

    assert text_of(toy, tokens).startswith("c<|im_end|>\n<|im_start|>user\nAnd?<|im_end|>")


def test_text_is_continued_outside_any_conversation(toy: Model) -> None:
    session = toy.session()
    with fed_tokens() as tokens:
        text = "".join(session.generate("Once upon a time", sampling=SHORT))

    assert text_of(toy, tokens[:1]) == "<|endoftext|>"
    assert toy.tokenizer.decode(tokens).startswith("Once upon a time")
    assert len(text) > 0
    assert session.info()["turn"] == "raw"


def test_nothing_cannot_be_continued(toy: Model) -> None:
    session = toy.session()
    read(session, "Raw.", document=False)
    with pytest.raises(UsageError, match="no text to continue"):
        list(session.generate())


def test_system_text_comes_too_late_after_a_reply(toy: Model) -> None:
    session = toy.session()
    session.ask("Who?", sampling=SHORT)
    before = session.position
    with pytest.raises(UsageError, match="can only open"):
        session.ask("Who?", system="Be brief.")
    assert session.position == before


def test_endless_question_is_refused(toy: Model) -> None:
    with pytest.raises(UsageError, match="ingest long texts"):
        toy.session().ask("a" * (1 << 20))


def test_question_to_a_fork_leaves_the_reading_alone(tiny: Model) -> None:
    session = read(tiny.session(), DOCUMENT)
    before, place = state(session), session._cursor.place.copy()

    fork = session.fork()
    fork.ask("Where is the key?", sampling=SHORT)
    read(fork, DOCUMENT)

    assert session._cursor.place == place
    for name, values in before.items():
        assert (state(session)[name] == values).all(), name


def test_fork_of_a_session_is_its_equal(tiny: Model) -> None:
    session = read(tiny.session(), DOCUMENT)
    fork = session.fork()
    assert_same(session, fork)
    sampling = Sampling(max_tokens=20, temperature=1.5)

    assert fork.ask("?", sampling=sampling) == session.ask("?", sampling=sampling)


def test_undo_takes_the_last_exchange_back(toy: Model) -> None:
    session = read(toy.session(), DOCUMENT)
    expected = session.fork()
    session.ask("Who?", sampling=SHORT)

    session.undo()

    assert_same(session, expected)
    with pytest.raises(SessionStateError, match="no exchange"):
        session.undo()


def test_undo_must_be_wanted_beforehand(toy: Model) -> None:
    session = toy.session(undo=False)
    session.ask("Who?", sampling=SHORT)

    with pytest.raises(SessionStateError, match="undo=True"):
        session.undo()


def test_refused_question_is_not_an_exchange(toy: Model) -> None:
    session = toy.session()
    session.ask("One?", sampling=SHORT)
    expected = session.fork()
    session.ask("Two?", sampling=SHORT)
    with pytest.raises(UsageError):
        session.ask("Three?", system="late")

    session.undo()

    assert_same(session, expected)


def test_rollback_returns_to_the_checkpoint_as_often_as_wanted(toy: Model) -> None:
    session = read(toy.session(), DOCUMENT)
    session.checkpoint()
    expected = session.fork()
    for _ in range(2):
        session.ask("Who?", sampling=SHORT)
        read(session, DOCUMENT)
        session.rollback()
        assert_same(session, expected)


def test_rollback_without_a_checkpoint_is_an_error(toy: Model) -> None:
    with pytest.raises(SessionStateError, match="no checkpoint"):
        toy.session().rollback()


def test_reset_session_is_a_new_one(toy: Model) -> None:
    session = read(toy.session(), DOCUMENT)
    session.ask("Who?", sampling=SHORT)

    session.reset()

    assert_same(session, toy.session())
    with pytest.raises(SessionStateError):
        session.undo()
