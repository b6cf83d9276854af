"""What of the sources a session has not read yet, by what it knows of each."""

from __future__ import annotations

import dataclasses
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from allmem_runtime.cli.resume import Plan, plan
from allmem_runtime.errors import SourceError
from allmem_runtime.source_mark import HEAD_BYTES, SourceMark
from allmem_runtime.text.sources import Source, location, open_source

A, B, C = b"first text " * 9000, b"second text " * 9000, b"third text " * 9000
DATA = {"a.txt": A, "b.txt": B, "c.txt": C}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, data in DATA.items():
        (tmp_path / name).write_bytes(data)
    return tmp_path


def mark(data: bytes, path: Path | str = "standard input", offset: int | None = None) -> SourceMark:
    """What a session knows after reading ``data`` up to ``offset``, or to its end."""
    read = data[:offset]
    head = read[:HEAD_BYTES]
    return SourceMark(
        name=Path(path).name,
        location=location(path) if isinstance(path, Path) else "",
        offset=len(read),
        finished=offset is None,
        digest=hashlib.sha256(read).hexdigest(),
        head=hashlib.sha256(head).hexdigest() if head else "",
        head_bytes=len(head),
    )


def earlier_version(known: SourceMark) -> SourceMark:
    return dataclasses.replace(known, name="", location="")


def files(folder: Path, names: str) -> list[Source]:
    return [open_source(str(folder / f"{name}.txt"), io.BytesIO()) for name in names]


def pipe(data: bytes) -> Source:
    return open_source("-", io.BytesIO(data))


def read(found: Plan) -> list[tuple[bytes, int, bool]]:
    return [(b"".join(part.pieces), part.start, part.mark is None) for part in found.parts]


def states(found: Plan) -> str:
    return " ".join(item.what for item in found.found)


def told(sources: Sequence[Source], marks: Sequence[SourceMark], **options: Any) -> str:
    return " ".join(plan(sources, marks, **options).notices)


def test_a_blank_session_reads_everything_and_says_nothing_of_it(folder: Path) -> None:
    found = plan(files(folder, "abc"), ())
    assert read(found) == [(A, 0, True), (B, 0, True), (C, 0, True)]
    assert found.notices == []


def test_a_new_file_among_old_ones_is_read_wherever_it_stands(folder: Path) -> None:
    marks = (mark(A, folder / "a.txt"), mark(C, folder / "c.txt"))
    found = plan(files(folder, "abc"), marks)
    assert states(found) == "unchanged new unchanged"
    assert read(found) == [(B, 0, True)]
    assert found.notices[0] == "a.txt, c.txt were read before."


def test_other_sources_are_added_to_those_read_before(folder: Path) -> None:
    found = plan(files(folder, "b"), [mark(A, folder / "a.txt")])
    assert read(found) == [(B, 0, True)]
    assert found.notices == ["1 new source added to what was read before."]


def test_when_the_last_file_is_deleted_nothing_is_read_again(folder: Path) -> None:
    marks = [mark(DATA[name], folder / name) for name in DATA]
    found = plan(files(folder, "ab"), marks)
    assert read(found) == []
    assert found.notices[-1] == "Not among these: c.txt; what was read stays."


def test_a_file_that_is_gone_is_named_and_the_others_are_read(folder: Path) -> None:
    gone = folder / "a.txt"
    missing = Source("a.txt", 0, path=gone, location=location(gone), missing=True)
    found = plan([missing, *files(folder, "b")], [mark(A, gone)])
    assert states(found) == "gone new"
    assert read(found) == [(B, 0, True)]
    assert found.notices[0] == "a.txt is gone; what was read of it stays."
    with pytest.raises(SourceError, match="a.txt is gone, and was not read to its end") as caught:
        plan([missing], [mark(A, gone, 5000)])
    assert "--changed skip" in caught.value.hint
    assert read(plan([missing], [mark(A, gone, 5000)], on_change="skip")) == []


@pytest.mark.parametrize("last", [True, False], ids=["read last", "read before another"])
def test_of_a_file_that_grew_the_rest_is_read(folder: Path, last: bool) -> None:
    grown, other = mark(A, folder / "a.txt"), mark(B, folder / "b.txt")
    (folder / "a.txt").write_bytes(A + b"more")
    found = plan(files(folder, "ab"), [other, grown] if last else [grown, other])
    assert states(found) == "grown unchanged"
    assert read(found) == [(b"more", len(A), False)]
    (part,) = found.parts
    assert part.mark is not None and part.mark.running is not None
    assert part.mark.running.hexdigest() == hashlib.sha256(A).hexdigest()
    assert "a.txt has grown: going on at byte 99,000." in found.notices


