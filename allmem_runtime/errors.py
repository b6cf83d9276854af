"""Every error a user can meet: what happened, what to do next, and the exit code at the edge."""

from __future__ import annotations

MAX_MESSAGE = 1000
"""Characters; a message quotes values of files, which may be as long as their writers like."""


class AllMemError(Exception):
    """Base of all errors of this project.

    Args:
        message: what happened, naming the file, option or value; the middle of a long one is left
            out.
        hint: what to do next, a full sentence; empty if there is nothing to advise.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        message, hint = _shortened(message), _shortened(hint)
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class UsageError(AllMemError):
    """An option or argument that cannot be meant."""

    exit_code = 2


class ModelFileError(AllMemError):
    """A model folder, manifest, graph or tokenizer that is missing, damaged or not ours."""


class SessionFileError(AllMemError):
    """A saved session that is missing, damaged or belongs to another model."""


class SourceError(AllMemError):
    """A document that cannot be read as text."""


class DeviceError(AllMemError):
    """A device that was asked for and cannot be used."""


class OperatorLibraryError(AllMemError):
    """The native operator library is missing, of another version, or does not load."""


class SessionStateError(AllMemError):
    """The session is in no condition for this call: busy, failed or not finite."""


class StorageError(AllMemError):
    """Writing failed (disk full, folder read-only); what was there before is intact."""


class PassagesError(AllMemError):
    """The text beside a session is missing, changed, another session's, or locked.

    The session itself is sound: it opens and answers from its state alone.
    """


class PassagesBusyError(PassagesError):
    """The text beside a session is locked or cannot be opened now; it may be sound."""


def _shortened(text: str) -> str:
    if len(text) <= MAX_MESSAGE:
        return text
    return f"{text[: MAX_MESSAGE * 3 // 4]} … {text[-MAX_MESSAGE // 4 :]}"
