"""What windows by head give beside one window of equal bytes: KL divergence at held-out answers.

    python -m benchmarks.windows CHECKPOINT DATA HEADS.json --window 512 --window 1024
    python -m benchmarks.windows CHECKPOINT DATA HEADS.json --rows int8 --rows int8+int4
    python -m benchmarks.windows CHECKPOINT DATA HEADS.json --chosen surprise --chosen learned

DATA is a folder made by `allmem data`; its held-out sequences are read. Each window says how many
bytes all heads have together: as many as that window takes with float16 rows. They are given by
each head table, to rows of other types (--rows) and to rows chosen among those that leave a head's
window (--chosen). All are compared with full attention: mean KL divergence in nats, and the share
of answer tokens whose most probable token is the same. What a learned score is fitted to are
training sequences of DATA.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

import torch
from torch import Tensor

from allmem_exporters.finetune.data.sequence import Sequence
from allmem_exporters.finetune.data.shards import Shards
from allmem_exporters.finetune.passes import Passes
from allmem_exporters.heads.attribution import answer_positions
from allmem_exporters.heads.head_table import HeadTable
from allmem_exporters.model.checkpoint import open_checkpoint
from allmem_exporters.model.layers import capped
from allmem_runtime.errors import UsageError
from benchmarks.arguments import at_least_one, existing, parser_of, run
from benchmarks.windows.elements import Int4
from benchmarks.windows.reading import Reader
from benchmarks.windows.results import Results
from benchmarks.windows.scores import Learned, Scorer
from benchmarks.windows.ways import ROWS, SCORES, Choice, Giver, ways_of

NO_RECALL = ("text", "common")
"""Kinds of sequences whose answers a learned score is not fitted to."""


def main() -> None:
    parser = parser_of("windows", __doc__)
    parser.add_argument("checkpoint", type=existing)
    parser.add_argument("data", type=existing)
    parser.add_argument("heads", type=Path, nargs="+")
    parser.add_argument(
        "--window", type=at_least_one, action="append", help="whose bytes are given"
    )
    parser.add_argument("--longest", type=at_least_one, help="tokens that a head may have at most")
    parser.add_argument("--sequences", type=at_least_one, default=1, help="of each kind")
    parser.add_argument("--kind", action="append", help="of sequences; all by default")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--threads", type=at_least_one)
    _add_rows(parser)
    _add_chosen(parser)
    run(_measure, parser.parse_args())


def _add_rows(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("types of rows")
    group.add_argument(
        "--rows", choices=ROWS, action="append",
        help="besides float16; A+B: A where a head has the shortest window, else B",
    )  # fmt: skip
    known = Int4()
    group.add_argument("--key-group", type=at_least_one, default=known.key_group, help="tokens")
    group.add_argument(
        "--value-group", type=at_least_one, default=known.value_group, help="channels"
    )
    group.add_argument(
        "--recent", type=at_least_one, help="latest rows as int8; a group by default"
    )
    group.add_argument("--before-turning", action="store_true", help="keys before rotary embedding")


def _add_chosen(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("chosen rows")
    group.add_argument("--chosen", choices=SCORES, action="append", help="by this score")
    group.add_argument(
        "--share", type=float, action="append",
        help="of a head's rows beyond the shortest window that are chosen (default: 0.5 and 1)",
    )  # fmt: skip
    group.add_argument(
        "--fit", type=at_least_one, default=2, help="training sequences of each kind"
    )


@torch.no_grad()
def _measure(options: Namespace) -> None:
    if options.threads:
        torch.set_num_threads(options.threads)
    tables = {path.stem: HeadTable.read(path) for path in options.heads}
    table = next(iter(tables.values()))
    model = open_checkpoint(options.checkpoint, torch.float32)
    passes = Passes(model.to(getattr(torch, options.precision)))
    turning = model.model.layers[0].self_attn.attributes["rope_amplitude"]
    if options.before_turning and turning != 1:
        raise UsageError(
            f"The rotary embedding of {options.checkpoint} does not only turn: it multiplies by "
            f"{turning}, which --before-turning cannot take back.",
            "Leave the option out.",
        )
    recent = options.recent or options.key_group
    int4 = Int4(options.key_group, options.value_group, recent, options.before_turning)
    givers = {
        name: Giver(table, model.config, int4, options.longest) for name, table in tables.items()
    }
    choices = [
        Choice(score, share)
        for score in options.chosen or ()
        for share in options.share or (0.5, 1.0)
    ]
    ways = ways_of(givers, options.window or [512, 1024], options.rows or (), choices)
    results = Results(ways, table.sinks, model.config.head_dim)
    print(results.windows(), flush=True)
    reader = Reader(passes, table.sinks, _learned(passes, table, options))
    for sequence in _chosen(Shards(options.data, split="heldout"), options.sequences, options.kind):
        positions = answer_positions(sequence, table.windows[0] + table.sinks)
        if not len(positions):
            continue
        ids = torch.as_tensor(sequence.ids)[None]
        truth = _log_probabilities(passes, passes.teacher(ids), positions)
        for name, way in ways.items():
            found = _log_probabilities(passes, reader.read(ids, way), positions)
            results.add(sequence.kind, name, truth, found)
        print(results.last(sequence.kind), flush=True)
    print(results.table())


def _learned(passes: Passes, table: HeadTable, options: Namespace) -> Scorer | None:
    if "learned" not in (options.chosen or ()):
        return None
    shards = Shards(options.data, split="train")
    learned = Learned(passes, table.windows[0], table.sinks)
    kinds = sorted({entry["kind"] for entry in shards.entries} - set(NO_RECALL))
    learned.learn(_chosen(shards, options.fit, kinds))
    return learned.scorer()


def _chosen(shards: Shards, sequences: int, kinds: list[str] | None) -> list[Sequence]:
    taken: dict[str, int] = {}
    chosen = []
    for number, entry in enumerate(shards.entries):
        kind = entry["kind"]
        wanted = kind in kinds if kinds else kind != "common"
        if wanted and taken.get(kind, 0) < sequences:
            taken[kind] = taken.get(kind, 0) + 1
            chosen.append(shards[number])
    return chosen


def _log_probabilities(passes: Passes, hidden: Tensor, positions: Tensor) -> Tensor:
    """Of the next token at these positions, from normed hidden states."""
    logits = (hidden[0, positions] @ passes.head.T).float()
    return capped(logits, passes.softcap).log_softmax(-1)


if __name__ == "__main__":
    main()
