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

import click
import numpy as np

from allmem_runtime import load
from benchmarks.arguments import model_argument, text_argument

PIECE = 512
LEAD = 2_000


def losses(logits: np.ndarray, following: np.ndarray) -> np.ndarray:
    """-log p of the following token of each row."""
    rows = logits.astype(np.float64)
    rows -= rows.max(axis=1, keepdims=True)
    return np.log(np.exp(rows).sum(axis=1)) - rows[np.arange(len(following)), following]


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


@click.command()
@model_argument
@click.argument("gguf", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@text_argument
@click.option("--tokens", default=30_000, show_default=True)
@click.option("--bucket", default=2_000, show_default=True)
@click.option("--without-original", is_flag=True, help="Only the converted model.")
def main(model: Path, gguf: Path, text: Path, tokens: int, bucket: int,
         without_original: bool) -> None:  # fmt: skip
    """Print perplexities by position, one JSON object a line."""
    ids = load(model).tokenizer.encode_text(text.read_text(encoding="utf-8", errors="replace"))
    ids = ids[:tokens]
    curves = {"converted": converted(model, ids), "converted, near": near(model, ids, bucket)}
    if not without_original:
        curves["original"] = original(gguf, ids)
    tables = {name: dict(buckets(found, bucket)) for name, found in curves.items()}
    for first in tables["converted"]:
        row = {name: round(table[first], 2) for name, table in tables.items()}
        click.echo(json.dumps({"from": first, **row}))
    for name, found in curves.items():
        early = float(np.exp(found[1_000:8_000].mean()))
        late = float(np.exp(found[8_000:].mean())) if len(found) > 8_000 else float("nan")
        summary = {"model": name, "1k-8k": early, f"8k-{len(ids)}": late, "ratio": late / early}
        click.echo(json.dumps(summary))
    if len(ids) > 8_000:
        gain = curves["converted"][8_000:].mean() - curves["converted, near"][8_000:].mean()
        click.echo(json.dumps({"cost of distance past 8k, ratio": float(np.exp(gain))}))


if __name__ == "__main__":
    main()
