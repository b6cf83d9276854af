"""The operator cases that every form of an operator is tested on, and what runs them.

A case is a name, an operator, its attributes and inputs made from a seed. A backend turns a case
into outputs; a new form of the operators joins by adding itself to ``BACKENDS``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from allmem_ops.reference import quantise, sliding_window_attention, ttt_memory
from allmem_ops.schema import OPERATORS, QUANTISED_ATTENTION, Operator, Value

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
        if self.cache == "int8":
            return QUANTISED_ATTENTION
        attention = isinstance(self.sizes, AttentionSizes)
        return OPERATORS["SlidingWindowAttention" if attention else "TTTMemory"]

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
        return {tensor.name: arrays[tensor.name] for tensor in self.operator.inputs}


def _attention_inputs(
    sizes: AttentionSizes, attributes: Mapping[str, Value], generator: np.random.Generator
) -> Arrays:
    half = sizes.head_dim // 2 if sizes.rotary_half is None else sizes.rotary_half
    slots = int(attributes["window"]) + int(attributes["sinks"])
    packed = (sizes.query_heads + 2 * sizes.kv_heads) * sizes.head_dim
    ring = (sizes.batch, sizes.kv_heads, slots, sizes.head_dim)
    exponent = np.arange(half) / max(half, 1)
    arrays = {
        "qkv": _normal(generator, sizes.batch, sizes.time, packed),
        "inverse_frequencies": (10000.0**-exponent).astype(np.float32),
        "query_norm": 1 + 0.2 * _normal(generator, sizes.head_dim),
        "key_norm": 1 + 0.2 * _normal(generator, sizes.head_dim),
        "past_key": _normal(generator, *ring),
        "past_value": _normal(generator, *ring),
    }
    if sizes.cache == "int8":
        rows = [quantise(arrays[name]) for name in ("past_key", "past_value")]
        arrays["past_key"], arrays["past_value"] = (integers for integers, _ in rows)
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


def _attention(
    name: str,
    window: int,
    sinks: int,
    position: int = 0,
    attributes: Mapping[str, Value] | None = None,
    **sizes: Any,
) -> Case:
    chosen = AttentionSizes(**sizes)
    values: dict[str, Value] = {
        "window": window,
        "sinks": sinks,
        "scale": float(np.float32(chosen.head_dim**-0.5)),
    }
    return Case(name, chosen, {**values, **(attributes or {})}, position)


def _attention_cases() -> Iterator[Case]:
    # Where the piece stands: before, on and after every border of the ring.
    for position in (0, 1, 2, 3, 5, 6, 7, 8, 9, 12, 17):
        for time in (1, 2, 4, 9):
            yield _attention(f"ring_at_{position}_time_{time}", 5, 3, position, time=time)
    yield _attention("no_token", 5, 3, 11, time=0)
    yield _attention("window_of_one", 1, 0, 7, time=4)
    yield _attention("window_of_one_and_a_sink", 1, 1, 7, time=4)
    yield _attention("window_of_one_single_token", 1, 2, 7, time=1)
    yield _attention("no_sinks", 6, 0, 20, time=5)
    yield _attention("no_sinks_single_token", 6, 0, 20, time=1)
    yield _attention("more_sinks_than_tokens", 4, 9, 2, time=5)
    yield _attention("piece_longer_than_ring", 7, 2, 30, time=40)
    yield _attention("piece_longer_than_ring_from_start", 7, 2, 0, time=40)
    yield _attention("batch_of_three", 6, 2, 9, batch=3, time=4)
    yield _attention("batch_of_three_single_token", 6, 2, 9, batch=3, time=1)
    # Heads, and widths that are no multiple of any vector.
    for head_dim in (1, 2, 3, 7, 13, 16, 20, 33, 64, 80, 128):
        for time in (1, 6):
            yield _attention(
                f"head_dim_{head_dim}_time_{time}", 9, 2, 15, time=time, head_dim=head_dim
            )
    for query_heads, kv_heads in ((1, 1), (5, 1), (3, 3), (6, 2), (14, 2), (8, 1)):
        for time in (1, 7):
            yield _attention(
                f"heads_{query_heads}_{kv_heads}_time_{time}",
                9,
                2,
                15,
                time=time,
                query_heads=query_heads,
                kv_heads=kv_heads,
                head_dim=12,
            )
    # Tiles of keys and rows: just below, at and above their sizes.
    for time in (15, 16, 17, 47, 48, 49, 63, 65, 130):
        yield _attention(f"tiles_time_{time}", 100, 5, 77, time=time, head_dim=24)
    for window in (63, 64, 65, 128):
        yield _attention(f"tiles_window_{window}", window, 64, 500, time=33, head_dim=16)
    for window in (500, 512, 1100):  # slices of a decode step
        yield _attention(f"long_ring_{window}", window, 70, 5000, time=1, head_dim=20)
        yield _attention(f"half_full_ring_{window}", window, 70, 400, time=1, head_dim=20)
    # Attributes.
    for time in (1, 6):
        for sink_rope in ("clamped", "true"):
            yield _attention(
                f"sink_rope_{sink_rope}_time_{time}", 6, 3, 40, {"sink_rope": sink_rope}, time=time
            )
        yield _attention(f"clamp_begins_inside_time_{time}", 6, 3, 6, time=time)
        yield _attention(f"head_norm_time_{time}", 6, 3, 40, {"norm_epsilon": 1e-6}, time=time)
        yield _attention(f"amplitude_time_{time}", 6, 3, 40, {"rope_amplitude": 1.25}, time=time)
        yield _attention(f"scale_zero_time_{time}", 6, 3, 40, {"scale": 0.0}, time=time)
        yield _attention(f"scale_large_time_{time}", 6, 3, 40, {"scale": 3.0}, time=time)
        yield _attention(f"no_rotation_time_{time}", 6, 3, 40, time=time, rotary_half=0)
        yield _attention(
            f"partial_rotation_time_{time}", 6, 3, 40, time=time, head_dim=10, rotary_half=2
        )
    # Far positions: exact ring arithmetic, angles that float32 or int32 would lose.
    for bits in (20, 30, 31, 33, 53, 61):
        for time in (1, 6):
            yield _attention(f"position_2_to_{bits}_time_{time}", 6, 3, 2**bits - 2, time=time)
    for time in (1, 6):
        yield _attention(f"last_position_time_{time}", 6, 3, 2**62 - time, time=time)
    # Float16 caches.
    for time in (0, 1, 2, 6, 40):
        for head_dim in (7, 16, 64):
            yield _attention(
                f"float16_time_{time}_dim_{head_dim}",
                12,
                3,
                31,
                {"norm_epsilon": 1e-5},
                time=time,
                head_dim=head_dim,
                cache="float16",
            )
    # Int8 caches: pieces and tokens, before and after the ring is full, long and wide.
    for time in (0, 1, 2, 6, 40):
        for head_dim in (1, 7, 16, 20, 64, 128):
            yield _attention(
                f"int8_time_{time}_dim_{head_dim}",
                12,
                3,
                31,
                {"norm_epsilon": 1e-5},
                time=time,
                head_dim=head_dim,
                cache="int8",
            )
    for position in (0, 2, 9):
        for time in (1, 4):
            yield _attention(
                f"int8_at_{position}_time_{time}", 5, 3, position, time=time, cache="int8"
            )
    for time in (1, 5):
        yield _attention(f"int8_batch_time_{time}", 6, 2, 9, batch=3, time=time, cache="int8")
    for time, query_heads, head_dim in ((150, 9, 64), (1, 9, 64), (1, 15, 80), (1, 6, 33)):
        yield _attention(
            f"int8_long_time_{time}_heads_{query_heads}_dim_{head_dim}",
            1100,
            64,
            9000,
            time=time,
            query_heads=query_heads,
            kv_heads=3,
            head_dim=head_dim,
            cache="int8",
        )
    yield _attention(
        "float16_long",
        256,
        4,
        900,
        time=150,
        query_heads=9,
        kv_heads=3,
        head_dim=64,
        cache="float16",
    )
    yield _attention(
        "float16_long_ring",
        1100,
        64,
        9000,
        time=1,
        query_heads=9,
        kv_heads=3,
        head_dim=64,
        cache="float16",
    )


def _memory(
    name: str,
    chunk: int,
    position: int = 0,
    attributes: Mapping[str, Value] | None = None,
    special: str = "",
    **sizes: Any,
) -> Case:
    return Case(
        name,
        MemorySizes(**sizes),
        {"chunk": chunk, **(attributes or {})},
        position,
        special=special,
    )


_CHOICES: dict[str, tuple[Value, ...]] = {
    a.name: a.choices or (0, 1)
    for a in OPERATORS["TTTMemory"].attributes
    if a.kind == "string" or a.maximum == 1
}


def _memory_cases() -> Iterator[Case]:
    # Where the piece stands in its chunk: every offset, up to and including the commit.
    for position in (0, 1, 4, 6, 7, 8, 15, 16):
        for time in (1, 2, 5, 8):
            if position % 8 + time <= 8:
                yield _memory(f"chunk_at_{position}_time_{time}", 8, position, time=time)
    for position in (0, 3, 8):
        yield _memory(f"no_token_at_{position}", 8, position, time=0)
    yield _memory("chunk_of_one", 1, 3, time=1)
    yield _memory("blank_state_time_1", 8, 0, time=1, special="blank_state")
    yield _memory("blank_state_time_5", 8, 0, time=5, special="blank_state")
    yield _memory("far_position", 8, 2**40 + 3, time=5)
    yield _memory("last_position", 8, 2**62 - 1, time=1)
    # Sizes.
    for dim, hidden in ((1, 1), (3, 5), (7, 9), (16, 16), (20, 33), (64, 128), (80, 40)):
        for time in (1, 6):
            yield _memory(
                f"dim_{dim}_hidden_{hidden}_time_{time}",
                16,
                10,
                time=time,
                memory_dim=dim,
                hidden=hidden,
            )
    for kernel in (1, 2, 3, 5, 9):
        for time in (1, 2, 6):
            yield _memory(f"kernel_{kernel}_time_{time}", 16, 3, time=time, kernel=kernel)
    yield _memory("one_head", 16, 3, time=6, heads=1)
    yield _memory("five_heads", 16, 3, time=6, heads=5)
    for time in (1, 6):
        yield _memory(f"batch_of_three_time_{time}", 16, 16 - time, time=time, batch=3)
    # Tiles and panels of tokens.
    for time in (15, 16, 17, 47, 48, 49, 95, 97, 191, 192, 193, 400):
        yield _memory(f"tiles_time_{time}", 512, 512 - time, time=time, memory_dim=12, hidden=20)
    # Every choice of every attribute, inside a chunk and at its end, as a piece and as a token.
    for attribute, choices in _CHOICES.items():
        for choice in choices:
            for time, position in ((6, 5), (6, 10), (1, 5), (1, 15)):
                yield _memory(
                    f"{attribute}_{choice}_at_{position}_time_{time}",
                    16,
                    position,
                    {attribute: choice},
                    time=time,
                )
    # Choices that touch each other.
    for schedule in ("read_norm_write", "post", "pre", "none"):
        for grad_at in ("normalized", "raw"):
            for loss in ("neg_dot", "l2"):
                for time in (1, 6):
                    yield _memory(
                        f"{schedule}_{grad_at}_{loss}_time_{time}",
                        16,
                        16 - time,
                        {
                            "norm_schedule": schedule,
                            "grad_at": grad_at,
                            "inner_loss": loss,
                            "residual": int(grad_at == "raw"),
                        },
                        time=time,
                    )
    for clip in (0.0, 0.01, 10.0):
        for reduce in ("sum", "mean"):
            yield _memory(
                f"clip_{clip}_{reduce}", 16, 10, {"clip": clip, "lr_reduce": reduce}, time=6
            )
    for time in (1, 6):
        yield _memory(
            f"clip_active_time_{time}", 16, 16 - time, time=time, special="large_gradient"
        )
        yield _memory(f"faint_rates_time_{time}", 16, 3, time=time, special="faint_rates")
        yield _memory(
            f"strong_logits_time_{time}", 16, 16 - time, time=time, special="strong_logits"
        )
        for out_norm in (0, 1):
            yield _memory(
                f"silent_tokens_{out_norm}_time_{time}",
                16,
                3,
                {"out_norm": out_norm, "value_norm": "l2"},
                time=time,
                special="silent_tokens",
            )
        yield _memory(f"large_epsilon_time_{time}", 16, 3, {"epsilon": 0.01}, time=time)


ATTENTION_CASES: tuple[Case, ...] = tuple(_attention_cases())
CUDA_ATTENTION_CASES = tuple(case for case in ATTENTION_CASES if case.cache != "int8")
MEMORY_CASES: tuple[Case, ...] = tuple(_memory_cases())


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
