"""A question as long as a document: its reading is shown as that of a source is."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pytest
from commands import SHORT, Command
from session_tools import fed_tokens, read
from teapot_book import BOOK, QUESTION, book, room
from toy_fixtures import toy, toy_dir

from allmem_runtime import Model, Progress, Sampling, Session
from allmem_runtime.cli import conversation, long_question
from allmem_runtime.cli.conversation import Conversation
from allmem_runtime.progress import PlainPrinter

__all__ = ["book", "room", "toy", "toy_dir"]

LONG = f"{QUESTION} " + "Tell it in verse, as the gulls would. " * 60
BRIEF = Sampling(max_tokens=3)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which every step takes longer than it takes to become impatient."""
    monkeypatch.setattr(long_question, "SHOWN_AFTER", -1.0)


def check(steps: list[Progress], before: int, tokens: int) -> None:
    """The steps of one reading, from its first piece to its last token but one."""
    size = len(LONG.encode())
    assert [step.tokens for step in steps] == sorted({step.tokens for step in steps})
    assert steps[-1].tokens == tokens
    assert all(step.position == before + step.tokens for step in steps)
    assert 0 < steps[0].source_bytes < size
    assert steps[-1].source_bytes == size
    assert len(steps) > 10


@pytest.mark.parametrize("passages", [0, 3])
def test_reading_before_an_answer_is_told_piece_by_piece(toy: Model, passages: int) -> None:
    session = read(toy.session(text=True), BOOK)
    steps: list[Progress] = []
    with fed_tokens() as tokens:
        answer = session.answer(LONG, passages=passages, sampling=BRIEF, progress=steps.append)
        before = answer.position
        next(iter(answer))
        read_before = len(tokens)
        assert bool(answer.passages) == bool(passages)
        assert answer.text
    check(steps, before, steps[-1].tokens)
    assert 0 <= read_before - steps[-1].tokens <= 4  # the last of the question, the first answer


@pytest.mark.parametrize("passages", [0, 3])
def test_a_session_tells_its_own_reading_too(toy: Model, passages: int) -> None:
    session = read(toy.session(text=True), BOOK)
    before = session.position
    steps: list[Progress] = []
    session.ask(LONG, passages=passages, sampling=BRIEF, progress=steps.append)
    readings = [[steps[0]]]
    for last, step in itertools.pairwise(steps):
        readings += [[]] if step.tokens < last.tokens else []
        readings[-1].append(step)
    assert len(readings) == (2 if passages else 1)
    for one in readings:
        check(one, one[0].position - one[0].tokens, one[-1].tokens)
    assert readings[-1][0].position - readings[-1][0].tokens == before
    session.ask("And why?", sampling=BRIEF)
    assert len(steps) == sum(map(len, readings))  # who is not told of this


def test_it_is_shown_like_the_reading_of_a_source(
    slow: None, command: Command, toy_dir: Path, book: Path
) -> None:
    asked = ("allmem-run", toy_dir, book, "--prompt", LONG, *SHORT)
    result = command(*asked)
    assert result.err.count("read the question   100 %") == 1
    assert result.err.index("> Where did") < result.err.index("read the question ")
    events = command(*asked, "--json").of("read")
    assert [event["source"] for event in events] == ["book.txt", "the question"]
    assert events[1]["read_bytes"] == events[1]["size"] == len(LONG)
    assert "the question" not in command(*asked, "--quiet").err


@pytest.mark.parametrize("question", [QUESTION, LONG])
def test_a_short_question_and_one_that_is_read_in_a_moment_are_not_shown(
    command: Command, toy_dir: Path, book: Path, question: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_question, "SHOWN_AFTER", 1e9 if question == LONG else -1.0)
    result = command("allmem-run", toy_dir, book, "--prompt", question, *SHORT)
    assert "the question" not in result.err


@pytest.mark.parametrize("passages", [0, 3])
def test_the_chat_shows_it_and_the_answer_keeps_its_line(
    slow: None, toy: Model, passages: int, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    session = read(toy.session(text=True), BOOK, name="book.txt")
    monkeypatch.setattr(conversation, "show", lambda text: print("ANSWER", end=""))
    lines = iter([LONG, "/quit"])
    Conversation(
        session, BRIEF, None, lambda: next(lines), passages=passages,
        printer=PlainPrinter(sys.stdout),
    ).run()  # fmt: skip
    told = capsys.readouterr().out
    assert told.startswith("reading the question ")
    assert told.count("read the question   100 %") == (2 if passages else 1)
    assert "ANSWER\n" in told
    assert "ANSWERread" not in told


def test_cancelling_ends_a_long_reading_and_what_was_shown_of_it(toy: Model) -> None:
    session: Session = read(toy.session(text=True), BOOK)
    steps: list[Progress] = []

    def told(step: Progress) -> None:
        steps.append(step)
        if len(steps) == 3:
            answer.cancel()

    answer = session.answer(LONG, sampling=BRIEF, progress=told)
    assert (answer.text, answer.finish_reason, len(steps)) == ("", "cancelled", 3)
