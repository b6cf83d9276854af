"""The words of a question, spelled so that they are nothing but words to SQLite."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from allmem_runtime.passages.identifiers import parted
from allmem_runtime.passages.scripts import grams

MAX_WORDS = 128
"""Words of a question that are looked up; of a longer one the first and the last."""

_MAX_LETTERS = 64
_MAX_CHARACTERS = 1 << 14
"""Characters of a question at either end whose words are looked at."""

_WORD = re.compile(r"\w+")
_COMPOUND = re.compile(r"\b\w++(?:[-./:@]\w++)++")
_STOP = ".!?…؟۔।。！？"
# A stop that no space follows is none: 3.14, example.org. Possessive, so that no text takes long.
_SENTENCE = re.compile(
    rf"[^\n{_STOP}]*+(?:(?<![。！？])[{_STOP}]++(?!\s|$)(?<![。！？])[^\n{_STOP}]*+)*+"
    rf"[{_STOP}]*+[\"'”’»)\]」』]*+\n?\s*+"
)
_TITLE = re.compile(r"\b[A-Z][a-z]{0,2}\.\s*$")
_ASKS = re.compile(r"[?？؟][\"'”’»)\]」』]*\s*$")
_STEM = 4
_OTHER_ENDING = 0.9


def expressions(text: str) -> list[str]:
    """What to look for, each an expression of FTS5 that matches one word or one compound.

    A compound, such as ``10:42``, ``sub-folder``, ``a_name`` or ``aName``, is looked for as a whole
    and in parts.
    """
    found: dict[str, None] = {}
    named = [parted(word) for word in _WORD.findall(text)]
    inner = [name for name in named if " " in name]
    whole = [*_COMPOUND.findall(text), *_WORD.findall(text), *inner]
    for word in [*whole, *(part for name in inner for part in name.split())]:
        if len(word) <= _MAX_LETTERS and not grams(word):
            found[f"text : {_quoted(word.casefold())}"] = None
    for gram in grams(text):
        found[f"grams : {_quoted(gram)}"] = None
    words = list(found)
    return words if len(words) <= MAX_WORDS else words[: MAX_WORDS // 2] + words[-MAX_WORDS // 2 :]


def pairs(text: str) -> list[str]:
    """Each two words that follow each other: a first and a family name, a number and its unit."""
    words = [word.casefold() for word in _WORD.findall(parted(text))]
    found: dict[str, None] = {}
    for first, second in zip(words, words[1:], strict=False):
        if len(first) + len(second) <= _MAX_LETTERS and not grams(first + second):
            found[f"text : {_quoted(f'{first} {second}')}"] = None
    return list(found)[:MAX_WORDS]


def asking(text: str) -> tuple[str, str]:
    """The sentences of a text that ask, and those beside them; all of it where none is alone."""
    both: dict[bool, list[str]] = {True: [], False: []}
    for _, part in sentences(text):
        both[_ASKS.search(part) is not None].append(part)
    return ("".join(both[True]), "".join(both[False])) if both[True] else (text, "")


def ends_of(text: str) -> str:
    """The text, or the two ends of one that is longer than any question."""
    if len(text) <= 2 * _MAX_CHARACTERS:
        return text
    return f"{text[:_MAX_CHARACTERS]}\n{text[-_MAX_CHARACTERS:]}"


def _quoted(word: str) -> str:
    return '"' + word.replace('"', '""') + '"'


def word_of(expression: str) -> str:
    """The word or words that an expression looks for."""
    return expression.partition(" : ")[2].strip('"')


def parts(text: str) -> list[str]:
    """The words of an expression, without what stands between them."""
    return _WORD.findall(text)


def sentences(text: str) -> Iterator[tuple[int, str]]:
    """Sentences and lines of a passage, each with where it begins; together they are the text."""
    at = end = 0
    while end < len(text):
        match = _SENTENCE.match(text, end)
        end = match.end() if match and match.end() > end else end + 1
        # A short word with a capital and a stop, such as Mrs., seldom ends a sentence.
        if (
            end == len(text)
            or text[end - 1] == "\n"
            or not _TITLE.search(text, max(at, end - 9), end)
        ):
            yield at, text[at:end]
            at = end


def likeness(sentence: str, weights: dict[str, float]) -> float:
    """How much of the weight of expressions a sentence holds; endings of words are forgiven."""
    words = _WORD.findall(_plain(parted(sentence)))
    own = {*words, *_WORD.findall(_plain(sentence))}
    stems = {_stem(word) for word in own}
    joined = f" {' '.join(words)} "
    gathered = set(grams(sentence))
    total = 0.0
    for expression, weight in weights.items():
        parts = _WORD.findall(_plain(parted(word_of(expression))))
        if expression.startswith("grams"):
            total += weight * (parts[0] in gathered)
        elif len(parts) > 1:
            total += weight * (f" {' '.join(parts)} " in joined)
        elif parts and parts[0] in own:
            total += weight
        elif parts:
            total += _OTHER_ENDING * weight * (_stem(parts[0]) in stems)
    return total


def _plain(text: str) -> str:
    """Without accents and capitals, as the index has its words."""
    parted = unicodedata.normalize("NFD", text.casefold())
    return "".join(c for c in parted if not "\u0300" <= c <= "\u036f")


def _stem(word: str) -> str:
    return word[: max(_STEM, len(word) - 3)]
