"""Writes sequences into a shard folder, which appears under its name only when complete."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
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
    token_type,
)
from allmem_runtime.errors import StorageError
from allmem_runtime.files.atomic import publish_folder, storage_errors
from allmem_runtime.files.digest import file_digest


class ShardWriter:
    """A context manager: ``with ShardWriter(…) as writer: writer.add(sequence)``.

    Everything goes to a temporary folder beside ``folder``, which takes its name at the end. If
    the block fails, nothing is left and what was there before is untouched.

    Args:
        folder: where the shards shall be.
        vocab_size: every id is below it.
        tokenizer: digest of the tokenizer that made the ids.
        recipe: anything JSON can say about how the data was made; kept in the index.
        force: replace ``folder`` if it exists.

    Raises:
        DataError: ``folder`` exists and ``force`` is not set, or holds something else than shards.
        StorageError: writing failed.
    """

    def __init__(
        self,
        folder: Path,
        *,
        vocab_size: int,
        tokenizer: str,
        recipe: dict[str, Any] | None = None,
        force: bool = False,
    ) -> None:
        self.folder = Path(folder)
        if self.folder.exists():
            ours = self.folder.is_dir() and (self.folder / INDEX_FILE).is_file()
            empty = self.folder.is_dir() and not any(self.folder.iterdir())
            if not empty and not ours:
                raise DataError(
                    f"{self.folder} exists and holds no training data.", "Name a new folder."
                )
            if ours and not force:
                raise DataError(
                    f"{self.folder} holds training data already.",
                    "Name a new folder, or replace it with --force.",
                )
        self._type = token_type(vocab_size)
        self._vocab_size = vocab_size
        self._tokenizer = tokenizer
        self._recipe = recipe or {}
        self._entries: list[dict[str, Any]] = []
        self._length = 0

    def __enter__(self) -> ShardWriter:
        """Make the temporary folder."""
        with ExitStack() as stack:
            self._work = stack.enter_context(publish_folder(self.folder))
            stack.push(self._finish)
            try:
                self._tokens = stack.enter_context((self._work / TOKENS_FILE).open("wb"))
                self._counts = stack.enter_context((self._work / COUNTS_FILE).open("wb"))
            except OSError as error:
                raise StorageError(f"Cannot write beside {self.folder}: {error}.") from error
            self._stack = stack.pop_all()
        return self

    def add(self, sequence: Sequence) -> None:
        """Append one sequence.

        Raises:
            DataError: it is empty, an id is outside the vocabulary, nothing of it counts, or its
                split is unknown; this is a fault of the builder that made it.
            StorageError: writing failed.
        """
        name = f"A sequence of kind {sequence.kind!r} from {sequence.source!r}"
        if len(sequence) < 2 or sequence.ids.shape != sequence.counts.shape:
            raise DataError(f"{name} has {len(sequence)} tokens and {len(sequence.counts)} counts.")
        if sequence.ids.min() < 0 or sequence.ids.max() >= self._vocab_size:
            raise DataError(
                f"{name} has ids {sequence.ids.min()} to {sequence.ids.max()}; "
                f"the vocabulary has {self._vocab_size}."
            )
        if sequence.split not in SPLITS:
            raise DataError(f"{name} is in split {sequence.split!r}; allowed: {SPLITS}.")
        counts = sequence.counts.astype(np.uint8)
        counts[0] = 0
        if not counts.any():
            raise DataError(f"{name} has no token that counts.")
        try:
            self._tokens.write(sequence.ids.astype(TOKEN_TYPES[self._type]).tobytes())
            self._counts.write(counts.tobytes())
        except OSError as error:
            raise StorageError(f"Cannot write {self.folder}: {error}.") from error
        self._entries.append(
            {
                "start": self._length,
                "length": len(sequence),
                "kind": sequence.kind,
                "split": sequence.split,
                "source": sequence.source,
            }
        )
        self._length += len(sequence)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the folder its name, or remove it if the block failed."""
        with storage_errors(self.folder):
            self._stack.__exit__(kind, error, trace)

    def _finish(self, kind: type[BaseException] | None, *_: object) -> None:
        """Write the index, unless the block failed."""
        if kind is not None:
            return
        if not self._entries:
            raise DataError(f"No sequence was made for {self.folder}.", "Look at the recipe.")
        index = {
            "format": FORMAT,
            "version": VERSION,
            "tokenizer": self._tokenizer,
            "vocab_size": self._vocab_size,
            "token_type": self._type,
            "tokens": self._length,
            "sha256": {name: file_digest(self._work / name) for name in (TOKENS_FILE, COUNTS_FILE)},
            "recipe": self._recipe,
            "sequences": self._entries,
        }
        text = json.dumps(index, ensure_ascii=False, indent=1)
        (self._work / INDEX_FILE).write_text(text, encoding="utf-8")
