"""The windows that an export gives: a head table, a budget of bytes, and what they make of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from allmem_exporters.errors import ExportError
from allmem_exporters.heads.allocation import Rows, allocate
from allmem_exporters.heads.head_table import HeadTable
from allmem_exporters.model.config import AllMemConfig
from allmem_exporters.model.state import state_spec
from allmem_runtime.head_windows import ring_bytes, shares, window_lines


def give_windows(
    path: Path,
    config: AllMemConfig,
    decoder: str,
    budget: int | None,
    report: Callable[[str], None],
) -> None:
    """Give each layer's key/value heads windows of their own, in ``config``.

    Args:
        path: of the head table.
        config: of the model, with sinks, chunk and cache as they shall be; is changed.
        decoder: digest of its weights.
        budget: bytes of the whole state; None for those of the uniform window in ``config``.
        report: is told who was given what.

    Raises:
        ExportError: the table is another model's or damaged, or the budget is too small.
    """
    if config.local_layers is not None:
        raise ExportError(
            f"{path}: layers of this model keep windows of their own, as it was trained.",
            "Leave out --windows.",
        )
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
    most = config.max_position_embeddings - config.sinks
    most = max(config.chunk, min(most, config.trained_window or most))
    row = Rows(rings // rows, config.sinks, most, beside=spec.nbytes - rings)
    windows = allocate(table, spec.nbytes if budget is None else budget, row, config.chunk)
    config.windows, config.window = windows, max(max(layer) for layer in windows)
    report("windows by head:")
    told = shares(windows, [config.sinks] * layers, ring_bytes(state_spec(config)))
    for line in window_lines(windows, told):
        report(line)
