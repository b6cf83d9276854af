"""The folder that a conversion writes: whether there is room, what goes in, and its publication."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from allmem_exporters.convert.calibrated_weights import CalibratedWeights
from allmem_exporters.convert.opening import Converted
from allmem_exporters.convert.weights_file import Sizes, bytes_of, write_weights
from allmem_exporters.errors import ConversionError
from allmem_exporters.generic.config import GenericConfig
from allmem_exporters.generic.names import weight_shapes
from allmem_exporters.generic.weights import GenericConverted
from allmem_exporters.local_files import SHARD_INDEX, SINGLE_FILE
from allmem_exporters.model.adapter import Adapter
from allmem_exporters.model.config import AllMemConfig
from allmem_exporters.model.modeling import AllMemForCausalLM
from allmem_exporters.model.weights import EMBEDDING, HEAD, Table
from allmem_exporters.sources import Source
from allmem_runtime.files.atomic import sync, sync_folder
from allmem_runtime.machine import free_disk
from allmem_runtime.quantities import format_bytes

PROVENANCE_FILE = "provenance.json"
_REPLACED = (SINGLE_FILE, SHARD_INDEX, "model-[0-9]*-of-[0-9]*.safetensors",
             "chat_template.jinja", "special_tokens_map.json")  # fmt: skip
"""Files that an earlier conversion may have left and a later one does not write."""


def write_record(
    source: Source,
    weights: Converted,
    adapter: Adapter | None,
    folder: Path,
    seed: int,
    *,
    calibrated: bool,
) -> None:
    """Write where a converted model comes from."""
    record = {
        **source.provenance,
        "dtype": str(weights.dtype).removeprefix("torch."),
        "memory": _origin_of_memory(adapter, weights.warm),
        "seed": str(seed),
        "calibrated": "yes" if calibrated else "no",
    }
    if isinstance(weights, GenericConverted):
        record["path"] = "generic"
    (folder / PROVENANCE_FILE).write_text(
        json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def _origin_of_memory(adapter: Adapter | None, warm: bool) -> str:
    if adapter is None:
        return "untrained, " + ("from the attention" if warm else "random")
    return f"{adapter.path.name}, {adapter.manifest.get('steps', '?')} training steps"


def write_generation_settings(config: AllMemConfig, folder: Path) -> None:
    """Write generation_config.json from the configuration, unless the source had one."""
    path = folder / "generation_config.json"
    if not path.exists():
        tokens = {
            key: getattr(config, key)
            for key in ("bos_token_id", "eos_token_id", "pad_token_id")
            if getattr(config, key) is not None
        }
        path.write_text(json.dumps(tokens, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def check_destination(folder: Path, force: bool) -> None:
    """Refuse to write over what is not ours.

    Raises:
        ConversionError: the folder is a file, or holds something that no conversion wrote.
    """
    if folder.exists() and not folder.is_dir():
        raise ConversionError(f"{folder} is a file.", "Name a folder to write to.")
    if force or not folder.exists() or not any(folder.iterdir()):
        return
    if not (folder / PROVENANCE_FILE).is_file():
        raise ConversionError(
            f"{folder} is not empty and not an earlier conversion.",
            "Name another folder, or allow it with --force.",
        )


def write_checkpoint(weights: Converted | CalibratedWeights, folder: Path) -> None:
    """Write configuration and weights, one weight at a time; a tied head is its embedding.

    Args:
        weights: of the model.
        folder: of the checkpoint.
    """
    generic = isinstance(weights, GenericConverted)
    if not generic:
        weights.config.architectures = [AllMemForCausalLM.__name__]
    weights.config.save_pretrained(folder)

    def read(name: str) -> Iterator[Tensor]:
        if generic or name not in (EMBEDDING, HEAD):
            yield weights.tensor(name)
            return
        for piece in Table(weights, name).pieces():
            yield weights.rows(name, *piece)

    write_weights(folder, _sizes(weights), read)


def _sizes(weights: Converted | CalibratedWeights) -> Sizes:
    """Type and shape of every weight that is written."""
    if isinstance(weights, GenericConverted):
        assert isinstance(weights.config, GenericConfig)
        return {name: (weights.dtype, one) for name, one in weight_shapes(weights.config).items()}
    with torch.device("meta"):
        model = AllMemForCausalLM(weights.config)
    return {
        name: (weights.type_of(name), tuple(parameter.shape))
        for name, parameter in model.named_parameters()
        if not (name == HEAD and weights.config.tie_word_embeddings)
    }


def check_disk(weights: Converted, folder: Path) -> None:
    """Refuse to begin what the disk has no room for."""
    sizes = _sizes(weights)
    needed, free = sum(bytes_of(sizes, name) for name in sizes), free_disk(folder)
    if needed > free:
        hint = "Make room, or name another folder"
        if weights.dtype.itemsize > torch.bfloat16.itemsize:
            hint += ", or store fewer bits: --dtype bfloat16 takes half of float32"
        raise ConversionError(
            f"The checkpoint takes {format_bytes(needed)}; the disk of {folder.absolute().parent} "
            f"has {format_bytes(free)} free.",
            f"{hint}. `allmem make` needs no checkpoint at all.",
        )


def publish(stage: Path, folder: Path) -> None:
    """Move the finished files in place; whatever else lies in the folder stays."""
    sync_folder(stage)
    folder.mkdir(exist_ok=True)
    for name in ("config.json", PROVENANCE_FILE):  # an interrupted move must not look complete
        (folder / name).unlink(missing_ok=True)
    files = sorted(stage.iterdir(), key=lambda f: f.name in ("config.json", PROVENANCE_FILE))
    for file in files:
        os.replace(file, folder / file.name)
    written = {file.name for file in files}
    for pattern in _REPLACED:
        for stale in folder.glob(pattern):
            if stale.name not in written and stale.is_file():
                stale.unlink()
    sync(folder)
