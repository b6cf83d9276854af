"""RULER's prompts put to llama.cpp, token for token as our rows got them.

    python -m benchmarks.recall_peers FILE.gguf --ruler ours.jsonl --tokenizer MODEL --json FILE

ours.jsonl was kept by `allmem eval ruler --json`, and MODEL is a model folder of its rows, made of
FILE.gguf. The prompts are made again from the same seed; those with the digest of one in ours.jsonl
are put to llama.cpp's library, as the very tokens that our rows read, and answered greedily to the
same limits. The rows:

    f16, q8_0, q4_0   the whole context in a cache of this type
    shifted           a f16 cache of --cache-bytes: when it is full, llama.cpp's context shift
                      keeps the first --keep tokens and discards half of the others
    shifted-q8_0, shifted-q4_0   the same bytes hold more tokens of these types

--json keeps every answer; the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from allmem_runtime.engine.threads import cpu_threads
from allmem_runtime.errors import UsageError
from allmem_runtime.evaluation import ruler_package
from allmem_runtime.evaluation.items import Item
from allmem_runtime.evaluation.results import Record, Results
from allmem_runtime.evaluation.ruler_package import Task
from allmem_runtime.files.package import Package, open_package
from allmem_runtime.quantities import format_tokens, parse_bytes, parse_tokens
from benchmarks.arguments import (
    at_least_one,
    depths,
    existing,
    existing_file,
    names,
    parser_of,
    run,
    tokens_or_none,
)
from benchmarks.peers.child import Child, Gone
from benchmarks.recall_peers.asking import Asking
from benchmarks.recall_peers.ours import Ours, read
from benchmarks.recall_peers.prompts import Prompts, holding_notices
from benchmarks.recall_peers.report import bytes_lines, report
from benchmarks.recall_peers.rows import ROWS, Peer, rows_of

MODULE = "llama_recall"
PATIENCE = 30 * 24 * 3600.0
"""Seconds: a long prompt may take llama.cpp hours, and is not cut off."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = parser_of("recall_peers", __doc__)
    made.add_argument("gguf", type=existing_file, help="the model for llama.cpp")
    made.add_argument(
        "--ruler", type=existing_file, required=True, metavar="FILE",
        help="what `allmem eval ruler --json` has kept",
    )  # fmt: skip
    made.add_argument(
        "--tokenizer", type=existing, required=True, metavar="MODEL",
        help="a model folder of its rows: tokenizer, chat template, first tokens, bytes of a state",
    )  # fmt: skip
    made.add_argument(
        "--folder", type=existing, action="append", default=[], metavar="MODEL",
        help="another model folder of its rows, to tell the bytes of its state; may be repeated",
    )  # fmt: skip
    made.add_argument("--rows", type=names, default=list(ROWS[:5]), help=f"of {', '.join(ROWS)}")
    made.add_argument(
        "--cache-bytes", type=names, default=[], metavar="BYTES",
        help="of the shifted rows' caches, such as 49.4MiB; several with commas between (unset: as "
        "many as a state of --tokenizer's model takes)",
    )  # fmt: skip
    made.add_argument(
        "--keep", type=tokens_or_none,
        help="first tokens that are never discarded (unset: as many as ours)",
    )  # fmt: skip
    made.add_argument(
        "--lengths", type=depths, help="columns, such as 2k,4k,8k (unset: all in --ruler)"
    )
    made.add_argument("--tasks", type=names, help="with commas between (unset: all in --ruler)")
    made.add_argument("--samples", type=at_least_one, help="of each (unset: all in --ruler)")
    made.add_argument(
        "--python", default=sys.executable, help="a Python that has llama-cpp-python 0.3.36"
    )
    made.add_argument("--threads", type=at_least_one, help="(unset: the physical cores)")
    made.add_argument("--minutes", type=float, help="begin nothing after this time")
    made.add_argument(
        "--against", action="append", default=[], metavar="ROW",
        help="row to hold the others against; may be repeated (unset: our first)",
    )  # fmt: skip
    made.add_argument("--json", type=Path, metavar="FILE", help="keep every answer here")
    return made


def main(given: Sequence[str] | None = None) -> None:
    """Ask what was not asked yet, and print the tables."""
    run(ask, parser().parse_args(given))


