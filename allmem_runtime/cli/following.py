"""Reads what is new in the sources again and again, until Ctrl-C, and answers after each time."""

from __future__ import annotations

from pathlib import Path

from allmem_runtime.cli.opening import open_found
from allmem_runtime.cli.run_session import Work
from allmem_runtime.cli.signals import Interrupts
from allmem_runtime.documents.watcher import Watcher
from allmem_runtime.progress import Printer
from allmem_runtime.text.sources import Source


def follow(
    work: Work, watcher: Watcher, interrupts: Interrupts, out: Printer, encoding: str
) -> None:
    """Answer, and again whenever something new was read.

    Args:
        work: what reads, saves and answers.
        watcher: of the sources, all of which were read.
        interrupts: Ctrl-C, which ends it.
        out: what is told.
        encoding: of the sources; empty to find out.
    """
    work.answer()
    out.notice("Watching for what is new or changed; Ctrl-C ends it.")
    out.event("watching")
    while not interrupts.requested:
        items = watcher.wait(lambda: interrupts.requested)
        for path in watcher.gone:
            out.notice(f"{Path(path).name} is gone; what was read of it stays.")
        if items and _read(work, open_found(items, encoding, out.notice)):
            work.answer()


def _read(work: Work, sources: list[Source]) -> bool:
    """Read what is new of the sources; whether there was anything, and it was read to its end."""
    before = work.position
    finished = work.read(sources, may_be_empty=True, some=True)
    return finished and work.position != before
