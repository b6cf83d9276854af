"""The windows that an export gives: a head table, a budget of bytes, and what they make of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from allmem_exporters.errors import ExportError
from allmem_exporters.heads.allocation import Rows, allocate
from allmem_exporters.heads.head_table import HeadTable
from allmem_exporters.model.config import AllMemConfig
from allmem_exporters.model.state import state_spec
from allmem_runtime.quantities import format_tokens
from allmem_runtime.spec import StateSpec

_RINGS = ("key", "value", "scale")


def windows_by_head(
    path: Path,
    config: AllMemConfig,
    decoder: str,
    budget: int | None,
    report: Callable[[str], None],
) -> list[list[int]]:
    """Windows of each layer's key/value heads.

    Args:
        path: of the head table.
        config: of the model, with sinks, chunk and cache as they shall be.
        decoder: digest of its weights.
        budget: bytes of the whole state; None for those of the uniform window in ``config``.
        report: is told who was given what.

    Raises:
        ExportError: the table is another model's or damaged, or the budget is too small.
    """
    table = HeadTable.read(path)
    if table.decoder != decoder:
        raise ExportError(
            f"{path} was made for another decoder (weights {table.decoder[:12]}; here "
            f"{decoder[:12]}).",
            "Make one for this model with `allmem heads`.",
        )
    heads, layers = config.num_key_value_heads, config.num_hidden_layers
    if len(table.worth) != layers or any(len(row) != heads for row in table.worth):
        raise ExportError(f"{path} has not {heads} heads in each of {layers} layers.")
    spec = state_spec(config)
    rings = ring_bytes(spec)
    rows = sum(t.shape[1] * t.shape[2] for _, t in spec if t.name == "key")
    if config.windows:
        rows = sum(t.shape[1] for _, t in spec if t.name == "key")
    allowed = rings if budget is None else budget - (spec.nbytes - rings)
    most = max(config.chunk, config.max_position_embeddings - config.sinks)
    windows = allocate(table, allowed, Rows(rings // rows, config.sinks, most), config.chunk)
    report(f"windows by head: {told(windows)}")
    return windows


def ring_bytes(spec: StateSpec) -> int:
    """Bytes of keys and values, and of their scales."""
    return sum(tensor.nbytes for _, tensor in spec if tensor.name in _RINGS)


def told(windows: list[list[int]]) -> str:
    """How many heads have which window, in words."""
    counts = Counter(window for layer in windows for window in layer)
    parts = [f"{count} of {format_tokens(window)}" for window, count in sorted(counts.items())]
    return f"{', '.join(parts)} tokens"
