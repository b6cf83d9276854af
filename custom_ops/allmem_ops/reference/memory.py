"""Reference of TTTMemory: the equations of one piece, head by head, in float64.

Row vectors throughout: a piece of queries is [time, memory_dim], gate and up are
[hidden, memory_dim], and down is kept transposed, [hidden, memory_dim], so that the three
matrices, their momenta and their gradients share one array.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from allmem_ops.kernel_fields import kernel_fields
from allmem_ops.schema import TTT_MEMORY

Array = NDArray[np.floating]
Float64 = NDArray[np.float64]

GATE, UP, DOWN = 0, 1, 2


class FastWeights(NamedTuple):
    """The three matrices of one head, each [hidden, memory_dim]; down is transposed."""

    gate: Float64
    up: Float64
    down: Float64


def sigmoid(x: Float64) -> Float64:
    """Logistic function without overflow."""
    return np.exp(-np.logaddexp(0.0, -x))


def silu(x: Float64) -> Float64:
    """The product x * sigmoid(x)."""
    return x * sigmoid(x)


def read(weights: FastWeights, query: Float64, residual: bool) -> Float64:
    """The memory network f(W, q): a SwiGLU with a residual; [time, memory_dim] to the same."""
    active = silu(query @ weights.gate.T) * (query @ weights.up.T)
    return active @ weights.down + (query if residual else 0.0)


def gradients(
    weights: FastWeights,
    key: Float64,
    value: Float64,
    rate: Float64,
    inner_loss: str,
    residual: bool,
) -> Float64:
    """Sum over the piece of rate_t * d loss_t / d W, in closed form.

    Args:
        weights: where the gradient is taken.
        key: [time, memory_dim].
        value: [time, memory_dim].
        rate: [time, 3], learning rates of gate, up and down.
        inner_loss: ``neg_dot``: -<f(k), v>; ``l2``: 1/2 |f(k) - v|^2.
        residual: whether f adds its input.

    Returns:
        [3, hidden, memory_dim].
    """
    gate_in, up_in = key @ weights.gate.T, key @ weights.up.T  # [time, hidden]
    s = sigmoid(gate_in)
    z = gate_in * s
    active = z * up_in
    d_out = -value if inner_loss == "neg_dot" else read(weights, key, residual) - value
    d_active = d_out @ weights.down.T
    d_up = d_active * z
    d_gate = d_active * up_in * s * (1.0 + gate_in * (1.0 - s))
    return np.stack(
        [
            (rate[:, GATE, None] * d_gate).T @ key,
            (rate[:, UP, None] * d_up).T @ key,
            active.T @ (rate[:, DOWN, None] * d_out),
        ]
    )


def norm_axis(matrix: int) -> int:
    """Axis of [hidden, memory_dim] that is the input dimension of gate, up or transposed down."""
    return 0 if matrix == DOWN else 1


def normalized(weights: Float64, norms: Float64, epsilon: float) -> Float64:
    """Give the rows of [3, hidden, memory_dim] the norms of the initial weights.

    ``norms`` is [2 hidden + memory_dim]: rows of gate, rows of up, columns of transposed down.
    """
    hidden = weights.shape[1]
    wanted = (norms[:hidden, None], norms[hidden : 2 * hidden, None], norms[None, 2 * hidden :])
    result = np.empty_like(weights)
    for matrix in (GATE, UP, DOWN):
        length = np.sqrt(np.sum(weights[matrix] ** 2, axis=norm_axis(matrix), keepdims=True))
        result[matrix] = weights[matrix] * (wanted[matrix] / np.maximum(length, epsilon))
    return result


def clipped(gradient: Float64, norms: Float64, clip: float) -> Float64:
    """Bound the Frobenius norm of each matrix by ``clip`` times that of the initial weights."""
    if clip == 0.0:
        return gradient
    hidden = gradient.shape[1]
    parts = (norms[:hidden], norms[hidden : 2 * hidden], norms[2 * hidden :])
    result = gradient.copy()
    for matrix, part in enumerate(parts):
        bound = clip * np.sqrt(np.sum(part**2))
        length = np.sqrt(np.sum(gradient[matrix] ** 2))
        if length > bound:
            result[matrix] *= bound / length
    return result


def convolved(qkv: Float64, tail: Float64, taps: Float64, activation: str) -> Float64:
    """Causal depthwise convolution over time, then the activation.

    Args:
        qkv: [3, time, width], raw projections.
        tail: [3, kernel - 1, width], the rows before them, oldest first.
        taps: [3, width, kernel], the last tap meets the current token.
        activation: ``silu``, ``silu_qk`` (values pass) or ``none``.
    """
    time, kernel = qkv.shape[1], taps.shape[2]
    rows = np.concatenate([tail, qkv], axis=1)
    mixed = np.zeros_like(qkv)
    for tap in range(kernel):
        mixed += rows[:, tap : tap + time] * taps[:, None, :, tap]
    if activation == "silu":
        return silu(mixed)
    if activation == "silu_qk":
        return np.stack([silu(mixed[0]), silu(mixed[1]), mixed[2]])
    return mixed


def unit(x: Float64, gain: Float64, epsilon: float) -> Float64:
    """RMSNorm gain, then L2 norm, over the last axis.

    The RMS itself cancels under the L2 norm, so only the gain is applied.
    """
    x = x * gain
    length: Float64 = np.sqrt(np.sum(x * x, axis=-1, keepdims=True))
    return x / np.maximum(length, epsilon)


def rms(x: Float64, epsilon: float) -> Float64:
    """RMSNorm over the last axis, without gain."""
    size: Float64 = np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + epsilon)
    return x / size


def ttt_memory(
    qkv: Array,
    control: Array,
    position: int,
    conv_weight: Array,
    norm_gain: Array,
    initial_weights: Array,
    initial_norms: Array,
    past_weights: Array,
    past_momentum: Array,
    past_gradient: Array,
    past_momentum_sum: Array,
    past_conv_tail: Array,
    *,
    chunk: int,
    inner_loss: str = "neg_dot",
    norm_schedule: str = "read_norm_write",
    grad_at: str = "normalized",
    clip: float = 0.1,
    lr_reduce: str = "sum",
    residual: int = 1,
    conv_activation: str = "silu",
    value_norm: str = "none",
    out_norm: int = 1,
    out_gate: str = "sigmoid",
    epsilon: float = 1e-6,
) -> tuple[Array, Array, Array, Array, Array, Array]:
    """Read the memory for each token of a piece and learn from it.

    All tokens of a chunk read the weights that the chunk before them left, and all gradients of
    a chunk are taken at one set of weights; they are summed over however many pieces the chunk
    comes in, and committed in the call that brings its last token:

        g = clip(G);  M = (mu_sum / chunk) M - g;  W = n(W) + M;  G = 0;  mu_sum = 0

    Args:
        qkv: [batch, time, 3 width].
        control: [batch, time, 5 heads], logits of the three learning rates, momentum and gate.
        position: absolute index of the piece's first token.
        conv_weight: [3, width, kernel].
        norm_gain: [3, heads, memory_dim], query, key, output.
        initial_weights: [heads, 3, hidden, memory_dim]; at position 0 they replace
            ``past_weights``, so that a state of zeros is a blank one.
        initial_norms: [heads, 2 hidden + memory_dim].
        past_weights: [batch, heads, 3, hidden, memory_dim]; likewise momentum and gradient.
        past_momentum: the last update.
        past_gradient: the open chunk's sum so far.
        past_momentum_sum: [batch, heads].
        past_conv_tail: [batch, 3, kernel - 1, width].
        chunk: tokens between commits.
        inner_loss: ``neg_dot`` or ``l2``.
        norm_schedule: ``read_norm_write``, ``post``, ``pre`` or ``none``.
        grad_at: ``normalized`` or ``raw``.
        clip: bound on a chunk's gradient relative to the initial weights; 0 for none.
        lr_reduce: ``sum`` or ``mean`` over the chunk.
        residual: 1 if the read adds the query.
        conv_activation: ``silu``, ``silu_qk`` or ``none``.
        value_norm: ``none``, ``rms`` or ``l2``.
        out_norm: 1 for a per-head RMSNorm on the read.
        out_gate: ``sigmoid``, ``silu`` or ``none``.
        epsilon: guard of every norm.

    Returns:
        output [batch, time, width] in the type of ``qkv`` and the five states, new arrays in the
        types of the old ones, in the order of the arguments.

    Raises:
        ValueError: an attribute is outside its range, or the piece crosses a chunk boundary.

    Source: arXiv 2602.13680, memory update and retrieval; chunk-wise form after arXiv 2505.23884.
    """
    fields = kernel_fields(
        TTT_MEMORY,
        {
            "chunk": chunk,
            "inner_loss": inner_loss,
            "norm_schedule": norm_schedule,
            "grad_at": grad_at,
            "clip": clip,
            "lr_reduce": lr_reduce,
            "residual": residual,
            "conv_activation": conv_activation,
            "value_norm": value_norm,
            "out_norm": out_norm,
            "out_gate": out_gate,
            "epsilon": epsilon,
        },
    )
    batch, time, _ = qkv.shape
    _, heads, _, hidden, dim = past_weights.shape
    width = heads * dim
    if position % chunk + time > chunk:
        raise ValueError(
            f"TTTMemory: a piece of {time} tokens at position {position} crosses the boundary "
            f"of its chunk of {chunk}; cut it there"
        )
    commits = time > 0 and (position + time) % chunk == 0
    f8 = np.float64
    gain = norm_gain.astype(f8)
    norms = initial_norms.astype(f8)
    output = np.empty((batch, time, heads, dim))
    new_weights = (initial_weights[None] if position == 0 else past_weights).astype(f8)
    new_weights = np.broadcast_to(new_weights, past_weights.shape).copy()
    new_momentum = past_momentum.astype(f8)
    new_gradient = past_gradient.astype(f8)
    new_momentum_sum = past_momentum_sum.astype(f8)
    new_tail = np.empty_like(past_conv_tail)

    for row in range(batch):
        raw = qkv[row].astype(f8).reshape(time, 3, width).transpose(1, 0, 2)
        tail = past_conv_tail[row].astype(f8)
        mixed = convolved(raw, tail, conv_weight.astype(f8), conv_activation)
        new_tail[row] = np.concatenate([tail, raw], axis=1)[:, time:]
        logits = control[row].astype(f8).reshape(time, 5, heads)
        for head in range(heads):
            columns = slice(head * dim, (head + 1) * dim)
            query = unit(mixed[0][:, columns], gain[0, head], epsilon)
            key = unit(mixed[1][:, columns], gain[1, head], epsilon)
            value = mixed[2][:, columns]
            if value_norm == "rms":
                value = rms(value, epsilon)
            elif value_norm == "l2":
                value = unit(value, np.ones(dim), epsilon)

            raw_weights = new_weights[row, head]
            normal = normalized(raw_weights, norms[head], epsilon)
            read_at = normal if fields["read_normal"] else raw_weights
            write_at = normal if fields["gradient_normal"] else raw_weights
            commit_to = normal if fields["commit_normal"] else raw_weights

            y = read(FastWeights(*read_at), query, bool(residual))
            if out_norm:
                y = rms(y, epsilon) * gain[2, head]
            if out_gate == "sigmoid":
                y = y * sigmoid(logits[:, 4, head, None])
            elif out_gate == "silu":
                y = y * silu(logits[:, 4, head, None])
            output[row, :, head] = y

            rate = np.logaddexp(0.0, logits[:, :3, head])  # softplus
            new_gradient[row, head] += gradients(
                FastWeights(*write_at), key, value, rate, inner_loss, bool(residual)
            )
            new_momentum_sum[row, head] += np.sum(sigmoid(logits[:, 3, head]))

            if commits:
                total = new_gradient[row, head] / (chunk if lr_reduce == "mean" else 1)
                update = clipped(total, norms[head], clip)
                keep = new_momentum_sum[row, head] / chunk
                new_momentum[row, head] = keep * new_momentum[row, head] - update
                new_weights[row, head] = commit_to + new_momentum[row, head]
                new_gradient[row, head] = 0.0
                new_momentum_sum[row, head] = 0.0
    return (
        output.reshape(batch, time, width).astype(qkv.dtype),
        new_weights.astype(past_weights.dtype),
        new_momentum.astype(past_momentum.dtype),
        new_gradient.astype(past_gradient.dtype),
        new_momentum_sum.astype(past_momentum_sum.dtype),
        new_tail,
    )
