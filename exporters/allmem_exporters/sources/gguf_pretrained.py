"""A GGUF file as transformers' own code takes it.

Names are those of the gguf package, layouts those of transformers. It shares nothing with our own
reading but the blocks' numbers, so that each checks the other.
"""

from __future__ import annotations

from typing import Any

import gguf
import numpy as np
import torch
from torch import Tensor
from transformers import CONFIG_MAPPING
from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor

from allmem_exporters.model.rope_options import FACTORS
from allmem_exporters.sources.gguf_file import GgufFile
from allmem_exporters.sources.pretrained import Pretrained


def pretrained_of(opened: GgufFile, backbone: dict[str, Any]) -> Pretrained:
    """The model of a file.

    Args:
        opened: the file.
        backbone: its fields of ``AllMemConfig``.
    """
    fields = {key: value for key, value in backbone.items() if key != "backbone"}
    rope = dict(fields["rope_parameters"])
    divisors = rope.pop(FACTORS, None)
    if divisors is not None:
        rope["rope_type"] = "default"
    kind = backbone["backbone"]
    config = CONFIG_MAPPING[kind](**{**fields, "rope_parameters": rope})
    return Pretrained(config, _Weights(opened, kind, config), divisors and tuple(divisors))


class _Weights:
    """See ``PretrainedWeights``."""

    def __init__(self, opened: GgufFile, kind: str, config: Any) -> None:
        self._opened = opened
        (architecture,) = (key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == kind)
        self._names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
        self._processor = TENSOR_PROCESSORS.get(kind, TensorProcessor)(config=config.to_dict())

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
