"""Questions about the whole text, answered without and with passages side by side.

Nothing is scored: the table is for a person, who judges whether passages harm an answer that the
state gives. QUESTIONS is a JSON list of texts, SESSION a saved session with its text beside it.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

from allmem_runtime import Sampling, load
from allmem_runtime.errors import UsageError
from benchmarks.arguments import at_least_one, existing, existing_file, parser_of, run
from benchmarks.passages.fact_files import read_texts
from benchmarks.passages.kept_answers import KeptAnswers, Record, write_json
from benchmarks.passages.reading_once import TimeLeft, say

_COLUMN = 58


def main() -> None:
    run(measure, _options())


def _options() -> argparse.Namespace:
    parser = parser_of("passages.whole", __doc__)
    parser.add_argument("model", type=existing, help="a model folder")
    parser.add_argument("session", type=existing_file, help="a saved session")
    parser.add_argument("questions", type=existing_file, help="a JSON list")
    parser.add_argument("out", type=Path, help="folder for the results")
    parser.add_argument("--passages", type=at_least_one, default=3, help="most a question")
    parser.add_argument("--max-tokens", type=at_least_one, default=128, help="longest answer")
    parser.add_argument("--threads", type=at_least_one, default=1)
    return parser.parse_args()


def measure(options: argparse.Namespace) -> Record:
    """Ask what was not asked yet, print the answers and write them.

    Raises:
        AllMemError: a file is not as expected, or the folder holds another measurement.
    """
    questions = list(dict.fromkeys(read_texts(options.questions)))
    model = load(options.model, device="cpu", threads=options.threads)
    session = model.open(options.session, undo=False)
    if session.text is None:
        raise UsageError(f"{options.session} has no text.", session.text_failure)
    options.out.mkdir(parents=True, exist_ok=True)
    kept = KeptAnswers(options.out / "answers.jsonl", {
        "model": model.package.digest, "text": session.text_digest,
        "passages": options.passages, "max_tokens": options.max_tokens,
    })  # fmt: skip
    sampling = Sampling(temperature=0, max_tokens=options.max_tokens)
    missing = [question for question in questions if question not in kept]
    left = TimeLeft(len(missing))
    for question in missing:
        alone = session.answer(question, passages=0, sampling=sampling)
        helped = session.answer(question, passages=options.passages, sampling=sampling)
        kept.add(question, {
            "without": alone.text, "with": helped.text,
            "read_again": [passage.text for passage in helped.passages],
        })  # fmt: skip
        say(f"answered twice; {left.step()}")
    records = [kept[question] for question in questions]
    for line in side_by_side(records):
        print(line)
    results = {"setup": kept.setup, "answers": records}
    write_json(options.out / "results.json", results)
    return results


def side_by_side(records: Sequence[Record]) -> Iterator[str]:
    """Each question, and its two answers in columns; the last line counts."""
    for number, record in enumerate(records, 1):
        count = len(record["read_again"])
        same = " The answers are equal." if record["without"] == record["with"] else ""
        yield f"{number}. {record['key']}"
        yield f"   {count} passage{'s' if count != 1 else ''} read again.{same}"
        yield f"   {'the state alone':{_COLUMN}} | with passages"
        columns = (_lines(record["without"]), _lines(record["with"]))
        for left, right in zip_longest(*columns, fillvalue=""):
            yield f"   {left:{_COLUMN}} | {right}".rstrip()
        yield ""
    none = sum(not record["read_again"] for record in records)
    yield f"No passage was read again for {none} of {len(records)} questions."


def _lines(text: str) -> list[str]:
    return [part for line in text.splitlines() for part in textwrap.wrap(line, _COLUMN) or [""]]


if __name__ == "__main__":
    main()
