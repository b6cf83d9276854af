"""Passes over a traced graph of the generic path, after which it has few nodes.

A node costs a step of one token some microseconds, whatever it does. What transformers' code writes
as many small steps, the packed graph computes by few: these passes make them of the others.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from allmem_exporters.generic.passes.activations import activations_as_nodes
from allmem_exporters.generic.passes.norms import norms_as_nodes, sums_into_norms
from allmem_exporters.generic.passes.order import order_rows
from allmem_exporters.generic.passes.products import add_in_products, merge_products
from allmem_exporters.generic.passes.views import drop_views
from allmem_exporters.quantization.blocks import Matrix


def shorten(
    model: ir.Model, matrices: Mapping[str, Matrix], attentions: Collection[str]
) -> dict[str, Matrix]:
    """Let a graph compute the same by fewer nodes, in place.

    Args:
        model: as it is traced; what does nothing is out of it.
        matrices: the large ones by the names of its initializers.
        attentions: paths of the attentions, by which the names of their weights begin.

    Returns:
        The large matrices that it has now.
    """
    norms_as_nodes(model)
    activations_as_nodes(model.graph)
    drop_views(model.graph)
    RemoveUnusedNodesPass()(model)  # the other passes look at who reads a value
    found = merge_products(model, matrices, attentions)
    found = add_in_products(model, found)
    found = order_rows(model, found)
    sums_into_norms(model.graph)
    RemoveUnusedNodesPass()(model)
    return found
