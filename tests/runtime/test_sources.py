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


XHTML = (
    b'<?xml version="1.0" encoding="utf-8"?>\n<!-- a page -->\n'
    b'<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Strict//EN" "">\n<html><p>Text</p></html>'
)


@pytest.mark.parametrize(
    ("name", "data", "says", "remedy"),
    [
        pytest.param("a.txt", b"", "is empty", "text", id="empty"),
        pytest.param("a.txt", b"%PDF-1.7 ...", "PDF", "pdftotext", id="PDF by content"),
        pytest.param("a.pdf", b"damaged \0", "PDF", "pdftotext", id="PDF by name"),
        pytest.param("a.EPUB", b"PK\x03\x04", "EPUB", "pandoc", id="EPUB"),
        pytest.param("a", b"\xef\xbb\xbf \n<!DOCTYPE html><p>", "HTML", "pandoc", id="HTML"),
        pytest.param("a.htm", b"text", "HTML", "pandoc", id="HTML by name"),
        pytest.param("a.log.gz", b"\x1f\x8b\x08", "gzip", "zcat", id="gzip"),
        pytest.param("a", XHTML, "HTML", "pandoc", id="XHTML"),
        pytest.param("a.txt", XHTML.decode().encode("utf-16"), "HTML", "pandoc", id="wide XHTML"),
        pytest.param("a.txt", b"\x89PNG\r\n\x1a\nno more", "picture", "text", id="PNG"),
        pytest.param("a.txt", b"abc\x00def", "zero bytes", "--encoding", id="zero byte"),
        pytest.param("a.bin", bytes(range(1, 256)), "control", "--encoding", id="binary"),
        pytest.param("a.txt", b"x\x01" * 40, "control", "--encoding", id="control characters"),
    ],
)
def test_what_is_not_text_is_refused_with_a_remedy(
    name: str, data: bytes, says: str, remedy: str, tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match=says) as caught:
        open_source(written(tmp_path, name, data), NO_INPUT)
    assert remedy in caught.value.hint
    assert name in caught.value.message


def test_text_is_text_whatever_it_is_called(tmp_path: Path) -> None:
    for name in ("a.pdf", "a.doc", "a.gz"):
        for encoding in ("utf-8", "utf-16"):
            source = open_source(written(tmp_path, name, "Some text.".encode(encoding)), NO_INPUT)
            assert b"".join(source.pieces()) == b"Some text."


TEXTS = {
    "cp1252": "Die Größe des Bootshauses überrascht. Müßig saß der Förster am Fluß.\n",
    "cp1251": "Привет, мир. Никто не видел ключей с мая, и собака тоже пропала.\n",
    "gb18030": "船库的钥匙挂在走廊里，在钟的后面。自五月以来没有人去过那里。\n",
    "cp932": "ボート小屋の鍵は、時計の後ろの廊下に掛かっています。五月から誰もいません。\n",
    "utf-16": "Die Größe des Bootshauses.\n",
    "utf-16-le": "Die Größe des Bootshauses.\n",
    "utf-16-be": "船库的钥匙挂在走廊里。\n",
    "utf-32": "Die Größe des Bootshauses.\n",
    "utf-32-le": "Die Größe des Bootshauses.\n",
}


@pytest.mark.parametrize("encoding", TEXTS)
def test_text_in_another_encoding_is_read_and_it_is_said_in_which(
    encoding: str, tmp_path: Path
) -> None:
    text = TEXTS[encoding] * 30
    told: list[str] = []
    path = written(tmp_path, "a.txt", text.encode(encoding))
    source = open_source(path, NO_INPUT, tell=told.append)
    expected = text.encode()
    assert b"".join(source.pieces()) == expected
    assert source.size == len(expected)
    assert b"".join(source.pieces(101)) == expected[101:]  # as an interrupted reading goes on
    assert source.digest(101).hexdigest() == hashlib.sha256(expected[:101]).hexdigest()
    (notice,) = told
    assert notice.startswith("a.txt is not in UTF-8; it is read as ") and "--encoding" in notice

    piped = open_source("-", io.BytesIO(text.encode(encoding)), tell=told.append)
    assert b"".join(piped.pieces()) == expected
    assert told[1].startswith("standard input is not in UTF-8")


@pytest.mark.parametrize("encoding", ["gb18030", "cp1252"])
def test_what_is_not_ascii_may_come_late(encoding: str, tmp_path: Path) -> None:
    text = "Nothing but plain letters here.\n" * 4096 + TEXTS[encoding] * 30
    source = open_source(written(tmp_path, "a.txt", text.encode(encoding)), NO_INPUT)
    assert b"".join(source.pieces()).decode() == text


def test_an_encoding_that_is_named_overrules_what_the_bytes_tell(tmp_path: Path) -> None:
    path = written(tmp_path, "a.txt", "Größe".encode("cp1252"))
    told: list[str] = []
    forced = open_source(path, NO_INPUT, "cp1251", told.append)
    assert b"".join(forced.pieces()).decode() == "Größe".encode("cp1252").decode("cp1251")
    raw = open_source(path, NO_INPUT, "utf-8", told.append)
    assert b"".join(raw.pieces()) == "Größe".encode("cp1252")
    assert told == []


@pytest.mark.parametrize("end", [1, 2, 3])
def test_a_stream_whose_first_bytes_cut_a_character_is_utf_8(end: int) -> None:
    theirs, ours = os.pipe()
    data = "鍵は廊下に。".encode()
    with open(theirs, "rb", buffering=0) as pipe:
        pieces = open_source("-", pipe).pieces()
        os.write(ours, data[:end])
        first = next(pieces)
        os.write(ours, data[end:])
        os.close(ours)
        assert first + b"".join(pieces) == data


def test_a_file_that_ends_within_a_character_is_utf_8(tmp_path: Path) -> None:
    data = "The key, 鍵".encode()[:-1]
    assert b"".join(open_source(written(tmp_path, "a", data), NO_INPUT).pieces()) == data


def test_a_few_damaged_bytes_at_the_beginning_of_a_stream_decide_nothing() -> None:
    data = b"\xff\xfa\x18 login: "
    assert b"".join(stdin(data).pieces()) == data


def test_damaged_utf_8_stays_utf_8(tmp_path: Path) -> None:
    data = (TEXTS["cp1251"] * 20).encode().replace("мая".encode(), b"\xff\xfe", 3)
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
