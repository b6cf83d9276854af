"""The memory over a whole document, formulated a second time, for tests only.

It shares nothing with the reference: no import, no state between calls, no packed arrays. Down is
[memory_dim, hidden], each token is handled alone, the RMS before the L2 norm is really taken, and
a chunk is buffered whole before anything is learned from it. It knows no piece, only the document.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import exp, log1p, sqrt

import numpy as np

Vector = np.ndarray
Matrices = dict[str, np.ndarray]


def logistic(x):
    """1 / (1 + e^-x), for scalars and vectors of moderate size."""
    return 1.0 / (1.0 + np.exp(-x))


@dataclass
class Head:
    """One head of the memory: its first weights, what it holds, and a record of every chunk."""

    first: Matrices
    held: Matrices
    moved: Matrices
    chunks: list[tuple[Matrices, Matrices]] = field(default_factory=list)
    pending: Matrices | None = None
    pending_momentum: float = 0.0


@dataclass
class Learned:
    """What one token leaves in the buffer of its chunk."""

    key: Vector
    value: Vector
    rate: dict[str, float]
    momentum: float


def unpack(packed: np.ndarray) -> Matrices:
    """The operator's [3, hidden, memory_dim] as gate, up and a down that is not transposed."""
    return {"gate": packed[0].copy(), "up": packed[1].copy(), "down": packed[2].T.copy()}


def frobenius(matrix: np.ndarray) -> float:
    """Root of the sum of squares."""
    return sqrt(float((matrix**2).sum()))


def rows_rescaled(weights: Matrices, first: Matrices) -> Matrices:
    """Each row of each matrix brought back to the length that it had at the start."""
    result = {}
    for name, matrix in weights.items():
        result[name] = matrix.copy()
        for i in range(matrix.shape[0]):
            result[name][i] *= frobenius(first[name][i]) / frobenius(matrix[i])
    return result


def network(weights: Matrices, x: Vector, residual: bool) -> Vector:
    """Down (silu(gate x) * up x), plus x."""
    a = weights["gate"] @ x
    y = weights["down"] @ (a * logistic(a) * (weights["up"] @ x))
    return y + x if residual else y


def token_gradient(weights: Matrices, token: Learned, loss: str, residual: bool) -> Matrices:
    """Back-propagation through the network for one token, one hidden unit at a time."""
    hidden, dim = weights["gate"].shape
    gate, up = np.zeros((hidden, dim)), np.zeros((hidden, dim))
    down = np.zeros((dim, hidden))
    error = -token.value
    if loss == "l2":
        error = network(weights, token.key, residual) - token.value
    for i in range(hidden):
        a, b = float(weights["gate"][i] @ token.key), float(weights["up"][i] @ token.key)
        silu = a / (1.0 + exp(-a))
        slope = (1.0 + exp(-a) + a * exp(-a)) / (1.0 + exp(-a)) ** 2
        back = float(weights["down"][:, i] @ error)
        gate[i] = back * b * slope * token.key
        up[i] = back * silu * token.key
        down[:, i] = error * silu * b
    return {"gate": gate, "up": up, "down": down}


def chunk_gradient(weights: Matrices, tokens: list[Learned], loss: str, residual: bool) -> Matrices:
    """Sum of the tokens' gradients, each matrix with the token's own learning rate for it."""
    total = {name: np.zeros_like(matrix) for name, matrix in weights.items()}
    for token in tokens:
        for name, part in token_gradient(weights, token, loss, residual).items():
            total[name] += token.rate[name] * part
    return total


def head_normed(x: Vector, gain: Vector) -> Vector:
    """RMSNorm with gain, then division by the length, as the paper says it."""
    x = x / sqrt(float((x**2).mean())) * gain
    return x / frobenius(x)


def document_memory(inputs: dict, options: dict) -> tuple[np.ndarray, list[Head]]:
    """Run a document of one batch row through the memory.

    Args:
        inputs: qkv [time, 3 width], control [time, 5 heads], conv_weight, norm_gain,
            initial_weights as the operator takes them.
        options: every attribute of the operator.

    Returns:
        output [time, width] and the heads with their records.
    """
    time = inputs["qkv"].shape[0]
    heads, _, _, dim = inputs["initial_weights"].shape
    width, chunk = heads * dim, options["chunk"]
    streams = inputs["qkv"].reshape(time, 3, width)
    logits = inputs["control"].reshape(time, 5, heads)
    residual = options["residual"] == 1

    mixed = np.zeros((time, 3, width))
    kernel = inputs["conv_weight"].shape[2]
    for t in range(time):
        for stream in range(3):
            for back in range(kernel):
                if t - back >= 0:
                    tap = inputs["conv_weight"][stream, :, kernel - 1 - back]
                    mixed[t, stream] += tap * streams[t - back, stream]
            if options["conv_activation"] == "silu" or (
                options["conv_activation"] == "silu_qk" and stream != 2
            ):
                mixed[t, stream] *= logistic(mixed[t, stream])

    output = np.zeros((time, heads, dim))
    record = []
    for n in range(heads):
        first = unpack(inputs["initial_weights"][n])
        head = Head(first, unpack(inputs["initial_weights"][n]), {})
        head.moved = {name: np.zeros_like(matrix) for name, matrix in first.items()}
        record.append(head)
        gain_q, gain_k, gain_o = inputs["norm_gain"][:, n]
        for start in range(0, time, chunk):
            rescaled = rows_rescaled(head.held, first)
            read_with = {
                "read_norm_write": head.held,
                "post": rescaled,
                "pre": rescaled,
                "none": head.held,
            }[options["norm_schedule"]]
            learn_at = rescaled if options["grad_at"] == "normalized" else head.held
            if options["norm_schedule"] == "none":
                learn_at = head.held

            buffer = []
            for t in range(start, min(start + chunk, time)):
                q, k, v = (mixed[t, stream, n * dim : (n + 1) * dim] for stream in range(3))
                y = network(read_with, head_normed(q, gain_q), residual)
                if options["out_norm"]:
                    y = y / sqrt(float((y**2).mean()) + options["epsilon"]) * gain_o
                gate = float(logits[t, 4, n])
                if options["out_gate"] != "none":
                    y = y * logistic(gate) * (gate if options["out_gate"] == "silu" else 1.0)
                output[t, n] = y

                if options["value_norm"] == "rms":
                    v = v / sqrt(float((v**2).mean()) + options["epsilon"])
                elif options["value_norm"] == "l2":
                    v = v / frobenius(v)
                rates = (log1p(exp(float(logits[t, i, n]))) for i in range(3))
                buffer.append(
                    Learned(
                        key=head_normed(k, gain_k),
                        value=v,
                        rate=dict(zip(("gate", "up", "down"), rates, strict=True)),
                        momentum=float(logistic(logits[t, 3, n])),
                    )
                )

            total = chunk_gradient(learn_at, buffer, options["inner_loss"], residual)
            if len(buffer) < chunk:
                head.pending = total
                head.pending_momentum = sum(token.momentum for token in buffer)
                break
            keep = sum(token.momentum for token in buffer) / chunk
            held = {}
            for name, step in total.items():
                if options["lr_reduce"] == "mean":
                    step = step / chunk
                bound = options["clip"] * frobenius(first[name])
                if options["clip"] > 0 and frobenius(step) > bound:
                    step = step * bound / frobenius(step)
                head.moved[name] = keep * head.moved[name] - step
                onto = head.held if options["norm_schedule"] in ("pre", "none") else rescaled
                held[name] = onto[name] + head.moved[name]
            head.held = held
            head.chunks.append((head.held, dict(head.moved)))
    return output.reshape(time, width), record
