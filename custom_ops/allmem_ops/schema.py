"""The operator contract: one table of names, inputs, outputs, attributes and versions.

Everything that implements or emits an operator (reference, PyTorch, function body, kernels,
exporter, documentation) follows this table; it knows nothing of how any of them work. C++ has it as
``custom_ops/src/common/operator_fields.h``, written by ``python -m allmem_ops.cpp_header``.

Shapes are written with these names:

    batch, time          the piece being processed; every row of a batch shares one position
    query_heads          attention query heads
    kv_heads             attention key/value heads, a divisor of query_heads
    head_dim             width of one attention head
    slots                sinks + window, the capacity of the key/value ring of a head
    rows                 slots of all heads, where their windows differ
    rotary_half          number of rotary frequencies, at most head_dim // 2
    heads, width         memory heads and their total width; memory_dim = width // heads
    hidden               hidden units of one memory head
    kernel, tail         convolution taps and tail = kernel - 1

Those of the products stand beside them, in products.py.
"""

from __future__ import annotations

from dataclasses import replace

from allmem_ops.by_head import by_head
from allmem_ops.contract import Attribute, Flag, Operator, Tensor
from allmem_ops.products import EXPERT_MATMUL, QUANTIZED_MATMUL

DOMAIN = "ai.allmem"
VERSION = 5
"""Of the domain. An operator's own version is that in which its contract changed last."""

_POSITION = Tensor(
    "position", (1,), "int64", "absolute index of the piece's first token since the start"
)
_MOST_SLOTS = 1 << 30  # of window and of sinks

_RING = ("batch", "kv_heads", "slots", "head_dim")

SLIDING_WINDOW_ATTENTION = Operator(
    name="SlidingWindowAttention",
    version=1,
    doc=(
        "Grouped-query attention over the first `sinks` tokens, the last `window` tokens and the "
        "piece itself, between the QKV projection and the output projection."
    ),
    inputs=(
        Tensor(
            "qkv",
            ("batch", "time", "(query_heads + 2 * kv_heads) * head_dim"),
            "activation",
            "queries, then keys, then values, each head after head, before rotation",
        ),
        _POSITION,
        Tensor("inverse_frequencies", ("rotary_half",), "float32", "rotary angle per position"),
        Tensor("query_norm", ("head_dim",), "float32", "RMSNorm gain, read if norm_epsilon > 0"),
        Tensor("key_norm", ("head_dim",), "float32", "RMSNorm gain, read if norm_epsilon > 0"),
        Tensor(
            "past_key",
            _RING,
            "cache",
            "rotated keys; token t < sinks in slot t, "
            "a later one in slot sinks + (t - sinks) % window",
        ),
        Tensor("past_value", _RING, "cache", "values in the same slots"),
    ),
    outputs=(
        Tensor("output", ("batch", "time", "query_heads * head_dim"), "activation", "heads joined"),
        Tensor("present_key", _RING, "cache", "past_key with the piece written in"),
        Tensor("present_value", _RING, "cache", "past_value with the piece written in"),
    ),
    attributes=(
        Attribute(
            "window",
            None,
            "tokens visible, the token itself included",
            "int",
            minimum=1,
            native_maximum=_MOST_SLOTS,
            per_head=True,
        ),
        Attribute(
            "sinks",
            None,
            "first tokens that are kept permanently",
            "int",
            minimum=0,
            native_maximum=_MOST_SLOTS,
        ),
        Attribute(
            "sink_rope",
            "clamped",
            "distance to a sink: `clamped` rotates the query at min(t, sinks + window - 1), "
            "`true` at t",
            "string",
            choices=("clamped", "true"),
        ),
        Attribute(
            "scale",
            None,
            "factor on the dot products, usually head_dim ** -0.5",
            "float",
            minimum=0.0,
        ),
        Attribute(
            "softcap",
            0.0,
            "c: a product s of query and key, times scale, becomes c tanh(s / c); 0 leaves it",
            "float",
            minimum=0.0,
        ),
        Attribute("rope_amplitude", 1.0, "factor on cos and sin (YaRN)", "float", minimum=0.0),
        Attribute(
            "norm_epsilon",
            0.0,
            "epsilon of the per-head RMSNorm of queries and keys; 0 means no such norm",
            "float",
            minimum=0.0,
        ),
    ),
    sizes=("batch", "time", "query_heads", "kv_heads", "head_dim", "rotary_half"),
    flags=(Flag("clamp_sinks", (("sink_rope", ("clamped",)),)),),
)

