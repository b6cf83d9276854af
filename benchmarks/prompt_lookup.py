"""Would it pay to guess tokens from the text just read, and check several in one step?

    python -m benchmarks.prompt_lookup MODEL TEXT --tokens 3000

The guess is what followed the last n tokens when they last occurred (prompt-lookup decoding). A
step that checks guesses writes to the state, so a wrong one must be taken back. What that costs is
known: the gradient of the open chunk and a few places of the window are copied before, and tokens
that were right are fed again together with the next step, which is cheaper than a step of their
own. So no such decoder is needed to tell what one would gain: this measures steps of one and of
several tokens in turns, lets the model answer, and adds up what every setting would have cost for
the same answers.

It also tells whether the answers could differ: how far logits of a step of one token are from those
of a step of several, and how often the two likeliest tokens are closer than that.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from allmem_runtime import Model, Session, load
from allmem_runtime.generation.sampling import Sampling
from benchmarks.arguments import add_model, add_text, at_least_one, parser_of, tokens

LENGTHS = (1, 2, 3, 4, 5, 6, 8, 12, 16)
QUESTIONS = (
    "What is this text about? Answer in three sentences.",
    "Repeat the last paragraph of the text word for word.",
    "List five facts from the text.",
    "Explain the most important term of the text to a beginner.",
)


@dataclass(frozen=True, slots=True)
class Setting:
    """How guesses are made.

    Attributes:
        match: tokens that must have occurred before in this order.
        guess: most tokens guessed at once.
    """

    match: int
    guess: int


@dataclass(slots=True)
class Outcome:
    """What one setting does with one answer.

    Attributes:
        seconds: all steps together.
        guessed: tokens guessed.
        right: of these.
        steps: run.
    """

    seconds: float = 0.0
    guessed: int = 0
    right: int = 0
    steps: int = 0


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds of steps by their number of tokens, and of copying what a step overwrites."""

    steps: dict[int, float]
    copy: float

    def step(self, tokens: int) -> float:
        """Of any number of tokens: between measured ones on a line, beyond them in proportion."""
        known = sorted(self.steps)
        if tokens > known[-1]:
            return self.steps[known[-1]] * tokens / known[-1]
        return float(np.interp(tokens, known, [self.steps[n] for n in known]))


def guesses(history: Sequence[int], setting: Setting) -> list[int]:
    """What followed the last tokens when they occurred before, the latest time."""
    last = list(history[-setting.match :])
    for at in range(len(history) - setting.match - 1, -1, -1):
        if history[at] == last[0] and list(history[at : at + setting.match]) == last:
            return list(history[at + setting.match : at + setting.match + setting.guess])
    return []


def simulate(
    before: Sequence[int], answer: Sequence[int], setting: Setting, costs: Costs
) -> Outcome:
    """What writing an answer would have cost.

    Args:
        before: tokens read before it, the last of them not yet fed.
        answer: tokens that plain decoding wrote.
        setting: how guesses are made.
        costs: of steps.
    """
    history, done, again, found = list(before), 0, 0, Outcome()
    while done < len(answer):
        # Tokens that are fed a second time make a step dearer: not too many of them.
        draft = guesses(history, setting) if again <= setting.guess else []
        draft = draft[: len(answer) - done - 1]
        right = 0
        while right < len(draft) and draft[right] == answer[done + right]:
            right += 1
        found.steps += 1
        found.guessed += len(draft)
        found.right += right
        found.seconds += costs.step(again + 1 + len(draft)) + (costs.copy if draft else 0.0)
        if right < len(draft):
            found.seconds += costs.copy
            again += 1 + right
        else:
            again = 0
        history += answer[done : done + right + 1]
        done += right + 1
    return found


def measure(session: Session, ids: Sequence[int], rounds: int, clock: str) -> Costs:
    """Steps of several lengths in turns, all with logits of every token."""
    now = time.process_time if clock == "cpu" else time.perf_counter
    times: dict[int, list[float]] = {length: [] for length in LENGTHS}
    session.checkpoint()
    for turn in range(rounds + 1):
        for length in LENGTHS:
            began = now()
            for _ in session.logits_all(ids[:length]):
                pass
            if turn:
                times[length].append(now() - began)
            session.rollback()
    state = session.model.manifest.state
    count = sum(t.nbytes for t in state.tensors if t.name == "gradient") * state.layers
    source, target, copies = np.ones(count, np.uint8), np.zeros(count, np.uint8), []
    for _ in range(rounds):
        began = now()
        np.copyto(target, source)
        copies.append(now() - began)
    steps = {length: statistics.median(found) for length, found in times.items()}
    return Costs(steps, statistics.median(copies))


