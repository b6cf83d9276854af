"""What this machine is, what is missing on it, and what it can do at most."""

from __future__ import annotations

import importlib
import platform
import shutil
import subprocess
from importlib import metadata

from allmem_runtime.quantities import format_bytes


def version(package: str) -> str:
    """Version of an installed package, or that there is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def driver() -> str:
    """The driver's version, as its own tool says it."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "nvidia-smi was not found"
    query = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, timeout=60)
    lines = done.stdout.split()
    return lines[0] if done.returncode == 0 and lines else "nvidia-smi sees no driver"


def describe() -> dict[str, str]:
    """Device, driver and versions."""
    found = {
        "python": platform.python_version(),
        "driver": driver(),
        **{name: version(name) for name in ("torch", "triton", "transformers", "numpy")},
        "onnxruntime": version("onnxruntime-gpu").replace("not installed", "")
        or version("onnxruntime"),
    }
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        return {"device": f"none: PyTorch does not load ({error})", **found}
    if not torch.cuda.is_available():
        return {"device": "none that PyTorch sees", **found}
    card = torch.cuda.get_device_properties(0)
    return {
        "device": card.name,
        "compute capability": f"{card.major}.{card.minor}",
        "multiprocessors": str(card.multi_processor_count),
        "memory": format_bytes(card.total_memory),
        "CUDA of PyTorch": str(torch.version.cuda),
        **found,
    }


def runtime_problem() -> str:
    """Why whole models cannot run on the device, with the remedy; empty if they can."""
    try:
        probe = importlib.import_module("allmem_runtime.engine.probe")
    except ImportError as error:
        return f"the runtime does not load ({error}): pip install onnxruntime-gpu tokenizers jinja2"
    reason = probe.probe_cuda(0)
    if reason:
        return f"ONNX Runtime does not run on CUDA ({reason}): pip install 'onnxruntime-gpu>=1.23'"
    library = importlib.import_module("allmem_ops.library")
    try:
        info = library.check_library()
    except library.LibraryError as error:
        return str(error)
    if not info.cuda_architectures:
        return (
            f"{info.path} has no CUDA kernels: build custom_ops with -DALLMEM_CUDA=ON and name "
            "the library by ALLMEM_OPS_LIBRARY"
        )
    return ""
