"""What the native library refuses, and that the text names operator, input and value."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from cases import Arrays, AttentionSizes, Case, MemorySizes
from native import Native, native
from onnxruntime.capi.onnxruntime_pybind11_state import (
    Fail,
    InvalidArgument,
    InvalidGraph,
    NotImplemented,
    RuntimeException,
)

ATTENTION = Case("errors", AttentionSizes(), {"window": 5, "sinks": 3, "scale": 0.5}, 4)
INT8 = Case("errors", AttentionSizes(cache="int8"), ATTENTION.attributes, 4)
BY_HEAD = Case("errors", AttentionSizes(), {**ATTENTION.attributes, "window": (6, 40)}, 4)
BY_HEAD_INT8 = Case("errors", AttentionSizes(cache="int8"), BY_HEAD.attributes, 4)
SINKS = Case("errors", AttentionSizes(sink_logits=True), ATTENTION.attributes, 4)
MEMORY = Case("errors", MemorySizes(), {"chunk": 8}, 2)


@pytest.fixture(scope="module")
def backend() -> Native:
    return native()


def cut(array: np.ndarray, axis: int) -> np.ndarray:
    return np.ascontiguousarray(np.delete(array, -1, axis=axis))


BAD_INPUTS: list[tuple[Case, str, Any, list[str]]] = [
    (ATTENTION, "qkv", lambda a: a[0], ["qkv", "[5, 64]", "[batch, time"]),
    (ATTENTION, "qkv", lambda a: cut(a, 2), ["qkv", "width 63"]),
    (ATTENTION, "qkv", lambda a: a[:, :, :32], ["qkv", "width 32"]),
    (ATTENTION, "qkv", lambda a: a[:, :, :56], ["qkv", "width 56", "query heads"]),
    (ATTENTION, "position", lambda a: a - 5, ["position", "-1"]),
    (ATTENTION, "position", lambda a: a * 0 + 2**62, ["position", str(2**62)]),
    (ATTENTION, "position", lambda a: np.append(a, 0), ["position", "[2]", "[1]"]),
    (
        ATTENTION,
        "inverse_frequencies",
        lambda a: np.ones(5, np.float32),
        ["inverse_frequencies", "5 entries", "at most 4"],
    ),
    (ATTENTION, "inverse_frequencies", lambda a: a[None], ["inverse_frequencies", "[1, 4]"]),
    (ATTENTION, "query_norm", lambda a: a[:7], ["query_norm", "[7]", "[8]"]),
    (ATTENTION, "key_norm", lambda a: a[:7], ["key_norm", "[7]", "[8]"]),
    (ATTENTION, "past_key", lambda a: cut(a, 2), ["past_key", "[1, 2, 7, 8]", "[1, ?, 8, ?]"]),
    (ATTENTION, "past_key", lambda a: np.concatenate([a, a]), ["past_key", "[2, 2, 8, 8]"]),
    (ATTENTION, "past_key", lambda a: a[0], ["past_key", "[2, 8, 8]"]),
    (ATTENTION, "past_key", lambda a: a[:, :0], ["past_key", "at least 1"]),
    (ATTENTION, "past_value", lambda a: cut(a, 1), ["past_value", "[1, 1, 8, 8]"]),
    (ATTENTION, "past_value", lambda a: cut(a, 3), ["past_value", "[1, 2, 8, 7]"]),
    (INT8, "past_scale", lambda a: cut(a, 3), ["past_scale", "[1, 2, 2, 7]", "[1, 2, 2, 8]"]),
    (INT8, "past_scale", lambda a: a[:, :, 0], ["past_scale", "[1, 2, 8]"]),
    (INT8, "past_scale", lambda a: cut(a, 1), ["past_scale", "[1, 1, 2, 8]"]),
    (SINKS, "sink_logits", lambda a: cut(a, 0), ["sink_logits", "[3]", "[4]"]),
    (SINKS, "sink_logits", lambda a: a[None], ["sink_logits", "[1, 4]", "[4]"]),
    (BY_HEAD, "past_key", lambda a: cut(a, 1), ["past_key", "[1, 51, 8]", "[1, 52, ?]", "sum of"]),
    (BY_HEAD, "past_key", lambda a: a[:, None], ["'window' has 2", "[1, 1, 52, 8]"]),
    (BY_HEAD, "past_key", lambda a: a[0], ["past_key", "[52, 8]"]),
    (BY_HEAD, "past_value", lambda a: cut(a, 1), ["past_value", "[1, 51, 8]"]),
    (BY_HEAD, "qkv", lambda a: a[:, :, :56], ["qkv", "width 56", "query heads"]),
    (BY_HEAD_INT8, "past_scale", lambda a: cut(a, 1), ["past_scale", "[1, 103]", "[1, 104]"]),
    (MEMORY, "qkv", lambda a: cut(a, 2), ["qkv", "[1, 5, 47]", "[1, 5, 48]"]),
    (MEMORY, "qkv", lambda a: a[0], ["qkv", "[5, 48]"]),
    (MEMORY, "qkv", lambda a: a[(None,) * 6], ["qkv", "9 axes", "at most 8"]),
    (MEMORY, "control", lambda a: cut(a, 2), ["control", "[1, 5, 9]", "[1, 5, 10]"]),
    (MEMORY, "control", lambda a: cut(a, 1), ["control", "[1, 4, 10]"]),
    (MEMORY, "position", lambda a: a - 3, ["position", "-1"]),
    (MEMORY, "position", lambda a: a + 2, ["5 tokens", "position 4", "chunk of 8", "cut it"]),
    (MEMORY, "conv_weight", lambda a: a[:2], ["conv_weight", "[2, 16, 4]"]),
    (MEMORY, "conv_weight", lambda a: a[:, :, :0], ["conv_weight", "one tap"]),
    (MEMORY, "conv_weight", lambda a: cut(a, 2), ["past_conv_tail", "[1, 3, 3, 16]", "[1, 3, 2"]),
    (MEMORY, "norm_gain", lambda a: cut(a, 2), ["norm_gain", "[3, 2, 7]"]),
    (MEMORY, "initial_weights", lambda a: cut(a, 1), ["initial_weights", "[2, 2, 16, 8]"]),
    (MEMORY, "initial_weights", lambda a: a[:, :, :0], ["initial_weights", "no size may be 0"]),
    (MEMORY, "initial_norms", lambda a: cut(a, 1), ["initial_norms", "[2, 39]", "[2, 40]"]),
    (MEMORY, "past_weights", lambda a: cut(a, 3), ["past_weights", "[1, 2, 3, 15, 8]"]),
    (MEMORY, "past_momentum", lambda a: cut(a, 4), ["past_momentum", "[1, 2, 3, 16, 7]"]),
    (MEMORY, "past_gradient", lambda a: cut(a, 1), ["past_gradient", "[1, 1, 3, 16, 8]"]),
    (MEMORY, "past_momentum_sum", lambda a: cut(a, 1), ["past_momentum_sum", "[1, 1]"]),
    (MEMORY, "past_conv_tail", lambda a: cut(a, 2), ["past_conv_tail", "[1, 3, 2, 16]"]),
]


@pytest.mark.parametrize(
    ("case", "name", "change", "words"),
    BAD_INPUTS,
    ids=[f"{c.operator.name}-{n}-{i}" for i, (c, n, _, _) in enumerate(BAD_INPUTS)],
)
def test_misfitting_input_is_refused_by_name_before_anything_is_written(
    backend: Native, case: Case, name: str, change: Any, words: list[str]
) -> None:
    inputs = case.inputs()
    inputs[name] = np.ascontiguousarray(change(inputs[name]))
    written: Arrays = {n: a.copy() for n, a in inputs.items()}
    with pytest.raises(InvalidArgument) as refusal:
        backend.run(case.operator, inputs, case.attributes)
    for word in (case.operator.name, *words):
        assert word in str(refusal.value)
    for other, array in written.items():
        np.testing.assert_array_equal(inputs[other], array)


@pytest.mark.parametrize("cache", ["int8", "float16"])
def test_scales_go_with_int8_and_with_nothing_else(backend: Native, cache: str) -> None:
    inputs = INT8.inputs()
    operator = INT8.operator
    if cache == "int8":
        operator = ATTENTION.operator
        del inputs["past_scale"]
    else:
        inputs |= {name: inputs[name].astype(cache) for name in ("past_key", "past_value")}
    with pytest.raises(
        RuntimeException, match=f"SlidingWindowAttention: past_key is {cache}"
    ) as refusal:
        backend.run(operator, inputs, INT8.attributes)
    assert "past_scale" in str(refusal.value)


def test_refused_piece_leaves_the_state_in_place_untouched(backend: Native) -> None:
    import onnxruntime

    inputs = MEMORY.inputs()
    inputs["position"] = np.array([6], np.int64)  # five tokens would cross the chunk
    session = backend.session(MEMORY.operator, inputs, MEMORY.attributes)
    values = {n: onnxruntime.OrtValue.ortvalue_from_numpy(a) for n, a in inputs.items()}
    binding = session.io_binding()
    for name, value in values.items():
        binding.bind_ortvalue_input(name, value)
    binding.bind_output("output", "cpu")
    for tensor in MEMORY.operator.state:
        binding.bind_ortvalue_output(
            tensor.name.replace("past_", "present_", 1), values[tensor.name]
        )
    with pytest.raises((InvalidArgument, RuntimeError), match="crosses the boundary"):
        session.run_with_iobinding(binding)
    for tensor in MEMORY.operator.state:
        np.testing.assert_array_equal(values[tensor.name].numpy(), inputs[tensor.name])


BAD_ATTRIBUTES: list[tuple[Case, str, Any, list[str]]] = [
    (ATTENTION, "window", 0, ["window", "0"]),
    (ATTENTION, "window", -1, ["window", "-1"]),
    (ATTENTION, "window", 2**62, ["window", str(2**62)]),
    (ATTENTION, "window", 5.0, ["window", "integer"]),
    (ATTENTION, "window", None, ["window", "required"]),
    (BY_HEAD, "window", (6, 0), ["window", "0 for head 1", "from 1 to"]),
    (BY_HEAD, "window", (2**62, 6), ["window", f"{2**62} for head 0"]),
    (BY_HEAD, "window", (6,) * 129, ["window", "129 numbers", "1 to 128"]),
    (BY_HEAD, "window", (6.0, 40.0), ["window"]),
    (ATTENTION, "sinks", -1, ["sinks", "-1"]),
    (ATTENTION, "sinks", None, ["sinks", "required"]),
    (ATTENTION, "sink_rope", "clampd", ["sink_rope", "clampd", "clamped, true"]),
    (ATTENTION, "sink_rope", 1, ["sink_rope", "string"]),
    (ATTENTION, "scale", -1.0, ["scale", "-1"]),
    (ATTENTION, "scale", float("nan"), ["scale", "nan"]),
    (ATTENTION, "scale", float("inf"), ["scale", "inf"]),
    (ATTENTION, "scale", 1, ["scale", "float"]),
    (ATTENTION, "scale", None, ["scale", "required"]),
    (ATTENTION, "rope_amplitude", -0.5, ["rope_amplitude", "-0.5"]),
    (ATTENTION, "norm_epsilon", -1e-6, ["norm_epsilon", "-1e-06"]),
    (MEMORY, "chunk", 0, ["chunk", "0"]),
    (MEMORY, "chunk", None, ["chunk", "required"]),
    (MEMORY, "clip", -0.1, ["clip", "-0.1"]),
    (MEMORY, "epsilon", 0.0, ["epsilon", "0"]),
    (MEMORY, "epsilon", 0.1, ["epsilon", "0.1"]),
    (MEMORY, "residual", 2, ["residual", "2"]),
    (MEMORY, "out_norm", -1, ["out_norm", "-1"]),
    *[
        (MEMORY, name, "wrong", [name, "'wrong'", "allowed"])
        for name in (
            "inner_loss",
            "norm_schedule",
            "grad_at",
            "lr_reduce",
            "conv_activation",
            "value_norm",
            "out_gate",
        )
    ],
]


@pytest.mark.parametrize(
    ("case", "name", "value", "words"),
    BAD_ATTRIBUTES,
    ids=[f"{c.operator.name}-{n}-{v}" for c, n, v, _ in BAD_ATTRIBUTES],
)
def test_impossible_attribute_is_refused_when_the_model_is_opened(
    backend: Native, case: Case, name: str, value: Any, words: list[str]
) -> None:
    attributes = {**case.attributes, name: value}
    if value is None:
        del attributes[name]
    with pytest.raises((InvalidArgument, RuntimeException)) as refusal:
        backend.session(case.operator, case.inputs(), attributes)
    for word in (case.operator.name, *words):
        assert word in str(refusal.value)


@pytest.mark.parametrize(
    ("case", "name", "dtype"),
    [
        (ATTENTION, "qkv", np.float64),
        (ATTENTION, "past_key", np.float64),
        (ATTENTION, "position", np.int32),
        (MEMORY, "past_weights", np.float16),
        (MEMORY, "control", np.float64),
    ],
    ids=lambda value: getattr(value, "__name__", getattr(value, "name", value)),
)
def test_unsupported_element_types_are_refused_when_the_model_is_opened(
    backend: Native, case: Case, name: str, dtype: type
) -> None:
    inputs = case.inputs()
    inputs[name] = inputs[name].astype(dtype)
    with pytest.raises((InvalidGraph, NotImplemented, Fail)) as refusal:
        backend.session(case.operator, inputs, case.attributes)
    assert case.operator.name in str(refusal.value) or name in str(refusal.value)


ONLY_CUDA = "bfloat16 needs CUDA"


@pytest.mark.parametrize(
    ("case", "types", "words"),
    [
        (MEMORY, {"qkv": "float16"}, ["qkv is float16", "control float32", "both must be"]),
        (MEMORY, {"control": "float16"}, ["qkv is float32", "control float16", "both must be"]),
        (MEMORY, {"qkv": "bfloat16", "control": "bfloat16"}, ["qkv is bfloat16", ONLY_CUDA]),
        (MEMORY, {"qkv": "bfloat16"}, ["qkv is bfloat16", "control float32"]),
        (ATTENTION, {"qkv": "bfloat16"}, ["qkv is bfloat16", ONLY_CUDA]),
        (ATTENTION, {"past_value": "float16"}, ["past_key float32", "past_value float16", "both"]),
        (
            ATTENTION,
            {"qkv": "float16", "past_key": "float16"},
            ["qkv is float16", "past_key float16", "past_value float32"],
        ),
        (
            ATTENTION,
            {"past_key": "bfloat16", "past_value": "bfloat16"},
            ["past_key bfloat16", ONLY_CUDA],
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_element_types_without_kernels_on_the_cpu_are_refused_in_words(
    backend: Native, case: Case, types: dict[str, str], words: list[str]
) -> None:
    inputs = case.inputs()
    for name, element in types.items():
        inputs[name] = inputs[name].astype(ml_dtypes.bfloat16 if "b" in element else element)
    with pytest.raises((NotImplemented, RuntimeException)) as refusal:
        backend.session(case.operator, inputs, case.attributes)
    for word in (case.operator.name, *words):
        assert word in str(refusal.value)


def test_omitted_attributes_take_the_defaults_of_the_table(backend: Native) -> None:
    for case in (ATTENTION, MEMORY):
        inputs = case.inputs()
        spelled = case.operator.attribute_values(dict(case.attributes))
        floats = {
            a.name: float(spelled[a.name]) for a in case.operator.attributes if a.kind == "float"
        }
        short = backend.run(case.operator, inputs, case.attributes)
        full = backend.run(case.operator, inputs, {**spelled, **floats})
        for name in short:
            np.testing.assert_array_equal(short[name], full[name], err_msg=name)
