"""From a model's weights to one ONNX graph with our operators and their function bodies.

A few layers are traced, without their values, and `repeat` makes the others after them: tracing
takes the same time and memory for every model. What is small gets its values then, since equal
constants become one; `weight_stream` puts the large matrices in later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy

import onnx_ir as ir
import torch
from onnx_ir.passes.common import DeduplicateInitializersPass
from torch import nn

from allmem_exporters.model.config import AllMemConfig
from allmem_exporters.model.norms import Norm
from allmem_exporters.model.packing import packed_layer
from allmem_exporters.model.state import state_spec
from allmem_exporters.model.weights import (
    ModelWeights,
    empty_layer,
    load_last_norm,
    load_layer,
)
from allmem_exporters.onnx.attention_function import attention_function
from allmem_exporters.onnx.ir_utils import set_values
from allmem_exporters.onnx.operator_versions import operator_versions, operators_in
from allmem_exporters.onnx.program import finish, memory_body, program
from allmem_exporters.onnx.repeat import TRACED, deepen
from allmem_exporters.onnx.step_module import StepGraph
from allmem_ops.contract import Value as AttributeValue
from allmem_ops.schema import DOMAIN, SLIDING_WINDOW_ATTENTION
from allmem_runtime.spec import past_name, present_name


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
    traced = _trace_layers(_shallow(config), activations)
    if config.num_hidden_layers > TRACED:
        deepen(traced, config.num_hidden_layers)
        _set_attributes(traced, config)
    _put_values(traced, weights, activations)
    finish(traced)
    attention = _attention_functions(traced, config, activations)
    for function in (*attention, memory_body(config, activations)):
        traced.functions[function.identifier()] = function
    # The version of the domain in which the newest of these contracts came to be.
    traced.opset_imports[DOMAIN] = max(operator_versions(config, operators_in(traced)).values())
    return traced


def _shallow(config: AllMemConfig) -> AllMemConfig:
    """The configuration of a model with as many layers as are traced."""
    shallow = copy(config)
    shallow.num_hidden_layers = min(config.num_hidden_layers, TRACED)
    if config.windows is not None:
        shallow.windows = config.windows[:TRACED]
    for key in ("local_layers", "unrotated_layers"):
        if (layers := getattr(config, key)) is not None:
            setattr(shallow, key, [layer for layer in layers if layer < TRACED])
    return shallow


def _trace_layers(config: AllMemConfig, activations: str) -> ir.Model:
    """Trace a model whose parameters have no values that mean anything."""
    layers = (empty_layer(config, index) for index in range(config.num_hidden_layers))
    with torch.device("meta"):
        last_norm = Norm(config, config.hidden_size)
    graph = StepGraph(config, layers, last_norm, activations).eval()
    _number(graph)
    return program(graph, config)


def _number(graph: nn.Module) -> None:
    """Fill each parameter with a number of its own, which takes no memory however large it is.

    So no two of them look equal, and none becomes a constant of another.
    """
    known: dict[int, nn.Parameter] = {}
    for name, parameter in graph.named_parameters(remove_duplicate=False):
        if id(parameter) not in known:
            value = torch.full((), 1.0 + len(known), dtype=parameter.dtype)
            known[id(parameter)] = nn.Parameter(value.expand(parameter.shape), requires_grad=False)
        owner, _, leaf = name.rpartition(".")
        setattr(graph.get_submodule(owner), leaf, known[id(parameter)])


def _set_attributes(model: ir.Model, config: AllMemConfig) -> None:
    """Give each layer its own windows and amplitude, and its state their shapes."""
    if config.windows is None and config.local_layers is None:
        return
    nodes = (node for node in model.graph if node.op_type == SLIDING_WINDOW_ATTENTION.name)
    for index, node in enumerate(nodes):
        attributes = empty_layer(config, index).self_attn.attributes
        window = attributes["window"]
        if isinstance(window, tuple):
            node.attributes["window"] = ir.AttrInt64s("window", window)
            continue
        node.attributes["window"] = ir.AttrInt64("window", window)
        node.attributes["sinks"] = ir.AttrInt64("sinks", attributes["sinks"])
        # Tracing leaves out what has its default.
        amplitude = attributes["rope_amplitude"]
        if amplitude != node.attributes.get_float("rope_amplitude", 1.0):
            node.attributes["rope_amplitude"] = ir.AttrFloat32("rope_amplitude", amplitude)
    values = {value.name: value for value in (*model.graph.inputs, *model.graph.outputs)}
    for layer, tensor in state_spec(config):
        for name in (past_name(layer, tensor.name), present_name(layer, tensor.name)):
            values[name].shape = ir.Shape(tensor.shape)


def _put_values(model: ir.Model, weights: ModelWeights, activations: str) -> None:
    """Give small parameters their values, and let those that are equal be one.

    Matrices have a number each in their place, so that no two of them are equal.
    """
    config = weights.config
    wanted = _constants(config, activations)
    layers = (load_layer(weights, i, wanted) for i in range(config.num_hidden_layers))
    graph = StepGraph(config, layers, load_last_norm(weights), activations)
    values = dict(graph.named_parameters(remove_duplicate=False))
    for number, (name, parameter) in enumerate(values.items()):
        if (value := model.graph.initializers.get(name)) is not None:
            if parameter.device.type == "meta":
                one = torch.full((), 1.0 + number, dtype=parameter.dtype)
                set_values(value, one.expand(parameter.shape).numpy())
            else:
                set_values(value, parameter.detach().numpy())
    DeduplicateInitializersPass()(model)


def _constants(config: AllMemConfig, activations: str) -> Callable[[str], bool]:
    """Which parameters of a layer have their values in tracing: those of no large matrix."""
    layer = empty_layer(config, 0)
    names = {id(module): name for name, module in layer.named_modules()}
    large = {
        f"{names[id(module)]}.weight"
        for matrix in packed_layer(layer).values()
        for module in matrix.modules
    }
    if activations != "float32":  # the control is part of a large matrix
        large |= {f"allmem.{name}.weight" for name in ("lr_proj", "mom_proj", "gate_proj")}
    return lambda name: name not in large


def _attention_functions(
    traced: ir.Model, config: AllMemConfig, activations: str
) -> Iterator[ir.Function]:
    """The attention's body; where layers differ, one for each kind of layer that nodes name."""
    kinds: dict[tuple[AttributeValue, ...], str] = {}
    nodes = [node for node in traced.graph if node.op_type == SLIDING_WINDOW_ATTENTION.name]
    named = config.windows is not None or config.local_layers is not None
    for index, node in enumerate(nodes):
        attributes = empty_layer(config, index).self_attn.attributes
        kind = tuple(attributes.values())
        if kind not in kinds:
            kinds[kind] = f"windows_{len(kinds)}" if named else ""
            body = attention_function(
                query_heads=config.num_attention_heads,
                kv_heads=config.num_key_value_heads,
                head_dim=config.head_dim,
                rotary_half=config.rotary_dim // 2,
                attributes=attributes,
                activation=activations,
                cache=config.cache_dtype,
            )
            body.overload = kinds[kind]
            yield ir.serde.deserialize_function(body)
        node.overload = kinds[kind]
