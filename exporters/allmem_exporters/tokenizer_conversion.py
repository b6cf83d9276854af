"""Makes a tokenizer.json of what a folder has instead, in a process of its own.

transformers does it, with native code of others, and bounds nothing: the time alone grows with the
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
from dataclasses import asdict, dataclass
from pathlib import Path

from allmem_exporters.errors import ConversionError
from allmem_runtime.quantities import format_bytes
from allmem_runtime.text.trial_process import has_interpreter, told

SECONDS = 120
"""Of processor time; the largest vocabularies take a tenth of it."""
MEMORY = 4 << 30
"""Bytes beyond what the libraries take that are loaded."""
_SLOWEST = 10
_MODULE = "allmem_exporters.tokenizer_conversion"


@dataclass(frozen=True, slots=True)
class Conversion:
    """What is to be converted.

    Attributes:
        folder: that it lies in.
        out: folder to write to.
    """

    folder: str
    out: str

    def run(self) -> None:
        """Do it in this process; libraries raise what they like."""
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(
            self.folder, local_files_only=True, trust_remote_code=False
        )
        tokenizer.save_pretrained(self.out)


def convert_tokenizer(conversion: Conversion, what: str, hint: str) -> None:
    """Convert it in a process of its own.

    Args:
        conversion: what, and where to.
        what: the beginning of the message if it fails; the reason follows in brackets.
        hint: the remedy.

    Raises:
        ConversionError: it cannot be done, or takes too much time or memory.
    """
    if reason := _apart(conversion):
        raise ConversionError(f"{what} ({reason}).", hint)


def _apart(conversion: Conversion) -> str:
    """Why it failed; empty if it did not."""
    if not has_interpreter():
        return _failure(conversion)
    task = {**asdict(conversion), "limits": [SECONDS, MEMORY]}
    said, code = told(_MODULE, json.dumps(task).encode(), _SLOWEST * SECONDS)
    with contextlib.suppress(ValueError, IndexError):
        return str(json.loads(said.splitlines()[-1])["failure"])
    # The system ends what took its processor time, and `told` what takes far longer by the clock.
    if -code in {getattr(signal, name, 0) for name in ("SIGXCPU", "SIGKILL")} - {0}:
        return f"it takes more than {SECONDS} seconds"
    return f"it crashes, or takes more than {format_bytes(MEMORY)} of memory"


def _failure(conversion: Conversion) -> str:
    try:
        conversion.run()
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
    task = json.loads(sys.stdin.buffer.read())
    seconds, memory = task.pop("limits")
    os.environ["HF_HUB_OFFLINE"] = "1"
    import transformers  # noqa: F401  # what the libraries take is not what the task takes
    from transformers import AutoTokenizer  # noqa: F401

    _limit(seconds, memory)
    print(json.dumps({"failure": _failure(Conversion(**task))}), flush=True)


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
