"""SlidingWindowAttention of the native library against the float64 reference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from attention_cases import ATTENTION_CASES
from cases import (
    ROUNDED_TOLERANCE,
    Case,
    check_int8_rings,
    relative_rms,
    run_pieces,
    run_reference,
    with_time,
)
from native import Native, available_cpu_paths, native

TOLERANCE = 2e-6
"""Float32 sums of up to 1000 terms and a softmax over logits of order 1 to 10: measured errors
are 1e-7 to 7e-7."""

FLOAT16_TOLERANCE = 2e-5
"""The reference rounds keys to float16 from float64, the kernel from float32. One key in about
3000 lies so close to a rounding border that the two fall on different sides, one float16 step
apart (1e-3 relative): sqrt(1 / 3000) * 5e-4 is 1e-5 for the keys, and less for the output."""


@pytest.fixture(scope="module", params=["avx512", "avx2", "generic"])
def backend(request: pytest.FixtureRequest) -> Iterator[Native]:
    made = native()
    if request.param not in available_cpu_paths():
        pytest.skip(f"this CPU cannot run the {request.param} kernels")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALLMEM_CPU", request.param)
        yield made


def check(case: Case, got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> None:
    errors = {name: relative_rms(got[name], want[name]) for name in want}
    bounds = dict.fromkeys(want, FLOAT16_TOLERANCE if case.cache == "float16" else TOLERANCE)
    if case.cache == "int8":
        if check_int8_rings(got, want):
            bounds["output"] = ROUNDED_TOLERANCE
        del bounds["present_key"], bounds["present_value"]
    assert all(errors[name] <= bound for name, bound in bounds.items()), errors


@pytest.mark.parametrize("case", ATTENTION_CASES, ids=lambda case: case.name)
def test_kernel_agrees_with_reference_in_and_out_of_place(backend: Native, case: Case) -> None:
    inputs = case.inputs()
    kept = {name: array.copy() for name, array in inputs.items()}
    want = run_reference(case.operator, inputs, case.attributes)
    got = backend.run(case.operator, inputs, case.attributes)
    check(case, got, want)
    for name, array in kept.items():
        np.testing.assert_array_equal(inputs[name], array, err_msg=f"{name} was written to")
    same = backend.run(case.operator, inputs, case.attributes, in_place=True)
    for name in got:
        np.testing.assert_array_equal(same[name], got[name], err_msg=name)


@pytest.mark.parametrize("cuts", [tuple(range(1, 30)), (1,), (29,), (4, 5, 13), (15, 16)], ids=str)
@pytest.mark.parametrize("cache", ["float32", "float16", "int8"])
@pytest.mark.parametrize("position", [0, 2, 50])
def test_result_does_not_depend_on_how_tokens_are_cut(
    backend: Native, cuts: tuple[int, ...], cache: str, position: int
) -> None:
    base = next(c for c in ATTENTION_CASES if c.name == "piece_longer_than_ring")
    case = Case(
        "cuts", type(base.sizes)(time=30, head_dim=12, cache=cache), base.attributes, position
    )
    inputs = case.inputs()
    whole = backend.run(case.operator, inputs, case.attributes)
    parts = run_pieces(backend, case, inputs, cuts, in_place=True)
    # Keys are computed the same way in every cut; only sums of attention differ in their order.
    for name in whole.keys() - {"output"}:
        np.testing.assert_array_equal(parts[name], whole[name], err_msg=name)
    assert relative_rms(parts["output"], whole["output"]) <= TOLERANCE


def test_number_of_threads_does_not_change_a_bit(backend: Native) -> None:
    int8 = ("int8_long_time_150_heads_9_dim_64", "int8_long_time_1_heads_9_dim_64")
    for name in ("float16_long", "float16_long_ring", "tiles_time_130", *int8):
        case = next(c for c in ATTENTION_CASES if c.name == name)
        inputs = case.inputs()
        one = Native(threads=1).run(case.operator, inputs, case.attributes)
        two = backend.run(case.operator, inputs, case.attributes)
        for output in one:
            np.testing.assert_array_equal(one[output], two[output], err_msg=f"{name} {output}")


@pytest.mark.parametrize("time", [1, 6])
@pytest.mark.parametrize("cache", ["float32", "float16"])
def test_float16_ring_keeps_infinity_nan_and_subnormals(
    backend: Native, time: int, cache: str
) -> None:
    base = next(c for c in ATTENTION_CASES if c.name == "no_sinks")
    case = Case(
        "special_values",
        type(base.sizes)(time=time, cache=cache, rotary_half=0),
        base.attributes,
        20,
    )
    inputs = case.inputs()
    values = inputs["qkv"].reshape(time, 8, 8)[:, 6:]
    values[:, 0, :6] = [np.inf, -np.inf, np.nan, 3e-6, -6e-8, 7e4]
    got = backend.run(case.operator, inputs, case.attributes)
    with np.errstate(all="ignore"):
        want = run_reference(case.operator, inputs, case.attributes)
    np.testing.assert_array_equal(got["present_value"], want["present_value"])
    assert np.isnan(got["output"]).any()


@pytest.mark.parametrize("time", [1, 3])
def test_nan_in_a_query_reaches_the_output_of_its_head_only(backend: Native, time: int) -> None:
    case = with_time(next(c for c in ATTENTION_CASES if c.name == "no_sinks"), time)
    inputs = case.inputs()
    inputs["qkv"][0, time - 1, 3] = np.nan  # the last token's first query head
    got = backend.run(case.operator, inputs, case.attributes)["output"].reshape(time, 4, 8)
    assert np.isnan(got[time - 1, 0]).all()
    assert np.isfinite(got[:, 1:]).all()
    assert np.isfinite(got[: time - 1]).all()


@pytest.mark.parametrize("time", [1, 6])
def test_sink_logits_of_minus_infinity_leave_results_and_others_reach_their_head(
    backend: Native, time: int
) -> None:
    base = with_time(next(c for c in ATTENTION_CASES if c.name == "no_sinks"), time)
    case = replace(base, sizes=replace(base.sizes, sink_logits=True))
    inputs = case.inputs()
    inputs["sink_logits"][:] = [-np.inf, np.inf, np.nan, -1e30]
    got = backend.run(case.operator, inputs, case.attributes)["output"].reshape(time, 4, 8)
    del inputs["sink_logits"]
    without = backend.run(base.operator, inputs, base.attributes)["output"].reshape(time, 4, 8)
    np.testing.assert_array_equal(got[:, [0, 3]], without[:, [0, 3]])
    assert np.isnan(got[:, 1:3]).all()


@pytest.mark.parametrize("time", [1, 4])
def test_int8_row_that_is_not_finite_has_no_scale_and_poisons_what_sees_it(
    backend: Native, time: int
) -> None:
    base = next(c for c in ATTENTION_CASES if c.name == "no_sinks")
    case = Case("poison", type(base.sizes)(time=time, cache="int8"), base.attributes, 20)
    inputs = case.inputs()
    values = inputs["qkv"].reshape(time, 8, 8)[:, 6:]
    values[time - 1, 0, 2] = np.inf
    values[time - 1, 1, :] = 0.0
    got = backend.run(case.operator, inputs, case.attributes)
    with np.errstate(all="ignore"):
        want = run_reference(case.operator, inputs, case.attributes)
    for name in ("present_value", "present_scale"):
        np.testing.assert_allclose(got[name], want[name], rtol=1e-6, err_msg=name)
    slot = (20 + time - 1) % 6
    assert np.isnan(got["present_scale"][0, 0, 1, slot])
    assert got["present_scale"][0, 1, 1, slot] == 0.0
    heads = got["output"].reshape(time, 4, 8)[time - 1]
    assert np.isnan(heads[:2]).all()
    assert np.isfinite(heads[2:]).all()


@pytest.mark.parametrize("time", [1, 3])
def test_int8_scale_among_the_subnormals_keeps_integers_within_127(
    backend: Native, time: int
) -> None:
    base = next(c for c in ATTENTION_CASES if c.name == "no_sinks")
    case = Case("faint", type(base.sizes)(time=time, cache="int8"), base.attributes, 20)
    inputs = case.inputs()
    inputs["qkv"].reshape(time, 8, 8)[:, 6:] *= np.float32(1e-43)
    got = backend.run(case.operator, inputs, case.attributes)
    want = run_reference(case.operator, inputs, case.attributes)
    for name in ("present_value", "present_scale"):
        np.testing.assert_array_equal(got[name], want[name], err_msg=name)
    assert got["present_value"].min() >= -127
