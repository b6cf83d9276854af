"""What passages do for answers about facts that somebody else wrote, in real texts of their kind.

Facts are put at even depths between the paragraphs, lines or blocks of the texts. The whole is read
once; then each fact is asked for three times: from the state alone, with passages, and with the
fact right before the question as all that was read. An answer is right if any accepted answer
stands in it, at word boundaries and in any case.

What passages give does not depend on the state, since they are read again on a session of their
own. So with --kept the texts are only kept and not read, and the state is not asked, which
lets longer ones be measured.

    FACTS    a JSON list of {"kind", "text", "question", "answers": [...]}
    --decoys a JSON list of as many texts, or another file of facts: each is put into the texts of
             its fact's kind too

The folder OUT keeps the text, the session and each answer as it comes: run again after a kill, the
same command goes on. In the end it has results.json.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from allmem_runtime import Model, Sampling, load
from allmem_runtime.errors import UsageError
from allmem_runtime.evaluation.numbers import Mean
from allmem_runtime.session.kept_text import Passage
from allmem_runtime.session.session import Session
from benchmarks.arguments import at_least_one, existing, existing_file, parser_of, run, tokens
from benchmarks.passages.fact_files import (
    GivenFact,
    kinds_of_texts,
    read_facts,
    read_texts,
    statements,
)
from benchmarks.passages.hiding import Hidden, hide
from benchmarks.passages.kept_answers import KeptAnswers, Record, digest, write_json
from benchmarks.passages.kept_only import KeptOnly
from benchmarks.passages.reading_once import TimedText, TimeLeft, read_once, say, timed
from benchmarks.passages.scoring import is_right, quantile, ratio, share

ROWS = ("state", "passages", "before")
_HEADS = {
    "state": "the state alone",
    "passages": "with passages",
    "before": "the fact right before",
    "found": "found",
}


def main() -> None:
    run(measure, _options())


def _options() -> argparse.Namespace:
    parser = parser_of("passages.given_facts", __doc__)
    parser.add_argument("model", type=existing, help="a model folder")
    parser.add_argument("out", type=Path, help="folder for the text, the session, the results")
    parser.add_argument("--facts-file", type=existing_file, required=True, metavar="FACTS")
    parser.add_argument("--decoys", type=existing_file, metavar="FILE")
    parser.add_argument("--texts", nargs="+", required=True, metavar="KIND=FILE")
    parser.add_argument("--tokens", type=tokens, required=True, help="of the text in all")
    parser.add_argument("--kept", action="store_true", help="read nothing, and leave out the state")
    parser.add_argument("--seed", type=int, default=1, help="of the depths")
    parser.add_argument("--passages", type=at_least_one, default=3, help="most a question")
    parser.add_argument("--max-tokens", type=at_least_one, default=48, help="longest answer")
    parser.add_argument("--threads", type=at_least_one, default=1)
    return parser.parse_args()


def measure(options: argparse.Namespace) -> Record:
    """Read, ask what was not asked yet, print the table and write the results.

    Raises:
        AllMemError: a file is not as expected, or the folder holds another measurement.
    """
    facts = read_facts(options.facts_file)
    decoys = read_texts(options.decoys) if options.decoys else []
    model = load(options.model, device="cpu", threads=options.threads)
    hidden = hide(
        kinds_of_texts(options.texts), statements(facts, decoys), options.tokens, options.seed,
        lambda text: len(model.tokenizer.encode_text(text)),
    )  # fmt: skip
    options.out.mkdir(parents=True, exist_ok=True)
    kept = KeptAnswers(options.out / "answers.jsonl", _setup(options, model, facts, hidden))
    path = options.out / "session.allmem"
    if kept.began and path.exists():
        raise UsageError(f"{path} is of another measurement.", "Name another folder.")
    (options.out / "text.txt").write_text(hidden.text, encoding="utf-8")
    if options.kept:
        text = KeptOnly(model, hidden.text)
        session, keeper, length = text.session, text.keeper, text.tokens
        say(f"{length:,} tokens are kept and not read; {len(facts)} facts are asked for")
    else:
        session = read_once(model, hidden.text, "text.txt", path)
        keeper, length = timed(session), session.position
        say(f"{model.name} has read {length:,} tokens; {len(facts)} facts are asked for")
    ask(session, keeper, facts, hidden, kept, options)
    records = [kept[str(number)] for number in range(len(facts))]
    results = {"tokens": length, "rows": summary(records), "setup": kept.setup}
    for line in table(results["rows"]):
        print(line)
    write_json(options.out / "results.json", results)
    return results


def _setup(
    options: argparse.Namespace, model: Model, facts: Sequence[GivenFact], hidden: Hidden
) -> Record:
    asked = [part for fact in facts for part in (fact.text, fact.question, *fact.answers)]
    return {
        "model": model.package.digest,
        "text": digest(hidden.text),
        "facts": digest(*asked),
        "passages": options.passages,
        "max_tokens": options.max_tokens,
        "rows": list(_rows(options)),
    }


def _rows(options: argparse.Namespace) -> Sequence[str]:
    return [row for row in ROWS if row != "state" or not options.kept]


def ask(
    session: Session,
    keeper: TimedText,
    facts: Sequence[GivenFact],
    hidden: Hidden,
    kept: KeptAnswers,
    options: argparse.Namespace,
) -> None:
    """Ask for each fact that was not asked for yet, and keep the answers."""
    missing = [number for number in range(len(facts)) if str(number) not in kept]
    left = TimeLeft(len(missing))
    for number in missing:
        record = _asked(session, keeper, facts[number], hidden.spans[number], options)
        kept.add(str(number), record)
        told = ", ".join(
            f"{row} {'right' if record[row]['right'] else 'wrong'}" for row in _rows(options)
        )
        found = "found" if record["found"] else "not found"
        say(f"{number + 1} of {len(facts)}: {found}; {told}; {left.step()}")


def _asked(
    session: Session,
    keeper: TimedText,
    fact: GivenFact,
    span: tuple[int, int],
    options: argparse.Namespace,
) -> Record:
    sampling = Sampling(temperature=0, max_tokens=options.max_tokens)
    began = time.perf_counter()
    answer = session.answer(fact.question, passages=options.passages, sampling=sampling)
    looked = keeper.seconds
    next((text for text in answer if text), "")
    first = time.perf_counter() - began
    near = Session(session.model, undo=False)
    for _ in near.ingest(fact.text):
        pass
    texts = {"passages": answer.text, "before": near.ask(fact.question, sampling=sampling)}
    if not options.kept:
        texts["state"] = session.answer(fact.question, passages=0, sampling=sampling).text
    rows = {
        row: {"text": texts[row], "right": is_right(texts[row], fact.answers)}
        for row in _rows(options)
    }
    return {
        "kind": fact.kind,
        "question": fact.question,
        "answers": list(fact.answers),
        "found": any(holds(passage, fact, span) for passage in answer.passages),
        "read_again": [passage.text for passage in answer.passages],
        "first_text_seconds": first,
        "look_up_seconds": looked,
        **rows,
    }


def holds(passage: Passage, fact: GivenFact, span: tuple[int, int]) -> bool:
    """Whether a passage has what answers the question, from where the fact stands.

    Where the fact has none of the accepted answers in its own words, half of it counts.
    """
    first = max(passage.place.character, span[0])
    last = min(passage.place.character + len(passage.text), span[1])
    if first >= last:
        return False
    if not is_right(fact.text, fact.answers):
        return 2 * (last - first) >= span[1] - span[0]
    start = passage.place.character
    return is_right(passage.text[first - start : last - start], fact.answers)


def summary(records: Sequence[Record]) -> dict[str, Any]:
    """Shares, the ratio and times, by kind and in all, as values that JSON knows."""
    kinds = list(dict.fromkeys(record["kind"] for record in records))
    groups = {kind: [r for r in records if r["kind"] == kind] for kind in kinds}
    return {name: _row(group) for name, group in {**groups, "all": list(records)}.items()}


def _row(records: Sequence[Record]) -> Record:
    asked = [row for row in ROWS if row in records[0]]
    right = {row: [bool(record[row]["right"]) for record in records] for row in asked}
    first = [record["first_text_seconds"] for record in records]
    looked = [record["look_up_seconds"] for record in records]
    relative = ratio(right["passages"], right["before"])
    return {
        "facts": len(records),
        **{row: {"right": sum(flags), **share(flags).as_json()} for row, flags in right.items()},
        "found": share([bool(record["found"]) for record in records]).as_json(),
        "passages_by_before": relative.as_json() if relative else None,
        "first_text_seconds": {"median": quantile(first, 0.5), "p90": quantile(first, 0.9)},
        "look_up_seconds": {"median": quantile(looked, 0.5), "p90": quantile(looked, 0.9)},
    }


def table(rows: dict[str, Any]) -> list[str]:
    """The summary as lines of a table, shares in percent with their standard errors."""
    heads = ["", "facts", *_HEADS.values(), "passages / before", "first text", "look-up"]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for name, row in rows.items():
        times = row["first_text_seconds"], row["look_up_seconds"]
        cells = [
            name,
            str(row["facts"]),
            *(_percent(row.get(column)) for column in _HEADS),
            _percent(row["passages_by_before"]),
            f"{times[0]['median']:.2f} s (90 %: {times[0]['p90']:.2f} s)",
            f"{1000 * times[1]['median']:.1f} ms (90 %: {1000 * times[1]['p90']:.1f} ms)",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _percent(value: Record | None) -> str:
    if value is None:
        return "-"
    error = value["standard_error"]
    scaled = Mean(100 * value["mean"], None if error is None else 100 * error, value["count"])
    return f"{scaled.text(1)} %"


if __name__ == "__main__":
    main()
