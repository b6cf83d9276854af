"""One manual as PDF, as web pages and as text: the same words, on the pages they are printed on."""

from __future__ import annotations

import difflib
import io
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from allmem_runtime.documents.opening import open_any
from allmem_runtime.text.sources import Source

pytestmark = pytest.mark.long

PACKAGE = "debian-reference-en"
SAME = 0.99


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


def share(wanted: list[str], found: list[str]) -> float:
    """Share of the words that are found, in the same order."""
    matcher = difflib.SequenceMatcher(None, wanted, found, autojunk=False)
    return sum(block.size for block in matcher.get_matching_blocks()) / len(wanted)


@pytest.mark.parametrize("chapter", ["ch01", "ch05", "ch10"])
def test_pages_of_the_web_have_the_words_of_the_text(manual: Path, chapter: str) -> None:
    page = words(b"".join(opened(manual / f"{chapter}.en.html").pieces()).decode())
    text = words(b"".join(opened(manual / "debian-reference.en.txt.gz").pieces()).decode())
    assert share(page, _around(text, page)) >= SAME


def _around(text: list[str], page: list[str]) -> list[str]:
    """The stretch of the text a page stands in: between its first and its last words."""
    first = [i for i in range(len(text) - 8) if text[i : i + 8] == page[-8:]]
    end = first[-1] + 8
    return text[max(0, end - len(page) - 4000) : end]


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
