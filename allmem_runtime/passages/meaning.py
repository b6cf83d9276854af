"""What texts mean, as vectors: a question finds what says the same in other words.

The vectors of tokens are those of WordLlama (https://github.com/dleemiller/WordLlama, MIT), which
its package ships: the embeddings of large models, trained further on pairs of texts that belong
together. A text's vector is their mean, so that it takes a look into a table and no model. Of the
package its table and its tokenizer are read, and no code is run: it may fetch files.
"""

from __future__ import annotations

import importlib.util
import logging
import threading
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from allmem_runtime.passages.identifiers import spelled
from allmem_runtime.passages.words import sentences
from allmem_runtime.text.segments import without_surrogates

TABLE = "l2_supercat_256"
"""Which of the package's tables; vectors of different ones cannot be compared."""

_TOKENIZER = "l2_supercat_tokenizer_config.json"

SPAN = 120
"""Characters, at least, of whole sentences that have one vector: the mean of a longer text is like
everything, that of a shorter one is often chance."""

_LOADING = threading.Lock()

log = logging.getLogger(__name__)


class Meaning:
    """Makes vectors of texts.

    Args:
        tokenizer: of the table.
        table: a row for each of its tokens, [tokens, width].
    """

    def __init__(self, tokenizer: Tokenizer, table: NDArray[np.float16]) -> None:
        self._tokenizer, self._table = tokenizer, table

    @property
    def width(self) -> int:
        """Elements of a vector."""
        return int(self._table.shape[1])

    def of(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """One vector for each text.

        Returns:
            [texts, width], of length 1; zeros for a text without tokens.
        """
        return unit(np.stack([self._sums(text, [len(text)])[0] for text in texts]))

    def spans(self, text: str) -> NDArray[np.int8]:
        """The vectors of a text's spans, to be stored.

        Returns:
            [spans, width]; only their directions count.
        """
        sums = self._sums(text, list(_ends(text)))
        largest = np.abs(sums).max(axis=1, keepdims=True)
        scaled: NDArray[np.int8] = np.rint(sums * (127 / np.maximum(largest, 1e-9))).astype(np.int8)
        return scaled

    def _sums(self, text: str, ends: Sequence[int]) -> NDArray[np.float32]:
        """The sum of the rows of each part's tokens; a part goes from the end before to its own."""
        found = self._tokenizer.encode(without_surrogates(spelled(text)), add_special_tokens=False)
        rows = self._table[np.array(found.ids, np.int64)].astype(np.float32)
        starts = np.array([start for start, _ in found.offsets], np.int64)
        first = np.searchsorted(starts, [0, *ends[:-1]])
        return np.stack([part.sum(axis=0) for part in np.split(rows, first[1:])])


def shared() -> Meaning | None:
    """The one of this process; None where the package is not there, or has another form."""
    with _LOADING:  # a cache alone lets threads that come at once read it several times
        return _read_once()


@cache
def _read_once() -> Meaning | None:
    package = importlib.util.find_spec("wordllama")
    if package is None or not package.submodule_search_locations:
        log.info("Passages are compared by words alone: the package wordllama is not installed.")
        return None
    folder = Path(package.submodule_search_locations[0])
    try:
        return read(folder)
    except Exception as error:  # noqa: BLE001 (Tokenizer raises nothing narrower)
        log.info("Passages are compared by words alone: %s cannot be read (%s).", folder, error)
        return None


def read(folder: Path) -> Meaning:
    """The table and the tokenizer in a folder of the package.

    Raises:
        Exception: they are not there, or of another form.
    """
    from safetensors.numpy import load_file

    (table,) = load_file(folder / "weights" / f"{TABLE}.safetensors").values()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizers" / _TOKENIZER))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if table.ndim != 2 or len(table) < tokenizer.get_vocab_size():
        raise ValueError(f"the table has the shape {table.shape}")
    return Meaning(tokenizer, np.ascontiguousarray(table, np.float16))


def unit(vectors: NDArray[np.floating | np.integer]) -> NDArray[np.float32]:
    """Vectors of length 1 in the directions of others, along the last axis; zeros stay."""
    floats = vectors.astype(np.float32)
    lengths = np.linalg.norm(floats, axis=-1, keepdims=True)
    scaled: NDArray[np.float32] = floats / np.maximum(lengths, np.finfo(np.float32).tiny)
    return scaled


def _ends(text: str) -> Iterator[int]:
    """Where each span ends; the last one may be shorter than the others."""
    begun = 0
    for at, sentence in sentences(text):
        end = at + len(sentence)
        if end - begun >= SPAN or end == len(text):
            begun = end
            yield end
