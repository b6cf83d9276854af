"""An operator case, and what runs one.

A case is a name, an operator, its attributes and inputs made from a seed. A backend turns a case
into outputs; a new form of the operators joins by adding itself to ``BACKENDS``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from allmem_ops.contract import Operator, Value
from allmem_ops.reference import quantize, sliding_window_attention, ttt_memory
from allmem_ops.schema import (
    ATTENTION_BY_HEAD,
    OPERATORS,
    QUANTIZED_ATTENTION,
    QUANTIZED_ATTENTION_BY_HEAD,
    with_sink_logits,
)

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class AttentionSizes:
    """Sizes of a SlidingWindowAttention case; ``rotary_half`` None is head_dim // 2."""

    batch: int = 1
    time: int = 5
    query_heads: int = 4
    kv_heads: int = 2
    head_dim: int = 8
    rotary_half: int | None = None
    cache: str = "float32"
    sink_logits: bool = False


@dataclass(frozen=True, slots=True)
class MemorySizes:
    """Sizes of a TTTMemory case."""

    batch: int = 1
    time: int = 5
    heads: int = 2
    memory_dim: int = 8
    hidden: int = 16
    kernel: int = 4


@dataclass(frozen=True, slots=True)
class Case:
    """One call of one operator.

    Attributes:
        name: unique among the cases of the operator; the test id.
        attributes: those that differ from the table's defaults, and the required ones.
        position: absolute index of the first token.
        special: name of a change to the random inputs, see ``_SPECIAL``.
    """

    name: str
    sizes: AttentionSizes | MemorySizes
    attributes: Mapping[str, Value]
    position: int = 0
    seed: int = 0
    special: str = ""

    @property
    def operator(self) -> Operator:
        """The operator of the table."""
        if isinstance(self.sizes, MemorySizes):
            return OPERATORS["TTTMemory"]
        by_head = isinstance(self.attributes.get("window"), tuple)
        plain = ATTENTION_BY_HEAD if by_head else OPERATORS["SlidingWindowAttention"]
        quantized = QUANTIZED_ATTENTION_BY_HEAD if by_head else QUANTIZED_ATTENTION
        form = quantized if self.cache == "int8" else plain
        return with_sink_logits(form) if self.sizes.sink_logits else form

    @property
    def cache(self) -> str:
        """In which type keys and values are kept; the memory's state is float32."""
        return self.sizes.cache if isinstance(self.sizes, AttentionSizes) else "float32"

    def inputs(self) -> Arrays:
        """All inputs by name, in the types an exported graph feeds."""
        generator = np.random.default_rng([self.seed, *self.name.encode()])
        if isinstance(self.sizes, AttentionSizes):
            arrays = _attention_inputs(self.sizes, self.attributes, generator)
        else:
            arrays = _memory_inputs(self.sizes, generator)
        arrays["position"] = np.array([self.position], np.int64)
        if self.special:
            _SPECIAL[self.special](arrays)
        names = [tensor.name for tensor in self.operator.inputs]
        return {name: arrays[name] for name in names if name in arrays}


def _attention_inputs(
    sizes: AttentionSizes, attributes: Mapping[str, Value], generator: np.random.Generator
) -> Arrays:
    half = sizes.head_dim // 2 if sizes.rotary_half is None else sizes.rotary_half
    window, sinks = attributes["window"], int(attributes["sinks"])
    packed = (sizes.query_heads + 2 * sizes.kv_heads) * sizes.head_dim
    ring: tuple[int, ...]
    if isinstance(window, tuple):
        ring = (sizes.batch, sum(sinks + own for own in window), sizes.head_dim)
    else:
        ring = (sizes.batch, sizes.kv_heads, sinks + int(window), sizes.head_dim)
    exponent = np.arange(half) / max(half, 1)
    arrays = {
        "qkv": _normal(generator, sizes.batch, sizes.time, packed),
        "inverse_frequencies": (10000.0**-exponent).astype(np.float32),
        "query_norm": 1 + 0.2 * _normal(generator, sizes.head_dim),
        "key_norm": 1 + 0.2 * _normal(generator, sizes.head_dim),
        "past_key": _normal(generator, *ring),
        "past_value": _normal(generator, *ring),
    }
    if sizes.sink_logits:  # some far above and far below what tokens have
        arrays["sink_logits"] = 3 * _normal(generator, sizes.query_heads)
    if sizes.cache == "int8":
        rows = [quantize(arrays[name]) for name in ("past_key", "past_value")]
        arrays["past_key"], arrays["past_value"] = (integers for integers, _ in rows)
        if isinstance(window, tuple):  # of each head's keys, then of its values
            ends = np.cumsum([sinks + own for own in window])[:-1]
            parts = zip(*(np.split(scale, ends, axis=1) for _, scale in rows), strict=True)
            arrays["past_scale"] = np.concatenate([s for both in parts for s in both], axis=1)
        else:
            arrays["past_scale"] = np.stack([scale for _, scale in rows], axis=2)
        return arrays
    for name in ("past_key", "past_value"):
        arrays[name] = arrays[name].astype(sizes.cache)
    return arrays


