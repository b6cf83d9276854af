"""What the driver says of a CUDA device: its name, compute capability and memory.

ONNX Runtime does not tell. The driver's library is asked directly: it numbers devices as ONNX
Runtime does, whatever CUDA_VISIBLE_DEVICES says.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from allmem_runtime.quantities import format_bytes

_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*


@dataclass(frozen=True, slots=True)
class CudaDevice:
    """A CUDA device.

    Attributes:
        name: as its maker calls it.
        capability: compute capability, such as ``8.6``.
        memory: bytes in all.
    """

    name: str
    capability: str
    memory: int

    def __str__(self) -> str:
        memory = format_bytes(self.memory)
        return f"{self.name}, compute capability {self.capability}, {memory}"


def has_kernels(architectures: Sequence[str], device: CudaDevice | None) -> bool:
    """Whether kernels compiled for some architectures run on a device; yes if it is not known.

    Args:
        architectures: such as ``sm_86``, for cards of that generation from this number on, or
            ``compute_120``, for all later ones.
        device: where they are to run.
    """
    if device is None:
        return bool(architectures)
    major, minor = (int(part) for part in device.capability.split("."))
    for name in architectures:
        kind, _, number = name.partition("_")
        digits = number.rstrip("af")
        if not digits.isdecimal():
            continue
        generation, step = divmod(int(digits), 10)
        same = generation == major and step <= minor
        if same or (kind == "compute" and (generation, step) <= (major, minor)):
            return True
    return False


def driver_problem() -> str | None:
    """Why there is no driver, without a full stop; None if there is one."""
    try:
        ctypes.CDLL(_LIBRARY)
    except OSError:
        return f"there is no NVIDIA driver ({_LIBRARY} does not load)"
    return None


def find_cuda_device(index: int) -> CudaDevice | None:
    """The device of this number; None if the driver is not there or knows no such device."""
    try:
        driver = ctypes.CDLL(_LIBRARY)
        ask = driver.cuDeviceGetAttribute
        total_of = driver.cuDeviceTotalMem_v2
        name_of, get, start = driver.cuDeviceGetName, driver.cuDeviceGet, driver.cuInit
    except (OSError, AttributeError):
        return None
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    memory, name = ctypes.c_size_t(), ctypes.create_string_buffer(128)
    calls: tuple[Callable[[], int], ...] = (
        lambda: start(0),
        lambda: get(ctypes.byref(device), index),
        lambda: name_of(name, len(name), device),
        lambda: ask(ctypes.byref(major), _MAJOR, device),
        lambda: ask(ctypes.byref(minor), _MINOR, device),
        lambda: total_of(ctypes.byref(memory), device),
    )
    if any(call() for call in calls):
        return None
    text = name.value.decode("ascii", "replace")
    return CudaDevice(text, f"{major.value}.{minor.value}", memory.value)
