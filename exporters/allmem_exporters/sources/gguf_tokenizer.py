"""The tokenizer that a GGUF file describes, by llama.cpp's conventions."""

from __future__ import annotations

import json
from pathlib import Path

from allmem_exporters.errors import ConversionError
from allmem_exporters.sources.gguf_metadata import Metadata
from allmem_exporters.sources.gguf_splits import SPLITS
from allmem_exporters.tokenizer_conversion import done
from allmem_exporters.tokenizer_making import SPACE, Making

BYTE_PAIRS, SENTENCE_PIECES = "gpt2", "llama"
"""Kinds of tokenizers, by ``tokenizer.ggml.model``."""

_ORIGINAL = "Convert the original safetensors checkpoint with its tokenizer.json instead."
_INTACT = "Fetch an intact copy."
_LONGEST_TOKEN, _MOST_CHARACTERS = 1 << 10, 1 << 24
"""Merges are found in a time that grows with the square of a token's length."""
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
        ConversionError: the text is split by rules that are not known here, lists contradict
            each other, or the tokenizer takes too much time or memory.
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
    rule = SPLITS[split] if kind == BYTE_PAIRS else None
    begins = metadata.flag("tokenizer.ggml.add_bos_token", rule is None or rule.begins)
    merges = _merges(metadata)
    making = Making(
        out=str(out.absolute()),
        tokens=_spelled(metadata, tokens, kind),
        merges=merges,
        scores=[] if rule or merges else _scores(metadata, tokens),
        patterns=list(rule.patterns) if rule else None,
        whole_words=rule is not None and rule.whole_words,
        prefixed=metadata.flag("tokenizer.ggml.add_space_prefix", True),
        added=_added(metadata, tokens),
        begin=_begin(metadata, tokens, kind) if begins else None,
    )
    done(making, f"{metadata.name}: its tokenizer cannot be converted", _ORIGINAL)
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


def _spelled(metadata: Metadata, tokens: list[str], kind: str) -> list[str]:
    """The tokens as texts are spelled when they are merged."""
    if kind == BYTE_PAIRS or metadata.architecture not in _IN_ORDER:
        return tokens
    return [SPACE * len(token) if _is_space(token) else token for token in tokens]


def _scores(metadata: Metadata, tokens: list[str]) -> list[float]:
    """Of sentence pieces, by which their merges are found."""
    if metadata.architecture in _IN_ORDER:
        return [-float(number) for number in range(len(tokens))]
    return metadata.values("tokenizer.ggml.scores", float, None)


def _added(metadata: Metadata, tokens: list[str]) -> list[tuple[str, bool]]:
    """Control tokens and those of the user, which are found whole, and whether each controls."""
    kinds = metadata.values("tokenizer.ggml.token_type", int, []) or [1] * len(tokens)
    control = {metadata.token(name) for name in _NAMED}
    respelled = metadata.architecture in _IN_ORDER
    control |= {number for number, kind in enumerate(kinds) if kind in (_UNKNOWN, _CONTROL)}
    return [
        (token, number in control)
        for number, token in enumerate(tokens)
        if token
        and (number in control or kinds[number] == _USER_DEFINED)
        and not (respelled and _is_space(token))
    ]


def _is_space(token: str) -> bool:
    """Whether a token is nothing but spaces."""
    return bool(token) and not token.strip(" ")


def _begin(metadata: Metadata, tokens: list[str], kind: str) -> tuple[str, int]:
    """The token that every text begins with, and its number."""
    number = metadata.token("bos")
    if number is None and kind == SENTENCE_PIECES:
        number = _FIRST
    if number is None or number >= len(tokens):
        raise ConversionError(
            f"{metadata.name}: its texts begin with a token of their own, and "
            f"tokenizer.ggml.bos_token_id, {number}, names none.",
            _ORIGINAL,
        )
    return tokens[number], number
