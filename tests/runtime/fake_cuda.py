"""ONNX Runtime as it behaves on CUDA, played on the CPU.

Memory of the device is memory of its own, and every copy to, from and within it is counted. Inputs
in host memory are copied when they are bound, not when the model runs. CUDA graphs do what ONNX
Runtime does: a first run under a graph id executes the model three times; later ones use the
addresses of the first, whatever is bound by then; graphs belong to the thread that captured them
and are never let go.
"""

from __future__ import annotations

import threading
from collections import Counter
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from allmem_runtime.engine import buffers, opening, operators, tensors
from allmem_runtime.engine import cuda_graph as decode
from allmem_runtime.engine import engine as step
from allmem_runtime.engine.devices import CUDA_PROVIDER, Device
from allmem_runtime.engine.engine import Engine
from allmem_runtime.engine.options import EngineOptions
from allmem_runtime.files.package import open_package
from allmem_runtime.model import Model

CUDA = Device("cuda", 0, "The fake was asked for.")
RUNS_OF_A_CAPTURE = 3  # two to settle, one replay of what the third recorded


class Fault(RuntimeError):
    """What a fake CUDA device reports."""


class FakeCuda:
    """A CUDA device and the part of the onnxruntime module that the engine uses.

    Attributes:
        counts: copies and bytes by direction, ``captures``, ``replays``, ``runs``.
        threads: idents of threads that touched the device.
        providers: provider options of each session, in order of loading.
        fail: what is to go wrong: ``load``, ``capture``, ``run``, ``allocate``, ``copy within``;
            values are the error to raise.
        on_cpu: operators that ONNX Runtime would run on the CPU.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.threads: set[int] = set()
        self.providers: list[dict[str, str]] = []
        self.fail: dict[str, Exception] = {}
        self.on_cpu: list[str] = []
        self.ids: list[str] = []

    def copied(self, way: str, array: NDArray[Any]) -> None:
        self.counts[way] += 1
        self.counts[f"{way} bytes"] += array.nbytes

    def touch(self, what: str = "") -> None:
        self.threads.add(threading.get_ident())
        if what in self.fail:
            raise self.fail[what]

    def module(self) -> ModuleType:
        """Stands for onnxruntime."""
        fake = self
        module = ModuleType("onnxruntime")

        class OrtValue(FakeValue):
            device = fake

        class InferenceSession(FakeSession):
            device = fake

        vars(module).update(vars(onnxruntime))
        vars(module).update(OrtValue=OrtValue, InferenceSession=InferenceSession)
        return module


class FakeValue:
    """A tensor in device memory, or a real OrtValue for host memory."""

    device: FakeCuda

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array
        self.real = onnxruntime.OrtValue.ortvalue_from_numpy(array)

    @classmethod
    def ortvalue_from_numpy(cls, array: NDArray[Any], kind: str = "cpu", index: int = 0) -> Any:
        if kind == "cpu":
            return onnxruntime.OrtValue.ortvalue_from_numpy(array)
        cls.device.touch("allocate")
        cls.device.copied("in", array)
        return cls(array.copy())

    def numpy(self) -> NDArray[Any]:
        self.device.touch()
        self.device.copied("out", self.array)
        return self.array.copy()

    def update_inplace(self, values: FakeValue | NDArray[Any]) -> None:
        within = isinstance(values, FakeValue)
        self.device.touch("copy within" if within else "")
        array = values.array if isinstance(values, FakeValue) else values
        self.device.copied("within" if within else "in", array)
        np.copyto(self.array, array, casting="no")

    def tensor_size_in_bytes(self) -> int:
        return self.array.nbytes


class FakeBinding:
    """Remembers what is bound."""

    def __init__(self) -> None:
        self.inputs: dict[str, Any] = {}
        self.outputs: dict[str, Any] = {}

    def bind_ortvalue_input(self, name: str, value: Any) -> None:
        if not isinstance(value, FakeValue):
            value = onnxruntime.OrtValue.ortvalue_from_numpy(value.numpy().copy())
        self.inputs[name] = value

    def bind_ortvalue_output(self, name: str, value: Any) -> None:
        self.outputs[name] = value

    def copy(self) -> FakeBinding:
        other = FakeBinding()
        other.inputs, other.outputs = dict(self.inputs), dict(self.outputs)
        return other


class FakeSession:
    """A session on the fake device; the work is done by a real one on the CPU."""

    device: FakeCuda

    def __init__(self, path: str, options: Any, providers: Any, enable_fallback: int) -> None:
        (provider, wanted), *_ = providers
        assert provider == CUDA_PROVIDER
        self.graphs = wanted.get("enable_cuda_graph") == "1"
        self.device.touch("load")
        self.device.providers.append(dict(wanted))
        if self.graphs and self.device.on_cpu:
            raise Fault(
                "This session cannot use the graph capture feature as requested by the user  as "
                "all compute graph nodes have not been partitioned to the CUDAExecutionProvider"
            )
        self.real = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.captured: dict[tuple[int, str], FakeBinding] = {}

    def get_providers(self) -> list[str]:
        return [CUDA_PROVIDER, "CPUExecutionProvider"]

    def get_inputs(self) -> Any:
        return self.real.get_inputs()

    def get_outputs(self) -> Any:
        return self.real.get_outputs()

    def get_provider_graph_assignment_info(self) -> list[Any]:
        class Node:
            def __init__(self, op_type: str) -> None:
                self.domain, self.op_type = "", op_type

        class Part:
            def __init__(self, ep_name: str, names: list[str]) -> None:
                self.ep_name, self.names = ep_name, names

            def get_nodes(self) -> list[Node]:
                return [Node(name) for name in self.names]

        return [Part(CUDA_PROVIDER, ["MatMul"]), Part("CPUExecutionProvider", self.device.on_cpu)]

    def io_binding(self) -> FakeBinding:
        return FakeBinding()

    def run_with_iobinding(self, binding: FakeBinding, options: Any = None) -> None:
        graph = "-1" if options is None else options.get_run_config_entry("gpu_graph_id")
        if not self.graphs:
            assert options is None, "graph ids mean something only with graphs"
        self.device.touch("run")
        if not self.graphs or graph == "-1":
            self._execute(binding)
            return
        key = threading.get_ident(), graph
        if key in self.captured:
            self.device.counts["replays"] += 1
            self._execute(self.captured[key])
            return
        for number in range(RUNS_OF_A_CAPTURE):
            self._execute(binding)
            if number == 1:
                self.device.touch("capture")
        self.device.counts["captures"] += 1
        self.device.ids.append(graph)
        self.captured[key] = binding.copy()
        for value in (*binding.inputs.values(), *binding.outputs.values()):
            assert isinstance(value, FakeValue), "a graph must not use memory of the host"

    def _execute(self, binding: FakeBinding) -> None:
        self.device.counts["runs"] += 1
        real = self.real.io_binding()
        for name, value in binding.inputs.items():
            real.bind_ortvalue_input(name, getattr(value, "real", value))
        for name, value in binding.outputs.items():
            real.bind_ortvalue_output(name, getattr(value, "real", value))
        self.real.run_with_iobinding(real)


def install(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    """Let the engine meet a fake device."""
    fake = FakeCuda()
    module = fake.module()
    for part in (buffers, decode, opening, step, tensors):
        monkeypatch.setattr(part, "ort", module)
    monkeypatch.setattr(operators, "cuda_kernels", lambda library: ("sm_86",))
    monkeypatch.setattr(operators, "find_cuda_device", lambda index: None)
    return fake


def load_fake(folder: Any, operators: str = "portable", **options: Any) -> Model:
    """A model on the fake device."""
    package = open_package(folder)
    given = EngineOptions(operators=operators, threads=1, **options)
    return Model(package, Engine(package, CUDA, given))
