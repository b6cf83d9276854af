"""Passages on the command line: places of an answer, what is kept where, and what goes wrong."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
from pathlib import Path

import pytest
from commands import Command
from session_tools import fed_tokens
from toy_fixtures import toy_dir

from allmem_runtime import Passage, PassagesError, Sampling, load
from allmem_runtime.cli.conversation import Conversation
from allmem_runtime.cli.reading import caught_up
from allmem_runtime.cli.signals import Interrupts
from allmem_runtime.files.header import read_header
from allmem_runtime.passages import schema
from allmem_runtime.passages.schema import beside
from allmem_runtime.passages.store import Store
from allmem_runtime.session import session as session_module
from allmem_runtime.text.pause import PAUSE

__all__ = ["toy_dir"]

FILLER = "".join(
    f"The wind turned on day {day} and {day} gulls sat on the wall. Nothing else was seen.\n\n"
    for day in range(1, 60)
)
SENTENCE = "Mrs. Quell hid the spare key inside the blue teapot."
QUESTION = "Where did Mrs. Quell hide the key?"
SHORT = ("--device", "cpu", "--threads", "1", "--operators", "portable", "--max-tokens", "2")


@pytest.fixture(autouse=True)
def room(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy model takes a token for each letter, so its window holds no passage."""
    monkeypatch.setattr(session_module, "PASSAGES_SHARE", 20)


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "book.txt"
    path.write_text(f"{FILLER}{SENTENCE}\n\n{FILLER}")
    return path


def test_places_are_told_after_the_answer(command: Command, toy_dir: Path, book: Path) -> None:
    with fed_tokens() as tokens:
        result = command("allmem-run", toy_dir, book, "--prompt", QUESTION, *SHORT)
    assert result.code == 0
    assert f"\n  book.txt:119  {SENTENCE}\n" in result.err
    assert "teapot" not in result.out
    with fed_tokens() as alone:
        command("allmem-run", toy_dir, book, "--prompt", QUESTION, "--passages", 0, *SHORT)
    assert len(tokens) > len(alone) + 100
    assert [path.name for path in book.parent.iterdir()] == ["book.txt"]


def test_meter_tells_after_the_reading_what_is_held(
    command: Command, toy_dir: Path, book: Path
) -> None:
    counts = "".join(f"On this day the keeper counted {n}{n}0 ships.\n\n" for n in range(61, 90))
    book.write_text(book.read_text() + counts)
    result = command("allmem-run", toy_dir, book, "--prompt", QUESTION, "--meter", *SHORT)
    told = result.err.index("From its state alone, it told ")
    assert result.err.index("tokens back") < told < result.err.index(f"> {QUESTION}")
    plain = command("allmem-run", toy_dir, book, "--prompt", QUESTION, *SHORT)
    assert (result.out, "From its state" in plain.err) == (plain.out, False)
    (event,) = command("allmem-run", toy_dir, book, "--prompt", QUESTION, "--meter", "--json",
                       *SHORT).of("recall")  # fmt: skip
    assert event["sentence"] in result.err.replace("\n", " ")
    assert sum(row["probes"] for row in event["rows"]) > 0


def test_meter_without_a_text_says_why_there_is_nothing(
    command: Command, toy_dir: Path, book: Path
) -> None:
    asked = ["--prompt", QUESTION, "--meter", *SHORT]
    result = command("allmem-run", toy_dir, "-", *asked, stdin=book.read_bytes())
    assert result.code == 0
    assert "Nothing is metered" in result.err
    for flag, hint in (("--no-text", "--no-text keeps none"), ("--quiet", "--quiet leaves out")):
        refused = command("allmem-run", toy_dir, book, *asked, flag)
        assert refused.code == 2
        assert hint in refused.err


def test_signs_that_steer_a_terminal_are_not_told(
    command: Command, toy_dir: Path, book: Path
) -> None:
    steering = "Mrs. Quell hid \u202ethe spare\x1b[2J key\x07 inside \x9b31mthe blue teapot."
    book.write_text(book.read_text().replace(SENTENCE, steering))
    result = command("allmem-run", toy_dir, book, "--prompt", QUESTION, *SHORT)
    assert "  book.txt:119  Mrs. Quell hid " in result.err and "blue teapot.\n" in result.err
    assert not set("\x1b\x07\x9b\u202e") & set(result.err)


