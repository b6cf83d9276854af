"""What is asked of a GPU, rehearsed on the CPU: the same checks, with the shim for a device.

It proves the harness and the C interface, and of the kernels only what the shim's own tests prove.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sanitized_cases
from attention_cases import CUDA_ATTENTION_CASES
from cases import Case
from cuda_device import CudaDevice
from kernel_checks import (
    HEAD_DIMS,
    cases_in,
    check_against_reference,
    check_captured_steps,
    check_cuts,
    check_head_dim,
    split_cases,
)
from memory_cases import MEMORY_CASES

from allmem_ops.kernel_library import KernelLibrary

ELEMENTS = ("float32", "float16", "bfloat16")
NAMES = ("ring_at_8_time_9", "position_2_to_33_time_1", "no_token", "chunk_at_4_time_2")


@pytest.fixture(scope="module")
def rehearsal(shim_kernels: Path) -> CudaDevice:
    return CudaDevice(KernelLibrary(shim_kernels), "cpu")


def chosen(element: str) -> Iterator[Case]:
    return (case for case in cases_in(element) if case.name in NAMES)


@pytest.mark.parametrize("element", ELEMENTS)
def test_cases_agree_with_reference_through_the_c_interface(
    rehearsal: CudaDevice, element: str
) -> None:
    cases = list(chosen(element))
    assert len(cases) == len(NAMES)
    for case in cases:
        check_against_reference(rehearsal, case, element)


@pytest.mark.parametrize("head_dim", HEAD_DIMS)
def test_every_width_of_heads_agrees_with_reference(rehearsal: CudaDevice, head_dim: int) -> None:
    check_head_dim(rehearsal, "float16", head_dim)


@pytest.mark.parametrize("which", [0, 1], ids=["attention", "memory"])
def test_cuts_and_single_steps_agree(rehearsal: CudaDevice, which: int) -> None:
    case = split_cases("bfloat16")[which]
    check_cuts(rehearsal, case, "bfloat16", (4, 5, 13))
    check_captured_steps(rehearsal, case, "bfloat16", steps=40)


def test_a_wrong_result_is_noticed(rehearsal: CudaDevice) -> None:
    case = next(chosen("float32"))
    inputs = case.inputs()
    inputs["qkv"][0, 0, 0] += 0.01

    class Wrong:
        def run(self, operator, _inputs, attributes, *, in_place=False):  # type: ignore[no-untyped-def]
            return rehearsal.run(operator, inputs, attributes, in_place=in_place)

    with pytest.raises(AssertionError):
        check_against_reference(Wrong(), case, "float32")


def test_every_shared_case_is_asked_of_a_device() -> None:
    assert len(cases_in("float32")) == len(CUDA_ATTENTION_CASES) + len(MEMORY_CASES)
    left_out = len(cases_in("float32")) - len(cases_in("float16"))
    assert left_out == 2  # see kernel_checks.SHARPENED


def test_every_case_for_the_sanitizer_exists_and_runs(rehearsal: CudaDevice) -> None:
    ran = sanitized_cases.run(rehearsal)
    assert sorted(ran) == sorted([*sanitized_cases.NAMES] * len(sanitized_cases.ELEMENTS))
