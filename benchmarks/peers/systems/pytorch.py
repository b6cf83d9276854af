"""transformers with PyTorch in float32, its default cache and attention."""

from __future__ import annotations

import torch
import transformers
from transformers import AutoModelForCausalLM, DynamicCache


class System:
    """A pretrained decoder with full attention."""

    def __init__(self, model: str, threads: int, context: int) -> None:
        torch.set_num_threads(threads)
        self._model = AutoModelForCausalLM.from_pretrained(
            model, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        ).eval()
        self._cache = DynamicCache()
        self._mark = 0
        self.version = f"transformers {transformers.__version__}, torch {torch.__version__}"

    @torch.inference_mode()
    def feed(self, ids: list[int]) -> int:
        """Feed tokens; the likeliest next one."""
        output = self._model(
            torch.tensor([ids]), past_key_values=self._cache, use_cache=True, logits_to_keep=1
        )
        return int(output.logits[0, -1].argmax())

    def write(self, token: int, count: int) -> None:
        """Write tokens, each the likeliest."""
        for _ in range(count):
            token = self.feed([token])

    def mark(self) -> None:
        """Here ``back`` goes."""
        self._mark = self._cache.get_seq_length()

    def back(self) -> None:
        """Forget what was fed since the mark."""
        fed = self._cache.get_seq_length() - self._mark
        if not self._mark:
            self._cache = DynamicCache()
        elif fed:
            self._cache.crop(-fed)  # a positive number is refused by newer versions
