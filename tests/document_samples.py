"""Documents of every kind, made for the tests."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Mapping, Sequence

_UPRIGHT = {0: "1 0 0 1 0 0", 90: "0 1 -1 0 612 0", 180: "-1 0 0 -1 612 792", 270: "0 -1 1 0 0 792"}
"""What is drawn so is upright once the page is turned."""
STORY = ("The river went round the old mill.", "Nadezhda has the keys of the boathouse.")


def pdf(pages: Sequence[Sequence[str]], *, rotate: int = 0) -> bytes:
    """A PDF document with one of the fonts that every reader has; lines of Latin letters."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b"",
               b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]  # fmt: skip
    kids = []
    for lines in pages:
        drawn = " ".join(f"({_escaped(line)}) Tj 0 -14 Td" for line in lines)
        content = f"{_UPRIGHT[rotate]} cm BT /F1 11 Tf 72 560 Td {drawn} ET".encode("latin-1")
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content))
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Rotate %d /Contents %d 0 R "
            b"/Resources << /Font << /F1 3 0 R >> >> >>" % (rotate, len(objects))
        )
        kids.append(b"%d 0 R" % len(objects))
    objects[1] = b"<< /Type /Pages /Kids [%s] /Count %d >>" % (b" ".join(kids), len(kids))
    return file_of(objects)


def _escaped(line: str) -> str:
    return line.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")


def file_of(objects: Sequence[bytes], trailer: bytes = b"") -> bytes:
    """A PDF file of objects that are numbered from 1, the catalog first."""
    made, places = bytearray(b"%PDF-1.4\n"), []
    for number, body in enumerate(objects, 1):
        places.append(len(made))
        made += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(made)
    made += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    made += b"".join(b"%010d 00000 n \n" % place for place in places)
    size = len(objects) + 1
    made += b"trailer << /Size %d /Root 1 0 R %s >>\nstartxref\n%d\n" % (size, trailer, start)
    return bytes(made + b"%%EOF\n")


def encrypted_pdf() -> bytes:
    """One that asks for a password: its keys fit none."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Kids [] /Count 0 >>",
               b"<< /Filter /Standard /V 1 /R 2 /P -4 /O <%s> /U <%s> >>"
               % (b"11" * 32, b"22" * 32)]  # fmt: skip
    return file_of(objects, b"/Encrypt 3 0 R /ID [<00> <00>]")


def zipped(files: Mapping[str, bytes], stored: Sequence[str] = ()) -> bytes:
    """A zip file."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            kind = zipfile.ZIP_STORED if name in stored else zipfile.ZIP_DEFLATED
            archive.writestr(zipfile.ZipInfo(name), data, kind)
    return made.getvalue()


