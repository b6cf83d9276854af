"""What storing weights in few bits costs: nats and KL divergence beside the source's own weights.

    python -m benchmarks.stored_weights SOURCE.gguf TEXT [TEXT …] --folder FOLDER

SOURCE is made into models with its weights as they are (float32), and in 4 and 8 bits, with the
blocks that can be carried over and with every block rounded anew. All read the same stretches of
the texts, no longer than the window, from a blank state. The models stay in FOLDER and are used
again when the command is given again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from allmem_exporters.make import make
from allmem_exporters.model.memory_options import MemoryOptions
from allmem_exporters.onnx.export_options import ExportOptions
from allmem_exporters.progress import Progress
from allmem_exporters.sources.gguf import GgufSource
from allmem_runtime import Model, load
from allmem_runtime.evaluation.perplexity import Segment, segments
from benchmarks.arguments import existing_file, parser_of

WINDOW = 1024
SOURCE = "float32"


@dataclass(frozen=True, slots=True)
class Way:
    """One way to store the weights.

    Args:
        weights: as ``ExportOptions`` has it.
        carried: whether blocks of the source are carried over.
    """

    weights: str
    carried: bool = True

    @property
    def name(self) -> str:
        """Of the row, and of the folder."""
        return self.weights if self.carried else f"{self.weights}, all rounded anew"

    def make(self, source: Path, folder: Path) -> Path:
        """The model folder, unless it is there."""
        out = folder / self.name.replace(", ", "-").replace(" ", "-")
        if not out.exists():
            left_out = mock.patch.object(GgufSource, "factors", return_value=None)
            options = ExportOptions(weights=self.weights, memory="disabled", check=False)
            with nullcontext() if self.carried else left_out:
                memory = MemoryOptions(WINDOW, 64, 128, mem_heads=1, mem_width=64)
                make(source, out, memory, options,
                     report=lambda line: print(f"{self.name}: {line}", flush=True))  # fmt: skip
        return out


WAYS = (Way("int8"), Way("int8", carried=False), Way("int4"), Way("int4", carried=False))


@dataclass(slots=True)
class Sums:
    """Over the tokens read so far."""

    tokens: int = 0
    nats: float = 0.0
    divergence: float = 0.0
    same: int = 0

    def add(self, found: NDArray[np.float32], truth: NDArray[np.float32], ids: list[int]) -> None:
        """Count rows of log-probabilities [tokens, vocabulary] and the tokens that follow."""
        self.tokens += len(ids)
        self.nats -= float(found[np.arange(len(ids)), ids].sum(dtype=np.float64))
        difference = np.exp(truth) * (truth - found)
        self.divergence += float(difference.sum(dtype=np.float64))
        self.same += int((found.argmax(1) == truth.argmax(1)).sum())

    def told(self) -> dict[str, float]:
        """Nats and perplexity, KL divergence from the source, share of equal first choices."""
        nats = self.nats / self.tokens
        return {
            "nats": round(nats, 4),
            "perplexity": round(float(np.exp(nats)), 3),
            "divergence": round(self.divergence / self.tokens, 5),
            "same first choice": round(self.same / self.tokens, 4),
        }


def main() -> None:
    parser = parser_of("stored_weights", __doc__)
    parser.add_argument("source", type=existing_file, help="a GGUF file")
    parser.add_argument("text", type=existing_file, nargs="+", help="plain texts")
    parser.add_argument("--folder", type=Path, required=True, help="where the models go")
    parser.add_argument("--samples", type=int, default=6, help="stretches of 1,024 tokens")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    truth = load(Way(SOURCE).make(options.source, options.folder))
    encode = truth.tokenizer.encode_text
    read = segments(options.text, encode, WINDOW - 1, options.samples, options.seed)
    sizes = {}
    table: dict[str, Sums] = {SOURCE: Sums()} | {way.name: Sums() for way in WAYS}
    for way in WAYS:
        folder = way.make(options.source, options.folder)
        sizes[way.name] = sum(file.stat().st_size for file in folder.glob("model.onnx*"))
        model = load(folder)
        progress = Progress(f"{way.name}: reading", partial(print, flush=True))
        total, counted = sum(len(segment.ids) - 1 for segment in read), table[way.name]
        for segment in read:
            for found, true, ids in _rows(model, truth, segment):
                counted.add(found, true, ids)
                progress(counted.tokens, total)
                if way is WAYS[0]:
                    table[SOURCE].add(true, true, ids)
        del model
        print(way.name, counted.told(), flush=True)
    told = {name: {"bytes": sizes.get(name), **sums.told()} for name, sums in table.items()}
    print(json.dumps({"tokens": table[SOURCE].tokens, "ways": told}, indent=1))


def _rows(
    model: Model, truth: Model, segment: Segment
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32], list[int]]]:
    """Log-probabilities of both models, and the tokens that follow."""
    ids, at = list(segment.ids), 0
    pairs = (one.session().logits_all(ids[:-1]) for one in (model, truth))
    for found, true in zip(*pairs, strict=True):
        following = ids[at + 1 : at + 1 + len(found)]
        yield _log_probabilities(found), _log_probabilities(true), following
        at += len(found)


def _log_probabilities(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    scores: NDArray[np.float32] = logits - logits.max(axis=1, keepdims=True)
    scores -= np.log(np.exp(scores).sum(axis=1, keepdims=True))
    return scores


if __name__ == "__main__":
    main()
