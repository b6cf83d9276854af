"""A fork keeps the text that it had read, whatever becomes of its session, and the other way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from passage_tools import Reader
from session_tools import read
from teapot_book import QUESTION, SENTENCE, room

from allmem_runtime import Model, Session
from allmem_runtime.errors import PassagesBusyError
from allmem_runtime.passages.keeping import Text

__all__ = ["room"]

STORY = "".join(
    f"On day {day} the keeper of the lighthouse counted {day * 7} ships. The wind was fair.\n\n"
    for day in range(1, 60)
)
REST = f"{SENTENCE}\n\n{STORY}"


@pytest.fixture(params=["in a temporary file", "beside a session file"])
def text(request: pytest.FixtureRequest, tmp_path: Path) -> Text:
    return Text(None if "temporary" in request.param else tmp_path / "s.allmem.passages")


def whole(reader: Reader) -> str:
    return "".join(row.text for row in reader.text.rows(reader.at))


def fork_of(reader: Reader) -> Reader:
    fork = Reader(reader.text.fork(), reader.at)
    fork.token = reader.token
    return fork


def go_back(reader: Reader, at: str = "", token: int = 0) -> None:
    reader.at, reader.token = at, token


def test_fork_keeps_what_its_session_goes_back_from(text: Text) -> None:
    reader = Reader(text)
    reader.read(STORY)
    before = reader.at, reader.token
    reader.read(REST, "rest.txt")
    fork = fork_of(reader)
    later = fork_of(fork)
    later.read("The last.", "last.txt")

    go_back(reader, *before)
    reader.read("Something else.", "else.txt")

    assert whole(reader) == STORY + "Something else."
    assert whole(fork) == STORY + REST
    assert whole(later) == STORY + REST + "The last."
    fork.read("And more.", "more.txt")
    assert whole(fork) == STORY + REST + "And more."


def test_fork_keeps_what_its_session_has_read_before_a_reset(text: Text) -> None:
    reader = Reader(text)
    reader.read(STORY)
    fork = fork_of(reader)
    go_back(reader)
    reader.read("All new.")
    assert whole(reader) == "All new."
    assert whole(fork) == STORY


def test_fork_keeps_its_text_when_its_session_is_closed_and_the_other_way(text: Text) -> None:
    reader = Reader(text)
    reader.read(STORY)
    fork, other = fork_of(reader), fork_of(reader)
    fork.text.close()
    assert whole(reader) == STORY
    reader.text.close()
    assert whole(other) == STORY


def test_fork_keeps_its_text_when_that_of_its_session_is_saved(text: Text, tmp_path: Path) -> None:
    reader = Reader(text)
    reader.read(STORY)
    fork = fork_of(reader)
    reader.text.save(reader.at, tmp_path / "s.allmem")
    reader.read(REST, "rest.txt")
    reader.text.save(reader.at, tmp_path / "s.allmem")
    assert whole(fork) == STORY
    assert whole(Reader(Text.beside(tmp_path / "s.allmem", reader.at), reader.at)) == STORY + REST


def test_session_keeps_its_text_when_a_fork_is_saved_in_its_place(tmp_path: Path) -> None:
    path = tmp_path / "s.allmem"
    reader = Reader(Text(path.with_name("s.allmem.passages")))
    reader.read(STORY)
    fork = fork_of(reader)
    fork.read("What the fork alone has read.", "fork.txt")
    reader.read(REST, "rest.txt")

    fork.text.save(fork.at, path)

    assert whole(reader) == STORY + REST
    reader.read("More.", "more.txt")
    assert whole(reader) == STORY + REST + "More."
    own = STORY + "What the fork alone has read."
    assert whole(Reader(Text.beside(path, fork.at), fork.at)) == own


def test_nothing_is_copied_where_no_fork_is_left(text: Text) -> None:
    reader = Reader(text)
    reader.read(STORY)
    fork_of(reader)
    store = reader.text._store
    go_back(reader)
    reader.read("All new.")
    assert reader.text._store is store


@pytest.mark.parametrize("leave", [Session.rollback, Session.reset])
def test_fork_answers_from_its_text_though_its_session_reads_something_else(
    toy: Model, leave: Callable[[Session], None]
) -> None:
    session = toy.session(text=True)
    read(session, STORY)
    session.checkpoint()
    read(session, REST, name="rest.txt")
    fork = session.fork()
    leave(session)
    read(session, "The zeppelin landed in Bergen.\n", name="else.txt")

    (passage, *_) = session.answer("Where did the zeppelin land?").passages
    assert "Bergen" in passage.sentence
    (passage, *_) = fork.answer(QUESTION).passages
    assert passage.sentence == SENTENCE
    assert str(passage.sentence_place) == "rest.txt:1"
    assert fork.text_failure == ""


def test_fork_knows_that_the_text_of_its_session_may_be_sound(toy: Model) -> None:
    session = toy.session(text=True)
    session.lose_text(PassagesBusyError("The text is locked."))
    fork = session.fork()
    assert (fork.text_failure, fork.text_busy) == ("The text is locked.", True)
