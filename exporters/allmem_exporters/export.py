"""`allmem export`: from an AllMem checkpoint to a folder that the runtime opens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from allmem_exporters.errors import ExportError
from allmem_exporters.modeling import AllMemForCausalLM
from allmem_exporters.trace import trace
from allmem_exporters.validate import validate
from allmem_exporters.weights import store
from allmem_exporters.write import replacing, write_folder
from allmem_runtime.config import Manifest


def export(
    checkpoint: str | Path,
    out: str | Path,
    *,
    weights: str = "float32",
    cache: str | None = None,
    check: bool = True,
    check_tokens: int | None = None,
    force: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> Manifest:
    """Export a checkpoint to ONNX and compare the result with it.

    Args:
        checkpoint: folder made by ``convert`` or ``save_pretrained``.
        out: folder to write; it appears only when everything, the check included, went well.
        weights: ``float32`` or ``float16``, how matrices are stored.
        cache: ``float16`` or ``float32``, the type keys and values are kept in; None takes the
            checkpoint's own.
        check: run the graph against PyTorch (see ``validate``).
        check_tokens: length of the text for that; None for a bit more than the window.
        force: replace ``out`` even if it holds no export.
        report: is told what happens, a line at a time.

    Returns:
        The manifest of the exported model.

    Raises:
        ExportError: the checkpoint cannot be read, the folder not written, or the check failed.
    """
    checkpoint, out = Path(checkpoint), Path(out)
    if not (checkpoint / "config.json").is_file():
        raise ExportError(
            f"{checkpoint} is no checkpoint: it has no config.json.",
            "Make one with `allmem convert SOURCE CHECKPOINT`.",
        )
    report(f"loading {checkpoint}")
    changes = {} if cache is None else {"cache_dtype": cache}
    model = AllMemForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, **changes).eval()
    with replacing(out, force=force) as folder:
        report("tracing")
        graph = trace(model)
        store(graph, weights)
        report(f"writing {out}")
        manifest = write_folder(graph, model.config, checkpoint, folder, weights)
        del graph
        if check:
            report("checking against PyTorch (relative RMS differences)")
            validate(folder, model, storage=weights, tokens=check_tokens, report=report)
    report(f"done: {out}, state {manifest.state.nbytes / 2**20:.1f} MiB whatever is read")
    return manifest
