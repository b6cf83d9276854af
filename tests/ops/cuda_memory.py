"""TTTMemory's CUDA kernels called through the shim, in any type of activations."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping

import ml_dtypes
import numpy as np
from cases import Arrays
from cuda_shim import ShimLibrary

from allmem_ops.schema import Operator, Value

SOURCES = ("memory.cu", "memory_piece.cu", "memory_token.cu", "shim/memory_entry.cu")
ELEMENTS = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}


def integers(inputs: Arrays, values: Mapping[str, Value], element: str) -> list[int]:
    """Sizes, flags and choices in the order of the entry function."""
    heads, _, hidden, dim = inputs["initial_weights"].shape
    batch, time, _ = inputs["qkv"].shape
    schedule = values["norm_schedule"]
    return [
        batch,
        time,
        heads,
        dim,
        hidden,
        inputs["conv_weight"].shape[2],
        int(values["chunk"]),
        values["inner_loss"] == "l2",
        schedule in ("post", "pre"),
        schedule != "none" and values["grad_at"] == "normalized",
        schedule in ("read_norm_write", "post"),
        values["lr_reduce"] == "mean",
        int(values["residual"]),
        values["conv_activation"] != "none",
        values["conv_activation"] == "silu",
        int(values["out_norm"]),
        ("none", "rms", "l2").index(str(values["value_norm"])),
        ("sigmoid", "silu", "none").index(str(values["out_gate"])),
        list(ELEMENTS).index(element),
    ]


def run_memory(
    library: ShimLibrary,
    operator: Operator,
    inputs: Arrays,
    attributes: Mapping[str, Value],
    *,
    in_place: bool = False,
    element: str = "float32",
) -> Arrays:
    """One call; see ``cases.Backend``. Outputs in float32, whatever ``element`` is.

    Memory that the kernels must fill starts as NaN, and inputs are copied, so that a write into
    one of them is seen by the caller only where ``in_place`` asks for it.
    """
    values = operator.attribute_values(dict(attributes))
    numbers = integers(inputs, values, element)
    held = {name: np.ascontiguousarray(array).copy() for name, array in inputs.items()}
    for name in ("qkv", "control"):
        held[name] = held[name].astype(ELEMENTS[element])
    before = {name: array.copy() for name, array in held.items()}
    batch, time, packed = inputs["qkv"].shape
    outputs: Arrays = {}
    for tensor in operator.outputs:
        past = tensor.name.replace("present_", "past_", 1)
        if past not in held:
            outputs[tensor.name] = np.full((batch, time, packed // 3), np.nan, ELEMENTS[element])
        elif in_place:
            outputs[tensor.name] = held[past]
        else:
            outputs[tensor.name] = np.full_like(held[past], np.nan)
    pointers = [*(held[t.name] for t in operator.inputs), *outputs.values()]
    library.call(
        "allmem_shim_memory",
        (ctypes.c_int64 * len(numbers))(*numbers),
        (ctypes.c_float * 2)(float(values["clip"]), float(values["epsilon"])),
        (ctypes.c_void_p * len(pointers))(*(array.ctypes.data for array in pointers)),
    )
    for name, array in held.items():
        if not (in_place and name.startswith("past_")):
            np.testing.assert_array_equal(array, before[name], err_msg=f"{name} was written to")
    return {name: array.astype(np.float32) for name, array in outputs.items()}
