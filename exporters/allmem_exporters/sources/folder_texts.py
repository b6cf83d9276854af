"""What a folder in transformers' layout says of texts outside of its tokenizer.json.

Added tokens may stand in tokenizer_config.json or added_tokens.json alone, and the chat template in
tokenizer_config.json, alone or as one of several.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from allmem_exporters.errors import ConversionError
from allmem_exporters.local_files import json_in
from allmem_exporters.tokenizer_file import named_failure, read_tokenizer
from allmem_runtime.strict_json import is_whole

SETTINGS = "tokenizer_config.json"
_TOKENIZER, _ADDED, _NAMED = "tokenizer.json", "added_tokens.json", "special_tokens_map.json"
_TEMPLATE = "chat_template.jinja"
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_DEFAULT = "default"
_INTACT = "Fetch an intact copy."


def add_tokens(folder: Path, out: Path, name: str, rows: int) -> None:
    """Put the added tokens of a folder that its tokenizer.json lacks into the one in ``out``.

    They get the ids that the folder states. A token with a part of its own may have none: like
    transformers, we give it the next one, and leave it out where the model has no row for it.

    Args:
        folder: the source.
        out: folder with a copy of its tokenizer.json.
        name: of the source, for messages.
        rows: of the embedding.

    Raises:
        ConversionError: a token has two ids, or one that it cannot be given.
    """
    wanted = _numbered(folder, name)
    tokenizer = read_tokenizer(out / _TOKENIZER)
    known = tokenizer.get_added_tokens_decoder()
    missing = {
        number: token
        for number, token in sorted(wanted.items())
        if number not in known or known[number].content != token.content
    }
    stated = {one.content for one in (*known.values(), *wanted.values())}
    more = [token for token in _named(folder) if token.content not in stated]
    if not missing and not more:
        return
    with named_failure(f"{name}: its added tokens cannot be added", _INTACT):
        tokenizer.add_tokens(list(missing.values()))
        for token in more:
            if tokenizer.token_to_id(token.content) is not None or _next_id(tokenizer) < rows:
                tokenizer.add_tokens([token])
    for number, token in missing.items():
        if (found := tokenizer.token_to_id(token.content)) != number:
            raise ConversionError(
                f"{name}: the added token {token.content!r} is {number} in {SETTINGS} or {_ADDED}; "
                f"tokenizer.json makes it {found}.",
                _INTACT,
            )
    tokenizer.save(str(out / _TOKENIZER), pretty=False)


def _next_id(tokenizer: Tokenizer) -> int:
    return max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1


def _numbered(folder: Path, name: str) -> dict[int, AddedToken]:
    """Added tokens by the ids that the folder states beside its tokenizer.json."""
    found: dict[int, AddedToken] = {}
    special = {token.content for token in _named(folder)}
    for text, number in (json_in(folder, _ADDED) or {}).items():
        if not is_whole(number, 0, 1 << 32):
            raise _odd(name, _ADDED, text)
        found[number] = AddedToken(text, normalized=False, special=text in special)
    described = (json_in(folder, SETTINGS) or {}).get("added_tokens_decoder") or {}
    if not isinstance(described, dict):
        raise _odd(name, SETTINGS, "added_tokens_decoder")
    for key, token in described.items():
        if not key.isascii() or not key.isdigit() or not _is_token(token):
            raise _odd(name, SETTINGS, f"added_tokens_decoder.{key}")
        number = int(key)
        if number in found and found[number].content != token["content"]:
            raise ConversionError(
                f"{name}: {SETTINGS} and {_ADDED} have two tokens for {number}, "
                f"{token['content']!r} and {found[number].content!r}.",
                _INTACT,
            )
        flags = {flag: token[flag] for flag in _FLAGS if flag in token}
        found[number] = AddedToken(token["content"], **flags)
    return found


def _named(folder: Path) -> list[AddedToken]:
    """Tokens with a part of their own, such as ``pad_token``, for which no id may be stated."""
    found: dict[str, AddedToken] = {}
    for file in (SETTINGS, _NAMED):
        values = json_in(folder, file) or {}
        single = [value for key, value in values.items() if key.endswith("_token")]
        for value in (*single, *_each(values.get("additional_special_tokens")),
                      *_each(values.get("extra_special_tokens"))):  # fmt: skip
            token = {"content": value} if isinstance(value, str) else value
            if _is_token(token):
                flags = {flag: token[flag] for flag in _FLAGS if flag in token}
                found.setdefault(
                    token["content"],
                    AddedToken(token["content"], **{"normalized": False, **flags, "special": True}),
                )
    return list(found.values())


def _each(values: Any) -> list[Any]:
    if isinstance(values, dict):
        return list(values.values())
    return values if isinstance(values, list) else []


def _is_token(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("content"), str)
        and bool(value["content"])
        and all(isinstance(value[flag], bool) for flag in _FLAGS if flag in value)
    )


def _odd(name: str, file: str, what: str) -> ConversionError:
    return ConversionError(f"{name}: {file} does not say what token {what!r} is.", _INTACT)


def write_template(out: Path, name: str) -> None:
    """Give the chat template a file of its own, if it stands in the settings.

    Raises:
        ConversionError: there are several, and none of them is the one for chats.
    """
    if (out / _TEMPLATE).exists():
        return
    template = (json_in(out, SETTINGS) or {}).get("chat_template")
    if isinstance(template, list):
        entries = [entry for entry in template if isinstance(entry, dict)]
        named = {str(entry.get("name")): entry.get("template") for entry in entries}
        template = named.get(_DEFAULT)
        if not isinstance(template, str):
            raise ConversionError(
                f"{name}: {SETTINGS} has {len(entries)} chat templates "
                f"({', '.join(sorted(named)) or 'without names'}), and none of them is "
                f"{_DEFAULT!r}.",
                f"Name the one for chats {_DEFAULT!r}, or write it to {_TEMPLATE}.",
            )
    if isinstance(template, str):
        (out / _TEMPLATE).write_text(template, encoding="utf-8")
