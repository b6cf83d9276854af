"""TTTMemory as an ONNX function body of standard operators; see ``attention_function``."""

from __future__ import annotations

import onnx

from allmem_exporters.onnx.function_body import Attributes, Value, operator_body
from allmem_ops.kernel_fields import kernel_fields
from allmem_ops.schema import TTT_MEMORY


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
    b = operator_body(TTT_MEMORY)
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
