"""The process in which a document is read: its bytes in, its parts out, one JSON value a line."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

from allmem_runtime.documents.cleaning import cleaned
from allmem_runtime.documents.parts import Budget, Chapter, Note, Page, Part, Refused, Text, reader
from allmem_runtime.text.limits import Limits

PIECE = 1 << 15
"""Most characters of text in a line."""
NAME_CHARACTERS = 200
"""Longest title of a chapter, and longest note."""

_NETWORK = ("socket.", "ftplib.", "http.client.", "smtplib.", "urllib.Request", "webbrowser.")
_PROGRAMS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "pty.spawn")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def main() -> None:
    """Read the document on standard input as the argument says, and say what is in it."""
    task = json.loads(sys.argv[1])
    sys.dont_write_bytecode = True
    sys.setrecursionlimit(2000)
    Limits(**task["limits"]).apply()
    sys.addaudithook(_only_reading)
    with os.fdopen(os.dup(sys.stdin.fileno()), "rb") as file:
        tell(task, file, _say)


def tell(task: dict[str, Any], file: BinaryIO, say: Callable[[dict[str, Any]], None]) -> None:
    """Read a document.

    Args:
        task: ``module`` that reads it, its ``name``, and ``most`` bytes it may unpack to.
        file: the document.
        say: told each part, and at last that it ended, or why it did not.
    """
    try:
        budget = Budget(task["most"])
        for part in reader(task["module"])(file, task["name"], budget, 0):
            for value in values(part, budget):
                say(value)
        say({"end": True})
    except Refused as error:
        say({"refused": [error.why, error.hint]})
    except ModuleNotFoundError as error:
        say({"missing": str(error.name).partition(".")[0]})
    except MemoryError:
        say({"refused": ["takes too much memory", ""]})
    except RecursionError:
        say({"refused": ["is nested too deep", ""]})
    except Exception as error:  # a library may raise anything about a document that is not sound
        lines = str(error).splitlines() or [type(error).__name__]
        say({"refused": [f"is damaged ({lines[0][:NAME_CHARACTERS]})", ""]})


def values(part: Part, budget: Budget) -> list[dict[str, Any]]:
    """What is said of a part."""
    match part:
        case Page(number):
            return [{"page": number}]
        case Chapter(title):
            return [{"chapter": " ".join(cleaned(title).split())[:NAME_CHARACTERS]}]
        case Note(what, lacks):
            note = {"note": " ".join(cleaned(what).split())[:NAME_CHARACTERS]}
            return [note, {"lacks": True}] if lacks else [note]
        case Text(text):
            text = cleaned(text)
            budget.take(len(text))  # what a small document repeats counts, too
            return [{"text": text[at : at + PIECE]} for at in range(0, len(text), PIECE)]


def _only_reading(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse what the reading of a document never needs: networks, programs, writing."""
    if event.startswith(_NETWORK) or event.startswith(_PROGRAMS):
        raise PermissionError(f"{event} is not allowed")
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITES:
        raise PermissionError("writing is not allowed")


def _say(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")


if __name__ == "__main__":
    main()
