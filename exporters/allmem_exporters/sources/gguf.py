"""A pretrained model in a GGUF file: sizes from its metadata, weights dequantized to float32.

Names and layout are those of llama.cpp's converter. Anything in the file that has no counterpart
is an error: a tensor left aside would be a silently different model.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import pre_tokenizers
from torch import Tensor
from transformers import AutoTokenizer

from allmem_exporters.errors import ConversionError
from allmem_exporters.model.families import FAMILIES
from allmem_exporters.sources.decoder import SUPPORTED, sha256_of
from allmem_exporters.sources.gguf_blocks import block_factors
from allmem_exporters.sources.gguf_file import GgufFile
from allmem_exporters.tensor_reader import Entry
from allmem_exporters.tokenizer_file import named_failure
from allmem_runtime.strict_json import is_number, is_whole

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
_LAYER_TENSOR = re.compile(r"blk\.([0-9]{1,4})\.(\w+)\.(weight|bias)\Z")

_ORIGINAL = "Convert the original safetensors checkpoint with its tokenizer.json instead."

# How the text is split before merging (tokenizer.ggml.pre). Models bring the tokenizers of others.
_SPLITS = {"default", "gpt-2", *(split for family in FAMILIES.values() for split in family.splits)}


class GgufSource:
    """One GGUF file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.name = file.name
        self.opened = GgufFile(file)
        self._refuse_part()
        self.architecture = self._text("general.architecture")
        if self.architecture not in FAMILIES:
            raise ConversionError(
                f"{self.name}: its architecture is {self.architecture!r}.", SUPPORTED
            )
        self.family = FAMILIES[self.architecture]
        self.shapes = {name: tensor.shape for name, tensor in self.opened.tensors.items()}
        self._check_attention()
        self.backbone = self._backbone()
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
            if value := self._value(field, ""):
                self.provenance[key] = str(value)[:1000]

    def _refuse_part(self) -> None:
        parts, number = self._value("split.count", 0), self._value("split.no", 0)
        for key, value in (("split.count", parts), ("split.no", number)):
            if not is_whole(value, 0, 1 << 16):
                raise self._odd(key, value, "an integer from 0 on")
        if parts > 1:
            raise ConversionError(
                f"{self.name} is part {number + 1} of {parts} of a model.",
                "Join the parts with llama.cpp (llama-gguf-split --merge) and name the whole file.",
            )

    def _value(self, key: str, default: Any = None) -> Any:
        if key in self.opened.fields:
            return self.opened.fields[key]
        if default is None:
            raise ConversionError(
                f"{self.name}: the metadata lacks {key}.", "Fetch a complete GGUF file."
            )
        return default

    def _size(self, key: str, default: int | None = None, least: int = 1) -> int:
        """A size of the architecture, which must be an integer."""
        name = f"{self.architecture}.{key}"
        value = self._value(name, default)
        if not is_whole(value, least, 1 << 32):
            raise self._odd(name, value, f"an integer from {least} on")
        return value

    def _number(self, key: str, default: float | None = None) -> float:
        """A number of the architecture that is above 0."""
        name = f"{self.architecture}.{key}"
        value = self._value(name, default)
        if not is_number(value, 1e-30, 1e30):
            raise self._odd(name, value, "a number above 0")
        return float(value)

    def _text(self, key: str, default: str | None = None) -> str:
        """A text of the metadata."""
        value = self._value(key, default)
        if not isinstance(value, str):
            raise self._odd(key, value, "a text")
        return value

    def _odd(self, key: str, value: Any, wanted: str) -> ConversionError:
        said = repr(value[:3] if isinstance(value, list) else value)[:80]
        return ConversionError(
            f"{self.name}: {key} is {said} in its metadata; it must be {wanted}.",
            "Fetch an intact copy, or convert the original safetensors checkpoint.",
        )

    def _check_attention(self) -> None:
        scaling = self._text(f"{self.architecture}.rope.scaling.type", "none")
        if scaling != "none" or "rope_freqs.weight" in self.shapes:
            kind = "rope_freqs.weight" if scaling == "none" else f"rope.scaling.type {scaling!r}"
            raise ConversionError(
                f"{self.name}: it scales its rope ({kind}), which GGUF does not describe fully.",
                "Convert the original safetensors checkpoint instead.",
            )
        if self._size("attention.sliding_window", 0, least=0):
            raise ConversionError(f"{self.name}: its attention is a sliding window.", SUPPORTED)

    def _backbone(self) -> dict[str, Any]:
        heads = self._size("attention.head_count")
        hidden = self._size("embedding_length")
        head_dim = self._size("attention.key_length", hidden // heads)
        rotary = self._size("rope.dimension_count", head_dim)
        if rotary != head_dim or self._size("attention.value_length", head_dim) != head_dim:
            raise ConversionError(
                f"{self.name}: heads of {head_dim} with {rotary} rotated coordinates and values of "
                f"{self._size('attention.value_length', head_dim)} are not supported.", SUPPORTED
            )  # fmt: skip
        vocabulary = self.shapes.get("token_embd.weight")
        if vocabulary is None:
            raise ConversionError(
                f"{self.name}: the weight token_embd.weight is missing.", "Fetch it again."
            )
        return {
            "backbone": self.architecture,
            "vocab_size": vocabulary[0],
            "hidden_size": hidden,
            "intermediate_size": self._size("feed_forward_length"),
            "num_hidden_layers": self._size("block_count"),
            "num_attention_heads": heads,
            "num_key_value_heads": self._size("attention.head_count_kv", heads),
            "head_dim": head_dim,
            "max_position_embeddings": self._size("context_length"),
            "rms_norm_eps": self._number("attention.layer_norm_rms_epsilon"),
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": self._number("rope.freq_base", 10000.0),
            },
            "attention_bias": not self.family.input_bias and "blk.0.attn_q.bias" in self.shapes,
            "mlp_bias": "blk.0.ffn_up.bias" in self.shapes,
            "tie_word_embeddings": "output.weight" not in self.shapes,
            **self._special_tokens(),
        }

    def _special_tokens(self) -> dict[str, int]:
        names = {"bos": "bos", "eos": "eos", "pad": "padding"}
        found = {}
        for key, name in names.items():
            token = self._value(field := f"tokenizer.ggml.{name}_token_id", -1)
            if not is_whole(token, -1, 1 << 32):
                raise self._odd(field, token, "the id of a token")
            if token >= 0:
                found[f"{key}_token_id"] = token
        return found

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
        if found and found[2] in _IN_LAYER:
            return f"model.layers.{found[1]}.{_IN_LAYER[found[2]]}.{found[3]}"
        raise ConversionError(f"{self.name}: the tensor {name} has no counterpart.", SUPPORTED)

    def write_texts(self, out: Path) -> None:
        """Build tokenizer and chat template from the metadata; end tokens as generation settings.

        Raises:
            ConversionError: the text is split by rules that are not known here.
        """
        kind = self._text("tokenizer.ggml.model")
        split = self._text("tokenizer.ggml.pre", "default")
        if kind not in ("gpt2", "llama") or (kind == "gpt2" and split not in _SPLITS):
            raise ConversionError(
                f"{self.name}: its tokenizer is of the kind {kind!r} with the splitting {split!r}, "
                "which is not known here.",
                _ORIGINAL,
            )
        self._check_vocabulary()
        with named_failure(f"{self.name}: its tokenizer cannot be converted", _ORIGINAL):
            self._convert_tokenizer(split, out)
        (out / "generation_config.json").write_text(
            json.dumps(self._special_tokens(), indent=2, sort_keys=True) + "\n", encoding="utf-8"
        )

    def _check_vocabulary(self) -> None:
        """Refuse lists that libraries would index one with the other without a look.

        Raises:
            ConversionError: one is missing, of other values, or does not fit the tokens.
        """
        tokens = self._list("tokenizer.ggml.tokens", str, None)
        if not tokens or len(tokens) > self.backbone["vocab_size"]:
            raise ConversionError(
                f"{self.name}: tokenizer.ggml.tokens lists {len(tokens)} tokens; the model has "
                f"{self.backbone['vocab_size']}.",
                "Fetch an intact copy.",
            )
        for key, kind in (("token_type", int), ("scores", float)):
            found = self._list(f"tokenizer.ggml.{key}", kind, [])
            if found and len(found) != len(tokens):
                raise ConversionError(
                    f"{self.name}: tokenizer.ggml.{key} has {len(found)} entries for "
                    f"{len(tokens)} tokens.",
                    "Fetch an intact copy.",
                )
        known = set(tokens)
        for merge in self._list("tokenizer.ggml.merges", str, []):
            parts = merge.split(" ")
            if len(parts) != 2 or not known.issuperset((*parts, "".join(parts))):
                raise ConversionError(
                    f"{self.name}: tokenizer.ggml.merges names {merge[:80]!r}, which are not two "
                    "tokens that make a third.",
                    "Fetch an intact copy.",
                )
        for key in ("add_bos_token", "add_eos_token", "add_space_prefix"):
            if not isinstance(value := self._value(f"tokenizer.ggml.{key}", False), bool):
                raise self._odd(f"tokenizer.ggml.{key}", value, "true or false")
        self._text("tokenizer.chat_template", "")

    def _list(self, key: str, kind: type, default: list[Any] | None) -> list[Any]:
        """A list of the metadata whose values are of one kind."""
        value = self._value(key, default)
        if not isinstance(value, list) or not all(type(one) is kind for one in value):
            raise self._odd(key, value, f"a list of {kind.__name__}")
        return value

    def _convert_tokenizer(self, split: str, out: Path) -> None:
        tokenizer = AutoTokenizer.from_pretrained(
            self.file.parent,
            gguf_file=self.name,
            local_files_only=True,
            trust_remote_code=False,
        )
        if split == "smollm":
            # Each digit is a word of its own, before the byte-level rules split the rest.
            tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
                [
                    pre_tokenizers.Digits(individual_digits=True),
                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
                ]
            )
        tokenizer.save_pretrained(out)


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
