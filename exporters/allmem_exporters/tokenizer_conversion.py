"""Works with the tokenizer of a folder in a process of its own: converts it, encodes a text.

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
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from allmem_exporters.errors import ConversionError
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


@dataclass(frozen=True, slots=True)
class Encoding:
    """A text that is to be encoded, as the runtime does it: nothing in it is a control token.

    Attributes:
        folder: with the ``tokenizer.json``.
        text: what somebody wrote.
        most: tokens of its beginning that are wanted.
    """

    folder: str
    text: str
    most: int

    def run(self) -> list[int]:
        """Do it in this process; libraries raise what they like."""
        from allmem_runtime.spec import TOKENIZER_FILE
        from allmem_runtime.text.segments import Segmenter
        from allmem_runtime.text.tokenizer import Tokenizer

        tokenizer = Tokenizer.from_file(Path(self.folder, TOKENIZER_FILE))
        segmenter = Segmenter(joins=tokenizer.joins)
        tokens: list[int] = []
        for segment in (*segmenter.push(self.text), *segmenter.flush()):
            if len(tokens) >= self.most:
                break
            tokens += tokenizer.encode_text(segment.text, "text" if tokens else "start")
        return tokens[: self.most]


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


def encoded(encoding: Encoding, what: str, hint: str) -> list[int]:
    """The tokens of a text, found in a process of its own.

    Args:
        encoding: the text and where the tokenizer is.
        what: the beginning of the message if it fails; the reason follows in brackets.
        hint: the remedy.

    Raises:
        ConversionError: it cannot be done, or takes too much time or memory.
    """
    tokens: list[int] = []
    text = encoding.text[: encoding.most * MOST_TOKENS]
    if reason := _apart(replace(encoding, text=text), tokens):
        raise ConversionError(f"{what} ({reason}).", hint)
    return tokens


def _apart(work: Conversion | Encoding, tokens: list[int] | None = None) -> str:
    """Why it failed; empty if it did not, and what it gave is added to ``tokens``."""
    if not has_interpreter():
        return _failure(work, tokens)
    task = {**asdict(work), "kind": type(work).__name__, "limits": [SECONDS, MEMORY]}
    said, code = told(_MODULE, json.dumps(task).encode(), _SLOWEST * SECONDS)
    with contextlib.suppress(ValueError, IndexError):
        answer = json.loads(said.splitlines()[-1])
        if tokens is not None:
            tokens += answer["tokens"]
        return str(answer["failure"])
    # The system ends what took its processor time, and `told` what takes far longer by the clock.
    if -code in {getattr(signal, name, 0) for name in ("SIGXCPU", "SIGKILL")} - {0}:
        return f"it takes more than {SECONDS} seconds"
    return f"it crashes, or takes more than {format_bytes(MEMORY)} of memory"


def _failure(work: Conversion | Encoding, tokens: list[int] | None = None) -> str:
    try:
        found = work.run()
        if tokens is not None and found is not None:
            tokens += found
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
    seconds, memory = task.pop("limits")
    os.environ["HF_HUB_OFFLINE"] = "1"
    work: Conversion | Encoding
    # What the libraries take is not what the task takes.
    if task.pop("kind") == Encoding.__name__:
        from allmem_runtime.text import tokenizer  # noqa: F401

        work = Encoding(**task)
    else:
        import transformers  # noqa: F401
        from transformers import AutoTokenizer  # noqa: F401

        work = Conversion(**task)
    _limit(seconds, memory)
    tokens: list[int] = []
    failure = _failure(work, tokens)
    print(json.dumps({"failure": failure, "tokens": tokens}), flush=True)


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
