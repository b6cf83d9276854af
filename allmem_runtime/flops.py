"""Work per token and size of the cache, counted from shapes: AllMem beside full attention.

A multiplication with its addition counts as two operations. Softmax, norms and the renewal of the
fast weights at the end of a chunk are left out; together they are below one percent. It counts
what the architecture needs, not what a machine achieves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from allmem_runtime.config import Manifest
from allmem_runtime.quantities import format_bytes
from allmem_runtime.spec import StateSpec

Phase = Literal["prefill", "decode"]

LENGTHS = {"4k": 4096, "37k": 37_040, "128k": 131_072}
"""Texts, in tokens. The table in docs/evaluation.md fits a 37k of 37,034 to 37,060."""

PAPER = (
    "arXiv 2602.13680 claims about 1/9 of full attention's compute and cache at 128k with a window "
    "of 4k. The token mixer's prefill comes near that; the whole model saves less, the cache more."
)


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a converted decoder.

    Args:
        layers: of the decoder.
        hidden: size of the hidden state.
        feed_forward: inner size of the MLP.
        query_heads: of the attention.
        kv_heads: of the attention.
        head: size of one attention head.
        vocab: tokens known.
        memory_heads: of the memory.
        memory_width: all heads of the memory together.
        memory_hidden: units of one head of the memory.
        kernel: of the memory's convolutions.
        window: tokens seen exactly, the current one included.
        sinks: first tokens that are kept permanently.
        local_layers: layers that see ``local_window`` tokens alone, in either model.
        local_window: their window.
    """

    layers: int
    hidden: int
    feed_forward: int
    query_heads: int
    kv_heads: int
    head: int
    vocab: int
    memory_heads: int
    memory_width: int
    memory_hidden: int
    kernel: int = 4
    window: int = 4096
    sinks: int = 128
    local_layers: int = 0
    local_window: int = 1

    @classmethod
    def of(cls, manifest: Manifest) -> Shape:
        """The shape of an exported model."""
        backbone, memory = manifest.backbone, manifest.memory
        return cls(
            backbone.layers, backbone.hidden_size, backbone.intermediate_size,
            backbone.query_heads, backbone.kv_heads, backbone.head_dim, backbone.vocab_size,
            memory.heads, memory.width, memory.hidden, memory.kernel,
            manifest.window, manifest.sinks,
            *((len(manifest.local.layers), manifest.local.window) if manifest.local else ()),
        )  # fmt: skip

    @property
    def projections(self) -> int:
        """Operations of the attention's four projections, per token and layer."""
        return 4 * self.hidden * (self.query_heads + self.kv_heads) * self.head

    @property
    def feed_forwards(self) -> int:
        """Operations of the MLP, per token and layer."""
        return 6 * self.hidden * self.feed_forward

    @property
    def memory(self) -> int:
        """Operations of the memory: projections and convolutions, reading, writing."""
        projected = 8 * self.hidden * self.memory_width + 10 * self.hidden * self.memory_heads
        convolved = 6 * self.kernel * self.memory_width
        return projected + convolved + 18 * self.memory_width * self.memory_hidden

    @property
    def head_of_model(self) -> int:
        """Operations of the output head, per token that wants logits."""
        return 2 * self.hidden * self.vocab

    def attention(self, seen: float) -> float:
        """Operations of attention itself over ``seen`` keys, per token and layer."""
        return 4 * self.query_heads * self.head * seen

    def state(self) -> StateSpec:
        """What AllMem keeps, keys and values in float16."""
        return StateSpec.build(
            layers=self.layers, kv_heads=self.kv_heads, head_dim=self.head,
            window=self.window, sinks=self.sinks, cache="float16",
            local_layers=range(self.local_layers), local_window=self.local_window,
            memory_heads=self.memory_heads, memory_width=self.memory_width,
            memory_hidden=self.memory_hidden, kernel=self.kernel,
        )  # fmt: skip


SHAPES = {
    "qwen3-0.6b": Shape(28, 1024, 3072, 16, 8, 128, 151_936, 8, 512, 128),
    "qwen3-1.7b": Shape(28, 2048, 6144, 16, 8, 128, 151_936, 8, 512, 128),
    "smollm2-135m": Shape(30, 576, 1536, 9, 3, 64, 49_152, 3, 192, 128, window=1024, sinks=64),
}
"""Published decoders with the memory of the paper; SmolLM2 with the width used here."""


def seen_by_window(shape: Shape, length: int, phase: Phase) -> float:
    """Keys one token attends to: the mean over a text of this length, or at its end."""
    window, sinks = shape.window, shape.sinks
    if phase == "decode":
        return min(length, window) + min(max(length - window, 0), sinks)
    return (_ramp(length, window) + _ramp(max(length - window, 0), sinks)) / length


def seen_by_full(length: int, phase: Phase) -> float:
    """The same for full attention."""
    return (length + 1) / 2 if phase == "prefill" else length


