"""Which parts of the sources a session has not read yet, by what it knows of the last one."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest

from allmem_runtime.cli.resume import Part, remaining
from allmem_runtime.errors import SourceError
from allmem_runtime.source_mark import SourceMark
from allmem_runtime.text.sources import Source, open_source

A, B, C = b"first text " * 9000, b"second text " * 9000, b"third text " * 9000
DIGEST_BYTES = 1 << 16


def mark(data: bytes, offset: int | None = None) -> SourceMark:
    """What a session knows after reading ``data`` up to ``offset``, or to its end."""
    head = data[:DIGEST_BYTES]
    return SourceMark(
        offset=len(data) if offset is None else offset,
        finished=offset is None,
        digest=hashlib.sha256(head).hexdigest(),
        digest_bytes=len(head),
        read_digest=hashlib.sha256(data[:offset]).hexdigest(),
    )


@pytest.fixture
def files(tmp_path: Path) -> list[Source]:
    sources = []
    for name, data in (("a.txt", A), ("b.txt", B), ("c.txt", C)):
        (tmp_path / name).write_bytes(data)
        sources.append(open_source(str(tmp_path / name), io.BytesIO()))
    return sources


def pipe(data: bytes) -> Source:
    return open_source("-", io.BytesIO(data))


def read(parts: list[Part]) -> list[tuple[bytes, int, bool]]:
    return [(b"".join(part.pieces), part.start, part.new) for part in parts]


def test_a_blank_session_reads_everything(files: list[Source]) -> None:
    expected = [(A, 0, True), (B, 0, True), (C, 0, True)]
    assert read(remaining(files, SourceMark())) == expected


@pytest.mark.parametrize("offset", [0, 1, 50_000, DIGEST_BYTES, 90_000, len(B)])
def test_an_unfinished_source_is_continued_and_those_before_it_are_not_read(
    files: list[Source], offset: int
) -> None:
    parts = remaining(files, mark(B, offset))
    assert read(parts) == [(B[offset:], offset, False), (C, 0, True)]


def test_after_a_finished_source_the_next_one_comes(files: list[Source]) -> None:
    assert read(remaining(files, mark(A))) == [(B, 0, True), (C, 0, True)]
    assert remaining(files, mark(C)) == []


def test_other_sources_are_added_to_a_finished_one(files: list[Source]) -> None:
    assert read(remaining(files[1:2], mark(A))) == [(B, 0, True)]


def test_an_unfinished_source_must_be_given_again(files: list[Source]) -> None:
    with pytest.raises(SourceError, match="stopped after 50,000 bytes") as caught:
        remaining(files[1:], mark(A, 50_000))
    assert "--session" in caught.value.hint


def test_a_session_stopped_before_the_first_byte_expects_its_source_still(
    files: list[Source],
) -> None:
    assert read(remaining(files[:1], SourceMark(finished=False))) == [(A, 0, False)]


@pytest.mark.parametrize("changed", [A + b"more", A[:-1]], ids=["longer", "shorter"])
def test_a_finished_source_of_another_length_was_changed(tmp_path: Path, changed: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(changed)
    with pytest.raises(SourceError, match="was changed"):
        remaining([open_source(str(tmp_path / "a.txt"), io.BytesIO())], mark(A))
    with pytest.raises(SourceError, match="was changed"):
        remaining([pipe(changed)], mark(A))


def test_an_unfinished_source_that_is_too_short_was_changed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(A[:70_000])
    with pytest.raises(SourceError, match="was changed"):
        remaining([open_source(str(tmp_path / "a.txt"), io.BytesIO())], mark(A, 90_000))


@pytest.mark.parametrize("offset", [0, 1, 90_000, len(A)])
def test_a_pipe_is_recognized_and_continued(offset: int) -> None:
    assert read(remaining([pipe(A)], mark(A, offset))) == [(A[offset:], offset, False)]


def test_a_pipe_that_was_read_to_its_end_is_not_read_again() -> None:
    assert remaining([pipe(A)], mark(A)) == []


def test_a_pipe_with_other_text_loses_nothing_by_being_looked_at() -> None:
    assert read(remaining([pipe(B)], mark(A))) == [(B, 0, True)]
    assert read(remaining([pipe(b"short")], mark(A))) == [(b"short", 0, True)]


CHANGED = A[:80_000] + b"X" + A[80_001:]


@pytest.mark.parametrize("offset", [80_001, 90_000, None], ids=["just read", "read", "finished"])
@pytest.mark.parametrize("kind", ["file", "pipe"])
def test_a_change_far_behind_the_beginning_is_noticed_where_it_was_read(
    tmp_path: Path, offset: int | None, kind: str
) -> None:
    (tmp_path / "a.txt").write_bytes(CHANGED)
    source = pipe(CHANGED) if kind == "pipe" else open_source(str(tmp_path / "a.txt"), io.BytesIO())
    with pytest.raises(SourceError, match="was changed since it was read: its first") as caught:
        read(remaining([source], mark(A, offset)))
    assert "--session" in caught.value.hint


@pytest.mark.parametrize("kind", ["file", "pipe"])
def test_a_change_of_what_was_not_read_yet_matters_to_nobody(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.txt").write_bytes(CHANGED)
    source = pipe(CHANGED) if kind == "pipe" else open_source(str(tmp_path / "a.txt"), io.BytesIO())
    assert read(remaining([source], mark(A, 80_000))) == [(CHANGED[80_000:], 80_000, False)]


def test_a_session_of_an_earlier_version_knows_the_beginning_only(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(CHANGED)
    known = mark(A, 90_000)
    known.read_digest = ""
    (part,) = remaining([open_source(str(tmp_path / "a.txt"), io.BytesIO())], known)
    assert part.start == 90_000
    assert part.read_before is not None  # from now on it is known
    assert part.read_before.hexdigest() == hashlib.sha256(CHANGED[:90_000]).hexdigest()


def test_a_pipe_that_ends_before_what_was_read_was_changed() -> None:
    with pytest.raises(SourceError, match="now it has 70,000"):
        read(remaining([pipe(A[:70_000])], mark(A, 90_000)))
