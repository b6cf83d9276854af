"""Models whose integers QuantisedMatMul multiplies: where they run, and what is said of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from native_library import needs_library
from tiny import tiny_config, write_tiny_checkpoint

from allmem_exporters.onnx.export import export
from allmem_ops.library import LibraryError, check_library
from allmem_runtime import DeviceError, Model, OperatorLibraryError, load
from allmem_runtime import model as model_module
from allmem_runtime.engine import engine as step
from allmem_runtime.engine import preparing
from allmem_runtime.files.package import open_package
from allmem_runtime.files.user_cache import VARIABLE
from allmem_runtime.health import doctor

IDS = [(7 * i + 3) % 300 for i in range(40)]


@pytest.fixture(scope="module", params=["int8", "int4"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a table whose parts lie in the file of weights."""
    made = tmp_path_factory.mktemp("own-products")
    write_tiny_checkpoint(made / "checkpoint", tiny_config(hidden_size=64))
    export(made / "checkpoint", made / "model", weights=request.param, check=False)
    return made / "model"


def logits(model: Model) -> np.ndarray[Any, Any]:
    rows = model.session(undo=False).feed(IDS, "all")
    assert rows is not None
    return rows.copy()


@needs_library
def test_library_runs_the_products(folder: Path) -> None:
    model = load(folder, device="cpu")
    assert model.operators == "native"
    assert "ai.allmem:QuantisedMatMul" in model.engine.providers()["CPUExecutionProvider"]


def test_auto_takes_the_cpu_and_cuda_is_refused_with_a_remedy(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_module, "probe_cuda", lambda index: None)
    model = load(folder, device="auto", operators="portable")
    assert model.device.name == "cpu"
    with pytest.raises(DeviceError, match=r"QuantisedMatMul, .* so not cuda") as caught:
        load(folder, device="cuda")
    assert "--matmul-kernel onnxruntime" in caught.value.hint


@needs_library
def test_library_that_lacks_the_products_is_not_taken_for_one_that_has_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def inlined(session: Any) -> dict[str, list[str]]:
        return {"CPUExecutionProvider": ["Gemm", "ai.allmem:SlidingWindowAttention",
                                         "ai.allmem:TTTMemory"]}  # fmt: skip

    monkeypatch.setattr(step, "operators_by_provider", inlined)
    with pytest.raises(OperatorLibraryError, match="no kernels for QuantisedMatMul"):
        load(folder, device="cpu", operators="native")
    model = load(folder, device="cpu", operators="auto")
    assert model.operators == "portable"
    assert any("no kernels for QuantisedMatMul" in notice for notice in model.engine.notices)


@needs_library
def test_generic_kernels_are_told_to_be_slow(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLMEM_CPU", "generic")
    notices = load(folder, device="cpu", operators="native").engine.notices
    assert any("--matmul-kernel onnxruntime" in notice for notice in notices)


@needs_library
def test_all_instruction_sets_agree(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    for path in ("generic", "avx2", "avx512", "avx512vnni"):
        monkeypatch.setenv("ALLMEM_CPU", path)
        try:
            check_library()
        except LibraryError:
            continue
        found[path] = logits(load(folder, device="cpu", operators="native"))
    truth = found.pop("generic")
    for path, values in found.items():
        # An input that sums in another order take to another of its 255 levels makes 1e-3.
        assert np.linalg.norm(values - truth) < 5e-3 * np.linalg.norm(truth), path


@pytest.mark.parametrize("operators", ["portable", pytest.param("native", marks=needs_library)])
def test_prepared_weights_say_the_same_to_the_last_bit(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operators: str
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    package = open_package(shutil.copytree(folder, tmp_path / "model"))
    preparing.prepare(package, check_library().path if operators == "native" else None)
    options = {"device": "cpu", "operators": operators, "threads": 1}
    mapped = load(package.folder, **options)
    assert mapped.engine.prepared is not None
    assert mapped.engine.notices == []
    assert np.array_equal(logits(mapped), logits(load(package.folder, prepared=False, **options)))


@needs_library
def test_doctor_finds_no_fault_with_a_model_in_whole_numbers(folder: Path) -> None:
    found = {check.name: check for check in doctor.examine(folder)}
    assert found["QuantisedMatMul on cpu"].status == "ok"
    assert found["model, both"].status == "ok", found["model, both"].detail
