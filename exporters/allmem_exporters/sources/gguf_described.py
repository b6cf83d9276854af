"""What a GGUF file's metadata and tensors say of a decoder, by llama.cpp's conventions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from allmem_exporters.errors import ConversionError
from allmem_exporters.sources.gguf_file import GgufFile
from allmem_exporters.sources.gguf_metadata import Metadata

ROPE_FACTORS = "rope_freqs.weight"
"""The tensor by which frequencies are divided, one number for each rotated pair."""
_BY_LENGTH = ("rope_factors_long.weight", "rope_factors_short.weight")
"""The same for texts beyond the first trained length, and for those within it."""
_ORIGINAL = "Convert the original safetensors checkpoint instead."
_YARN = {
    "rope.scaling.yarn_attn_factor": "attention_factor",
    "rope.scaling.yarn_beta_fast": "beta_fast",
    "rope.scaling.yarn_beta_slow": "beta_slow",
}


class Described:
    """Typed answers about one file.

    Args:
        metadata: of the file.
        opened: the file.
    """

    def __init__(self, metadata: Metadata, opened: GgufFile) -> None:
        self.metadata, self._opened = metadata, opened
        self.shapes = {name: tensor.shape for name, tensor in opened.tensors.items()}
        self.layers = metadata.size("block_count")
        self.heads = metadata.size("attention.head_count")
        self.hidden = metadata.size("embedding_length")
        self.head_dim = metadata.size("attention.key_length", max(1, self.hidden // self.heads))
        self.rotary = metadata.size("rope.dimension_count", self.head_dim)
        self.length = metadata.size("context_length")

    def has(self, tensor: str) -> bool:
        """Whether the file has a tensor."""
        return tensor in self.shapes

    @property
    def vocabulary(self) -> int:
        """Rows of the embedding."""
        found = self.shapes.get("token_embd.weight")
        if found is None:
            raise self.refuse("the weight token_embd.weight is missing", "Fetch it again.")
        return found[0]

    @property
    def window(self) -> int | None:
        """Of local layers, or of all; None where there is none."""
        return self.metadata.size("attention.sliding_window", 0, least=0) or None

    def refuse(self, what: str, hint: str = _ORIGINAL) -> ConversionError:
        """The error of a file that cannot be converted."""
        return ConversionError(f"{self.metadata.name}: {what}.", hint)

    def layer_types(self, period: int, window: int | None) -> list[str]:
        """Which layers see a window only, by transformers' names.

        Args:
            period: each so many-th layer sees everything where the file does not say it.
            window: None where all layers do.
        """
        key = f"{self.metadata.architecture}.attention.sliding_window_pattern"
        given = self.metadata.value(key, period)
        if isinstance(given, list):
            local = [bool(one) for one in self.metadata.values(key, type(given[0]), None)]
        else:
            size = self.metadata.size("attention.sliding_window_pattern", period)
            local = [(layer + 1) % size != 0 for layer in range(self.layers)]
        if len(local) != self.layers:
            raise self.refuse(f"{key} has {len(local)} entries for {self.layers} layers")
        kinds = {True: "sliding_attention", False: "full_attention"}
        return [kinds[window is not None and one] for one in local]

    def rope(self, *, partial: bool = False) -> dict[str, Any]:
        """How positions turn queries and keys, by transformers' names but for the factors.

        A factor without a kind is linear, and ``rope.scale_linear`` is its older name. A factor of
        0 or 1 scales nothing, and neither does the kind ``none``.

        Args:
            partial: whether some coordinates may be left unturned.
        """
        values = self.metadata.size("attention.value_length", self.head_dim)
        even = self.rotary % 2 == 0 and self.rotary <= self.head_dim
        if values != self.head_dim or not (even if partial else self.rotary == self.head_dim):
            raise self.refuse(
                f"heads of {self.head_dim} with {self.rotary} rotated coordinates and values of "
                f"{values} are not supported"
            )
        rope = self._scaled({"rope_theta": self.metadata.number("rope.freq_base", 10000.0)})
        return rope | ({"partial_rotary_factor": self._part()} if partial else {})

    def factors(self) -> list[float] | None:
        """What the frequencies of the rotated pairs are divided by, if they are."""
        if not self.has(ROPE_FACTORS):
            return None
        pairs = self.rotary // 2
        if self.shapes[ROPE_FACTORS] != (pairs,):
            raise self.refuse(
                f"{ROPE_FACTORS} has the shape {list(self.shapes[ROPE_FACTORS])}; heads with "
                f"{pairs} rotated pairs ask for [{pairs}]",
                "Fetch an intact copy.",
            )
        values = self._opened.values(ROPE_FACTORS, 0, pairs)
        if not np.isfinite(values).all() or (values <= 0).any():
            raise self.refuse(
                f"{ROPE_FACTORS} holds a value that is no number above 0", "Fetch an intact copy."
            )
        found: list[float] = values.tolist()
        return found

    def _part(self) -> float:
        """The part of a head that turns, from which libraries find the number again."""
        part = self.rotary / self.head_dim
        return part if int(self.head_dim * part) == self.rotary else math.nextafter(part, 1)

    def _scaled(self, rope: dict[str, Any]) -> dict[str, Any]:
        metadata = self.metadata
        kind = metadata.text(f"{metadata.architecture}.rope.scaling.type", "linear")
        older = metadata.number("rope.scale_linear", 0.0, least=0.0)
        factor = metadata.number("rope.scaling.factor", older, least=0.0) or 1.0
        scaled = factor != 1.0 and kind != "none"
        if kind == "longrope" or any(map(self.has, _BY_LENGTH)):
            raise self.refuse(
                "its rope is a longrope, whose frequencies depend on the length read",
                "Convert a model of the same family with a shorter context.",
            )
        if kind not in ("none", "linear", "yarn") or (scaled and self.has(ROPE_FACTORS)):
            divided = self.has(ROPE_FACTORS)
            told = f"{ROPE_FACTORS} and {kind}" if divided else f"rope.scaling.type {kind!r}"
            raise self.refuse(f"its rope is scaled in a way that is not known here ({told})")
        if not scaled:
            return {"rope_type": "default", **rope}
        rope = {"rope_type": kind, **rope, "factor": factor}
        if kind == "yarn":
            original = metadata.size("rope.scaling.original_context_length", self.length)
            rope["original_max_position_embeddings"] = original
            for key, name in _YARN.items():
                if f"{metadata.architecture}.{key}" in metadata.fields:
                    rope[name] = metadata.number(key)
        return rope


def special_tokens(metadata: Metadata) -> dict[str, Any]:
    """Tokens that begin, end and fill up texts; every token that ends a turn ends an answer.

    None stands for those that the file does not name: classes of transformers have defaults, which
    are tokens of other models.
    """
    named = {"bos": "bos", "eos": "eos", "pad": "padding"}
    found: dict[str, Any] = {f"{key}_token_id": metadata.token(name) for key, name in named.items()}
    ends = [metadata.token(name) for name in ("eos", "eot", "eom")]
    known = list(dict.fromkeys(token for token in ends if token is not None))
    if known:
        found["eos_token_id"] = known[0] if len(known) == 1 else known
    return found
