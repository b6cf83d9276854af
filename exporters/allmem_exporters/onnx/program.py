"""What every traced step graph has: inputs and outputs, names, and the memory's body."""

from __future__ import annotations

import logging
import warnings

import onnx_ir as ir
import torch
from torch import nn

from allmem_exporters.model.config import AllMemConfig
from allmem_exporters.model.state import AllMemState, state_spec
from allmem_exporters.onnx.function_body import OPSET
from allmem_exporters.onnx.ir_utils import RESIDUAL_SUMS
from allmem_exporters.onnx.memory_function import memory_function
from allmem_exporters.onnx.schema import translation_table
from allmem_runtime.spec import (
    INPUT_IDS,
    LOGIT_INDEX,
    LOGITS,
    POSITION,
    past_name,
    present_name,
)

IR_VERSION = 10
"""The newest that every ONNX Runtime since 1.17 loads."""


def program(graph: nn.Module, config: AllMemConfig) -> ir.Model:
    """Trace one step.

    Args:
        graph: (input_ids, position, logit_index, state) -> (logits, state…).
        config: of the model.
    """
    state = list(AllMemState.blank(config))
    names = [(layer, tensor.name) for layer, tensor in state_spec(config)]
    dynamic = torch.export.Dim.DYNAMIC
    example = (
        torch.zeros(1, min(3, config.chunk), dtype=torch.long),
        torch.zeros(1, dtype=torch.long),
        torch.zeros(2, dtype=torch.long),
        state,
    )
    with warnings.catch_warnings(), _quiet("torch.onnx"), torch.no_grad():
        warnings.simplefilter("ignore")
        traced = torch.onnx.export(
            graph,
            example,
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            dynamic_shapes=({1: dynamic}, {}, {0: dynamic}, [{} for _ in state]),
            custom_translation_table=translation_table(),
            input_names=[INPUT_IDS, POSITION, LOGIT_INDEX, *(past_name(*n) for n in names)],
            output_names=[LOGITS, *(present_name(*n) for n in names)],
        )
    assert traced is not None
    return traced.model


def finish(model: ir.Model) -> None:
    """Give a traced graph versions and names, and drop what tracing noted in it."""
    model.ir_version = IR_VERSION
    model.opset_imports["com.microsoft"] = 1
    model.producer_name, model.producer_version = "allmem", None
    model.graph.name = "step"
    _name_dimensions(model)
    _forget_traces(model)


def _quiet(name: str) -> _Quiet:
    return _Quiet(logging.getLogger(name))


class _Quiet:
    """Silences a logger for a while: the exporter warns about packages nobody asked for."""

    def __init__(self, logger: logging.Logger) -> None:
        self.logger, self.level = logger, logger.level

    def __enter__(self) -> None:
        self.logger.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        self.logger.setLevel(self.level)


def _name_dimensions(model: ir.Model) -> None:
    """Give the two dynamic dimensions names a reader understands."""
    inputs = {value.name: value for value in model.graph.inputs}
    names = {}
    for tensor, axis, name in ((INPUT_IDS, 1, "time"), (LOGIT_INDEX, 0, "rows")):
        shape = inputs[tensor].shape
        assert shape is not None
        names[str(shape[axis])] = name
    for value in (*model.graph.inputs, *model.graph.outputs):
        assert value.shape is not None
        value.shape = ir.Shape(
            [names.get(str(d), d) if not isinstance(d, int) else d for d in value.shape]
        )


def _forget_traces(model: ir.Model) -> None:
    """Drop what tracing noted on nodes: Python stack traces hold paths of the exporting machine.

    Optional outputs that nobody reads lose their names, so that no kernel computes them.
    """
    for node in model.graph:
        node.metadata_props.clear()
        if node.op_type in RESIDUAL_SUMS:
            for output in node.outputs[1:]:
                if not output.uses():
                    output.name = ""
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.metadata_props.clear()
    model.graph.metadata_props.clear()


def memory_body(config: AllMemConfig, activations: str) -> ir.Function:
    """The body of TTTMemory for a model."""
    body = memory_function(
        heads=config.mem_heads,
        memory_dim=config.mem_head_dim,
        hidden=config.mem_hidden,
        kernel=config.conv_kernel,
        attributes=config.memory_attributes(),
        activation=activations,
    )
    return ir.serde.deserialize_function(body)
