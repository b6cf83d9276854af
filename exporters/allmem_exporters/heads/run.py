"""From a checkpoint and training data to a head table; a killed run goes on where it stopped."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from allmem_exporters.errors import DataError, ExportError
from allmem_exporters.finetune.data.sequence import Sequence
from allmem_exporters.finetune.data.shard_format import tokenizer_digest
from allmem_exporters.finetune.data.shards import Shards
from allmem_exporters.finetune.passes import Passes
from allmem_exporters.heads.attribution import Attribution, Attributor
from allmem_exporters.heads.head_table import HeadTable
from allmem_exporters.model.adapter import base_digest
from allmem_exporters.model.checkpoint import open_checkpoint
from allmem_runtime.files.atomic import replace_text
from allmem_runtime.quantities import format_duration
from allmem_runtime.strict_json import parse_json

_LEFT_OUT = ("common",)
"""Kinds without a place to look back to: what they ask for is everywhere."""


@dataclass(frozen=True, slots=True)
class HeadSettings:
    """What is measured.

    Attributes:
        shortest: window that every head has.
        sinks: first tokens that all see.
        length: most tokens of a sequence; None for as they are.
        sequences: of each kind.
        precision: of the decoder's products, ``float32`` or ``bfloat16``.
        threads: of PyTorch; None for its own choice.
    """

    shortest: int = 256
    sinks: int = 32
    length: int | None = None
    sequences: int = 2
    precision: str = "float32"
    threads: int | None = None


def find_heads(
    checkpoint: Path,
    data: Path,
    out: Path,
    settings: HeadSettings,
    *,
    report: Callable[[str], None] = lambda line: None,
) -> HeadTable:
    """Measure the worth of every head's reach and write the table.

    Args:
        checkpoint: of the model.
        data: folder made by `allmem data` with the model's tokenizer.
        out: the table; beside it ``OUT.part`` holds what was measured until it is complete.
        settings: what is measured.
        report: is told each sequence as a line, with the time left.

    Raises:
        DataError: the data is damaged, of another tokenizer, or asks for nothing far back.
        ExportError: the checkpoint is missing or damaged.
        StorageError: the table cannot be written.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    shards = Shards(data, split="train", tokenizer=tokenizer_digest(checkpoint))
    model = open_checkpoint(checkpoint, torch.float32)
    if model.config.local_layers is not None:
        raise ExportError(
            f"{checkpoint}: layers of this model keep windows of their own, as it was trained.",
            "Export it without --windows.",
        )
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    digest = base_digest(model)
    model.to(getattr(torch, settings.precision))
    chosen = list(chosen_sequences(shards, settings))
    longest = max((len(sequence.ids) for sequence in chosen), default=0)
    windows = band_windows(settings.shortest, longest)
    if len(windows) < 2:
        raise DataError(
            f"The sequences of {data} are no longer than the shortest window, {settings.shortest}.",
            "Make longer ones with `allmem data --length`, or take a shorter window.",
        )
    attributor = Attributor(Passes(model), windows, settings.sinks)
    part = out.with_name(out.name + ".part")
    identity = json.dumps([digest, str(shards.index["sha256"]), asdict(settings)], sort_keys=True)
    found = _measured(part, identity)
    began, before = time.monotonic(), len(found)
    for number, sequence in enumerate(chosen):
        if number < len(found):
            continue
        one = attributor.attribute(sequence)
        found.append(one)
        _keep(part, identity, found)
        elapsed, done = time.monotonic() - began, len(found) - before
        left = format_duration(elapsed / done * (len(chosen) - len(found)))
        said = "nothing asked far back" if one is None else f"{one.divergence:.3f} nats"
        report(f"{len(found)} of {len(chosen)}: {sequence.kind}, {said}; {left} left")
    table = table_of(digest, windows, settings.sinks, [one for one in found if one is not None])
    table.save(out)
    part.unlink(missing_ok=True)
    return table


def band_windows(shortest: int, longest: int) -> list[int]:
    """The shortest window, doubled until it holds ``longest`` tokens."""
    windows = [shortest]
    while windows[-1] < longest:
        windows.append(min(2 * windows[-1], longest))
    return windows


def chosen_sequences(shards: Shards, settings: HeadSettings) -> Iterator[Sequence]:
    """The first sequences of each kind, kinds in turns, so that an early end is fair to all."""
    by_kind: dict[str, list[int]] = {}
    for number, entry in enumerate(shards.entries):
        if entry["kind"] not in _LEFT_OUT:
            by_kind.setdefault(entry["kind"], []).append(number)
    for turn in range(settings.sequences):
        for numbers in by_kind.values():
            if turn < len(numbers):
                sequence = shards[numbers[turn]]
                end = settings.length or len(sequence.ids)
                yield Sequence(
                    sequence.ids[:end],
                    sequence.counts[:end],
                    sequence.kind,
                    sequence.split,
                    sequence.source,
                )


def table_of(digest: str, windows: list[int], sinks: int, found: list[Attribution]) -> HeadTable:
    """Shares of each sequence's divergence, averaged within a kind and then over kinds."""
    counts = Counter(one.kind for one in found)
    if not counts:
        raise DataError("No sequence asks for anything beyond the shortest window.")
    worth = torch.zeros(torch.tensor(found[0].worth).shape)
    divergence: dict[str, float] = {}
    for one in found:
        share = torch.tensor(one.worth) / max(one.divergence, 1e-9)
        worth += share / counts[one.kind] / len(counts)
        divergence[one.kind] = divergence.get(one.kind, 0.0) + one.divergence / counts[one.kind]
    rows = tuple(tuple(tuple(head) for head in layer) for layer in worth.tolist())
    return HeadTable(digest, tuple(windows), sinks, rows, divergence, dict(counts))


def _measured(part: Path, identity: str) -> list[Attribution | None]:
    """What an earlier run with the same settings measured."""
    try:
        first, *lines = part.read_text(encoding="utf-8").splitlines()
        if first != identity:
            return []
        return [None if line == "null" else Attribution(**parse_json(line)) for line in lines]
    except (OSError, ValueError, TypeError):
        return []


def _keep(part: Path, identity: str, found: list[Attribution | None]) -> None:
    lines = [identity, *(json.dumps(one and asdict(one)) for one in found)]
    replace_text(part, "\n".join(lines) + "\n")
