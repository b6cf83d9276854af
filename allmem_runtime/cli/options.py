"""The options of ``allmem-run``: what was typed, checked before anything is loaded."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from allmem_runtime.engine.options import EngineOptions
from allmem_runtime.errors import StorageError, UsageError
from allmem_runtime.files.links import followed

OnChange = Literal["stop", "read", "skip"]
ON_CHANGE = get_args(OnChange)
"""What to do about a source that was changed since it was read: stop before anything is read, read
it anew behind all that was read, or go on without it."""

DEFAULT_PAUSE = 2.0
DEFAULT_PASSAGES = 3


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The command line of ``allmem-run``.

    Attributes:
        model: folder or graph.
        sources: paths, or ``-``.
        stream: read a source that may never end.
        watch: go on with what is new in the sources.
        prompts: questions to answer after reading.
        session: file to go on from and to save to.
        system: instruction that opens the conversation.
        engine: where and how the model runs.
        sampling: the sampling options that were given, by the names of ``Sampling``.
        encoding: of the sources; None to find out.
        changed: what to do about sources that were changed since they were read.
        pause: seconds that make a pause of a stream, and between two looks at what is watched.
        passages: most passages of the text that are read again before a question.
        text: keep the text of what is read, and use what was kept.
        meter: tell after the reading how much of it the state still holds.
        as_json: events on stdout.
        quiet: answers and errors only.
    """

    model: Path
    sources: tuple[str, ...]
    stream: bool
    watch: bool
    prompts: tuple[str, ...]
    session: Path | None
    system: str | None
    engine: EngineOptions
    sampling: dict[str, object]
    encoding: str | None
    changed: OnChange
    pause: float | None
    passages: int
    text: bool
    meter: bool
    as_json: bool
    quiet: bool

    def check(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            UsageError: two options do not go together, or a value is out of range.
            StorageError: the session could not be saved where it is wanted.
        """
        if self.pause is not None:
            if not self.stream and not self.watch:
                raise UsageError(
                    "--pause goes with --stream or --watch.", "Add one of them, or leave it out."
                )
            if not (math.isfinite(self.pause) and 0.05 <= self.pause <= 86400):
                raise UsageError(
                    f"--pause is {self.pause}.", "It is a number of seconds from 0.05 to 86400."
                )
        if self.watch and (self.stream or "-" in self.sources or not self.sources):
            raise UsageError(
                "--watch follows files, folders and patterns.",
                "Name some; what comes through a pipe is followed with --stream.",
            )
        if self.meter and not self.text:
            raise UsageError(
                "--meter needs the text, and --no-text keeps none.", "Leave one of them out."
            )
        if self.meter and self.quiet and not self.as_json:
            raise UsageError("--quiet leaves out what --meter tells.", "Leave one of them out.")
        if self.sources.count("-") > 1:
            raise UsageError("Standard input is named twice.", "It can be read once.")
        if "" in self.sources:
            raise UsageError("A SOURCE is empty.", "Name a file, or - for standard input.")
        if any(not prompt.strip() for prompt in self.prompts):
            raise UsageError("A --prompt is empty.", "Give the question.")
        if self.session is not None:
            questions_alone = bool(self.prompts) and not self.sources and not self.stream
            if not (questions_alone and self.session.is_file()):  # they save nothing
                _check_target(self.session)


def _check_target(path: Path) -> None:
    """Find out before hours of reading, not after."""
    folder = followed(path).parent
    if path.is_dir():
        raise StorageError(f"{path} is a directory.", "Name a file for the session.")
    if not folder.is_dir():
        raise StorageError(f"There is no folder {folder}.", "Make it, or name another.")
    if not os.access(folder, os.W_OK):
        raise StorageError(f"The folder {folder} is read-only.", "Name a file in another folder.")
