"""A device is what was asked for, or an error; auto says what it chose and why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from allmem_runtime import DeviceError, UsageError
from allmem_runtime.engine import cuda_driver, probe
from allmem_runtime.engine.devices import Device, choose, misplaced, without_kernels


def works(index: int) -> str | None:
    return None


def fails(index: int) -> str | None:
    return f"no driver for {index}"


@pytest.mark.parametrize(
    ("wanted", "probe", "expected"),
    [
        ("cpu", works, "cpu"),
        ("cuda", works, "cuda:0"),
        ("cuda:3", works, "cuda:3"),
        ("auto", works, "cuda:0"),
        ("auto", fails, "cpu"),
    ],
)
def test_device_is_chosen(wanted: str, probe: Callable[[int], str | None], expected: str) -> None:
    assert str(choose(wanted, probe)) == expected


def test_auto_says_why_it_took_the_cpu() -> None:
    assert "no driver for 0" in choose("auto", fails).why


def test_cuda_that_cannot_be_had_is_an_error_with_a_remedy() -> None:
    with pytest.raises(
        DeviceError, match="CUDA device 1 cannot be used: no driver for 1"
    ) as caught:
        choose("cuda:1", fails)
    assert "--device cpu" in caught.value.hint


def test_int8_keys_and_values_run_on_the_cpu_or_are_refused_with_a_remedy() -> None:
    device = choose("auto", works, kv="int8")
    assert (device.name, "int8" in device.why) == ("cpu", True)
    assert choose("cpu", works, kv="int8").name == "cpu"
    with pytest.raises(DeviceError, match=r"int8, .* so not cuda:1") as caught:
        choose("cuda:1", works, kv="int8")
    assert "--kv-cache-dtype float16" in caught.value.hint


def test_products_of_our_own_run_on_the_cpu_or_are_refused_with_a_remedy() -> None:
    device = choose("auto", works, operators={"QuantisedMatMul": 1})
    assert (device.name, "QuantisedMatMul" in device.why) == ("cpu", True)
    assert choose("cpu", works, operators={"QuantisedMatMul": 1}).name == "cpu"
    with pytest.raises(DeviceError, match=r"QuantisedMatMul, .* so not cuda:1") as caught:
        choose("cuda:1", works, operators={"QuantisedMatMul": 1})
    assert "--matmul-kernel onnxruntime" in caught.value.hint
    assert choose("cuda:1", works, operators={"TTTMemory": 1}).name == "cuda"


@pytest.mark.parametrize(
    ("model", "remedy"),
    [
        ({"kv": "int8"}, "--kv-cache-dtype float16"),
        ({"operators": {"QuantisedMatMul": 1}}, "--matmul-kernel onnxruntime"),
        ({}, "Install the NVIDIA driver"),
    ],
)
def test_user_is_advised_only_where_there_is_a_card_to_use(
    model: dict[str, Any], remedy: str
) -> None:
    assert choose("auto", fails, **model).advice == ""
    advice = choose("auto", fails, lambda index: "Some card", **model).advice
    assert advice.startswith("Some card is not used. ") and remedy in advice
    for wanted in ("cpu", "auto", "cuda"):
        assert choose(wanted, works, lambda index: "Some card").advice == ""


def test_operators_that_nothing_runs_are_told_by_name() -> None:
    used = {"TTTMemory", "QuantisedMatMul"}
    plain = {"CPUExecutionProvider": ["MatMul", "ai.allmem:TTTMemory"]}
    whole = {"CPUExecutionProvider": ["ai.allmem:QuantisedMatMul", "ai.allmem:TTTMemory"]}
    assert without_kernels(used, plain) == ["QuantisedMatMul"]
    assert without_kernels(used, whole) == []
    assert without_kernels(used, {}) == [], "this ONNX Runtime does not tell"


@pytest.mark.parametrize("wanted", ["", "gpu", "CUDA", "cuda:", "cuda:-1", "cuda:1000", "cpu:0"])
def test_unknown_device_is_a_usage_error(wanted: str) -> None:
    with pytest.raises(UsageError, match="is no device"):
        choose(wanted, works)


def test_cpu_is_taken_without_trying_cuda() -> None:
    def never(index: int) -> str | None:
        raise AssertionError("CUDA was tried")

    assert choose("cpu", never).name == "cpu"


def test_probe_prints_nothing_and_answers(capfd: pytest.CaptureFixture[str]) -> None:
    problem = probe.probe_cuda(0)

    assert problem is None or problem
    assert capfd.readouterr() == ("", "")


def test_probe_of_a_build_without_cuda_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe.ort, "get_available_providers", lambda: ["CPUExecutionProvider"])

    assert "without CUDA" in (probe.probe_cuda(0) or "")


def test_probe_that_fails_gives_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA failure 35: driver too old.\nmore")

    monkeypatch.setattr(probe.ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(probe.ort, "InferenceSession", broken)
    monkeypatch.setattr(probe, "driver_problem", lambda: None)

    assert probe.probe_cuda(0) == "CUDA failure 35: driver too old"


def test_without_a_driver_no_library_of_cuda_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("libraries were loaded")

    monkeypatch.setattr(probe.ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(probe.ort, "preload_dlls", never, raising=False)
    monkeypatch.setattr(probe.ort, "InferenceSession", never)
    monkeypatch.setattr(cuda_driver, "_LIBRARY", "libno-such-driver.so.1")

    assert "libno-such-driver.so.1" in (probe.probe_cuda(0) or "")


@pytest.mark.parametrize(
    ("printed", "reason"),
    [
        ("Failed to load libcublasLt.so.13: no such file\nand more", "libcublasLt.so.13 is not"),
        ("something else\nand more", "something else"),
        ("", "do not load"),
    ],
)
def test_reason_names_the_library_that_is_missing(printed: str, reason: str) -> None:
    assert reason in probe._missing_library(printed)


@pytest.mark.parametrize(
    ("device", "on_cpu", "expected"),
    [
        ("cpu", ["MatMul", "ai.allmem:TTTMemory"], []),
        ("cuda", ["Shape", "Gather", "Reshape"], []),
        ("cuda", ["MatMul", "Shape"], ["MatMul"]),
        ("cuda", ["ai.allmem:TTTMemory"], ["ai.allmem:TTTMemory"]),
        ("cuda", ["com.microsoft:MatMulNBits"], ["com.microsoft:MatMulNBits"]),
    ],
)
def test_work_that_fell_back_to_the_cpu_is_found(
    device: str, on_cpu: list[str], expected: list[str]
) -> None:
    providers = {"CPUExecutionProvider": on_cpu, "CUDAExecutionProvider": ["Add"]}
    assert misplaced(Device(device, 0, ""), providers) == expected
