"""What `--meter` tells of how much the state still holds."""

from __future__ import annotations

from pathlib import Path

from commands import SHORT, Command
from teapot_book import QUESTION, book, room
from toy_fixtures import toy_dir

__all__ = ["book", "room", "toy_dir"]


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
