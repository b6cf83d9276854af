"""Each kind of document as text with its places, recognized by its content."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import document_samples as samples
import pytest

from allmem_runtime.documents.kinds import KINDS, kind_of
from allmem_runtime.documents.opening import open_any
from allmem_runtime.documents.parts import reader
from allmem_runtime.text.sources import Source

WORDS, KEYS = samples.STORY


def opened(
    folder: Path, data: bytes, name: str = "file"
) -> tuple[str, list[tuple[str, int, str]], list[str]]:
    """The text, the text of each place with its page and chapter, and what was told."""
    (folder / name).write_bytes(data)
    told: list[str] = []
    source = open_any(str(folder / name), io.BytesIO(), "", told.append)
    whole = b"".join(source.pieces())
    assert source.size == len(whole)
    return whole.decode(), _places(source, whole), told


def _places(source: Source, whole: bytes) -> list[tuple[str, int, str]]:
    assert source.document is not None
    marks = list(source.document.within(0, len(whole)))
    if not marks:
        return []
    ends = [*(mark.at for mark in marks[1:]), len(whole)]
    return [
        (whole[mark.at : end].decode().strip(), mark.page, mark.chapter)
        for mark, end in zip(marks, ends, strict=True)
    ]


def test_pdf_has_pages_and_a_page_without_text_is_told(tmp_path: Path) -> None:
    data = samples.pdf([[WORDS], [], [KEYS, "So it was."]])
    _, places, told = opened(tmp_path, data)
    assert places == [(WORDS, 1, ""), (f"{KEYS}\nSo it was.", 3, "")]
    assert told == ["file: no text on page 2."]


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotated_pages_are_read_like_others(tmp_path: Path, degrees: int) -> None:
    text, _, _ = opened(tmp_path, samples.pdf([[WORDS, KEYS]], rotate=degrees))
    assert text.split() == f"{WORDS} {KEYS}".split()


def test_headers_and_page_numbers_are_not_repeated_and_text_like_them_stays(tmp_path: Path) -> None:
    pages = [["The Mill, a report", f"Day {n} went by.", "It rained.", "Nobody came.", f"{n}"]
             for n in range(1, 9)]  # fmt: skip
    text, places, _ = opened(tmp_path, samples.pdf(pages))
    assert text.count("The Mill, a report") == 1
    assert text.count("It rained.") == text.count("went by.") == 8
    assert [page for _, page, _ in places] == list(range(1, 9))
    assert not [line for line in text.splitlines() if line.strip().isdigit()]


def test_a_long_pdf_is_the_same_however_often_it_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    from allmem_runtime.documents import pdf
    from allmem_runtime.documents.parts import Budget, Page

    pages = [["The Mill, a report", f"{n} birds.", "And more.", f"Page {n}"] for n in range(5, 12)]
    data = samples.pdf([*pages, [], *pages])
    read = []
    for at_once in (200, 15, 14, 4, 1):
        monkeypatch.setattr(pdf, "AT_ONCE", at_once)
        read.append(list(pdf.extract(io.BytesIO(data), "a.pdf", Budget(1 << 20), 0)))
    assert all(parts == read[0] for parts in read)
    found = [part.number for part in read[0] if isinstance(part, Page)]
    assert found == [*range(1, 8), *range(9, 16)]


def test_words_that_were_broken_at_line_ends_are_joined(tmp_path: Path) -> None:
    lines = [
        "The inher-",
        "itance went to a well-known",
        "cousin, a well-",
        "known one, in the U-",
        "Bahn.",
    ]
    text, _, _ = opened(tmp_path, samples.pdf([lines]))
    assert " ".join(text.split()) == (
        "The inheritance went to a well-known cousin, a well-known one, in the U-Bahn."
    )


def test_page_is_read_without_what_surrounds_it(tmp_path: Path) -> None:
    body = (
        "<nav>Home About</nav><header>The site</header><main><h1>Keys</h1><p>The river &amp; mill"
        f"</p><h2>Who</h2><p>{KEYS}</p><ul><li>one</li></ul></main><footer>Imprint</footer>"
        "<script>alert(1)</script>"
    )
    text, places, _ = opened(tmp_path, samples.page(body))
    assert "The river & mill" in text and "one" in text
    assert not [word for word in ("Home", "site", "Imprint", "alert", "\ue000") if word in text]
    assert [chapter for _, _, chapter in places] == ["Keys", "Who"]


def test_page_in_another_encoding_is_read_as_it_says(tmp_path: Path) -> None:
    data = '<html><head><meta charset="iso-8859-2"></head><body><p>Łódź</p></body></html>'
    assert "Łódź" in opened(tmp_path, data.encode("iso-8859-2"))[0]


def test_book_is_read_in_the_order_of_its_contents(tmp_path: Path) -> None:
    text, places, _ = opened(tmp_path, samples.book({"One": WORDS, "Two": KEYS}))
    assert text.index(WORDS) < text.index(KEYS)
    assert [chapter for _, _, chapter in places] == ["One", "Two"]


@pytest.mark.parametrize(
    "data",
    [pytest.param(samples.docx("Keys", KEYS, ("Ada", "Bo")), id="DOCX"),
     pytest.param(samples.odt("Keys", KEYS), id="ODT")],
)  # fmt: skip
def test_office_documents_have_their_headings_as_chapters(tmp_path: Path, data: bytes) -> None:
    _, places, _ = opened(tmp_path, data)
    assert [chapter for _, _, chapter in places] == ["Keys"]
    assert KEYS in places[0][0]


def test_cells_of_a_table_stand_in_one_line(tmp_path: Path) -> None:
    text, _, _ = opened(tmp_path, samples.docx("Keys", KEYS, ("Ada", "Bo")))
    assert [line.split() for line in text.splitlines()][-1] == ["Ada", "Bo"]


def test_rtf_loses_its_commands(tmp_path: Path) -> None:
    text, _, _ = opened(tmp_path, samples.RTF)
    assert text.split() == ["The", "river", "went.", "Café", "by", "the", "mill."]


def test_notebook_is_its_cells_and_what_they_printed(tmp_path: Path) -> None:
    text, places, _ = opened(tmp_path, samples.notebook("Counting", "print(6 * 7)", "42"))
    assert text.split() == ["#", "Counting", "Words.", "print(6", "*", "7)", "42"]
    assert [chapter for _, _, chapter in places] == ["Counting"]


def test_letter_has_its_fields_its_text_and_what_came_with_it(tmp_path: Path) -> None:
    text, places, _ = opened(tmp_path, samples.mail("The keys", KEYS))
    assert "From: Ada <ada@example.org>" in text and KEYS in text
    assert "Received" not in text
    assert [chapter for _, _, chapter in places] == ["The keys", "The keys, a.txt"]


def test_letters_of_a_mailbox_are_chapters(tmp_path: Path) -> None:
    _, places, _ = opened(tmp_path, samples.mailbox({"First": WORDS, "Second": KEYS}))
    assert [chapter for _, _, chapter in places] == [
        "First", "First, a.txt", "Second", "Second, a.txt",
    ]  # fmt: skip
    assert KEYS in places[2][0]


def test_a_letter_that_came_with_another_is_read_under_both(tmp_path: Path) -> None:
    data = (
        b"From: Bo <bo@example.org>\nSubject: Look\nMIME-Version: 1.0\n"
        b'Content-Type: multipart/mixed; boundary="y"\n\n--y\nContent-Type: text/plain\n\nSee.\n'
        b"--y\nContent-Type: message/rfc822\n\n" + samples.mail("The keys", KEYS) + b"\n--y--\n"
    )
    _, places, told = opened(tmp_path, data)
    assert [chapter for _, _, chapter in places] == ["Look", "Look, The keys",
                                                     "Look, The keys, a.txt"]  # fmt: skip
    assert KEYS in places[1][0] and not told


def test_subtitles_are_what_is_said_and_when(tmp_path: Path) -> None:
    _, places, _ = opened(tmp_path, samples.SUBTITLES)
    assert places == [
        ("The river went\nround the mill.", 0, "00:00"),
        ("Who has the keys?", 0, "00:12"),
    ]


def test_archive_is_its_files_each_of_its_own_kind(tmp_path: Path) -> None:
    files = {"b/two.pdf": samples.pdf([[KEYS]]), "a.txt": WORDS.encode(), ".hidden": b"no"}
    for data in (samples.zipped(files), samples.PACKED["gzip"](samples.tarred(files))):
        _, places, told = opened(tmp_path, data)
        assert sorted(places) == [(KEYS, 1, "b/two.pdf"), (WORDS, 0, "a.txt")]
        assert not told


def test_text_file_that_was_packed_is_its_text(tmp_path: Path) -> None:
    for pack in samples.PACKED.values():
        (tmp_path / "a.txt.gz").write_bytes(pack(WORDS.encode()))
        source = open_any(str(tmp_path / "a.txt.gz"), io.BytesIO(), "", lambda said: None)
        assert b"".join(source.pieces()) == WORDS.encode()


def test_text_files_are_opened_as_ever(tmp_path: Path) -> None:
    for name, text in {
        "a.md": "# From: here\n", "b.py": "import os\n", "c.json": '{"cells": 3}',
        "d.csv": "Ada,1\nBo,2\n",
        "e.txt": "From: me\nTo: you\n\nHello", "f.xml": "<?xml version='1.0'?><a>b</a>",
        "g.txt": "From the river: a story\n", "h.txt": "1\n2\n3\n",
    }.items():  # fmt: skip
        (tmp_path / name).write_text(text)
        source = open_any(str(tmp_path / name), io.BytesIO(), "", lambda said: None)
        assert source.document is None and b"".join(source.pieces()) == text.encode()


def test_text_is_clean_and_its_ligatures_are_letters(tmp_path: Path) -> None:
    data = samples.page("<p>the \ufb01rst o\ufb03ce\x07\x1b[31m</p>")
    assert opened(tmp_path, data)[0].split() == ["the", "first", "office[31m"]


def test_every_kind_has_its_reader() -> None:
    for kind in KINDS:
        assert callable(reader(kind.module))
    assert kind_of(b"plain text", "a.pdf") is None


def test_page_of_a_book_may_be_in_utf_16(tmp_path: Path) -> None:
    from allmem_runtime.documents.html import decoded

    assert decoded("<p>Café</p>".encode("utf-16")) == "<p>Café</p>"
    made = samples.book({"Keys": "Café by the mill."})
    with zipfile.ZipFile(io.BytesIO(made)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    files["OPS/text/c0.xhtml"] = files["OPS/text/c0.xhtml"].decode().encode("utf-16")
    (tmp_path / "b.epub").write_bytes(samples.zipped(files, ("mimetype",)))
    source = open_any(str(tmp_path / "b.epub"), io.BytesIO(), "", print)
    assert b"".join(source.pieces()).decode() == "Keys\n\nCafé by the mill.\n"


def test_part_of_a_page_may_begin_in_words(tmp_path: Path) -> None:
    for data in (b"The river <b>went</b>.", "<p>The river went.".encode("utf-16")):
        assert opened(tmp_path, data, "part.html")[0] == "The river went.\n"
    assert kind_of(b"\x89PNG\0", "a.html") is None and kind_of(b" \n", "a.html") is None


def test_text_in_an_archive_may_be_called_as_a_document(tmp_path: Path) -> None:
    whole, places, told = opened(tmp_path, samples.zipped({"a.pdf": KEYS.encode()}), "a.zip")
    assert (places, told) == ([(KEYS, 0, "a.pdf")], [])
