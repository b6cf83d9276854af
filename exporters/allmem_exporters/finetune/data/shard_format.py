"""What a shard folder holds: file names, versions and types, shared by its writer and reader.

``tokens.bin`` is all sequences' token ids one after another, ``counts.bin`` one byte a token,
``index.json`` says where each sequence starts. All numbers are little-endian.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from allmem_exporters.errors import DataError
from allmem_exporters.local_files import file_in
from allmem_runtime.files.digest import file_digest
from allmem_runtime.spec import TOKENIZER_FILE

FORMAT = "allmem-shards"
VERSION = 1

TOKENS_FILE = "tokens.bin"
COUNTS_FILE = "counts.bin"
INDEX_FILE = "index.json"

TOKEN_TYPES: dict[str, np.dtype[Any]] = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}


def token_type(vocab_size: int) -> str:
    """Name of the smallest type that holds every id of a vocabulary."""
    return "uint16" if vocab_size <= 1 << 16 else "uint32"


def tokenizer_digest(checkpoint: Path) -> str:
    """SHA-256 of a checkpoint's ``tokenizer.json``: shards fit models with this one only.

    Raises:
        DataError: the checkpoint has no such file.
        ConversionError: it is a link out of the checkpoint.
    """
    path = file_in(checkpoint, TOKENIZER_FILE)
    if path is None:
        raise DataError(
            f"{checkpoint} has no tokenizer.json.",
            "Name a checkpoint folder made by `allmem convert`.",
        )
    return file_digest(path)
