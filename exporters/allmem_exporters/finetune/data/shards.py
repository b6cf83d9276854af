"""Reads a shard folder through memory maps; knows nothing of tokenizers or how data was made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from allmem_exporters.errors import DataError
from allmem_exporters.finetune.data.sequence import SPLITS, Sequence
from allmem_exporters.finetune.data.shard_format import (
    COUNTS_FILE,
    FORMAT,
    INDEX_FILE,
    TOKEN_TYPES,
    TOKENS_FILE,
    VERSION,
)
from allmem_exporters.local_files import file_in
from allmem_runtime.files.digest import file_digest
from allmem_runtime.strict_json import read_object

_AGAIN = "Make it again with `allmem data`."
_MAX_INDEX_BYTES = 1 << 30


class Shards:
    """The sequences of one split of a shard folder.

    ``len(shards)`` and ``shards[i]`` work as with a list; only what is asked for is read.

    Args:
        folder: made by `allmem data`.
        split: ``train``, ``heldout``, or None for all.
        vocab_size: of the model that shall read the ids; None to accept any.
        tokenizer: digest of the model's tokenizer (``tokenizer_digest``); None to accept any.
        kinds: only sequences of these kinds; None for all.

    Raises:
        DataError: a file is missing, damaged or of another format, or the data was made for
            another tokenizer or vocabulary; names the file.
        ConversionError: a file is a link out of the folder, or no regular one.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        split: str | None = "train",
        vocab_size: int | None = None,
        tokenizer: str | None = None,
        kinds: tuple[str, ...] | None = None,
    ) -> None:
        self.folder = Path(folder)
        if split is not None and split not in SPLITS:
            raise DataError(f"There is no split {split!r}; allowed: {', '.join(SPLITS)}.")
        self.index = self._read_index()
        self._check_model(vocab_size, tokenizer)
        self._tokens = self._map(TOKENS_FILE, TOKEN_TYPES[self.index["token_type"]])
        self._counts = self._map(COUNTS_FILE, np.dtype(np.uint8))
        self.entries: list[dict[str, Any]] = [
            entry
            for entry in self._checked_entries()
            if split in (None, entry["split"]) and (kinds is None or entry["kind"] in kinds)
        ]

    def __len__(self) -> int:
        """Number of sequences."""
        return len(self.entries)

    def __getitem__(self, number: int) -> Sequence:
        """One sequence, copied out of the memory map.

        Raises:
            DataError: it holds a token that is none of the vocabulary.
        """
        entry = self.entries[number]
        part = slice(entry["start"], entry["start"] + entry["length"])
        ids = self._tokens[part].astype(np.int64)
        if ids.max() >= self.index["vocab_size"]:  # a model would look it up in its embedding
            raise DataError(
                f"{self.folder / TOKENS_FILE} holds the token {ids.max()}; its index says that all "
                f"are below {self.index['vocab_size']}.",
                _AGAIN,
            )
        return Sequence(
            ids=ids,
            counts=self._counts[part].astype(bool),
            kind=entry["kind"],
            split=entry["split"],
            source=entry["source"],
        )

    def _read_index(self) -> dict[str, Any]:
        path = file_in(self.folder, INDEX_FILE)
        if path is None:
            raise DataError(f"{self.folder} holds no training data ({INDEX_FILE} is missing).")
        try:
            index = read_object(path, _MAX_INDEX_BYTES)
        except (ValueError, OSError) as error:
            raise DataError(f"{path} cannot be read: {error}.", _AGAIN) from error
        if index.get("format") != FORMAT:
            raise DataError(f"{path} does not describe training data of this project.")
        if index.get("version") != VERSION:
            raise DataError(
                f"{path} has version {index.get('version')!r}; this program reads {VERSION}.",
                _AGAIN,
            )
        wanted = {"tokenizer": str, "vocab_size": int, "tokens": int, "sha256": dict,
                  "sequences": list, "token_type": str}  # fmt: skip
        for key, kind in wanted.items():
            if type(index.get(key)) is not kind:
                raise DataError(f"{path} has no valid {key!r}.", _AGAIN)
        if index["token_type"] not in TOKEN_TYPES:
            raise DataError(f"{path}: token_type is {index.get('token_type')!r}.", _AGAIN)
        return index

    def _check_model(self, vocab_size: int | None, tokenizer: str | None) -> None:
        if tokenizer is not None and tokenizer != self.index["tokenizer"]:
            raise DataError(
                f"{self.folder} was made with another tokenizer than the model's.",
                "Make it again with `allmem data --checkpoint` and this model.",
            )
        if vocab_size is not None and vocab_size != self.index["vocab_size"]:
            raise DataError(
                f"{self.folder} is for a vocabulary of {self.index['vocab_size']}, "
                f"the model has {vocab_size}.",
                "Make it again with `allmem data --checkpoint` and this model.",
            )

    def _map(self, name: str, kind: np.dtype[Any]) -> np.memmap[Any, Any]:
        path = file_in(self.folder, name)
        if path is None:
            raise DataError(f"{self.folder / name} is missing.", _AGAIN)
        size, wanted = path.stat().st_size, self.index["tokens"] * kind.itemsize
        if size != wanted or not wanted:
            raise DataError(f"{path} has {size} bytes; its index says {wanted}.", _AGAIN)
        if file_digest(path) != self.index["sha256"].get(name):
            raise DataError(f"{path} is damaged: its digest is not the index's.", _AGAIN)
        return np.memmap(path, dtype=kind, mode="r")

    def _checked_entries(self) -> list[dict[str, Any]]:
        total = self.index["tokens"]
        for number, entry in enumerate(self.index["sequences"]):
            numbers = isinstance(entry, dict) and all(
                type(entry.get(key)) is int for key in ("start", "length")
            )
            words = numbers and all(
                isinstance(entry.get(key), str) for key in ("kind", "split", "source")
            )
            if not words or entry["split"] not in SPLITS:
                raise DataError(
                    f"{self.folder / INDEX_FILE}: sequence {number} is not valid.", _AGAIN
                )
            if not (entry["start"] >= 0 and 2 <= entry["length"] <= total - entry["start"]):
                raise DataError(
                    f"{self.folder / INDEX_FILE}: sequence {number} lies outside the {total} "
                    "tokens.",
                    _AGAIN,
                )
        entries: list[dict[str, Any]] = self.index["sequences"]
        return entries
