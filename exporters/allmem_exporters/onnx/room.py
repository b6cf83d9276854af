"""Whether disk and memory suffice for an export, told before the work begins."""

from __future__ import annotations

import resource
import shutil
import sys
from pathlib import Path

import onnx_ir as ir

from allmem_exporters.errors import ExportError
from allmem_exporters.model.config import AllMemConfig
from allmem_exporters.model.weights import empty_layer
from allmem_runtime.available_memory import available_memory
from allmem_runtime.quantities import format_bytes

_BESIDE = 64 << 20
"""Bytes on the disk for graph, tokenizer and texts."""
_LIBRARIES = 600 << 20
"""Memory of PyTorch, ONNX and what tracing needs."""
_LAYERS = 3
"""Copies of a layer in float32 that lie in memory at once, packed or widened."""
_STREAMS = 16
"""Token streams of the compared text that lie in memory at once."""


def check_disk(graph: ir.Model, folder: Path) -> None:
    """Refuse to begin a file that the disk has no room for.

    Args:
        graph: with every initializer by type and shape.
        folder: where the file shall be.

    Raises:
        ExportError: says how much is needed, how much is free and what would need less.
    """
    values = graph.graph.initializers.values()
    needed = _BESIDE + sum(v.const_value.nbytes for v in values if v.const_value is not None)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ExportError(
            f"The model takes {format_bytes(needed)}; the disk of {folder.parent} has "
            f"{format_bytes(free)} free.",
            "Make room, name another folder, or store fewer bits: --weights int4 takes the least.",
        )


def needed_memory(config: AllMemConfig, *, table_bytes: int, tokens: int | None) -> int:
    """Bytes that an export takes at most.

    Args:
        config: of the model.
        table_bytes: that embedding or head take as they are stored.
        tokens: length of the text it is compared on; None for no check.
    """
    layer = 4 * sum(parameter.numel() for parameter in empty_layer(config).parameters())
    needed = _LIBRARIES + _LAYERS * layer + table_bytes
    if tokens is not None:
        widest = config.intermediate_size * 2 + _STREAMS * config.hidden_size
        needed += 4 * tokens * widest
    return needed


def check_memory(needed: int, hint: str) -> None:
    """Refuse to begin what the memory that is free cannot hold.

    Args:
        needed: bytes.
        hint: what would need less.

    Raises:
        ExportError: says how much is needed and how much there is.
    """
    free = available_memory()
    if free is not None and needed > free:
        raise ExportError(
            f"The export takes {format_bytes(needed)} of memory; {format_bytes(free)} are "
            "available.",
            hint,
        )


def peak_memory() -> int:
    """Most bytes that this process had in memory so far, by the system's own count."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
