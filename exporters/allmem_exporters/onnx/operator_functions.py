"""The operators as ONNX function bodies: the same graph runs where our library is not.

A node named like one of these functions runs our kernel if the library is registered and is
inlined to standard operators otherwise. Sizes and attributes are baked in when a model is
exported. Two limits follow from standard operators: a piece must hold a token, be no longer than
the window and not cross a chunk boundary (nothing can raise an error inside a graph), and a state
must not be bound as input and output at once (the old may be read after the new was written).
"""

from __future__ import annotations

import numpy as np
import onnx

from allmem_exporters.onnx.function_body import Body, Value
from allmem_ops.contract import Operator
from allmem_ops.contract import Value as AttributeValue
from allmem_ops.kernel_fields import kernel_fields
from allmem_ops.schema import DOMAIN, QUANTIZED_ATTENTION, SLIDING_WINDOW_ATTENTION, TTT_MEMORY

Attributes = dict[str, AttributeValue]


def _body(operator: Operator) -> Body:
    return Body(
        operator.name,
        DOMAIN,
        [tensor.name for tensor in operator.inputs],
        [tensor.name for tensor in operator.outputs],
        [attribute.name for attribute in operator.attributes],
    )


def _quantized(b: Body, rows: Value) -> tuple[Value, Value]:
    """Integers of -127 to 127, still in float32, and the scale of each row [..., dim].

    A row that is not finite gets a scale that is not, and zeros, like a row of zeros.
    """
    scale = b.node("ReduceMax", b.node("Abs", rows), b.integers(-1), keepdims=1) * b.number(1 / 127)
    usable = (scale > b.number(0.0)) & (scale < b.number(np.inf))
    whole = b.node("Round", rows / b.where(usable, scale, b.number(1.0)))
    bounded = b.node("Min", b.node("Max", whole, b.number(-127.0)), b.number(127.0))
    return b.where(usable, bounded, b.number(0.0)), scale.squeeze(3)


