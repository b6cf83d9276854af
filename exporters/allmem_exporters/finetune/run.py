"""`allmem finetune`: from a checkpoint and training data to a memory adapter."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from allmem_exporters.errors import ConversionError, DataError
from allmem_exporters.finetune.data import Shards
from allmem_exporters.finetune.data.shard_format import tokenizer_digest
from allmem_exporters.finetune.evaluate import middle
from allmem_exporters.finetune.metrics import MetricsFile, plot
from allmem_exporters.finetune.resume import RunFile
from allmem_exporters.finetune.settings import Settings
from allmem_exporters.finetune.trainer import Step, Trainer, cut, precision_of
from allmem_exporters.local_files import file_in
from allmem_exporters.model.adapter import STRUCTURE, Adapter, base_digest, save_adapter
from allmem_exporters.model.checkpoint import open_checkpoint
from allmem_runtime.engine.malloc import map_large_blocks
from allmem_runtime.errors import StorageError
from allmem_runtime.files.digest import file_digest

TOKENIZER_FILE = "tokenizer.json"
ADAPTER_FILE = "memory.safetensors"
RUN_FILE = "run.safetensors"
METRICS_FILE = "metrics.jsonl"
PLOT_FILE = "metrics.png"


def finetune(
    checkpoint: Path,
    data: Path,
    out: Path,
    settings: Settings,
    *,
    start: Path | None = None,
    device: str = "cpu",
    report: Callable[[str], None] = lambda line: None,
    show: Callable[[Step], None] = lambda step: None,
) -> dict[str, Any]:
    """Train the memories of a checkpoint and write them as an adapter.

    A run that was cut off goes on where it was saved last, to the same end.

    Args:
        checkpoint: folder made by ``convert``; it stays as it is.
        data: shard folder made by `allmem data`.
        out: folder for the adapter, the run and its figures.
        settings: of the run.
        start: an adapter to begin with instead of the checkpoint's own memories.
        device: ``cpu`` or ``cuda``.
        report: is told what happens, a line at a time.
        show: is given every step.

    Returns:
        The manifest of the adapter.

    Raises:
        ConversionError: the checkpoint or the adapter to begin with cannot be read or do not fit,
            or a file of one of the folders is a link out of it.
        DataError: the data cannot be read, is not for this model, or a run of another kind is in
            the folder.
        StorageError: there is no room, or the folder cannot be written.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ConversionError(
            "PyTorch finds no CUDA device.", "Install a CUDA build of PyTorch, or use --device cpu."
        )
    map_large_blocks()
    report(f"loading {checkpoint}")
    model = open_checkpoint(checkpoint, torch.float32)
    if model.config.windows is not None:
        raise DataError(
            f"The heads of {checkpoint} have windows of their own; training gives all one.",
            "Train a checkpoint without them; `allmem export --windows` gives them afterwards.",
        )
    vocabulary = model.config.vocab_size
    tokenizer = tokenizer_digest(checkpoint) if (checkpoint / TOKENIZER_FILE).is_file() else None
    train = Shards(data, split="train", vocab_size=vocabulary, tokenizer=tokenizer)
    heldout = Shards(data, split="heldout", vocab_size=vocabulary, tokenizer=tokenizer)
    if not len(train):
        raise DataError(f"{data} holds no training sequence.", "Make it with `allmem data`.")
    base = base_digest(model)
    if start is not None:
        adapter = Adapter(start)
        if settings.writes and adapter.manifest.get("writes") is False:
            raise ConversionError(
                f"{start} is a twin that never writes, and learns to write from nothing.",
                "Begin with another adapter, or train it on with --no-writes.",
            )
        adapter.apply(model)
    model.to(torch.device(device))  # type: ignore[arg-type]  # transformers' wrapper hides self
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{out} cannot be made ({error.strerror}).", "Name another.") from error
    for name in (ADAPTER_FILE, RUN_FILE, METRICS_FILE, PLOT_FILE):
        file_in(out, name)  # what was there may be of somebody else, and is read and added to
    identity: dict[str, Any] = {
        "settings": settings.as_dict(),
        "precision": precision_of(settings, device),
        "data": file_digest(data / "index.json"),
        "decoder": base,
        "memory": {key: getattr(model.config, key) for key in STRUCTURE},
        "start": file_digest(start) if start else "",
    }
    _warn_of_silence(train, settings, data, report)
    _tell_of_windows(train, heldout, settings, report)
    metrics = MetricsFile(out / METRICS_FILE)
    trainer = Trainer(model, train, heldout, settings, RunFile(out / RUN_FILE, identity), metrics)
    if trainer.standing.step:
        report(f"going on after step {trainer.standing.step} of {settings.steps}")
    found = trainer.run(show, report)
    manifest = {
        "settings": settings.as_dict(),
        "data": identity["data"],
        "started_from": identity["start"],
        "steps": trainer.standing.step,
        "tokens": trainer.standing.tokens,
        "skipped": trainer.standing.skipped,
        "writes": settings.writes,
        "heldout": {k: v for k, v in found.items() if isinstance(v, float)},
        "peak_memory_bytes": peak_memory(device),
    }
    save_adapter(model, out / ADAPTER_FILE, manifest, base)
    report(f"wrote {out / ADAPTER_FILE}")
    try:
        plot(metrics, out / PLOT_FILE)
    except ImportError:
        report(f"no {PLOT_FILE}: matplotlib is not installed")
    return manifest


def _warn_of_silence(
    train: Shards, settings: Settings, data: Path, report: Callable[[str], None]
) -> None:
    """Say how many sequences have lost all that counts to ``length``; refuse if all have."""
    if not settings.length or settings.stage == "layers":  # layers learn from every token
        return
    empty = sum(not cut(train[i], settings.length).counts.any() for i in range(len(train)))
    if empty == len(train):
        raise DataError(
            f"No sequence of {data} has a token to learn from within {settings.length} tokens.",
            "Make the data at that length with `allmem data --length`.",
        )
    if empty:
        report(
            f"{empty} of {len(train)} sequences have nothing to learn from within "
            f"{settings.length} tokens; make the data at that length with `allmem data --length`"
        )


def _tell_of_windows(
    train: Shards, heldout: Shards, settings: Settings, report: Callable[[str], None]
) -> None:
    """Say where a window holds whole sequences, so that nothing lies beyond it."""
    draws = settings.draws
    windows = {
        "training's smallest window": (train, draws.window[0], draws.sinks[0]),
        "the window of held-out figures": (
            heldout, middle(draws.window), sum(draws.sinks) // 2
        ),
    }  # fmt: skip
    for name, (shards, window, sinks) in windows.items():
        longest = max((entry["length"] for entry in shards.entries), default=0)
        longest = min(longest, settings.length or longest)
        if 0 < longest <= window + sinks:
            report(
                f"notice: {name} ({window} and {sinks} sinks) is not smaller than the longest "
                f"sequence ({longest} tokens): nothing lies beyond it for a memory to recall; "
                "lower draws.window, or make longer data with `allmem data --length`"
            )


def peak_memory(device: str) -> int:
    """Most bytes used so far: of the device, or of this process on a CPU."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
