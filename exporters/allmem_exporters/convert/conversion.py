"""Conversion: copies a pretrained decoder's weights unchanged and adds a memory to each layer."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from allmem_exporters.convert.calibrated_weights import (
    CalibratedWeights,
    calibrated,
    refuse_trained,
)
from allmem_exporters.convert.converted_weights import (
    ConvertedWeights,
    check_entries,
    exact_type,
    refuse_other_head,
)
from allmem_exporters.convert.self_check import check_conversion
from allmem_exporters.convert.weights_file import Sizes, bytes_of, write_weights
from allmem_exporters.errors import ConfigError, ConversionError
from allmem_exporters.generic.config import GenericConfig
from allmem_exporters.generic.limits import refuse_on_generic_path
from allmem_exporters.generic.names import weight_shapes
from allmem_exporters.generic.weights import GenericConverted, open_weights
from allmem_exporters.heads.windows import give_windows
from allmem_exporters.local_files import SHARD_INDEX, SINGLE_FILE
from allmem_exporters.model.adapter import Adapter
from allmem_exporters.model.config import AllMemConfig
from allmem_exporters.model.initialize import initialize_memories
from allmem_exporters.model.memory_options import MemoryOptions
from allmem_exporters.model.modeling import AllMemForCausalLM
from allmem_exporters.model.weights import EMBEDDING, HEAD, Table, decoder_digest
from allmem_exporters.sources import Source, backbone_options, open_source
from allmem_exporters.sources.packed_weights import UnpackedWeights, WeightsByName
from allmem_exporters.tensor_reader import Entry
from allmem_exporters.texts_trial import try_texts
from allmem_runtime.files.atomic import storage_errors, sync, sync_folder
from allmem_runtime.files.temporary import temporary_folder
from allmem_runtime.machine import free_disk
from allmem_runtime.options import from_keywords
from allmem_runtime.quantities import format_bytes

logger = logging.getLogger(__name__)

Converted = ConvertedWeights | GenericConverted

PROVENANCE_FILE = "provenance.json"
_REPLACED = (SINGLE_FILE, SHARD_INDEX, "model-[0-9]*-of-[0-9]*.safetensors",
             "chat_template.jinja", "special_tokens_map.json")  # fmt: skip
"""Files that an earlier conversion may have left and a later one does not write."""
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def convert(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: MemoryOptions | None = None,
    *,
    seed: int = 0,
    dtype: str | None = None,
    revision: str | None = None,
    calibration_text: str | None = None,
    memory: str | os.PathLike[str] | None = None,
    windows: Path | None = None,
    state_budget: int | None = None,
    check: bool = True,
    force: bool = False,
    report: Callable[[str], None] = lambda line: None,
    **given: Any,
) -> Path:
    """Convert a pretrained decoder into an AllMem checkpoint folder.

    Args:
        source: a GGUF file, a folder in transformers' layout, or ``owner/model`` on the hub.
        out: the folder to write; must be new, empty or an earlier conversion.
        options: of window and memory.
        seed: of the memory's initial values.
        dtype: ``float32``, ``float16`` or ``bfloat16``; None keeps the source's own, in which
            every weight is copied bit for bit (a GGUF file's are dequantized to float32).
        revision: branch, tag or commit on the hub.
        calibration_text: a text of the kind the model will read, on which the memory's keys are
            whitened and its values scaled to a root mean square of 1.
        memory: an adapter made by ``finetune``: its memories instead of fresh ones, in float32
            whatever the decoder's type. It brings the options that it was trained with.
        windows: a head table, by which each key/value head gets a window of its own.
        state_budget: bytes of the state within which it gives; None for those of one window.
        check: compare the checkpoint with what transformers' own code makes of the source.
        force: write into a folder that holds other things; what we do not write stays.
        report: is told who was given which window, and what was compared, a line at a time.
        given: fields of ``MemoryOptions`` by name, such as ``window=2048``; they count more than
            ``options``.

    Returns:
        The folder.

    Raises:
        ConversionError: the source is missing, damaged or unsupported, ``out`` is in use, or the
            comparison failed.
        ConfigError: an option is unknown or out of range.
        ExportError: the head table is another model's, or the budget too small.
    """
    options = from_keywords(MemoryOptions, given, ConfigError, options)
    refuse_trained(memory, calibration_text)
    folder = Path(out)
    check_destination(folder, force)
    opened, weights, adapter = open_conversion(
        source, options, seed=seed, dtype=dtype, revision=revision, memory=memory
    )
    config = weights.config
    if isinstance(weights, GenericConverted):
        refuse_on_generic_path(config, windows=windows, calibration=calibration_text)
    elif windows is not None:
        give_windows(windows, config, decoder_digest(weights), state_budget, report)

    _check_disk(weights, folder)
    with storage_errors(folder), ExitStack() as stack:
        folder.parent.mkdir(parents=True, exist_ok=True)
        stage = stack.enter_context(temporary_folder(folder))
        opened.write_texts(stage)
        write_generation_settings(config, stage)
        try_texts(stage, config, str(source), ConversionError)
        logger.info("writing %s", folder)
        if isinstance(weights, GenericConverted):
            _write_generic(weights, stage)
        elif calibration_text is None:
            _write(weights, stage)
        else:
            _write(calibrated(weights, stage, calibration_text), stage)
        write_record(opened, weights, adapter, stage, seed, calibrated=calibration_text is not None)
        if check:
            check_conversion(opened, open_weights(stage), weights.dtype, stage, report)
        _publish(stage, folder)
    return folder


def open_conversion(
    source: str | os.PathLike[str],
    options: MemoryOptions,
    *,
    seed: int,
    dtype: str | None,
    revision: str | None,
    memory: str | os.PathLike[str] | None,
    changes: Mapping[str, int | str] | None = None,
) -> tuple[Source, Converted, Adapter | None]:
    """Find a source and say what becomes of it; nothing of any size is read.

    Args:
        source: as ``convert`` takes it, like what follows.
        options: of window and memory.
        seed: of the memory's initial values.
        dtype: of the weights.
        revision: on the hub.
        memory: path of an adapter.
        changes: fields of the configuration that count more than all others.

    Raises:
        ConversionError: the source is missing, damaged or unsupported.
        ConfigError: an option is unknown or out of range.
    """
    if dtype is not None and dtype not in DTYPES:
        raise ConfigError(f"dtype is {dtype!r}; allowed: {', '.join(DTYPES)}.")
    adapter = Adapter(Path(memory)) if memory is not None else None
    opened = open_source(os.fspath(source), revision)
    chosen = options.chosen()
    if adapter is not None:
        chosen = {**adapter.config, **chosen}
    given = (chosen.get("window"), opened.backbone.get("local_window"))
    windows: list[int] = [window for window in given if isinstance(window, int)]
    if windows and "chunk" not in chosen:  # a chunk never outlasts a window
        chosen["chunk"] = min(AllMemConfig.chunk, *windows)
    logger.info("reading %s", opened.provenance["name"])
    wanted = DTYPES[dtype] if dtype else None
    chosen |= changes or {}
    if "decoder" in opened.backbone:
        if adapter is not None:
            raise ConversionError(
                f"{opened.provenance['name']} goes the generic path, whose memories cannot be "
                "trained yet.",
                "Leave --memory out.",
            )
        generic = GenericConfig(**opened.backbone, **chosen)
        return opened, GenericConverted(generic, opened, wanted, seed), None
    config = AllMemConfig(**opened.backbone, **chosen)
    return opened, ConvertedWeights(config, opened, wanted, seed, adapter), adapter


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


def convert_model(
    pretrained: PreTrainedModel,
    config: AllMemConfig | None = None,
    *,
    seed: int = 0,
    **options: Any,
) -> AllMemForCausalLM:
    """Convert a model in memory; the result shares its weights.

    Args:
        pretrained: a language model of transformers, of one of ``FAMILIES``.
        config: of the result; None to derive it from the model and ``options``.
        seed: of the memory's initial values.
        options: fields of ``MemoryOptions``, if there is no ``config``.

    Raises:
        ConversionError: the model is unsupported or does not fit the configuration.
    """
    origin = type(pretrained).__name__
    backbone = backbone_options(pretrained.config, origin)
    if config is None:
        chosen = from_keywords(MemoryOptions, options, ConfigError).chosen()
        config = AllMemConfig(**backbone, **chosen)
    elif options:
        raise ConfigError(f"Give either a config or options, not both ({', '.join(options)}).")
    for key, value in backbone.items():
        if getattr(config, key) != value:
            raise ConversionError(
                f"{origin}: the configuration says {key} is {getattr(config, key)!r}, the model "
                f"says {value!r}.",
                "Derive the configuration from the model.",
            )
    found = WeightsByName({n: t.detach() for n, t in pretrained.state_dict().items()})
    unpacked = UnpackedWeights(found, found.entries, backbone, origin)
    tensors = ((name, unpacked.tensor(name)) for name in unpacked.entries)
    model = assemble(config, tensors, None, origin)
    initialize_memories(model.model, seed)
    return model


def assemble(
    config: AllMemConfig,
    tensors: Iterable[tuple[str, Tensor]],
    dtype: torch.dtype | None,
    origin: str,
) -> AllMemForCausalLM:
    """Build a model around pretrained weights, which it takes over without a copy.

    Its memories are empty; see ``initialize_memories``.

    Args:
        config: sizes.
        tensors: every weight of the decoder under transformers' name, each needed once.
        dtype: of the result; None for the narrowest type that holds all the weights exactly.
        origin: name for error messages.

    Raises:
        ConversionError: a weight is missing, left over, misshapen or not a plain number type.
    """
    found = dict(tensors)
    entries = {name: Entry(t.dtype, tuple(t.shape), 0) for name, t in found.items()}
    used = check_entries(config, entries, origin)
    exact = dtype or exact_type(entries, used)
    if config.tie_word_embeddings:
        head, embedding = found.get(HEAD), found[EMBEDDING]
        if head is not None and not torch.equal(head, embedding):
            raise refuse_other_head(origin)
        found[HEAD] = embedding
        used = [*used, *({HEAD} - set(used))]
    with torch.device("meta"):
        model = AllMemForCausalLM(config)
    for name in used:
        _put(model, name, nn.Parameter(found.pop(name).to(exact)))
    for layer in model.model.layers:
        layer.allmem.to(exact).to_empty(device="cpu")
    model.tie_weights()
    model.config.dtype = exact
    model.eval()
    return model


def _put(model: nn.Module, name: str, parameter: nn.Parameter) -> None:
    owner, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(owner), leaf, parameter)


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


def _write(weights: ConvertedWeights | CalibratedWeights, folder: Path) -> None:
    """Write configuration and weights, one weight at a time; a tied head is its embedding."""
    weights.config.architectures = [AllMemForCausalLM.__name__]
    weights.config.save_pretrained(folder)

    def read(name: str) -> Iterator[Tensor]:
        if name not in (EMBEDDING, HEAD):
            yield weights.tensor(name)
            return
        for piece in Table(weights, name).pieces():
            yield weights.rows(name, *piece)

    write_weights(folder, _sizes(weights), read)


def _write_generic(weights: GenericConverted, folder: Path) -> None:
    """Write configuration and weights, one weight at a time."""
    weights.config.save_pretrained(folder)
    write_weights(folder, _sizes(weights), lambda name: [weights.tensor(name)])


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


def _check_disk(weights: Converted, folder: Path) -> None:
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


def _publish(stage: Path, folder: Path) -> None:
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
