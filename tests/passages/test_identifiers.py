"""Names of code and logs are found by the words they are made of."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allmem_runtime.passages import meaning, schema
from allmem_runtime.passages.identifiers import inner_words, parted, spelled, words_alone
from allmem_runtime.passages.keeping import Text
from allmem_runtime.passages.likeness import Likeness
from allmem_runtime.passages.words import expressions, likeness
from allmem_runtime.session.kept_text import Segment

FILLER = "They said this and that of one thing and another, as people do on such days. " * 8
CODE = f"{FILLER}\n\nclass TidePredictor:\n    gaugeName = 'Skerrow'\n\n{FILLER}\n\n"


def taken(text: Text, said: str, at: str = "", first: int = 0) -> str:
    return text.take(at, Segment("a.py", said, first, first + len(said), first, len(said)))


def found(text: Text, at: str, question: str) -> list[str]:
    return [passage.text for passage in text.find(at, question, (), 3, 400, len)]


def of_version_3(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 3")
        connection.commit()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("MAX_RETRIES", "MAX RETRIES"),
        ("maxRetries", "max Retries"),
        ("parseHTTPResponse", "parse HTTP Response"),
        ("utf8Decoder", "utf8 Decoder"),
        ("__init__", "  init  "),
        ("größeÜbernehmen", "größe Übernehmen"),
        ("2031-10-22T04:04:04Z 0x1F NASA", "2031-10-22T04:04:04Z 0x1F NASA"),
        ("Plain words, and McAllister's.", "Plain words, and Mc Allister's."),
    ],
)
def test_words_of_a_name_stand_apart(name: str, words: str) -> None:
    assert parted(name) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            'add("--palette", default="seaGrass",\n    help=\'it is\')',
            "add palette default sea Grass help it is",
        ),
        ("Don't say “never” – it's 14.2!", "Don't say never it's 14 2"),
        ("key=value; /etc/keys/juniper.txt", "key value etc keys juniper txt"),
        ("हिन्दी में लिखा", "हिन्दी में लिखा"),
        ("他在1952年买了。", "他在1952年买了。"),
    ],
)
def test_nothing_but_words_is_left(text: str, words: str) -> None:
    assert words_alone(text) == words


def test_capitals_are_words_in_their_old_places() -> None:
    assert spelled("MAX_UPLOAD_RETRIES = 23  # see USA") == "MAX upload retries = 23  # see USA"


@given(st.text() | st.text("aZ_É9İß \n"))
def test_characters_keep_their_places(text: str) -> None:
    assert len(spelled(text)) == len(text)


def test_only_words_within_others_are_told() -> None:
    assert (
        inner_words("maxRetries = max_retries(maxRetries, HTTPError)") == "max Retries\nHTTP Error"
    )
    assert inner_words("No name at all, in 2031-10-22T04:04:04Z.") == ""


@pytest.mark.parametrize("line", ["MAX_UPLOAD_RETRIES = 23", "maxUploadRetries: 23"])
def test_a_name_holds_the_words_of_a_question(line: str) -> None:
    asked = dict.fromkeys(expressions("upload retries"), 1.0)
    assert likeness(line, asked) == len(asked)
    assert likeness(line, dict.fromkeys(expressions(line.split()[0].strip(":")), 1.0)) >= 1


def test_tokens_of_a_name_are_those_of_its_words() -> None:
    told: list[str] = []

    def encode(text: str) -> list[int]:
        told.append(text)
        return []

    Likeness(encode, lambda tokens, width: pytest.fail("nothing to compare"), 8192)(
        "maxRetries=3", []
    )
    assert told == [" max retries 3"]


def test_vector_of_a_name_is_that_of_its_words() -> None:
    made = meaning.shared()
    if made is None:
        pytest.skip("wordllama is not installed")
    name, words = made.of(["MAIL_SERVER", "mail server"])
    assert name == pytest.approx(words)


def test_words_within_a_name_are_looked_up() -> None:
    text = Text(None)
    at = taken(text, CODE)
    for question in ("Which gauge?", "What is the tide predictor?", "What is a TidePredictor?"):
        assert any("Skerrow" in passage for passage in found(text, at, question))


@pytest.mark.parametrize("asked", ["idleTimeout", "IDLE_TIMEOUT", "idle-timeout", "idle timeout"])
@pytest.mark.parametrize("told", ["idleTimeout", "IDLE_TIMEOUT", "idle-timeout", "idle.timeout"])
def test_a_name_is_found_however_it_is_spelled(told: str, asked: str) -> None:
    text = Text(None)
    at = taken(text, f"{FILLER}\n\n{told}: 95s\n\n{FILLER}\n\n")
    assert any("95s" in passage for passage in found(text, at, f"What is the {asked}?"))


def test_texts_of_the_version_before_are_read_and_added_to(tmp_path: Path) -> None:
    session = tmp_path / "s.allmem"
    text = Text.beside(session, "")
    at = taken(text, CODE)
    text.save(at, session)
    text.close()
    # What stands at the end is taken away and written anew when the text goes on.
    of_version_3(schema.beside(session))
    with closing(sqlite3.connect(schema.beside(session))) as connection:
        connection.execute("INSERT INTO words (words) VALUES ('delete-all')")
        for number, said in connection.execute("SELECT id, text FROM passage").fetchall():
            connection.execute(
                "INSERT INTO words (rowid, text, grams) VALUES (?, ?, '')", (number, said)
            )
        connection.commit()

    old = Text.beside(session, at)
    assert found(old, at, "Which gauge?") == []
    more = taken(old, f"{FILLER}\n\nlampOil = 'whale'\n\n{FILLER}", at, len(CODE))
    assert found(old, more, "What is a TidePredictor?") and found(old, more, "What is lampOil?")
    old.save(more, session)
    with closing(sqlite3.connect(schema.beside(session))) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (3,)
        (held,) = connection.execute(
            "SELECT count(*) FROM words WHERE words MATCH 'things OR thing'"
        ).fetchone()
        assert held == connection.execute("SELECT count(*) FROM passage").fetchone()[0]
