"""Files of odd kinds as people have them, with the words that each must give, in order.

python tests/odd_files.py FOLDER writes them there, each with its words in NAME.words beside it.
"""

from __future__ import annotations

import gzip
import io
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import document_samples as samples
import odd_pdfs

WENT = "The river went."
DAYS = " ".join(f"Day {day} of rain, and no sun, but {day + 7} birds." for day in range(2, 7))


def docx_with(body: str) -> bytes:
    """A DOCX document whose one paragraph holds this."""
    with zipfile.ZipFile(io.BytesIO(samples.docx("Keys", "X"))) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    changed = files["word/document.xml"].decode().replace("<w:r><w:t>X</w:t></w:r>", body)
    return samples.zipped(files | {"word/document.xml": changed.encode()})


def letter_in_base64() -> bytes:
    return (
        b"From: =?utf-8?b?xYHDs2TFug==?= <a@example.org>\nMessage-ID: <1@example.org>\nSubject: "
        b"=?iso-8859-1?q?Caf=E9?=\nMIME-Version: 1.0\nContent-Type: text/html; charset=utf-8\n"
        b"Content-Transfer-Encoding: base64\n\nPHA+VGhlICZsdDtyaXZlciZndDs8L3A+\n"
    )


READ: dict[str, tuple[Callable[[], bytes], str]] = {
    "two columns.pdf": (odd_pdfs.two_columns, "The river went round the old mill, and it rained "
                        "in May. Nadezhda has the keys of the boathouse, and nobody else."),
    "ligatures.pdf": (odd_pdfs.ligatures, "the first flood offered"),
    "from right to left.pdf": (odd_pdfs.right_to_left, "שכול"),
    "recognized.pdf": (odd_pdfs.scanned_and_recognized, WENT),
    "without fonts.pdf": (odd_pdfs.without_fonts, WENT),
    "sideways.pdf": (odd_pdfs.sideways, "The river went round the mill. Draft of May"),
    "letter by letter.pdf": (odd_pdfs.letter_by_letter, WENT),
    "packed, its table broken.pdf": (odd_pdfs.packed, WENT),
    "behind rubbish.pdf": (odd_pdfs.behind_rubbish, WENT),
    "soft hyphens.pdf": (odd_pdfs.soft_hyphens, "The inheritance and the boathouse of May."),
    "headers.pdf": (odd_pdfs.notes_at_the_foot, "The Mill, a report Day 1 of rain, and no sun, "
                    f"but 8 birds. Page 1 of 6 {DAYS}"),
    "form.pdf": (samples.pdf_form, "Who has the keys? Keeper of keys: Nadezhda boat: yes "
                 "color: red Remark: She lost one."),
    "upside down.pdf": (lambda: samples.pdf([[WENT]], rotate=180), WENT),
    "changes.docx": (lambda: docx_with("<w:ins><w:r><w:t>new</w:t></w:r></w:ins><w:del><w:r>"
                                       "<w:delText>old</w:delText></w:r></w:del>"), "Keys new"),
    "tabs.docx": (lambda: docx_with("<w:r><w:t>a</w:t><w:tab/><w:t>b</w:t><w:br/><w:t>c</w:t>"
                                    "</w:r>"), "Keys a b c"),
    "spaces.odt": (lambda: samples.odt("Keys", 'a<text:s text:c="3"/>b<text:tab/>c'
                                       "<text:line-break/>d"), "Keys a b c d"),
    "unicode.rtf": (lambda: rb"{\rtf1\ansi\uc1 \u321?\'f3d\u378? {\*\generator X;}by\~night\par}",
                    "Łódź by night"),
    "frames.html": (lambda: b"<!doctype html><title>T</title><p>before<br>after<table><tr><td>one"
                    b"<td>two</table><pre>a  b</pre><template><p>x</p></template>",
                    "before after one two a b"),
    "entities.html": (lambda: b"<html><body><p>caf&eacute; &#x142;&nbsp;5&lt;6 &copy;</p></body>",
                      "café ł 5<6 ©"),
    "guide.epub": (lambda: samples.book({"One &amp; two": "a<sup>1</sup> b", "Three": "<i>c</i>d"}),
                   "One & two a1 b Three cd"),
    "letter.eml": (letter_in_base64, "From: Łódź <a@example.org> Subject: Café The <river>"),
    "talk.vtt": (lambda: b"WEBVTT - by\n\nNOTE no\n\nid\n00:05.000 --> 00:06.000 align:left\n"
                 b"<v Ada>Well.</v>\n\n01:00:05.000 --> 01:00:06.000\n- Yes.\n", "Well. - Yes."),
    "film.srt": (lambda: "1\n00:00:05,000 --> 00:00:07,000\n{\\an8}Où est-il allé ?\n"
                 .encode("cp1252"), "Où est-il allé ?"),
    "lines.ipynb": (lambda: samples.notebook("A", "raise X", "\x1b[31mred\x1b[0m"),
                    "# A Words. raise X [31mred[0m"),
    "nested.tar.gz": (lambda: gzip.compress(samples.tarred({"a/b.zip": samples.zipped(
        {"c.txt": WENT.encode("utf-16")})})), WENT),
    "semicolons.csv": (lambda: "wer;Stück\r\n\"Ada; B.\";2\r\n".encode("cp1252"),
                       "wer;Stück wer: Ada; B.; Stück: 2"),
}  # fmt: skip


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, (make, words) in READ.items():
        (folder / name).write_bytes(make())
        (folder / f"{name}.words").write_text(words + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
