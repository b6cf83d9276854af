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

_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_BY_CASE = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+",
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*",
)
_SLASHES = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"

_LLAMA3_PATTERNS = (_WORDS + r"|\p{N}{1,3}" + _REST,)
_LLAMA3 = Split(_LLAMA3_PATTERNS, whole_words=True, begins=True)
_GPT4 = Split(_LLAMA3_PATTERNS)
_GPT4O = Split(("|".join(word + _SUFFIXES + "?" for word in _BY_CASE) + r"|\p{N}{1,3}" + _SLASHES,))
_TEKKEN = Split(("|".join(_BY_CASE) + r"|\p{N}" + _SLASHES,), whole_words=True, begins=True)
_QWEN2 = Split((_WORDS + r"|\p{N}" + _REST,))
_SEED = r"| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"
_DEFAULT = Split((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"))
_DIGITS = Split((r"\p{N}", _GPT2))

SPLITS = {
    "default": _DEFAULT,
    **dict.fromkeys(("gpt-2", "phi-2", "olmo", "exaone4"), Split((_GPT2,))),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "exaone"), _DIGITS),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "falcon3", "lfm2", "pixtral"), _LLAMA3),
    **dict.fromkeys(("dbrx", "smaug-bpe", "chatglm-bpe"), _GPT4),
    "glm4": Split(_LLAMA3_PATTERNS, whole_words=True),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "stablelm2", "megrez"), _QWEN2),
    "gpt-4o": _GPT4O,
    "tekken": _TEKKEN,
    "seed-coder": Split((_WORDS + r"|\p{N}" + _SEED,)),
}
"""By ``tokenizer.ggml.pre``; a file without it means ``default``."""
