"""From a model's weights to one ONNX graph with our operators and their function bodies.

The graph is traced without its large matrices, so that tracing takes the same memory for every
model: what is small has its values, since equal constants become one, and `weight_stream` puts the
matrices in later.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable

import onnx_ir as ir
import torch
from torch import nn

from allmem_exporters.model.config import AllMemConfig
from allmem_exporters.model.packing import packed_layer
from allmem_exporters.model.state import AllMemState, state_spec
from allmem_exporters.model.weights import LAST_NORM, ModelWeights, empty_layer, load_layer
from allmem_exporters.onnx.function_body import OPSET
from allmem_exporters.onnx.operator_functions import attention_function, memory_function
from allmem_exporters.onnx.schema import translation_table
from allmem_exporters.onnx.step_module import StepGraph
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


def trace(weights: ModelWeights, activations: str = "float32") -> ir.Model:
    """Trace one step of a model.

    Args:
        weights: of any AllMem model.
        activations: ``float32`` or ``float16``, the type of the token stream; its matrices have
            the same type.

    Returns:
        A graph with the inputs and outputs of ``allmem_runtime.spec``: time and the number of
        logit rows are dynamic, everything else is of constant shape. Every large matrix is there
        by name, type and shape alone.
    """
    config = weights.config
    wanted = _constants(config, activations)
    layers = (load_layer(weights, i, wanted) for i in range(config.num_hidden_layers))
    graph = StepGraph(config, layers, weights.tensor(LAST_NORM), activations).eval()
    _fill_matrices(graph)
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
    for function in _functions(config, activations):
        traced.functions[function.identifier()] = function
    return traced


def _constants(config: AllMemConfig, activations: str) -> Callable[[str], bool]:
    """Which parameters of a layer have their values in tracing: those of no large matrix."""
    layer = empty_layer(config)
    names = {id(module): name for name, module in layer.named_modules()}
    large = {
        f"{names[id(module)]}.weight"
        for matrix in packed_layer(layer).values()
        for module in matrix.modules
    }
    if activations != "float32":  # the control is part of a large matrix
        large |= {f"allmem.{name}.weight" for name in ("lr_proj", "mom_proj", "gate_proj")}
    return lambda name: name not in large


def _fill_matrices(graph: nn.Module) -> None:
    """Give matrices without values one number each, which takes no memory however large they are.

    The numbers differ, so that no two of them look equal.
    """
    empty = [(name, p) for name, p in graph.named_parameters() if p.device.type == "meta"]
    for number, (name, parameter) in enumerate(empty):
        owner, _, leaf = name.rpartition(".")
        value = torch.full((), 1.0 + number, dtype=parameter.dtype).expand(parameter.shape)
        setattr(graph.get_submodule(owner), leaf, nn.Parameter(value, requires_grad=False))


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


def _functions(config: AllMemConfig, activations: str) -> list[ir.Function]:
    bodies = [
        attention_function(
            query_heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            head_dim=config.head_dim,
            rotary_half=config.rotary_dim // 2,
            attributes=empty_layer(config).self_attn.attributes,
            activation=activations,
            cache=config.cache_dtype,
        ),
        memory_function(
            heads=config.mem_heads,
            memory_dim=config.mem_head_dim,
            hidden=config.mem_hidden,
            kernel=config.conv_kernel,
            attributes=config.memory_attributes(),
            activation=activations,
        ),
    ]
    return [ir.serde.deserialize_function(body) for body in bodies]
