"""What a reader of the terminal, of a log and of the JSON events is told."""

from __future__ import annotations

import dataclasses
import io
import json

from allmem_runtime.progress import (
    JsonPrinter,
    PlainPrinter,
    Reading,
    SilentPrinter,
    TerminalPrinter,
    line,
    printer,
)

READING = Reading(
    name="manual.txt",
    read_bytes=610,
    size=1000,
    tokens=5000,
    position=12000,
    tokens_per_second=2940.4,
    seconds_left=125.0,
    state_bytes=118 << 20,
)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_bar_says_how_far_how_fast_how_long_and_how_big() -> None:
    assert line(READING, bar=True) == (
        "manual.txt   ████████░░░░░░  61 %   2,940 tok/s   2m05s left   state 118 MiB (constant)"
    )


def test_without_a_size_bytes_and_tokens_are_counted() -> None:
    text = line(dataclasses.replace(READING, size=None, seconds_left=None))
    assert text == "manual.txt   610 B, 5,000 tokens   2,940 tok/s   state 118 MiB (constant)"


def test_replaced_bytes_are_told() -> None:
    assert "3 invalid bytes replaced" in line(dataclasses.replace(READING, replaced=3))


def test_a_terminal_gets_one_line_that_is_drawn_anew_and_then_left() -> None:
    stream, clock = io.StringIO(), Clock()
    terminal = TerminalPrinter(stream, clock)
    terminal.reading(READING)
    terminal.reading(READING)
    clock.now = 1.0
    terminal.reading(READING)
    terminal.read(READING)
    text = stream.getvalue()
    assert text.count("\r\x1b[Kreading") == 3
    assert text.count("\n") == 1
    assert text.endswith("\n")


def test_a_notice_does_not_run_into_the_bar() -> None:
    stream = io.StringIO()
    terminal = TerminalPrinter(stream, Clock())
    terminal.reading(READING)
    terminal.notice("saved")
    assert stream.getvalue().endswith("\nsaved\n")


def test_a_log_gets_plain_lines_and_not_too_many() -> None:
    stream, clock = io.StringIO(), Clock()
    plain = PlainPrinter(stream, clock)
    for second in range(11):
        clock.now = float(second)
        plain.reading(READING)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert all(text.isascii() and text.startswith("reading manual.txt") for text in lines)


def test_programs_get_one_object_a_line_with_all_fields() -> None:
    stream = io.StringIO()
    events = JsonPrinter(stream, Clock())
    events.reading(dataclasses.replace(READING, name="Größe 👩‍🚀.txt"))
    events.read(READING)
    events.notice("a\nb")
    events.event("answer", text="…")
    assert stream.getvalue().isascii()
    objects = [json.loads(text) for text in stream.getvalue().splitlines()]
    assert [o["event"] for o in objects] == ["reading", "read", "notice", "answer"]
    assert objects[0] == {
        "event": "reading",
        "source": "Größe 👩‍🚀.txt",
        "read_bytes": 610,
        "size": 1000,
        "tokens": 5000,
        "position": 12000,
        "tokens_per_second": 2940.4,
        "seconds_left": 125.0,
        "state_bytes": 118 << 20,
        "replaced": 0,
    }


def test_quiet_says_nothing_and_the_right_printer_is_chosen() -> None:
    out, err = io.StringIO(), io.StringIO()
    silent = printer(err, out, as_json=False, quiet=True)
    silent.reading(READING)
    silent.read(READING)
    silent.notice("a")
    silent.event("b")
    assert isinstance(silent, SilentPrinter)
    assert out.getvalue() + err.getvalue() == ""
    assert isinstance(printer(err, out, as_json=False, quiet=False), PlainPrinter)
    assert isinstance(printer(err, out, as_json=True, quiet=True), JsonPrinter)
    err.isatty = lambda: True  # type: ignore[method-assign]
    assert isinstance(printer(err, out, as_json=False, quiet=False), TerminalPrinter)


def test_a_stream_that_knows_ascii_only_does_not_end_the_program() -> None:
    raw = io.BytesIO()
    terminal = TerminalPrinter(io.TextIOWrapper(raw, "ascii"), Clock())
    terminal.read(READING)
    assert b"61 %" in raw.getvalue()


def test_a_file_name_cannot_send_commands_to_the_terminal() -> None:
    assert "\x1b" not in line(dataclasses.replace(READING, name="a\x1b[2Jb\n.txt"))
