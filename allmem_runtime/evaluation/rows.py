"""The rows of a table: which model folders are compared, and how each is treated."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from allmem_runtime.errors import UsageError
from allmem_runtime.files.atomic import USUAL, replace_text
from allmem_runtime.files.package import Package, open_package
from allmem_runtime.spec import DECODER_KEY, WEIGHTS_FILE
from allmem_runtime.strict_json import parse_json

_RESET = ":reset"
ROWS_FILE = "rows.json"
"""Lists the rows of a folder made by `allmem eval rows`."""
_ROWS_FORMAT = "allmem-rows-1"
_REMEDY = "Compare exports of one checkpoint, or allow it with --other-weights."


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


def is_row(text: str) -> bool:
    """Whether an argument names rows: ``NAME=FOLDER``, or a folder of rows."""
    return "=" in text or (Path(text) / ROWS_FILE).is_file()


def parse_rows(texts: Sequence[str]) -> list[Row]:
    """All rows, names unique; a folder made by `allmem eval rows` stands for all in it.

    Raises:
        UsageError: one is malformed, or a name is there twice.
    """
    rows = [
        row
        for text in texts
        for row in ([parse_row(text)] if "=" in text else read_rows(Path(text)))
    ]
    names = [row.name for row in rows]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"The row {name!r} is there twice.", "Give each row its own name.")
    return rows


def write_rows(folder: Path, rows: Sequence[Row]) -> None:
    """List rows, whose folders lie in ``folder``, for ``read_rows``.

    Raises:
        StorageError: the list cannot be written.
    """
    listed = [{"name": r.name, "folder": r.folder.name, "reset": r.reset} for r in rows]
    text = json.dumps({"format": _ROWS_FORMAT, "rows": listed}, indent=2) + "\n"
    replace_text(folder / ROWS_FILE, text, mode=USUAL)


def read_rows(folder: Path) -> list[Row]:
    """The rows that a folder lists.

    Raises:
        UsageError: it lists none.
    """
    path = folder / ROWS_FILE
    if not path.is_file():
        raise UsageError(
            f"{str(folder)!r} is no row.",
            "Write NAME=MODEL_FOLDER, for example window=out, or name a folder made by "
            "`allmem eval rows`.",
        )
    try:
        listed = parse_json(path.read_text(encoding="utf-8"))
        if listed["format"] != _ROWS_FORMAT:
            raise ValueError
        return [
            Row(str(row["name"]), folder / Path(row["folder"]).name, bool(row["reset"]))
            for row in listed["rows"]
        ]
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(
            f"{path} is no list of rows.", "Make the folder again with `allmem eval rows`."
        ) from None


@dataclass(frozen=True, slots=True)
class Group:
    """Rows of one model folder: what one of them reads, all of them have read."""

    package: Package
    rows: tuple[Row, ...]


def grouped(rows: Sequence[Row], *, warn: Callable[[str], None] | None = None) -> list[Group]:
    """The rows by folder, in order; each folder is opened and checked, no model is loaded.

    Args:
        rows: of one table.
        warn: told where the rows differ in more than window and memory; None refuses that.

    Raises:
        ModelFileError: a folder is no model of ours.
        UsageError: the models do not share one tokenizer, so lengths and prompts would differ, or
            not one decoder, so that a difference would say nothing of the memory.
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
        difference = _difference(first, group)
        if difference and warn is None:
            raise UsageError(difference, _REMEDY)
        if difference and warn is not None:
            warn(f"warning: {difference}")
    return groups


def _difference(first: Group, other: Group) -> str:
    """In what else than window and memory two models differ; empty if in nothing."""
    names = f"The rows {first.rows[0].name!r} and {other.rows[0].name!r}"
    a, b = first.package.manifest, other.package.manifest
    for what in ("backbone", "weights", "activations", "cache"):
        if (here := getattr(a, what)) != (there := getattr(b, what)):
            detail = "" if what == "backbone" else f" ({here} and {there})"
            return f"{names} differ in their {what}{detail}, so they are not one decoder."
    digests = [m.source.get(DECODER_KEY) for m in (a, b)]
    if None not in digests:
        return "" if digests[0] == digests[1] else f"{names} have decoders with other weights."
    # Exports of before there was a digest: equal files are equal weights, others tell nothing.
    if (here := a.files.get(WEIGHTS_FILE)) is not None and here == b.files.get(WEIGHTS_FILE):
        return ""
    return (
        f"Whether {names[0].lower()}{names[1:]} have one decoder cannot be told: one was exported "
        "by an older version that did not say."
    )


def window_notices(groups: Sequence[Group], longest: Mapping[str, int]) -> Iterator[str]:
    """A line for each model whose window is not smaller than what it reads.

    Nothing is left there for a memory to show.

    Args:
        groups: the rows.
        longest: tokens of the longest prompt, by column.
    """
    for group in groups:
        manifest = group.package.manifest
        reach = manifest.shortest_window + manifest.sinks
        inside = [column for column, tokens in longest.items() if tokens <= reach]
        names = " and ".join(repr(row.name) for row in group.rows)
        size = f"a window of {manifest.shortest_window:,} and {manifest.sinks:,} sinks"
        most = max((longest[column] for column in inside), default=0)
        if inside and len(inside) == len(longest):
            yield (
                f"notice: {names}: {size} hold every prompt whole (at most {most:,} tokens), as "
                "full attention does; nothing lies beyond"
            )
        elif inside:
            yield (
                f"notice: {names}: {size} hold the prompts of {', '.join(inside)} whole (at most "
                f"{most:,} tokens); nothing lies beyond there"
            )
        elif any(row.name.lower().startswith("full") for row in group.rows):
            yield (
                f"notice: {names}: {size} hold no prompt whole (up to {max(longest.values()):,} "
                "tokens), so this is not full attention"
            )
