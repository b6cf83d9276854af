"""Opening a graph with ONNX Runtime: options, provider, and what its refusals mean."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime as ort

from allmem_runtime import spec
from allmem_runtime.engine.devices import CUDA_REMEDY, Device
from allmem_runtime.engine.failures import FATAL, ORT_ERRORS, first_line, hushed
from allmem_runtime.engine.memory_limit import exhausted, is_exhausted
from allmem_runtime.engine.options import EngineOptions
from allmem_runtime.engine.threads import cpu_threads
from allmem_runtime.errors import DeviceError, ModelFileError
from allmem_runtime.files.package import Package

_NO_GRAPHS = ("graph capture feature", "cuda graph feature")
"""In what ONNX Runtime says when a graph cannot be captured because of its nodes."""


_CONFIGURATION = {
    # Threads wait awake between the nodes of a step, which makes it about a tenth faster, but
    # only as long as nodes take, and no longer than the step: else they would take the cores from
    # whatever the machine does next, us included.
    "session.intra_op.allow_spinning": "1",
    "session.intra_op.spin_duration_us": "100",
    "session.force_spinning_stop": "1",
    # Weights are laid out for the CPU by all threads.
    "session.prepack.enable_parallel": "1",
    "session.record_ep_graph_assignment_info": "1",
}
"""Entries that a version of ONNX Runtime does not know are ignored by it."""


_SMALL_BYTES = 1024
"""Weights below this stay in the graph's own file."""


class GraphsRefused(Exception):
    """The model has nodes that cannot be captured; it runs without CUDA graphs."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a graph is to be opened.

    Attributes:
        package: the model.
        device: where it is to run.
        options: how.
        meanwhile: called right before ONNX Runtime begins, which takes long and leaves Python's
            lock to other threads.
    """

    package: Package
    device: Device
    options: EngineOptions
    meanwhile: Callable[[], None] | None = None


def open_graph(
    wanted: Wanted, library: Path | None, graphs: bool, prepared: Path | None = None
) -> ort.InferenceSession:
    """Open a model.

    Args:
        wanted: what and where.
        library: operators to register; None for the function bodies in the graph.
        graphs: make CUDA graphs possible.
        prepared: a graph that ``save_prepared`` made of the model with the same operators, to be
            opened instead of the model's own.

    Raises:
        GraphsRefused: ``graphs`` is not possible for this model.
        DeviceError: the device is not there, or has too little memory.
        ModelFileError: the graph does not load.
        Exception: what ONNX Runtime raised for the library.
    """
    options = _options(cpu_threads(wanted.options.threads))
    if prepared is not None:  # it was optimized before it was saved
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return _open(wanted, library, graphs, options, prepared or wanted.package.graph)


def save_prepared(wanted: Wanted, library: Path | None, folder: Path) -> None:
    """Write the optimized graph, and its weights as this CPU wants them, to be mapped.

    Args:
        wanted: what; the device must be the CPU.
        library: operators to register; None for the function bodies in the graph.
        folder: where ``model.onnx`` and ``model.onnx.data`` are written to.

    Raises:
        ModelFileError: the graph does not load, or cannot be written.
        Exception: what ONNX Runtime raised for the library.
    """
    options = _options(cpu_threads(wanted.options.threads))
    options.optimized_model_filepath = os.fspath(folder / spec.GRAPH_FILE)
    for name, value in (
        ("session.optimized_model_external_initializers_file_name", spec.WEIGHTS_FILE),
        ("session.optimized_model_external_initializers_min_size_in_bytes", str(_SMALL_BYTES)),
        ("session.save_external_prepacked_constant_initializers", "1"),
    ):
        options.add_session_config_entry(name, value)
    _open(wanted, library, False, options, wanted.package.graph)
    # Without a weight of some size ONNX Runtime makes no file for them.
    (folder / spec.WEIGHTS_FILE).touch()


def _open(
    wanted: Wanted,
    library: Path | None,
    graphs: bool,
    options: ort.SessionOptions,
    graph: Path,
) -> ort.InferenceSession:
    if library is not None:
        options.register_custom_ops_library(str(library))
    device = wanted.device
    if wanted.meanwhile is not None:
        wanted.meanwhile()
    try:
        with hushed():
            session = ort.InferenceSession(
                os.fspath(graph),
                options,
                providers=[(device.provider, _provider_options(wanted, graphs))],
                enable_fallback=0,
            )
    except ORT_ERRORS as error:
        if graphs and any(words in str(error).lower() for words in _NO_GRAPHS):
            raise GraphsRefused from None
        raise _load_error(error, wanted, graph, library is None) from None
    if device.provider not in session.get_providers():
        raise DeviceError(f"{graph} could not be loaded on {device}.", CUDA_REMEDY)
    return session


def operators_by_provider(session: ort.InferenceSession) -> dict[str, list[str]]:
    """Which operators run on which provider, as ONNX Runtime recorded it.

    Returns:
        Provider names to sorted operator names; empty if this version cannot tell.
    """
    ask: Callable[[], Any] | None = getattr(session, "get_provider_graph_assignment_info", None)
    if ask is None:
        return {}
    found: dict[str, set[str]] = {}
    for part in ask():
        names = found.setdefault(part.ep_name, set())
        names.update(f"{node.domain}:{node.op_type}".lstrip(":") for node in part.get_nodes())
    return {provider: sorted(names) for provider, names in found.items()}


def _provider_options(wanted: Wanted, graphs: bool) -> dict[str, str]:
    if wanted.device.name != "cuda":
        return {}
    options = {
        "device_id": str(wanted.device.index),
        # Growing by powers of two would double the memory of a long piece.
        "arena_extend_strategy": "kSameAsRequested",
        # By default factors of float32 products are rounded to 11 bits on cards from 8.0 on.
        "use_tf32": "0",
    }
    if (limit := wanted.options.memory_limit) is not None:
        options["gpu_mem_limit"] = str(limit)
    if graphs:
        options["enable_cuda_graph"] = "1"
    return options


def _load_error(
    error: Exception, wanted: Wanted, graph: Path, portable: bool
) -> DeviceError | ModelFileError:
    if wanted.device.name != "cpu" and is_exhausted(error):
        reason, remedy = exhausted(wanted.options.memory_limit, str(wanted.device))
        return DeviceError(f"{graph} does not load: {reason}.", remedy)
    hint = "Export the model again, or fetch an intact copy."
    if portable and wanted.package.scan.operators:
        hint = (
            "If it was exported without function bodies it needs the native operators: "
            "install the package with its library. Otherwise export it again."
        )
    return ModelFileError(f"{graph} does not load: {first_line(error)}.", hint)


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = FATAL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # A pattern is kept for every length of a piece ever seen.
    options.enable_mem_pattern = False
    for name, value in _CONFIGURATION.items():
        options.add_session_config_entry(name, value)
    return options
