"""The self-check finds a kernel that is wrong, and the doctor never raises."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from allmem_ops import library
from allmem_ops.reference import sliding_window_attention, ttt_memory
from allmem_ops.reference.experts import expert_matmul
from allmem_ops.reference.product import quantized_matmul
from allmem_ops.schema import DOMAIN, KNOWN
from allmem_runtime.engine.devices import Device
from allmem_runtime.errors import OperatorLibraryError
from allmem_runtime.health import doctor
from allmem_runtime.health.one_node import one_node_model
from allmem_runtime.health.selfcheck import TOLERANCE, operator_error

Arrays = Mapping[str, NDArray[Any]]
REFERENCES = {"SlidingWindowAttention": sliding_window_attention, "TTTMemory": ttt_memory}
CPU = Device("cpu", 0, "")


def reference(model: bytes, inputs: Arrays) -> list[NDArray[Any]]:
    """Runs the model with the reference itself, as the file says, not as the test means."""
    (node,) = onnx.load_from_string(model).graph.node
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    attributes = {k: v.decode() if isinstance(v, bytes) else v for k, v in attributes.items()}
    arguments: dict[str, Any] = dict(inputs)
    if node.op_type == "QuantisedMatMul":
        return list(quantized_matmul(**arguments, **attributes))
    if node.op_type == "ExpertMatMul":
        return [expert_matmul(**arguments, **attributes)]
    arguments["position"] = int(inputs["position"][0])
    return list(REFERENCES[node.op_type](**arguments, **attributes))


@pytest.mark.parametrize("name", KNOWN)
def test_a_right_operator_passes(name: str) -> None:
    assert operator_error(name, reference) < 1e-6


@pytest.mark.parametrize("name", KNOWN)
def test_any_wrong_output_is_found(name: str) -> None:
    for index in range(len(KNOWN[name].outputs)):

        def wrong(model: bytes, inputs: Arrays, index: int = index) -> list[NDArray[Any]]:
            outputs = reference(model, inputs)
            if index < len(outputs):  # there are more in another case
                outputs[index] = outputs[index] * 1.01 + 0.01
            return outputs

        assert operator_error(name, wrong) > TOLERANCE


@pytest.mark.parametrize("name", KNOWN)
def test_an_output_that_is_not_finite_is_no_agreement(name: str) -> None:
    def broken(model: bytes, inputs: Arrays) -> list[NDArray[Any]]:
        return [np.full_like(value, np.nan) for value in reference(model, inputs)]

    assert not operator_error(name, broken) <= TOLERANCE


def test_the_hand_written_model_is_valid_onnx() -> None:
    data = one_node_model(
        "Thing",
        "some.domain",
        3,
        {"a": np.zeros((2, 300), np.float16), "b": np.zeros((1,), np.int64)},
        [("c", "float32")],
        {"whole": -7, "number": 0.5, "text": "größer"},
    )
    model = onnx.load_from_string(data)
    assert {o.domain: o.version for o in model.opset_import} == {"": 17, "some.domain": 3}
    (node,) = model.graph.node
    assert (node.op_type, node.domain) == ("Thing", "some.domain")
    assert (list(node.input), list(node.output)) == (["a", "b"], ["c"])
    values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    assert values == {"whole": -7, "number": 0.5, "text": "größer".encode()}
    first = model.graph.input[0].type.tensor_type
    assert [d.dim_value for d in first.shape.dim] == [2, 300]
    assert first.elem_type == onnx.TensorProto.FLOAT16
    assert DOMAIN != "some.domain"


def statuses(monkeypatch: pytest.MonkeyPatch, model: Path | None = None) -> dict[str, str]:
    monkeypatch.setattr(doctor, "probe_cuda", lambda index: "there is none")
    return {check.name: check.status for check in doctor.examine(model)}


def with_library(monkeypatch: pytest.MonkeyPatch) -> None:
    info = library.LibraryInfo(Path("liballmem_ops.so"), "0.1.0", 1, "avx2")
    monkeypatch.setattr(library, "check_library", lambda: info)


def test_a_missing_library_is_a_warning_and_an_unusable_one_a_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(error: Exception) -> None:
        def check() -> None:
            raise error

        monkeypatch.setattr(library, "check_library", check)

    fail(library.LibraryNotFound("none there"))
    assert statuses(monkeypatch)["operators"] == "warn"
    fail(library.LibraryVersionError("of another version"))
    assert statuses(monkeypatch)["operators"] == "fail"


def test_a_right_library_is_ok_a_wrong_one_fails_and_one_that_does_not_run_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_library(monkeypatch)
    titles = [f"{name} on cpu" for name in KNOWN]

    def right(model: bytes, inputs: Arrays, **_: Any) -> list[NDArray[Any]]:
        return reference(model, inputs)

    def wrong(model: bytes, inputs: Arrays, **_: Any) -> list[NDArray[Any]]:
        return [value * 2 for value in reference(model, inputs)]

    def stuck(model: bytes, inputs: Arrays, **_: Any) -> list[NDArray[Any]]:
        raise OperatorLibraryError("does not run", "Reinstall.")

    for run, expected in ((right, "ok"), (wrong, "fail"), (stuck, "fail")):
        monkeypatch.setattr(doctor, "run_once", run)
        found = statuses(monkeypatch)
        assert [found[title] for title in titles] == [expected] * len(KNOWN)


def test_a_missing_model_fails_without_raising(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert statuses(monkeypatch, tmp_path / "none")["model"] == "fail"


def test_the_library_of_this_installation_agrees_with_the_reference() -> None:
    try:
        path = library.check_library().path
    except library.LibraryNotFound:
        pytest.skip("no native library is built")
    from functools import partial

    from allmem_runtime.engine.probe import run_once

    for name in KNOWN:
        assert operator_error(name, partial(run_once, device=CPU, library=path)) < TOLERANCE
