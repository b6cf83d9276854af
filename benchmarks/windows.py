"""What windows by head give beside one window of equal bytes: KL divergence at held-out answers.

    python -m benchmarks.windows CHECKPOINT DATA HEADS.json --window 512 --window 1024

DATA is a folder made by `allmem data`; its held-out sequences are read. For each window the rows of
all heads together are given anew by the head table, and both are compared with full attention: mean
KL divergence in nats, and the share of answer tokens whose most probable token is the same.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from allmem_exporters.finetune.data.sequence import Sequence
from allmem_exporters.finetune.data.shards import Shards
from allmem_exporters.finetune.passes import Passes
from allmem_exporters.heads.allocation import Rows, allocate
from allmem_exporters.heads.attribution import Attributor, answer_positions
from allmem_exporters.heads.head_table import HeadTable
from allmem_exporters.model.checkpoint import open_checkpoint
from benchmarks.arguments import existing, parser_of


def main() -> None:
    parser = parser_of("windows", __doc__)
    parser.add_argument("checkpoint", type=existing)
    parser.add_argument("data", type=existing)
    parser.add_argument("heads", type=Path)
    parser.add_argument("--window", type=int, action="append", help="of the table's windows")
    parser.add_argument("--sequences", type=int, default=1, help="of each kind")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    table = HeadTable.read(options.heads)
    model = open_checkpoint(options.checkpoint, torch.float32)
    passes = Passes(model.to(getattr(torch, options.precision)))
    attributor = Attributor(passes, table.windows, table.sinks)
    ways: dict[str, list[list[int]]] = {}
    for window in [table.windows[0], *(options.window or [512, 1024])]:
        ways[f"one window of {window}"] = [[window] * len(layer) for layer in table.worth]
        if window != table.windows[0]:
            ways[f"as many rows by head as {window}"] = _by_head(table, window, model.config)
    kinds: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for sequence in _chosen(Shards(options.data, split="heldout"), options.sequences):
        positions = answer_positions(sequence, table.windows[0] + table.sinks)
        if not len(positions):
            continue
        ids = torch.as_tensor(sequence.ids)[None]
        with torch.no_grad():
            truth = attributor.log_probabilities(passes.teacher(ids), positions)
            for name, windows in ways.items():
                found = attributor.found(ids, _gates(table, windows), positions)
                told = _compared(truth, found)
                kinds.setdefault(sequence.kind, {}).setdefault(name, []).append(told)
        print(sequence.kind, _told(kinds[sequence.kind]), flush=True)
    print("over kinds", _told(_over_kinds(kinds)))


def _by_head(table: HeadTable, window: int, config: object) -> list[list[int]]:
    heads = sum(len(layer) for layer in table.worth)
    most = int(getattr(config, "max_position_embeddings")) - table.sinks  # noqa: B009
    return allocate(table, heads * (window + table.sinks), Rows(1, table.sinks, most), 1)


def _gates(table: HeadTable, windows: list[list[int]]) -> Tensor:
    """Which bands are open: those that end within a head's window."""
    given = torch.tensor(windows)[..., None]
    return (given >= torch.tensor(table.windows[1:])).float()


def _chosen(shards: Shards, count: int) -> list[Sequence]:
    taken: dict[str, int] = {}
    chosen = []
    for number, entry in enumerate(shards.entries):
        kind = entry["kind"]
        if kind != "common" and taken.get(kind, 0) < count:
            taken[kind] = taken.get(kind, 0) + 1
            chosen.append(shards[number])
    return chosen


def _compared(truth: Tensor, found: Tensor) -> tuple[float, float]:
    divergence = (truth.exp() * (truth - found)).sum(-1).mean().item()
    return divergence, (truth.argmax(-1) == found.argmax(-1)).float().mean().item()


def _over_kinds(
    kinds: dict[str, dict[str, list[tuple[float, float]]]],
) -> dict[str, list[tuple[float, float]]]:
    joined: dict[str, list[tuple[float, float]]] = {}
    for ways in kinds.values():
        for name, rows in ways.items():
            joined.setdefault(name, []).append(_mean(rows))
    return joined


def _mean(rows: list[tuple[float, float]]) -> tuple[float, float]:
    return sum(a for a, _ in rows) / len(rows), sum(b for _, b in rows) / len(rows)


def _told(ways: dict[str, list[tuple[float, float]]]) -> str:
    parts = []
    for name, rows in ways.items():
        divergence, same = _mean(rows)
        parts.append(f"{name}: {divergence:.3f} / {same:.2f}")
    return "; ".join(parts)


if __name__ == "__main__":
    main()
