"""Errors of the exporters; each says what happened and what to do next."""

from __future__ import annotations

from allmem_runtime.errors import AllMemError, UsageError


def first_line(error: BaseException) -> str:
    """What an error of a library says, in one line; its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


class ConfigError(UsageError, ValueError):
    """A model option that is unknown, misspelt or outside its range.

    It is a ValueError too, so that transformers' own loading code treats it as one.
    """


class ConversionError(AllMemError):
    """A pretrained model that cannot become an AllMem model as it is."""


class ExportError(AllMemError):
    """A checkpoint that cannot be exported, or an export that does not agree with it."""


class TrainingError(AllMemError):
    """A training run that cannot go on."""


class DataError(AllMemError):
    """Training data, or a recipe for it, that is missing, damaged or not meant so."""
