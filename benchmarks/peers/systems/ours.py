"""This runtime, as a program would use it."""

from __future__ import annotations

import onnxruntime

from allmem_runtime import load


class System:
    """A session of a model folder."""

    def __init__(self, model: str, threads: int, context: int) -> None:
        self._model = load(model, device="cpu", operators="native", threads=threads)
        self._session = self._model.session(undo=False)
        self.version = f"onnxruntime {onnxruntime.__version__}, pieces of {self._model.piece}"

    def feed(self, ids: list[int]) -> int:
        """Feed tokens; the likeliest next one."""
        return int(self._session.feed(ids, logits="last").argmax())

    def write(self, token: int, count: int) -> None:
        """Write tokens, each the likeliest."""
        for _ in range(count):
            token = self.feed([token])

    def mark(self) -> None:
        """Here ``back`` goes."""
        self._session.checkpoint()

    def back(self) -> None:
        """Forget what was fed since the mark."""
        self._session.rollback()
