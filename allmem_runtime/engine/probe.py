"""Trying ONNX Runtime out: its version, whether CUDA really runs, one graph once."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from allmem_runtime.engine.cuda_driver import driver_problem
from allmem_runtime.engine.device_thread import device_thread
from allmem_runtime.engine.devices import CUDA_PROVIDER, Device
from allmem_runtime.engine.failures import FATAL, ORT_ERRORS, first_line, hushed
from allmem_runtime.errors import OperatorLibraryError

# A graph of a single Neg on one float: IR 8, opset 13. Small enough to try a device with.
_PROBE_GRAPH = (
    b'\x08\x08:2\n\x0b\n\x01x\x12\x01y"\x03Neg\x12\x01pZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12'
    b"\x04\n\x02\x08\x01b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)


def runtime_version() -> str:
    """Version of ONNX Runtime."""
    return str(ort.__version__)


def probe_cuda(index: int) -> str | None:
    """Run a graph of one node on a CUDA device.

    Returns:
        None if it ran there, else the reason why not, without a full stop.
    """
    if CUDA_PROVIDER not in ort.get_available_providers():
        return f"onnxruntime {ort.__version__} was built without CUDA"
    problem = driver_problem()
    if problem is not None:
        # ONNX Runtime would first load hundreds of mebibytes of libraries to find that out.
        return problem
    messages = io.StringIO()
    try:
        with hushed():
            if hasattr(ort, "preload_dlls"):
                with contextlib.redirect_stdout(messages):  # it prints what it does not find
                    ort.preload_dlls()
            options = ort.SessionOptions()
            options.log_severity_level = FATAL
            if not device_thread("cuda").do(lambda: _runs_on(index, options)):
                return _missing_library(messages.getvalue())
    except ORT_ERRORS as error:
        return first_line(error)
    return None


def _runs_on(index: int, options: ort.SessionOptions) -> bool:
    """Whether a CUDA device runs a graph; ONNX Runtime may raise anything."""
    session = ort.InferenceSession(
        _PROBE_GRAPH,
        options,
        providers=[(CUDA_PROVIDER, {"device_id": str(index)})],
        enable_fallback=0,
    )
    if CUDA_PROVIDER not in session.get_providers():
        return False
    session.run(None, {"x": np.ones(1, np.float32)})
    return True


def _missing_library(messages: str) -> str:
    """What the preloading of CUDA's libraries printed, in a few words."""
    named = re.search(r"Failed to load (\S+?):", messages)
    if named:
        return f"{named[1]} is not installed"
    lines = messages.strip().splitlines()
    return lines[0] if lines else "its libraries or the driver do not load"


def run_once(
    model: bytes, inputs: Mapping[str, NDArray[Any]], device: Device, library: Path
) -> list[NDArray[Any]]:
    """Run a small model once, for self-checks; nothing of it is kept.

    Args:
        model: an ONNX model.
        inputs: arrays by input name.
        device: where to run it.
        library: operators to register.

    Raises:
        OperatorLibraryError: the library does not load, or the model does not run with it.
    """
    options = ort.SessionOptions()
    options.log_severity_level = FATAL
    provider: Any = device.provider
    if device.name == "cuda":
        # The CPU would do the work unseen, and rightly.
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        provider = (provider, {"device_id": str(device.index)})

    def run() -> list[NDArray[Any]]:
        with hushed():
            session = ort.InferenceSession(model, options, providers=[provider], enable_fallback=0)
        return [np.asarray(value) for value in session.run(None, dict(inputs))]

    try:
        options.register_custom_ops_library(str(library))
        return device_thread(device.name).do(run)
    except ORT_ERRORS as error:
        raise OperatorLibraryError(
            f"{library} does not run on {device}: {first_line(error)}.",
            "Install the package again, or use --operators portable.",
        ) from None
