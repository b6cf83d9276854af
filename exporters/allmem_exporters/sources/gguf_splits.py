"""How llama.cpp splits a text before byte pairs are merged, by the name of it in a GGUF file.

A model may bring the tokenizer of another family, so this is no part of a family's table.
Source: https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Split:
    """One way of splitting.

    Attributes:
        patterns: each splits what the ones before it left.
        whole_words: a word that is a token is not merged from its parts (``ignore_merges``).
        begins: a text begins with the token for it, unless the file says otherwise.
    """

    patterns: tuple[str, ...]
    whole_words: bool = False
    begins: bool = False


_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_SUFFIXES = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORDS = _SUFFIXES + r"|[^\r\n\p{L}\p{N}]?\p{L}+"

_LLAMA3 = Split((_WORDS + r"|\p{N}{1,3}" + _REST,), whole_words=True, begins=True)
_QWEN2 = Split((_WORDS + r"|\p{N}" + _REST,))
_DEFAULT = Split((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"))

SPLITS = {
    "default": _DEFAULT,
    "gpt-2": Split((_GPT2,)),
    "smollm": Split((r"\p{N}", _GPT2)),
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "qwen2": _QWEN2,
    "deepseek-r1-qwen": _QWEN2,
}
"""By ``tokenizer.ggml.pre``; a file without it means ``default``."""
