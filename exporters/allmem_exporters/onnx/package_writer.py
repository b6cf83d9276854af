"""Write a traced model as a folder: graph, weights, manifest, tokenizer, templates."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import onnx_ir as ir

from allmem_exporters.errors import ExportError
from allmem_exporters.local_files import file_in, json_in
from allmem_exporters.model.config import AllMemConfig
from allmem_exporters.onnx.capture import captured
from allmem_exporters.onnx.operator_versions import operator_versions, operators_in
from allmem_exporters.quantization.formats import finish_file
from allmem_exporters.texts_trial import end_tokens
from allmem_exporters.tokenizer_file import named_failure, read_tokenizer
from allmem_runtime.config import Backbone, FileRecord, LocalLayers, Manifest, Memory
from allmem_runtime.files.digest import file_digest
from allmem_runtime.files.temporary import is_temporary
from allmem_runtime.spec import (
    CHAT_TEMPLATE_FILE,
    DECODER_KEY,
    GENERATION_FILE,
    GRAPH_FILE,
    MANIFEST_FILE,
    METADATA_KEY,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
)
from allmem_runtime.text.pipeline import beginning

PROVENANCE_FILE = "provenance.json"
SMALL_TENSOR = 1024
"""Tensors of fewer bytes stay in the graph, where shape inference can read them."""


_WRITTEN = frozenset({CHAT_TEMPLATE_FILE, GENERATION_FILE, GRAPH_FILE, MANIFEST_FILE,
                      TOKENIZER_FILE, WEIGHTS_FILE, "prepared"})  # fmt: skip
"""What there may be in the folder of an earlier export; the last is what `allmem prepare` makes."""


def check_destination(out: Path, *, force: bool) -> None:
    """Refuse to replace what is no exported model, or holds more than that.

    Raises:
        ExportError: ``out`` holds something else, and ``force`` is not set.
    """
    if force or not out.exists():
        return
    entries = [path.name for path in out.iterdir()] if out.is_dir() else [out.name]
    if entries and not (out / MANIFEST_FILE).is_file():
        raise ExportError(
            f"{out} exists and holds no exported model.",
            "Name another folder, or replace it with --force.",
        )
    others = sorted(name for name in entries if name not in _WRITTEN and not is_temporary(name))
    if others:
        raise ExportError(
            f"{out} holds {others[0]} beside an exported model, which would be deleted.",
            "Move it elsewhere, or replace the folder with all it holds with --force.",
        )


def write_folder(
    model: ir.Model,
    config: AllMemConfig,
    checkpoint: Path,
    folder: Path,
    storage: str,
    activations: str = "float32",
    decoder: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Manifest:
    """Fill ``folder`` with a model that the runtime opens.

    Args:
        model: traced graph, weights stored as they shall be.
        config: of the checkpoint.
        checkpoint: folder it came from, for tokenizer, templates and provenance.
        folder: an empty folder.
        storage: how the weights are stored, for the manifest.
        activations: type of the token stream, for the manifest.
        decoder: digest of the decoder's weights without the memories, by which two exports of one
            decoder know each other.
        progress: is told how many bytes of how many are written.

    Returns:
        The manifest, which also lies in the graph's metadata.

    Raises:
        ExportError: the checkpoint has no tokenizer, or the disk is full.
    """
    tokenizer = checkpoint / TOKENIZER_FILE
    if not tokenizer.is_file():
        raise ExportError(
            f"{checkpoint} has no {TOKENIZER_FILE}.",
            "Convert the model again from a source with a fast tokenizer.",
        )
    tensors = (value.const_value for value in model.graph.initializers.values())
    total = sum(tensor.nbytes for tensor in tensors if tensor is not None)
    try:
        ir.save(
            model,
            folder / GRAPH_FILE,
            external_data=WEIGHTS_FILE,
            size_threshold_bytes=SMALL_TENSOR,
            callback=progress and (lambda tensor, place: progress(place.offset, total)),
        )
        for name in (TOKENIZER_FILE, CHAT_TEMPLATE_FILE, GENERATION_FILE):
            if (path := file_in(checkpoint, name)) is not None:
                shutil.copyfile(path, folder / name)
        operators = operator_versions(config, operators_in(model))
        manifest = _manifest(config, checkpoint, folder, storage, activations, decoder, operators)
        manifest = replace(manifest, captured=captured(model.graph, config.backbone))
        # What opening would refuse is not published.
        manifest = Manifest.from_json(manifest.to_json(), str(checkpoint))
        embed_manifest(folder / GRAPH_FILE, manifest)
        (folder / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")
    except OSError as error:
        raise ExportError(
            f"Writing the model to {folder.parent} failed ({error.strerror}).",
            "Free disk space or name another folder; nothing was replaced.",
        ) from error
    return manifest


def embed_manifest(graph: Path, manifest: Manifest) -> None:
    """Put the manifest into the graph's metadata, leaving the weights where they are."""
    proto = onnx.load(graph, load_external_data=False)
    finish_file(proto.graph)
    onnx.helper.set_model_props(proto, {METADATA_KEY: manifest.to_json()})
    graph.write_bytes(proto.SerializeToString())


def _manifest(
    config: AllMemConfig,
    checkpoint: Path,
    folder: Path,
    storage: str,
    activations: str,
    decoder: str | None,
    operators: dict[str, int],
) -> Manifest:
    source = _provenance(checkpoint)
    if decoder is not None:
        source[DECODER_KEY] = decoder
    return Manifest(
        name=source.get("name", checkpoint.name).removesuffix(".gguf"),
        backbone=Backbone(
            model_type=config.backbone,
            layers=config.num_hidden_layers,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            query_heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            head_dim=config.head_dim,
            vocab_size=config.vocab_size,
            trained_context=config.max_position_embeddings,
        ),
        memory=Memory(
            heads=config.mem_heads,
            width=config.mem_width,
            hidden=config.mem_hidden,
            kernel=config.conv_kernel,
        ),
        window=config.window,
        windows=tuple(map(tuple, config.windows)) if config.windows else None,
        local=_local(config),
        sinks=config.sinks,
        chunk=config.chunk,
        cache=config.cache_dtype,  # type: ignore[arg-type]
        weights=storage,
        activations=activations,  # type: ignore[arg-type]
        operators=operators,
        begin_tokens=_begin_tokens(config, folder / TOKENIZER_FILE),
        end_tokens=end_tokens(config, folder / GENERATION_FILE),
        files={
            path.name: FileRecord(path.stat().st_size, file_digest(path))
            for path in sorted(folder.iterdir())
            if path.name != GRAPH_FILE
        },
        source=source,
    )


def _local(config: AllMemConfig) -> LocalLayers | None:
    if config.local_layers is None or config.local_window is None:
        return None
    return LocalLayers(tuple(sorted(set(config.local_layers))), config.local_window)


def _provenance(checkpoint: Path) -> dict[str, str]:
    values = json_in(checkpoint, PROVENANCE_FILE) or {}
    return {key: str(value)[:1000] for key, value in values.items()}


def _begin_tokens(config: AllMemConfig, path: Path) -> tuple[int, ...]:
    """What the tokenizer puts before every text."""
    tokenizer = read_tokenizer(path)
    with named_failure(f"{path} is no tokenizer", "Convert its source again."):
        found = tuple(beginning(tokenizer))
    if odd := [token for token in found if token >= config.vocab_size]:
        raise ExportError(
            f"{path} begins texts with the token {odd[0]}; the model has {config.vocab_size}.",
            "Tokenizer and weights come from different models: convert the source again.",
        )
    return found
