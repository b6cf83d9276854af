"""What the generic path cannot do yet, refused before any work is done."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from allmem_exporters.errors import ExportError
from allmem_exporters.model.config import AllMemConfig
from allmem_runtime.files.graph_operators import ALLOWED


def refuse_on_generic_path(
    config: AllMemConfig,
    *,
    windows: Path | None = None,
    calibration: str | None = None,
    activations: str = "float32",
) -> None:
    """Refuse options that need a family whose mathematics is known.

    Args:
        config: of the model.
        windows: path of a head table.
        calibration: a text that memories are fitted to.
        activations: type of the token stream.

    Raises:
        ExportError: names the option.
    """
    where = f"{config.backbone} decoders go the generic path, on which"
    if windows is not None or config.windows is not None:
        raise ExportError(f"{where} all heads have one window.", "Leave --windows out.")
    if calibration is not None:
        raise ExportError(f"{where} memories are not fitted to a text.", "Leave --calibrate out.")
    if activations != "float32":
        raise ExportError(
            f"{where} activations are float32.", "Leave --activations out; --weights is free."
        )


def refuse_operators(model: ir.Model) -> None:
    """Refuse a graph that the runtime would not open.

    Raises:
        ExportError: names an operator that it does not know.
    """
    for node in model.graph:
        if node.op_type not in ALLOWED.get(node.domain, {}):
            raise ExportError(
                f"The decoder computes something by the operator {node.op_type!r}, which the "
                "runtime does not open.",
                "Please report it with the model's config.json.",
            )
