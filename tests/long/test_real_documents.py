"""One manual as PDF and as text: the same words, on the pages they are printed on."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from allmem_runtime.documents.opening import open_any
from allmem_runtime.text.sources import Source
from benchmarks.documents.order import common, moved

pytestmark = pytest.mark.long

PACKAGE = "debian-reference-en"
SAME = 0.99
SAME_OF_TEXT = 0.98
"""Of the words of the text 98.6 % were found in the PDF when this was written."""
IN_ORDER, IN_ORDER_OR_MOVED = 0.925, 0.97
"""93.0 % and 97.4 % when this was written: tables and titles are printed where there is room."""


@pytest.fixture(scope="module")
def manual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a Debian package, which is fetched and unpacked, not installed."""
    folder = tmp_path_factory.mktemp("manual")
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        pytest.skip("needs apt-get and dpkg-deb")
    common = PACKAGE.removesuffix("-en") + "-common"
    if subprocess.run(["apt-get", "download", PACKAGE, common], cwd=folder).returncode:
        pytest.skip(f"{PACKAGE} cannot be fetched")
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
    (pdf,) = folder.rglob("debian-reference.en.pdf")
    return pdf.parent


def opened(path: Path) -> Source:
    return open_any(str(path), io.BytesIO(), "", lambda said: None)


def words(text: str) -> list[str]:
    """The words of prose; marks, numbers and the dots of a table of contents are none."""
    return re.findall(r"[a-z]{2,}", text.replace("\xad", "").lower())


def words_in_order(source: Source) -> list[str]:
    return words(b"".join(source.pieces()).decode())


def words_of(source: Source) -> Counter[str]:
    return Counter(words_in_order(source))


def test_words_of_the_pdf_are_those_of_the_text(manual: Path) -> None:
    printed = words_of(opened(manual / "debian-reference.en.pdf"))
    text = words_of(opened(manual / "debian-reference.en.txt.gz"))
    assert (printed & text).total() >= SAME * printed.total()
    assert (printed & text).total() >= SAME_OF_TEXT * text.total()


def test_words_of_the_pdf_are_in_the_order_of_the_text_but_for_what_it_prints_elsewhere(
    manual: Path,
) -> None:
    printed = words_in_order(opened(manual / "debian-reference.en.pdf"))
    text = words_in_order(opened(manual / "debian-reference.en.txt.gz"))
    length, *left = common(printed, text)
    assert length >= IN_ORDER * len(printed)
    assert length + moved(*left) >= IN_ORDER_OR_MOVED * len(printed)


def test_pdf_tells_the_pages_its_words_are_printed_on(manual: Path) -> None:
    source = opened(manual / "debian-reference.en.pdf")
    assert source.document is not None and source.size is not None
    data = b"".join(source.pieces())
    marks = source.document.within(0, source.size)
    pages = [mark.page for mark in marks]
    assert pages == sorted(set(pages)) and len(pages) >= 250
    number = pages.index(61)
    text = data[marks[number].at : marks[number + 1].at].decode()
    assert "grep(1) can be used to perform the text search" in text
    assert "33 / 233" not in text
