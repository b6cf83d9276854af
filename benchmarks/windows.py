"""What windows by head give beside one window of equal bytes: KL divergence at held-out answers.

    python -m benchmarks.windows CHECKPOINT DATA HEADS.json --window 512 --window 1024

DATA is a folder made by `allmem data`; its held-out sequences are read. For each window the rows of
all heads together are given anew by each head table, and all are compared with full attention: mean
KL divergence in nats, and the share of answer tokens whose most probable token is the same. With
--int8 keys and values are also rounded to int8, in as many rows and in as many bytes of float16.
"""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from allmem_exporters.finetune.attention import Heads, attention_by_head, project
from allmem_exporters.finetune.data.sequence import Sequence
from allmem_exporters.finetune.data.shards import Shards
from allmem_exporters.finetune.passes import Passes
from allmem_exporters.heads.allocation import Rows, allocate
from allmem_exporters.heads.attribution import Attributor, answer_positions
from allmem_exporters.heads.head_table import HeadTable
from allmem_exporters.model.checkpoint import open_checkpoint
from allmem_exporters.model.config import AllMemConfig
from benchmarks.arguments import existing, parser_of

Kinds = dict[str, dict[str, list[tuple[float, float]]]]


@dataclass(frozen=True, slots=True)
class Way:
    """One way to give rows.

    Attributes:
        windows: [layers][kv_heads].
        int8: whether rows are int8, with a scale for each head of a token.
    """

    windows: list[list[int]]
    int8: bool = False


class ByHead:
    """The decoder with a window for each key/value head and no memories.

    Args:
        passes: the frozen decoder.
        way: its windows, and whether keys and values come back from rings of int8.
        sinks: first tokens that all see.
    """

    def __init__(self, passes: Passes, way: Way, sinks: int) -> None:
        self._passes, self._way, self._sinks = passes, way, sinks

    def hidden(self, ids: Tensor) -> Tensor:
        """Normed hidden states [batch, time, hidden_size]."""
        hidden = self._passes.embed(ids)
        for layer, windows in zip(self._passes.decoder.layers, self._way.windows, strict=True):
            x = self._passes.read(layer, hidden)
            heads = project(layer.self_attn, x)
            if self._way.int8:
                heads = Heads(heads.query, _rounded(heads.key), _rounded(heads.value))
            attended = attention_by_head(layer.self_attn, heads, windows, self._sinks)
            hidden = self._passes.after(layer, hidden, x, attended)
        return self._passes.last_norm(hidden)


def main() -> None:
    parser = parser_of("windows", __doc__)
    parser.add_argument("checkpoint", type=existing)
    parser.add_argument("data", type=existing)
    parser.add_argument("heads", type=Path, nargs="+")
    parser.add_argument("--window", type=int, action="append", help="of the table's windows")
    parser.add_argument("--sequences", type=int, default=1, help="of each kind")
    parser.add_argument("--kind", action="append", help="of sequences; all by default")
    parser.add_argument("--int8", action="store_true", help="also keys and values of int8")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    tables = {path.stem: HeadTable.read(path) for path in options.heads}
    table = next(iter(tables.values()))
    model = open_checkpoint(options.checkpoint, torch.float32)
    passes = Passes(model.to(getattr(torch, options.precision)))
    exact = Attributor(passes, table.windows, table.sinks)
    ways = _ways(tables, options.window or [512, 1024], model.config, int8=options.int8)
    kinds: Kinds = {}
    for sequence in _chosen(Shards(options.data, split="heldout"), options):
        positions = answer_positions(sequence, table.windows[0] + table.sinks)
        if not len(positions):
            continue
        ids = torch.as_tensor(sequence.ids)[None]
        with torch.no_grad():
            truth = exact.log_probabilities(passes.teacher(ids), positions)
            for name, way in ways.items():
                hidden = ByHead(passes, way, table.sinks).hidden(ids)
                told = _compared(truth, exact.log_probabilities(hidden, positions))
                kinds.setdefault(sequence.kind, {}).setdefault(name, []).append(told)
        print(sequence.kind, _told(kinds[sequence.kind]), flush=True)
    print("over kinds", _told(_over_kinds(kinds)))


def _ways(
    tables: dict[str, HeadTable], windows: list[int], config: AllMemConfig, *, int8: bool
) -> dict[str, Way]:
    """By name: one window for all, and by each table; of int8 by the first table."""
    shortest = next(iter(tables.values())).windows[0]
    ways: dict[str, Way] = {}
    for window in [shortest, *windows]:
        heads = config.num_hidden_layers * config.num_key_value_heads
        one = [[window] * config.num_key_value_heads] * config.num_hidden_layers
        ways[f"one window of {window}"] = Way(one)
        if window == shortest:
            continue
        for number, (name, table) in enumerate(tables.items()):
            rows = heads * (window + table.sinks)
            by = f"by {name}, " if len(tables) > 1 else ""
            ways[f"{by}as many rows by head as {window}"] = Way(_by_head(table, rows, config))
            if int8 and not number:
                more = rows * 2 * config.head_dim // (config.head_dim + 4)
                ways[f"one window of {window} in int8"] = Way(one, int8=True)
                for much, given in (("rows", rows), ("bytes", more)):
                    way = Way(_by_head(table, given, config), int8=True)
                    ways[f"{by}as many {much} by head as {window} in int8"] = way
    return ways


def _by_head(table: HeadTable, rows: int, config: AllMemConfig) -> list[list[int]]:
    return allocate(table, rows, Rows(1, table.sinks, _longest(table, config)), 1)


def _rounded(rows: Tensor) -> Tensor:
    """[…, head_dim] to int8 and back."""
    scale = rows.float().abs().amax(-1, keepdim=True).clamp(min=1e-30) / 127
    return ((rows.float() / scale).round() * scale).to(rows.dtype)


def _longest(table: HeadTable, config: AllMemConfig) -> int:
    return config.max_position_embeddings - table.sinks


def _chosen(shards: Shards, options: Namespace) -> list[Sequence]:
    taken: dict[str, int] = {}
    chosen = []
    for number, entry in enumerate(shards.entries):
        kind = entry["kind"]
        wanted = kind in options.kind if options.kind else kind != "common"
        if wanted and taken.get(kind, 0) < options.sequences:
            taken[kind] = taken.get(kind, 0) + 1
            chosen.append(shards[number])
    return chosen


def _compared(truth: Tensor, found: Tensor) -> tuple[float, float]:
    divergence = (truth.exp() * (truth - found)).sum(-1).mean().item()
    return divergence, (truth.argmax(-1) == found.argmax(-1)).float().mean().item()


def _over_kinds(kinds: Kinds) -> dict[str, list[tuple[float, float]]]:
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
