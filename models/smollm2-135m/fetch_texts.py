"""Fetches English books and manuals from Debian packages and lays them out as text and HTML.

Usage: python fetch_texts.py FOLDER. It needs Debian's `apt-get download` and `dpkg-deb`, and no
rights of an administrator: nothing is installed. What FOLDER/<package> holds already is kept.
The texts stay on this machine; their licenses are named in the README beside this file.
"""

from __future__ import annotations

import gzip
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

# Package -> patterns of its English texts. Debian Reference is not among them: it is what
# perplexity is measured on.
PACKAGES = {
    "abs-guide": ["usr/share/doc/abs-guide/html/*.html"],
    "anarchism": ["usr/share/doc/anarchism/html/*.html"],
    "cfi-en": ["usr/share/doc/cfi-en/html/*.htm"],
    "debian-handbook": ["usr/share/doc/debian-handbook/html/en-US/*.html"],
    "developers-reference": ["usr/share/developers-reference/*-*.html",
                             "usr/share/developers-reference/pkgs.html"],
    "harden-doc": ["usr/share/doc/harden-doc/html/en-US/*.html"],
    "jargon-text": ["usr/share/doc/jargon-text/jargon.txt.gz"],
    "perl-doc": ["usr/share/perl/*/pod/perl*tut.pod", "usr/share/perl/*/pod/perlfaq?.pod",
                 "usr/share/perl/*/pod/perl5*delta.pod"],
    "python3.11-doc": ["usr/share/doc/python3.11/html/tutorial/*.html",
                       "usr/share/doc/python3.11/html/howto/*.html",
                       "usr/share/doc/python3.11/html/faq/*.html",
                       "usr/share/doc/python3.11/html/whatsnew/*.html"],
    "r-cran-janeaustenr": ["usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"],
}  # fmt: skip

_STRING = b"\x00\x04\x00\x09"
"""Begins a string in R's serialization: type 9, in ASCII or UTF-8."""


def fetch(package: str, folder: Path) -> int:
    """Unpack a package's texts into ``folder``, which appears only when whole.

    Returns:
        How many files there are.
    """
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        work = Path(name)
        subprocess.run(["apt-get", "download", "-qq", package], cwd=work, check=True)
        archive = next(work.glob("*.deb"))
        subprocess.run(["dpkg-deb", "-x", archive, work / "root"], check=True)
        texts = work / "texts"
        texts.mkdir()
        for pattern in PACKAGES[package]:
            for file in sorted((work / "root").glob(pattern)):
                _lay_out(file, texts)
        count = len(list(texts.iterdir()))
        if count:
            texts.rename(folder)
        return count


def _lay_out(file: Path, texts: Path) -> None:
    if file.suffix == ".gz":
        (texts / file.stem).write_bytes(gzip.decompress(file.read_bytes()))
    elif file.suffix == ".pod":
        shutil.copy(file, texts / f"{file.stem}.txt")
    elif file.suffix == ".rdb":
        for number, book in enumerate(_books(file.read_bytes()), start=1):
            (texts / f"{number}.txt").write_text(book, encoding="utf-8")
    else:
        shutil.copy(file, texts / f"{file.parent.name}-{file.name}")


def _books(data: bytes) -> list[str]:
    """The texts in an R database: each a compressed, serialized list of lines."""
    books = []
    while data:
        packed = zlib.decompressobj()
        content = packed.decompress(data[4:])  # after the unpacked length
        data = packed.unused_data
        lines = []
        place = content.find(_STRING)
        while place >= 0:
            start = place + len(_STRING) + 4
            (length,) = struct.unpack(">I", content[place + len(_STRING) : start])
            lines.append(content[start : start + length].decode("utf-8", "replace"))
            place = content.find(_STRING, start + length)
        books.append("\n".join(lines))
    return books


def main() -> int:
    """Fetch every package that is not there yet; the exit code says whether any text is there."""
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        print("This needs a Debian system: put English .txt, .md or .html files into "
              f"{target}/<any name> instead.", file=sys.stderr)  # fmt: skip
        return 1
    found = 0
    for package in PACKAGES:
        folder = target / package
        try:
            count = len(list(folder.iterdir())) if folder.is_dir() else fetch(package, folder)
        except subprocess.CalledProcessError:
            count = 0
        found += count
        print(f"{package}: {count or 'no'} files")
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
