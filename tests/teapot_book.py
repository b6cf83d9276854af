"""A book that hides one fact among look-alike days, and what the tests that ask for it share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from session_tools import read

from allmem_runtime import Model, Session
from allmem_runtime.session import finding, writing
from allmem_runtime.session.prompts import Prompt, prompts

FILLER = "".join(
    f"The wind turned on day {day} and {day} gulls sat on the wall. Nothing else was seen.\n\n"
    for day in range(1, 60)
)
SENTENCE = "Mrs. Quell hid the spare key inside the blue teapot."
BOOK = f"{FILLER}{SENTENCE}\n\n{FILLER}"
TWO = BOOK + "Mrs. Quell never told anybody about the key.\n\n" + FILLER
QUESTION = "Where did Mrs. Quell hide the key?"


@pytest.fixture(autouse=True)
def room(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the toy model needs to answer from passages.

    It takes a token for each letter, so its window holds no passage. Nor is it a judge of what a
    question is about, so no prompt without passages is read to compare them with.
    """

    def without_bare(*given: object, bare: bool) -> list[Prompt]:
        return prompts(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(finding, "PASSAGES_SHARE", 20)
    monkeypatch.setattr(finding, "prompts", without_bare)


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch, toy: Model) -> Callable[[str], None]:
    """Make the model write a given text and then its end token."""

    def script(answer: str) -> None:
        tokens = iter([*toy.tokenizer.encode_text(answer), *[2] * 1000])
        monkeypatch.setattr(writing, "pick", lambda *_: next(tokens))

    return script


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """The book as a file."""
    path = tmp_path / "book.txt"
    path.write_text(BOOK)
    return path


def text_of(model: Model, tokens: list[int]) -> str:
    """What tokens say, control tokens included."""
    return str(model.tokenizer._template.decode(tokens, skip_special_tokens=False))


def reader(toy: Model) -> Session:
    """A session that has read the book and keeps its text."""
    return read(toy.session(text=True), BOOK, name="book.txt")
