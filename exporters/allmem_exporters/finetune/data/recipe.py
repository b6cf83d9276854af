"""A recipe: one TOML file that says what training data is made of; every key is checked."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from allmem_exporters.errors import DataError
from allmem_exporters.finetune.data.questions import RESERVED
from allmem_exporters.finetune.data.sequence import HELDOUT, TRAIN
from allmem_runtime.strict_toml import read_toml

_TOP = {"checkpoint": str, "length": int, "seed": int, "heldout": float, "sequences": int,
        "heldout_sequences": int, "source": list}  # fmt: skip
_ALL = {"name": str, "kind": str, "weight": float, "sequences": int, "heldout_sequences": int}
_OWN: dict[str, dict[str, type]] = {
    "text": {"files": list, "of": list, "heldout": float, "chat_share": float},
    "chat": {"files": list, "heldout": float},
    "squad": {"file": str, "questions": int, "reserved": int, "heldout": float},
    "hotpotqa": {"file": str, "questions": int, "reserved": int, "heldout": float},
    "keyvalue": {"questions": int},
    "needle": {"questions": int, "haystack": list},
    "chains": {"questions": int, "haystack": list},
    "common": {},
    "repeats": {"haystack": list},
}
KINDS = tuple(_OWN)
_RANGES = {"length": (64, 1 << 22), "sequences": (0, 10**7), "heldout_sequences": (0, 10**7),
           "questions": (1, 256), "reserved": (0, 10**6), "weight": (0.0, 1e6),
           "heldout": (0.0, 1.0), "chat_share": (0.0, 1.0), "seed": (0, 2**31)}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Source:
    """One kind of sequences.

    Attributes:
        name: its own.
        kind: one of ``KINDS``.
        counts: sequences wanted, by split.
        heldout: fraction of its documents that is held out.
        files: texts or conversations, or the one file of questions.
        of: names of sources whose paragraphs are packed as text.
        haystack: names of sources whose prose the task is hidden in.
        questions: turns of a sequence.
        reserved: questions kept out of both splits.
        chat_share: fraction of texts that begin as in a conversation.
    """

    name: str
    kind: str
    counts: dict[str, int]
    heldout: float
    files: tuple[str, ...] = ()
    of: tuple[str, ...] = ()
    haystack: tuple[str, ...] = ()
    questions: int = 8
    reserved: int = RESERVED
    chat_share: float = 0.5


@dataclass(frozen=True, slots=True)
class Recipe:
    """What to make; relative paths start at ``base``."""

    base: Path
    checkpoint: Path | None
    length: int
    seed: int
    sources: tuple[Source, ...]


def read_recipe(path: Path) -> Recipe:
    """Read and check a recipe.

    Raises:
        DataError: names the file, the line where it can be known, the key and what is allowed.
    """
    try:
        text, table = read_toml(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise DataError(f"{path} is not valid TOML: {error}.") from error
    where = _Places(path, text)
    _check(table, _TOP, where, None)
    sources = table.get("source", [])
    if not sources or not all(isinstance(source, dict) for source in sources):
        raise DataError(f"{path} lists no sources.", "Each begins with a line [[source]].")
    weights = []
    for number, source in enumerate(sources):
        kind = source.get("kind")
        if not isinstance(kind, str) or kind not in _OWN:
            raise DataError(
                f"{where.of('kind', number)}: kind is {kind!r}; allowed: {', '.join(KINDS)}."
                f"{_suggestion(str(kind), KINDS)}"
            )
        _check(source, _ALL | _OWN[kind], where, number)
        weights.append(0.0 if "sequences" in source else float(source.get("weight", 1.0)))
    built = []
    for number, source in enumerate(sources):
        counts = {}
        for split, key in ((TRAIN, "sequences"), (HELDOUT, "heldout_sequences")):
            share = weights[number] / (sum(weights) or 1.0)
            counts[split] = source.get(key, round(share * table.get(key, 0)))
        built.append(_source(source, counts, table, where, number))
    _check_names(built, where)
    checkpoint = table.get("checkpoint")
    return Recipe(
        base=path.parent,
        checkpoint=path.parent / checkpoint if checkpoint else None,
        length=table.get("length", 4096),
        seed=table.get("seed", 0),
        sources=tuple(built),
    )


def _source(
    source: dict[str, Any],
    counts: dict[str, int],
    table: dict[str, Any],
    where: _Places,
    number: int,
) -> Source:
    kind = source["kind"]
    files = source.get("files", [source["file"]] if "file" in source else [])
    of = source.get("of", [])
    if kind in ("squad", "hotpotqa", "chat") and not files:
        raise DataError(
            f"{where.of('kind', number)}: a source of kind {kind} needs "
            f"{'files' if kind == 'chat' else 'file'}."
        )
    if kind == "text" and bool(files) == bool(of):
        raise DataError(
            f"{where.of('kind', number)}: a source of kind text needs either files or of."
        )
    options = {key: source[key] for key in ("questions", "reserved", "chat_share") if key in source}
    return Source(
        name=source.get("name", kind),
        kind=kind,
        counts=counts,
        heldout=float(source.get("heldout", table.get("heldout", 0.05))),
        files=tuple(files),
        of=tuple(of),
        haystack=tuple(source.get("haystack", [])),
        **options,
    )


def _check_names(sources: list[Source], where: _Places) -> None:
    names: dict[str, Source] = {}
    for number, source in enumerate(sources):
        if source.name in names:
            raise DataError(
                f"{where.of('name', number)}: two sources are named {source.name!r}.",
                "Give each a name of its own.",
            )
        names[source.name] = source
    prose = [name for name, s in names.items() if s.files and s.kind != "chat"]
    for number, source in enumerate(sources):
        for key in ("of", "haystack"):
            for name in getattr(source, key):
                if name not in prose:
                    raise DataError(
                        f"{where.of(key, number)}: {key} names {name!r}; sources with paragraphs: "
                        f"{', '.join(prose) or 'none'}."
                    )
        if source.kind in ("needle", "chains", "repeats") and not prose:
            raise DataError(
                f"{where.of('kind', number)}: {source.kind} needs prose to hide its task in.",
                "Add a source of kind text.",
            )


def _check(
    table: dict[str, Any], keys: dict[str, type], where: _Places, number: int | None
) -> None:
    for key, value in table.items():
        place = where.of(key, number)
        if key not in keys:
            advice = _suggestion(key, tuple(keys)) or f" Known here: {', '.join(keys)}."
            raise DataError(f"{place}: unknown key {key!r}.{advice}")
        wanted = keys[key]
        numeric = wanted is float and type(value) is int
        if type(value) is not wanted and not numeric:
            raise DataError(f"{place}: {key} is {value!r}; it must be {_TYPES[wanted]}.")
        if wanted is list and key != "source" and not all(isinstance(v, str) for v in value):
            raise DataError(f"{place}: {key} is {value!r}; it must be a list of texts.")
        low, high = _RANGES.get(key, (None, None))
        if low is not None and high is not None and not low <= value <= high:
            raise DataError(f"{place}: {key} is {value!r}; allowed: {low:g} to {high:g}.")


_TYPES = {str: "a text", int: "an integer", float: "a number", list: "a list"}


def _suggestion(word: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


class _Places:
    """Finds the line of a key, for messages."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._lines: dict[tuple[int | None, str], int] = {}
        source: int | None = None
        for number, line in enumerate(text.splitlines(), start=1):
            if re.match(r"\s*\[\[\s*source\s*\]\]", line):
                source = 0 if source is None else source + 1
                self._lines[source, ""] = number
            elif key := re.match(r"\s*\"?([\w-]+)\"?\s*=", line):
                self._lines.setdefault((source, key[1]), number)

    def of(self, key: str, source: int | None) -> str:
        """The file and the key's line, or its source's first line."""
        line = self._lines.get((source, key)) or self._lines.get((source, ""))
        return f"{self._path}, line {line}" if line else str(self._path)
