"""Rows that say by themselves what is what, and what people wrote into forms."""

from __future__ import annotations

import io
import time
from pathlib import Path

import document_samples as samples
import pytest

from allmem_runtime.documents.columns import columns_of
from allmem_runtime.documents.opening import open_any
from allmem_runtime.documents.parts import Text


def text_of(folder: Path, data: bytes, name: str) -> str:
    (folder / name).write_bytes(data)
    return b"".join(open_any(str(folder / name), io.BytesIO(), "", print).pieces()).decode()


@pytest.mark.parametrize(
    ("name", "data"),
    [("a.csv", 'who,"its age",town\nAda,36,"Paris, in\nFrance"\nBo,,Málaga\n'.encode()),
     ("a.tsv", "who\tits age\ttown\r\nAda\t36\tParis, in France\r\nBo\t\tMálaga\r\n"
      .encode("utf-16")),
     ("a.CSV", "\ufeffwho;its age;town\nAda;36;Paris, in France\nBo;;Málaga".encode()),
     ("a.csv", "who,its age,town\nAda,36,\"Paris, in France\"\nBo,,Málaga\n".encode("cp1252"))],
)  # fmt: skip
def test_rows_of_a_table_have_the_names_of_their_columns(
    tmp_path: Path, name: str, data: bytes
) -> None:
    assert text_of(tmp_path, data, name).splitlines()[1:] == [
        "who: Ada; its age: 36; town: Paris, in France",
        "who: Bo; town: Málaga",
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "who,age\nAda,36\n"),
        ("a.csv", "Ada,36\nBo,41\n"),
        ("a.csv", "1,2,3\n4,5,6\n"),
        ("a.csv", "Well, so it was.\nAnd it rained, and rained, and rained.\n"),
        ("a.csv", "Ada,Paris\nBo,Paris\n"),
        ("a.csv", "who,age\n"),
        ("a.csv", "one column\nof words\n"),
        ("a.csv", ""),
    ],
)
def test_what_has_no_names_of_columns_is_the_text_it_is(name: str, text: str) -> None:
    assert columns_of(text.encode(), name) is None


def test_table_that_is_given_an_encoding_is_the_text_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("who,town\nBo,Łódź\n".encode("cp1250"))
    source = open_any(str(tmp_path / "a.csv"), io.BytesIO(), "cp1250", print)
    assert b"".join(source.pieces()).decode() == "who,town\nBo,Łódź\n"


def test_table_that_grew_begins_with_what_it_was(tmp_path: Path) -> None:
    before = text_of(tmp_path, b"who,age\nAda,36\n", "a.csv")
    assert text_of(tmp_path, b"who,age\nAda,36\nBo,41\n", "a.csv") == f"{before}who: Bo; age: 41\n"


def test_a_row_without_end_is_refused(tmp_path: Path) -> None:
    from allmem_runtime.errors import SourceError

    with pytest.raises(SourceError, match="a row of more than 4 MiB"):
        text_of(tmp_path, b"who,age\nAda,36\n" + b"x" * (5 << 20), "a.csv")
    with pytest.raises(SourceError, match="a field of more than 1 MiB"):
        text_of(tmp_path, b"who,age\nAda,36\n" + b"x" * (2 << 20) + b",1\n", "b.csv")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\r\r\n", " \r\n", "\n\r"])
def test_rows_may_end_as_systems_end_lines(tmp_path: Path, end: str) -> None:
    """Also as where a file was carried from one to the other twice."""
    data = end.join(["who,age", "Ada,36", "Bo,41", "Cy,40"]).encode()
    text = text_of(tmp_path, data, "a.csv")
    assert [line.strip() for line in text.splitlines()] == [
        "who,age", "who: Ada; age: 36", "who: Bo; age: 41", "who: Cy; age: 40",
    ]  # fmt: skip


