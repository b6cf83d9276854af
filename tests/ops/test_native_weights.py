"""Inputs that are weights of the model are looked up once, and mean the same as any others."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from cases import Arrays, AttentionSizes, Case, MemorySizes
from native import Native, native, node_model
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument
from sessions import asleep

from allmem_ops import library

CASES = {
    "attention": (
        Case("weights", AttentionSizes(), {"window": 5, "sinks": 3, "scale": 0.5}, 4),
        ("inverse_frequencies", "query_norm", "key_norm"),
    ),
    "memory": (
        Case("weights", MemorySizes(), {"chunk": 8}, 2),
        ("conv_weight", "norm_gain", "initial_weights", "initial_norms"),
    ),
}


@pytest.fixture(scope="module")
def backend() -> Native:
    return native()


def with_weights(case: Case, inputs: Arrays, weights: tuple[str, ...]) -> Arrays:
    """What the node gives, twice over in one session, if these inputs are part of the model."""
    options = asleep()
    library.register(options)
    session = onnxruntime.InferenceSession(
        node_model(case.operator, inputs, case.attributes, weights),
        options,
        providers=["CPUExecutionProvider"],
    )
    names = [t.name for t in case.operator.outputs]
    fed = {name: array for name, array in inputs.items() if name not in weights}
    first, second = (session.run(names, fed) for _ in range(2))
    for name, one, other in zip(names, first, second, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=name)
    return dict(zip(names, second, strict=True))


@pytest.mark.parametrize("name", CASES)
def test_weight_counts_as_the_same_input_does(backend: Native, name: str) -> None:
    case, weights = CASES[name]
    inputs = case.inputs()
    want = backend.run(case.operator, inputs, case.attributes)
    got = with_weights(case, inputs, weights)
    for output in want:
        np.testing.assert_array_equal(got[output], want[output], err_msg=output)


@pytest.mark.parametrize("axes", [1, 9])
@pytest.mark.parametrize("name", CASES)
def test_misfitting_weight_is_refused_by_name(backend: Native, name: str, axes: int) -> None:
    case, weights = CASES[name]
    inputs = case.inputs()
    wrong = weights[-1]
    inputs[wrong] = np.ones((3,) if axes == 1 else (1,) * axes, np.float32)
    with pytest.raises(InvalidArgument) as refusal:
        with_weights(case, inputs, weights)
    for word in (case.operator.name, wrong, "[3]" if axes == 1 else "9 axes"):
        assert word in str(refusal.value)
