"""``allmem delete``: delete a saved session with the text beside it."""

from __future__ import annotations

from pathlib import Path

import click

from allmem_runtime.cli.messages import say
from allmem_runtime.cli.option_flags import FilePath
from allmem_runtime.cli.shared_options import command
from allmem_runtime.errors import StorageError
from allmem_runtime.files.header import read_header
from allmem_runtime.files.links import followed
from allmem_runtime.files.session_lock import saving_alone
from allmem_runtime.passages.files import delete_text


@command()
@click.argument("sessions", nargs=-1, required=True, type=FilePath())
def delete(sessions: tuple[Path, ...]) -> None:
    """Delete saved SESSIONS and the text that was kept of what they have read.

    Nothing but a session file, by its contents, is deleted, and the text of that name beside it; of
    a link, also the session it leads to. A session that another command is reading into is left
    alone.
    """
    for session in sessions:
        read_header(session)  # what is no session is refused
        with saving_alone(session, say):
            try:
                delete_text(session)
                followed(session).unlink()
                session.unlink(missing_ok=True)  # a link to it
            except OSError as error:
                raise StorageError(
                    f"{session} cannot be deleted: {error.strerror or error}.", "Check the folder."
                ) from None
        say(f"{session} is deleted.")
