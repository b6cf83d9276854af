"""onnxruntime-genai on a folder that its model builder made."""

from __future__ import annotations

import json

import numpy as np
import onnxruntime_genai


class System:
    """One generator; its cache has room for the whole context from the start."""

    def __init__(self, model: str, threads: int, context: int) -> None:
        config = onnxruntime_genai.Config(model)
        options = {"intra_op_num_threads": threads}
        config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
        self._model = onnxruntime_genai.Model(config)
        parameters = onnxruntime_genai.GeneratorParams(self._model)
        # An end token would end the generator: there must be none before the context is full.
        parameters.set_search_options(max_length=context, min_length=context, do_sample=False)
        self._generator = onnxruntime_genai.Generator(self._model, parameters)
        self._length = self._mark = 0
        self.version = f"onnxruntime-genai {onnxruntime_genai.__version__}"

    def feed(self, ids: list[int]) -> int:
        """Feed tokens; the likeliest next one."""
        self._generator.append_tokens(np.array(ids, np.int32))
        self._length += len(ids)
        return int(self._generator.get_logits()[0, -1].argmax())

    def write(self, token: int, count: int) -> None:
        """Write tokens, each the likeliest: the first step is the appended token's."""
        self._generator.append_tokens(np.array([token], np.int32))
        for _ in range(count):
            self._generator.generate_next_token()

    def mark(self) -> None:
        """Here ``back`` goes."""
        self._mark = self._length

    def back(self) -> None:
        """Forget what was fed since the mark."""
        self._generator.rewind_to(self._mark)
        self._length = self._mark
