"""Perplexity by position: the converted model against the original, far past its trained length.

    python -m benchmarks.perplexity demo/model ORIGINAL.gguf TEXT --tokens 30000

The original reads with full attention through transformers; the converted model (alpha 0, so
window and sinks alone) through the runtime. Same weights, same tokens. Some parts of a text are
harder than others, so the converted model also reads each part anew, near the beginning of a
session: what the distance costs is the ratio of these two.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from allmem_runtime import load
from benchmarks.arguments import add_model, add_text, existing_file, parser_of, tokens

PIECE = 512
LEAD = 2_000


def losses(logits: NDArray[Any], following: NDArray[Any]) -> NDArray[np.float64]:
    """-log p of the following token of each row."""
    rows = logits.astype(np.float64)
    rows -= rows.max(axis=1, keepdims=True)
    found: NDArray[np.float64] = np.log(np.exp(rows).sum(axis=1))
    found -= rows[np.arange(len(following)), following]
    return found


def converted(folder: Path, ids: list[int]) -> np.ndarray:
    """Losses of tokens 1 … n - 1 through the runtime."""
    session, found, at = load(folder).session(undo=False), [], 0
    for logits in session.logits_all(ids[:-1]):
        found.append(losses(logits, np.array(ids[at + 1 : at + 1 + len(logits)])))
        at += len(logits)
    return np.concatenate(found)


def near(folder: Path, ids: list[int], width: int) -> np.ndarray:
    """The same losses, each bucket read in a session of its own after ``LEAD`` tokens of lead."""
    model, found = load(folder), []
    for first in range(1, len(ids), width):
        start = max(0, first - LEAD)
        piece = ids[start : first + width]
        session, at, kept = model.session(undo=False), start, []
        for logits in session.logits_all(piece[:-1]):
            following = np.array(ids[at + 1 : at + 1 + len(logits)])
            kept.append(losses(logits, following))
            at += len(logits)
        found.append(np.concatenate(kept)[first - start - 1 :])
    return np.concatenate(found)


def original(gguf: Path, ids: list[int]) -> np.ndarray:
    """Losses of tokens 1 … n - 1 through transformers, full attention."""
    import torch

    from benchmarks.conversion import pretrained

    model = pretrained(str(gguf))
    cache, found = None, []
    with torch.inference_mode():
        for first in range(0, len(ids) - 1, PIECE):
            piece = ids[first : min(first + PIECE, len(ids) - 1)]
            output = model(torch.tensor([piece]), past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            following = np.array(ids[first + 1 : first + 1 + len(piece)])
            found.append(losses(output.logits[0].numpy(), following))
    return np.concatenate(found)


def buckets(found: np.ndarray, width: int) -> Iterator[tuple[int, float]]:
    """(first position, perplexity) of each bucket."""
    for first in range(0, len(found), width):
        yield first, float(np.exp(found[first : first + width].mean()))


def main() -> None:
    """Print perplexities by position, one JSON object a line."""
    parser = parser_of("perplexity", __doc__)
    add_model(parser)
    parser.add_argument("gguf", type=existing_file, help="the original")
    add_text(parser)
    parser.add_argument("--tokens", type=tokens, default=30_000, help="of the text")
    parser.add_argument("--bucket", type=tokens, default=2_000, help="tokens of a figure")
    parser.add_argument("--without-original", action="store_true", help="only the converted model")
    arguments = parser.parse_args()
    model, text, bucket = arguments.model, arguments.text, arguments.bucket
    ids = load(model).tokenizer.encode_text(text.read_text(encoding="utf-8", errors="replace"))
    ids = ids[: arguments.tokens]
    curves = {"converted": converted(model, ids), "converted, near": near(model, ids, bucket)}
    if not arguments.without_original:
        curves["original"] = original(arguments.gguf, ids)
    tables = {name: dict(buckets(found, bucket)) for name, found in curves.items()}
    for first in tables["converted"]:
        row = {name: round(table[first], 2) for name, table in tables.items()}
        print(json.dumps({"from": first, **row}), flush=True)
    for name, found in curves.items():
        early = float(np.exp(found[1_000:8_000].mean()))
        late = float(np.exp(found[8_000:].mean())) if len(found) > 8_000 else float("nan")
        summary = {"model": name, "1k-8k": early, f"8k-{len(ids)}": late, "ratio": late / early}
        print(json.dumps(summary), flush=True)
    if len(ids) > 8_000:
        gain = curves["converted"][8_000:].mean() - curves["converted, near"][8_000:].mean()
        print(json.dumps({"cost of distance past 8k, ratio": float(np.exp(gain))}), flush=True)


if __name__ == "__main__":
    main()
