"""Words of scripts that are written without spaces: pairs or triples of their characters.

Most Chinese and Japanese words have two characters, so pairs find them; Thai and its relatives
write syllables, for which triples are more telling.
"""

from __future__ import annotations

import re

PAIRED = (
    "\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
"""Characters, as a regular expression has them, whose neighbors are taken in pairs."""

TRIPLED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
"""And those whose neighbors are taken three by three."""

_RUNS = re.compile(f"([{PAIRED}]+)|([{TRIPLED}]+)")


def grams(text: str) -> list[str]:
    """Every pair or triple of neighboring characters, in a spelling that SQLite keeps whole.

    Returns:
        One word a pair, made of ASCII digits and letters; none for a text in other scripts.
    """
    found = []
    for match in _RUNS.finditer(text):
        run, size = match.group(), 2 if match.group(1) else 3
        # A vowel sign would end a word of SQLite's tokenizer, a number does not.
        codes = [str(ord(character)) for character in run]
        last = max(1, len(codes) - size + 1)
        found += ["q".join(codes[at : at + size]) for at in range(last)]
    return found
