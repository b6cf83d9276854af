"""Whether the memory of this computer holds a state, told before any of it is taken."""

from __future__ import annotations

from allmem_runtime.engine.devices import Device
from allmem_runtime.errors import DeviceError
from allmem_runtime.files.package import Package
from allmem_runtime.machine import available_memory
from allmem_runtime.quantities import format_bytes


def check_room(package: Package, device: Device, needed: int) -> None:
    """Refuse a state that does not fit; on a card its own allocator does that.

    A manifest of a few kilobytes may ask for a state of any size, and the system would hand out
    memory it does not have until it ends some process.

    Args:
        package: the model.
        device: where the state shall lie.
        needed: bytes, of all copies that a session keeps.

    Raises:
        DeviceError: says how much is needed, how much is available, and what would fit.
    """
    available = available_memory() if device.name == "cpu" else None
    if available is None or needed <= available:
        return
    remedy = "Close other programs, or export the model with a shorter window"
    window = package.manifest.window
    if isinstance(window, int):
        remedy += f": about {window * available // needed} tokens would fit, not {window}"
    raise DeviceError(
        f"The state of {package.graph} takes {format_bytes(needed)} of memory; "
        f"{format_bytes(available)} are available.",
        f"{remedy}.",
    )
