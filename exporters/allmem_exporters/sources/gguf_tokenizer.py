"""The tokenizer that a GGUF file describes, by llama.cpp's conventions."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)
from transformers.tokenization_utils_base import generate_merges

from allmem_exporters.errors import ConversionError
from allmem_exporters.sources.gguf_metadata import Metadata
from allmem_exporters.sources.gguf_splits import SPLITS, Split

BYTE_PAIRS, SENTENCE_PIECES = "gpt2", "llama"
"""Kinds of tokenizers, by ``tokenizer.ggml.model``."""

_ORIGINAL = "Convert the original safetensors checkpoint with its tokenizer.json instead."
_INTACT = "Fetch an intact copy."
_LONGEST_TOKEN, _MOST_CHARACTERS = 1 << 10, 1 << 24
"""Merges are found in a time that grows with the square of a token's length."""
_SPACE = "\u2581"
_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4
"""Values of ``tokenizer.ggml.token_type`` for tokens that are found whole in a text."""
_IN_ORDER = ("gemma", "gemma2", "gemma3")
"""Architectures whose pieces are merged in the order of the vocabulary, whatever their scores, and
whose files spell spaces in a row as such, not as parts of pieces are."""
_NAMED = {"bos": "bos", "eos": "eos", "padding": "pad", "unknown": "unk"}
_FIRST = 1
"""The token that begins texts of sentence pieces where the file does not name it."""


def write_tokenizer(metadata: Metadata, rows: int, out: Path) -> None:
    """Write ``tokenizer.json`` and its settings.

    Args:
        metadata: of the file.
        rows: of the embedding.
        out: folder.

    Raises:
        ConversionError: the text is split by rules that are not known here, or lists contradict
            each other.
    """
    kind = metadata.text("tokenizer.ggml.model")
    split = metadata.text("tokenizer.ggml.pre", "default")
    if kind not in (BYTE_PAIRS, SENTENCE_PIECES) or (kind == BYTE_PAIRS and split not in SPLITS):
        raise ConversionError(
            f"{metadata.name}: its tokenizer is of the kind {kind!r} with the splitting {split!r}, "
            "which is not known here.",
            _ORIGINAL,
        )
    tokens = _vocabulary(metadata, rows)
    vocabulary = {token: number for number, token in enumerate(tokens)}
    if kind == BYTE_PAIRS:
        tokenizer, begins = _byte_pairs(metadata, vocabulary, SPLITS[split]), SPLITS[split].begins
    else:
        tokenizer, begins = _sentence_pieces(metadata, tokens, vocabulary), True
    _add_tokens(metadata, tokens, tokenizer)
    if metadata.flag("tokenizer.ggml.add_bos_token", begins):
        _begin(metadata, tokens, kind, tokenizer)
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    for name, ours in _NAMED.items():
        if (number := metadata.token(name)) is not None and number < len(tokens):
            settings[f"{ours}_token"] = tokens[number]
    (out / "tokenizer_config.json").write_text(
        json.dumps(settings, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def _vocabulary(metadata: Metadata, rows: int) -> list[str]:
    """The tokens, held against the embedding and against the lists that belong to them."""
    tokens: list[str] = metadata.values("tokenizer.ggml.tokens", str, None)
    if not tokens or len(tokens) > rows:
        raise ConversionError(
            f"{metadata.name}: tokenizer.ggml.tokens lists {len(tokens)} tokens; the model has "
            f"{rows}.",
            _INTACT,
        )
    longest, whole = max(map(len, tokens)), sum(map(len, tokens))
    if longest > _LONGEST_TOKEN or whole > _MOST_CHARACTERS:
        raise ConversionError(
            f"{metadata.name}: tokenizer.ggml.tokens has {whole:,} characters, {longest:,} of them "
            f"in one token; at most {_MOST_CHARACTERS:,} and {_LONGEST_TOKEN:,} are read.",
            _INTACT,
        )
    for key, kind in (("token_type", int), ("scores", float)):
        found = metadata.values(f"tokenizer.ggml.{key}", kind, [])
        if found and len(found) != len(tokens):
            raise ConversionError(
                f"{metadata.name}: tokenizer.ggml.{key} has {len(found)} entries for "
                f"{len(tokens)} tokens.",
                _INTACT,
            )
    known = set(tokens)
    for merge in metadata.values("tokenizer.ggml.merges", str, []):
        parts = merge.split(" ")
        if len(parts) != 2 or not known.issuperset((*parts, "".join(parts))):
            raise ConversionError(
                f"{metadata.name}: tokenizer.ggml.merges names {merge[:80]!r}, which are not two "
                "tokens that make a third.",
                _INTACT,
            )
    return tokens


def _merges(metadata: Metadata) -> list[tuple[str, str]]:
    found = []
    for merge in metadata.values("tokenizer.ggml.merges", str, []):
        first, _, second = merge.partition(" ")
        found.append((first, second))
    return found


def _byte_pairs(metadata: Metadata, vocabulary: dict[str, int], split: Split) -> Tokenizer:
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=_merges(metadata), ignore_merges=split.whole_words)
    )
    steps = [pre_tokenizers.Split(Regex(one), behavior="isolated") for one in split.patterns]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [*steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentence_pieces(
    metadata: Metadata, tokens: list[str], vocabulary: dict[str, int]
) -> Tokenizer:
    """Pieces merged by their scores; texts, and parts behind control tokens, get a space."""
    merges = _merges(metadata)
    if metadata.architecture in _IN_ORDER:
        vocabulary = {_SPACE * len(t) if _is_space(t) else t: n for t, n in vocabulary.items()}
        places = {token: -float(number) for token, number in vocabulary.items()}
        merges = merges or generate_merges(vocabulary, places)
    elif not merges:
        scores = metadata.values("tokenizer.ggml.scores", float, None)
        merges = generate_merges(vocabulary, dict(zip(tokens, scores, strict=True)))
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, fuse_unk=True, byte_fallback=True)
    )
    prefixed = metadata.flag("tokenizer.ggml.add_space_prefix", True)
    prefix = [normalizers.Prepend(_SPACE)] if prefixed else []
    tokenizer.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", _SPACE)])
    stripped = [decoders.Strip(content=" ", left=1, right=0)] if prefixed else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *stripped]
    )
    return tokenizer