CHANGED = A[:80_000] + b"X" + A[80_001:]


@pytest.mark.parametrize(
    ("data", "offset"),
    [
        *((data, None) for data in (CHANGED, CHANGED + b"more", A[:-1], b"")),
        *((data, 90_000) for data in (CHANGED, CHANGED + b"more", A[:70_000], b"")),
    ],
    ids=lambda value: value if not isinstance(value, bytes) else len(value),
)
def test_a_file_that_was_changed_is_told_and_the_user_has_the_choice(
    folder: Path, data: bytes, offset: int | None
) -> None:
    (folder / "a.txt").write_bytes(data)
    source = Source("a.txt", len(data), folder / "a.txt", location=location(folder / "a.txt"))
    sources, marks = [source, *files(folder, "b")], [mark(A, folder / "a.txt", offset)]
    with pytest.raises(SourceError, match="a.txt was changed since it was read: ") as caught:
        plan(sources, marks)
    for choice in ("--changed read", "--changed skip", "--session"):
        assert choice in caught.value.hint
    anew = plan(sources, marks, on_change="read")
    assert read(anew) == [(data, 0, True), (B, 0, True)]
    assert "read anew" in anew.notices[0]
    without = plan(sources, marks, on_change="skip")
    assert read(without) == [(B, 0, True)]
    assert "left out" in without.notices[0]


def test_after_it_was_read_anew_a_file_is_known_as_it_was_and_as_it_is(folder: Path) -> None:
    marks = [mark(A, folder / "a.txt"), mark(CHANGED, folder / "a.txt")]
    for data in (A, CHANGED):
        (folder / "a.txt").write_bytes(data)
        assert states(plan(files(folder, "a"), marks)) == "unchanged"


@pytest.mark.parametrize("offset", [0, 1, 50_000, HEAD_BYTES, 90_000, len(B)])
@pytest.mark.parametrize("old", [False, True], ids=["", "of an earlier version"])
def test_an_unfinished_source_is_continued(folder: Path, offset: int, old: bool) -> None:
    known = mark(B, folder / "b.txt", offset)
    if old and offset:
        known = earlier_version(known)
    found = plan(files(folder, "abc"), [mark(A, folder / "a.txt"), known])
    assert states(found) == "unchanged unfinished new"
    assert read(found) == [(B[offset:], offset, False), (C, 0, True)]


def test_an_unfinished_file_must_be_given_again_or_given_up(folder: Path) -> None:
    known = mark(A, folder / "a.txt", 50_000)
    for marks in ([known], [earlier_version(known)]):
        with pytest.raises(SourceError, match="50,000.*not among these") as caught:
            plan(files(folder, "bc"), marks)
        assert "--changed skip" in caught.value.hint
        found = plan(files(folder, "bc"), marks, on_change="skip")
        assert read(found) == [(B, 0, True), (C, 0, True)]
    # Once it was given up, it is still gone on with when it comes.
    found = plan(files(folder, "a"), [known, mark(B, folder / "b.txt")])
    assert read(found) == [(A[50_000:], 50_000, False)]


def test_what_waited_of_a_pipe_is_read_before_other_sources_under_its_name(folder: Path) -> None:
    known = mark(A, offset=50_000)
    found = plan(files(folder, "b"), [known], A[50_000:60_000])
    assert read(found) == [(A[50_000:60_000], 50_000, False), (B, 0, True)]
    assert found.parts[0].source.name == "standard input"
    live = plan([pipe(C)], [known], A[50_000:60_000], live=True)
    assert read(live) == [(A[50_000:60_000], 50_000, False), (C, 0, True)]


@pytest.mark.parametrize("offset", [None, 90_000], ids=["finished", "unfinished"])
def test_a_file_that_was_moved_is_recognized(folder: Path, offset: int | None) -> None:
    known = mark(A, folder / "elsewhere" / "old.txt", offset)
    found = plan(files(folder, "a"), [known])
    assert states(found) == ("unfinished" if offset else "unchanged")


