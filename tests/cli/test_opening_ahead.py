"""Documents that are opened while others are read."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from pathlib import Path

import document_samples as samples
import pytest
from commands import SHORT, Command
from toy_fixtures import toy_dir as toy_dir

from allmem_runtime.cli import opening
from allmem_runtime.cli.opening import arrived, open_sources
from allmem_runtime.documents.extraction import INSTALL, MissingLibraryError
from allmem_runtime.documents.notes import InstallOnce
from allmem_runtime.errors import SourceError
from allmem_runtime.text.sources import Source

WORDS, KEYS = samples.STORY


def never() -> bool:
    return False


def folder(path: Path) -> Path:
    for name, words in {"a.html": WORDS, "b.html": KEYS, "c.html": "It rained."}.items():
        (path / name).write_bytes(samples.page(f"<p>{words}</p>"))
    (path / "d.txt").write_text("The end.")
    return path


def test_reading_can_begin_before_the_second_document_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may, real = threading.Event(), opening.open_any

    def slow(name: str, *rest: object, **more: object) -> Source:
        if name.endswith("b.html"):
            assert may.wait(60)
        return real(name, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(opening, "open_any", slow)
    sources = open_sources([str(folder(tmp_path))], io.BytesIO(), None, print, ahead=True)
    assert [source.coming is not None for source in sources] == [False, True, True, False]
    install = InstallOnce(print)
    assert arrived(sources[1], install, lambda: True) is None
    may.set()
    found = [arrived(source, install, never) for source in sources]
    assert [b"".join(each.pieces()).strip() for each in found if each] == [
        WORDS.encode(), KEYS.encode(), b"It rained.", b"The end.",
    ]  # fmt: skip


@pytest.mark.parametrize("in_folder", [True, False])
def test_what_cannot_be_opened_is_told_where_its_turn_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_folder: bool
) -> None:
    real: Callable[..., Source] = opening.open_any

    def lacking(name: str, *rest: object, **more: object) -> Source:
        if name.endswith("b.html"):
            raise MissingLibraryError("b.html lacks it.", INSTALL)
        return real(name, *rest, **more)

    monkeypatch.setattr(opening, "open_any", lacking)
    where = folder(tmp_path)
    names = [str(where)] if in_folder else [str(where / name) for name in ("a.html", "b.html")]
    told: list[str] = []
    sources = open_sources(names, io.BytesIO(), None, told.append, ahead=True)
    install = InstallOnce(told.append)
    if not in_folder:
        with pytest.raises(SourceError, match="lacks it"):
            arrived(sources[1], install, never)
        return
    assert [bool(arrived(source, install, never)) for source in sources] == [
        True,
        False,
        True,
        True,
    ]
    install.end()
    install.end()
    assert told == ["Left out: b.html lacks it.", INSTALL]


def test_a_named_document_that_cannot_be_read_keeps_what_was_read_before_it(
    command: Command, toy_dir: Path, tmp_path: Path
) -> None:
    session = tmp_path / "s.allmem"
    names = [folder(tmp_path) / "a.html", tmp_path / "bad.pdf"]
    names[1].write_bytes(samples.encrypted_pdf())
    given = ("allmem-run", toy_dir, *names, "--session", session, "--prompt", "Hm?", *SHORT)
    result = command(*given)
    assert result.code == 1 and "bad.pdf is encrypted." in result.err and session.exists()
    names[1].write_bytes(samples.pdf([[KEYS]]))
    result = command(*given)
    assert result.code == 0 and "a.html was read before." in result.err
