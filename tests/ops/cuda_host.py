"""One operator's CUDA kernels called on arrays of the host, through the shim."""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Mapping

import numpy as np
from cases import Arrays
from cuda_shim import ShimLibrary

from allmem_ops.contract import Operator, Value
from allmem_ops.kernel_library import describe

GUARD = 256  # bytes kept around the scratch, so that a write beside it is seen
_libc = ctypes.CDLL(None)


def aligned(bytes_: int, offset: int = 0) -> np.ndarray:
    """Fresh memory at ``offset`` past a multiple of 256, every float32 in it NaN.

    With sanitizers it ends where the last byte does, so that they see what lies past it.
    """
    if os.environ.get("ALLMEM_SHIM_SANITIZE") != "1":
        block = np.full(bytes_ + 512, 0xFF, np.uint8)
        begin = -block.ctypes.data % 256 + offset
        return block[begin : begin + bytes_]
    address = ctypes.c_void_p()
    size = max(offset + bytes_, 1)
    if _libc.posix_memalign(ctypes.byref(address), ctypes.c_size_t(256), ctypes.c_size_t(size)):
        raise MemoryError
    memory = (ctypes.c_uint8 * size).from_address(address.value or 0)
    weakref.finalize(memory, _libc.free, ctypes.c_void_p(address.value))
    block = np.frombuffer(memory, np.uint8)
    block[:] = 0xFF
    return block[offset : offset + bytes_]


def aligned_copy(array: np.ndarray, offset: int = 0) -> np.ndarray:
    """A copy in memory as ``aligned`` gives it."""
    copy = aligned(array.nbytes, offset).view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def run_on_host(
    library: ShimLibrary,
    operator: Operator,
    inputs: Arrays,
    attributes: Mapping[str, Value],
    *,
    in_place: bool = False,
    offset: int = 0,
) -> Arrays:
    """One call; see ``cases.Backend``.

    Args:
        library: the operator's kernels.
        operator: which one.
        inputs: the activations' type is that of ``qkv``.
        attributes: as on the node.
        in_place: each state is one buffer, in and out.
        offset: moves all tensors off the alignment that a device gives them.
    """
    # Tensors of no elements get an address all the same.
    own = {name: aligned_copy(array, offset) for name, array in inputs.items()}
    activation = inputs["qkv"].dtype
    cache = own["past_key"].dtype.name if "past_key" in own else "float32"
    shapes = {name: array.shape for name, array in inputs.items()}
    call = describe(operator, shapes, attributes, activation.name, cache)
    for tensor in operator.outputs:
        past = own.get(tensor.name.replace("present_", "past_", 1))
        if past is None:
            size = int(np.prod(call.output)) * activation.itemsize
            own[tensor.name] = aligned(size, offset).view(activation).reshape(call.output)
        elif in_place:
            own[tensor.name] = past
        else:
            own[tensor.name] = aligned(past.nbytes, offset).view(past.dtype).reshape(past.shape)
    entry = f"allmem_entry_{call.entry}"
    names = library.call(f"{entry}_fields", returns=ctypes.c_char_p)
    assert isinstance(names, bytes)
    addresses = {name: array.ctypes.data for name, array in own.items()}
    arguments = call.arguments(tuple(names.decode().split()), addresses)
    size = library.call(f"{entry}_scratch", arguments, returns=ctypes.c_size_t)
    assert isinstance(size, int)
    guard = 0 if os.environ.get("ALLMEM_SHIM_SANITIZE") == "1" else GUARD
    block = aligned(size + 2 * guard)
    library.call(entry, arguments, ctypes.c_void_p(block.ctypes.data + guard), None)
    if not (block[:guard] == 0xFF).all() or not (block[size + guard :] == 0xFF)[:guard].all():
        raise AssertionError("the kernels wrote beside their scratch")
    for name, array in inputs.items():
        if not (in_place and name.startswith("past_")):
            np.testing.assert_array_equal(own[name], array, err_msg=f"{name} was written to")
    return {tensor.name: own[tensor.name].copy() for tensor in operator.outputs}
