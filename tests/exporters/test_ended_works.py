"""Works that are ended say so in a line, leave nothing behind, and tell the shell why."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from checkpoints import write_gguf
from cli.commands import finished, process
from tiny import write_tiny_checkpoint

from allmem_runtime.cli import exit_codes
from allmem_runtime.cli.ending import said_when_ended

SIZES = ("--window", "32", "--chunk", "16", "--mem-width", "16")


@pytest.mark.parametrize(
    ("verb", "name"), [("make", "SIGINT"), ("convert", "SIGTERM"), ("export", "SIGHUP")]
)
def test_work_that_is_ended_says_so_and_leaves_nothing(
    tmp_path: Path, verb: str, name: str
) -> None:
    out, number = tmp_path / "out", getattr(signal, name)
    if verb == "export":
        source, sizes, begins = write_tiny_checkpoint(tmp_path / "source"), (), "tracing"
    else:
        source, sizes, begins = tmp_path / "tiny.gguf", SIZES, "compared: tokens"
        write_gguf(source)
    running = process(
        "allmem", verb, source, out, *sizes,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # it may be ignored here
    )  # fmt: skip
    assert running.stderr is not None
    for line in running.stderr:
        if line.decode().startswith(begins):
            break
    running.send_signal(number)
    result = finished(running)
    assert result.code == 128 + number, result.err
    assert f"Stopped by {name}: {out} is as it was before.\n" in result.err
    assert "Traceback" not in result.err
    assert [path.name for path in tmp_path.iterdir()] == [source.name]


def test_signal_that_is_ignored_ends_no_work() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with said_when_ended("nothing"):
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_any_command_says_that_ctrl_c_stopped_it(capsys: pytest.CaptureFixture[str]) -> None:
    import click

    @click.command()
    def waits() -> None:
        raise KeyboardInterrupt

    assert exit_codes._code(waits, "allmem", []) == 130
    assert capsys.readouterr().err.split() == ["allmem:", "stopped."]
