"""The native library as a backend: a one-node model run by onnxruntime."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import onnxruntime
import pytest
from cases import BACKENDS, Arrays
from onnx import TensorProto, helper, numpy_helper
from sessions import asleep

from allmem_ops import DOMAIN, library
from allmem_ops.contract import Operator, Value

ELEMENT = {
    np.dtype(np.float32): TensorProto.FLOAT,
    np.dtype(np.float16): TensorProto.FLOAT16,
    np.dtype(ml_dtypes.bfloat16): TensorProto.BFLOAT16,
    np.dtype(np.float64): TensorProto.DOUBLE,
    np.dtype(np.int64): TensorProto.INT64,
    np.dtype(np.int32): TensorProto.INT32,
    np.dtype(np.int8): TensorProto.INT8,
}


def node_model(
    operator: Operator,
    inputs: Arrays,
    attributes: Mapping[str, Value],
    weights: Collection[str] = (),
) -> bytes:
    """A model of one node whose input types are those of ``inputs``; sizes stay open.

    Inputs named in ``weights`` are part of the model, with the values they have.
    """

    def output_type(name: str) -> int:
        past = name.replace("present_", "past_", 1)
        return ELEMENT[inputs[past if past in inputs else "qkv"].dtype]

    graph = helper.make_graph(
        [
            helper.make_node(
                operator.name,
                [t.name if t.name in inputs else "" for t in operator.inputs],
                [t.name for t in operator.outputs],
                domain=DOMAIN,
                **attributes,
            )
        ],
        "node",
        [
            helper.make_tensor_value_info(t.name, ELEMENT[inputs[t.name].dtype], None)
            for t in operator.inputs
            if t.name in inputs and t.name not in weights
        ],
        [
            helper.make_tensor_value_info(t.name, output_type(t.name), None)
            for t in operator.outputs
        ],
        [numpy_helper.from_array(inputs[name], name) for name in weights],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid(DOMAIN, operator.version)],
        ir_version=10,
    )
    return model.SerializeToString()


class Native:
    """Runs nodes with the library that is installed (or named by ``ALLMEM_OPS_LIBRARY``)."""

    def __init__(self, threads: int = 2) -> None:
        self._threads = threads
        self._sessions: dict[Any, onnxruntime.InferenceSession] = {}

    def session(
        self, operator: Operator, inputs: Arrays, attributes: Mapping[str, Value]
    ) -> onnxruntime.InferenceSession:
        """A session of the one node; kept, since cases share attributes."""
        types = tuple((name, array.dtype.str) for name, array in inputs.items())
        key = (operator.name, types, repr(sorted(attributes.items())))
        if key not in self._sessions:
            options = asleep(self._threads)
            library.register(options)
            self._sessions[key] = onnxruntime.InferenceSession(
                node_model(operator, inputs, attributes),
                options,
                providers=["CPUExecutionProvider"],
            )
        return self._sessions[key]

    def run(
        self,
        operator: Operator,
        inputs: Arrays,
        attributes: Mapping[str, Value],
        *,
        in_place: bool = False,
    ) -> Arrays:
        """See ``cases.Backend``."""
        session = self.session(operator, inputs, attributes)
        names = [t.name for t in operator.outputs]
        if not in_place:
            return dict(zip(names, session.run(names, inputs), strict=True))
        values = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(array.copy())
            for name, array in inputs.items()
        }
        binding = session.io_binding()
        for name, value in values.items():
            binding.bind_ortvalue_input(name, value)
        for name in names:
            past = name.replace("present_", "past_", 1)
            if past in values:
                binding.bind_ortvalue_output(name, values[past])
            else:
                binding.bind_output(name, "cpu")
        session.run_with_iobinding(binding)
        outputs = dict(zip(names, binding.copy_outputs_to_cpu(), strict=True))
        for name in names:
            past = name.replace("present_", "past_", 1)
            if past in values:
                outputs[name] = values[past].numpy().copy()
        return outputs


def native() -> Native:
    """The backend, or a skip that says why there is none."""
    try:
        library.check_library()
    except library.LibraryNotFound as error:
        pytest.skip(str(error))
    return Native()


BACKENDS["native"] = native


CPU_PATHS = ("generic", "avx2", "avx512", "avx512vnni")


def available_cpu_paths() -> list[str]:
    """The kernels that this machine can run; at least ``generic``."""
    try:
        best = library.cpu_path()
    except library.LibraryError:
        return ["generic"]
    return list(CPU_PATHS[: CPU_PATHS.index(best) + 1])