def _memory_inputs(sizes: MemorySizes, generator: np.random.Generator) -> Arrays:
    batch, heads, dim, hidden = sizes.batch, sizes.heads, sizes.memory_dim, sizes.hidden
    width = heads * dim
    fast = (batch, heads, 3, hidden, dim)
    # Pre-activations of order 1, as the model has them.
    initial = _normal(generator, heads, 3, hidden, dim)
    initial[:, 2] /= np.sqrt(hidden)
    gate, up, down = np.moveaxis(initial.astype(np.float64), 1, 0)
    norms = np.concatenate(
        [np.linalg.norm(gate, axis=2), np.linalg.norm(up, axis=2), np.linalg.norm(down, axis=1)],
        axis=1,
    )
    control = _normal(generator, batch, sizes.time, 5, heads)
    control[:, :, :3] -= 3.0  # learning rates around 0.05
    return {
        "qkv": _normal(generator, batch, sizes.time, 3 * width),
        "control": control.reshape(batch, sizes.time, 5 * heads),
        "conv_weight": 0.3 * _normal(generator, 3, width, sizes.kernel) + 0.5,
        "norm_gain": 1 + 0.2 * _normal(generator, 3, heads, dim),
        "initial_weights": initial,
        "initial_norms": norms.astype(np.float32),
        "past_weights": initial[None] + 0.1 * _normal(generator, *fast),
        "past_momentum": 0.1 * _normal(generator, *fast),
        "past_gradient": 0.1 * _normal(generator, *fast),
        "past_momentum_sum": np.abs(_normal(generator, batch, heads)),
        "past_conv_tail": _normal(generator, batch, 3, sizes.kernel - 1, width),
    }


