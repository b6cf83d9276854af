"""What is asked of the kernels on a device, as plain functions of a backend.

The same functions run on the CPU, through the shim, in ``test_rehearsal.py``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from attention_cases import CUDA_ATTENTION_CASES
from cases import (
    Arrays,
    AttentionSizes,
    Backend,
    Case,
    MemorySizes,
    relative_rms,
    run_pieces,
    run_reference,
)
from cuda_device import CudaDevice, to_array
from memory_cases import MEMORY_CASES
from numpy.typing import NDArray

TOLERANCE = {"float32": 2e-6, "float16": 2e-3, "bfloat16": 1e-2}
"""Float32 sums of a few hundred terms; the 16-bit types round the output itself, by up to 5e-4
and 4e-3, and matrix instructions round queries and weights as well."""

HEAD_DIMS = (64, 80, 96, 128, 256)

MANTISSA = {"float16": 10, "bfloat16": 7}
OTHER_NEIGHBOR = 1 / 100
"""The reference rounds keys from float64, the kernels from float32: about one key in 3000 lies so
close to a border that it goes to the other neighbor; of small keys, which are a difference of
large numbers, more do. Each may be one step away, and few may be."""

SHARPENED = "scale_large"
"""A scale of 3 turns the rounding of a query to 16 bits into a few hundredths in the exponent of
the softmax, which is no error of the kernels; these cases are for float32."""


def cases_in(element: str) -> list[Case]:
    """The shared cases that say something in a type of activations."""
    if element == "float32":
        return [*CUDA_ATTENTION_CASES, *MEMORY_CASES]
    kept = [case for case in CUDA_ATTENTION_CASES if not case.name.startswith(SHARPENED)]
    # The ring takes the type of the activations, as an exported model has it.
    return [*(replace(c, sizes=replace(c.sizes, cache=element)) for c in kept), *MEMORY_CASES]


def inputs_in(case: Case, element: str) -> Arrays:
    """The inputs with activations rounded to a type, which the reference then sees too."""
    if element == "bfloat16":
        import ml_dtypes  # noqa: F401  (makes the type known to NumPy by its name)

    inputs = case.inputs()
    if element != "float32":
        kind = np.dtype(element)
        for name in ("qkv", "control"):
            if name in inputs:
                inputs[name] = inputs[name].astype(kind)
    return inputs


def tolerances(case: Case, element: str) -> dict[str, float]:
    """Largest relative RMS by output; states of the memory are float32 whatever comes in."""
    bounds = {t.name: TOLERANCE["float32"] for t in case.operator.outputs}
    bounds["output"] = TOLERANCE[element]
    if isinstance(case.sizes, AttentionSizes) and case.sizes.cache != "float32":
        del bounds["present_key"], bounds["present_value"]  # see check_rounded
        # A key that was rounded the other way is met by every query.
        bounds["output"] = max(bounds["output"], 2e-5)
    return bounds


def check_rounded(got: NDArray[Any], want: NDArray[Any], element: str) -> None:
    """Keys or values kept in 16 bits: equal but for a few, which are the next number."""
    truth = want.astype(np.float64)
    error = np.abs(got.astype(np.float64) - truth)
    _, exponent = np.frexp(truth)
    step = np.ldexp(1.0, np.maximum(exponent - 1, -14) - MANTISSA[element])
    size = np.sqrt(np.mean(truth**2)) if truth.size else 0.0
    assert (error <= step + TOLERANCE["float32"] * size).all(), (error / step).max()
    assert np.count_nonzero(error) <= max(2, OTHER_NEIGHBOR * error.size), np.count_nonzero(error)


def check_against_reference(backend: Backend, case: Case, element: str) -> None:
    """In and out of place, and a second run to the last bit."""
    inputs = inputs_in(case, element)
    want = run_reference(case.operator, inputs, case.attributes)
    got = backend.run(case.operator, inputs, case.attributes)
    bounds = tolerances(case, element)
    errors = {name: relative_rms(got[name], want[name]) for name in bounds}
    assert all(errors[name] <= bounds[name] for name in bounds), errors
    if isinstance(case.sizes, AttentionSizes) and case.sizes.cache != "float32":
        for name in ("present_key", "present_value"):
            check_rounded(got[name], want[name], case.sizes.cache)
    for in_place in (True, False):
        again = backend.run(case.operator, inputs, case.attributes, in_place=in_place)
        for name in got:
            np.testing.assert_array_equal(again[name], got[name], err_msg=f"{name} {in_place=}")


def split_cases(element: str) -> list[Case]:
    """One case of each operator that is cut in many ways."""
    attention = Case(
        "cut",
        AttentionSizes(time=30, head_dim=16, cache=element),
        {"window": 7, "sinks": 2, "scale": 0.25, "norm_epsilon": 1e-6},
        50,
    )
    memory = Case("cut", MemorySizes(time=30, memory_dim=16, hidden=32), {"chunk": 32}, 2**40)
    return [attention, memory]


def check_cuts(backend: Backend, case: Case, element: str, cuts: tuple[int, ...]) -> None:
    """A piece cut in parts, in place, against the whole."""
    inputs = inputs_in(case, element)
    whole = backend.run(case.operator, inputs, case.attributes)
    parts = run_pieces(backend, case, inputs, cuts, in_place=True)
    for name, bound in tolerances(case, element).items():
        # Each side may lie that far from the truth.
        assert relative_rms(parts[name], whole[name]) <= 2 * bound, name
    for name in ("present_key", "present_value"):
        if name in whole:  # computed and rounded alike, whatever the cuts
            np.testing.assert_array_equal(parts[name], whole[name], err_msg=name)


def check_captured_steps(backend: CudaDevice, case: Case, element: str, steps: int) -> None:
    """One token again and again: a captured launch at every position against plain launches.

    The position is a tensor, so the replayed launch must move on with it, past the borders of
    ring and chunk.
    """
    case = replace(case, sizes=replace(case.sizes, time=1), position=0)
    inputs = inputs_in(case, element)
    for tensor in case.operator.state:
        inputs[tensor.name] = np.zeros_like(inputs[tensor.name])
    plain, captured = (
        backend.bind(case.operator, inputs, case.attributes, in_place=True) for _ in range(2)
    )
    states = [t.name for t in case.operator.state]
    replay = captured.launch
    if backend.device.type == "cuda":
        captured.launch()  # code is loaded at the first launch, which no capture allows
        torch.cuda.synchronize()
        for name in states:
            captured.tensors[name].zero_()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured.launch()
        replay = graph.replay
    generator = torch.Generator().manual_seed(0)
    for position in range(steps):
        token = torch.randn(plain.tensors["qkv"].shape, generator=generator)
        for bound in (plain, captured):
            bound.tensors["position"].fill_(position)
            bound.tensors["qkv"].copy_(token)
        plain.launch()
        replay()
        assert torch.equal(plain.tensors["output"], captured.tensors["output"]), position
    for name in states:
        np.testing.assert_array_equal(
            to_array(plain.tensors[name]), to_array(captured.tensors[name]), err_msg=name
        )


def check_head_dim(backend: Backend, element: str, head_dim: int) -> None:
    """A piece of several tiles of keys, and one token: each width has kernels of its own."""
    attributes = {"window": 70, "sinks": 5, "scale": head_dim**-0.5, "norm_epsilon": 1e-6}
    for time in (90, 1):
        sizes = AttentionSizes(
            time=time, query_heads=6, kv_heads=2, head_dim=head_dim, cache=element
        )
        case = Case(f"head_dim_{head_dim}", sizes, attributes, 300)
        check_against_reference(backend, case, element)


def check_large(backend: Backend, element: str) -> None:
    """Sizes of a real model, which no shared case has: many blocks at once."""
    sizes = AttentionSizes(time=300, query_heads=16, kv_heads=8, head_dim=128, cache=element)
    attributes = {"window": 1024, "sinks": 64, "scale": 128**-0.5, "norm_epsilon": 1e-6}
    check_against_reference(backend, Case("large", sizes, attributes, 9000), element)
    memory = MemorySizes(time=256, heads=8, memory_dim=64, hidden=128)
    check_against_reference(backend, Case("large", memory, {"chunk": 256}, 512), element)
