"""Whether disk and memory suffice for an export, told before the work begins."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import onnx_ir as ir

from allmem_exporters.errors import ExportError
from allmem_exporters.model.config import AllMemConfig
from allmem_exporters.model.state import state_spec
from allmem_exporters.model.weights import empty_layer
from allmem_exporters.onnx.export_options import ExportOptions
from allmem_exporters.onnx.sample_text import text_length
from allmem_runtime.machine import available_memory, free_disk
from allmem_runtime.quantities import format_bytes

_BESIDE = 64 << 20
"""Bytes on the disk for graph, tokenizer and texts."""
_LIBRARIES = 700 << 20
"""Memory of PyTorch, ONNX and what tracing needs."""
_LAYERS = 3
"""Copies of a layer in float32 that lie in memory at once, packed or widened."""
_SCORES = 5
"""Tensors with a score for each pair of tokens that a layer's attention in PyTorch takes."""
_STREAMS = 16
"""Token streams of the compared text that lie in memory at once."""
_BYTES = {"float32": 4.0, "float16": 2.0, "int8": 34 / 32, "int4": 20 / 32}
"""Of a weight as it is stored."""


def check_room(config: AllMemConfig, options: ExportOptions, out: Path) -> None:
    """Refuse to begin an export that disk or memory have no room for, before any of it is done.

    What memory windows take that a head table has yet to give is not known.

    Args:
        config: of the model.
        options: of the export.
        out: the folder that shall be made.

    Raises:
        ExportError: says how much is needed, how much there is, and what would fit.
    """
    _check_free(_BESIDE + file_bytes(config, options.storage), config, options, out)
    if options.windows is None or config.windows is not None:
        check_memory(
            config,
            storage=options.storage,
            matmul_kernel=options.matmul_kernel,
            tokens=text_length(config, options.check_tokens) if options.check else None,
        )


def check_disk(graph: ir.Model, config: AllMemConfig, options: ExportOptions, out: Path) -> None:
    """Refuse to begin a file that the disk has no room for, once its size is known to the byte.

    Args:
        graph: with every initializer by type and shape.
        config: of the model.
        options: of the export.
        out: the folder that shall be made.

    Raises:
        ExportError: says how much is needed, how much is free and what would fit.
    """
    values = graph.graph.initializers.values()
    needed = _BESIDE + sum(v.const_value.nbytes for v in values if v.const_value is not None)
    _check_free(needed, config, options, out)


def _check_free(needed: int, config: AllMemConfig, options: ExportOptions, out: Path) -> None:
    free = free_disk(out)
    if needed <= free:
        return
    hint = "Make room, or name another folder"
    if options.activations == "float32":  # others need weights of their own type
        sizes = {one: _BESIDE + file_bytes(config, one) for one in ("float16", "int8", "int4")}
        smaller = {one: size for one, size in sizes.items() if size < needed}
        fitting = {one: size for one, size in smaller.items() if size <= free}
        if fitting:
            one = max(fitting, key=fitting.__getitem__)
            hint += f", or store fewer bits: --weights {one} takes {format_bytes(fitting[one])}"
        elif smaller:
            least = min(smaller.values())
            hint += f"; even --weights int4 takes {format_bytes(least)}"
    raise ExportError(
        f"The model takes {format_bytes(needed)}; the disk of {out.absolute().parent} has "
        f"{format_bytes(free)} free.",
        f"{hint}.",
    )


def file_bytes(config: AllMemConfig, storage: str) -> int:
    """Bytes of an exported file, nearly: all weights count as if they were stored like matrices."""
    layer = sum(parameter.numel() for parameter in empty_layer(config).parameters())
    tables = _tables(config) * config.vocab_size * config.hidden_size
    of_table = _BYTES["int8" if storage == "int4" else storage]
    return int(config.num_hidden_layers * layer * _BYTES[storage] + tables * of_table)


def needed_memory(config: AllMemConfig, *, storage: str, laid_out: bool, tokens: int | None) -> int:
    """Bytes that an export takes at most.

    Args:
        config: of the model.
        storage: how matrices are stored.
        laid_out: whether ONNX Runtime lays them out once more when it opens the graph.
        tokens: length of the text it is compared on; None for no check.
    """
    layer = 4 * sum(parameter.numel() for parameter in empty_layer(config).parameters())
    of_table = _BYTES["int8" if storage == "int4" else storage]
    table = int(config.vocab_size * config.hidden_size * of_table)
    writing = _LAYERS * layer + table
    if tokens is None:
        return _LIBRARIES + writing
    # First the whole graph reads: its file is mapped, and its state is there before and after.
    state = state_spec(config).nbytes
    whole = file_bytes(config, storage) * (2 if laid_out else 1) + 2 * state
    # Then one layer after the other, while that state is kept.
    columns = config.sinks + config.window + config.chunk
    scores = 4 * config.num_attention_heads * min(config.chunk, tokens) * columns
    layers = max(_LAYERS * layer, layer + _SCORES * scores) + state
    streams = 4 * tokens * (config.intermediate_size * 2 + _STREAMS * config.hidden_size)
    return _LIBRARIES + max(writing, streams + max(whole, layers))


def check_memory(
    config: AllMemConfig, *, storage: str, matmul_kernel: str | None, tokens: int | None
) -> None:
    """Refuse to begin what the memory that is free cannot hold.

    Args:
        config: of the model.
        storage: how matrices are stored.
        matmul_kernel: which kernel multiplies integers; None for our own.
        tokens: length of the text it is compared on; None for no check.

    Raises:
        ExportError: says how much is needed, how much there is, and what would fit.
    """
    own = storage in ("int8", "int4") and matmul_kernel in (None, "allmem")
    laid_out = not own and storage != "float16"  # float16 is widened at each step
    needed = needed_memory(config, storage=storage, laid_out=laid_out, tokens=tokens)
    free = available_memory()
    if free is None or needed <= free:
        return
    ways = {
        "--weights int4": needed_memory(config, storage="int4", laid_out=False, tokens=tokens),
        "--no-check": needed_memory(config, storage=storage, laid_out=laid_out, tokens=None),
        "--weights int4 --no-check": needed_memory(
            config, storage="int4", laid_out=False, tokens=None
        ),
    }
    fitting = next((way for way, takes in ways.items() if takes <= free), None)
    hint = "Close other programs"
    if fitting is not None:
        hint += f", or export with {fitting}, which takes {format_bytes(ways[fitting])}"
    raise ExportError(
        f"The export takes {format_bytes(needed)} of memory; {format_bytes(free)} are available.",
        f"{hint}.",
    )


def _tables(config: AllMemConfig) -> int:
    return 1 if config.tie_word_embeddings else 2


def peak_memory() -> int:
    """Most bytes that this process had in memory so far, by the system's own count."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
