"""Pages and chapters of what was read: kept, proved, and absent from texts of earlier versions."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from allmem_runtime.errors import PassagesError
from allmem_runtime.passages.keeping import Text
from allmem_runtime.passages.schema import beside
from allmem_runtime.session.kept_text import Segment
from allmem_runtime.text.places import Landmark, TextPlace, landmarks_of

NAMES = ("", "Nadezhda", "Ottokar", "Brunhild", "Casimir")
RIVER = "The river went round the mill. " * 20


def story_of(page: int) -> str:
    return f"{RIVER}{NAMES[page]} has the keys of the boathouse. ".ljust(SIZE)


SIZE = 680


class Marks:
    """Landmarks of a source by bytes."""

    def __init__(self, *marks: Landmark) -> None:
        self._marks = marks

    def within(self, first: int, end: int) -> list[Landmark]:
        return [mark for mark in self._marks if first <= mark.at < end]


def taken(text: Text, at: str, first: int, page: int) -> str:
    mark = Landmark(0, page, "Keys")
    story = story_of(page)
    piece = Segment("a.pdf", story, first, first + SIZE, first, SIZE, False, (mark,))
    return text.take(at, piece)


def saved(folder: Path, pages: int = 3) -> tuple[Path, str]:
    session, at = folder / "s.allmem", ""
    text = Text.beside(session, "")
    for page in range(1, pages + 1):
        at = taken(text, at, (page - 1) * SIZE, page)
    text.save(at, session)
    text.close()
    return session, at


def pages(text: Text, at: str) -> list[int]:
    """The page that is told of each name that is found."""
    told = []
    for name in NAMES[1:]:
        found = text.find(at, f"What has {name}?", (), 1, 9000, len)
        told += [passage.sentence_place.page for passage in found if name in passage.sentence]
    return told


def change(session: Path, *statements: str) -> None:
    connection = sqlite3.connect(beside(session))
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def test_pages_are_found_again_after_saving(tmp_path: Path) -> None:
    session, at = saved(tmp_path)
    assert pages(Text.beside(session, at), at) == [1, 2, 3]


def test_fork_on_top_of_another_text_keeps_the_pages_of_both(tmp_path: Path) -> None:
    session, at = saved(tmp_path)
    fork = Text.beside(session, at).fork()
    further = taken(fork, at, 3 * SIZE, 4)
    assert pages(fork, further) == [1, 2, 3, 4]
    fork.save(further, tmp_path / "t.allmem")
    assert pages(Text.beside(tmp_path / "t.allmem", further), further) == [1, 2, 3, 4]


def test_text_that_was_taken_back_loses_the_pages_behind(tmp_path: Path) -> None:
    text = Text.beside(tmp_path / "s.allmem", "")
    first = taken(text, "", 0, 1)
    taken(text, first, SIZE, 2)
    other = taken(text, first, SIZE, 4)
    assert pages(text, other) == [1, 4]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE region SET page = 9 WHERE page = 2",
        "UPDATE region SET chapter = 'Other' WHERE page = 2",
        "DELETE FROM region WHERE page = 3",
        "INSERT INTO region VALUES (1, 5, 8, '')",
    ],
)
def test_changed_pages_are_refused(tmp_path: Path, statement: str) -> None:
    session, at = saved(tmp_path)
    change(session, statement)
    with pytest.raises(PassagesError, match="changed, or belongs to another"):
        Text.beside(session, at)


def test_texts_of_earlier_versions_are_read_and_added_to_without_pages(tmp_path: Path) -> None:
    session = tmp_path / "s.allmem"
    text = Text.beside(session, "")
    at = text.take("", Segment("a.txt", story_of(1), 0, SIZE, 0, SIZE))
    text.save(at, session)
    text.close()
    change(session, "DROP TABLE region", "PRAGMA user_version = 2")
    old = Text.beside(session, at)
    at = taken(old, at, SIZE, 2)
    fork = old.fork()
    further = taken(fork, at, 2 * SIZE, 3)
    fork.save(further, tmp_path / "t.allmem")
    assert pages(Text.beside(tmp_path / "t.allmem", further), further) == [0, 0, 0]


def test_landmarks_of_bytes_are_told_by_characters() -> None:
    marks = Marks(Landmark(10, 1, ""), Landmark(14, 2, "é"))
    assert landmarks_of("éé and", 10, 18, marks) == (Landmark(0, 1, ""), Landmark(2, 2, "é"))
    assert landmarks_of("text", 0, 4, None) == ()


@pytest.mark.parametrize(
    ("page", "chapter", "said"),
    [(0, "", "a.pdf:7"), (12, "", "a.pdf, page 12"), (0, "Keys", "a.pdf, Keys"),
     (2, "b.pdf", "a.pdf, b.pdf, page 2")],
)  # fmt: skip
def test_place_is_told_by_what_is_known_of_it(page: int, chapter: str, said: str) -> None:
    assert str(TextPlace("a.pdf", 7, 0, 0, page, chapter)) == said