def test_json_carries_the_passages(command: Command, toy_dir: Path, book: Path) -> None:
    result = command(
        "allmem-run", toy_dir, book, "--prompt", QUESTION, "--passages", 1, "--json", *SHORT
    )
    (answer,) = result.of("answer")
    (passage,) = answer["passages"]
    assert passage["sentence"] == SENTENCE
    place = passage["sentence_place"]
    assert (place["source"], place["line"]) == ("book.txt", 119)
    text = book.read_text()
    assert text[place["character"] :].startswith(SENTENCE)
    assert text[passage["place"]["character"] :].startswith(passage["text"])
    assert 0 < passage["place"]["token"] <= place["token"] < answer["position"]
    assert passage["score"] > 0 and passage["tokens"] > 0


@pytest.mark.parametrize("question", ["What is this about?", "Which enzymes split lactose?"])
def test_where_nothing_fits_the_state_alone_answers_and_says_so(
    command: Command, toy_dir: Path, book: Path, question: str
) -> None:
    arguments = (toy_dir, book, "--prompt", question, *SHORT)
    result = command("allmem-run", *arguments)
    assert "(answered from the state alone)" in result.err
    assert result.out == command("allmem-run", *arguments, "--no-text").out
    assert command("allmem-run", *arguments, "--json").of("answer")[0]["passages"] == []


def test_text_lies_beside_the_session_and_is_found_after_resuming(
    command: Command, toy_dir: Path, book: Path
) -> None:
    session = book.parent / "s.allmem"
    command("allmem-run", toy_dir, book, "--session", session, *SHORT)
    assert stat.S_IMODE(beside(session).stat().st_mode) == 0o600

    result = command("allmem-run", toy_dir, "--session", session, "--prompt", QUESTION, *SHORT)
    assert f"book.txt:119  {SENTENCE}" in result.err

    more = book.with_name("more.txt")
    more.write_text("Old Mr. Lind sold the boat to a dentist.")
    result = command(
        "allmem-run", toy_dir, book, more, "--session", session,
        "--prompt", "To whom did Mr. Lind sell the boat?", "--prompt", QUESTION, *SHORT,
    )  # fmt: skip
    assert "more.txt:1  Old Mr. Lind sold the boat to a dentist." in result.err
    assert f"book.txt:119  {SENTENCE}" in result.err


def test_no_text_keeps_none(command: Command, toy_dir: Path, book: Path) -> None:
    session = book.parent / "s.allmem"
    result = command(
        "allmem-run", toy_dir, book, "--session", session, "--prompt", QUESTION, "--no-text", *SHORT
    )
    assert not beside(session).exists()
    assert "book.txt:119" not in result.err
    assert "state alone" not in result.err
    # Begun without, it goes on without.
    result = command("allmem-run", toy_dir, "--session", session, "--prompt", QUESTION, *SHORT)
    assert not beside(session).exists()
    assert json.loads(command("allmem", "info", session, "--json").out)["text"] is None


def test_without_a_file_and_a_session_no_text_is_kept(
    command: Command, toy_dir: Path, book: Path
) -> None:
    result = command(
        "allmem-run", toy_dir, "-", "--prompt", QUESTION, "--json", *SHORT,
        stdin=book.read_bytes(),
    )  # fmt: skip
    assert result.of("answer")[0]["passages"] == []


def test_live_source_is_searched_up_to_its_last_segment(
    command: Command, toy_dir: Path, book: Path
) -> None:
    session = book.parent / "s.allmem"
    result = command(
        "allmem-run", toy_dir, "--stream", "--session", session, "--prompt", QUESTION, "--json",
        *SHORT, stdin=book.read_bytes(),
    )  # fmt: skip
    passages = result.of("answer")[-1]["passages"]
    assert SENTENCE in passages[0]["text"]
    assert passages[0]["place"]["source"] == "standard input"


def test_what_still_waits_at_a_pause_has_the_name_of_its_source(toy_dir: Path) -> None:
    model = load(toy_dir, device="cpu", operators="portable", threads=1)
    session = model.session(text=True)
    steps = session.ingest([f"{SENTENCE}\n".encode(), PAUSE, b"More."], name="standard input")
    assert next(steps).paused
    with Interrupts() as interrupts:
        fork = caught_up(session, interrupts, "standard input")
    found = fork.find_passages(QUESTION)
    assert [str(passage.sentence_place) for passage in found] == ["standard input:1"]


