"""Passages on the command line: the places of an answer, in text, as events and in the chat."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import SHORT, Command
from session_tools import fed_tokens
from teapot_book import QUESTION, SENTENCE, book, room
from toy_fixtures import toy_dir

from allmem_runtime import Passage, Sampling, load
from allmem_runtime.cli.conversation import Conversation
from allmem_runtime.cli.reading import caught_up
from allmem_runtime.cli.signals import Interrupts
from allmem_runtime.text.pause import PAUSE

__all__ = ["book", "room", "toy_dir"]


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