_SCALE = ("batch", "kv_heads", 2, "slots")

QUANTIZED_ATTENTION = replace(
    SLIDING_WINDOW_ATTENTION,
    inputs=(
        *SLIDING_WINDOW_ATTENTION.inputs,
        Tensor("past_scale", _SCALE, "float32", "of each int8 key, then of each int8 value", True),
    ),
    outputs=(
        *SLIDING_WINDOW_ATTENTION.outputs,
        Tensor("present_scale", _SCALE, "float32", "past_scale with the piece written in", True),
    ),
)
"""SlidingWindowAttention as it is where the cache is int8: one more input and output, the last."""

ATTENTION_BY_HEAD = by_head(SLIDING_WINDOW_ATTENTION)
"""SlidingWindowAttention with a window for every key/value head."""
QUANTIZED_ATTENTION_BY_HEAD = by_head(QUANTIZED_ATTENTION)
"""The same where the cache is int8."""

CAPPED_ATTENTION_VERSION = 3
"""Of a SlidingWindowAttention that has a softcap, with either kind of windows."""


SINK_LOGITS = Tensor(
    "sink_logits",
    ("query_heads",),
    "float32",
    "logits that join each softmax's denominator, and no value goes with",
    optional=True,
)


def with_sink_logits(operator: Operator) -> Operator:
    """A form of SlidingWindowAttention with learned attention sinks (gpt-oss).

    They follow the scales, whose place is left empty where keys and values are not int8.
    """
    inputs = operator.inputs
    if inputs[-1].name != "past_scale":
        by_head = len(operator.state[0].shape) == len(ATTENTION_BY_HEAD.state[0].shape)
        whole = QUANTIZED_ATTENTION_BY_HEAD if by_head else QUANTIZED_ATTENTION
        inputs = whole.inputs
    return replace(operator, version=SINK_LOGITS_VERSION, inputs=(*inputs, SINK_LOGITS))


SINK_LOGITS_VERSION = 4
"""Of a SlidingWindowAttention that has them, with either kind of windows."""

WHOLE_ATTENTION = with_sink_logits(QUANTIZED_ATTENTION)
"""SlidingWindowAttention with all inputs and outputs that it can have."""

_FAST = ("batch", "heads", 3, "hidden", "memory_dim")