def test_info_tells_the_text(command: Command, toy_dir: Path, book: Path) -> None:
    session = book.parent / "s.allmem"
    command("allmem-run", toy_dir, book, "--session", session, *SHORT)
    info = json.loads(command("allmem", "info", session, "--json").out)["text"]
    assert info["path"] == str(beside(session))
    assert info["bytes"] == beside(session).stat().st_size
    assert info["characters"] == len(book.read_text())
    assert info["sources"] == ["book.txt"]
    assert "s.allmem.passages" in command("allmem", "info", session).out
    beside(session).unlink()
    assert "No such file" in command("allmem", "info", session).out


def test_fork_copies_the_text(command: Command, toy_dir: Path, book: Path) -> None:
    session, fork = book.parent / "s.allmem", book.parent / "fork.allmem"
    command("allmem-run", toy_dir, book, "--session", session, *SHORT)
    assert command("allmem", "fork", session, "--as", fork).code == 0
    assert stat.S_IMODE(beside(fork).stat().st_mode) == 0o600
    session.unlink()
    beside(session).unlink()
    result = command("allmem-run", toy_dir, "--session", fork, "--prompt", QUESTION, *SHORT)
    assert f"book.txt:119  {SENTENCE}" in result.err


def test_fork_of_a_session_without_its_text_is_told(
    command: Command, toy_dir: Path, book: Path
) -> None:
    session, fork = book.parent / "s.allmem", book.parent / "fork.allmem"
    command("allmem-run", toy_dir, book, "--session", session, *SHORT)
    beside(session).unlink()
    result = command("allmem", "fork", session, "--as", fork)
    assert result.code == 0
    assert "s.allmem.passages cannot be read" in result.err
    assert fork.exists()


def test_fork_of_a_damaged_session_leaves_no_text(
    command: Command, toy_dir: Path, book: Path
) -> None:
    session, fork = book.parent / "s.allmem", book.parent / "fork.allmem"
    command("allmem-run", toy_dir, book, "--session", session, *SHORT)
    with session.open("r+b") as file:
        file.seek(-3, os.SEEK_END)
        file.write(b"\xff\xff\xff")
    assert command("allmem", "fork", session, "--as", fork).code == 1
    assert not fork.exists()
    assert not beside(fork).exists()


def test_tampered_text_is_told_and_the_state_answers(
    command: Command, toy_dir: Path, book: Path
) -> None:
    session = book.parent / "s.allmem"
    command("allmem-run", toy_dir, book, "--session", session, *SHORT)
    content = beside(session).read_bytes()
    assert b"blue teapot" in content
    beside(session).write_bytes(content.replace(b"blue teapot", b"red kettles"))
    result = command("allmem-run", toy_dir, "--session", session, "--prompt", QUESTION, *SHORT)
    assert result.code == 0 and result.out
    assert "was changed, or belongs to another session" in result.err
    assert "kettles" not in result.err
    result = command(
        "allmem-run", toy_dir, "--session", session, "--prompt", QUESTION, "--json", *SHORT
    )
    assert len(result.of("text_failure")) == 1


def test_session_that_reads_on_without_its_text_says_so_and_forgets_it(
    command: Command, toy_dir: Path, book: Path
) -> None:
    session, more = book.parent / "s.allmem", book.with_name("more.txt")
    command("allmem-run", toy_dir, book, "--session", session, *SHORT)
    beside(session).unlink()
    more.write_text("More.")
    result = command("allmem-run", toy_dir, more, "--session", session, *SHORT)
    assert result.code == 0
    assert "cannot be read" in result.err
    assert "text_digest" not in read_header(session).metadata


def test_a_file_in_the_way_is_told_and_left(command: Command, toy_dir: Path, book: Path) -> None:
    session = book.parent / "s.allmem"
    beside(session).write_text("my notes " * 30)
    result = command(
        "allmem-run", toy_dir, book, "--session", session, "--prompt", QUESTION, *SHORT
    )
    assert result.code == 0 and result.out
    assert "is in the way of the session's text" in result.err
    assert beside(session).read_text() == "my notes " * 30


