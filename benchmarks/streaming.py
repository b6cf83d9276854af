"""Does the answer depend on how a text was cut?

    python -m benchmarks.streaming demo/model TEXT

Reads a text in one pass and in random pieces, with the native library and with the function bodies,
and compares logits and the greedy continuation. Prints one JSON object for each.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from allmem_runtime import Model, Session, load
from allmem_runtime.engine.buffers import Logits
from benchmarks.arguments import add_model, add_text, parser_of, tokens

GREEDY = 64
CHECKPOINTS = 40


def text_ids(model: Model, text: Path, count: int) -> list[int]:
    """The first tokens of a text; a short one starts again from its beginning."""
    ids = model.tokenizer.encode_text(text.read_text(encoding="utf-8", errors="replace"))
    return list(itertools.islice(itertools.cycle(ids), count))


def greedy(session: Session, row: Logits, count: int) -> list[int]:
    """The likeliest next token, over and over."""
    made = []
    for _ in range(count):
        made.append(int(row.argmax()))
        row = session.feed([made[-1]], logits="last")
    return made


def random_pieces(count: int, seed: int) -> Iterator[tuple[int, int]]:
    """Pieces of 1 to 2,000 tokens, sizes even on a logarithmic scale."""
    rng, at = np.random.default_rng(seed), 0
    while at < count:
        end = min(count, at + int(np.exp(rng.uniform(0, np.log(2001)))))
        yield at, end
        at = end


def relative_rms(value: Logits, truth: Logits) -> float:
    """RMS of the difference over RMS of the truth."""
    difference = value.astype(np.float64) - truth
    return float(np.sqrt(np.mean(difference**2) / np.mean(truth.astype(np.float64) ** 2)))


def cuts(model: Model, ids: list[int], seed: int) -> dict[str, object]:
    """One pass against random pieces."""
    pieces = list(random_pieces(len(ids), seed))
    rows = {end - 1 for _, end in pieces}
    rows = set(sorted(rows)[:: max(1, len(rows) // CHECKPOINTS)]) | {len(ids) - 1}
    whole, at = model.session(undo=False), 0
    kept: dict[int, Logits] = {}
    started = time.perf_counter()
    for logits in whole.logits_all(ids):
        for row in rows:
            if at <= row < at + len(logits):
                kept[row] = logits[row - at].copy()
        at += len(logits)
    seconds = time.perf_counter() - started
    cut, worst = model.session(undo=False), 0.0
    for first, end in pieces:
        last = cut.feed(ids[first:end], logits="last")
        if end - 1 in rows:
            worst = max(worst, relative_rms(last, kept[end - 1]))
    return {
        "operators": model.operators,
        "tokens": len(ids),
        "pieces": len(pieces),
        "worst relative RMS": worst,
        "same greedy continuation": greedy(cut, last, GREEDY)
        == greedy(whole, kept[len(ids) - 1], GREEDY),
        "tokens/s of the pass with all logits": len(ids) / seconds,
    }


def main() -> None:
    """Compare cuts with one pass; one JSON object a line."""
    parser = parser_of("streaming", __doc__)
    add_model(parser)
    add_text(parser)
    parser.add_argument("--tokens", type=tokens, default=20_000, help="of the text")
    parser.add_argument("--seed", type=int, default=0, help="of the cuts")
    arguments = parser.parse_args()
    for operators in ("native", "portable"):
        model = load(arguments.model, operators=operators)
        ids = text_ids(model, arguments.text, arguments.tokens)
        print(json.dumps(cuts(model, ids, arguments.seed)), flush=True)


if __name__ == "__main__":
    main()
