"""Tries the tokenizer and the chat template that a model would get, before any work is done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from allmem_exporters.errors import ExportError
from allmem_exporters.local_files import file_in, json_in, text_in
from allmem_exporters.model.config import AllMemConfig
from allmem_runtime.errors import AllMemError, ModelFileError
from allmem_runtime.spec import CHAT_TEMPLATE_FILE, GENERATION_FILE, TOKENIZER_FILE
from allmem_runtime.strict_json import is_whole
from allmem_runtime.text.tokenizer import read_tokenizer
from allmem_runtime.text.trial import Candidate, tried

_OTHER_TEMPLATE = (
    f"Put another {CHAT_TEMPLATE_FILE} into the folder, or delete it for plain "
    "questions and answers, and try again."
)


def try_texts(
    folder: Path, config: AllMemConfig, named: str, error: type[AllMemError] = ExportError
) -> None:
    """Try what a folder has of them, in conversations of several shapes.

    Args:
        folder: a checkpoint, or what is to become one.
        config: of the model.
        named: what the user calls the folder.
        error: what to raise.

    Raises:
        AllMemError: the tokenizer cannot be used, or the template fails with every conversation.
    """
    if (path := file_in(folder, TOKENIZER_FILE)) is None:
        return
    try:
        source = text_in(folder, CHAT_TEMPLATE_FILE)
        end = end_tokens(config, folder / GENERATION_FILE)
        content = read_tokenizer(path)
        tried(Candidate(content, source, None, end, Path(named)))
    except ModelFileError as failure:
        hint = _OTHER_TEMPLATE if "template" in failure.message else failure.hint
        raise error(f"{named}: {failure.message}", hint) from None
    _refuse_tokens_without_rows(content, config, named, error)


def _refuse_tokens_without_rows(
    content: str, config: AllMemConfig, named: str, error: type[AllMemError]
) -> None:
    """Refuse a tokenizer that knows tokens for which the embedding has no row."""
    tokenizer = json.loads(content)  # the trial has read it
    vocabulary = tokenizer["model"]["vocab"]
    if isinstance(vocabulary, list):  # of sentence pieces, each with its score
        vocabulary = {piece: number for number, (piece, _) in enumerate(vocabulary)}
    added = {token["content"]: token["id"] for token in tokenizer.get("added_tokens") or ()}
    rows = config.vocab_size
    beyond = {name: number for name, number in (vocabulary | added).items() if number >= rows}
    if beyond:
        first = min(beyond, key=beyond.__getitem__)
        raise error(
            f"{named}: its tokenizer knows {max(beyond.values()) + 1:,} tokens, the embedding has "
            f"{rows:,} rows; {first!r} is {beyond[first]:,}.",
            "Tokenizer and weights come from different models, or tokens were added without rows: "
            "fetch both from one place, or delete the tokens from tokenizer.json.",
        )


def end_tokens(config: AllMemConfig, generation: Path) -> tuple[int, ...]:
    """What ends an answer, by the model's generation settings and its configuration."""
    found: list[Any] = [config.eos_token_id]
    found.append((json_in(generation.parent, generation.name) or {}).get("eos_token_id"))
    tokens: dict[int, None] = {}
    for entry in found:
        for token in entry if isinstance(entry, list) else [entry]:
            if is_whole(token, 0, config.vocab_size - 1):
                tokens[token] = None
    return tuple(tokens)
