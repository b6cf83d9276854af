"""Conversion: copies a pretrained decoder's weights unchanged and adds a memory to each layer."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedModel

from allmem_exporters.convert.calibrate import calibrate
from allmem_exporters.errors import ConfigError, ConversionError
from allmem_exporters.model.adapter import Adapter
from allmem_exporters.model.config import AllMemConfig
from allmem_exporters.model.initialize import initialize_memories
from allmem_exporters.model.memory_options import MemoryOptions
from allmem_exporters.model.modeling import AllMemForCausalLM
from allmem_exporters.sources import backbone_options, open_source
from allmem_runtime.files.atomic import storage_errors, sync, sync_folder
from allmem_runtime.files.temporary import temporary_folder
from allmem_runtime.options import from_keywords

logger = logging.getLogger(__name__)

PROVENANCE_FILE = "provenance.json"
CALIBRATION_TOKENS = 2048
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
    force: bool = False,
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
        force: write into a folder that holds other things; what we do not write stays.
        given: fields of ``MemoryOptions`` by name, such as ``window=2048``; they count more than
            ``options``.

    Returns:
        The folder.

    Raises:
        ConversionError: the source is missing, damaged or unsupported, or ``out`` is in use.
        ConfigError: an option is unknown or out of range.
    """
    options = from_keywords(MemoryOptions, given, ConfigError, options)
    if dtype is not None and dtype not in DTYPES:
        raise ConfigError(f"dtype is {dtype!r}; allowed: {', '.join(DTYPES)}.")
    if memory is not None and calibration_text is not None:
        raise ConfigError(
            "Trained memories are not calibrated: it would undo what their values learned.",
            "Leave the calibration text out, or the adapter.",
        )
    folder = Path(out)
    check_destination(folder, force)
    adapter = Adapter(Path(memory)) if memory is not None else None
    opened = open_source(os.fspath(source), revision)
    chosen = options.chosen()
    if adapter is not None:
        chosen = {**adapter.config, **chosen}
    window = chosen.get("window")
    if isinstance(window, int) and "chunk" not in chosen:  # a chunk never outlasts the window
        chosen["chunk"] = min(AllMemConfig.chunk, window)
    config = AllMemConfig(**opened.backbone, **chosen)
    logger.info("reading %s", opened.provenance["name"])
    wanted = DTYPES[dtype] if dtype else None
    model = assemble(config, opened.tensors(), wanted, opened.provenance["name"])
    warm = initialize_memories(model.model, seed)
    if adapter is not None:
        for layer in model.model.layers:
            layer.allmem.float()  # what was learned in float32 is not rounded to the decoder's type
        adapter.apply(model)

    with storage_errors(folder), ExitStack() as stack:
        folder.parent.mkdir(parents=True, exist_ok=True)
        stage = stack.enter_context(temporary_folder(folder))
        opened.write_texts(stage)
        if calibration_text is not None:
            _calibrate(model, stage, calibration_text)
        write_generation_settings(config, stage)
        logger.info("writing %s", folder)
        _save(model, stage)
        record = {
            **opened.provenance,
            "dtype": str(model.dtype).removeprefix("torch."),
            "memory": _origin_of_memory(adapter, warm),
            "seed": str(seed),
            "calibrated": "yes" if calibration_text is not None else "no",
        }
        (stage / PROVENANCE_FILE).write_text(
            json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False) + "\n",
            encoding="utf-8",
        )
        _publish(stage, folder)
    return folder


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
    tensors = ((name, tensor.detach()) for name, tensor in pretrained.state_dict().items())
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
    with torch.device("meta"):
        model = AllMemForCausalLM(config)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    wanted = {name: p.shape for name, p in parameters.items() if ".allmem." not in name}
    tied = config.tie_word_embeddings
    found: dict[str, Tensor] = {}
    for name, tensor in tensors:
        if name.endswith("rotary_emb.inv_freq"):  # old checkpoints keep what follows from the sizes
            continue
        if name not in wanted:
            raise ConversionError(
                f"{origin}: the weight {name} has no place in a {config.backbone} decoder.",
                "Its config.json does not describe these weights; fetch an intact copy.",
            )
        if tensor.shape != wanted[name]:
            raise ConversionError(
                f"{origin}: the weight {name} has the shape {list(tensor.shape)}; the "
                f"configuration asks for {list(wanted[name])}.",
                "Fetch an intact copy.",
            )
        if tensor.dtype not in (torch.float64, *DTYPES.values()):
            raise ConversionError(
                f"{origin}: the weight {name} is {str(tensor.dtype).removeprefix('torch.')}, a "
                "quantized type.",
                "Convert the unquantized checkpoint.",
            )
        found[name] = tensor if dtype is None else tensor.to(dtype)
    head, embedding = found.get("lm_head.weight"), found.get("model.embed_tokens.weight")
    if tied and head is not None and embedding is not None and not torch.equal(head, embedding):
        raise ConversionError(
            f"{origin}: lm_head.weight differs from model.embed_tokens.weight although "
            "tie_word_embeddings is true.",
            "Set tie_word_embeddings to false in config.json if the model has both.",
        )
    del head, embedding
    missing = [n for n in wanted if n not in found and not (tied and n == "lm_head.weight")]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ConversionError(
            f"{origin}: the weight {missing[0]}{more} is missing.", "Fetch an intact copy."
        )
    if tied:
        found["lm_head.weight"] = found["model.embed_tokens.weight"]
    exact = dtype
    for tensor in found.values():
        exact = tensor.dtype if exact is None else torch.promote_types(exact, tensor.dtype)
    for name in list(found):
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


def _calibrate(model: AllMemForCausalLM, folder: Path, text: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"][:CALIBRATION_TOKENS]
    if not tokens:
        raise ConversionError("The calibration text is empty.", "Give some paragraphs of text.")
    calibrate(model, torch.tensor([tokens]))


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


def _save(model: AllMemForCausalLM, folder: Path) -> None:
    """Write config.json and model.safetensors, without a copy of the weights."""
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    weights = dict(model.named_parameters())  # a tied head appears once, as its embedding
    file = folder / "model.safetensors"
    save_file({name: p.detach() for name, p in weights.items()}, file, metadata={"format": "pt"})
    file.chmod((folder / "config.json").stat().st_mode)  # safetensors makes it private


def _publish(stage: Path, folder: Path) -> None:
    """Move the finished files in place; whatever else lies in the folder stays."""
    sync_folder(stage)
    folder.mkdir(exist_ok=True)
    for name in ("config.json", PROVENANCE_FILE):  # an interrupted move must not look complete
        (folder / name).unlink(missing_ok=True)
    files = sorted(stage.iterdir(), key=lambda f: f.name in ("config.json", PROVENANCE_FILE))
    for file in files:
        os.replace(file, folder / file.name)
    for stale in ("chat_template.jinja", "special_tokens_map.json"):
        if not any(file.name == stale for file in files) and (folder / stale).is_file():
            (folder / stale).unlink()
    sync(folder)
