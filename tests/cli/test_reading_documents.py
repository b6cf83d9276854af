"""Documents and folders as sources of a command: what is read, what is told, and the places."""

from __future__ import annotations

import io
import os
from pathlib import Path

import document_samples as samples
import pytest
from commands import SHORT, Command
from toy_fixtures import toy_dir as toy_dir

from allmem_runtime.cli.opening import open_sources
from allmem_runtime.documents import opening
from allmem_runtime.documents.extraction import INSTALL, MissingLibraryError
from allmem_runtime.documents.kinds import Kind
from allmem_runtime.errors import SourceError

KEYS = "Nadezhda has the keys of the boathouse."
QUESTION = "Who has the keys of the boathouse?"
FILLER = [f"On day {n} the river went round the old mill, and it rained." for n in range(30)]


def library(folder: Path) -> Path:
    notes = folder / "notes"
    (notes / "deep").mkdir(parents=True)
    (notes / "deep" / "report.pdf").write_bytes(samples.pdf([FILLER, [*FILLER[:10], KEYS], FILLER]))
    (notes / "a.md").write_text("The mill was sold in May.\n")
    (notes / "b.png").write_bytes(b"\x89PNG\r\n" + bytes(99))
    (notes / "c.pdf").write_bytes(samples.encrypted_pdf())
    (notes / ".hidden").write_text("nothing")
    os.symlink(notes, notes / "loop")
    return notes


def test_answer_names_the_page_of_a_document_in_a_folder(
    command: Command, toy_dir: Path, tmp_path: Path
) -> None:
    notes, session = library(tmp_path), tmp_path / "s.allmem"
    said = command(
        "allmem-run", toy_dir, notes, "--session", session, "--prompt", QUESTION, *SHORT
    ).err
    assert f"  deep/report.pdf, page 2  {KEYS}" in said
    assert "Left out: b.png is a picture" in said and "Left out: c.pdf is encrypted." in said
    assert "loop is a link to a folder" in said and "hidden" not in said

    (place,) = [
        passage["sentence_place"]
        for passage in command(
            "allmem-run", toy_dir, "--session", session, "--prompt", QUESTION, "--json", *SHORT
        ).of("answer")[0]["passages"]
        if KEYS in passage["text"]
    ]
    assert (place["source"], place["page"]) == ("deep/report.pdf", 2)


def test_of_a_folder_what_is_new_or_changed_is_read(
    command: Command, toy_dir: Path, tmp_path: Path
) -> None:
    notes, session = library(tmp_path), tmp_path / "s.allmem"
    arguments = ("allmem-run", toy_dir, notes, "--session", session, "--json", "--prompt", "Hm?")
    assert command(*arguments, *SHORT).code == 0
    (notes / "a.md").write_text("It was not sold after all.\n")
    (notes / "new.html").write_bytes(samples.page("<h1>Fish</h1><p>They are gone.</p>"))
    result = command(*arguments, *SHORT)
    states = {each["source"]: each["state"] for each in result.of("sources")[0]["sources"]}
    assert states == {"a.md": "changed", "deep/report.pdf": "unchanged", "new.html": "new"}
    assert command(*arguments, *SHORT).of("sources")[0]["sources"][0]["state"] == "unchanged"


def test_a_pattern_stands_for_files_and_one_that_fits_none_is_told(
    command: Command, toy_dir: Path, tmp_path: Path
) -> None:
    notes = library(tmp_path)
    result = command("allmem-run", toy_dir, f"{notes}/**/*.md", "--prompt", "Hm?", *SHORT)
    assert result.code == 0 and "read a.md" in result.err
    result = command("allmem-run", toy_dir, f"{notes}/*.epub", "--prompt", "Hm?", *SHORT)
    assert result.code == 1 and "No file fits" in result.err


def test_files_of_one_name_are_called_by_their_folders(tmp_path: Path) -> None:
    paths = [tmp_path / "May" / "a.md", tmp_path / "June" / "a.md", tmp_path / "June" / "b.md"]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"It is {path}.")
    for names in ([f"{tmp_path}/*/*.md"], [f"{tmp_path}/June", f"{tmp_path}/May/*"],
                  [*map(str, paths), str(paths[0])]):  # fmt: skip
        found = open_sources(names, io.BytesIO(), None, print)
        assert {each.name for each in found} == {"May/a.md", "June/a.md", "b.md"}


