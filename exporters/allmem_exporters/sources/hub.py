"""Pretrained models on the hub, or in its cache on this machine."""

from __future__ import annotations

from pathlib import Path

from allmem_exporters.errors import ConversionError

_HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model", "README.md"]


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
