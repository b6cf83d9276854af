"""Files of odd kinds: each gives its words in their order, or is named with a remedy."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import document_samples as samples
import odd_pdfs
import pytest
from odd_files import READ

from allmem_runtime.documents.opening import open_any
from allmem_runtime.errors import SourceError


@pytest.mark.parametrize("name", READ)
def test_odd_file_gives_its_words_in_their_order(tmp_path: Path, name: str) -> None:
    make, words = READ[name]
    (tmp_path / name).write_bytes(make())
    told: list[str] = []
    source = open_any(str(tmp_path / name), io.BytesIO(), "", told.append)
    assert b"".join(source.pieces()).decode().split() == words.split()
    assert source.document is not None and not told


@pytest.mark.parametrize(
    ("name", "make", "remedy"),
    [
        ("scanned.pdf", odd_pdfs.scanned, "recognizes text"),
        ("cut.pdf", odd_pdfs.cut, "another copy"),
        ("locked.pdf", samples.encrypted_pdf, "without its password"),
        ("table.xlsx", lambda: samples.zipped({"[Content_Types].xml": b"<a/>"}), "as PDF"),
    ],
)
def test_odd_file_that_cannot_be_read_is_named_with_a_remedy(
    tmp_path: Path, name: str, make: Callable[[], bytes], remedy: str
) -> None:
    (tmp_path / name).write_bytes(make())
    with pytest.raises(SourceError) as caught:
        open_any(str(tmp_path / name), io.BytesIO(), "", print)
    assert caught.value.message.startswith(f"{name} is ") and remedy in caught.value.hint
