"""SlidingWindowAttention's CUDA kernels, run on the CPU, against the float64 reference."""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes  # noqa: F401  (with it numpy knows bfloat16)
import numpy as np
import pytest
from attention_cases import CUDA_ATTENTION_CASES
from cases import AttentionSizes, Case, relative_rms, run_pieces, run_reference, with_time
from cuda_attention import SOURCES, CudaAttention
from cuda_shim import ORDERS, ShimLibrary, build

TOLERANCE = 2e-6
"""Float32 sums of up to 1000 terms and a softmax over logits of order 1 to 10."""

CACHE_TOLERANCE = {"float32": TOLERANCE, "float16": 2e-5, "bfloat16": 2e-4}
"""The reference rounds keys from float64, the kernels from float32. One key in about 3000 lies so
close to a rounding border of float16 that the two fall on different sides, one step apart (1e-3
relative): sqrt(1 / 3000) * 5e-4 is 1e-5. A bfloat16 step is 8 times as large; the borders are 8
times as rare, which leaves sqrt(8) times the error and more scatter, since few keys are hit."""

ACTIVATION_TOLERANCE = {"float16": 2e-3, "bfloat16": 1e-2}
"""The output itself is rounded, by up to 5e-4 and 4e-3; matrix instructions round queries and
weights as well. Seen: 3.5e-4 and 2.7e-3."""


@pytest.fixture(scope="module")
def library() -> ShimLibrary:
    return ShimLibrary(build("attention", SOURCES, "-O1"))


@pytest.fixture(scope="module")
def backend(library: ShimLibrary) -> CudaAttention:
    return CudaAttention(library)


def named(name: str) -> Case:
    return next(case for case in CUDA_ATTENTION_CASES if case.name == name)


def sizes_of(case: Case) -> AttentionSizes:
    assert isinstance(case.sizes, AttentionSizes)
    return case.sizes


