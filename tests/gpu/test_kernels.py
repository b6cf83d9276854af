"""Both operators' CUDA kernels on a device, against the float64 reference."""

from __future__ import annotations

import pytest
from kernel_checks import (
    HEAD_DIMS,
    cases_in,
    check_against_reference,
    check_captured_steps,
    check_cuts,
    check_head_dim,
    check_large,
    split_cases,
)

ELEMENTS = ("float32", "float16", "bfloat16")
pytestmark = pytest.mark.gpu


def named(case: object) -> str:
    return f"{case.operator.name}-{case.name}"  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def bfloat16_is_known_to_numpy(request: pytest.FixtureRequest) -> None:
    if "bfloat16" in request.node.callspec.params.values():
        pytest.importorskip("ml_dtypes", reason="NumPy needs ml_dtypes for bfloat16")


@pytest.mark.parametrize(
    ("element", "case"),
    [
        pytest.param(element, case, id=f"{element}-{named(case)}")
        for element in ELEMENTS
        for case in cases_in(element)
    ],
)
def test_kernel_agrees_with_reference_in_and_out_of_place_and_repeats_to_the_bit(
    device_backend, element, case
) -> None:
    check_against_reference(device_backend, case, element)


@pytest.mark.parametrize("head_dim", HEAD_DIMS)
@pytest.mark.parametrize("element", ELEMENTS)
def test_every_width_of_heads_agrees_with_reference(device_backend, element, head_dim) -> None:
    check_head_dim(device_backend, element, head_dim)


@pytest.mark.parametrize("element", ELEMENTS)
def test_sizes_of_a_real_model_agree_with_reference(device_backend, element) -> None:
    check_large(device_backend, element)


@pytest.mark.parametrize("cuts", [tuple(range(1, 30)), (1,), (29,), (4, 5, 13), (15, 16)], ids=str)
@pytest.mark.parametrize("which", [0, 1], ids=["attention", "memory"])
@pytest.mark.parametrize("element", ELEMENTS)
def test_result_does_not_depend_on_how_tokens_are_cut(device_backend, element, which, cuts) -> None:
    check_cuts(device_backend, split_cases(element)[which], element, cuts)


@pytest.mark.parametrize("which", [0, 1], ids=["attention", "memory"])
@pytest.mark.parametrize("element", ELEMENTS)
def test_captured_launch_moves_on_with_the_position_on_the_device(
    device_backend, element, which
) -> None:
    check_captured_steps(device_backend, split_cases(element)[which], element, steps=200)
