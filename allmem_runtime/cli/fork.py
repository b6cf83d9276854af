"""``allmem fork``: copy a saved session."""

from __future__ import annotations

import os
from pathlib import Path

import click

from allmem_runtime.cli.messages import say
from allmem_runtime.cli.option_flags import FilePath
from allmem_runtime.cli.shared_options import command
from allmem_runtime.errors import UsageError
from allmem_runtime.files.forking import fork_file
from allmem_runtime.files.header import Header
from allmem_runtime.passages.files import copy_text, delete_text


@command()
@click.argument("session", type=FilePath())
@click.option("--as", "target", required=True, type=FilePath(), help="The new session file.")
def fork(session: Path, target: Path) -> None:
    """Copy a saved SESSION to a new file that notes where it came from.

    Every byte is verified on the way. Both files go on independently; neither grows. The text that
    was kept of what the session has read is copied too, to the new file's name with .passages
    after it.
    """
    if os.path.lexists(target):
        raise UsageError(f"{target} exists already.", "Choose another name, or remove it first.")
    failure = ""

    def copy_its_text(header: Header) -> None:
        nonlocal failure
        failure = copy_text(session, target, header.metadata.get("text_digest", ""))

    try:
        # Whoever saves meanwhile replaces the session: its text is copied up to the very state that
        # is open here.
        digest = fork_file(session, target, copy_its_text)
    except BaseException:
        delete_text(target)
        raise
    if failure:
        say(f"The fork has no text. {failure}")
    say(f"{target} is a fork of {session} ({digest[:12]}).")
