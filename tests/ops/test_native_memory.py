"""TTTMemory of the native library against the float64 reference."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from cases import Case, MemorySizes, relative_rms, run_pieces, run_reference
from memory_cases import MEMORY_CASES
from native import Native, available_cpu_paths, native

TOLERANCE = 2e-6
"""Float32 products of depth 128 at most, in a chain of three: measured errors are 1e-7 to 5e-7."""


@pytest.fixture(scope="module", params=["avx512", "avx2", "generic"])
def backend(request: pytest.FixtureRequest) -> Iterator[Native]:
    made = native()
    if request.param not in available_cpu_paths():
        pytest.skip(f"this CPU cannot run the {request.param} kernels")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALLMEM_CPU", request.param)
        yield made


@pytest.mark.parametrize("case", MEMORY_CASES, ids=lambda case: case.name)
def test_kernel_agrees_with_reference_in_and_out_of_place(backend: Native, case: Case) -> None:
    inputs = case.inputs()
    kept = {name: array.copy() for name, array in inputs.items()}
    want = run_reference(case.operator, inputs, case.attributes)
    got = backend.run(case.operator, inputs, case.attributes)
    errors = {name: relative_rms(got[name], want[name]) for name in want}
    assert all(error <= TOLERANCE for error in errors.values()), errors
    for name, array in kept.items():
        np.testing.assert_array_equal(inputs[name], array, err_msg=f"{name} was written to")
    same = backend.run(case.operator, inputs, case.attributes, in_place=True)
    for name in got:
        np.testing.assert_array_equal(same[name], got[name], err_msg=name)


def streamed(attributes: dict[str, object], time: int = 48) -> Case:
    return Case(
        "streamed",
        MemorySizes(time=time, memory_dim=12, hidden=20),
        {"chunk": 16, **attributes},
        0,
        special="blank_state",
    )


@pytest.mark.parametrize("cuts", [(), tuple(range(1, 48)), (1,), (3, 10, 20, 31, 33)], ids=str)
@pytest.mark.parametrize("loss", ["neg_dot", "l2"])
def test_result_does_not_depend_on_how_tokens_are_cut(
    backend: Native, cuts: tuple[int, ...], loss: str
) -> None:
    case = streamed({"inner_loss": loss})
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


def test_number_of_threads_does_not_change_a_bit(backend: Native) -> None:
    for name in ("tiles_time_400", "dim_64_hidden_128_time_1", "batch_of_three_time_6"):
        case = next(c for c in MEMORY_CASES if c.name == name)
        inputs = case.inputs()
        one = Native(threads=1).run(case.operator, inputs, case.attributes)
        two = backend.run(case.operator, inputs, case.attributes)
        for output in one:
            np.testing.assert_array_equal(one[output], two[output], err_msg=f"{name} {output}")


@pytest.mark.parametrize("time", [1, 6])
def test_nan_in_a_token_reaches_output_and_gradient_of_its_head(backend: Native, time: int) -> None:
    case = Case("nan", MemorySizes(time=time), {"chunk": 16}, 3)
    inputs = case.inputs()
    inputs["qkv"][0, -1, 16] = np.nan  # key channel 0, head 0
    got = backend.run(case.operator, inputs, case.attributes)
    assert np.isfinite(got["output"]).all()  # reads use queries alone
    assert np.isnan(got["present_gradient"][0, 0]).any()
    assert np.isfinite(got["present_gradient"][0, 1]).all()


@pytest.mark.parametrize("time", [1, 6])
def test_nan_in_the_weights_is_not_hidden_by_their_normalization(
    backend: Native, time: int
) -> None:
    case = Case("nan", MemorySizes(time=time), {"chunk": 16, "norm_schedule": "post"}, 16 - time)
    inputs = case.inputs()
    inputs["past_weights"][0, 0, :, 2, 3] = np.nan
    got = backend.run(case.operator, inputs, case.attributes)
    for matrix in range(3):
        assert np.isnan(got["present_weights"][0, 0, matrix]).any()
    assert np.isnan(got["output"].reshape(time, 2, 8)[:, 0]).all()
