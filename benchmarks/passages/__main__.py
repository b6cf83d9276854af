"""How well passages are found, and with --model, what they do for its answers.

Facts in everyday forms are put into a text among others of the same forms that share their names;
the words of a question differ from the fact's as they do where people ask about what others wrote.
Told are: how many of the facts stand in the passages found, the time to keep the text and to look
up, and with a model: answers that are right from the state alone, with passages, and where the
fact is all that was read.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

from allmem_runtime.passages.keeping import Text
from allmem_runtime.session.kept_text import Passage, Segment
from allmem_runtime.text.segments import Segmenter
from benchmarks.arguments import existing, existing_file, parser_of
from benchmarks.passages.facts import Fact, facts, hidden

CHARACTERS_A_TOKEN = 4
"""Where no model counts tokens."""


def main() -> None:
    parser = parser_of("passages", __doc__)
    parser.add_argument("text", type=existing_file, help="prose to hide the facts in")
    parser.add_argument("--model", type=existing, help="ask this model too")
    parser.add_argument("--facts", type=int, default=160, help="how many")
    parser.add_argument("--alike", type=int, default=3, help="others like each of them")
    parser.add_argument("--characters", type=int, help="of the text, from its start; all of it")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--passages", type=int, default=3, help="most a question")
    parser.add_argument("--tokens", type=int, default=340, help="most a question, without a model")
    options = parser.parse_args()
    told = list(facts(options.seed, options.facts, options.alike))
    statements = [text for fact, others in told for text in (fact.text, *others)]
    random.Random(options.seed).shuffle(statements)
    prose = options.text.read_text(encoding="utf-8")[: options.characters]
    text = hidden(prose, statements, options.seed)
    asked = [fact for fact, _ in told]
    if options.model:
        _answers(options, asked, text)
    else:
        _recall(options, asked, text)


def _recall(options: argparse.Namespace, asked: list[Fact], text: str) -> None:
    began = time.perf_counter()
    kept = Text(None)
    at = keep(kept, text)
    kept.find(at, "a", (), 1, 1, _count)  # writes what is held back
    keeping = time.perf_counter() - began
    found, began = 0, time.perf_counter()
    for fact in asked:
        passages = kept.find(at, fact.question, (), options.passages, options.tokens, _count)
        found += _holds(passages, fact)
    looking = (time.perf_counter() - began) / len(asked)
    print(
        f"about {len(text) // CHARACTERS_A_TOKEN:,} tokens: found {found} of {len(asked)}; "
        f"kept in {keeping:.2f} s, looked up in {1000 * looking:.1f} ms"
    )


def _answers(options: argparse.Namespace, asked: list[Fact], text: str) -> None:
    from allmem_runtime import Sampling, load

    model = load(options.model)
    session = model.session(text=True, undo=False)
    began = time.perf_counter()
    for _ in session.ingest(text, name=Path(options.text).name):
        pass
    rate = session.position / (time.perf_counter() - began)
    print(f"{model.name} has read {session.position:,} tokens, {rate:.0f} a second", flush=True)
    sampling = Sampling(max_tokens=32, temperature=0)
    right = {"state alone": 0, "with passages": 0, "the fact right before": 0}
    found, waited = 0, 0.0
    for number, fact in enumerate(asked, 1):
        began = time.perf_counter()
        answer = session.answer(fact.question, passages=options.passages, sampling=sampling)
        next(iter(answer), "")
        waited += time.perf_counter() - began
        found += _holds(answer.passages, fact)
        near = model.session(undo=False)
        for _ in near.ingest(fact.text):
            pass
        alone = session.answer(fact.question, passages=0, sampling=sampling)
        texts = (alone.text, answer.text, near.ask(fact.question, sampling=sampling))
        for name, words in zip(right, texts, strict=True):
            right[name] += fact.answer.casefold() in words.casefold()
        line = ", ".join(f"{name} {count}" for name, count in right.items())
        print(f"{number}: found {found}; right: {line}; {waited / number:.2f} s to the first text",
              flush=True)  # fmt: skip


def keep(kept: Text, text: str) -> str:
    """Have a text kept as a session would, with a token for every four characters."""
    segmenter = Segmenter()
    at, first, token = "", 0, 0
    for segment in [*segmenter.push(text), *segmenter.flush()]:
        tokens = _count(segment.text)
        at = kept.take(at, Segment("text", segment.text, first, segment.end, token, tokens))
        first, token = segment.end, token + tokens
    return at


def _count(text: str) -> int:
    return len(text) // CHARACTERS_A_TOKEN + 1


def _holds(passages: tuple[Passage, ...] | list[Passage], fact: Fact) -> bool:
    return any(fact.text in passage.text for passage in passages)


if __name__ == "__main__":
    main()
