"""A pretrained model in a GGUF file: sizes from its metadata, weights dequantized to float32.

Names and layout are those of llama.cpp's converter. Anything in the file that has no counterpart
is an error: a tensor left aside would be a silently different model.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from allmem_exporters.errors import ConversionError
from allmem_exporters.model.families import FAMILIES
from allmem_exporters.sources.decoder import SUPPORTED, sha256_of
from allmem_exporters.sources.gguf_backbone import ROPE_FACTORS, backbone_of, special_tokens
from allmem_exporters.sources.gguf_blocks import block_factors
from allmem_exporters.sources.gguf_file import GgufFile
from allmem_exporters.sources.gguf_metadata import Metadata
from allmem_exporters.sources.gguf_pretrained import pretrained_of
from allmem_exporters.sources.gguf_tokenizer import write_tokenizer
from allmem_exporters.sources.gguf_tokenizer_check import compare_tokenizers
from allmem_exporters.sources.pretrained import Pretrained
from allmem_exporters.tensor_reader import Entry
from allmem_exporters.tokenizer_file import named_failure
from allmem_runtime.strict_json import is_whole

_WHOLE_MODEL = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_IN_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_BEHIND = {
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
"""Of families that have norms behind their branches, and none before."""
_LAYER_TENSOR = re.compile(r"blk\.([0-9]{1,4})\.(\w+)\.(weight|bias)\Z")

_ORIGINAL = "Convert the original safetensors checkpoint with its tokenizer.json instead."

_TEMPLATE = "tokenizer.chat_template"


class GgufSource:
    """One GGUF file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.name = file.name
        self.opened = GgufFile(file)
        self.metadata = Metadata(self.opened)
        self._refuse_part()
        architecture = self.metadata.architecture
        family = FAMILIES.get(architecture)
        if family is None or not family.gguf:
            raise ConversionError(f"{self.name}: its architecture is {architecture!r}.", SUPPORTED)
        self.family = family
        self.metadata.refuse_unknown()
        self.shapes = {
            name: tensor.shape
            for name, tensor in self.opened.tensors.items()
            if name != ROPE_FACTORS
        }
        self.backbone = backbone_of(self.metadata, self.opened, self.family)
        self._places = {self._counterpart(name): name for name in self.shapes}
        self.entries = {
            name: Entry(torch.float32, self.shapes[place], 0)
            for name, place in self._places.items()
        }
        kinds = sorted({tensor.kind.name for tensor in self.opened.tensors.values()})
        self.provenance = {
            "kind": "gguf",
            "name": self.name,
            "weights": f"{self.name} ({', '.join(kinds)})",
            "sha256": sha256_of([file]),
        }
        for key, field in (("licence", "general.license"), ("model", "general.name")):
            if value := self.metadata.value(field, ""):
                self.provenance[key] = str(value)[:1000]

    def _refuse_part(self) -> None:
        parts, number = (self.metadata.value(key, 0) for key in ("split.count", "split.no"))
        for key, value in (("split.count", parts), ("split.no", number)):
            if not is_whole(value, 0, 1 << 16):
                raise self.metadata.odd(key, value, "an integer from 0 on")
        if parts > 1:
            raise ConversionError(
                f"{self.name} is part {number + 1} of {parts} of a model.",
                "Join the parts with llama.cpp (llama-gguf-split --merge) and name the whole file.",
            )

    def tensor(self, name: str) -> Tensor:
        """A weight by the name transformers gives it, dequantized."""
        return self.rows(name, 0, self.entries[name].shape[0])

    def rows(self, name: str, first: int, end: int) -> Tensor:
        """Rows ``first`` to ``end - 1`` of a weight, dequantized."""
        if self._is_turned(name):
            whole = self.opened.values(self._places[name], 0, self.entries[name].shape[0])
            return torch.from_numpy(_halves_from_pairs(whole, self.backbone["head_dim"])[first:end])
        return torch.from_numpy(self.opened.values(self._places[name], first, end))

    def factors(self, name: str, first: int, end: int) -> Tensor | None:
        """See ``Source``."""
        if not self._is_turned(name):
            return block_factors(self.opened, self._places[name], first, end)
        found = block_factors(self.opened, self._places[name], 0, self.entries[name].shape[0])
        if found is None:
            return None
        turned = _halves_from_pairs(found.numpy(), self.backbone["head_dim"])
        return torch.from_numpy(turned[first:end])

    def _is_turned(self, name: str) -> bool:
        """Whether llama.cpp's conversion changed the order of the rows."""
        return self.family.gguf_pairs and name.endswith(
            ("q_proj.weight", "k_proj.weight", "q_proj.bias", "k_proj.bias")
        )

    def _counterpart(self, name: str) -> str:
        if name in _WHOLE_MODEL:
            return _WHOLE_MODEL[name]
        found = _LAYER_TENSOR.match(name)
        parts = _IN_LAYER | (_BEHIND if self.family.norms == "behind" else {})
        if found and found[2] in parts:
            return f"model.layers.{found[1]}.{parts[found[2]]}.{found[3]}"
        raise ConversionError(f"{self.name}: the tensor {name} has no counterpart.", SUPPORTED)

    def pretrained(self) -> Pretrained:
        """See ``Source``."""
        return pretrained_of(self.opened, self.backbone)

    def compare_texts(self, out: Path) -> str | None:
        """See ``Source``."""
        return compare_tokenizers(self.file, self.metadata, out)

    def write_texts(self, out: Path) -> None:
        """Build tokenizer and chat template from the metadata; end tokens as generation settings.

        Raises:
            ConversionError: the text is split by rules that are not known here.
        """
        with named_failure(f"{self.name}: its tokenizer cannot be converted", _ORIGINAL):
            write_tokenizer(self.metadata, self.backbone["vocab_size"], out)
        self._write_template(out)
        (out / "generation_config.json").write_text(
            json.dumps(special_tokens(self.metadata), indent=2, sort_keys=True) + "\n",
            encoding="utf-8",
        )

    def _write_template(self, out: Path) -> None:
        template = self.metadata.text(_TEMPLATE, "")
        named = [key for key in self.opened.fields if key.startswith(f"{_TEMPLATE}.")]
        if template:
            (out / "chat_template.jinja").write_text(template, encoding="utf-8")
        elif named:
            raise ConversionError(
                f"{self.name}: none of its chat templates ({', '.join(sorted(named))}) is the one "
                f"for chats ({_TEMPLATE}).",
                _ORIGINAL,
            )


def _halves_from_pairs(values: np.ndarray, head_dim: int) -> np.ndarray:
    """Undo the row order of llama.cpp's Llama conversion.

    There coordinate 2 j of a head turns with 2 j + 1; here j turns with j + head_dim / 2.

    Args:
        values: [heads * head_dim, ...] rows of a query or key projection.
        head_dim: width of a head.
    """
    rest = values.shape[1:]
    pairs = values.reshape(-1, head_dim // 2, 2, *rest)
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(values.shape)
