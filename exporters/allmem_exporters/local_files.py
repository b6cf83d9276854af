"""Files of a folder that somebody else made: read as data, never as code, and never from outside.

It knows nothing of models; sources and checkpoints use it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from allmem_exporters.errors import ConversionError
from allmem_runtime.files.containment import leaves_folder
from allmem_runtime.strict_json import read_object

SHARD_INDEX = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
_CODE = ("auto_map", "custom_pipelines", "trust_remote_code")
_KERNELS = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal",
            "experts_implementation", "_experts_implementation", "kernel_config",
            "use_kernels")  # fmt: skip
_OWN_KERNELS = (None, False, "", "eager", "sdpa", "flash_attention_2", "flex_attention")
_INTACT = "Fetch an intact copy."
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}\Z")


def file_in(folder: Path, name: str) -> Path | None:
    """A file of the folder, or None if there is none.

    Raises:
        ConversionError: it is a link out of the folder, no regular file, or cannot be looked at.
    """
    path = folder / name
    try:
        target = leaves_folder(path)
        if target is None and not path.exists():
            return None
        regular = path.is_file()
    except OSError as error:
        raise ConversionError(
            f"{path} cannot be read ({error.strerror or error}).", "Check the path."
        ) from None
    if target is not None:
        raise ConversionError(
            f"{path} is a link to {target}, outside the folder.",
            "Copy the file into the folder if you trust it.",
        )
    if not regular:
        raise ConversionError(f"{path} is not a regular file.", _INTACT)
    return path


def json_in(folder: Path, name: str) -> dict[str, Any] | None:
    """A file of the folder as a JSON object, or None if there is none.

    Raises:
        ConversionError: it is no JSON object, or one of the reasons of ``file_in``.
    """
    path = file_in(folder, name)
    if path is None:
        return None
    try:
        return read_object(path)
    except (OSError, ValueError) as error:
        raise ConversionError(f"{path} is not JSON ({error}).", _INTACT) from None


def text_in(folder: Path, name: str, most: int = 1 << 20) -> str | None:
    """A file of the folder as text, or None if there is none.

    Args:
        folder: where it lies.
        name: of the file.
        most: bytes that it may have.

    Raises:
        ConversionError: it is larger, not UTF-8, or one of the reasons of ``file_in``.
    """
    path = file_in(folder, name)
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
        if len(data) > most:
            raise ConversionError(f"{path} is larger than {most:,} bytes.", _INTACT)
        return data.decode()
    except OSError as error:
        raise ConversionError(f"{path} cannot be read ({error.strerror}).", _INTACT) from None
    except UnicodeDecodeError as error:
        raise ConversionError(f"{path} is not UTF-8 (byte {error.start}).", _INTACT) from None


def refuse_code(values: dict[str, Any], path: Path) -> None:
    """Refuse settings that ask for code: of the folder, or of a kernel on the hub.

    Args:
        values: of a configuration of a model or a tokenizer.
        path: its file, for the message.

    Raises:
        ConversionError: they ask; names the setting.
    """
    for key, chosen in _settings(values):
        if key in _CODE and chosen:
            raise ConversionError(
                f"{path} asks for code of its own ({key}), which is never run.",
                "Convert a model that the library knows without it.",
            )
        parts = chosen.values() if isinstance(chosen, dict) else [chosen]
        if key in _KERNELS and any(part not in _OWN_KERNELS for part in parts):
            raise ConversionError(
                f"{path} asks for a kernel that is fetched from the hub ({key} is {chosen!r}), "
                "which is never run.",
                f"Delete {key} from the file; the result does not depend on it.",
            )


def _settings(values: Any) -> Iterator[tuple[str, Any]]:
    """All keys with their values, also of what lies within: parts of a model have their own."""
    for one in values if isinstance(values, list) else values.values():
        if isinstance(one, (dict, list)):
            yield from _settings(one)
    if isinstance(values, dict):
        yield from values.items()


def weight_files(folder: Path) -> list[Path]:
    """The folder's weights in safetensors form, one file or several.

    Raises:
        ConversionError: there are none, the index names one that is not in the folder, or they are
            pickled.
    """
    single = file_in(folder, SINGLE_FILE)
    if single is not None:
        return [single]
    index = json_in(folder, SHARD_INDEX)
    if index is None:
        raise ConversionError(
            f"{folder}: there are no weights in safetensors form.",
            "Pickled weights (.bin, .pt) can run code and are not read; save the model again "
            "with transformers' save_pretrained.",
        )
    places = index.get("weight_map")
    names = list(places.values()) if isinstance(places, dict) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise ConversionError(f"{folder / SHARD_INDEX} names no files of weights.", _INTACT)
    found = []
    for name in sorted(set(names)):
        if not _PLAIN_NAME.match(name):
            raise ConversionError(
                f"{folder / SHARD_INDEX} names {name!r}, which is no plain file name.", _INTACT
            )
        path = file_in(folder, name)
        if path is None:
            raise ConversionError(f"{folder}: the weights file {name} is missing.", "Fetch it too.")
        found.append(path)
    return found
