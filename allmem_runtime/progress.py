"""Shows how far reading is: a bar on a terminal, plain lines elsewhere, or JSON events.

It knows nothing of models; what it shows is told to it as ``Reading``.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TextIO

from allmem_runtime.printable import printable
from allmem_runtime.quantities import counted, format_bytes, format_duration

_BAR_CELLS = 14
_TERMINAL_SECONDS = 0.1
_PLAIN_SECONDS = 5.0
_JSON_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Reading:
    """How far one source was read.

    Attributes:
        name: the source.
        read_bytes: of the source, from its start.
        size: bytes of the source, or None if unknown.
        tokens: read in this run.
        position: tokens in the session.
        tokens_per_second: lately.
        seconds_left: until the end of the source, or None if unknown.
        state_bytes: size of the state, which does not change.
        replaced: invalid bytes that became U+FFFD.
    """

    name: str
    read_bytes: int
    size: int | None
    tokens: int
    position: int
    tokens_per_second: float
    seconds_left: float | None
    state_bytes: int
    replaced: int = 0

    @property
    def share(self) -> float | None:
        """0 to 1, or None if the size is unknown."""
        return min(self.read_bytes / self.size, 1.0) if self.size else None


class Printer(Protocol):
    """What the commands tell about their work."""

    def reading(self, reading: Reading) -> None:
        """Reading goes on."""

    def read(self, reading: Reading) -> None:
        """A source was read to its end, or as far as it was read."""

    def notice(self, text: str) -> None:
        """Something a person should know, no error."""

    def event(self, kind: str, **values: Any) -> None:
        """An event for programs; people see it elsewhere."""


class SilentPrinter:
    """Says nothing (``--quiet``)."""

    def reading(self, reading: Reading) -> None:
        """Nothing."""

    def read(self, reading: Reading) -> None:
        """Nothing."""

    def notice(self, text: str) -> None:
        """Nothing."""

    def event(self, kind: str, **values: Any) -> None:
        """Nothing."""


class _People:
    """What both printers for people have in common."""

    interval: float

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._last: float | None = None

    def _due(self) -> bool:
        now = self._clock()
        if self._last is not None and now - self._last < self.interval:
            return False
        self._last = now
        return True

    def _write(self, text: str) -> None:
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        # A terminal of another locale must not end the program.
        self._stream.write(text.encode(encoding, "replace").decode(encoding))
        self._stream.flush()

    def event(self, kind: str, **values: Any) -> None:
        """Nothing: events are for programs."""


class PlainPrinter(_People):
    """A line every few seconds, for logs and pipes."""

    interval = _PLAIN_SECONDS

    def reading(self, reading: Reading) -> None:
        """Write a line if the last one is a while ago."""
        if self._due():
            self._write(f"reading {line(reading)}\n")

    def read(self, reading: Reading) -> None:
        """Write the last line of a source."""
        self._write(f"read {line(reading)}\n")

    def notice(self, text: str) -> None:
        """Write the text."""
        self._write(f"{printable(text)}\n")


class TerminalPrinter(_People):
    """One line that is drawn anew."""

    interval = _TERMINAL_SECONDS

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream, clock)
        self._drawn = False

    def reading(self, reading: Reading) -> None:
        """Draw the bar."""
        if self._due():
            self._draw(reading)

    def read(self, reading: Reading) -> None:
        """Draw the bar a last time and leave it."""
        self._draw(reading)
        self._write("\n")
        self._drawn = False

    def notice(self, text: str) -> None:
        """Write the text on lines of its own."""
        self._write(("\n" if self._drawn else "") + f"{printable(text)}\n")
        self._drawn = False

    def _draw(self, reading: Reading) -> None:
        width = shutil.get_terminal_size().columns - 1
        text = f"reading {line(reading, bar=True)}"[: max(width, 10)]
        self._write(f"\r\x1b[K{text}")
        self._drawn = True


class JsonPrinter:
    """One JSON object a line.

    Every object has ``event``; those of reading have the fields of ``Reading``.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._last: float | None = None

    def reading(self, reading: Reading) -> None:
        """An event ``reading``, at most twice a second."""
        now = self._clock()
        if self._last is None or now - self._last >= _JSON_SECONDS:
            self._last = now
            self.event("reading", **_fields(reading))

    def read(self, reading: Reading) -> None:
        """An event ``read``."""
        self.event("read", **_fields(reading))

    def notice(self, text: str) -> None:
        """An event ``notice``."""
        self.event("notice", text=text)

    def event(self, kind: str, **values: Any) -> None:
        """Any event; ASCII, so that no locale can spoil it."""
        self._stream.write(json.dumps({"event": kind, **values}) + "\n")
        self._stream.flush()


def printer(stderr: TextIO, stdout: TextIO, *, as_json: bool, quiet: bool) -> Printer:
    """The printer that suits the output."""
    if as_json:
        return JsonPrinter(stdout)
    if quiet:
        return SilentPrinter()
    return TerminalPrinter(stderr) if stderr.isatty() else PlainPrinter(stderr)


def line(reading: Reading, *, bar: bool = False) -> str:
    """One line about a source: name, share, speed, time left, size of the state."""
    name = _short(printable(reading.name), 32)
    parts = []
    if reading.share is None:
        parts.append(f"{format_bytes(reading.read_bytes)}, {counted(reading.tokens, 'token')}")
    else:
        filled = int(reading.share * _BAR_CELLS)
        drawing = "█" * filled + "░" * (_BAR_CELLS - filled) + " " if bar else ""
        parts.append(f"{drawing}{int(reading.share * 100):3d} %")
        if not bar:
            parts.append(counted(reading.tokens, "token"))
    parts.append(f"{reading.tokens_per_second:,.0f} tok/s")
    if reading.seconds_left is not None and reading.share != 1.0:
        parts.append(f"{format_duration(reading.seconds_left)} left")
    parts.append(f"state {format_bytes(reading.state_bytes)} (constant)")
    if reading.replaced:
        parts.append(f"{counted(reading.replaced, 'invalid byte')} replaced")
    return f"{name}   " + "   ".join(parts)


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _fields(reading: Reading) -> dict[str, Any]:
    left = reading.seconds_left
    return {
        "source": reading.name,
        "read_bytes": reading.read_bytes,
        "size": reading.size,
        "tokens": reading.tokens,
        "position": reading.position,
        "tokens_per_second": round(reading.tokens_per_second, 1),
        "seconds_left": None if left is None else round(left, 1),
        "state_bytes": reading.state_bytes,
        "replaced": reading.replaced,
    }
