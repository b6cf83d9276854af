"""TTTMemory's CUDA kernels, run on the CPU through the shim, against the float64 reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pytest
from cases import Arrays, Backend, Case, MemorySizes, relative_rms, run_pieces, run_reference
from cuda_memory import CORES, ELEMENTS, SOURCES, run_memory
from cuda_shim import ORDERS, ShimLibrary, build
from memory_cases import MEMORY_CASES

from allmem_ops.contract import Operator, Value

TOLERANCE = 2e-6
"""Float32 products of depth 128 at most, in a chain of three: measured are 3.2e-7 at most."""

OUTPUT_TOLERANCE = {"float16": 2e-3, "bfloat16": 1e-2}
"""The output is rounded to the activations' type, by up to 5e-4 and 4e-3 of each number."""

NAMES = {case.name: case for case in MEMORY_CASES}


class Memory:
    """The kernels for one compute capability as a backend."""

    def __init__(self, library: ShimLibrary) -> None:
        self._library = library

    def run(
        self,
        operator: Operator,
        inputs: Arrays,
        attributes: Mapping[str, Value],
        *,
        in_place: bool = False,
    ) -> Arrays:
        return run_memory(self._library, operator, inputs, attributes, in_place=in_place)


@pytest.fixture(scope="module", params=CORES.values(), ids=CORES)
def library(request: pytest.FixtureRequest) -> Iterator[ShimLibrary]:
    library = ShimLibrary(build("memory", SOURCES, "-O1"))
    library.set_capability(request.param)
    yield library
    library.set_capability(90)


@pytest.fixture
def backend(library: ShimLibrary) -> Memory:
    return Memory(library)


@pytest.mark.parametrize("case", MEMORY_CASES, ids=lambda case: case.name)
def test_kernel_agrees_with_reference_in_and_out_of_place(backend: Backend, case: Case) -> None:
    inputs = case.inputs()
    want = run_reference(case.operator, inputs, case.attributes)
    got = backend.run(case.operator, inputs, case.attributes)
    errors = {name: relative_rms(got[name], want[name]) for name in want}
    assert all(error <= TOLERANCE for error in errors.values()), errors
    same = backend.run(case.operator, inputs, case.attributes, in_place=True)
    for name in got:
        np.testing.assert_array_equal(same[name], got[name], err_msg=name)


@pytest.mark.parametrize("time", [1, 6, 70])
@pytest.mark.parametrize("loss", ["neg_dot", "l2"])
@pytest.mark.parametrize(("dim", "hidden"), [(64, 200), (129, 65), (930, 3), (2, 2500)], ids=str)
def test_wide_and_narrow_heads_agree_with_reference(
    backend: Backend, dim: int, hidden: int, loss: str, time: int
) -> None:
    # Tiles of 64, slices of 32 rows and at most 64 of them, and heads too wide for the token form.
    sizes = MemorySizes(time=time, memory_dim=dim, hidden=hidden)
    case = Case("wide", sizes, {"chunk": 128, "inner_loss": loss}, 128 - time)
    inputs = case.inputs()
    want = run_reference(case.operator, inputs, case.attributes)
    got = backend.run(case.operator, inputs, case.attributes)
    errors = {name: relative_rms(got[name], want[name]) for name in want}
    # Sums of up to 2500 terms instead of 128.
    assert all(error <= 2 * TOLERANCE for error in errors.values()), errors


@pytest.mark.parametrize("time", [511, 512, 513, 1100])
@pytest.mark.parametrize("loss", ["neg_dot", "l2"])
def test_pieces_of_several_panels_agree_with_reference(
    backend: Backend, loss: str, time: int
) -> None:
    sizes = MemorySizes(time=time, heads=1, memory_dim=6, hidden=10)
    case = Case("panels", sizes, {"chunk": 1200, "inner_loss": loss}, 1200 - time)
    inputs = case.inputs()
    want = run_reference(case.operator, inputs, case.attributes)
    got = backend.run(case.operator, inputs, case.attributes, in_place=True)
    errors = {name: relative_rms(got[name], want[name]) for name in want}
    assert all(error <= TOLERANCE for error in errors.values()), errors


@pytest.mark.parametrize("time", [0, 1, 2, 16, 100, 300])
@pytest.mark.parametrize("element", ["float16", "bfloat16"])
def test_small_activations_change_the_output_by_their_rounding_alone(
    library: ShimLibrary, element: str, time: int
) -> None:
    sizes = MemorySizes(batch=2, time=time, memory_dim=20, hidden=40)
    case = Case("small", sizes, {"chunk": 300}, 300 - time)
    inputs = case.inputs()
    for name in ("qkv", "control"):  # the reference sees what the kernels see
        inputs[name] = inputs[name].astype(ELEMENTS[element]).astype(np.float32)
    want = run_reference(case.operator, inputs, case.attributes)
    got, same = (
        run_memory(
            library, case.operator, inputs, case.attributes, in_place=in_place, element=element
        )
        for in_place in (False, True)
    )
    assert relative_rms(got["output"], want["output"]) <= OUTPUT_TOLERANCE[element]
    for name in want:
        np.testing.assert_array_equal(same[name], got[name], err_msg=name)
        if name != "output":  # states are computed and kept in float32 whatever comes in
            assert relative_rms(got[name], want[name]) <= TOLERANCE, name


