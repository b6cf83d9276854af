"""Both operators of the native library in graphs whose activations are float16, on the CPU."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from attention_cases import ATTENTION_CASES
from cases import (
    AttentionSizes,
    Case,
    check_int8_rings,
    relative_rms,
    run_reference,
    with_activations,
)
from memory_cases import MEMORY_CASES
from native import Native, available_cpu_paths, native

OUTPUT_TOLERANCE = 5e-4
"""The kernels compute in float32; rounding the output to float16 moves an element by up to 2^-11
of itself, 4.9e-4."""

STATE_TOLERANCE = 2e-6
"""State is not rounded: as with float32 activations, see test_native_attention."""

RING_TOLERANCE = 2e-5
"""A float16 ring: see FLOAT16_TOLERANCE of test_native_attention."""


@pytest.fixture(scope="module", params=["avx512", "avx2", "generic"])
def backend(request: pytest.FixtureRequest) -> Iterator[Native]:
    made = native()
    if request.param not in available_cpu_paths():
        pytest.skip(f"this CPU cannot run the {request.param} kernels")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALLMEM_CPU", request.param)
        yield made


@pytest.mark.parametrize(
    "case", [*ATTENTION_CASES, *MEMORY_CASES], ids=lambda case: f"{case.operator.name}-{case.name}"
)
def test_kernel_agrees_with_reference_on_the_rounded_inputs(backend: Native, case: Case) -> None:
    inputs = with_activations(case.operator, case.inputs(), "float16")
    kept = {name: array.copy() for name, array in inputs.items()}
    want = run_reference(case.operator, inputs, case.attributes)
    got = backend.run(case.operator, inputs, case.attributes)
    assert got["output"].dtype == np.float16
    errors = {name: relative_rms(got[name], want[name]) for name in want}
    assert errors.pop("output") <= OUTPUT_TOLERANCE
    if case.cache == "int8":
        check_int8_rings(got, want)
        del errors["present_key"], errors["present_value"]
    state = RING_TOLERANCE if case.cache == "float16" else STATE_TOLERANCE
    assert all(error <= state for error in errors.values()), errors
    for name, array in kept.items():
        np.testing.assert_array_equal(inputs[name], array, err_msg=f"{name} was written to")
    same = backend.run(case.operator, inputs, case.attributes, in_place=True)
    for name in got:
        np.testing.assert_array_equal(same[name], got[name], err_msg=name)


@pytest.mark.parametrize(
    "case", [*ATTENTION_CASES, *MEMORY_CASES], ids=lambda case: f"{case.operator.name}-{case.name}"
)
def test_result_is_that_of_float32_activations_but_for_the_last_rounding(case: Case) -> None:
    backend = native()
    rounded = with_activations(case.operator, case.inputs(), "float16")
    half = backend.run(case.operator, rounded, case.attributes)
    single = backend.run(
        case.operator, with_activations(case.operator, rounded, "float32"), case.attributes
    )
    with np.errstate(over="ignore"):
        single["output"] = single["output"].astype(np.float16)
    for name in half:
        np.testing.assert_array_equal(half[name], single[name], err_msg=name)


def every_float16() -> np.ndarray:
    return np.arange(1 << 16, dtype=np.uint16).view(np.float16)


def equal_scores(values: np.ndarray, window: int) -> tuple[Case, dict[str, np.ndarray]]:
    """Attention of one head to ``values`` [time, head_dim] with queries and keys of zero."""
    time, head_dim = values.shape
    sizes = AttentionSizes(time=time, query_heads=1, kv_heads=1, head_dim=head_dim, rotary_half=0)
    case = Case("equal_scores", sizes, {"window": window, "sinks": 0, "scale": 1.0})
    inputs = with_activations(case.operator, case.inputs(), "float16")
    inputs["qkv"][...] = 0
    inputs["qkv"][0, :, 2 * head_dim :] = values
    return case, inputs


def test_every_float16_comes_in_as_it_is(backend: Native) -> None:
    values = every_float16().reshape(256, 256)
    case, inputs = equal_scores(values, window=256)
    got = backend.run(case.operator, inputs, case.attributes)["present_value"]
    np.testing.assert_array_equal(got[0, 0], values.astype(np.float32))


def test_output_is_rounded_to_the_nearest_float16_and_ties_to_even(backend: Native) -> None:
    # The second of two tokens gets the mean of both, which lies between neighbors.
    finite = every_float16()[: 31 << 10]
    pairs = np.stack([finite, np.append(finite[1:], np.float16(-65504))])
    case, inputs = equal_scores(pairs, window=2)
    got = backend.run(case.operator, inputs, case.attributes)["output"][0, 1]
    np.testing.assert_array_equal(got, pairs.astype(np.float32).mean(axis=0).astype(np.float16))


def test_what_is_no_finite_number_goes_through(backend: Native) -> None:
    values = np.array([[np.inf, -np.inf, np.nan, 6e-8, -6e-8, 65504, 0, 1, -2]], np.float16)
    case, inputs = equal_scores(values, window=1)
    got = backend.run(case.operator, inputs, case.attributes)["output"][0]
    np.testing.assert_array_equal(got, values)
