"""Compares the operators, as this machine runs them, with their NumPy references."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from allmem_ops.contract import Operator, Tensor
from allmem_ops.products import EXPERT_MATMUL, QUANTIZED_MATMUL
from allmem_ops.reference import sliding_window_attention, ttt_memory
from allmem_ops.reference.experts import expert_matmul
from allmem_ops.reference.product import interleaved, interleaved_scales, quantized_matmul
from allmem_ops.schema import DOMAIN, KNOWN, SLIDING_WINDOW_ATTENTION, TTT_MEMORY
from allmem_runtime.health.one_node import one_node_model

Arrays = Mapping[str, NDArray[Any]]
Case = tuple[dict[str, NDArray[Any]], dict[str, int | float | str]]
"""Inputs and attributes of a node."""
Runner = Callable[[bytes, Arrays], list[NDArray[Any]]]
"""Runs a model on the device in question and gives its outputs in order."""

TOLERANCE = 1e-3
"""Largest relative RMS error of an output.

Kernels compute in float32 and keep keys and values in float16, both good to 1e-6 and, where a
rounding tips over, 1e-4; a kernel that is wrong errs by about 1.
"""

_SIZES: dict[str | int, int] = {
    "batch": 1, "time": 5, "kv_heads": 2, "head_dim": 8, "slots": 9, "rotary_half": 4,
    "(query_heads + 2 * kv_heads) * head_dim": 64, "heads": 2, "hidden": 12, "memory_dim": 8,
    "width": 16, "3 * width": 48, "5 * heads": 10, "kernel": 4, "tail": 3,
    "2 * hidden + memory_dim": 32,
}  # fmt: skip
_ELEMENTS = {"activation": "float32", "cache": "float16"}
"""Others are types already."""
_POSITION = 11
_ATTRIBUTES: dict[str, dict[str, int | float | str]] = {
    SLIDING_WINDOW_ATTENTION.name: {"window": 7, "sinks": 2, "scale": 0.35, "norm_epsilon": 1e-6},
    TTT_MEMORY.name: {"chunk": 16},  # 11 + 5 tokens: the piece ends with a commit
}
_REFERENCES: dict[str, Callable[..., tuple[NDArray[Any], ...]]] = {
    SLIDING_WINDOW_ATTENTION.name: sliding_window_attention,
    TTT_MEMORY.name: ttt_memory,
    QUANTIZED_MATMUL.name: quantized_matmul,
    EXPERT_MATMUL.name: lambda *given, **attributes: (expert_matmul(*given, **attributes),),
}


def operator_error(name: str, run: Runner) -> float:
    """Largest relative RMS error of an operator's outputs against its reference.

    Args:
        name: of the operator.
        run: runs the model of one node; what it raises is raised here.

    Returns:
        0 for perfect agreement; NaN if an output is not finite.
    """
    operator = KNOWN[name]
    errors: list[float] = []
    for inputs, attributes in _cases(operator):
        arguments: dict[str, Any] = dict(inputs)
        if "position" in inputs:
            arguments["position"] = _POSITION
        expected = _REFERENCES[name](**arguments, **attributes)
        # Which outputs there are depends on the case: the reference knows.
        outputs = [(tensor.name, _element(tensor)) for tensor in operator.outputs[: len(expected)]]
        values = operator.attribute_values(dict(attributes))
        places = [tensor.name if tensor.name in inputs else "" for tensor in operator.inputs]
        while not places[-1]:
            places.pop()
        model = one_node_model(name, DOMAIN, operator.version, inputs, outputs, values, places)
        found = run(model, inputs)
        errors += [relative_error(have, want) for have, want in zip(found, expected, strict=True)]
    return float(np.max(errors))


def _cases(operator: Operator) -> list[Case]:
    if operator is QUANTIZED_MATMUL:
        return _product_cases()
    if operator is EXPERT_MATMUL:
        return _expert_cases()
    return [(_inputs(operator), _ATTRIBUTES[operator.name])]


def _inputs(operator: Operator) -> dict[str, NDArray[Any]]:
    """Random inputs of an operator, the same every time."""
    random = np.random.default_rng(2024)
    inputs: dict[str, NDArray[Any]] = {}
    for tensor in operator.inputs:
        if tensor.name == "position":
            inputs[tensor.name] = np.array([_POSITION], np.int64)
            continue
        shape = [_SIZES[size] if isinstance(size, str) else size for size in tensor.shape]
        values = 0.5 * random.standard_normal(shape)
        if tensor.name.endswith(("norm", "gain", "norms", "frequencies", "sum")):
            values = np.abs(values) + 0.1
        inputs[tensor.name] = values.astype(_element(tensor))
    return inputs


def _expert_cases() -> list[Case]:
    """Three experts of 40 outputs and 90 inputs, two for each of five rows: float32, and 4 bits."""
    random = np.random.default_rng(2024)
    x = random.standard_normal((5, 1, 90)).astype(np.float32)
    chosen: dict[str, NDArray[Any]] = {
        "x": x,
        "expert": np.array([[0, 2], [2, 1], [0, 1], [2, 0], [2, 1]]),
    }
    matrix = random.standard_normal((3, 40, 90)).astype(np.float32)
    bias = random.standard_normal((3, 40)).astype(np.float32)
    scales = random.uniform(0.01, 0.02, (3, 40, 3))
    numbers = random.integers(0, 16, (3, 40, 3, 32)).astype(np.uint8)
    packed: dict[str, NDArray[Any]] = {
        "numbers": np.stack([interleaved(one, 4) for one in numbers]),
        "scales": np.stack([interleaved_scales(one, -8 * one) for one in scales]),
    }
    return [
        ({**chosen, "matrix": matrix, "bias": bias}, {"width": 40}),
        ({**chosen, **packed}, {"width": 40, "bits": 4}),
    ]


def _product_cases() -> list[Case]:
    """A product with 40 outputs, 90 inputs and a bias, which are not whole tiles, and its forms.

    The forms differ in bits, and in what is part of the operator: nothing, or everything.
    """
    random = np.random.default_rng(2024)
    scales = random.uniform(0.01, 0.02, (40, 3))
    bias = random.standard_normal(40).astype(np.float32)
    x = random.standard_normal((5, 180)).astype(np.float32)

    def weights(bits: int, *kinds: NDArray[Any]) -> dict[str, NDArray[Any]]:
        numbers = random.integers(0, 1 << bits, (40, 3, 32)).astype(np.uint8)
        packed = interleaved(numbers, bits)
        return {"numbers": packed, "scales": interleaved_scales(*kinds), "bias": bias}

    plain = {"x": x[:, :90], **weights(4, scales, -8 * scales)}
    whole = {"x": x[:, :70], **weights(8, scales), "x_more": x[:, 70:]}
    return [
        (plain, {"width": 40, "bits": 4}),
        (whole, {"width": 40, "bits": 8, "input_gate": "silu", "first_width": 21}),
    ]


def _element(tensor: Tensor) -> str:
    return _ELEMENTS.get(tensor.element, tensor.element)


def relative_error(have: NDArray[Any], want: NDArray[Any]) -> float:
    """Root mean square of the difference over that of ``want``."""
    have, want = have.astype(np.float64), want.astype(np.float64)
    difference = np.sqrt(np.mean((have - want) ** 2))
    return float(difference / max(np.sqrt(np.mean(want**2)), 1e-12))
