"""Where pretrained models come from: a folder, a GGUF file or the model hub.

A source names its sizes, yields its weights one by one and writes its tokenizer; it does not know
what they are for.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from allmem_exporters.config import ACTIVATIONS, BACKBONES, ROPE_KINDS
from allmem_exporters.errors import ConversionError

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+\Z")
_HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model", "README.md"]

SUPPORTED = (
    f"Supported are {', '.join(BACKBONES)} decoders with full attention, rope "
    f"{', '.join(ROPE_KINDS)} and unquantised weights."
)


class Source(Protocol):
    """A pretrained decoder."""

    backbone: dict[str, Any]
    """Its fields of ``AllMemConfig``."""
    provenance: dict[str, str]
    """Where it comes from, for the record: kind, name, digest, licence if known."""

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every weight under the name transformers gives it."""

    def write_texts(self, out: Path) -> None:
        """Write tokenizer, chat template and generation settings into the folder ``out``."""


def open_source(source: str, revision: str | None = None) -> Source:
    """Find a pretrained model.

    Args:
        source: a GGUF file, a folder in transformers' layout, or the name ``owner/model`` of a
            repository on the hub (its local cache is used first where the hub is unreachable).
        revision: branch, tag or commit on the hub.

    Raises:
        ConversionError: it is not there, or not of a kind that can be converted.
    """
    from allmem_exporters.sources_folder import FolderSource
    from allmem_exporters.sources_gguf import GgufSource

    path = Path(source).expanduser()
    on_hub = not path.exists() and _HUB_NAME.match(source) and not source.endswith(".gguf")
    if revision is not None and not on_hub:
        raise ConversionError(
            f"{source}: a revision was given, but this is no name on the hub;",
            "leave the revision out.",
        )
    if path.is_file():
        if path.suffix == ".gguf":
            return GgufSource(path)
        raise ConversionError(
            f"{source} is a file but not a .gguf file;", "give the folder that it lies in."
        )
    if path.is_dir():
        return FolderSource(path, kind="folder", name=path.resolve().name)
    if on_hub:
        folder, commit = fetch(source, revision)
        return FolderSource(folder, kind="hub", name=source, revision=commit)
    raise ConversionError(
        f"{source} is neither a file, nor a folder, nor a name owner/model.",
        "Check the spelling and the current folder.",
    )


def fetch(name: str, revision: str | None) -> tuple[Path, str]:
    """Download a repository of the hub, or find it in the cache.

    Only data is fetched, never code or pickled weights.

    Returns:
        The folder and the commit.

    Raises:
        ConversionError: it is neither reachable nor cached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=_HUB_FILES))
    except GatedRepoError as error:
        raise ConversionError(
            f"{name}: access to this repository must be granted first ({_first_line(error)}).",
            "Accept its terms on the hub and log in with `hf auth login`.",
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise ConversionError(
            f"{name}: the hub has no such model ({_first_line(error)}).",
            "Check the name and the revision.",
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
        raise ConversionError(
            f"{name}: not in the local cache, and the hub cannot be reached "
            f"({_first_line(error)}).",
            "Go online (and unset HF_HUB_OFFLINE), or give a local folder or GGUF file.",
        ) from error
    return folder, folder.name


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def sha256_of(files: list[Path]) -> str:
    """SHA-256 of a file; of several, of the list of their digests and names."""
    digests = []
    for file in sorted(files):
        with file.open("rb") as stream:
            digests.append(hashlib.file_digest(stream, "sha256").hexdigest())
    if len(digests) == 1:
        return digests[0]
    rows = [f"{d}  {f.name}\n" for d, f in zip(digests, sorted(files), strict=True)]
    return hashlib.sha256("".join(rows).encode()).hexdigest()


def backbone_options(config: Any, origin: str) -> dict[str, Any]:
    """The fields of ``AllMemConfig`` that a transformers configuration determines.

    Args:
        config: a Llama, Qwen2 or Qwen3 configuration.
        origin: name for error messages.

    Raises:
        ConversionError: something in it has no counterpart here; names it and what is supported.
    """

    def refuse(what: str) -> ConversionError:
        return ConversionError(f"{origin}: {what}.", SUPPORTED)

    if config.model_type not in BACKBONES:
        raise refuse(f"model_type is {config.model_type!r}, which cannot be converted")
    if getattr(config, "quantization_config", None):
        raise refuse("the weights are quantised (quantization_config)")
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    if kinds:
        raise refuse(f"some layers have {', '.join(sorted(kinds))} (layer_types)")
    if getattr(config, "is_heterogeneous", False):
        raise refuse("its layers differ from each other (per_layer_config)")
    if getattr(config, "pretraining_tp", 1) not in (1, None):
        raise refuse(f"pretraining_tp is {config.pretraining_tp}, which splits its products")
    rope = dict(config.rope_parameters or {})
    if rope.get("rope_type") not in ROPE_KINDS:
        raise refuse(f"its rope is of the kind {rope.get('rope_type')!r}")
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        # transformers reads the factor in some rope kinds of these families and not in others, so
        # that nobody can say which model was trained.
        raise refuse(f"partial_rotary_factor is {rope['partial_rotary_factor']}")
    if config.hidden_act not in ACTIVATIONS:
        raise refuse(
            f"hidden_act is {config.hidden_act!r} (known are {', '.join(ACTIVATIONS)})"
        )
    head_dim = getattr(config, "head_dim", None)
    options: dict[str, Any] = {
        "backbone": config.model_type,
        "head_dim": head_dim or config.hidden_size // config.num_attention_heads,
        "rope_parameters": rope,
        "attention_bias": config.model_type != "qwen2" and bool(config.attention_bias),
        "mlp_bias": bool(getattr(config, "mlp_bias", False)),
    }
    for key in (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
        "num_attention_heads", "num_key_value_heads", "hidden_act", "max_position_embeddings",
        "rms_norm_eps", "tie_word_embeddings", "initializer_range",
        "bos_token_id", "eos_token_id", "pad_token_id",
    ):  # fmt: skip
        options[key] = getattr(config, key)
    return options
