"""SlidingWindowAttention's CUDA kernels as a backend, on the CPU through the shim."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping

import ml_dtypes
import numpy as np
from cases import Arrays
from cuda_shim import ShimLibrary

from allmem_ops.schema import Operator, Value

SOURCES = (
    "attention.cu",
    "attention_prepare.cu",
    "attention_prefill.cu",
    "attention_prefill_tensor.cu",
    "attention_decode.cu",
    "attention_ring.cu",
)
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
ELEMENT = {np.dtype(np.float32): 0, np.dtype(np.float16): 1, BFLOAT16: 2}
GUARD = 256  # bytes kept around the scratch, so that a write beside it is seen


class Arguments(ctypes.Structure):
    """``AttentionArgs`` of custom_ops/src/cuda/attention.h."""

    _fields_ = [
        *((n, ctypes.c_int64) for n in ("batch", "time", "query_heads", "kv_heads", "head_dim")),
        *((n, ctypes.c_int64) for n in ("window", "sinks", "rotary_half")),
        *((n, ctypes.c_float) for n in ("scale", "rope_amplitude", "norm_epsilon")),
        ("clamp_sinks", ctypes.c_int32),
        ("activation", ctypes.c_int),
        ("cache", ctypes.c_int),
        *(
            (n, ctypes.c_void_p)
            for n in (
                *("position", "qkv", "inverse_frequencies", "query_norm", "key_norm"),
                *("past_key", "past_value", "output", "present_key", "present_value", "scratch"),
            )
        ),
    ]


def aligned(bytes_: int, offset: int = 0) -> np.ndarray:
    """Fresh memory at ``offset`` past a multiple of 256, every float32 in it NaN."""
    block = np.full(bytes_ + 512, 0xFF, np.uint8)
    begin = -block.ctypes.data % 256 + offset
    return block[begin : begin + bytes_]


def aligned_copy(array: np.ndarray, offset: int = 0) -> np.ndarray:
    """A copy in memory as ``aligned`` gives it."""
    copy = aligned(array.nbytes, offset).view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


class CudaAttention:
    """Runs nodes; ``offset`` moves all tensors off the alignment that a device gives them."""

    def __init__(self, library: ShimLibrary, offset: int = 0) -> None:
        self._library = library
        self._offset = offset

    def run(
        self,
        operator: Operator,
        inputs: Arrays,
        attributes: Mapping[str, Value],
        *,
        in_place: bool = False,
    ) -> Arrays:
        """See ``cases.Backend``."""
        values = operator.attribute_values(dict(attributes))
        # Tensors of no elements get an address all the same.
        own = {name: aligned_copy(array, self._offset) for name, array in inputs.items()}
        batch, time, packed = inputs["qkv"].shape
        _, kv_heads, _, head_dim = inputs["past_key"].shape
        query_heads = packed // head_dim - 2 * kv_heads
        activation = inputs["qkv"].dtype
        output = aligned(batch * time * query_heads * head_dim * activation.itemsize, self._offset)
        own["output"] = output.view(activation).reshape(batch, time, query_heads * head_dim)
        for name in ("key", "value"):
            past = own[f"past_{name}"]
            kept = past if in_place else aligned(past.nbytes, self._offset).view(past.dtype)
            own[f"present_{name}"] = kept.reshape(past.shape)
        arguments = Arguments(
            batch=batch,
            time=time,
            query_heads=query_heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            rotary_half=inputs["inverse_frequencies"].size,
            clamp_sinks=int(values["sink_rope"] == "clamped"),
            activation=ELEMENT[activation],
            cache=ELEMENT[inputs["past_key"].dtype],
            **{n: values[n] for n in ("window", "sinks", "scale", "rope_amplitude")},
            norm_epsilon=values["norm_epsilon"],
            **{name: array.ctypes.data for name, array in own.items()},
        )
        reference = ctypes.byref(arguments)
        size = self._library.call(
            "allmem_cuda_attention_scratch", reference, returns=ctypes.c_size_t
        )
        assert isinstance(size, int)
        block = aligned(size + 2 * GUARD)
        arguments.scratch = block.ctypes.data + GUARD
        self._library.call("allmem_cuda_attention", reference)
        if not (block[:GUARD] == 0xFF).all() or not (block[size + GUARD :] == 0xFF).all():
            raise AssertionError("the kernels wrote beside their scratch")
        for name, array in inputs.items():
            if not (in_place and name.startswith("past_")):
                np.testing.assert_array_equal(own[name], array, err_msg=f"{name} was written to")
        return {name: own[name].copy() for name in ("output", "present_key", "present_value")}
