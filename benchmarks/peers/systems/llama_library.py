"""llama.cpp's library, by the declarations of llama-cpp-python: no sampler, no server."""

from __future__ import annotations

import ctypes
from typing import Any

import llama_cpp.llama_cpp as library
import numpy as np

BATCH = 512  # its default for the work done at once


@library.llama_log_callback
def _silent(level: int, text: bytes, data: Any) -> None:
    """Its log is long."""


class System:
    """One sequence of a GGUF file; threads and attention as its own programs choose them."""

    def __init__(self, model: str, threads: int, context: int) -> None:
        library.llama_log_set(_silent, ctypes.c_void_p(0))
        library.llama_backend_init()
        loaded = library.llama_model_load_from_file(
            model.encode(), library.llama_model_default_params()
        )
        if not loaded:
            raise RuntimeError(f"llama.cpp does not load {model}")
        self._vocab = library.llama_vocab_n_tokens(library.llama_model_get_vocab(loaded))
        options = library.llama_context_default_params()
        options.n_ctx = context
        options.n_batch = options.n_ubatch = BATCH
        options.n_threads = options.n_threads_batch = threads
        self._context = library.llama_init_from_model(loaded, options)
        if not self._context:
            raise RuntimeError(f"llama.cpp makes no context of {context} tokens")
        self._memory = library.llama_get_memory(self._context)
        self._length = self._mark = 0
        facts = library.llama_print_system_info().decode()
        self.version = ", ".join(
            part.split(" = ")[0].strip() for part in facts.split("|") if "= 1" in part
        )

    def feed(self, ids: list[int]) -> int:
        """Feed tokens; the likeliest next one."""
        for first in range(0, len(ids), BATCH):
            part = ids[first : first + BATCH]
            tokens = (library.llama_token * len(part))(*part)
            batch = library.llama_batch_get_one(tokens, len(part))
            if code := library.llama_decode(self._context, batch):
                raise RuntimeError(f"llama_decode gave {code} after {self._length} tokens")
            self._length += len(part)
        logits = library.llama_get_logits_ith(self._context, -1)
        return int(np.ctypeslib.as_array(logits, (self._vocab,)).argmax())

    def write(self, token: int, count: int) -> None:
        """Write tokens, each the likeliest."""
        for _ in range(count):
            token = self.feed([token])

    def keep(self, path: str) -> None:
        """Write what was read to a file, for ``resume``."""
        none = (library.llama_token * 0)()
        if not library.llama_state_seq_save_file(self._context, path.encode(), 0, none, 0):
            raise RuntimeError(f"llama.cpp does not write {path}")

    def resume(self, path: str, length: int) -> None:
        """Stand where ``keep`` was called, after as many tokens."""
        none, count = (library.llama_token * 1)(), ctypes.c_size_t()
        if not library.llama_state_seq_load_file(
            self._context, path.encode(), 0, none, 1, ctypes.byref(count)
        ):
            raise RuntimeError(f"llama.cpp does not read {path}")
        self._length = length

    def mark(self) -> None:
        """Here ``back`` goes."""
        self._mark = self._length

    def back(self) -> None:
        """Forget what was fed since the mark."""
        library.llama_memory_seq_rm(self._memory, 0, self._mark, -1)
        self._length = self._mark
