"""Works with the tokenizer of a folder or file of others in a process of its own.

Native code of others does it and bounds nothing: the time of a conversion alone grows with the
square of a token's length. So the process has limits.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import signal
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from allmem_exporters.errors import ConversionError
from allmem_exporters.tokenizer_works import KINDS, Conversion, Encoding, Work
from allmem_runtime.child_process import has_interpreter
from allmem_runtime.quantities import format_bytes
from allmem_runtime.text.trial_child import MOST_TOKENS
from allmem_runtime.text.trial_process import told

SECONDS = 120
"""Of processor time; the largest vocabularies take a tenth of it."""
MEMORY = 4 << 30
"""Bytes beyond what the libraries take that are loaded."""
_SLOWEST = 10
_MODULE = "allmem_exporters.tokenizer_conversion"
_BEYOND = ("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork", "pickle.")
"""Beginnings of Python's audit events."""


def done(work: Work, what: str, hint: str) -> Any:
    """Do a work in a process of its own.

    Args:
        work: what is to be done.
        what: the beginning of the message if it fails; the reason follows in brackets.
        hint: the remedy.

    Returns:
        What it gives.

    Raises:
        ConversionError: it cannot be done, or takes too much time or memory.
    """
    found: list[Any] = []
    if reason := _apart(work, found):
        raise ConversionError(f"{what} ({reason}).", hint)
    return found[0]


def convert_tokenizer(conversion: Conversion, what: str, hint: str) -> None:
    """Convert a tokenizer; see ``done``."""
    done(conversion, what, hint)


def encoded(encoding: Encoding, what: str, hint: str) -> list[int]:
    """The tokens of a text; see ``done``."""
    text = encoding.text[: encoding.most * MOST_TOKENS]
    tokens: list[int] = done(replace(encoding, text=text), what, hint)
    return tokens


def _apart(work: Work, found: list[Any] | None = None) -> str:
    """Why it failed; empty if it did not, and what it gave is added to ``found``."""
    if not has_interpreter():
        return _failure(work, found)
    task = {
        "kind": type(work).__name__,
        "work": asdict(work),  # type: ignore[call-overload]
        "limits": [SECONDS, MEMORY],
    }
    said, code = told(_MODULE, json.dumps(task).encode(), _SLOWEST * SECONDS)
    with contextlib.suppress(ValueError, IndexError):
        answer = json.loads(said.splitlines()[-1])
        if found is not None:
            found.append(answer["found"])
        return str(answer["failure"])
    # The system ends what took its processor time, and `told` what takes far longer by the clock.
    if -code in {getattr(signal, name, 0) for name in ("SIGXCPU", "SIGKILL")} - {0}:
        return f"it takes more than {SECONDS} seconds"
    return f"it crashes, or takes more than {format_bytes(MEMORY)} of memory"


def _failure(work: Work, found: list[Any] | None = None) -> str:
    try:
        given = work.run()
        if found is not None:
            found.append(given)
    except (KeyboardInterrupt, SystemExit):
        raise
    # The native library raises plain Exception, and its panics are no Exception at all.
    except BaseException as error:
        if isinstance(error, MemoryError) or getattr(error, "errno", 0) == errno.ENOMEM:
            return "it takes too much memory"
        return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    return ""


def main() -> None:
    """Do the task on standard input under limits, and say on standard output how it went."""
    task: dict[str, Any] = json.loads(sys.stdin.buffer.read())
    os.environ["HF_HUB_OFFLINE"] = "1"
    work: Work = KINDS[task["kind"]](**task["work"])
    work.load()
    _limit(*task["limits"])
    sys.addaudithook(_refuse_beyond)
    found: list[Any] = []
    failure = _failure(work, found)
    print(json.dumps({"failure": failure, "found": found[0] if found else None}), flush=True)


def _refuse_beyond(event: str, given: tuple[Any, ...]) -> None:
    """Let no library fetch, start or unpickle anything on behalf of what it is given."""
    if event.startswith(_BEYOND):
        raise PermissionError(f"it asks for {event}, which is not done for a tokenizer")


def _limit(seconds: int, memory: int) -> None:
    """Put this process under limits, beyond what it has taken, as far as the system knows them."""
    try:
        import resource
    except ImportError:  # Windows
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    limits = {resource.RLIMIT_CPU: math.ceil(used.ru_utime + used.ru_stime) + seconds}
    pages = Path("/proc/self/statm")
    if pages.exists():
        taken = int(pages.read_text(encoding="ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE")
        limits[resource.RLIMIT_AS] = taken + memory
    for kind, value in limits.items():
        hard = resource.getrlimit(kind)[1]
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(kind, (value if hard < 0 else min(value, hard), hard))


if __name__ == "__main__":
    main()
