"""What `allmem eval ruler --json` has kept: the rows to stand beside, and how they were asked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from allmem_runtime.errors import UsageError
from allmem_runtime.evaluation.results import Key, Record, key_of

_FORMAT = "allmem-eval-1"
_ASKED = ("chat", "answer_prefix", "seed", "benchmark")


@dataclass(frozen=True, slots=True)
class Ours:
    """Results of our rows.

    Args:
        records: in the order of the file, each what was found last.
        rows: names in their order.
        models: digest of each row's model.
        chat: whether the prompts are in the chat template.
        prefix_in: whose turn holds the beginning of the answer.
        seed: of the prompts.
        benchmark: the package and its version.
    """

    records: Sequence[Record]
    rows: Sequence[str]
    models: dict[str, str]
    chat: bool
    prefix_in: Any
    seed: int
    benchmark: str

    def values(self, name: str) -> list[Any]:
        """What a field holds, each value once, in order."""
        return list(dict.fromkeys(record[name] for record in self.records))

    def prompts(self) -> dict[tuple[str, str, int, str], int]:
        """Tokens by task, column, sample and digest of the prompt."""
        return {
            (record["task"], record["column"], record["sample"], record["prompt"]): record["tokens"]
            for record in self.records
        }


def read(path: Path) -> Ours:
    """The results in a file, which is left as it is; a half line at its end is not there yet.

    Of a row's name that stands for several models, the one that answered last counts.

    Raises:
        UsageError: it holds no results of `allmem eval ruler`, or such of different settings.
    """
    found: dict[Key, Record] = {}
    try:
        data = path.read_bytes()
        lines = data[: data.rfind(b"\n") + 1].splitlines()
        if not lines or json.loads(lines[0]).get("format") != _FORMAT:
            raise ValueError
        for line in lines:
            values = json.loads(line)
            if values.pop("kind") == "result" and "benchmark" in values:
                found[key_of(values)] = values
        models: dict[str, str] = {record["row"]: record["model"] for record in found.values()}
        records = [r for r in found.values() if models[r["row"]] == r["model"]]
        settings = {tuple(record[name] for name in _ASKED) for record in records}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        settings = set()
    if not settings:
        raise UsageError(
            f"{path} holds no results of `allmem eval ruler`.",
            "Make it with `allmem eval ruler ROW… --json FILE`.",
        )
    if len(settings) > 1:
        raise UsageError(
            f"{path} holds results of {len(settings)} settings of {', '.join(_ASKED)}.",
            "Prompts of different settings do not compare: keep each in a file of its own.",
        )
    return Ours(records, list(models), models, *settings.pop())