@pytest.mark.parametrize("arguments", [("-",), ("--stream",)])
def test_document_from_a_pipe_has_its_pages(
    command: Command, toy_dir: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    session = tmp_path / "s.allmem"
    piped = samples.pdf([FILLER, [*FILLER[:10], KEYS], [], FILLER])
    given = ("allmem-run", toy_dir, *arguments, "--session", session, "--prompt", QUESTION, *SHORT)
    said = command(*given, stdin=piped).err
    assert f"  standard input, page 2  {KEYS}" in said
    assert "standard input: no text on page 3." in said
    if "-" in arguments:
        assert "was read before" in command(*given, stdin=piped).err
    result = command(
        "allmem-run", toy_dir, "-", "--prompt", QUESTION, stdin=samples.encrypted_pdf()
    )
    assert result.code == 1 and "standard input is encrypted." in result.err


def test_a_stream_without_end_is_read_as_the_text_it_is(tmp_path: Path) -> None:
    letter = samples.mail("The keys", KEYS)
    for live in (False, True):
        source = opening.open_any("-", io.BytesIO(letter), "", print, live=live)
        assert (b"boundary" in b"".join(source.pieces())) == live


def test_more_than_is_kept_of_a_pipe_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from allmem_runtime.documents import piped

    monkeypatch.setattr(piped, "MOST", 1 << 20)
    source = opening.open_any("-", io.BytesIO(b"%PDF-1.7" + bytes(2 << 20)), "", print)
    with pytest.raises(SourceError, match="standard input is a PDF document of more than 1 MiB"):
        list(source.pieces())


def test_a_pattern_does_not_stand_for_sessions_and_their_text(
    command: Command, toy_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.md").write_text("The mill was sold in May.\n")
    arguments = ("allmem-run", toy_dir, f"{tmp_path}/*", "--session", tmp_path / "s.allmem")
    for _ in range(2):
        result = command(*arguments, "--prompt", "Hm?", *SHORT)
        assert result.code == 0 and "Left out" not in result.err


def test_what_to_install_is_told_once_for_a_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def extract(path: Path, kind: Kind, name: str) -> None:
        raise MissingLibraryError(f"{name} is {kind.name}, and it is not installed.", INSTALL)

    monkeypatch.setattr(opening, "extract", extract)
    told: list[str] = []
    names = [str(library(tmp_path))]
    assert [each.name for each in open_sources(names, io.BytesIO(), None, told.append)] == ["a.md"]
    assert told[-1] == INSTALL and told.count(INSTALL) == 1 and len(told) == 5


def test_of_a_document_that_was_changed_the_bytes_of_its_text_are_told(
    command: Command, toy_dir: Path, tmp_path: Path
) -> None:
    path, session = tmp_path / "r.html", tmp_path / "s.allmem"
    arguments = ("allmem-run", toy_dir, path, "--session", session, "--prompt", "Hm?", *SHORT)
    for words, said in (
        ("It was sold in May.", "read r.html"),
        ("It was kept.", "its text had 20 bytes when it was read, now it has 13."),
        ("It was never sold by anybody.", "its text's first 20 bytes are not those"),
    ):
        path.write_bytes(samples.page(f"<p>{words}</p>"))
        assert said in command(*arguments).err


def test_a_folder_with_nothing_to_read_is_told(
    command: Command, toy_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    result = command("allmem-run", toy_dir, tmp_path / "empty", "--prompt", "Hm?", *SHORT)
    assert result.code == 1 and "There is nothing to read in" in result.err


def test_page_is_told_where_a_reading_was_stopped_and_went_on(
    toy_dir: Path, tmp_path: Path
) -> None:
    from allmem_runtime import load

    path = tmp_path / "r.pdf"
    path.write_bytes(samples.pdf([*[FILLER] * 9, [*FILLER, KEYS, *FILLER], *[FILLER] * 4]))
    source = opening.open_any(str(path), io.BytesIO(), "", lambda said: None)
    model = load(toy_dir, device="cpu", operators="portable", threads=1)
    session = model.session(text=str(tmp_path / "s.allmem"))
    for step in session.ingest(source.pieces(), name="r.pdf", landmarks=source.document):
        if step.source_bytes > (source.size or 0) // 3:
            session.cancel()
    session.save(tmp_path / "s.allmem")
    fork = session.fork()
    for _ in fork.ingest(source.pieces(fork.source_offset), landmarks=source.document):
        pass
    fork.save(tmp_path / "t.allmem")  # written on top of what it shares
    for read in (fork, model.open(tmp_path / "t.allmem")):
        assert not read.text_failure
        places = [str(passage.sentence_place) for passage in read.find_passages(QUESTION)]
        assert "r.pdf, page 10" in places
