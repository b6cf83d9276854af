"""What keeping the text costs while it is read: reading with and without it, in turns.

Each round reads the same beginning of TEXT both ways in this process, the one that goes first
changing from round to round. Told is how fast reading with the text kept is beside without, over
the rounds: median, lowest and highest.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from allmem_runtime import Model, load
from allmem_runtime.errors import UsageError
from benchmarks.arguments import add_model, add_text, at_least_one, parser_of, run, tokens
from benchmarks.passages.kept_answers import Record, write_json
from benchmarks.passages.reading_once import TimeLeft, say


def main() -> None:
    run(measure, _options())


def _options() -> argparse.Namespace:
    parser = parser_of("passages.keeping_speed", __doc__)
    add_model(parser)
    add_text(parser)
    parser.add_argument("--tokens", type=tokens, default=2048, help="read each time")
    parser.add_argument("--rounds", type=at_least_one, default=9)
    parser.add_argument("--threads", type=at_least_one, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the times there")
    return parser.parse_args()


def measure(options: argparse.Namespace) -> Record:
    """Read in turns, print the line and write the times.

    Raises:
        AllMemError: the model cannot be used, or the text is too short.
    """
    model = load(options.model, device="cpu", threads=options.threads)
    text = _beginning(model, options.text, options.tokens)
    times: dict[bool, list[float]] = {True: [], False: []}
    _read(model, text, True)  # the first reading finds nothing warm
    left = TimeLeft(options.rounds)
    for number in range(options.rounds):
        for keeping in (number % 2 == 0, number % 2 == 1):
            times[keeping].append(_read(model, text, keeping))
        told = times[False][-1] / times[True][-1]
        say(f"{number + 1} of {options.rounds}: with the text kept {told:.3f}; {left.step()}")
    results = summary(times[True], times[False])
    print(
        f"Reading {options.tokens:,} tokens with the text kept goes at {results['median']:.3f} of "
        f"the speed without it (median of {options.rounds} rounds; lowest {results['lowest']:.3f}, "
        f"highest {results['highest']:.3f})."
    )
    if options.json:
        write_json(options.json, results)
    return results


def summary(kept: Sequence[float], unkept: Sequence[float]) -> Record:
    """Ratios of speeds round by round, and the seconds they are made of."""
    ratios = [without / with_ for with_, without in zip(kept, unkept, strict=True)]
    return {
        "median": statistics.median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
        "seconds_kept": list(kept),
        "seconds_unkept": list(unkept),
    }


def _beginning(model: Model, path: Path, length: int) -> str:
    text = path.read_text(encoding="utf-8", errors="replace")
    few = text[: 16 * length]
    ids = model.tokenizer.encode_text(few)
    if len(ids) < length:
        raise UsageError(f"{path} has {len(ids):,} tokens of {length:,} wanted.")
    return few[: len(few) * length // len(ids)]


def _read(model: Model, text: str, keeping: bool) -> float:
    """Seconds to read the text and, where it is kept, to have all of it on disk."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "session.allmem"
        session = model.session(undo=False, text=path if keeping else False)
        began = time.perf_counter()
        for _ in session.ingest(text, name="text.txt"):
            pass
        if session.text is not None:
            session.text.save(session.text_digest, path)
        seconds = time.perf_counter() - began
        if keeping and session.text is None:
            raise UsageError("The text was not kept.", session.text_failure)
        return seconds


if __name__ == "__main__":
    main()
