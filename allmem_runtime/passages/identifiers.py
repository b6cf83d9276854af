"""Names of code and logs, spelled as the words they are made of: MAX_RETRIES, maxRetries.

People ask for ``MAX_UPLOAD_RETRIES`` by "how often may an upload be retried". A tokenizer has other
tokens for capitals and for what follows an underscore than for the same words in a sentence.
"""

from __future__ import annotations

import re

_CAPITALS = re.compile(r"(?<![^\W_])[A-Z]{4,}(?![^\W_])")
"""Words in capitals that are longer than most abbreviations."""

_INNER_CAPITAL = re.compile(r"(?<=[a-zß-öø-ÿ])(?=[A-ZÀ-ÖØ-Þ])|(?<=[A-Z0-9])(?=[A-Z][a-z]{2})")
"""Where a word begins within another: camelCase, XMLParser, utf8Decoder."""

_BESIDE_WORDS = re.compile(r"[!-&(-/:-@\[-`{-~“”„«»‘…–—]|(?<![^\W_])['’]|['’](?![^\W_])")
"""Signs that are no part of a word; scripts of their own have theirs within."""

_WORD = re.compile(r"[^\W_]+")


def spelled(text: str) -> str:
    """A text with its names spelled as words, each of its characters in its old place."""
    return _CAPITALS.sub(lambda word: word.group().lower(), text.replace("_", " "))


def parted(text: str) -> str:
    """A text with the words of its names apart from each other; it may become longer."""
    return _INNER_CAPITAL.sub(" ", text.replace("_", " "))


def words_alone(text: str) -> str:
    """The words of a text, those of its names apart, and nothing beside them but single spaces.

    A tokenizer has other tokens for ``"seagrass"`` and ``.seagrass`` than for a word of a question.
    """
    return " ".join(_BESIDE_WORDS.sub(" ", parted(text)).split())


def inner_words(text: str) -> str:
    """The words that a text has only within others, each group as it stands in its name."""
    names = [word for word in _WORD.findall(text) if _INNER_CAPITAL.search(word)]
    return "\n".join(parted(name) for name in dict.fromkeys(names))
