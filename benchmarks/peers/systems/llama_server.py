"""llama.cpp's server inside this process, by the package xllamacpp, which needs no compiler.

Its kernels are built for many CPUs: where this one has AVX-512, a llama.cpp built here is faster.
"""

from __future__ import annotations

import json
from typing import Any

import xllamacpp


class System:
    """One slot of the server; it keeps the tokens that a request has in common with the last.

    It would also keep prompts that it saw before and answer them without reading: that is off, and
    what it says it has read is compared with what it was to read.
    """

    def __init__(self, model: str, threads: int, context: int) -> None:
        options = xllamacpp.CommonParams()
        options.model.path = model
        options.n_ctx = context
        options.n_parallel = 1
        options.cache_ram_mib = 0
        options.n_ctx_checkpoints = 0
        options.cpuparams.n_threads = options.cpuparams_batch.n_threads = threads
        options.verbosity = -1
        self._server = xllamacpp.Server(options)
        self._ids: list[int] = []
        self._kept = self._mark = 0
        self.version = str(getattr(xllamacpp, "__version__", "xllamacpp"))

    def _complete(self, count: int) -> None:
        """Read what is new and write ``count`` tokens.

        Raises:
            RuntimeError: the server refuses, or has not read all that was new.
        """
        found = self._server.handle_completions(
            {
                "prompt": self._ids,
                "n_predict": count,
                "cache_prompt": True,
                "temperature": 0,
                "ignore_eos": True,
            }
        )
        values: dict[str, Any] = json.loads(found) if isinstance(found, str) else found
        if "error" in values or "timings" not in values:
            raise RuntimeError(f"xllamacpp: {values.get('error', values)}")
        new, read = len(self._ids) - self._kept, int(values["timings"]["prompt_n"])
        if read < new:
            raise RuntimeError(f"xllamacpp read {read} of {new} tokens: a cache answered the rest")
        self._kept = len(self._ids)

    def feed(self, ids: list[int]) -> int:
        """Feed tokens; the server keeps the likeliest next one to itself."""
        self._ids += ids
        self._complete(1)
        return ids[-1]

    def write(self, token: int, count: int) -> None:
        """Write tokens, each the likeliest."""
        self._ids.append(token)
        self._complete(count)

    def mark(self) -> None:
        """Here ``back`` goes."""
        self._mark = len(self._ids)

    def back(self) -> None:
        """Forget what was fed since the mark, so that the same tokens are read again.

        The slot forgets what the next request does not begin with. At the beginning that is a
        token other than the first one of the text.
        """
        first = self._ids[0]
        del self._ids[self._mark :]
        self._kept = max(0, len(self._ids) - 1)  # the last token is read again for its logits
        if self._ids:
            self._complete(0)
            return
        self._ids, self._kept = [first + 1 if first == 0 else first - 1], 0
        self._complete(0)
        self._ids, self._kept = [], 0
