"""Text is read from anywhere; what is not text is refused with a remedy; pauses are noticed."""

from __future__ import annotations

import hashlib
import io
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from allmem_runtime.errors import SourceError
from allmem_runtime.text.blocks import BLOCK_BYTES
from allmem_runtime.text.live import PausingSource
from allmem_runtime.text.pause import PAUSE
from allmem_runtime.text.sources import Source, open_source

NO_INPUT = io.BytesIO()


def stdin(data: bytes) -> Source:
    return open_source("-", io.BytesIO(data))


def written(folder: Path, name: str, data: bytes) -> str:
    path = folder / name
    path.write_bytes(data)
    return str(path)


@pytest.mark.parametrize("name", ["a.txt", "notes.md", "no extension", "👩‍🚀 book.TXT", "x.log"])
def test_a_file_is_read_from_any_byte(name: str, tmp_path: Path) -> None:
    data = "Größe und Maß. ".encode() * 9000
    source = open_source(written(tmp_path, name, data), NO_INPUT)
    assert (source.name, source.size) == (name, len(data))
    for start in (0, 1, BLOCK_BYTES, len(data) - 1, len(data)):
        assert b"".join(source.pieces(start)) == data[start:]


def test_standard_input_is_read_and_can_be_taken_up_later() -> None:
    data = b"line\n" * 50000
    assert stdin(data).size is None
    assert b"".join(stdin(data).pieces()) == data
    assert b"".join(stdin(data).pieces(70001)) == data[70001:]


def test_pieces_are_bounded(tmp_path: Path) -> None:
    source = open_source(written(tmp_path, "a", b"x" * 300000), NO_INPUT)
    assert max(len(piece) for piece in source.pieces()) <= BLOCK_BYTES


def test_the_digest_is_of_the_beginning(tmp_path: Path) -> None:
    data = b"abc" * 50000
    source = open_source(written(tmp_path, "a", data), NO_INPUT)
    for length in (0, 100001, 150000):
        assert source.digest(length).hexdigest() == hashlib.sha256(data[:length]).hexdigest()
    with pytest.raises(SourceError, match="ends before byte 150001"):
        source.digest(150001)


@pytest.mark.parametrize(
    ("name", "data", "says", "remedy"),
    [
        pytest.param("a.txt", b"", "is empty", "text", id="empty"),
        pytest.param("a.txt", b"%PDF-1.7 ...", "PDF", "pdftotext", id="PDF by content"),
        pytest.param("a.pdf", b"some text", "PDF", "pdftotext", id="PDF by name"),
        pytest.param("a.EPUB", b"PK\x03\x04", "EPUB", "pandoc", id="EPUB"),
        pytest.param("a", b"\xef\xbb\xbf \n<!DOCTYPE html><p>", "HTML", "pandoc", id="HTML"),
        pytest.param("a.htm", b"text", "HTML", "pandoc", id="HTML by name"),
        pytest.param("a.log.gz", b"\x1f\x8b\x08", "gzip", "zcat", id="gzip"),
        pytest.param("a.txt", "täglich".encode("utf-16"), "UTF-16", "iconv", id="UTF-16"),
        pytest.param("a.txt", b"abc\x00def", "zero bytes", "UTF-8", id="zero byte"),
        pytest.param("a.txt", "Привет, мир".encode("cp1251"), "not UTF-8", "iconv", id="cp1251"),
        pytest.param("a.bin", bytes(range(1, 256)), "not UTF-8", "iconv", id="binary"),
    ],
)
def test_what_is_not_text_is_refused_with_a_remedy(
    name: str, data: bytes, says: str, remedy: str, tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match=says) as caught:
        open_source(written(tmp_path, name, data), NO_INPUT)
    assert remedy in caught.value.hint
    assert name in caught.value.message


def test_latin_1_text_of_a_european_language_is_read(tmp_path: Path) -> None:
    data = "Die Größe des Bootshauses überrascht. ".encode("latin-1")
    assert b"".join(open_source(written(tmp_path, "a", data), NO_INPUT).pieces()) == data