TTT_MEMORY = Operator(
    name="TTTMemory",
    version=1,
    doc=(
        "The neural memory that learns at test time, between its projections: causal depthwise "
        "convolution, query/key normalization, read, output norm and gate, gradient accumulation "
        "and, when the chunk is full, the commit. A piece never crosses a chunk boundary."
    ),
    inputs=(
        Tensor(
            "qkv",
            ("batch", "time", "3 * width"),
            "activation",
            "queries, keys and values of the memory, each head after head",
        ),
        Tensor(
            "control",
            ("batch", "time", "5 * heads"),
            "activation",
            "logits, each for all heads: learning rate of gate, of up, of down; momentum; "
            "output gate",
        ),
        _POSITION,
        Tensor(
            "conv_weight",
            (3, "width", "kernel"),
            "float32",
            "depthwise taps of q, k, v; the last one meets the current token",
        ),
        Tensor("norm_gain", (3, "heads", "memory_dim"), "float32", "gains of query, key, output"),
        Tensor(
            "initial_weights",
            ("heads", 3, "hidden", "memory_dim"),
            "float32",
            "gate, up and transposed down; stand in for past_weights at position 0",
        ),
        Tensor(
            "initial_norms",
            ("heads", "2 * hidden + memory_dim"),
            "float32",
            "norms along the input dimension: rows of gate, rows of up, columns of the "
            "transposed down",
        ),
        Tensor("past_weights", _FAST, "float32", "fast weights as the last commit left them"),
        Tensor("past_momentum", _FAST, "float32", "the last update"),
        Tensor("past_gradient", _FAST, "float32", "learning-rate weighted sum over the open chunk"),
        Tensor("past_momentum_sum", ("batch", "heads"), "float32", "sum of sigmoid(momentum)"),
        Tensor(
            "past_conv_tail",
            ("batch", 3, "tail", "width"),
            "float32",
            "the last rows of qkv before the convolution, oldest first",
        ),
    ),
    outputs=(
        Tensor("output", ("batch", "time", "width"), "activation", "heads joined"),
        Tensor("present_weights", _FAST, "float32", ""),
        Tensor("present_momentum", _FAST, "float32", ""),
        Tensor("present_gradient", _FAST, "float32", ""),
        Tensor("present_momentum_sum", ("batch", "heads"), "float32", ""),
        Tensor("present_conv_tail", ("batch", 3, "tail", "width"), "float32", ""),
    ),
    attributes=(
        Attribute("chunk", None, "tokens between commits", "int", minimum=1),
        Attribute(
            "inner_loss",
            "neg_dot",
            "-<f(k), v> or 1/2 |f(k) - v|^2",
            "string",
            choices=("neg_dot", "l2"),
        ),
        Attribute(
            "norm_schedule",
            "read_norm_write",
            "which weights are used where; n(W) has the row norms of the initial weights. "
            "read_norm_write: read W, commit n(W) + M; post: read n(W), commit n(W) + M; "
            "pre: read n(W), commit W + M; none: read W, commit W + M",
            "string",
            choices=("read_norm_write", "post", "pre", "none"),
        ),
        Attribute(
            "grad_at",
            "normalized",
            "gradients at n(W) or at W itself",
            "string",
            choices=("normalized", "raw"),
        ),
        Attribute(
            "clip",
            0.1,
            "bound on the Frobenius norm of a chunk's gradient, per head and "
            "matrix, relative to the initial weights' norm; 0 means none",
            "float",
            minimum=0.0,
        ),
        Attribute(
            "lr_reduce",
            "sum",
            "gradients of a chunk are summed or averaged",
            "string",
            choices=("sum", "mean"),
        ),
        Attribute("residual", 1, "1: the read adds the query", "int", minimum=0, maximum=1),
        Attribute(
            "conv_activation",
            "silu",
            "after the convolution; silu_qk leaves values as they are",
            "string",
            choices=("silu", "silu_qk", "none"),
        ),
        Attribute(
            "value_norm",
            "none",
            "normalization of the values, per head",
            "string",
            choices=("none", "rms", "l2"),
        ),
        Attribute(
            "out_norm", 1, "1: per-head RMSNorm with gain on the read", "int", minimum=0, maximum=1
        ),
        Attribute(
            "out_gate",
            "sigmoid",
            "activation of the output gate",
            "string",
            choices=("sigmoid", "silu", "none"),
        ),
        Attribute(
            "epsilon",
            1e-6,
            "guard of every norm and of the row scaling",
            "float",
            minimum=1e-12,
            maximum=1e-2,
        ),
    ),
    sizes=("batch", "time", "heads", "memory_dim", "hidden", "kernel"),
    flags=(
        Flag("loss_l2", (("inner_loss", ("l2",)),)),
        Flag("read_normal", (("norm_schedule", ("post", "pre")),)),  # reads are at n(W)
        Flag(
            "gradient_normal",  # gradients are taken at n(W)
            (
                ("norm_schedule", ("read_norm_write", "post", "pre")),
                ("grad_at", ("normalized",)),
            ),
        ),
        Flag("commit_normal", (("norm_schedule", ("read_norm_write", "post")),)),  # adds to n(W)
        Flag("mean_gradient", (("lr_reduce", ("mean",)),)),
        Flag("activate_query_key", (("conv_activation", ("silu", "silu_qk")),)),
        Flag("activate_value", (("conv_activation", ("silu",)),)),
    ),
)

OPERATORS: dict[str, Operator] = {
    operator.name: operator for operator in (SLIDING_WINDOW_ATTENTION, TTT_MEMORY)
}

KNOWN: dict[str, Operator] = {
    **OPERATORS,
    QUANTIZED_MATMUL.name: QUANTIZED_MATMUL,
    EXPERT_MATMUL.name: EXPERT_MATMUL,
}
"""All operators that a graph may use, by name."""

VERSIONS: dict[str, frozenset[int]] = {
    name: frozenset({operator.version})
    | (
        {ATTENTION_BY_HEAD.version, CAPPED_ATTENTION_VERSION, SINK_LOGITS_VERSION}
        if name == ATTENTION_BY_HEAD.name
        else frozenset()
    )
    for name, operator in KNOWN.items()
}
"""The versions of each that the kernels run, and the package knows."""