def _normal(generator: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    return generator.standard_normal(shape).astype(np.float32)


def _blank_state(arrays: Arrays) -> None:
    for name in arrays:
        if name.startswith("past_"):
            arrays[name] = np.zeros_like(arrays[name])


def _faint_rates(arrays: Arrays) -> None:
    """Learning rates of e^-9 to e^-60, which a softplus as log(1 + e^x) would lose."""
    logits = arrays["control"]
    rates = 3 * arrays["past_momentum_sum"].shape[1]
    logits[:, :, :rates] = -9 - 6 * np.abs(logits[:, :, :rates])
    arrays["past_gradient"] = np.zeros_like(arrays["past_gradient"])


def _silent_tokens(arrays: Arrays) -> None:
    """Rows of zeros, whose norm only epsilon keeps from 0 / 0."""
    arrays["qkv"] = np.zeros_like(arrays["qkv"])
    arrays["past_conv_tail"] = np.zeros_like(arrays["past_conv_tail"])


def _large_gradient(arrays: Arrays) -> None:
    arrays["past_gradient"] = 50 * arrays["past_gradient"]


def _strong_logits(arrays: Arrays) -> None:
    """Control logits far out on both sides."""
    arrays["control"] = 12 * arrays["control"]


_SPECIAL: dict[str, Callable[[Arrays], None]] = {
    "blank_state": _blank_state,
    "faint_rates": _faint_rates,
    "silent_tokens": _silent_tokens,
    "large_gradient": _large_gradient,
    "strong_logits": _strong_logits,
}


def with_activations(operator: Operator, inputs: Arrays, element: str) -> Arrays:
    """The same inputs with the token stream rounded to ``element``, as a graph of it feeds them."""
    streams = [tensor.name for tensor in operator.inputs if tensor.element == "activation"]
    return {**inputs, **{name: inputs[name].astype(element) for name in streams}}


class Backend(Protocol):
    """One form of the operators."""

    def run(
        self,
        operator: Operator,
        inputs: Arrays,
        attributes: Mapping[str, Value],
        *,
        in_place: bool = False,
    ) -> Arrays:
        """Run one node; outputs by name. ``in_place``: each state is one buffer, in and out."""


def run_reference(
    operator: Operator,
    inputs: Arrays,
    attributes: Mapping[str, Value],
    *,
    in_place: bool = False,
) -> Arrays:
    """The truth, in float64 except for the key/value ring, which keeps its type.

    Args:
        operator: which one.
        inputs: as the graph feeds them.
        attributes: as on the node.
        in_place: no matter; references never write into their arguments.
    """
    function = {
        "SlidingWindowAttention": sliding_window_attention,
        "TTTMemory": ttt_memory,
    }[operator.name]
    ring = ("past_key", "past_value", "past_scale")
    arguments: dict[str, Any] = {
        name: array if name in ring else array.astype(np.float64) for name, array in inputs.items()
    }
    arguments["position"] = int(inputs["position"][0])
    outputs = function(**arguments, **attributes)
    return dict(zip((t.name for t in operator.outputs), outputs, strict=True))


class Reference:
    """``run_reference`` as a backend."""

    run = staticmethod(run_reference)


BACKENDS: dict[str, Callable[[], Backend]] = {"reference": Reference}
"""Makes a backend; may raise or skip where its device or library is missing."""


def run_pieces(
    backend: Backend,
    case: Case,
    inputs: Arrays,
    cuts: tuple[int, ...],
    *,
    in_place: bool = False,
) -> Arrays:
    """Run a case's tokens in pieces that end at ``cuts``, carrying the state; outputs joined."""
    operator = case.operator
    per_token = [t.name for t in operator.inputs if "time" in t.shape]
    state = {t.name: inputs[t.name] for t in operator.state}
    outputs, begin = [], 0
    for end in (*cuts, inputs["qkv"].shape[1]):
        piece = {**inputs, **state}
        for name in per_token:
            piece[name] = np.ascontiguousarray(inputs[name][:, begin:end])
        piece["position"] = inputs["position"] + begin
        result = backend.run(operator, piece, case.attributes, in_place=in_place)
        state = {name: result[name.replace("past_", "present_", 1)] for name in state}
        outputs.append(result["output"])
        begin = end
    joined = {name.replace("past_", "present_", 1): array for name, array in state.items()}
    return {"output": np.concatenate(outputs, axis=1), **joined}


def relative_rms(got: NDArray[Any], want: NDArray[Any]) -> float:
    """Root mean square of the difference over that of the truth (or over 1e-30 if it is 0)."""
    if got.shape != want.shape:
        raise AssertionError(f"shape {got.shape} instead of {want.shape}")
    if got.size == 0:
        return 0.0
    truth = want.astype(np.float64)
    error = np.sqrt(np.mean((got.astype(np.float64) - truth) ** 2))
    return float(error / max(np.sqrt(np.mean(truth**2)), 1e-30))


def check_int8_rings(got: Arrays, want: Arrays) -> bool:
    """Compare keys and values of int8: one in 1000 may have been rounded to the other side.

    Returns:
        Whether any was; an output that has seen it is off by up to ``ROUNDED_TOLERANCE``.
    """
    differ = False
    for name in ("present_key", "present_value"):
        steps = np.abs(got[name].astype(int) - want[name])
        if steps.max(initial=0) > 1 or steps.sum() > max(1, steps.size // 1000):
            raise AssertionError(f"{name}: {steps.sum()} steps off, {steps.max()} in one place")
        differ |= bool(steps.any())
    return differ


ROUNDED_TOLERANCE = 1e-3
"""A step is 1 / 127 of the largest number of its row, and an output is a mean over many."""


def with_time(case: Case, time: int) -> Case:
    """The same case with another number of tokens."""
    return replace(case, sizes=replace(case.sizes, time=time))
