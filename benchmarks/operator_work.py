"""What the operators are measured on: nodes in sizes of real models, and what a call costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from allmem_ops.contract import Operator
from allmem_ops.reference import quantize
from allmem_ops.schema import OPERATORS, QUANTIZED_ATTENTION

Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Work:
    """One measurement.

    Attributes:
        name: of the row.
        kind: ``prefill`` is held against a matrix product, ``decode`` against a copy.
        operator: with the inputs and outputs that the node has.
        attributes: of the node.
        inputs: of the node.
        aim: least share of the yardstick; 0 where there is none.
        flops: of one call, multiplications and additions.
        traffic: bytes of state that one call cannot but read or write.
    """

    name: str
    kind: Literal["prefill", "decode"]
    operator: Operator
    attributes: dict[str, Any]
    inputs: Arrays
    aim: float = 0.0
    flops: float = 0.0
    traffic: float = 0.0

    @property
    def state_bytes(self) -> int:
        """Of the whole state, read or not."""
        return sum(self.inputs[tensor.name].nbytes for tensor in self.operator.state)


def attention_work(
    name: str, tokens: int, query_heads: int, kv_heads: int, dim: int, cache: str, window: int,
    aim: float,
) -> Work:  # fmt: skip
    """A piece in the middle of a long document, with a full ring."""
    generator = np.random.default_rng(0)
    sinks, position = 64, 10 * window
    ring = (1, kv_heads, sinks + window, dim)
    keys, values = (generator.standard_normal(ring, np.float32) for _ in range(2))
    inputs: Arrays = {
        "qkv": generator.standard_normal(
            (1, tokens, (query_heads + 2 * kv_heads) * dim), np.float32
        ),
        "position": np.array([position], np.int64),
        "inverse_frequencies": (1e6 ** -(np.arange(dim // 2) / (dim // 2))).astype(np.float32),
        "query_norm": np.ones(dim, np.float32),
        "key_norm": np.ones(dim, np.float32),
    }
    operator = OPERATORS["SlidingWindowAttention"]
    if cache == "int8":
        operator = QUANTIZED_ATTENTION
        (keys8, of_keys), (values8, of_values) = quantize(keys), quantize(values)
        inputs |= {"past_key": keys8, "past_value": values8}
        inputs["past_scale"] = np.stack([of_keys, of_values], axis=2)
    else:
        inputs |= {"past_key": keys.astype(cache), "past_value": values.astype(cache)}
    return Work(
        name,
        "prefill" if tokens > 1 else "decode",
        operator,
        {"window": window, "sinks": sinks, "scale": dim**-0.5, "norm_epsilon": 1e-6},
        inputs,
        aim,
        flops=4.0 * tokens * query_heads * dim * (window + sinks),
        traffic=float(sum(inputs[tensor.name].nbytes for tensor in operator.state)),
    )


def memory_work(name: str, tokens: int, heads: int, dim: int, loss: str, aim: float) -> Work:
    """A piece inside a chunk, without commit."""
    generator = np.random.default_rng(0)
    hidden = 2 * dim
    width, fast = heads * dim, (1, heads, 3, hidden, dim)

    def normal(*shape: int) -> np.ndarray[Any, Any]:
        return generator.standard_normal(shape, np.float32)

    inputs = {
        "qkv": normal(1, tokens, 3 * width),
        "control": normal(1, tokens, 5 * heads),
        "position": np.array([4096], np.int64),
        "conv_weight": normal(3, width, 4),
        "norm_gain": normal(3, heads, dim),
        "initial_weights": normal(heads, 3, hidden, dim),
        "initial_norms": np.abs(normal(heads, 2 * hidden + dim)),
        "past_weights": normal(*fast),
        "past_momentum": normal(*fast),
        "past_gradient": normal(*fast),
        "past_momentum_sum": normal(1, heads),
        "past_conv_tail": normal(1, 3, 3, width),
    }
    per_token = (18 if loss == "neg_dot" else 20) * width * hidden
    return Work(
        name,
        "prefill" if tokens > 1 else "decode",
        OPERATORS["TTTMemory"],
        {"chunk": 2048, "inner_loss": loss},
        inputs,
        aim,
        flops=float(tokens * per_token),
        traffic=3.0 * inputs["past_weights"].nbytes,  # weights read, gradient read and written
    )


def works(only: str) -> Iterator[Work]:
    """Heads of SmolLM2-135M (9/3 x 64), Qwen2.5-0.5B (14/2), Qwen3-0.6B (16/8 x 128), Llama-8B."""
    caches = ("float16", "float32", "int8")
    if only in ("", "attention"):
        for cache in caches:
            for heads, dim in ((9, 3), 64), ((14, 2), 64), ((16, 8), 128), ((32, 8), 128):
                name = f"attention, 256 tokens, {heads[0]}/{heads[1]} x {dim}, {cache}"
                yield attention_work(name, 256, *heads, dim, cache, 2048, 0.5)
        yield attention_work(
            "attention, 8 tokens, 9/3 x 64, float16", 8, 9, 3, 64, "float16", 1024, 0
        )
    if only in ("", "memory"):
        for loss in ("neg_dot", "l2"):
            for count, dim in (2, 64), (3, 64), (8, 64), (8, 128):
                name = f"memory, 256 tokens, {count} x {dim}, {loss}"
                yield memory_work(name, 256, count, dim, loss, 0.6)
        yield memory_work("memory, 64 tokens, 3 x 64, neg_dot", 64, 3, 64, "neg_dot", 0)
    if only in ("", "attention"):
        for cache in caches:
            for heads, dim, window in (
                ((9, 3), 64, 1024), ((14, 2), 64, 1024), ((16, 8), 128, 4096), ((32, 8), 128, 1024)
            ):  # fmt: skip
                name = f"attention, 1 token, {heads[0]}/{heads[1]} x {dim}, {cache}"
                yield attention_work(name, 1, *heads, dim, cache, window, 0.7)
    if only in ("", "memory"):
        for count, dim in (2, 64), (3, 64), (8, 64), (8, 128):
            yield memory_work(f"memory, 1 token, {count} x {dim}", 1, count, dim, "neg_dot", 0.7)