def ask(options: argparse.Namespace) -> None:
    """The whole run, with llama.cpp in a process of its own.

    Raises:
        AllMemError: a file is missing or does not belong to the others.
    """
    threads = cpu_threads(options.threads)
    deadline = time.monotonic() + PATIENCE
    try:
        child = Child(options.python, MODULE, options.gguf.resolve(), threads, 0, deadline)
        try:
            put(options, child)
        finally:
            child.close()
    except Gone as gone:
        raise UsageError(
            f"llama.cpp cannot go on: {gone}.",
            "Name a Python that has it with --python, and leave out --rows it cannot do.",
        ) from None


def put(options: argparse.Namespace, peer: Peer) -> None:
    """Put the prompts to a peer that has started, and print the tables.

    Raises:
        AllMemError: a file is missing or does not belong to the others.
        Gone: the peer cannot go on.
    """
    began, minutes = time.monotonic(), options.minutes
    if options.json is not None and options.json.resolve() == options.ruler.resolve():
        raise UsageError(f"{options.json} holds our own results.", "Name another for --json.")
    ours = read(options.ruler)
    package = open_package(options.tokenizer)
    state = package.manifest.state.nbytes
    keep = package.manifest.sinks if options.keep is None else options.keep
    budgets = [parse_bytes(text, "--cache-bytes") for text in options.cache_bytes] or [state]
    rows = rows_of(peer, options.rows, budgets, keep)
    tasks = {name: ruler_package.task(name) for name in options.tasks or ours.values("task")}
    prompts = Prompts(package, ours)
    lengths = options.lengths or sorted(parse_tokens(column) for column in ours.values("column"))
    samples = options.samples or max(ours.values("sample")) + 1
    items = prompts.items(ours, tasks, lengths, samples, _say)
    for line in holding_notices({r.name: r.size for r in rows if r.size}, items, prompts.ids):
        _say(line)
    results = Results(options.json)
    if results.found:
        _say(f"{options.json}: {results.found} results are there already")
    asking = Asking(
        peer, prompts, tasks, results, _digest(options.gguf), ours, _say,
        lambda: minutes is not None and time.monotonic() - began > 60 * minutes,
    )  # fmt: skip
    records = [*_ours_again(ours, items, tasks, prompts), *asking.run(rows, items)]
    sizes = _sizes(ours, [package, *map(open_package, options.folder)])
    shown = [*ours.rows, *(row.name for row in rows)]
    columns = [format_tokens(length) for length in lengths]
    made = report(shown, columns, records, sizes, options.against)
    if made.answered < len(items):
        _say(f"unfinished: all rows have answered {made.answered} of {len(items)} prompts")
    print(f"{options.gguf.name}, {peer.version}; kept tokens of shifted rows: {keep}", end="\n\n")
    for table in made.tables:
        print(*table.lines(), "", sep="\n")
    if made.answered:
        print(*bytes_lines(made.tables[0].rows, columns, made.bytes), "", sep="\n")
    print("mean ± standard error; ? where one sample cannot tell")
    results.summary(
        {
            "evaluation": "recall_peers", "gguf": options.gguf.name, "version": peer.version,
            "kept": keep, "samples": samples, "seed": ours.seed, "bytes": made.bytes,
            "tables": [table.as_json() for table in made.tables],
        }
    )  # fmt: skip


def _ours_again(
    ours: Ours, items: Sequence[Item], tasks: dict[str, Task], prompts: Prompts
) -> list[Record]:
    """Our rows' results for these prompts, scored as the others' are."""
    wanted = {(i.task, i.column, i.sample, prompts.digest(i)): i for i in items}
    found = []
    for record in ours.records:
        item = wanted.get((record["task"], record["column"], record["sample"], record["prompt"]))
        if item is not None:
            score = tasks[item.task].score(record["answer"], item.questions[0].references)
            found.append({**record, "score": score})
    return found


def _sizes(ours: Ours, packages: Sequence[Package]) -> dict[str, int | None]:
    """Bytes of our rows' states; None where the folder of a row was not named."""
    known = {package.digest: package.manifest.state.nbytes for package in packages}
    return {row: known.get(ours.models[row]) for row in ours.rows}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
