"""What was read is kept, or at least answered about, however the reading ends."""

from __future__ import annotations

import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from commands import TEXT, Command, assert_same_state, finished, process, until
from test_interrupts import SHORT

from allmem_runtime import load
from allmem_runtime.cli.reading import Reader
from allmem_runtime.errors import StorageError
from allmem_runtime.files import snapshot
from allmem_runtime.state import Place


def place(session: Path) -> Place:
    return snapshot.read_header(session).place(1 << 20)


def test_text_of_a_pipe_that_ctrl_c_leaves_unread_is_kept_answered_about_and_read_first(
    command: Command, tiny_model_dir: Path, tmp_path: Path
) -> None:
    session, once = tmp_path / "s.allmem", tmp_path / "once.allmem"
    data = (TEXT * 60).encode()[:4031]
    arguments = (tiny_model_dir, "--stream", "--json", *SHORT, "--session")
    running = process("allmem-run", *arguments, session, "--pause", 60, "--prompt", "Who?")
    assert running.stdin is not None
    running.stdin.write(data)
    running.stdin.flush()
    until(running, "reading")
    time.sleep(0.5)
    running.send_signal(signal.SIGINT)
    interrupted = until(running, "interrupted")
    answered = until(running, "answer")["position"]
    assert running.wait(30) == 130
    running.communicate()
    kept = place(session)
    assert kept.unread and interrupted["unread"] == len(kept.unread)
    assert kept.source.offset + len(kept.unread) == len(data)
    assert data.endswith(bytes(kept.unread))

    whole = command("allmem-run", *arguments, once, "--prompt", "Who?", stdin=data)
    assert whole.of("answer")[0]["position"] == answered
    # Asked again, without a source: the same text is behind the question.
    again = command(
        "allmem-run", tiny_model_dir, "--session", session, "--prompt", "Who?", "--json", *SHORT
    )
    assert again.of("answer")[0]["position"] == answered
    assert "not to its end" in "".join(event["text"] for event in again.of("notice"))

    for path in (session, once):
        command("allmem-run", *arguments, path, stdin=b"Then it began to rain.\n")
    assert_same_state(session, once)
    assert place(session).unread == b""


def test_a_file_that_loses_its_end_while_it_is_read_costs_nothing_of_what_was_read(
    tiny_model_dir: Path, document: Path, tmp_path: Path
) -> None:
    document.write_text(TEXT * 3000, encoding="utf-8")
    session = tmp_path / "s.allmem"
    running = process(
        "allmem-run", tiny_model_dir, document, "--session", session, "--json", *SHORT
    )
    until(running, "reading")
    os.truncate(document, 5000)
    result = finished(running)
    assert result.code == 1
    assert result.events[-1]["event"] == "error"
    assert "lost its end" in result.events[-1]["message"]
    assert result.of("saved")
    kept = place(session)
    assert kept.source.offset > 0 and not kept.source.finished


