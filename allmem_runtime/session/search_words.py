"""Search words asked of the model itself, for a question in another language than the text's.

Such a question shares no words with the text, or by chance alone ("die", "war"). Small models
translate a question poorly, but well enough to find by.
"""

from __future__ import annotations

import re
import threading

from allmem_runtime.generation.sampling import Sampling
from allmem_runtime.session.by_state import written
from allmem_runtime.session.generating import Generating
from allmem_runtime.text.turns import Turns

KNOWN_SHARE = 0.5
"""A question of whose words the text has this share is in the text's language."""

SAMPLE = 4000
"""Characters of a text that tell its language."""

_WORDS = Sampling(temperature=0, max_tokens=24)
_LEAST = 0.05

_COMMONEST = {
    "English": "the of and to in is was that it for with he as",
    "German": "der die und das ist nicht ein zu den von mit sich auf",
    "French": "le la les des et est une que dans du pour pas qui",
    "Spanish": "el los las que y una del por con no se para su",
    "Italian": "il di che la una per non sono gli della del si con",
    "Portuguese": "o os as uma que não com para do da em um se",
    "Dutch": "het een van en de dat niet is op te zijn met voor",
    "Russian": "и в не на что он с как это по из но а",
}
_SCRIPTS = {
    "Japanese": re.compile(r"[\u3040-\u30ff]"),
    "Korean": re.compile(r"[\uac00-\ud7af]"),
    "Chinese": re.compile(r"[\u4e00-\u9fff]"),
}
_WORD = re.compile(r"\w+")


def language_of(text: str) -> str:
    """The English name of the language of a text, by its commonest words or its script.

    Returns:
        The name; empty where it is none of those that are known here.
    """
    for name, script in _SCRIPTS.items():  # in this order: Japanese has Chinese characters too
        if len(script.findall(text)) > _LEAST * len(text):
            return name
    words = _WORD.findall(text.casefold())
    counts = {
        name: sum(word in common for word in words)
        for name, common in ((name, set(words.split())) for name, words in _COMMONEST.items())
    }
    best = max(counts, key=lambda name: counts[name])
    return best if counts[best] > _LEAST * max(1, len(words)) else ""


def search_words(
    session: Generating, turns: Turns, question: str, language: str, cancelled: threading.Event
) -> str:
    """The question in another language, as well as the model can say it.

    Args:
        session: one that has read nothing.
        turns: of the model.
        question: of the user.
        language: its English name.
        cancelled: set from any thread to end it, together with ``session.cancel()``.
    """
    asked = f"Translate this question into {language}: {question}"
    session.likelihood(turns.question("start", asked, None), range(0))
    return "".join(written(session, _WORDS, cancelled))
