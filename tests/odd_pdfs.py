"""PDF documents of odd kinds, each drawn by hand: two columns, no fonts, from right to left, ..."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import document_samples as samples

HELVETICA = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica %s >>"
_CATALOG, _PAGES = b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Kids [%s] /Count %d >>"


def drawn(*contents: bytes, font: bytes = HELVETICA % b"", others: Sequence[bytes] = (),
          resources: bytes = b"/Font << /F1 3 0 R >>") -> bytes:  # fmt: skip
    """A document of pages that are drawn so; ``others`` are objects from 4 on."""
    objects = [_CATALOG, b"", font, *others]
    kids = []
    for content in contents:
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content))
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R "
            b"/Resources << %s >> >>" % (len(objects), resources)
        )
        kids.append(b"%d 0 R" % len(objects))
    objects[1] = _PAGES % (b" ".join(kids), len(kids))
    return samples.file_of(objects)


def text_at(x: int, y: int, *lines: bytes) -> bytes:
    """Lines below one another; where they begin is in points."""
    shown = b" ".join(b"(%s) Tj 0 -14 Td" % line for line in lines)
    return b"BT /F1 11 Tf %d %d Td %s ET\n" % (x, y, shown)


def two_columns() -> bytes:
    left = text_at(72, 700, b"The river went round the", b"old mill, and it rained", b"in May.")
    right = text_at(330, 700, b"Nadezhda has the keys", b"of the boathouse, and", b"nobody else.")
    return drawn(left + right)


def ligatures() -> bytes:
    differences = b"/Encoding << /Type /Encoding /Differences [1 /fi /fl /ff] >>"
    return drawn(
        text_at(72, 700, b"the \\001rst \\002ood o\\003ered"), font=HELVETICA % differences
    )


def right_to_left() -> bytes:
    """A word of Hebrew, its letters drawn from left to right as they are seen."""
    codes = b"".join(b"<%02x> <%04x>\n" % (at, 0x5D0 + at) for at in range(1, 27))
    names = (
        b"/CIDInit /ProcSet findresource begin 12 dict begin begincmap /CMapName /X def\n"
        b"1 begincodespacerange <00> <ff> endcodespacerange\n26 beginbfchar\n%s"
        b"endbfchar endcmap end end" % codes
    )
    stream = b"<< /Length %d >>\nstream\n%s\nendstream" % (len(names), names)
    return drawn(text_at(72, 700, b"\\014\\005\\013\\031"), font=HELVETICA % b"/ToUnicode 4 0 R",
                 others=[stream])  # fmt: skip


def scanned() -> bytes:
    """Pictures of pages, without a word."""
    picture = b"<< /Type /XObject /Subtype /Image /Width 1 /Height 1 /BitsPerComponent 8 " \
              b"/ColorSpace /DeviceGray /Length 1 >>\nstream\n\x80\nendstream"  # fmt: skip
    return drawn(b"q 612 0 0 792 0 0 cm /P Do Q", b"q 612 0 0 792 0 0 cm /P Do Q",
                 others=[picture], resources=b"/XObject << /P 4 0 R >>")  # fmt: skip


def scanned_and_recognized() -> bytes:
    """The words lie unseen on the picture, as programs that recognize text write them."""
    return drawn(b"BT /F1 11 Tf 3 Tr 72 700 Td (The river went.) Tj ET")


def without_fonts() -> bytes:
    return drawn(text_at(72, 700, b"The river went."), resources=b"")


def sideways() -> bytes:
    """One line that stands upright at the edge, and the text of the page."""
    edge = b"BT /F1 8 Tf 0 1 -1 0 30 300 Tm (Draft of May) Tj ET\n"
    return drawn(text_at(72, 700, b"The river went", b"round the mill.") + edge)


def letter_by_letter() -> bytes:
    """Each letter is placed for itself; wide gaps are the spaces."""
    shown = b"[(T) 20 (h) -15 (e) -400 (r) 10 (i) 5 (v) (e) (r) -420 (went.)] TJ"
    return drawn(b"BT /F1 11 Tf 72 700 Td %s ET" % shown)


def packed() -> bytes:
    """The content is packed, and the file's table of objects is broken."""
    content = zlib.compress(text_at(72, 700, b"The river went."))
    stream = b"<< /Filter /FlateDecode /Length %d >>\nstream\n%s\nendstream" % (
        len(content),
        content,
    )
    page = (b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R "
            b"/Resources << /Font << /F1 3 0 R >> >> >>")  # fmt: skip
    made = samples.file_of([_CATALOG, _PAGES % (b"5 0 R", 1), HELVETICA % b"", stream, page])
    return made.replace(b"startxref\n", b"startxref\n9")


def behind_rubbish() -> bytes:
    return b"\n\n" + drawn(text_at(72, 700, b"The river went."))


def cut() -> bytes:
    """The end is missing, as of a download that was stopped."""
    whole = drawn(text_at(72, 700, b"The river went."), text_at(72, 700, b"It rained."))
    return whole[: whole.index(b"xref\n0")]


def soft_hyphens() -> bytes:
    return drawn(text_at(72, 700, b"The inher\\255", b"itance and the boat-", b"house of May."),
                 font=HELVETICA % b"/Encoding /WinAnsiEncoding")  # fmt: skip


def notes_at_the_foot() -> bytes:
    """Headers, page numbers and the same line at the foot of each of many pages."""
    return drawn(*(
        text_at(72, 750, b"The Mill, a report")
        + text_at(72, 700, b"Day %d of rain," % day, b"and no sun,", b"but %d birds." % (day + 7))
        + text_at(72, 50, b"Page %d of 6" % day)
        for day in range(1, 7)
    ))  # fmt: skip
