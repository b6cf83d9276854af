"""One call of an operator as the plain arrays that the kernels' C interface takes.

The order of the numbers is that of ``custom_ops/src/cuda/entry``.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from allmem_ops.contract import Operator, Value

ELEMENTS = ("float32", "float16", "bfloat16")
ENTRIES = {"SlidingWindowAttention": "attention", "TTTMemory": "memory"}

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Call:
    """Everything of a call but the addresses.

    Attributes:
        entry: the part of the entry functions' names that tells the operators apart.
        integers: sizes, flags and choices.
        numbers: attributes that are real numbers.
        names: of the tensors whose addresses follow, in their order.
        output: shape of the first output; every other output has the shape of a state.
    """

    entry: str
    integers: tuple[int, ...]
    numbers: tuple[float, ...]
    names: tuple[str, ...]
    output: Shape

    def arrays(self, addresses: Mapping[str, int]) -> tuple[ctypes.Array[Any], ...]:
        """Integers, numbers and addresses, as C has them."""
        pointers = [addresses[name] for name in self.names]
        return (
            (ctypes.c_int64 * len(self.integers))(*self.integers),
            (ctypes.c_float * len(self.numbers))(*self.numbers),
            (ctypes.c_void_p * len(pointers))(*pointers),
        )


def describe(
    operator: Operator,
    shapes: Mapping[str, Shape],
    attributes: Mapping[str, Value],
    activation: str,
    cache: str = "float32",
) -> Call:
    """The call of an operator.

    Args:
        operator: of the operator table.
        shapes: of the inputs, by name.
        attributes: those that differ from the table's defaults, and the required ones.
        activation: element type of the token stream.
        cache: element type of keys and values.

    Raises:
        ValueError: an attribute is outside its range.
    """
    values = operator.attribute_values(dict(attributes))
    names = (*(t.name for t in operator.inputs), *(t.name for t in operator.outputs))
    if operator.name == "TTTMemory":
        integers, numbers, output = _memory(shapes, values, activation)
    else:
        integers, numbers, output = _attention(shapes, values, activation, cache)
    return Call(ENTRIES[operator.name], integers, numbers, names, output)


def _attention(
    shapes: Mapping[str, Shape], values: Mapping[str, Value], activation: str, cache: str
) -> tuple[tuple[int, ...], tuple[float, ...], Shape]:
    batch, time, packed = shapes["qkv"]
    _, kv_heads, _, head_dim = shapes["past_key"]
    query_heads = packed // head_dim - 2 * kv_heads
    integers = (
        *(batch, time, query_heads, kv_heads, head_dim),
        *(int(values["window"]), int(values["sinks"]), shapes["inverse_frequencies"][0]),
        int(values["sink_rope"] == "clamped"),
        *(ELEMENTS.index(activation), ELEMENTS.index(cache)),
    )
    numbers = tuple(float(values[n]) for n in ("scale", "rope_amplitude", "norm_epsilon"))
    return integers, numbers, (batch, time, query_heads * head_dim)


def _memory(
    shapes: Mapping[str, Shape], values: Mapping[str, Value], activation: str
) -> tuple[tuple[int, ...], tuple[float, ...], Shape]:
    batch, time, packed = shapes["qkv"]
    heads, _, hidden, dim = shapes["initial_weights"]
    schedule = values["norm_schedule"]
    integers = (
        *(batch, time, heads, dim, hidden, shapes["conv_weight"][2], int(values["chunk"])),
        int(values["inner_loss"] == "l2"),
        int(schedule in ("post", "pre")),  # reads use the normalized weights
        int(schedule != "none" and values["grad_at"] == "normalized"),
        int(schedule in ("read_norm_write", "post")),  # the commit adds to them
        int(values["lr_reduce"] == "mean"),
        int(values["residual"]),
        int(values["conv_activation"] != "none"),
        int(values["conv_activation"] == "silu"),
        int(values["out_norm"]),
        ("none", "rms", "l2").index(str(values["value_norm"])),
        ("sigmoid", "silu", "none").index(str(values["out_gate"])),
        ELEMENTS.index(activation),
    )
    return integers, (float(values["clip"]), float(values["epsilon"])), (batch, time, packed // 3)