def check(case: Case, got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> None:
    tolerance = CACHE_TOLERANCE[sizes_of(case).cache]
    errors = {name: relative_rms(got[name], want[name]) for name in want}
    assert all(error <= tolerance for error in errors.values()), errors


def assert_same_bits(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> None:
    for name in want:
        np.testing.assert_array_equal(got[name], want[name], err_msg=name)


@pytest.mark.parametrize("case", CUDA_ATTENTION_CASES, ids=lambda case: case.name)
def test_kernel_agrees_with_reference_in_and_out_of_place(
    backend: CudaAttention, case: Case
) -> None:
    inputs = case.inputs()
    got = backend.run(case.operator, inputs, case.attributes)
    check(case, got, run_reference(case.operator, inputs, case.attributes))
    same = backend.run(case.operator, inputs, case.attributes, in_place=True)
    assert_same_bits(same, got)


@pytest.mark.parametrize("time", [1, 2, 40])
@pytest.mark.parametrize("head_dim", [64, 80, 96, 128, 136, 255, 256])
@pytest.mark.parametrize("cache", ["float32", "float16", "bfloat16"])
def test_wide_heads_agree_with_reference(
    backend: CudaAttention, head_dim: int, time: int, cache: str
) -> None:
    sizes = AttentionSizes(time=time, query_heads=6, kv_heads=2, head_dim=head_dim, cache=cache)
    attributes = {"window": 70, "sinks": 5, "scale": head_dim**-0.5, "norm_epsilon": 1e-6}
    case = Case("wide_heads", sizes, attributes, 300)
    inputs = case.inputs()
    got = backend.run(case.operator, inputs, case.attributes)
    check(case, got, run_reference(case.operator, inputs, case.attributes))
    assert_same_bits(backend.run(case.operator, inputs, case.attributes, in_place=True), got)


@pytest.mark.parametrize("time", [0, 1, 7])
@pytest.mark.parametrize("cache", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("activation", ["float16", "bfloat16"])
def test_activations_of_16_bits_agree_with_reference_on_the_rounded_inputs(
    backend: CudaAttention, activation: str, cache: str, time: int
) -> None:
    sizes = AttentionSizes(time=time, query_heads=4, kv_heads=2, head_dim=64, cache=cache)
    case = Case("half_activations", sizes, named("head_norm_time_1").attributes, 40)
    inputs = case.inputs()
    inputs["qkv"] = inputs["qkv"].astype(activation)
    got = backend.run(case.operator, inputs, case.attributes)
    want = run_reference(case.operator, inputs, case.attributes)
    assert got["output"].dtype == inputs["qkv"].dtype
    assert relative_rms(got["output"], want["output"]) <= ACTIVATION_TOLERANCE[activation]
    for name in ("present_key", "present_value"):
        assert relative_rms(got[name], want[name]) <= CACHE_TOLERANCE[cache]


@pytest.mark.parametrize(("time", "position"), [(2, 300), (17, 3), (90, 0), (90, 300)])
@pytest.mark.parametrize("sink_logits", [False, True], ids=["plain", "sink_logits"])
@pytest.mark.parametrize("head_dim", [8, 64, 72, 80, 96, 120, 128, 184, 256])
@pytest.mark.parametrize("element", ["float16", "bfloat16"])
def test_matrix_instructions_agree_with_reference(
    backend: CudaAttention,
    element: str,
    head_dim: int,
    sink_logits: bool,
    time: int,
    position: int,
) -> None:
    sizes = AttentionSizes(time=time, query_heads=3, kv_heads=1, head_dim=head_dim, cache=element)
    sizes = replace(sizes, sink_logits=sink_logits)
    attributes = {"window": 70, "sinks": 5, "scale": head_dim**-0.5, "norm_epsilon": 1e-6}
    case = Case("matrix_instructions", sizes, attributes, position)
    inputs = case.inputs()
    inputs["qkv"] = inputs["qkv"].astype(element)
    got = backend.run(case.operator, inputs, case.attributes)
    want = run_reference(case.operator, inputs, case.attributes)
    assert relative_rms(got["output"], want["output"]) <= ACTIVATION_TOLERANCE[element]
    for name in ("present_key", "present_value"):
        assert relative_rms(got[name], want[name]) <= CACHE_TOLERANCE[element]
    assert_same_bits(backend.run(case.operator, inputs, case.attributes, in_place=True), got)


@pytest.mark.parametrize("element", ["float16", "bfloat16"])
@pytest.mark.parametrize("capability", [75, 80, 86, 89, 90, 120])
def test_every_card_runs_kernels_that_it_has(
    library: ShimLibrary, backend: CudaAttention, capability: int, element: str
) -> None:
    # The shim refuses a matrix instruction for bfloat16 on 7.5.
    sizes = AttentionSizes(time=40, query_heads=2, kv_heads=1, head_dim=64, cache=element)
    case = Case("cards", sizes, {"window": 30, "sinks": 3, "scale": 0.125}, 100)
    inputs = case.inputs()
    inputs["qkv"] = inputs["qkv"].astype(element)
    library.set_capability(capability)
    try:
        got = backend.run(case.operator, inputs, case.attributes)
    finally:
        library.set_capability(90)
    want = run_reference(case.operator, inputs, case.attributes)
    assert relative_rms(got["output"], want["output"]) <= ACTIVATION_TOLERANCE[element]


@pytest.mark.parametrize("time", [2, 17, 90])
@pytest.mark.parametrize("head_dim", [128, 136, 256])
def test_tiles_of_compute_capability_7_5_agree_with_reference(head_dim: int, time: int) -> None:
    backend = CudaAttention(
        ShimLibrary(build("attention_75", SOURCES, "-O1", "-DALLMEM_SHIM_ARCH=750"))
    )
    sizes = AttentionSizes(time=time, query_heads=3, kv_heads=1, head_dim=head_dim, cache="float16")
    attributes = {"window": 70, "sinks": 5, "scale": head_dim**-0.5, "norm_epsilon": 1e-6}
    case = Case("matrix_instructions", sizes, attributes, 300)
    inputs = case.inputs()
    inputs["qkv"] = inputs["qkv"].astype("float16")
    got = backend.run(case.operator, inputs, case.attributes)
    want = run_reference(case.operator, inputs, case.attributes)
    assert relative_rms(got["output"], want["output"]) <= ACTIVATION_TOLERANCE["float16"]


@pytest.mark.parametrize("position", [61, 62, 63, 64])
@pytest.mark.parametrize("element", ["float32", "float16"])
def test_tiles_that_end_beside_the_first_token_hide_what_lies_ahead(
    backend: CudaAttention, element: str, position: int
) -> None:
    sizes = AttentionSizes(time=3, query_heads=1, kv_heads=1, cache=element)
    attributes = {"window": 500, "sinks": 0, "scale": 0.35}
    case = Case("beside_the_first_token", sizes, attributes, position)
    inputs = case.inputs()
    inputs["qkv"] = inputs["qkv"].astype(element)
    inputs["qkv"].reshape(3, 3, 8)[1:, 2] = 40  # values that would stand out
    got = backend.run(case.operator, inputs, case.attributes)
    want = run_reference(case.operator, inputs, case.attributes)
    tolerance = ACTIVATION_TOLERANCE.get(element, TOLERANCE)
    assert relative_rms(got["output"][:, :1], want["output"][:, :1]) <= tolerance
    assert relative_rms(got["output"], want["output"]) <= tolerance


@pytest.mark.parametrize("group", [1, 2, 3, 4, 5, 9, 71])
@pytest.mark.parametrize("time", [1, 3])
@pytest.mark.parametrize("head_dim", [6, 8])
def test_any_number_of_query_heads_shares_a_key_head(
    backend: CudaAttention, group: int, time: int, head_dim: int
) -> None:
    sizes = AttentionSizes(batch=2, time=time, query_heads=2 * group, kv_heads=2, head_dim=head_dim)
    case = Case("groups", sizes, named("no_sinks").attributes, 20)
    inputs = case.inputs()
    got = backend.run(case.operator, inputs, case.attributes)
    check(case, got, run_reference(case.operator, inputs, case.attributes))


@pytest.mark.parametrize("cuts", [tuple(range(1, 30)), (1,), (29,), (4, 5, 13), (15, 16)], ids=str)
@pytest.mark.parametrize("cache", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("position", [0, 2, 50])
def test_result_does_not_depend_on_how_tokens_are_cut(
    backend: CudaAttention, cuts: tuple[int, ...], cache: str, position: int
) -> None:
    base = named("piece_longer_than_ring")
    attributes = {**base.attributes, "norm_epsilon": 1e-6}
    case = Case("cuts", AttentionSizes(time=30, head_dim=12, cache=cache), attributes, position)
    inputs = case.inputs()
    whole = backend.run(case.operator, inputs, case.attributes)
    parts = run_pieces(backend, case, inputs, cuts, in_place=True)
    # Keys are computed the same way in every cut; only sums of attention differ in their order.
    np.testing.assert_array_equal(parts["present_key"], whole["present_key"])
    np.testing.assert_array_equal(parts["present_value"], whole["present_value"])
    assert relative_rms(parts["output"], whole["output"]) <= TOLERANCE


@pytest.mark.parametrize("activation", ["float32", "float16"])
@pytest.mark.parametrize(
    "name",
    [
        "ring_at_6_time_4",
        "ring_at_6_time_1",
        "tiles_time_49",
        "half_full_ring_500",
        "piece_longer_than_ring",
    ],
)
def test_order_of_threads_and_blocks_does_not_change_a_bit(
    library: ShimLibrary, backend: CudaAttention, name: str, activation: str
) -> None:
    base = named(name)
    case = replace(base, sizes=replace(sizes_of(base), cache=activation))
    inputs = case.inputs()
    inputs["qkv"] = inputs["qkv"].astype(activation)
    want = backend.run(case.operator, inputs, case.attributes, in_place=True)
    for order in ORDERS:
        library.set_order(order)
        try:
            got = backend.run(case.operator, inputs, case.attributes, in_place=True)
        finally:
            library.set_order(0)
        assert_same_bits(got, want)


@pytest.mark.parametrize("time", [1, 6])
@pytest.mark.parametrize("cache", ["float32", "float16"])
def test_tensors_off_their_alignment_give_the_same_keys(
    library: ShimLibrary, backend: CudaAttention, time: int, cache: str
) -> None:
    case = Case(
        "misaligned",
        AttentionSizes(time=time, head_dim=64, cache=cache),
        named("no_sinks").attributes,
        20,
    )
    inputs = case.inputs()
    want = backend.run(case.operator, inputs, case.attributes)
    got = CudaAttention(library, offset=8).run(case.operator, inputs, case.attributes)
    for name in ("present_key", "present_value"):
        np.testing.assert_array_equal(got[name], want[name], err_msg=name)
    assert relative_rms(got["output"], want["output"]) <= TOLERANCE


@pytest.mark.parametrize("time", [1, 6, 40])
@pytest.mark.parametrize("position", [0, 3, 31])
def test_slots_that_nobody_has_written_are_never_looked_at(
    backend: CudaAttention, time: int, position: int
) -> None:
    case = Case("unwritten", AttentionSizes(time=time), {**named("no_sinks").attributes}, position)
    case = replace(case, attributes={**case.attributes, "window": 30, "sinks": 5})
    inputs = case.inputs()
    for name in ("past_key", "past_value"):
        inputs[name][:, :, position:] = np.nan
    got = backend.run(case.operator, inputs, case.attributes)
    assert np.isfinite(got["output"]).all()


@pytest.mark.parametrize("time", [1, 3])
def test_nan_in_a_query_reaches_the_output_of_its_head_only(
    backend: CudaAttention, time: int
) -> None:
    case = with_time(named("no_sinks"), time)
    inputs = case.inputs()
    inputs["qkv"][0, time - 1, 3] = np.nan  # the last token's first query head
    got = backend.run(case.operator, inputs, case.attributes)["output"].reshape(time, 4, 8)
    assert np.isnan(got[time - 1, 0]).all()
    assert np.isfinite(got[:, 1:]).all()
    assert np.isfinite(got[: time - 1]).all()


@pytest.mark.parametrize("time", [1, 6])
@pytest.mark.parametrize("cache", ["float32", "float16"])
def test_ring_keeps_infinity_nan_and_subnormals(
    backend: CudaAttention, time: int, cache: str
) -> None:
    case = Case(
        "special_values",
        AttentionSizes(time=time, cache=cache, rotary_half=0),
        named("no_sinks").attributes,
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


@pytest.mark.parametrize("position", [-1, -(2**63), 2**62, 2**63 - 1])
@pytest.mark.parametrize("time", [1, 6])
def test_position_outside_its_range_touches_no_memory_but_the_operators(
    backend: CudaAttention, time: int, position: int
) -> None:
    case = replace(with_time(named("more_sinks_than_tokens"), time), position=position)
    got = backend.run(case.operator, case.inputs(), case.attributes)
    assert np.isfinite(got["output"]).all()


@pytest.mark.parametrize("time", [6, 90])
@pytest.mark.parametrize("element", ["float32", "float16"])
def test_nan_in_a_key_stays_with_the_tokens_that_see_it(
    backend: CudaAttention, element: str, time: int
) -> None:
    sizes = AttentionSizes(batch=2, time=time, head_dim=64, cache=element)
    case = Case("nan_key", sizes, {"window": 500, "sinks": 2, "scale": 0.125}, 50)
    inputs = case.inputs()
    inputs["qkv"] = inputs["qkv"].astype(element)
    heads = inputs["qkv"].reshape(2, time, 8, 64)
    heads[0, time - 2, 4] = np.nan  # key head 0
    heads[0, time - 2, 7] = np.nan  # value head 1
    got = backend.run(case.operator, inputs, case.attributes)["output"].reshape(2, time, 4, 64)
    assert np.isnan(got[0, time - 2 :]).all()
    assert np.isfinite(got[0, : time - 2, :2]).all()
    assert np.isfinite(got[1]).all()