def test_end_of_a_line_within_a_row_ends_it_and_costs_no_other_row(tmp_path: Path) -> None:
    text = text_of(tmp_path, b"who,age\n" + b"Ada,36\n" * 99 + b"B\ro,41\nCy,40\n", "a.csv")
    assert text.splitlines()[99:] == ["who: Ada; age: 36", "who: B", "who: o; age: 41",
                                      "who: Cy; age: 40"]  # fmt: skip


TABLE = (
    "<table><thead><tr><th rowspan=2>Who</th><th colspan=2>Keys</th></tr><tr><th>Of mill</th>"
    "<th>Of boat</th></tr></thead><tr><td>Ada</td><td><p>two</p></td><td>one<br>or more</td></tr>"
    "<tr><th>Bo</th><td colspan=2>none</td></tr><tr><td rowspan=2>Cy</td><td>3</td><td>4</td></tr>"
    "<tr><td>5</td><td><ul><li>6</li></ul></td></tr></table>"
)


def test_cells_of_a_page_have_the_names_of_their_columns(tmp_path: Path) -> None:
    lines = text_of(tmp_path, samples.page(TABLE), "a.html").splitlines()
    rows = [" | ".join(part.strip() for part in line.split("\t\t")) for line in lines]
    assert rows == [
        "Who | Keys", "Of mill | Of boat", "Who: Ada | Keys Of mill: two | Keys Of boat: one",
        "or more", "Who: Bo | Keys Of mill: none",
        "Who: Cy | Keys Of mill: 3 | Keys Of boat: 4", "Keys Of mill: 5 | Keys Of boat:", "• 6",
    ]  # fmt: skip


def test_tables_that_lay_a_page_out_stay_as_they_are(tmp_path: Path) -> None:
    for table in (
        "<table><tr><td>a</td><td>b</td></tr><tr><td>c</td><td>d</td></tr></table>",
        "<table><tr><th>a</th><td>b</td></tr><tr><th>c</th><td>d</td></tr></table>",
        "<table><tr><th>a</th><th>b</th></tr><tr><td><table><tr><td>c</td></tr></table></td>"
        "<td>d</td></tr></table>",
        "<table><tr><th colspan=2>ab</th></tr><tr><td>c</td><td>d</td></tr></table>",
    ):
        text = text_of(tmp_path, samples.page(table), "a.html")
        assert ":" not in text and {"c", "d"} <= set(text.split())


def test_tables_of_office_documents_have_the_names_of_their_columns(tmp_path: Path) -> None:
    rows = (("Who", "Keys"), ("Ada", "two"))
    for data in (samples.docx("List", "All.", *rows, header=True), samples.odt_table(*rows)):
        text = text_of(tmp_path, data, "file")
        row = text.strip().splitlines()[-1].replace("\t\t", "\t")
        assert row.split("\t") == ["Who: Ada", "Keys: two"]
    assert ":" not in text_of(tmp_path, samples.docx("List", "All.", *rows), "file")


def test_what_was_filled_into_a_form_is_read_with_the_name_of_its_field(tmp_path: Path) -> None:
    text = text_of(tmp_path, samples.pdf_form(), "a.pdf")
    assert text.strip().splitlines() == [
        "Who has the keys?", "Keeper of keys: Nadezhda", "boat: yes", "color: red",
        "Remark: She lost one.",
    ]  # fmt: skip


def test_time_of_a_page_grows_with_its_elements_alone() -> None:
    from allmem_runtime.documents.html import page_parts

    rows = "<tr><th>Who<th>Keys</tr>" + "<tr><td>Ada<td>2</tr>" * 1500
    page = "<table><tr><th>" * 250 + f"<h2>All</h2><table>{rows}</table>" + "<h3>One</h3>" * 1500
    began = time.process_time()
    text = "".join(part.text for part in page_parts(page, whole=False) if isinstance(part, Text))
    assert text.count("Who: Ada") == 1500 and text.count("One") == 1500
    assert time.process_time() - began < 5  # lists in quadratic time take much more