def test_a_source_that_vanishes_costs_nothing_of_those_before_it(
    command: Command,
    tiny_model_dir: Path,
    document: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session, missing = tmp_path / "s.allmem", tmp_path / "b.txt"
    missing.write_text(TEXT, encoding="utf-8")
    read = Reader.read

    def read_and_remove(*arguments: Any, **options: Any) -> bool:
        finished = read(*arguments, **options)
        missing.unlink(missing_ok=True)
        return finished

    monkeypatch.setattr(Reader, "read", read_and_remove)
    result = command(
        "allmem-run", tiny_model_dir, document, missing, "--session", session, "--json", *SHORT
    )
    assert result.code == 1 and "b.txt" in result.events[-1]["message"]
    kept = place(session)
    assert kept.source.finished and kept.source.offset == document.stat().st_size

    missing.write_text(TEXT, encoding="utf-8")  # the same command goes on with it
    again = command("allmem-run", tiny_model_dir, document, missing, "--session", session, *SHORT)
    assert again.code == 0 and "Größe.txt was read before" in again.err
    assert place(session).source.offset == len(TEXT.encode())


def test_where_the_session_cannot_be_written_the_prompts_are_answered_all_the_same(
    tiny_model_dir: Path, document: Path, tmp_path: Path
) -> None:
    session = tmp_path / "s.allmem"
    running = process(
        "allmem-run", tiny_model_dir, document, "--session", session, "--prompt", "Who?", "--json",
        *SHORT, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
    )  # fmt: skip
    result = finished(running)
    assert len(result.of("answer")) == 1
    assert result.code == 1
    assert any("not saved" in event["text"] for event in result.of("notice"))
    assert "could not be written" in result.events[-1]["message"]
    assert [path.name for path in tmp_path.iterdir() if "s.allmem" in path.name] == []


def test_text_that_is_piped_in_beside_a_saved_session_is_not_ignored_without_a_word(
    command: Command, tiny_model_dir: Path, document: Path, tmp_path: Path
) -> None:
    session = tmp_path / "s.allmem"
    command("allmem-run", tiny_model_dir, document, "--session", session, *SHORT)
    running = process(
        "allmem-run", tiny_model_dir, "--session", session, "--prompt", "Who?", *SHORT
    )
    result = finished(running, b"More text.\n")
    assert result.code == 0 and "Standard input is not read" in result.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
def test_full_standard_output_is_told_in_one_line_and_costs_nothing_that_was_read(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    session = tmp_path / "s.allmem"
    arguments = (tiny_model_dir, "--stream", "--prompt", "Who?", "--session", session, *SHORT)
    with Path("/dev/full").open("wb") as full:
        read = finished(process("allmem-run", *arguments, stdout=full), TEXT.encode())
        told = finished(process("allmem", "info", tiny_model_dir, stdout=full))
    for result in (read, told):
        assert result.code == 1
        assert result.err.splitlines()[-1].endswith("Make room, or send it elsewhere.")
        assert "Traceback" not in result.err
    assert place(session).source.finished and place(session).source.offset == len(TEXT.encode())


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_end_nothing_and_give_no_file_their_number(
    tiny_model_dir: Path, document: Path, tmp_path: Path, closed: str
) -> None:
    session = tmp_path / "s.allmem"
    arguments = (tiny_model_dir, document, "--session", session, "--prompt", "Who?", *SHORT)
    result = finished(process("allmem-run", *arguments, prefix=_shell(closed)))
    assert result.code == 0 and "Traceback" not in result.err
    assert (result.out != "") == (">&-" not in closed.replace("2>&-", ""))
    assert place(session).source.finished
    refused = finished(process("allmem", "nothing", prefix=_shell(closed)))
    assert refused.code == 2 and "Traceback" not in refused.err


def _shell(redirections: str) -> list[str]:
    return ["sh", "-c", f'"$@" {redirections}', "sh"]


def test_a_reader_of_answers_that_leaves_ends_the_command_quietly(
    tiny_model_dir: Path, document: Path, tmp_path: Path
) -> None:
    session = tmp_path / "s.allmem"
    theirs, ours = os.pipe()
    os.close(theirs)  # as after `| head -1`
    arguments = (tiny_model_dir, document, "--session", session, "--prompt", "Who?", *SHORT)
    result = finished(process("allmem-run", *arguments, stdout=ours))
    os.close(ours)
    assert result.code == 1 and "rror" not in result.err
    assert place(session).source.finished


def test_a_write_protected_session_is_refused_before_anything_is_read(
    command: Command, tiny_model_dir: Path, document: Path, tmp_path: Path
) -> None:
    session, more = tmp_path / "s.allmem", tmp_path / "more.txt"
    more.write_text("Then it rained.\n")
    command("allmem-run", tiny_model_dir, document, "--session", session, *SHORT)
    session.chmod(0o444)
    before = session.read_bytes()
    result = command("allmem-run", tiny_model_dir, more, "--session", session, *SHORT)
    assert result.code == 1 and "write-protected" in result.err and "reading" not in result.err
    assert session.read_bytes() == before and session.stat().st_mode & 0o777 == 0o444
    opened = load(tiny_model_dir, device="cpu", operators="portable").open(session)
    with pytest.raises(StorageError, match="write-protected"):
        opened.save(session)
    asked = command("allmem-run", tiny_model_dir, "--session", session, "--prompt", "?", *SHORT)
    assert asked.code == 0
