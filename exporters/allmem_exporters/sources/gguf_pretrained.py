"""A GGUF file as transformers' own code takes it.

Names are those of the gguf package, layouts those of transformers. It shares nothing with our own
reading but the configuration and the blocks' numbers, so that each checks the other.
"""

from __future__ import annotations

import gguf
import numpy as np
import torch
from torch import Tensor
from transformers import PretrainedConfig
from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor

from allmem_exporters.sources.gguf_file import GgufFile
from allmem_exporters.sources.pretrained import Pretrained

_LIKE = {
    "arcee": "llama",
    "gemma": "gemma2",
    "gptneox": "bloom",
    "granite": "llama",
    "smollm3": "llama",
}
"""Architectures that transformers does not read, by those that llama.cpp's converter changes in the
same way."""


def pretrained_of(
    opened: GgufFile, architecture: str, config: PretrainedConfig, divisors: list[float] | None
) -> Pretrained:
    """The model of a file.

    Args:
        opened: the file.
        architecture: of it.
        config: that it describes.
        divisors: of the frequencies of its rope.
    """
    weights = _Weights(opened, architecture, config)
    return Pretrained(config, weights, tuple(divisors) if divisors is not None else None)


class _Weights:
    """See ``PretrainedWeights``."""

    def __init__(self, opened: GgufFile, kind: str, config: PretrainedConfig) -> None:
        self._opened = opened
        (architecture,) = (key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == kind)
        self._names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
        processor = TENSOR_PROCESSORS.get(_LIKE.get(kind, kind), TensorProcessor)
        self._processor = processor(
            config={**config.to_dict(), "n_head": config.num_attention_heads}
        )

    def tensor(self, name: str) -> Tensor:
        place = self._place(name)
        values = self._opened.values(place, 0, self._opened.tensors[place].shape[0])
        found = self._processor.process(weights=values, name=place)
        return torch.from_numpy(np.ascontiguousarray(found.weights))

    def rows(self, name: str, first: int, end: int) -> Tensor:
        return torch.from_numpy(self._opened.values(self._place(name), first, end))

    def _place(self, name: str) -> str:
        stem, _, leaf = name.rpartition(".")
        return f"{self._names.get_name(stem)}.{leaf}"
