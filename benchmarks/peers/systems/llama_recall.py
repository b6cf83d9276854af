"""llama.cpp's library asked a question: any type of cache, whole or with its context shifted."""

from __future__ import annotations

import ctypes
import re
import time
from collections.abc import Sequence
from typing import Any

import llama_cpp
import llama_cpp.llama_cpp as library
import numpy as np

from benchmarks.peers.shifting import Discard, Window

BATCH = 512  # its default for the work done at once
TYPES = {
    "f16": library.GGML_TYPE_F16,
    "q8_0": library.GGML_TYPE_Q8_0,
    "q4_0": library.GGML_TYPE_Q4_0,
}
_SIZE = re.compile(r"size = +([0-9.]+) MiB \( *[0-9]+ cells")
_said: list[str] = []


@library.llama_log_callback
def _listen(level: int, text: bytes, data: Any) -> None:
    """Its log is the only place where it tells how large a cache is."""
    line = text.decode("utf-8", "replace")
    if _SIZE.search(line):
        _said.append(line)


class System:
    """A GGUF file; each question gets a context of its own."""

    def __init__(self, model: str, threads: int, context: int) -> None:
        library.llama_log_set(_listen, ctypes.c_void_p(0))
        library.llama_backend_init()
        self._model = library.llama_model_load_from_file(
            model.encode(), library.llama_model_default_params()
        )
        if not self._model:
            raise RuntimeError(f"llama.cpp does not load {model}")
        self._vocab = library.llama_model_get_vocab(self._model)
        self._size = library.llama_vocab_n_tokens(self._vocab)
        self._threads = threads
        self.version = f"llama-cpp-python {llama_cpp.__version__}"

    def bytes(self, cache: str, cells: int) -> dict[str, Any]:
        """What a cache of so many tokens takes, in ``bytes``."""
        _said.clear()
        library.llama_free(self._context(cache, cells))
        found = [float(match[1]) for line in _said if (match := _SIZE.search(line))]
        if not found:
            raise RuntimeError("this llama.cpp does not tell the size of its cache")
        return {"bytes": round(sum(found) * 1024**2)}

    def names(self, ids: Sequence[int]) -> dict[str, Any]:
        """What its vocabulary calls these tokens, in ``names``; None where there is no such."""
        return {
            "names": [
                library.llama_vocab_get_text(self._vocab, token).decode("utf-8", "replace")
                if 0 <= token < self._size
                else None
                for token in ids
            ]
        }

    def recall(
        self, ids: Sequence[int], ends: Sequence[int], most: int, cache: str, size: int, keep: int
    ) -> dict[str, Any]:
        """The likeliest tokens after a prompt, one by one.

        Args:
            ids: the prompt.
            ends: tokens that end an answer; they are not part of it.
            most: longest answer.
            cache: type of keys and values.
            size: tokens of a context that is shifted; 0 for one that holds everything.
            keep: first tokens that stay.
        """
        context = self._context(cache, size or len(ids) + most)
        try:
            asked = _Asked(context, self._size, Window(size, keep))
            began = time.perf_counter()
            token = asked.feed(ids)
            read = time.perf_counter()
            held, answer = asked.window.held, []
            while token not in ends:
                answer.append(token)
                if len(answer) == most:
                    break
                token = asked.feed([token])
            return {
                "answer": answer, "held": held, "shifts": asked.window.shifts,
                "reading_seconds": read - began, "answering_seconds": time.perf_counter() - read,
            }  # fmt: skip
        finally:
            library.llama_free(context)

    def _context(self, cache: str, cells: int) -> Any:
        options = library.llama_context_default_params()
        options.n_ctx = cells
        options.n_batch = options.n_ubatch = BATCH
        options.n_threads = options.n_threads_batch = self._threads
        options.type_k = options.type_v = TYPES[cache]
        if cache != "f16":  # values of these types need it; else it decides itself
            options.flash_attn_type = library.LLAMA_FLASH_ATTN_TYPE_ENABLED
        context = library.llama_init_from_model(self._model, options)
        if not context:
            raise RuntimeError(f"llama.cpp makes no {cache} context of {cells} tokens")
        return context


class _Asked:
    """One context while a question is asked of it."""

    def __init__(self, context: Any, vocabulary: int, window: Window) -> None:
        self._context, self._vocabulary, self.window = context, vocabulary, window
        self._memory = library.llama_get_memory(context)
        if window.size and not library.llama_memory_can_shift(self._memory):
            raise RuntimeError("llama.cpp cannot shift the context of this model")

    def feed(self, ids: Sequence[int]) -> int:
        """Feed tokens; the likeliest next one."""
        first = 0
        for part in self.window.parts(len(ids), BATCH):
            if isinstance(part, Discard):
                self._discard(part)
                continue
            tokens = (library.llama_token * part)(*ids[first : first + part])
            batch = library.llama_batch_get_one(tokens, part)
            if code := library.llama_decode(self._context, batch):
                raise RuntimeError(f"llama_decode gave {code} with {self.window.held} tokens held")
            first += part
        logits = library.llama_get_logits_ith(self._context, -1)
        return int(np.ctypeslib.as_array(logits, (self._vocabulary,)).argmax())

    def _discard(self, part: Discard) -> None:
        if not library.llama_memory_seq_rm(self._memory, 0, part.first, part.end):
            raise RuntimeError("llama.cpp does not remove tokens from this model's memory")
        library.llama_memory_seq_add(self._memory, 0, part.end, part.held, -part.by)
