"""Reads one example within bounds of time and memory, and says what came of it."""

from __future__ import annotations

import contextlib
import re
import resource
import signal
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import click
from hostile.fuzz.format import Format, Read

from allmem_runtime.errors import AllMemError

LONGEST_LINE = 4000
"""Characters of an error; a line that carries a whole file into the terminal helps nobody."""
_PARTICULARS = re.compile(r"'[^']*'|\"[^\"]*\"|/\S+|\d+|\[.*\]|\{.*\}")


class TooLong(BaseException):
    """The CPU time is used up; no library takes this for an error of its own."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of reading an example.

    Args:
        kind: ``read``, ``refused`` or ``finding``.
        what: of a refusal its error without names and numbers, of a finding what went wrong.
        detail: of a finding the traceback.
    """

    kind: str
    what: str = ""
    detail: str = ""


def outcome(form: Format, read: Read, folder: Path) -> Outcome:
    """Read a folder; every way that it can end is an outcome, but for the end of the process."""
    try:
        with bounded(form.memory, form.seconds):
            read(folder)
    except (AllMemError, click.UsageError) as error:
        text = str(error) if isinstance(error, AllMemError) else error.format_message()
        if len(text) > LONGEST_LINE:
            return _finding(error, f"an error of {len(text)} characters")
        return Outcome("refused", f"{type(error).__name__}: {_PARTICULARS.sub('#', text)[:300]}")
    except TooLong as error:
        return _finding(error, f"more than {form.seconds:g} s of CPU time")
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever else comes is what the harness looks for
        return _finding(error, type(error).__name__)
    return Outcome("read")


def _finding(error: BaseException, what: str) -> Outcome:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "allmem_" in f.filename and "fuzz" not in f.filename]
    place = f" in {Path(ours[-1].filename).name}:{ours[-1].name}" if ours else ""
    text = "".join(traceback.format_exception(error, limit=-12))
    return Outcome("finding", what + place, text[-6000:])


@contextlib.contextmanager
def bounded(memory: int, seconds: float) -> Iterator[None]:
    """Bound memory and CPU time of what runs inside; it must run in the main thread.

    Args:
        memory: bytes of address space beyond what the process has.
        seconds: of CPU time of all threads; beyond it ``TooLong`` is raised between two
            instructions of Python, so a library that never returns is left to whoever watches
            this process.
    """
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + memory, before[1]))
    previous = signal.signal(signal.SIGPROF, _too_long)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)
        resource.setrlimit(resource.RLIMIT_AS, before)


def _too_long(number: int, frame: FrameType | None) -> None:
    raise TooLong


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()
