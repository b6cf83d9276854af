"""The metadata of a GGUF file, of which every value is checked before it is used.

It also knows which keys of an architecture and of a tokenizer are understood. Any other key could
change what the model computes, so it is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

from allmem_exporters.errors import ConversionError
from allmem_exporters.sources.gguf_file import GgufFile
from allmem_runtime.strict_json import is_number, is_whole

_INTACT = "Fetch an intact copy."

_READ = {
    "context_length", "embedding_length", "block_count", "feed_forward_length",
    "attention.head_count", "attention.head_count_kv", "attention.key_length",
    "attention.value_length", "attention.sliding_window",
    "rope.freq_base", "rope.dimension_count", "rope.scaling.type", "rope.scaling.factor",
    "rope.scale_linear", "rope.scaling.original_context_length", "rope.scaling.yarn_attn_factor",
    "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow",
}  # fmt: skip
"""Keys of an architecture that say something about the model."""
_ONLY: dict[str, tuple[Any, ...]] = {
    "attention.causal": (True,),
    "use_parallel_residual": (False,),
    "expert_count": (0,),
    "expert_used_count": (0,),
    "leading_dense_block_count": (0,),
    "tensor_data_layout": ("Meta AI original pth",),
}
"""Keys of an architecture with the values that change nothing here."""
_WITHOUT_EFFECT = {"vocab_size", "rope.scaling.finetuned"}
"""Keys of an architecture that do not change what is computed: tokens are counted by their rows."""

_TOKENIZER_READ = {
    "model", "pre", "tokens", "scores", "token_type", "merges", "add_bos_token",
    "add_space_prefix", "bos_token_id", "eos_token_id", "padding_token_id", "unknown_token_id",
    "eot_token_id", "eom_token_id",
}  # fmt: skip
_TOKENIZER_ONLY: dict[str, tuple[Any, ...]] = {
    "add_sep_token": (False,),
    "remove_extra_whitespaces": (False,),
}
_TOKENIZER_WITHOUT_EFFECT = {
    # A token at the end is none of a text that goes on.
    "add_eos_token",
    # Parts of prompts, which are the chat template's.
    "prefix_token_id", "suffix_token_id", "middle_token_id", "fim_pre_token_id",
    "fim_suf_token_id", "fim_mid_token_id", "fim_pad_token_id", "fim_rep_token_id",
    "fim_sep_token_id", "mask_token_id", "cls_token_id", "separator_token_id",
    "seperator_token_id", "token_type_count",
}  # fmt: skip


class Metadata:
    """Typed access to the metadata of a file.

    Args:
        opened: the file.
    """

    def __init__(self, opened: GgufFile) -> None:
        self.fields, self.name = opened.fields, opened.path.name
        self.architecture = self.text("general.architecture")

    def value(self, key: str, default: Any = None) -> Any:
        """What a key has; the default of None means that it must be there."""
        if key in self.fields:
            return self.fields[key]
        if default is None:
            raise ConversionError(
                f"{self.name}: the metadata lacks {key}.", "Fetch a complete GGUF file."
            )
        return default

    def size(self, key: str, default: int | None = None, least: int = 1) -> int:
        """A size of the architecture, which must be an integer."""
        name = f"{self.architecture}.{key}"
        value = self.value(name, default)
        if not is_whole(value, least, 1 << 32):
            raise self.odd(name, value, f"an integer from {least} on")
        return value

    def number(self, key: str, default: float | None = None, least: float = 1e-30) -> float:
        """A number of the architecture."""
        name = f"{self.architecture}.{key}"
        value = self.value(name, default)
        if not is_number(value, least, 1e30):
            raise self.odd(name, value, f"a number {'from' if least == 0 else 'above'} 0")
        return float(value)

    def text(self, key: str, default: str | None = None) -> str:
        """A text."""
        value = self.value(key, default)
        if not isinstance(value, str):
            raise self.odd(key, value, "a text")
        return value

    def flag(self, key: str, default: bool) -> bool:
        """Whether something is so."""
        value = self.value(key, default)
        if not isinstance(value, bool):
            raise self.odd(key, value, "true or false")
        return value

    def token(self, name: str) -> int | None:
        """The id of a token with a part of its own, such as ``bos``; None where there is none."""
        value = self.value(key := f"tokenizer.ggml.{name}_token_id", -1)
        if not is_whole(value, -1, 1 << 32):
            raise self.odd(key, value, "the id of a token")
        return value if value >= 0 else None

    def values(self, key: str, kind: type, default: list[Any] | None) -> list[Any]:
        """A list whose values are of one kind."""
        value = self.value(key, default)
        if not isinstance(value, list) or not all(type(one) is kind for one in value):
            raise self.odd(key, value, f"a list of {kind.__name__}")
        return value

    def odd(self, key: str, value: Any, wanted: str) -> ConversionError:
        """The error of a value that cannot be meant."""
        said = repr(value[:3] if isinstance(value, list) else value)[:80]
        return ConversionError(
            f"{self.name}: {key} is {said} in its metadata; it must be {wanted}.",
            "Fetch an intact copy, or convert the original safetensors checkpoint.",
        )

    def refuse_unknown(self, reads: Set[str], only: Mapping[str, tuple[Any, ...]]) -> None:
        """Refuse keys of the architecture and the tokenizer that nobody here understands.

        Args:
            reads: keys that this architecture has beside those that all have.
            only: keys with the values that change nothing in it.

        Raises:
            ConversionError: names the key and its value.
        """
        known_keys = (_READ | _WITHOUT_EFFECT | reads) - only.keys()
        known_values = {**_ONLY, **only}
        for key, value in self.fields.items():
            head, _, rest = key.partition(".")
            if head == self.architecture:
                self._known(key, rest, value, known_keys, known_values)
            elif key.startswith("tokenizer.ggml."):
                known = _TOKENIZER_READ | _TOKENIZER_WITHOUT_EFFECT
                self._known(key, key.removeprefix("tokenizer.ggml."), value, known, _TOKENIZER_ONLY)

    def _known(
        self,
        key: str,
        rest: str,
        value: Any,
        known: Set[str],
        only: Mapping[str, tuple[Any, ...]],
    ) -> None:
        if rest in known or (rest in only and value in only[rest]):
            return
        said = repr(value[:3] if isinstance(value, list) else value)[:80]
        raise ConversionError(
            f"{self.name}: {key} is {said} in its metadata, which is not understood and may change "
            "what the model computes.",
            "Convert the original safetensors checkpoint, or report the key.",
        )