def _add_tokens(metadata: Metadata, tokens: list[str], tokenizer: Tokenizer) -> None:
    """Let control tokens and those of the user be found whole."""
    kinds = metadata.values("tokenizer.ggml.token_type", int, []) or [1] * len(tokens)
    control = {metadata.token(name) for name in _NAMED}
    respelled = metadata.architecture in _IN_ORDER
    control |= {number for number, kind in enumerate(kinds) if kind in (_UNKNOWN, _CONTROL)}
    tokenizer.add_tokens(
        [
            AddedToken(token, normalized=False, special=number in control)
            for number, token in enumerate(tokens)
            if token
            and (number in control or kinds[number] == _USER_DEFINED)
            and not (respelled and _is_space(token))
        ]
    )


def _is_space(token: str) -> bool:
    """Whether a token is nothing but spaces."""
    return bool(token) and not token.strip(" ")


def _begin(metadata: Metadata, tokens: list[str], kind: str, tokenizer: Tokenizer) -> None:
    """Let every text begin with the token for it."""
    number = metadata.token("bos")
    if number is None and kind == SENTENCE_PIECES:
        number = _FIRST
    if number is None or number >= len(tokens):
        raise ConversionError(
            f"{metadata.name}: its texts begin with a token of their own, and "
            f"tokenizer.ggml.bos_token_id, {number}, names none.",
            _ORIGINAL,
        )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="begin $A",
        special_tokens=[{"id": "begin", "ids": [number], "tokens": [tokens[number]]}],
    )
