"""Writing tensors to a safetensors file, whole or not at all."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from allmem_runtime.errors import StorageError
from allmem_runtime.files.atomic import publish_file


def write_tensors(
    path: Path, tensors: dict[str, Tensor], metadata: dict[str, str], *, mode: int
) -> None:
    """Make or replace a file.

    Args:
        path: of the file.
        tensors: contiguous, by name.
        metadata: goes into the header.
        mode: permissions, see ``atomic``; the library alone would make the file private.

    Raises:
        StorageError: there is no room, or the folder cannot be written.
    """
    with publish_file(path, mode=mode) as made:
        try:
            save_file(tensors, made, metadata=metadata)
        except SafetensorError as error:
            raise StorageError(
                f"{path} could not be written ({error}).", "Check free space and permissions."
            ) from error