def tarred(files: Mapping[str, bytes], links: Mapping[str, str] | None = None) -> bytes:
    """A tar archive, with links from names to others."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return made.getvalue()


def page(body: str) -> bytes:
    """An HTML page."""
    return (
        f"<!DOCTYPE html>\n<html><head><title>T</title></head><body>{body}</body></html>".encode()
    )


def book(chapters: Mapping[str, str]) -> bytes:
    """An EPUB book; its contents name the chapters in this order, its archive in another."""
    items = "".join(
        f'<item id="c{n}" href="text/c{n}.xhtml" media-type="application/xhtml+xml"/>'
        for n in range(len(chapters))
    )
    spine = "".join(f'<itemref idref="c{n}"/>' for n in range(len(chapters)))
    package = (
        f'<package xmlns="http://www.idpf.org/2007/opf"><manifest>{items}</manifest>'
        f"<spine>{spine}</spine></package>"
    )
    container = (
        '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
        '<rootfile full-path="OPS/b.opf"/></rootfiles></container>'
    )
    files = {"mimetype": b"application/epub+zip", "META-INF/container.xml": container.encode()}
    for number, (title, text) in reversed(list(enumerate(chapters.items()))):
        files[f"OPS/text/c{number}.xhtml"] = page(f"<h1>{title}</h1><p>{text}</p>")
    return zipped(files | {"OPS/b.opf": package.encode()}, ("mimetype",))


def docx(heading: str, text: str, *rows: Sequence[str], header: bool = False) -> bytes:
    """A DOCX document of a heading, a paragraph and a table, which may have a header."""
    mark = "<w:trPr><w:tblHeader/></w:trPr>" if header else ""
    table = ""
    for row in rows:
        cells = "".join(f"<w:tc><w:p><w:r><w:t>{cell}</w:t></w:r></w:p></w:tc>" for cell in row)
        table += f"<w:tr>{'' if table else mark}{cells}</w:tr>"
    table = f"<w:tbl>{table}</w:tbl>" if rows else ""
    document = (
        '<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body>'
        f'<w:p><w:pPr><w:pStyle w:val="Heading1"/></w:pPr><w:r><w:t>{heading}</w:t></w:r></w:p>'
        f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>{table}</w:body></w:document>"
    )
    types = (
        '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
        '<Default Extension="xml" ContentType="application/xml"/></Types>'
    )
    relations = (
        '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        '<Relationship Id="r" Target="word/document.xml" Type="http://schemas.openxmlformats.org/'
        'officeDocument/2006/relationships/officeDocument"/></Relationships>'
    )
    styles = (
        '<w:styles xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main">'
        '<w:style w:type="paragraph" w:styleId="Heading1"><w:name w:val="heading 1"/></w:style>'
        "</w:styles>"
    )
    return zipped({"[Content_Types].xml": types.encode(), "_rels/.rels": relations.encode(),
                   "word/document.xml": document.encode(),
                   "word/styles.xml": styles.encode()})  # fmt: skip


def odt(heading: str, text: str, entities: str = "") -> bytes:
    """An ODT document of a heading and a paragraph."""
    content = (
        f'<?xml version="1.0"?>{entities}<office:document-content '
        'xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0" '
        'xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0"><office:body><office:text>'
        f"<text:h>{heading}</text:h><text:p>{text}</text:p>"
        "</office:text></office:body></office:document-content>"
    )
    kind = b"application/vnd.oasis.opendocument.text"
    return zipped({"mimetype": kind, "content.xml": content.encode()}, ("mimetype",))


def odt_table(header: Sequence[str], *rows: Sequence[str]) -> bytes:
    """An ODT document of a table with a header."""

    def row(cells: Sequence[str]) -> str:
        said = "".join(f"<t:table-cell><text:p>{cell}</text:p></t:table-cell>" for cell in cells)
        return f"<t:table-row>{said}</t:table-row>"

    table = (
        '</text:p><t:table xmlns:t="urn:oasis:names:tc:opendocument:xmlns:table:1.0">'
        f"<t:table-header-rows>{row(header)}</t:table-header-rows>{''.join(map(row, rows))}"
        "</t:table><text:p>"
    )
    return odt("Table", table)


def pdf_form() -> bytes:
    """A PDF document with fields that were filled in, one that was not, and a remark."""
    content = b"BT /F1 11 Tf 72 560 Td (Who has the keys?) Tj ET"
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R /AcroForm << /Fields [6 0 R 7 0 R 8 0 R 9 0 R] >> >>",
        b"<< /Type /Pages /Kids [5 0 R] /Count 1 >>",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content),
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Resources << /Font "
        b"<< /F1 3 0 R >> >> /Annots [6 0 R 7 0 R 8 0 R 9 0 R 10 0 R] >>",
        b"<< /Type /Annot /Subtype /Widget /FT /Tx /T (who) /TU (Keeper of keys) /V (Nadezhda) "
        b"/Rect [72 500 200 520] >>",
        b"<< /Type /Annot /Subtype /Widget /FT /Btn /T (boat) /V /On /AS /On "
        b"/AP << /N << /On 4 0 R /Off 4 0 R >> >> /Rect [72 470 90 488] >>",
        b"<< /Type /Annot /Subtype /Widget /FT /Ch /Ff 131072 /T (color) /Opt [(red) (blue)] "
        b"/V (red) /Rect [72 440 200 460] >>",
        b"<< /Type /Annot /Subtype /Widget /FT /Tx /T (nobody) /Rect [72 400 200 420] >>",
        b"<< /Type /Annot /Subtype /Text /Contents (She lost one.) /Rect [300 500 320 520] >>",
    ]
    return file_of(objects)


def notebook(title: str, code: str, output: str) -> bytes:
    """A Jupyter notebook of three cells."""
    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": [f"# {title}\n", "Words."]},
        {"cell_type": "code", "metadata": {}, "source": code,
         "outputs": [{"output_type": "stream", "text": [output]}]},
    ]  # fmt: skip
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}).encode()


def mail(subject: str, text: str) -> bytes:
    """A letter with another one's text file attached."""
    return (
        "Received: from a by b; Mon, 30 Nov 2026 10:00:00 +0000\nFrom: Ada <ada@example.org>\n"
        f"To: Bo <bo@example.org>\nSubject: {subject}\nDate: Mon, 30 Nov 2026 10:00:00 +0000\n"
        'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="x"\n\n'
        f"--x\nContent-Type: text/plain; charset=utf-8\n\n{text}\n"
        '--x\nContent-Type: text/plain\nContent-Disposition: attachment; filename="a.txt"\n\n'
        "What came with it.\n--x--\n"
    ).encode()


def mailbox(letters: Mapping[str, str]) -> bytes:
    """Letters in one file."""
    return b"\n".join(
        b"From ada@example.org Mon Nov 30 10:00:00 2026\n" + mail(subject, text)
        for subject, text in letters.items()
    )


SUBTITLES = (
    b"1\n00:00:05,000 --> 00:00:07,000\n<i>The river</i> went\nround the mill.\n\n"
    b"2\n00:12:31,500 --> 00:12:33,000\nWho has the keys?\n"
)
RTF = rb"{\rtf1\ansi{\fonttbl\f0 Arial;}\f0 The \b river\b0  went.\par Caf\'e9 by the mill.\par}"
PACKED = {"gzip": gzip.compress, "bzip2": bz2.compress}
