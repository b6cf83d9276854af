"""When standard input is read, when it is left alone, and what is said of it."""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path

import pytest
from commands import TEXT, finished, process

from allmem_runtime.cli import standard_input
from allmem_runtime.cli.standard_input import announced, has_text, was_given

SHORT = ("--max-tokens", 3, "--device", "cpu", "--operators", "portable")


def test_a_loop_over_the_lines_of_a_file_keeps_them(tiny_model_dir: Path, tmp_path: Path) -> None:
    questions = tmp_path / "questions.txt"
    questions.write_text("Who?\nWhere?\n" + TEXT * 20)
    loop = 'read -r q; "$@" --prompt "$q"; cat'
    running = process(
        "allmem-run", tiny_model_dir, *SHORT, prefix=["sh", "-c", loop, "sh"],
        stdin=questions.open("rb"),
    )  # fmt: skip
    result = finished(running)
    assert result.code == 0 and "> Who?" in result.err
    assert result.out.endswith("Where?\n" + TEXT * 20)  # it is left to the loop
    assert "standard input" not in result.err.lower()


def test_text_that_is_piped_in_beside_named_sources_is_not_ignored_without_a_word(
    tiny_model_dir: Path, document: Path
) -> None:
    running = process("allmem-run", tiny_model_dir, document, "--prompt", "Who?", *SHORT)
    assert running.stdin is not None
    running.stdin.write(b"More text.\n")
    result = finished(running)
    assert result.code == 0 and "Standard input is not read: sources are named." in result.err
    quiet = finished(process("allmem-run", tiny_model_dir, document, "--prompt", "?", *SHORT))
    assert "Standard input" not in quiet.err


def test_a_pipe_and_a_file_from_its_start_were_given(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\ntwo\n")
    with path.open("rb", buffering=0) as file:
        assert was_given(file) and has_text(file)
        file.read(4)
        assert not was_given(file) and not has_text(file)
    theirs, ours = os.pipe()
    with open(theirs, "rb", buffering=0) as pipe:
        assert was_given(pipe) and not has_text(pipe)
        os.write(ours, b"x")
        assert has_text(pipe)
    os.close(ours)
    with open(os.devnull, "rb", buffering=0) as nothing:
        assert not was_given(nothing)
    assert not was_given(io.BytesIO(b"text"))


def test_a_pipe_that_says_nothing_is_waited_for_with_a_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(standard_input, "SILENCE_SECONDS", 0.01)
    theirs, ours = os.pipe()
    told = threading.Event()
    words: list[str] = []

    def tell(text: str) -> None:
        words.append(text)
        os.write(ours, b"late")
        told.set()

    with open(theirs, "rb", buffering=0) as pipe:
        stream = announced(pipe, tell)
        assert stream.read(100) == b"late"
        os.write(ours, b"more")
        assert stream.read(100) == b"more"
    os.close(ours)
    assert told.wait(10) and len(words) == 1
    assert words[0].startswith("Waiting for standard input")


def test_a_pipe_that_speaks_at_once_is_read_without_a_word() -> None:
    words: list[str] = []
    assert announced(io.BytesIO(b"text"), words.append).read(10) == b"text"
    assert words == []