def test_a_moved_file_that_grew_is_recognized_by_its_name(folder: Path) -> None:
    grown = A + b"more"
    for name in ("a.txt", "other.txt"):
        (folder / name).write_bytes(grown)
    known = [mark(A, folder / "elsewhere" / "a.txt")]
    assert states(plan(files(folder, "a"), known)) == "grown"
    # Another text may begin like one that was read.
    other = open_source(str(folder / "other.txt"), io.BytesIO())
    assert states(plan([other], known)) == "new"


def test_files_of_one_name_in_two_folders_are_two_sources(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "a.txt").write_bytes(B)
    second = open_source(str(folder / "sub" / "a.txt"), io.BytesIO())
    first = mark(A, folder / "a.txt")
    assert states(plan([*files(folder, "a"), second], [first])) == "unchanged new"


def test_a_file_that_is_named_twice_is_read_once(folder: Path) -> None:
    found = plan(files(folder, "aba"), ())
    assert read(found) == [(A, 0, True), (B, 0, True)]
    assert found.notices == ["a.txt is named twice; it is read once."]


def test_many_names_are_told_shortly(folder: Path) -> None:
    marks = [mark(A, folder / "a.txt")]
    for number in range(7):
        marks.append(mark(b"%d" % number, folder / f"{number}.txt"))
    assert "Not among these: 0.txt, 1.txt, 2.txt and 4 more;" in told(files(folder, "a"), marks)


@pytest.mark.parametrize("offset", [1, 90_000, len(A)])
def test_a_pipe_is_recognized_and_continued(offset: int) -> None:
    assert read(plan([pipe(A)], [mark(A, offset=offset)])) == [(A[offset:], offset, False)]


def test_a_pipe_that_was_read_to_its_end_is_not_read_again() -> None:
    assert read(plan([pipe(A)], [mark(A), mark(B)])) == []


def test_of_a_pipe_that_grew_the_rest_is_read() -> None:
    found = plan([pipe(A + B)], [mark(A)])
    assert states(found) == "grown"
    assert read(found) == [(B, len(A), False)]


def test_a_pipe_with_other_text_loses_nothing_by_being_looked_at(folder: Path) -> None:
    assert read(plan([pipe(B)], [mark(A)])) == [(B, 0, True)]
    assert read(plan([pipe(b"short")], [mark(A)])) == [(b"short", 0, True)]
    # It begins like a short file that was read, and is another text.
    assert read(plan([pipe(A)], [mark(A[:50], folder / "a.txt")])) == [(A, 0, True)]
    assert read(plan([pipe(A[:50])], [mark(A[:50], folder / "a.txt")])) == []


@pytest.mark.parametrize("offset", [80_001, 90_000, None], ids=["just read", "read", "finished"])
@pytest.mark.parametrize("data", [CHANGED, A[:70_000]], ids=["changed", "cut off"])
def test_a_pipe_that_was_changed_behind_its_beginning_is_refused(
    offset: int | None, data: bytes
) -> None:
    with pytest.raises(SourceError, match="was changed since it was read: ") as caught:
        read(plan([pipe(data)], [mark(A, offset=offset)]))
    assert "--stream" in caught.value.hint


@pytest.mark.parametrize("kind", ["file", "pipe"])
def test_a_change_of_what_was_not_read_yet_matters_to_nobody(folder: Path, kind: str) -> None:
    (folder / "a.txt").write_bytes(CHANGED)
    source = pipe(CHANGED) if kind == "pipe" else files(folder, "a")[0]
    path = "standard input" if kind == "pipe" else folder / "a.txt"
    found = plan([source], [mark(A, path, 80_000)])
    assert read(found) == [(CHANGED[80_000:], 80_000, False)]


def test_a_session_of_an_earlier_version_knows_the_beginning_only(folder: Path) -> None:
    (folder / "a.txt").write_bytes(CHANGED)
    known = dataclasses.replace(earlier_version(mark(A, offset=90_000)), digest="")
    (part,) = plan(files(folder, "a"), [known]).parts
    assert part.start == 90_000
    assert part.mark is not None and part.mark.running is not None  # from now on it is known
    assert part.mark.running.hexdigest() == hashlib.sha256(CHANGED[:90_000]).hexdigest()


def test_a_session_of_an_earlier_version_notices_a_change_far_behind_the_beginning(
    folder: Path,
) -> None:
    (folder / "a.txt").write_bytes(CHANGED)
    with pytest.raises(SourceError, match="a.txt was changed"):
        plan(files(folder, "a"), [earlier_version(mark(A))])
