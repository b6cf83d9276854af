"""What `optimum-cli export allmem` does: convert if need be, look up the registry, export."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from optimum.exporters.tasks import TasksManager

from allmem_exporters.convert.conversion import convert
from allmem_exporters.errors import ExportError
from allmem_exporters.model.config import AllMemConfig
from allmem_exporters.onnx.export import export
from allmem_exporters.optimum import registry as optimum  # noqa: F401  (registers the model type)


def is_checkpoint(source: Path) -> bool:
    """Whether ``source`` is a folder with an AllMem model, not one to convert."""
    try:
        config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("model_type") == AllMemConfig.model_type


def run(
    model: str,
    output: str | Path,
    *,
    weights: str | None = None,
    products: str | None = None,
    activations: str = "float32",
    kv: str | None = None,
    check: bool = True,
    force: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> None:
    """Export ``model`` to the folder ``output``.

    Args:
        model: AllMem checkpoint, or anything that `allmem convert` takes.
        output: folder to write.
        weights: ``float32``, ``float16``, ``int8`` or ``int4``; None for float32, or for float16
            where the activations are.
        products: ``allmem`` or ``onnxruntime``, who multiplies int8 and int4; None for ``allmem``.
        activations: ``float32``, or ``float16`` for GPUs.
        kv: ``float16``, ``float32`` or ``int8``, how keys and values are kept; None as the
            checkpoint says.
        check: compare the graph with PyTorch.
        force: replace ``output`` whatever it is.
        report: is told what happens, a line at a time.

    Raises:
        ExportError: the model type is in no registry entry, or the export failed.
        ConversionError: the source cannot be converted.
    """
    if "text-generation" not in TasksManager.get_supported_tasks_for_model_type(
        AllMemConfig.model_type, "onnx", library_name="transformers"
    ):
        raise ExportError("optimum's registry does not know the model type 'allmem'.")
    options: dict[str, Any] = {
        "weights": weights,
        "products": products,
        "activations": activations,
        "kv": kv,
        "check": check,
        "force": force,
        "report": report,
    }
    if is_checkpoint(Path(model)):
        export(model, output, **options)
        return
    with tempfile.TemporaryDirectory(prefix="allmem-") as folder:
        report(f"converting {model}")
        export(convert(model, Path(folder) / "checkpoint"), output, **options)
