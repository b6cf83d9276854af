"""SlidingWindowAttention as an ONNX function body: the same graph runs where our library is not.

A node named like one of these functions runs our kernel if the library is registered and is
inlined to standard operators otherwise. Sizes and attributes are baked in when a model is
exported. Two limits follow from standard operators: a piece must hold a token, be no longer than
the window and not cross a chunk boundary (nothing can raise an error inside a graph), and a state
must not be bound as input and output at once (the old may be read after the new was written).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from allmem_exporters.onnx.function_body import Attributes, Body, Value, operator_body
from allmem_ops.schema import (
    ATTENTION_BY_HEAD,
    QUANTIZED_ATTENTION,
    QUANTIZED_ATTENTION_BY_HEAD,
    SINK_LOGITS,
    SLIDING_WINDOW_ATTENTION,
    with_sink_logits,
)


def attention_function(
    *,
    query_heads: int,
    kv_heads: int,
    head_dim: int,
    rotary_half: int,
    attributes: Attributes,
    activation: str = "float32",
    cache: str = "float16",
    sink_logits: bool = False,
) -> onnx.FunctionProto:
    """Body of SlidingWindowAttention for one set of sizes.

    Args:
        query_heads: number of query heads.
        kv_heads: number of key/value heads.
        head_dim: width of a head.
        rotary_half: number of rotary frequencies.
        attributes: of the operator; defaults are filled in.
        activation: element type of qkv and output.
        cache: element type of the key/value ring.
        sink_logits: whether nodes have them.

    Raises:
        ValueError: an attribute is unknown or out of range.
    """
    by_head = isinstance(attributes.get("window"), tuple)
    operator = ATTENTION_BY_HEAD if by_head else SLIDING_WINDOW_ATTENTION
    if cache == "int8":
        operator = QUANTIZED_ATTENTION_BY_HEAD if by_head else QUANTIZED_ATTENTION
    if sink_logits:
        operator = with_sink_logits(operator)
    values = operator.attribute_values(attributes)
    # Newer than the others: exported files without it stay as they were.
    b = operator_body(operator, without=() if "softcap" in attributes else ("softcap",))
    heads = _Heads(b, values, query_heads // kv_heads, head_dim, rotary_half, cache)
    qkv = b.input("qkv").cast("float32")
    time = qkv.size(1)
    packed = qkv.reshape(0, 0, query_heads + 2 * kv_heads, head_dim)
    query, key, value = packed.split(2, query_heads, kv_heads, kv_heads)
    query, key = heads.normed(query, "query_norm"), heads.normed(key, "key_norm")
    past = [b.input(tensor.name) for tensor in operator.state]
    windows, sinks = values["window"], int(values["sinks"])
    logits = b.input(SINK_LOGITS.name) if sink_logits else None
    if not isinstance(windows, tuple):
        output, *present = heads.attend(
            query, key, value, time, past, logits, kv_heads, int(windows)
        )
        return b.finish(output.cast(activation), *present)

    slots = [sinks + window for window in windows]
    rings = [part.split(1, *slots) for part in past[:2]]
    rings += [part.split(1, *(2 * count for count in slots)) for part in past[2:]]
    queries = query.split(2, *[query_heads // kv_heads] * kv_heads)
    keys, contents = (part.split(2, *[1] * kv_heads) for part in (key, value))
    of_heads: list[Value | None] = [None] * kv_heads
    if logits is not None:
        of_heads = [*logits.split(0, *[query_heads // kv_heads] * kv_heads)]
    results = []
    for head, window in enumerate(windows):
        own = [ring[head].unsqueeze(1) for ring in rings[:2]]
        own += [ring[head].reshape(0, 1, 2, slots[head]) for ring in rings[2:]]
        results.append(
            heads.attend(
                queries[head], keys[head], contents[head], time, own, of_heads[head], 1, window
            )
        )
    mixed, *parts = zip(*results, strict=True)
    joined = [b.concat(1, *(ring.squeeze(1) for ring in part)) for part in parts[:2]]
    joined += [b.concat(1, *(scale.reshape(0, -1) for scale in part)) for part in parts[2:]]
    return b.finish(b.concat(2, *mixed).cast(activation), *joined)


@dataclass(frozen=True)
class _Heads:
    """What key/value heads with one window do, and the query heads that go with them."""

    b: Body
    values: Attributes
    group: int  # query heads of a key/value head
    head_dim: int
    rotary_half: int
    cache: str

    def attend(
        self,
        query: Value,
        key: Value,
        value: Value,
        time: Value,
        past: list[Value],
        sink_logits: Value | None,
        kv_heads: int,
        window: int,
    ) -> list[Value]:
        """The mixed values [batch, time, query heads * head_dim], and the rings afterwards.

        Args:
            query: [batch, time, query heads, head_dim].
            key: [batch, time, kv_heads, head_dim].
            value: the same.
            time: [1], tokens of the piece.
            past: rings [batch, kv_heads, slots, head_dim] and, of int8, scales
                [batch, kv_heads, 2, slots].
            sink_logits: [query heads], where the model has them.
            kv_heads: how many heads these are.
            window: of all of them.
        """
        b, values = self.b, self.values
        sinks, position = int(values["sinks"]), b.input("position")
        slots = sinks + window
        now = position + b.arange(time)

        new_key, new_value = (x.transpose(0, 2, 1, 3) for x in (self.rotated(key, now), value))
        scales: Value | None = None  # [batch, kv_heads, 2, slots + time]
        if self.cache == "int8":
            new_key, key_scale = _quantized(b, new_key)
            new_value, value_scale = _quantized(b, new_value)
            new_scales = b.concat(2, key_scale.unsqueeze(2), value_scale.unsqueeze(2))
            scales = b.concat(3, past[2], new_scales)
        keys = b.concat(2, past[0], new_key.cast(self.cache))
        contents = b.concat(2, past[1], new_value.cast(self.cache))
        # Both as numbers, [batch, kv_heads, slots + time, head_dim].
        seen_keys, seen_contents = keys.cast("float32"), contents.cast("float32")
        if scales is not None:
            of_keys, of_contents = (part.squeeze(2).unsqueeze(3) for part in scales.split(2, 1, 1))
            seen_keys, seen_contents = seen_keys * of_keys, seen_contents * of_contents
        columns = b.concat(0, self.slot_positions(position, window, sinks), now)

        def logits(positions: Value, keys: Value) -> Value:
            """[batch, kv_heads, group, time, columns]."""
            turned = self.rotated(query, positions)
            turned = turned.reshape(0, 0, kv_heads, self.group, self.head_dim)
            return turned.transpose(0, 2, 3, 1, 4) @ keys.unsqueeze(2).transpose(0, 1, 2, 4, 3)

        if sinks and values["sink_rope"] == "clamped":
            # Sinks within the piece itself need no clamp: a piece is no longer than the window.
            # Not Min: on int64 ONNX Runtime 1.31's is wrong where a value passes 2^31.
            limit = b.integers(sinks + window - 1)
            clamped = b.where(now < limit, now, limit)
            old, far = b.integers(sinks), b.integers(np.iinfo(np.int64).max)
            scores = b.concat(
                4,
                logits(clamped, seen_keys.slice(2, b.integers(0), old)),
                logits(now, seen_keys.slice(2, old, far)),
            )
        else:
            scores = logits(now, seen_keys)
        row = now.unsqueeze(1)
        visible = (columns >= b.integers(0)) & (columns <= row)
        visible = visible & ((row - columns < b.integers(window)) | (columns < b.integers(sinks)))
        scores = scores * b.number(float(values["scale"]))
        if cap := float(values["softcap"]):
            scores = b.node("Tanh", scores / b.number(cap)) * b.number(cap)
        scores = b.where(visible, scores, b.number(-1e30))
        if sink_logits is None:
            weights = b.node("Softmax", scores, axis=-1)
        else:
            sink = sink_logits.reshape(1, kv_heads, self.group, 1, 1)
            high = b.node("ReduceMax", scores, b.integers(-1), keepdims=1)
            high = b.node("Max", high, sink)
            weights = b.node("Exp", scores - high)
            weights = weights / (weights.sum(-1) + b.node("Exp", sink - high))
        mixed = weights @ seen_contents.unsqueeze(2)
        output = mixed.transpose(0, 3, 1, 2, 4).reshape(0, 0, kv_heads * self.group * self.head_dim)

        after = self.slot_positions(position + time, window, sinks)
        stays = b.constant(np.arange(slots, dtype=np.int64))
        source = b.where(after >= position, after - position + b.integers(slots), stays)
        present = [keys.take(source, 2), contents.take(source, 2)]
        if scales is not None:
            present.append(scales.take(source, 3))
        return [output, *present]

    def slot_positions(self, end: Value, window: int, sinks: int) -> Value:
        """Position of each slot's token once `end` tokens were read; -1 where it is empty."""
        b = self.b
        one, empty = b.integers(1), b.integers(-1)
        ring = b.constant(np.arange(window, dtype=np.int64))
        last = end - one - ((end - one - b.integers(sinks) - ring) % b.integers(window))
        last = b.where(last >= b.integers(sinks), last, empty)
        if sinks == 0:
            return last
        first = b.constant(np.arange(sinks, dtype=np.int64))
        return b.concat(0, b.where(first < end, first, empty), last)

    def rotated(self, x: Value, positions: Value) -> Value:
        """Turn x [batch, time, heads, head_dim] to positions [time]; angles in float64."""
        b, half = self.b, self.rotary_half
        frequencies = b.input("inverse_frequencies")
        angle = positions.cast("float64").unsqueeze(1) * frequencies.cast("float64")
        angle = angle.unsqueeze(1)  # [time, 1, rotary_half]
        amplitude = b.number(float(self.values["rope_amplitude"]), "float64")
        cos = (b.node("Cos", angle) * amplitude).cast("float32")
        sin = (b.node("Sin", angle) * amplitude).cast("float32")
        sizes = [half, half, self.head_dim - 2 * half]
        first, second, *rest = x.split(3, *(size for size in sizes if size))
        return b.concat(3, first * cos - second * sin, second * cos + first * sin, *rest)

    def normed(self, x: Value, gain: str) -> Value:
        """The RMSNorm of each head, if the model has one."""
        epsilon = float(self.values["norm_epsilon"])
        if epsilon == 0.0:
            return x
        b = self.b
        return x / b.node("Sqrt", (x * x).mean(-1) + b.number(epsilon)) * b.input(gain)


def _quantized(b: Body, rows: Value) -> tuple[Value, Value]:
    """Integers of -127 to 127, still in float32, and the scale of each row [..., dim].

    A row that is not finite gets a scale that is not, and zeros, like a row of zeros.
    """
    scale = b.node("ReduceMax", b.node("Abs", rows), b.integers(-1), keepdims=1) * b.number(1 / 127)
    usable = (scale > b.number(0.0)) & (scale < b.number(np.inf))
    whole = b.node("Round", rows / b.where(usable, scale, b.number(1.0)))
    bounded = b.node("Min", b.node("Max", whole, b.number(-127.0)), b.number(127.0))
    return b.where(usable, bounded, b.number(0.0)), scale.squeeze(3)
