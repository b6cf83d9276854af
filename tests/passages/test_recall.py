"""The recall meter: probes chosen by the text alone, and honest counts of what is recalled."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from session_tools import assert_same, read

from allmem_runtime import Model, Session, UsageError
from allmem_runtime.evaluation import recall
from allmem_runtime.evaluation.recall import Recall, measure
from allmem_runtime.evaluation.recall_report import as_values, plot, sentence
from allmem_runtime.passages.keeping import Text
from allmem_runtime.passages.probes import probes
from allmem_runtime.session import finding

WORDS = [a + b + c for a in ("bal", "dor", "fen", "gil", "mur") for b in ("ti", "po", "ka", "le")
         for c in ("sum", "nax", "rib", "vot", "jeg", "hod")]  # fmt: skip
BOOK = "".join(
    f"On the evening of the {WORDS[day]} the keeper counted {1000 + 7 * day} ships from the tower. "
    f"The wind was fair and nothing else was seen.\n\n"
    for day in range(120)
)


@pytest.fixture(autouse=True)
def room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "PASSAGES_SHARE", 20)


def test_probes_are_beginnings_that_lead_to_what_occurs_once(toy: Model) -> None:
    session = read(toy.session(text=True), BOOK)
    assert isinstance(session.text, Text)
    rows = list(session.text.rows(session.text_digest))

    ranges = probes(rows, session.position, [500, 2000], 8)

    assert [len(found) for found in ranges] == [len(ranges[0]), 8, 8]
    for found, (least, most) in zip(ranges, [(0, 500), (500, 2000), (2000, 1 << 30)], strict=True):
        for probe in found:
            assert BOOK.count(probe.answer) == 1
            assert probe.before + probe.answer in BOOK
            assert least <= probe.distance <= most
            exact = len(toy.tokenizer.encode_text(BOOK[BOOK.index(probe.answer) :]))
            assert abs(probe.distance - exact) < 100
    depths = [probe.distance for probe in ranges[2]]
    assert depths == sorted(depths, reverse=True)
    assert max(depths) > 0.8 * session.position


def test_what_occurs_twice_is_no_probe(toy: Model) -> None:
    session = read(toy.session(text=True), BOOK + BOOK)
    assert isinstance(session.text, Text)
    rows = list(session.text.rows(session.text_digest))
    assert probes(rows, session.position, [500], 8) == [[], []]


def test_meter_counts_what_is_written_and_leaves_the_session(
    toy: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that copies what it has read within a thousand characters."""
    heard: dict[int, str] = {}
    ingest = Session.ingest

    def hearing(self: Session, source: str, **options: object):  # type: ignore[no-untyped-def]
        heard[id(self)] = source
        return ingest(self, source, **options)

    def copying(self: Session, text: str, **_: object):  # type: ignore[no-untyped-def]
        known = BOOK[-1000:] + heard.get(id(self), "")
        number = re.search(re.escape(text.strip()) + r" (\d+) ships", known)
        yield f" {number[1]} ships" if number else "?"

    session = read(toy.session(text=True), BOOK)
    before = session.fork()
    monkeypatch.setattr(recall, "_edges", lambda *_: [300, 2000])
    monkeypatch.setattr(Session, "ingest", hearing)
    monkeypatch.setattr(Session, "generate", copying)

    rows = list(measure(session, 5, 1))

    assert [(row.least, row.most) for row in rows] == [(0, 300), (300, 2000), (2000, None)]
    assert rows[0].state == rows[0].passages == rows[0].probes > 0
    assert rows[1].state < rows[1].passages == 5
    assert (rows[2].probes, rows[2].state, rows[2].passages) == (5, 0, 5)
    assert_same(session, before)


def test_shares_have_their_standard_errors() -> None:
    rows = [Recall(0, 900, 20, 17, 20), Recall(900, None, 20, 1, 19)]
    near, far = as_values(rows)
    assert near["state_share"] == 0.85
    assert near["state_error"] == pytest.approx((0.85 * 0.15 / 20) ** 0.5)
    assert far["passages_share"] == 0.95
    assert sentence(rows) == (
        "From its state alone, it told 17 of 20 (85 ± 8 %) of what it read up to 900 tokens back, "
        "and 1 of 20 (5 ± 5 %) of what lies farther; with passages 39 of 40 (98 ± 2 %) of all."
    )
    assert "0 of 0 of what lies farther" in sentence(rows[:1])
    assert as_values([Recall(0, 900, 0, 0, 0)])[0]["state_share"] is None


def test_without_its_text_there_is_nothing_to_ask_for(toy: Model) -> None:
    with pytest.raises(UsageError, match="not kept"):
        list(measure(read(toy.session(), BOOK), 5, 1))


def test_command_tells_a_curve_and_a_sentence(
    toy: Model, toy_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from allmem_runtime.cli.recall import recall as command

    path = tmp_path / "s.allmem"
    read(toy.session(text=path), BOOK).save(path)
    flags = ["--probes", "2", "--device", "cpu", "--operators", "portable", "--threads", "1"]
    command.main([str(toy_dir), str(path), *flags], standalone_mode=False)
    lines = capsys.readouterr().out.splitlines()
    assert "of what it read up to 57 tokens back" in lines[-1]
    command.main([str(toy_dir), str(path), *flags, "--json"], standalone_mode=False)
    values = json.loads(capsys.readouterr().out)
    assert len(values["rows"]) == len(lines) - 2
    assert values["sentence"] == lines[-1]
    pictured = [*flags, "--plot", str(tmp_path / "recall.png")]
    command.main([str(toy_dir), str(path), *pictured], standalone_mode=False)
    assert (tmp_path / "recall.png").read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.splitlines() == lines
    path.with_name("s.allmem.passages").unlink()
    with pytest.raises(UsageError, match="not kept"):
        command.main([str(toy_dir), str(path), *flags], standalone_mode=False)
    assert capsys.readouterr().out == ""


def test_picture_leaves_out_ranges_without_a_probe(tmp_path: Path) -> None:
    path = tmp_path / "recall.svg"
    plot(
        [Recall(0, 900, 20, 17, 20), Recall(900, 3600, 0, 0, 0), Recall(3600, None, 4, 0, 4)], path
    )
    assert path.read_text().count("probes") >= 1
    assert "900 to 3,600" not in path.read_text()
