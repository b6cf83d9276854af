"""Documents that are no plain text, of all kinds, read as the process that reads them does."""

from __future__ import annotations

import gzip
import io
import traceback
import zipfile
from pathlib import Path
from random import Random

import document_samples as samples
from hostile.fuzz.format import Files, Format, Read
from hostile.fuzz.mutate_bytes import mutated_bytes

from allmem_runtime.documents.child import values
from allmem_runtime.documents.extraction import DocumentText, most_of
from allmem_runtime.documents.kinds import HEAD_BYTES, kind_of
from allmem_runtime.documents.parts import Budget, Refused, reader
from allmem_runtime.errors import SourceError

FILE = "document"
TABLE = "<table><tr><th>Who<th colspan=2>Keys</tr><tr><td rowspan=2>Ada<td>1<td>2</tr></table>"
GOOD = samples.pdf([samples.STORY, ["A page more."]])
KINDS = (
    GOOD,
    samples.pdf_form(),
    samples.docx("Keys", "Words.", ("Who", "Keys"), ("Ada", "two"), header=True),
    samples.odt("Keys", "Words."),
    samples.odt_table(("Who", "Keys"), ("Ada", "two")),
    samples.book({"One": "The river.", "Two": TABLE}),
    samples.page(f"<nav>Home</nav><main><h1>Keys</h1><p>Words.</p>{TABLE}</main>"),
    samples.notebook("Counting", "print(6 * 7)", "42"),
    samples.mail("The keys", "Words."),
    samples.mailbox({"One": "Words.", "Two": "More."}),
    samples.SUBTITLES,
    samples.RTF,
    samples.zipped({"a.pdf": GOOD, "b.txt": b"Words.", "c.csv": b"who,keys\nAda,2\n"}),
    samples.tarred({"a.html": samples.page(TABLE), "b.rtf": samples.RTF}, {"link": "a.html"}),
    gzip.compress(samples.tarred({"a.txt": b"Words."})),
    b'who,"its keys"\nAda,2\nBo,"3\n4"\n',
)
_PARTS = (
    b"<div>" * 3000, b"<table><tr><th>" * 300, b"<td colspan=99999999999 rowspan='-1'>",
    b"<!DOCTYPE a [<!ENTITY x 'y'>]>&x;", b"{\\rtf" * 2000, b"\\u-99999 ", b"\\'zz", b"\\bin99999 ",
    b"/Kids [2 0 R]", b"/Parent 5 0 R", b"/Length 99999999999", b"[" * 5000, b'"' * 5000,
    b"9" * 5000, b"-1", b"0", b"\xff\xfe", b"\0" * 1000, b"--x\n", b"\n\n", b"Subject: \xff\n",
    b"Content-Type: message/rfc822\n\n" * 200, b'Content-Type: multipart/mixed; boundary="x"\n\n',
    b"Content-Transfer-Encoding: base64\n", b"charset=idna", b"=?utf-8?b?//8=?=", b"\nFrom a 1\n",
    b"00:00:00,000 --> ", b"99999:99:99.999 --> ", b"\xee\x80\x80", b"x" * 70_000, b"\r",
)  # fmt: skip


def _make(folder: Path) -> None:
    (folder / FILE).write_bytes(GOOD)


def _mutate(files: Files, draw: Random) -> Files:
    data = files[FILE]
    if data == GOOD:
        data = draw.choice(KINDS)
    if data.startswith(b"PK") and draw.random() < 0.7:
        return {FILE: _inside(data, draw)}
    return {FILE: _spoiled(data, draw)}


def _spoiled(data: bytes, draw: Random) -> bytes:
    if draw.random() < 0.6:
        data = mutated_bytes(data, draw, 64)
    for _ in range(draw.randrange(3)):
        at = draw.randrange(len(data) + 1)
        data = data[:at] + draw.choice(_PARTS) + data[at + draw.choice((0, 0, 1, 8)) :]
    return data[: 1 << 18]


def _inside(data: bytes, draw: Random) -> bytes:
    """An archive with one of its files spoiled; the others are as they were."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    name = draw.choice(sorted(held))
    held[name] = _spoiled(held[name], draw)
    return samples.zipped(held, ("mimetype",))


def _reader(good: Path) -> Read:
    def read(folder: Path) -> None:
        data = (folder / FILE).read_bytes()
        kind = kind_of(data[:HEAD_BYTES], "a.csv") or kind_of(data[:HEAD_BYTES], "a.html")
        if kind is None:
            raise SourceError("It is no document.", "Give one.")
        budget, text = Budget(most_of(len(data))), DocumentText()
        try:
            for part in reader(kind.module)(io.BytesIO(data), FILE, budget, 0):
                for value in values(part, budget):
                    assert text.take(value), value
        except Refused as error:
            raise SourceError(f"It {error.why}.", error.hint or "Give another.") from None
        except (MemoryError, RecursionError):
            raise SourceError("It takes too much.", "Give another.") from None
        except Exception as error:
            if _is_ours(error):
                raise
            # As its process does: a library may raise anything about what is not sound.
            raise SourceError(f"It is damaged ({type(error).__name__}).", "Give another.") from None

    return read


def _is_ours(error: Exception) -> bool:
    """Whether our own code made the error, and not a library that it calls."""
    last = traceback.extract_tb(error.__traceback__)[-1].filename
    return "allmem_runtime" in last or "fuzz" in last


FORMAT = Format("office", _make, _mutate, _reader, seconds=20.0)
