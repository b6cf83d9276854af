"""From a PyTorch model to one ONNX graph with our operators and their function bodies."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator

import onnx_ir as ir
import torch

from allmem_exporters.model.modeling import AllMemForCausalLM
from allmem_exporters.model.state import AllMemState, state_spec
from allmem_exporters.onnx.attention_function import attention_function
from allmem_exporters.onnx.function_body import OPSET
from allmem_exporters.onnx.memory_function import memory_function
from allmem_exporters.onnx.schema import translation_table
from allmem_exporters.onnx.step_module import StepGraph
from allmem_ops.contract import Value as AttributeValue
from allmem_ops.schema import ATTENTION_BY_HEAD, DOMAIN, SLIDING_WINDOW_ATTENTION
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


def trace(model: AllMemForCausalLM, activations: str = "float32") -> ir.Model:
    """Trace one step of ``model``.

    Args:
        model: any AllMem model.
        activations: ``float32`` or ``float16``, the type of the token stream; its matrices have
            the same type.

    Raises:
        ExportError: float16 cannot hold one of the weights.

    Returns:
        A graph with the inputs and outputs of ``allmem_runtime.spec``: time and the number of
        logit rows are dynamic, everything else is of constant shape. The weights lie in memory.
    """
    config = model.config
    graph = StepGraph(model, activations).eval()
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
        program = torch.onnx.export(
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
    assert program is not None
    traced = program.model
    traced.ir_version = IR_VERSION
    traced.opset_imports["com.microsoft"] = 1
    traced.producer_name, traced.producer_version = "allmem", None
    traced.graph.name = "step"
    _name_dimensions(traced)
    _forget_traces(traced)
    attention = _attention_functions(traced, model, activations)
    for function in (*attention, _memory_function(model, activations)):
        traced.functions[function.identifier()] = function
    # The version of the domain in which the newest of these contracts came to be.
    traced.opset_imports[DOMAIN] = 1 if model.config.windows is None else ATTENTION_BY_HEAD.version
    return traced


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
        if node.op_type == "SkipSimplifiedLayerNormalization":
            for output in node.outputs[1:]:
                if not output.uses():
                    output.name = ""
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.metadata_props.clear()
    model.graph.metadata_props.clear()


def _attention_functions(
    traced: ir.Model, model: AllMemForCausalLM, activations: str
) -> Iterator[ir.Function]:
    """The attention's body; where windows differ, one for each kind of layer that nodes name."""
    config = model.config
    kinds: dict[AttributeValue, str] = {}
    nodes = [node for node in traced.graph if node.op_type == SLIDING_WINDOW_ATTENTION.name]
    for layer, node in zip(model.model.layers, nodes, strict=True):
        attributes = layer.self_attn.attributes
        window = attributes["window"]
        if window not in kinds:
            kinds[window] = f"windows_{len(kinds)}" if isinstance(window, tuple) else ""
            body = attention_function(
                query_heads=config.num_attention_heads,
                kv_heads=config.num_key_value_heads,
                head_dim=config.head_dim,
                rotary_half=config.rotary_dim // 2,
                attributes=attributes,
                activation=activations,
                cache=config.cache_dtype,
            )
            body.overload = kinds[window]
            yield ir.serde.deserialize_function(body)
        node.overload = kinds[window]


def _memory_function(model: AllMemForCausalLM, activations: str) -> ir.Function:
    config = model.config
    body = memory_function(
        heads=config.mem_heads,
        memory_dim=config.mem_head_dim,
        hidden=config.mem_hidden,
        kernel=config.conv_kernel,
        attributes=config.memory_attributes(),
        activation=activations,
    )
    return ir.serde.deserialize_function(body)