def attention_function(
    *,
    query_heads: int,
    kv_heads: int,
    head_dim: int,
    rotary_half: int,
    attributes: Attributes,
    activation: str = "float32",
    cache: str = "float16",
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

    Raises:
        ValueError: an attribute is unknown or out of range.
    """
    values = SLIDING_WINDOW_ATTENTION.attribute_values(attributes)
    window, sinks = int(values["window"]), int(values["sinks"])
    group, slots = query_heads // kv_heads, sinks + window
    quantized = cache == "int8"
    b = _body(QUANTIZED_ATTENTION if quantized else SLIDING_WINDOW_ATTENTION)
    position, frequencies = b.input("position"), b.input("inverse_frequencies")

    def slot_positions(end: Value) -> Value:
        """Position of each slot's token once `end` tokens were read; -1 where it is empty."""
        one, empty = b.integers(1), b.integers(-1)
        ring = b.constant(np.arange(window, dtype=np.int64))
        last = end - one - ((end - one - b.integers(sinks) - ring) % b.integers(window))
        last = b.where(last >= b.integers(sinks), last, empty)
        if sinks == 0:
            return last
        first = b.constant(np.arange(sinks, dtype=np.int64))
        return b.concat(0, b.where(first < end, first, empty), last)

    def rotated(x: Value, positions: Value) -> Value:
        """Turn x [batch, time, heads, head_dim] to positions [time]; angles in float64."""
        angle = positions.cast("float64").unsqueeze(1) * frequencies.cast("float64")
        angle = angle.unsqueeze(1)  # [time, 1, rotary_half]
        amplitude = b.number(float(values["rope_amplitude"]), "float64")
        cos = (b.node("Cos", angle) * amplitude).cast("float32")
        sin = (b.node("Sin", angle) * amplitude).cast("float32")
        sizes = [rotary_half, rotary_half, head_dim - 2 * rotary_half]
        first, second, *rest = x.split(3, *(size for size in sizes if size))
        return b.concat(3, first * cos - second * sin, second * cos + first * sin, *rest)

    def normed(x: Value, gain: str) -> Value:
        epsilon = float(values["norm_epsilon"])
        if epsilon == 0.0:
            return x
        return x / b.node("Sqrt", (x * x).mean(-1) + b.number(epsilon)) * b.input(gain)

    qkv = b.input("qkv").cast("float32")
    time = qkv.size(1)
    heads = qkv.reshape(0, 0, query_heads + 2 * kv_heads, head_dim)
    query, key, value = heads.split(2, query_heads, kv_heads, kv_heads)
    query, key = normed(query, "query_norm"), normed(key, "key_norm")
    now = position + b.arange(time)

    new_key, new_value = (x.transpose(0, 2, 1, 3) for x in (rotated(key, now), value))
    scales: Value | None = None  # [batch, kv_heads, 2, slots + time]
    if quantized:
        new_key, key_scale = _quantized(b, new_key)
        new_value, value_scale = _quantized(b, new_value)
        new_scales = b.concat(2, key_scale.unsqueeze(2), value_scale.unsqueeze(2))
        scales = b.concat(3, b.input("past_scale"), new_scales)
    keys = b.concat(2, b.input("past_key"), new_key.cast(cache))
    contents = b.concat(2, b.input("past_value"), new_value.cast(cache))
    # Both as numbers, [batch, kv_heads, slots + time, head_dim].
    seen_keys, seen_contents = keys.cast("float32"), contents.cast("float32")
    if scales is not None:
        of_keys, of_contents = (part.squeeze(2).unsqueeze(3) for part in scales.split(2, 1, 1))
        seen_keys, seen_contents = seen_keys * of_keys, seen_contents * of_contents
    columns = b.concat(0, slot_positions(position), now)

    def logits(positions: Value, keys: Value) -> Value:
        """[batch, kv_heads, group, time, columns]."""
        turned = rotated(query, positions).reshape(0, 0, kv_heads, group, head_dim)
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
    scores = b.where(visible, scores * b.number(float(values["scale"])), b.number(-1e30))
    mixed = b.node("Softmax", scores, axis=-1) @ seen_contents.unsqueeze(2)
    output = mixed.transpose(0, 3, 1, 2, 4).reshape(0, 0, query_heads * head_dim)

    after = slot_positions(position + time)
    stays = b.constant(np.arange(slots, dtype=np.int64))
    source = b.where(after >= position, after - position + b.integers(slots), stays)
    present = [keys.take(source, 2), contents.take(source, 2)]
    if scales is not None:
        present.append(scales.take(source, 3))
    return b.finish(output.cast(activation), *present)


def memory_function(
    *,
    heads: int,
    memory_dim: int,
    hidden: int,
    kernel: int,
    attributes: Attributes,
    activation: str = "float32",
) -> onnx.FunctionProto:
    """Body of TTTMemory for one set of sizes; the state is float32.

    Args:
        heads: memory heads.
        memory_dim: width of a head.
        hidden: hidden units of a head.
        kernel: convolution taps.
        attributes: of the operator; defaults are filled in.
        activation: element type of qkv, control and output.

    Raises:
        ValueError: an attribute is unknown or out of range.
    """
    values = TTT_MEMORY.attribute_values(attributes)
    width, epsilon = heads * memory_dim, float(values["epsilon"])
    fields, residual = kernel_fields(TTT_MEMORY, attributes), bool(values["residual"])
    b = _body(TTT_MEMORY)
    position = b.input("position")
    guard = b.number(epsilon)

    def length(x: Value, axis: int) -> Value:
        return b.node("Max", b.node("Sqrt", (x * x).sum(axis)), guard)

    def rms(x: Value) -> Value:
        return x / b.node("Sqrt", (x * x).mean(-1) + guard)

    def three(packed: Value) -> list[Value]:
        """[batch, heads, 3, hidden, memory_dim] as gate, up, down."""
        return [part.squeeze(2) for part in packed.split(2, 1, 1, 1)]

    # Convolution, activation, heads.
    qkv = b.input("qkv").cast("float32")
    time = qkv.size(1)
    raw = qkv.reshape(0, 0, 3, width).transpose(0, 2, 1, 3)
    rows = b.concat(2, b.input("past_conv_tail"), raw)
    mixed: Value | None = None
    for tap in range(kernel):
        shifted = rows.slice(2, b.integers(tap), time + b.integers(tap))
        taps = b.input("conv_weight").take(b.integers(tap), 2).reshape(1, 3, 1, width)
        mixed = shifted * taps if mixed is None else mixed + shifted * taps
    assert mixed is not None
    query, key, value = (
        part.reshape(0, 0, heads, memory_dim).transpose(0, 2, 1, 3)
        for part in (whole.squeeze(1) for whole in mixed.split(1, 1, 1, 1))
    )  # each [batch, heads, time, memory_dim]
    if values["conv_activation"] != "none":
        query, key = b.silu(query), b.silu(key)
    if values["conv_activation"] == "silu":
        value = b.silu(value)
    gains = b.input("norm_gain").unsqueeze(2).split(0, 1, 1, 1)
    query, key = query * gains[0], key * gains[1]
    query, key = query / length(query, -1), key / length(key, -1)
    if values["value_norm"] == "rms":
        value = rms(value)
    elif values["value_norm"] == "l2":
        value = value / length(value, -1)

    # Controls: [batch, heads, time, 1] each. Softplus in float64: log(1 + x) loses small rates.
    control = b.input("control").cast("float32").reshape(0, 0, 5, heads).transpose(0, 3, 2, 1)
    *rate_logits, keep_logit, gate_logit = control.unsqueeze(4).split(2, 1, 1, 1, 1, 1)
    one = b.number(1.0, "float64")

    def softplus(x: Value) -> Value:
        wide = x.cast("float64")
        bounded = b.node("Exp", -b.node("Abs", wide))
        positive = b.node("Max", wide, b.number(0.0, "float64"))
        return (positive + b.node("Log", one + bounded)).cast("float32")

    rates = [softplus(logit.squeeze(2)) for logit in rate_logits]
    keep_logit, gate_logit = keep_logit.squeeze(2), gate_logit.squeeze(2)

    # Weights: as committed, and with the row norms of the initial ones.
    weights = b.where(
        position.equals(b.integers(0)), b.input("initial_weights"), b.input("past_weights")
    )
    norms = b.input("initial_norms").split(1, hidden, hidden, memory_dim)
    gate, up, down = three(weights)
    normal = (
        gate * (norms[0].unsqueeze(2) / length(gate, -1)),
        up * (norms[1].unsqueeze(2) / length(up, -1)),
        down * (norms[2].unsqueeze(1) / length(down, -2)),
    )
    raw_weights = (gate, up, down)
    read_at = normal if fields["read_normal"] else raw_weights
    write_at = normal if fields["gradient_normal"] else raw_weights
    commit_to = normal if fields["commit_normal"] else raw_weights

    # Read.
    gate, up, down = read_at
    read = (b.silu(query @ gate.transpose(0, 1, 3, 2)) * (query @ up.transpose(0, 1, 3, 2))) @ down
    if residual:
        read = read + query
    if values["out_norm"]:
        read = rms(read) * gains[2]
    if values["out_gate"] == "sigmoid":
        read = read * b.sigmoid(gate_logit)
    elif values["out_gate"] == "silu":
        read = read * b.silu(gate_logit)
    output = read.transpose(0, 2, 1, 3).reshape(0, 0, width)

    # Write: gradients of the piece, added to those of the open chunk.
    gate, up, down = write_at
    gate_in, up_in = key @ gate.transpose(0, 1, 3, 2), key @ up.transpose(0, 1, 3, 2)
    s = b.sigmoid(gate_in)
    z = gate_in * s
    active = z * up_in
    d_out = -value
    if values["inner_loss"] == "l2":
        d_out = active @ down - value
        if residual:
            d_out = d_out + key
    d_active = d_out @ down.transpose(0, 1, 3, 2)
    unity = b.number(1.0)
    d_gate = d_active * up_in * s * (unity + gate_in * (unity - s))
    piece = (
        (rates[0] * d_gate).transpose(0, 1, 3, 2) @ key,
        (rates[1] * d_active * z).transpose(0, 1, 3, 2) @ key,
        active.transpose(0, 1, 3, 2) @ (rates[2] * d_out),
    )
    gradient = b.input("past_gradient") + b.concat(2, *(part.unsqueeze(2) for part in piece))
    keep_sum = b.input("past_momentum_sum") + b.sigmoid(keep_logit).squeeze(3).sum(2, keep=False)

    # Commit, if this piece brings the chunk's last token.
    chunk = int(values["chunk"])
    total = gradient * b.number(1.0 / chunk) if values["lr_reduce"] == "mean" else gradient
    clip = float(values["clip"])
    if clip > 0.0:
        bounds = [
            b.node("Sqrt", (part * part).sum(1)) * b.number(clip) for part in norms
        ]  # each [heads, 1]
        bound = b.concat(1, *bounds).unsqueeze(2, 3)  # [heads, 3, 1, 1]
        size = b.node("Sqrt", (total * total).sum(-1).sum(-2))
        shrink = b.node("Min", bound / b.node("Max", size, b.number(1e-30)), unity)
        total = total * shrink
    keep = (keep_sum * b.number(1.0 / chunk)).unsqueeze(2, 3, 4)
    momentum = keep * b.input("past_momentum") - total
    committed = b.concat(2, *(part.unsqueeze(2) for part in commit_to)) + momentum
    full = ((position + time) % b.integers(chunk)).equals(b.integers(0))
    tail = rows.slice(2, time, time + b.integers(kernel - 1))
    return b.finish(
        output.cast(activation),
        b.where(full, committed, weights),
        b.where(full, momentum, b.input("past_momentum")),
        b.where(full, b.number(0.0), gradient),
        b.where(full, b.number(0.0), keep_sum),
        tail,
    )