def per_token(shape: Shape, length: int, phase: Phase, *, memory: bool, whole: bool) -> float:
    """Operations per token.

    Args:
        shape: of the model.
        length: of the text, in tokens.
        phase: ``prefill``: the mean over the text, without output head; ``decode``: one token at
            its end, with output head.
        memory: AllMem; else the same decoder with full attention.
        whole: the whole model; else the token mixers alone.
    """
    seen = seen_by_window(shape, length, phase) if memory else seen_by_full(length, phase)
    local = replace(shape, window=shape.local_window, sinks=0)
    seen += shape.local_layers / shape.layers * (seen_by_window(local, length, phase) - seen)
    layer = shape.projections + shape.attention(seen) + (shape.memory if memory else 0)
    if not whole:
        return shape.layers * layer
    head = shape.head_of_model if phase == "decode" else 0
    return shape.layers * (layer + shape.feed_forwards) + head


def ratio(shape: Shape, length: int, phase: Phase, *, whole: bool) -> float:
    """How many times more operations full attention takes than AllMem."""
    full = per_token(shape, length, phase, memory=False, whole=whole)
    return full / per_token(shape, length, phase, memory=True, whole=whole)


def break_even(shape: Shape, phase: Phase) -> int:
    """Shortest text from which on AllMem's token mixers take no more operations."""
    low, high = 1, 1 << 32
    while low < high:
        middle = (low + high) // 2
        if ratio(shape, middle, phase, whole=False) >= 1:
            high = middle
        else:
            low = middle + 1
    return low


def full_cache_bytes(shape: Shape, length: int) -> int:
    """Keys and values in float16 that full attention keeps."""
    return 2 * 2 * shape.kv_heads * shape.head * _kept(shape, length)


def _kept(shape: Shape, length: int) -> int:
    """Tokens that full attention keeps, in all layers together."""
    local = shape.local_layers * min(length, shape.local_window)
    return (shape.layers - shape.local_layers) * length + local


def cache_ratio(shape: Shape, length: int) -> float:
    """Numbers kept by full attention over numbers kept by AllMem."""
    ours = sum(math.prod(tensor.shape) for _, tensor in shape.state())
    return 2 * shape.kv_heads * shape.head * _kept(shape, length) / ours


def account(shape: Shape) -> dict[str, Any]:
    """Everything there is to say about a shape, as values that JSON knows."""
    phases: tuple[Phase, ...] = ("prefill", "decode")
    rows = []
    for name, length in LENGTHS.items():
        work = {
            phase: {
                part: {
                    "full": per_token(shape, length, phase, memory=False, whole=whole),
                    "allmem": per_token(shape, length, phase, memory=True, whole=whole),
                    "ratio": ratio(shape, length, phase, whole=whole),
                }
                for part, whole in (("mixer", False), ("model", True))
            }
            for phase in phases
        }
        cache = {
            "full": full_cache_bytes(shape, length),
            "allmem": shape.state().nbytes,
            "ratio_of_numbers": cache_ratio(shape, length),
        }
        rows.append({"name": name, "tokens": length, "flops": work, "cache_bytes": cache})
    return {
        "window": shape.window,
        "sinks": shape.sinks,
        "lengths": rows,
        "break_even": {phase: break_even(shape, phase) for phase in phases},
        "paper": PAPER,
    }


def lines(values: dict[str, Any]) -> Iterator[str]:
    """The same for people."""
    yield (
        f"operations per token (MFLOP), full attention → AllMem with a window of "
        f"{values['window']:,} and {values['sinks']:,} sinks"
    )
    columns = ("mixer prefill", "model prefill", "mixer decode", "model decode")
    yield " " * 6 + "".join(f"{column:>28}" for column in columns) + f"{'cache':>30}"
    for row in values["lengths"]:
        cells = []
        for column in columns:
            part, phase = column.split()
            work = row["flops"][phase][part]
            full, ours = work["full"] / 1e6, work["allmem"] / 1e6
            cell = f"{full:,.0f} → {ours:,.0f} ({work['ratio']:.2f}x)"
            cells.append(f"{cell:>28}")
        cache = row["cache_bytes"]
        kept = f"{format_bytes(cache['full'])} → {format_bytes(cache['allmem'])}"
        yield f"{row['name']:<6}{''.join(cells)}{kept:>30}"
    prefill, decode = values["break_even"]["prefill"], values["break_even"]["decode"]
    yield (
        f"Below {prefill:,} tokens of prefill, or position {decode:,} in decoding, AllMem's token "
        "mixers take more."
    )
    yield "Prefill leaves the output head out, decode has it. " + values["paper"]


def _ramp(count: int, top: int) -> float:
    """Sum of min(i, top) over i = 1 … count."""
    rising = min(count, top)
    return rising * (rising + 1) / 2 + (count - rising) * top
