"""`allmem export`: from an AllMem checkpoint to a folder that the runtime opens."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch

from allmem_exporters.ablation.memory_ablation import FORMER_NAMES, MEMORIES, restrain
from allmem_exporters.errors import ExportError
from allmem_exporters.model.adapter import base_digest
from allmem_exporters.model.checkpoint import open_checkpoint
from allmem_exporters.model.config import AllMemConfig
from allmem_exporters.onnx.package_writer import replacing, write_folder
from allmem_exporters.onnx.step_module import DTYPES
from allmem_exporters.onnx.trace import trace
from allmem_exporters.onnx.validate import validate
from allmem_exporters.quantization.formats import stored_format
from allmem_exporters.quantization.store import store
from allmem_runtime.config import Manifest


def export(
    checkpoint: str | Path,
    out: str | Path,
    *,
    weights: str | None = None,
    products: str | None = None,
    activations: str = "float32",
    kv: str | None = None,
    window: int | None = None,
    sinks: int | None = None,
    chunk: int | None = None,
    memory: str = "enabled",
    check: bool = True,
    check_tokens: int | None = None,
    force: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> Manifest:
    """Export a checkpoint to ONNX and compare the result with it.

    Args:
        checkpoint: folder made by ``convert`` or ``save_pretrained``.
        out: folder to write; it appears only when everything, the check included, went well.
        weights: ``float32``, ``float16``, ``int8`` or ``int4``, how matrices are stored; None for
            float32, or for float16 where the activations are.
        products: who multiplies weights of int8 and int4: ``allmem``, our own operator, for CPUs;
            or ``onnxruntime``, its MatMulNBits, for GPUs and for programs without our library.
            None for ``allmem``.
        activations: ``float32``, or ``float16`` for GPUs; see docs/float16.md. Float16 activations
            need float16 weights; keys and values may have any type.
        kv: ``float16``, ``float32`` or ``int8``, how keys and values are kept; None takes the
            checkpoint's own. Int8 runs on the CPU only.
        window: tokens the attention sees; None takes the checkpoint's own. A window as long as
            all that is read makes the attention full.
        sinks: first tokens that stay visible; None takes the checkpoint's own.
        chunk: tokens between two commits; None takes the checkpoint's own, or the window if that
            is shorter.
        memory: ``enabled``; ``frozen``, it is read and never written; ``disabled``, it has no
            effect. The latter two show what the memory is worth.
        check: run the graph against PyTorch (see ``validate``).
        check_tokens: length of the text for that; None for a bit more than the window.
        force: replace ``out`` even if it holds no export.
        report: is told what happens, a line at a time.

    Returns:
        The manifest of the exported model.

    Raises:
        ConversionError: the checkpoint is damaged, of another kind, or lacks a weight.
        ExportError: there is no checkpoint, the folder cannot be written, the options contradict
            each other, or the check failed.
    """
    weights = weights or activations
    stored_as = stored_format(weights, products)
    _check_types(weights, activations)
    memory = FORMER_NAMES.get(memory, memory)
    if memory not in MEMORIES:
        raise ExportError(f"memory is {memory!r}; allowed: {', '.join(MEMORIES)}.")
    checkpoint, out = Path(checkpoint), Path(out)
    if not (checkpoint / "config.json").is_file():
        raise ExportError(
            f"{checkpoint} is no checkpoint: it has no config.json.",
            "Make one with `allmem convert SOURCE CHECKPOINT`.",
        )
    report(f"loading {checkpoint}")
    changes = _changes(checkpoint, window, sinks, chunk, kv)
    # Unchecked, large models take half the memory: nothing needs them in float32.
    dtype = torch.float32 if check or activations == "float32" else "auto"
    model = open_checkpoint(checkpoint, dtype, **changes)
    decoder = base_digest(model)
    restrain(model, memory)
    with replacing(out, force=force) as folder:
        report("tracing")
        graph = trace(model, activations)
        # With float16 activations the graph was traced with float16 matrices.
        stored = store(graph, stored_as) if activations == "float32" else {}
        report(f"writing {out}")
        manifest = write_folder(
            graph, model.config, checkpoint, folder, weights, activations, decoder=decoder
        )
        del graph
        if check:
            report("checking against PyTorch (relative RMS differences)")
            validate(
                folder,
                model,
                storage=weights,
                products=products,
                stored=stored,
                activations=activations,
                tokens=check_tokens,
                report=report,
            )
    report(f"done: {out}, state {manifest.state.nbytes / 2**20:.1f} MiB whatever is read")
    return manifest


def _changes(
    checkpoint: Path, window: int | None, sinks: int | None, chunk: int | None, kv: str | None
) -> dict[str, int | str]:
    """Fields of the configuration that an export may change."""
    given = {"window": window, "sinks": sinks, "chunk": chunk, "cache_dtype": kv}
    changes = {key: value for key, value in given.items() if value is not None}
    if window is not None and chunk is None:
        kept = json.loads((checkpoint / "config.json").read_text(encoding="utf-8")).get("chunk")
        changes["chunk"] = min(kept or AllMemConfig.chunk, window)
    return changes


def _check_types(weights: str, activations: str) -> None:
    if activations not in DTYPES:
        raise ExportError(
            f"activations is {activations!r}; allowed: {', '.join(DTYPES)}.",
            "A GPU is fastest with float16, a CPU with float32.",
        )
    if activations == "float16" and weights != "float16":
        raise ExportError(
            f"Weights stored as {weights} do not go with activations in float16: the products "
            "need both in one type.",
            "Leave --weights out, or export with --activations float32.",
        )
