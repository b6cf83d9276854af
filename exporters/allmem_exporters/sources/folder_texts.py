"""What a folder in transformers' layout says of texts outside of its tokenizer.json.

Added tokens may stand in tokenizer_config.json or added_tokens.json alone, and the chat template in
tokenizer_config.json, alone or as one of several.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from allmem_exporters.errors import ConversionError
from allmem_exporters.local_files import file_in, json_in
from allmem_exporters.tokenizer_conversion import done
from allmem_exporters.tokenizer_file import named_failure
from allmem_exporters.tokenizer_works import Addition
from allmem_runtime.strict_json import is_whole
from allmem_runtime.text.tokenizer import MAX_TOKENIZER_BYTES, read_tokenizer

Token = dict[str, Any]
"""What the library's ``AddedToken`` takes."""

SETTINGS = "tokenizer_config.json"
_TOKENIZER, _ADDED, _NAMED = "tokenizer.json", "added_tokens.json", "special_tokens_map.json"
_TEMPLATE = "chat_template.jinja"
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_DEFAULT = "default"
_INTACT = "Fetch an intact copy."
_OF_TOKENIZERS = (".json", ".txt", ".model", ".bpe", ".tiktoken", ".vocab", ".jinja")
"""How the names of files end that tokenizers of transformers are made of."""
_PLACE = re.compile(r"(_files?|_path|_dir|_folder|_kwargs)$|^name_or_path$")
"""Settings that name a file somewhere, or are handed to another library that may read one."""


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
    known = _added(out / _TOKENIZER)
    missing = {
        number: token
        for number, token in sorted(wanted.items())
        if known.get(number) != token["content"]
    }
    stated = {*known.values(), *(token["content"] for token in wanted.values())}
    more = [token for token in _named(folder) if token["content"] not in stated]
    if not missing and not more:
        return
    found = done(
        Addition(str(out.absolute()), list(missing.items()), more, rows),
        f"{name}: its added tokens cannot be added",
        _INTACT,
    )
    for (number, token), given in zip(missing.items(), found, strict=True):
        if given != number:
            raise ConversionError(
                f"{name}: the added token {token['content']!r} is {number} in {SETTINGS} or "
                f"{_ADDED}; tokenizer.json makes it {given}.",
                _INTACT,
            )


def copy_texts(folder: Path, to: Path) -> None:
    """Copy what a tokenizer in another form is made of, so that nothing else can be read for it.

    Args:
        folder: the source.
        to: an empty folder.

    Raises:
        ConversionError: one of the files is a link out of the folder, or too large.
    """
    for name in sorted(os.listdir(folder)):
        if not name.endswith(_OF_TOKENIZERS) or name.endswith(".index.json"):
            continue
        if (path := file_in(folder, name)) is None:
            continue
        if path.stat().st_size > MAX_TOKENIZER_BYTES:
            raise ConversionError(
                f"{path} has {path.stat().st_size:,} bytes; of a tokenizer's file at most "
                f"{MAX_TOKENIZER_BYTES:,} are read.",
                _INTACT,
            )
        if name == SETTINGS:
            settings = json_in(folder, name) or {}
            kept = {key: value for key, value in settings.items() if not _PLACE.search(key)}
            (to / name).write_text(json.dumps(kept), encoding="utf-8")
        else:
            shutil.copyfile(path, to / name)


def _added(path: Path) -> dict[int, str]:
    """The added tokens of a tokenizer.json, by their numbers.

    The library would read it whole, which is left to a process that has limits.
    """
    with named_failure(f"{path} is no tokenizer", _INTACT):
        described = json.loads(read_tokenizer(path)).get("added_tokens") or ()
        return {token["id"]: token["content"] for token in described}


def _numbered(folder: Path, name: str) -> dict[int, Token]:
    """Added tokens by the ids that the folder states beside its tokenizer.json."""
    found: dict[int, Token] = {}
    special = {token["content"] for token in _named(folder)}
    for text, number in (json_in(folder, _ADDED) or {}).items():
        if not is_whole(number, 0, 1 << 32):
            raise _odd(name, _ADDED, text)
        found[number] = {"content": text, "normalized": False, "special": text in special}
    described = (json_in(folder, SETTINGS) or {}).get("added_tokens_decoder") or {}
    if not isinstance(described, dict):
        raise _odd(name, SETTINGS, "added_tokens_decoder")
    for key, token in described.items():
        if not key.isascii() or not key.isdigit() or not _is_token(token):
            raise _odd(name, SETTINGS, f"added_tokens_decoder.{key}")
        number = int(key)
        if number in found and found[number]["content"] != token["content"]:
            raise ConversionError(
                f"{name}: {SETTINGS} and {_ADDED} have two tokens for {number}, "
                f"{token['content']!r} and {found[number]['content']!r}.",
                _INTACT,
            )
        flags = {flag: token[flag] for flag in _FLAGS if flag in token}
        found[number] = {"content": token["content"], **flags}
    return found


def _named(folder: Path) -> list[Token]:
    """Tokens with a part of their own, such as ``pad_token``, for which no id may be stated."""
    found: dict[str, Token] = {}
    for file in (SETTINGS, _NAMED):
        values = json_in(folder, file) or {}
        single = [value for key, value in values.items() if key.endswith("_token")]
        for value in (*single, *_each(values.get("additional_special_tokens")),
                      *_each(values.get("extra_special_tokens"))):  # fmt: skip
            token = {"content": value} if isinstance(value, str) else value
            if _is_token(token):
                flags = {flag: token[flag] for flag in _FLAGS if flag in token}
                one = {"content": token["content"], "normalized": False, **flags, "special": True}
                found.setdefault(token["content"], one)
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