def test_a_character_cut_at_the_end_of_the_first_block_is_no_error(tmp_path: Path) -> None:
    source = open_source(written(tmp_path, "a", "東".encode() * 70000), NO_INPUT)
    assert len(b"".join(source.pieces())) == 210000


def test_a_directory_a_missing_and_an_unreadable_file_are_source_errors(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is a directory"):
        open_source(str(tmp_path), NO_INPUT)
    with pytest.raises(SourceError, match="No such file"):
        open_source(str(tmp_path / "missing"), NO_INPUT)
    with pytest.raises(SourceError, match="null byte"):
        open_source("a\0b", NO_INPUT)
    path = Path(written(tmp_path, "secret", b"text"))
    path.chmod(0)
    if not os.access(path, os.R_OK):
        with pytest.raises(SourceError, match="Permission denied"):
            open_source(str(path), NO_INPUT)


@pytest.mark.parametrize("data", [b"", b"a\0b", b"%PDF-1"], ids=["empty", "zero byte", "PDF"])
def test_standard_input_that_is_no_text_is_refused(data: bytes) -> None:
    with pytest.raises(SourceError, match="standard input"):
        list(stdin(data).pieces())


def test_a_source_shorter_than_what_was_read_of_it_is_refused(tmp_path: Path) -> None:
    source = open_source(written(tmp_path, "a", b"abc"), NO_INPUT)
    with pytest.raises(SourceError, match="ends before byte 4") as caught:
        list(source.pieces(4))
    assert caught.value.hint
    with pytest.raises(SourceError, match="ends before"):
        list(stdin(b"abc").pieces(4))


def test_a_named_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=lambda: path.write_bytes(b"through a pipe"))
    writer.start()
    assert b"".join(open_source(str(path), NO_INPUT).pieces()) == b"through a pipe"
    writer.join()


def test_a_live_source_gives_one_pause_for_each_silence() -> None:
    go = threading.Semaphore(0)

    def pieces() -> Iterator[bytes]:
        yield b"a"
        yield b"b"
        go.acquire()
        yield b"c"

    seen: list[object] = []
    for item in PausingSource(pieces(), pause=0.5):  # far longer than from a to b on a busy machine
        seen.append(item)
        if item is PAUSE:
            time.sleep(1)
            go.release()
    assert seen == [b"a", b"b", PAUSE, b"c"]


def test_a_live_source_without_pauses_just_gives_the_pieces() -> None:
    assert list(PausingSource(iter([b"a", b"b"]), pause=None)) == [b"a", b"b"]


def test_a_live_source_raises_what_its_reading_raised() -> None:
    def pieces() -> Iterator[bytes]:
        yield b"a"
        raise SourceError("gone", "Look for it.")

    source = iter(PausingSource(pieces(), pause=None))
    assert next(source) == b"a"
    with pytest.raises(SourceError, match="gone"):
        next(source)


def test_a_live_source_that_waits_can_be_ended() -> None:
    never = threading.Event()

    def pieces() -> Iterator[bytes]:
        never.wait(30)
        yield b"late"

    source = PausingSource(pieces(), pause=None)
    threading.Timer(0.2, source.end).start()
    before = time.monotonic()
    assert list(source) == [PAUSE]
    assert time.monotonic() - before < 5
    assert source.rest() == b""
    never.set()


def test_what_a_live_source_read_ahead_is_its_rest() -> None:
    given = [bytes([65 + i]) * 3 for i in range(20)]
    taken = []

    def pieces() -> Iterator[bytes]:
        for piece in given:
            taken.append(piece)
            yield piece

    source = PausingSource(pieces(), pause=None)
    items = iter(source)
    seen = next(items)
    assert isinstance(seen, bytes)
    time.sleep(0.3)  # the queue is full, and one more piece waits for room in it
    source.end()
    assert list(items)[-1] is PAUSE
    assert seen + source.rest() == b"".join(taken)
    assert 3 < len(taken) < len(given)


def test_a_fast_writer_waits_for_the_reader() -> None:
    taken = []

    def pieces() -> Iterator[bytes]:
        for _ in range(1000):
            taken.append(1)
            yield b"x"

    source = PausingSource(pieces(), pause=None)
    next(iter(source))
    time.sleep(0.3)
    assert len(taken) < 40
    source.end()