@pytest.mark.parametrize(
    "name",
    [
        "tiles_time_193",
        "dim_64_hidden_128_time_1",
        "dim_64_hidden_128_time_6",
        "batch_of_three_time_1",
        "clip_active_time_1",
        "inner_loss_l2_at_15_time_1",
        "post_normalized_l2_time_6",
        "read_norm_write_normalized_neg_dot_time_1",
        "kernel_9_time_2",
    ],
)
def test_order_of_threads_and_blocks_does_not_change_a_bit(library: ShimLibrary, name: str) -> None:
    # It would, if a barrier were missing or blocks of a launch needed each other's results.
    case = NAMES[name]
    inputs = case.inputs()
    want = run_memory(library, case.operator, inputs, case.attributes)
    for order in ORDERS:
        library.set_order(order)
        try:
            got = run_memory(library, case.operator, inputs, case.attributes, in_place=True)
        finally:
            library.set_order(0)
        for output in want:
            np.testing.assert_array_equal(got[output], want[output], err_msg=f"{output} {order}")


@pytest.mark.parametrize(
    ("capability", "matrices"),
    [(75, 0), (80, 1), (86, 0), (89, 0), (90, 1), (120, 0)],
)
def test_matrix_instructions_serve_the_cards_where_they_are_fast(
    capability: int, matrices: int
) -> None:
    # The twins cut sums where ordinary cores round them, so the two cores differ in last bits.
    library = ShimLibrary(build("memory", SOURCES, "-O1"))
    case = NAMES["dim_64_hidden_128_time_6"]
    bits = {}
    try:
        for chosen in (86, 90, capability):
            library.set_capability(chosen)
            outputs = run_memory(library, case.operator, case.inputs(), case.attributes)
            bits[chosen] = outputs["present_momentum"].tobytes()
    finally:
        library.set_capability(90)
    assert bits[86] != bits[90]
    assert bits[capability] == bits[90 if matrices else 86]


@pytest.mark.parametrize("cuts", [(), tuple(range(1, 48)), (1,), (3, 10, 20, 31, 33)], ids=str)
@pytest.mark.parametrize("loss", ["neg_dot", "l2"])
def test_result_does_not_depend_on_how_tokens_are_cut(
    backend: Backend, cuts: tuple[int, ...], loss: str
) -> None:
    sizes = MemorySizes(time=48, memory_dim=12, hidden=20)
    case = Case("streamed", sizes, {"chunk": 16, "inner_loss": loss}, 0, special="blank_state")
    inputs = case.inputs()
    edges = (16, 32)  # a piece may not cross a chunk
    whole = run_pieces(backend, case, inputs, edges)
    parts = run_pieces(backend, case, inputs, tuple(sorted({*cuts, *edges})), in_place=True)
    truth = run_pieces(
        type("Truth", (), {"run": staticmethod(run_reference)})(), case, inputs, edges
    )
    # Three chunks feed each other, so rounding grows a little from commit to commit.
    for name in whole:
        assert relative_rms(parts[name], whole[name]) <= 2 * TOLERANCE, name
        assert relative_rms(parts[name], truth[name]) <= 2 * TOLERANCE, name


@pytest.mark.parametrize("time", [1, 6])
def test_nan_in_a_token_reaches_output_and_gradient_of_its_head(
    backend: Backend, time: int
) -> None:
    case = Case("nan", MemorySizes(time=time), {"chunk": 16}, 3)
    inputs = case.inputs()
    inputs["qkv"][0, -1, 16] = np.nan  # key channel 0, head 0
    got = backend.run(case.operator, inputs, case.attributes)
    assert np.isfinite(got["output"]).all()  # reads use queries alone
    assert np.isnan(got["present_gradient"][0, 0]).any()
    assert np.isfinite(got["present_gradient"][0, 1]).all()


@pytest.mark.parametrize("time", [1, 6])
def test_nan_in_the_weights_is_not_hidden_by_their_normalization(
    backend: Backend, time: int
) -> None:
    case = Case("nan", MemorySizes(time=time), {"chunk": 16, "norm_schedule": "post"}, 16 - time)
    inputs = case.inputs()
    inputs["past_weights"][0, 0, :, 2, 3] = np.nan
    got = backend.run(case.operator, inputs, case.attributes)
    for matrix in range(3):
        assert np.isnan(got["present_weights"][0, 0, matrix]).any()
    assert np.isnan(got["output"].reshape(time, 2, 8)[:, 0]).all()
