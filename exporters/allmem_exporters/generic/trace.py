"""From a model on the generic path to one ONNX graph with our operators and their function bodies.

All layers are traced, without their large matrices: these get values when the file is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx_ir as ir
from onnx_ir.passes.common import DeduplicateInitializersPass

from allmem_exporters.generic.config import GenericConfig
from allmem_exporters.generic.graph import GenericGraph
from allmem_exporters.generic.passes import shorten
from allmem_exporters.generic.passes.idle import drop_idle
from allmem_exporters.model.weights import ModelWeights
from allmem_exporters.onnx.attention_function import attention_function
from allmem_exporters.onnx.expert_function import expert_bodies
from allmem_exporters.onnx.operator_versions import operator_versions, operators_in
from allmem_exporters.onnx.program import finish, memory_body, program
from allmem_exporters.quantization.blocks import Matrix
from allmem_ops.schema import DOMAIN, SLIDING_WINDOW_ATTENTION

_PREFIX = "decoder.model."


def trace_generic(weights: ModelWeights) -> tuple[ir.Model, dict[str, Matrix]]:
    """Trace one step of a model.

    Args:
        weights: of a model on the generic path.

    Returns:
        A graph with the inputs and outputs of ``allmem_runtime.spec``, and its large matrices by
        the names of its initializers, which have no values.
    """
    config = weights.config
    assert isinstance(config, GenericConfig)
    graph = GenericGraph(weights).eval()
    traced = program(graph, config)
    drop_idle(traced)
    _rename(traced, graph.tables)
    DeduplicateInitializersPass()(traced)
    matrices = {graph.tables.get(name, name): one for name, one in graph.matrices.items()}
    matrices = shorten(traced, matrices, [site.path for site in config.probed.sites])
    finish(traced)
    for function in (
        *_attention_bodies(traced, graph, config),
        *expert_bodies(traced),
        memory_body(config, "float32"),
    ):
        traced.functions[function.identifier()] = function
    traced.opset_imports[DOMAIN] = max(operator_versions(config, operators_in(traced)).values())
    return traced, matrices


def _rename(model: ir.Model, tables: Mapping[str, str]) -> None:
    """Give initializers the names of the weights they hold, and tables those of the runtime."""
    for node in model.graph:
        for output in node.outputs:
            if output.name in tables.values():
                output.name = f"{output.name}.rows"
    initializers = list(model.graph.initializers.values())
    model.graph.initializers.clear()
    for value in initializers:
        name = str(value.name).removeprefix(_PREFIX)
        value.name = tables.get(name, name)
        model.graph.register_initializer(value)


def _attention_bodies(
    traced: ir.Model, graph: GenericGraph, config: GenericConfig
) -> Iterator[ir.Function]:
    """The attention's body; one for each kind of layer, which nodes name."""
    kinds: dict[tuple[object, ...], str] = {}
    nodes = [node for node in traced.graph if node.op_type == SLIDING_WINDOW_ATTENTION.name]
    for index, (node, site) in enumerate(zip(nodes, config.probed.sites, strict=True)):
        attributes = graph.decoder.attributes(index)
        half = len(graph.decoder.get_buffer(f"frequencies_{index}"))
        kind = (half, site.sink_logits, *attributes.items())
        if kind not in kinds:
            kinds[kind] = f"kind_{len(kinds)}" if kinds else ""
            body = attention_function(
                query_heads=site.query_heads,
                kv_heads=site.kv_heads,
                head_dim=site.head_dim,
                rotary_half=half,
                attributes=attributes,
                cache=config.cache_dtype,
                sink_logits=site.sink_logits,
            )
            body.overload = kinds[kind]
            yield ir.serde.deserialize_function(body)
        node.overload = kinds[kind]
