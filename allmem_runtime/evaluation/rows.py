"""The rows of a table: which model folders are compared, and how each is treated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from allmem_runtime.errors import UsageError
from allmem_runtime.files.package import Package, open_package

_RESET = ":reset"


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Args:
        name: as the table shows it.
        folder: of the model.
        reset: the memory goes back to blank between the document and the question.
    """

    name: str
    folder: Path
    reset: bool = False


def parse_row(text: str) -> Row:
    """A row as it is typed: ``NAME=FOLDER`` or ``NAME=FOLDER:reset``.

    Raises:
        UsageError: it is neither.
    """
    name, equals, folder = text.partition("=")
    reset = folder.endswith(_RESET)
    folder = folder.removesuffix(_RESET)
    name = name.strip()
    if not equals or not name or not folder:
        raise UsageError(f"{text!r} is no row.", "Write NAME=MODEL_FOLDER, for example window=out.")
    if not name.isprintable():
        raise UsageError(f"The row name {name!r} cannot be printed.", "Use letters and digits.")
    return Row(name, Path(folder), reset)


def parse_rows(texts: Sequence[str]) -> list[Row]:
    """All rows, names unique.

    Raises:
        UsageError: one is malformed, or a name is there twice.
    """
    rows = [parse_row(text) for text in texts]
    names = [row.name for row in rows]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"The row {name!r} is there twice.", "Give each row its own name.")
    return rows


@dataclass(frozen=True, slots=True)
class Group:
    """Rows of one model folder: what one of them reads, all of them have read."""

    package: Package
    rows: tuple[Row, ...]


def grouped(rows: Sequence[Row]) -> list[Group]:
    """The rows by folder, in order; each folder is opened and checked, no model is loaded.

    Raises:
        ModelFileError: a folder is no model of ours.
        UsageError: the models do not share one tokenizer, so lengths and prompts would differ.
    """
    folders: dict[Path, list[Row]] = {}
    for row in rows:
        folders.setdefault(row.folder.resolve(), []).append(row)
    groups = [Group(open_package(folder), tuple(members)) for folder, members in folders.items()]
    first = groups[0]
    for group in groups[1:]:
        if group.package.tokenizer_digest != first.package.tokenizer_digest:
            raise UsageError(
                f"The rows {first.rows[0].name!r} and {group.rows[0].name!r} have different "
                "tokenizers, so the same length would not be the same text.",
                "Compare exports of one checkpoint; evaluate other models in a table of their own.",
            )
    return groups
