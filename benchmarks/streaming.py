"""Does the answer depend on how a text was cut, and do memory and speed on how long it is?

    python -m benchmarks.streaming demo/model TEXT            # all of it, about half an hour
    python -m benchmarks.streaming demo/model TEXT --only cuts,resume

Reports: logits and greedy continuation of random cuts against one pass, with the native library
and with the function bodies; resident memory and decode speed while hundreds of thousands of
tokens go by; a saved session continued by another process; library against bodies in tokens/s.
"""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from allmem_runtime import Model, Session, load
from allmem_runtime.engine.buffers import Logits
from benchmarks.arguments import add_model, add_text, names, parser_of, tokens
from benchmarks.memory import resident_mib

GREEDY = 64
CHECKPOINTS = 40
ROUNDS = 9


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


def decode_speed(session: Session, tokens: int = 96) -> float:
    """Median tokens/s of single steps on a fork."""
    fork, times = session.fork(), []
    row = fork.feed([1], logits="last")
    for _ in range(tokens):
        started = time.perf_counter()
        row = fork.feed([int(row.argmax())], logits="last")
        times.append(time.perf_counter() - started)
    return 1 / statistics.median(times)


def length(model: Model, ids: list[int], marks: list[int]) -> Iterator[dict[str, float]]:
    """Memory and speed at depths; then decode speed at the first and the last, in turns."""
    session, near, resident = model.session(undo=False), None, {}
    for mark in marks:
        started, before = time.perf_counter(), session.position
        session.feed(ids[before:mark])
        seconds = time.perf_counter() - started
        near = near or session.fork()
        resident[mark] = resident_mib()
        yield {
            "tokens read": mark,
            "resident MiB": resident[mark],
            "state MiB": model.state_bytes / 2**20,
            "prefill tokens/s": (mark - before) / seconds,
            "decode tokens/s": decode_speed(session),
        }
    assert near is not None
    ratios = [decode_speed(session, 48) / decode_speed(near, 48) for _ in range(ROUNDS)]
    after = [mib for mark, mib in resident.items() if mark >= 10_000]
    yield {
        "resident growth after 10k, MiB": max(after) - after[0],
        f"decode speed at {marks[-1]} / {marks[0]}, median": statistics.median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
    }


def resume(model: Model, folder: Path, ids: list[int]) -> dict[str, object]:
    """A saved session against the uninterrupted run, in another process."""
    session = model.session(undo=False)
    row = session.feed(ids, logits="last")
    first = int(row.argmax())
    with tempfile.TemporaryDirectory() as temporary:
        saved = Path(temporary) / "session.allmem"
        session.save(saved)
        size = saved.stat().st_size
        uninterrupted = [first, *greedy(session, session.feed([first], logits="last"), GREEDY - 1)]
        script = (
            "import json, sys\n"
            "from allmem_runtime import load\n"
            "from benchmarks.streaming import greedy\n"
            "model, path, first, count, operators = sys.argv[1:]\n"
            "session = load(model, operators=operators).open(path)\n"
            "start = session.position\n"
            "row = session.feed([int(first)], logits='last')\n"
            "made = [int(first), *greedy(session, row, int(count) - 1)]\n"
            "print(json.dumps([made, session.position - start]))\n"
        )
        arguments = [str(folder), str(saved), str(first), str(GREEDY), model.operators]
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments], check=True, capture_output=True, text=True
        )
    made, processed = json.loads(done.stdout)
    return {
        "tokens before saving": len(ids),
        "file MiB": size / 2**20,
        "identical tokens": sum(a == b for a, b in zip(made, uninterrupted, strict=True)),
        "of": GREEDY,
        "tokens processed after opening": processed,
    }


def speed(folder: Path, ids: list[int]) -> dict[str, float]:
    """Library against function bodies, alternating."""
    models = {name: load(folder, operators=name) for name in ("native", "portable")}
    prefill: dict[str, list[float]] = {name: [] for name in models}
    decode: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(3):
        for name, model in models.items():
            session = model.session(undo=False)
            session.feed(ids[:64])
            started = time.perf_counter()
            session.feed(ids[64:])
            prefill[name].append((len(ids) - 64) / (time.perf_counter() - started))
            decode[name].append(decode_speed(session, 48))
    result = {}
    for kind, table in (("prefill", prefill), ("decode", decode)):
        for name, values in table.items():
            result[f"{kind} tokens/s, {name}"] = statistics.median(values)
        ratios = [a / b for a, b in zip(table["native"], table["portable"], strict=True)]
        result[f"{kind} native/portable"] = statistics.median(ratios)
        result[f"{kind} native/portable spread"] = max(ratios) - min(ratios)
    return result


def main() -> None:
    """Measure streaming; one JSON object a line."""
    parser = parser_of("streaming", __doc__)
    add_model(parser)
    add_text(parser)
    parser.add_argument(
        "--only", type=names, default=["speed", "cuts", "resume", "length"], help="parts of it"
    )
    parser.add_argument("--cut-tokens", type=tokens, default=20_000, help="tokens that are cut")
    parser.add_argument("--far", type=tokens, default=200_000, help="of the longest reading")
    parser.add_argument("--seed", type=int, default=0, help="of the cuts")
    arguments = parser.parse_args()
    model, text, far = arguments.model, arguments.text, arguments.far
    wanted, cut_tokens, seed = set(arguments.only), arguments.cut_tokens, arguments.seed
    native = load(model, operators="native")
    if "speed" in wanted:
        print(json.dumps(speed(model, text_ids(native, text, 3000))), flush=True)
    if "cuts" in wanted:
        ids = text_ids(native, text, cut_tokens)
        print(json.dumps(cuts(native, ids, seed)), flush=True)
        print(json.dumps(cuts(load(model, operators="portable"), ids, seed)), flush=True)
    if "resume" in wanted:
        print(json.dumps(resume(native, model, text_ids(native, text, 3333))), flush=True)
    if "length" in wanted:
        marks = [2_000, 10_000, 25_000, 50_000, 100_000, 150_000, 200_000]
        marks = [mark for mark in marks if mark < far] + [far]
        for row in length(native, text_ids(native, text, far), marks):
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