def test_chat_tells_places_and_remembers_the_exchange(
    toy_dir: Path, book: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = load(toy_dir, device="cpu", operators="portable", threads=1)
    session = model.session(text=True)
    for _ in session.ingest(book.read_bytes(), name=book.name):
        pass
    lines = iter([QUESTION, "/save s.allmem", "What is this about?", "/quit"])
    target = book.parent / "s.allmem"
    Conversation(
        session.fork(undo=True), Sampling(max_tokens=2), target,
        lambda: next(lines).replace("s.allmem", str(target)), passages=2,
    ).run()  # fmt: skip
    told = capsys.readouterr().err
    assert f"  book.txt:119  {SENTENCE}" in told
    assert "(answered from the state alone)" in told
    opened = model.open(target)
    assert opened.info()["turn"] == "reply"
    assert opened.answer(QUESTION).passages


def test_chat_tells_no_places_of_an_answer_that_was_cancelled_before_its_first_word(
    toy_dir: Path, book: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = load(toy_dir, device="cpu", operators="portable", threads=1).session(text=True)
    for _ in session.ingest(book.read_bytes(), name=book.name):
        pass
    find = session.find_passages

    def found(question: str, most: int) -> list[Passage]:
        passages = find(question, most)
        session.cancel()
        return passages

    monkeypatch.setattr(session, "find_passages", found)
    lines = iter([QUESTION, "/quit"])
    Conversation(session, Sampling(max_tokens=2), None, lambda: next(lines), passages=2).run()
    assert session.passages
    assert "book.txt:" not in capsys.readouterr().err


def test_a_text_that_fails_in_the_middle_is_told_once(
    command: Command, toy_dir: Path, book: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise PassagesError("The text is locked now.")

    monkeypatch.setattr(Store, "matches", broken)
    result = command(
        "allmem-run", toy_dir, book, "--prompt", QUESTION, "--prompt", QUESTION, "--json", *SHORT
    )
    assert [event["message"] for event in result.of("text_failure")] == ["The text is locked now."]
    assert [answer["passages"] for answer in result.of("answer")] == [[], []]


def test_deleting_a_session_deletes_its_text_and_nothing_else(
    command: Command, toy_dir: Path, book: Path, tmp_path: Path
) -> None:
    session, other = tmp_path / "s.allmem", tmp_path / "other.allmem"
    for path in (session, other):
        command("allmem-run", toy_dir, book, "--session", path, *SHORT)
    before = {path.name for path in tmp_path.iterdir()}
    result = command("allmem", "delete", session)
    assert result.code == 0 and "is deleted" in result.err
    assert before - {p.name for p in tmp_path.iterdir()} == {session.name, beside(session).name}

    foreign = beside(other)
    foreign.unlink()
    foreign.write_text("somebody's notes")
    assert command("allmem", "delete", other).code == 0
    assert not other.exists() and foreign.read_text() == "somebody's notes"


def test_what_is_no_session_is_not_deleted(command: Command, book: Path, tmp_path: Path) -> None:
    for path in (book, tmp_path / "none.allmem"):
        result = command("allmem", "delete", path)
        assert result.code == 1 and path.name in result.err
    assert book.exists()


def test_a_link_to_a_session_stands_for_the_session(
    command: Command, tiny_model_dir: Path, book: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    session, link = folder / "s.allmem", tmp_path / "link.allmem"
    link.symlink_to(session)
    other = tmp_path / "other.txt"
    other.write_text("The ferry leaves at six.\n")
    for source in (book, other):
        read = command("allmem-run", tiny_model_dir, source, "--session", link, *SHORT)
        assert read.code == 0 and "state alone" not in read.err
    assert link.is_symlink()
    assert sorted(path.name for path in folder.iterdir()) == ["s.allmem", "s.allmem.passages"]
    values = json.loads(command("allmem", "info", link, "--json").out)
    assert values["text"]["sources"] == [book.name, other.name]
    assert command("allmem", "delete", link).code == 0
    assert list(folder.iterdir()) == [] and not link.is_symlink()


def test_reading_on_does_not_give_up_a_text_that_is_only_locked(
    command: Command, toy_dir: Path, book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, more = tmp_path / "s.allmem", tmp_path / "more.txt"
    more.write_text("Then it rained for a week.\n")
    command("allmem-run", toy_dir, book, "--session", session, *SHORT)
    before = session.read_bytes()
    monkeypatch.setattr(schema, "BUSY_SECONDS", 0.1)
    other = sqlite3.connect(beside(session), isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    arguments = (toy_dir, more, "--session", session, *SHORT)
    refused = command("allmem-run", *arguments)
    assert refused.code == 1 and "locked" in refused.err and "--no-text" in refused.err
    assert session.read_bytes() == before
    asked = command("allmem-run", toy_dir, "--session", session, "--prompt", QUESTION, *SHORT)
    assert asked.code == 0 and "locked" in asked.err
    other.close()

    assert command("allmem-run", *arguments).code == 0
    again = command("allmem-run", toy_dir, "--session", session, "--prompt", QUESTION, *SHORT)
    assert f"book.txt:119  {SENTENCE}" in again.err
