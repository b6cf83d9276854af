"""What tests marked ``gpu`` need of a machine; what is missing is said, with the remedy."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "ops"))

MODELS = "ALLMEM_GPU_MODELS"


@pytest.fixture(scope="session")
def device_backend() -> object:
    """The kernels on the device."""
    pytest.importorskip("torch", reason="PyTorch with CUDA is needed: pip install torch")
    import cuda_device

    from allmem_ops.kernel_library import Unavailable

    try:
        return cuda_device.cuda_device()
    except Unavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def shim_kernels() -> Path:
    """The library that runs the kernels on the CPU, with the same C interface."""
    from cuda_shim import CUDA, build

    sources = [*sorted(CUDA.glob("*.cu")), *sorted((CUDA / "entry").glob("*.cu"))]
    return build("kernels", tuple(str(path.relative_to(CUDA)) for path in sources), "-O1")


@pytest.fixture(scope="session")
def cuda_runtime() -> None:
    """ONNX Runtime with CUDA, and the operator library with the CUDA kernels."""
    from benchmarks.gpu.machine import runtime_problem

    problem = runtime_problem()
    if problem:
        pytest.skip(problem)


def _named(name: str) -> list[Path]:
    return [Path(p) for p in os.environ.get(name, "").split(os.pathsep) if p]


@pytest.fixture(scope="session", params=["tiny", "tiny_float16", "demo", "named"])
def model_dir(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exported models: a tiny one in two types of activations, the demo's, those that are named."""
    if request.param == "named":
        folders = _named(MODELS)
        if not folders:
            pytest.skip(f"{MODELS} names no exported model")
        return folders[0]
    if request.param == "demo":
        folder = Path(__file__).parents[2] / "demo" / "model"
        if not (folder / "allmem.json").is_file():
            pytest.skip("demo/model is not there: make model")
        return folder
    pytest.importorskip("onnxscript", reason="exporting needs onnxscript: pip install '.[export]'")
    from model_checks import write_tiny

    activations = "float16" if request.param == "tiny_float16" else "float32"
    return write_tiny(tmp_path_factory.mktemp(request.param) / "model", activations)
