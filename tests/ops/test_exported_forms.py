"""The forms that exporters use, PyTorch operators and function bodies, against the reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attention_cases import ATTENTION_CASES
from cases import (
    ROUNDED_TOLERANCE,
    AttentionSizes,
    Backend,
    Case,
    check_int8_rings,
    relative_rms,
    run_pieces,
    run_reference,
)
from memory_cases import MEMORY_CASES
from portable import Portable
from torch_backend import Torch

from allmem_exporters.model.operators import ttt_memory
from allmem_exporters.model.operators.attention import sliding_window_attention
from allmem_exporters.onnx.attention_function import attention_function
from allmem_exporters.onnx.memory_function import memory_function

TOLERANCE = 5e-6
"""Float32 products and sums in the library's own order; measured errors reach 3e-6 where the
state is neither normalized nor clipped, and 1e-6 elsewhere."""

FLOAT16_TOLERANCE = 2e-5
"""As for the kernels: the reference rounds keys from float64, these from float32, and about one
key in 3000 falls to the other side of a rounding border."""

FORMS: dict[str, Backend] = {"torch": Torch(), "function body": Portable()}
CASES = (*ATTENTION_CASES, *MEMORY_CASES)


def limits(form: str, case: Case) -> str:
    """Why this form need not run the case; empty if it must."""
    if form == "torch":
        return ""
    time = case.sizes.time
    if time == 0:
        return "a body is given at least one token"
    if isinstance(case.sizes, AttentionSizes):
        window = case.attributes["window"]
        if time > (min(window) if isinstance(window, tuple) else int(window)):
            return "a body is given no more tokens than the window holds"
        if case.sizes.rotary_half == 0 or case.sizes.head_dim == 1:
            return "bodies are made for models with rotary embeddings"
    return ""


def supported(form: str) -> list[Case]:
    return [case for case in CASES if not limits(form, case)]


@pytest.mark.parametrize(
    ("form", "case"),
    [pytest.param(f, c, id=f"{f}-{c.name}") for f in FORMS for c in supported(f)],
)
def test_form_agrees_with_reference(form: str, case: Case) -> None:
    inputs = case.inputs()
    want = run_reference(case.operator, inputs, case.attributes)
    got = FORMS[form].run(case.operator, inputs, case.attributes)
    errors = {name: relative_rms(got[name], want[name]) for name in want}
    if case.cache == "int8":
        if check_int8_rings(got, want):
            assert errors.pop("output") <= ROUNDED_TOLERANCE
        del errors["present_key"], errors["present_value"]
    tolerance = FLOAT16_TOLERANCE if case.cache == "float16" else TOLERANCE
    assert all(error <= tolerance for error in errors.values()), errors


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("cuts", [(1, 2, 3), (4, 5, 7)], ids=str)
def test_result_does_not_depend_on_how_tokens_are_cut(form: str, cuts: tuple[int, ...]) -> None:
    for name in ("chunk_at_8_time_8", "sink_rope_clamped_time_6", "int8_time_6_dim_16"):
        case = next(case for case in CASES if case.name == name)
        inside = tuple(cut for cut in cuts if cut < case.sizes.time)
        inputs = case.inputs()
        whole = FORMS[form].run(case.operator, inputs, case.attributes)
        parts = run_pieces(FORMS[form], case, inputs, inside)
        for output in whole:
            assert relative_rms(parts[output], whole[output]) <= TOLERANCE, output


def test_few_cases_are_beyond_the_function_bodies() -> None:
    left_out = [case.name for case in CASES if limits("function body", case)]
    assert len(left_out) < len(CASES) // 8, left_out


def doubles(case: Case) -> list[torch.Tensor]:
    inputs = case.inputs()
    tensors = (torch.from_numpy(inputs[tensor.name]) for tensor in case.operator.inputs)
    return [t.double().requires_grad_() if t.is_floating_point() else t for t in tensors]


@pytest.mark.parametrize("name", ["sink_rope_clamped_time_6", "head_norm_time_6"])
def test_attention_gradients_agree_with_finite_differences(name: str) -> None:
    case = next(case for case in ATTENTION_CASES if case.name == name)
    assert torch.autograd.gradcheck(
        lambda *tensors: sliding_window_attention(*tensors, **case.attributes),
        doubles(case),
        fast_mode=True,
    )


@pytest.mark.parametrize(
    "name",
    ["chunk_at_4_time_2", "chunk_at_6_time_2", "read_norm_write_normalized_l2_time_6",
     "post_raw_neg_dot_time_6", "value_norm_l2_at_5_time_6"],
)  # fmt: skip
def test_memory_gradients_agree_with_finite_differences(name: str) -> None:
    case = next(case for case in MEMORY_CASES if case.name == name)
    assert torch.autograd.gradcheck(
        lambda *tensors: ttt_memory(*tensors, **case.attributes), doubles(case), fast_mode=True
    )


def test_pytorch_operators_pass_the_checks_of_torch_library() -> None:
    for case in (ATTENTION_CASES[5], MEMORY_CASES[3]):
        operator = {
            "SlidingWindowAttention": torch.ops.allmem.sliding_window_attention.default,
            "TTTMemory": torch.ops.allmem.ttt_memory.default,
        }[case.operator.name]
        values = case.operator.attribute_values(dict(case.attributes))
        for attribute in case.operator.attributes:
            if attribute.kind == "float":
                values[attribute.name] = float(values[attribute.name])
        torch.library.opcheck(
            operator,
            tuple(torch.from_numpy(array) for array in case.inputs().values()),
            values,
            test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
        )


def test_pytorch_memory_refuses_a_piece_across_a_boundary() -> None:
    case = next(case for case in MEMORY_CASES if case.name == "chunk_at_4_time_2")
    inputs = {**case.inputs(), "position": np.array([7], np.int64)}
    with pytest.raises(ValueError, match="2 tokens at position 7 crosses the boundary"):
        Torch().run(case.operator, inputs, case.attributes)


@pytest.mark.parametrize("make", [attention_function, memory_function])
def test_bodies_of_unknown_attributes_are_refused(make: object) -> None:
    sizes = (
        {"query_heads": 2, "kv_heads": 1, "head_dim": 4, "rotary_half": 2}
        if make is attention_function
        else {"heads": 1, "memory_dim": 4, "hidden": 8, "kernel": 2}
    )
    with pytest.raises(ValueError, match="unknown attribute 'color'"):
        make(attributes={"color": 1}, **sizes)  # type: ignore[operator]
