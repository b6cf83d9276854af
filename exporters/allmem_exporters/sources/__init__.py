"""Where pretrained models come from: a folder, a GGUF file or the model hub.

A source names its sizes and weights, reads these one by one and writes its tokenizer; it does not
know what they are for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from allmem_exporters.errors import ConversionError
from allmem_exporters.sources.decoder import backbone_options
from allmem_exporters.sources.folder import FolderSource
from allmem_exporters.sources.gguf import GgufSource
from allmem_exporters.sources.hub import fetch
from allmem_exporters.sources.pretrained import Pretrained
from allmem_exporters.tensor_reader import Entry

__all__ = ["Source", "backbone_options", "fetch", "open_source"]

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+\Z")


class Source(Protocol):
    """A pretrained decoder."""

    backbone: dict[str, Any]
    """Its fields of ``AllMemConfig``."""
    provenance: dict[str, str]
    """Where it comes from, for the record: kind, name, digest, license if known."""

    @property
    def entries(self) -> Mapping[str, Entry]:
        """Types and shapes of its weights, from headers, by the names transformers gives them."""

    def tensor(self, name: str) -> Tensor:
        """A weight, read when it is asked for and kept nowhere."""

    def rows(self, name: str, first: int, end: int) -> Tensor:
        """Rows ``first`` to ``end - 1`` of a weight."""

    def factors(self, name: str, first: int, end: int) -> Tensor | None:
        """Scale and minimum of each block of 32 in which these rows are stored.

        Returns:
            [rows, blocks, 2] float32; None where they are stored otherwise.
        """

    def write_texts(self, out: Path) -> None:
        """Write tokenizer, chat template and generation settings into the folder ``out``."""

    def pretrained(self) -> Pretrained:
        """The same model as transformers' own code takes it."""

    def compare_texts(self, out: Path) -> str | None:
        """Compare the tokenizer in ``out`` with the one that transformers makes of the source.

        Returns:
            What was compared; None where there is nothing to compare.

        Raises:
            ConversionError: they cut a text differently.
        """


def open_source(source: str, revision: str | None = None) -> Source:
    """Find a pretrained model.

    Args:
        source: a GGUF file, a folder in transformers' layout, or the name ``owner/model`` of a
            repository on the hub (its local cache is used first where the hub is unreachable).
        revision: branch, tag or commit on the hub.

    Raises:
        ConversionError: it is not there, or not of a kind that can be converted.
    """
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
