"""Which version of each of our operators a graph needs: the one its contract changed in last."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from allmem_exporters.model.config import AllMemConfig
from allmem_ops.schema import (
    ATTENTION_BY_HEAD,
    CAPPED_ATTENTION_VERSION,
    DOMAIN,
    KNOWN,
    SINK_LOGITS_VERSION,
)


def operators_in(model: ir.Model) -> frozenset[str]:
    """The names of our operators that a graph has nodes of."""
    return frozenset(node.op_type for node in model.graph if node.domain == DOMAIN)


def operator_versions(config: AllMemConfig, used: Collection[str]) -> dict[str, int]:
    """Versions by the operators' names.

    Args:
        config: of the model.
        used: the operators that are in the graph.
    """
    versions = {name: KNOWN[name].version for name in KNOWN if name in used}
    if config.windows is not None:
        versions[ATTENTION_BY_HEAD.name] = ATTENTION_BY_HEAD.version
    if config.attention_softcap is not None:
        versions[ATTENTION_BY_HEAD.name] = CAPPED_ATTENTION_VERSION
    if config.sink_logits:
        versions[ATTENTION_BY_HEAD.name] = SINK_LOGITS_VERSION
    return versions