def answers(model: Model, session: Session, tokens: int) -> Iterator[tuple[str, list[int]]]:
    """Greedy answers, as tokens."""
    for question in QUESTIONS:
        text = session.fork().ask(question, sampling=Sampling(max_tokens=tokens))
        yield question, model.tokenizer.encode_text(text)


def closeness(session: Session, ids: Sequence[int]) -> dict[str, float]:
    """Steps of one token against steps of four: logits, and the gap of the two likeliest."""
    session.checkpoint()
    one = np.concatenate([np.asarray(session.feed([i], logits="last"))[None] for i in ids])
    session.rollback()
    four = np.concatenate(
        [rows for at in range(0, len(ids), 4) for rows in session.logits_all(ids[at : at + 4])]
    )
    session.rollback()
    apart = np.abs(one - four).max(axis=1)
    best = np.sort(one, axis=1)[:, -2:]
    gaps = best[:, 1] - best[:, 0]
    return {
        "tokens": len(ids),
        "largest difference of a logit": float(apart.max()),
        "median gap of the two likeliest": float(np.median(gaps)),
        "tokens whose gap is smaller than twice the difference": int((gaps < 2 * apart).sum()),
        "tokens with another likeliest": int((one.argmax(1) != four.argmax(1)).sum()),
    }


def main() -> None:
    """One JSON object a line."""
    parser = parser_of("prompt_lookup", __doc__)
    add_model(parser)
    add_text(parser)
    parser.add_argument("--tokens", type=tokens, default=3000, help="of the text, read first")
    parser.add_argument("--answer", type=tokens, default=128, help="tokens of an answer")
    parser.add_argument("--rounds", type=at_least_one, default=9, help="of the measuring of steps")
    parser.add_argument("--threads", type=at_least_one, help="of a step")
    parser.add_argument(
        "--clock",
        choices=["wall", "cpu"],
        default="wall",
        help="cpu on a busy machine; then with one thread",
    )
    arguments = parser.parse_args()
    model, text, first = arguments.model, arguments.text, arguments.tokens
    opened = load(model, device="cpu", operators="native", threads=arguments.threads)
    ids = opened.tokenizer.encode_text(text.read_text(encoding="utf-8", errors="replace"))
    session = opened.session(undo=False)
    for _ in session.ingest(ids[:first]):
        pass
    costs = measure(session, ids[first : first + LENGTHS[-1]], arguments.rounds, arguments.clock)
    steps = {str(n): round(seconds * 1e3, 2) for n, seconds in costs.steps.items()}
    print(json.dumps({"step ms": steps, "copy ms": round(costs.copy * 1e3, 2)}), flush=True)
    print(json.dumps(closeness(session, ids[first : first + 64])), flush=True)
    settings = [Setting(match, guess) for match in (2, 3, 4, 6) for guess in (1, 2, 4, 8)]
    total = {setting: [0.0, 0.0, 0, 0] for setting in settings}
    window = ids[max(0, first - opened.manifest.window) : first]
    for question, written in answers(opened, session, arguments.answer):
        before = [*window, *opened.tokenizer.encode_text(question)]
        plain = costs.step(1) * len(written)
        for setting in settings:
            found = simulate(before, written, setting, costs)
            sums = total[setting]
            sums[0] += plain
            sums[1] += found.seconds
            sums[2] += found.guessed
            sums[3] += found.right
        best = max(settings, key=lambda s: plain / simulate(before, written, s, costs).seconds)
        gain = plain / simulate(before, written, best, costs).seconds
        row = {"question": question, "tokens": len(written), "best gain": round(gain, 3)}
        print(json.dumps({**row, "match": best.match, "guess": best.guess}), flush=True)
    for setting, (plain, seconds, guessed, right) in total.items():
        row = {"match": setting.match, "guess": setting.guess, "gain": round(plain / seconds, 3)}
        row |= {"guessed": guessed, "right": round(right / max(guessed, 1), 2)}
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
